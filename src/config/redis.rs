//! Where the Redis or Valkey server is that machines share, as `[cache] url` says it: one address, or several nodes of a
//! cluster. Pure; the password in it is a secret from here on.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

use super::values::items;
use super::{Host, Secret};

/// What Redis listens on.
const PORT: u16 = 6379;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisAddress {
    /// Of a cluster some, else the one server.
    pub nodes: Vec<RedisNode>,
    pub shape: Shape,
    pub wire: Wire,
    /// Without one it is the server's `default`.
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub database: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisNode {
    pub host: Host,
    /// Means nothing beside a Unix socket.
    pub port: u16,
}

impl fmt::Display for RedisNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Unix(path) => write!(f, "{}", path.display()),
            Host::Name(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Single,
    Cluster,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Plain,
    Tls,
}

/// A list of URLs as most programs write them. Only the first has to say who we are.
pub(super) fn address(text: &str) -> Result<RedisAddress, &'static str> {
    let mut nodes = items(text).map(one);
    let mut address = nodes.next().ok_or("there is no URL")??;
    for node in nodes {
        let node = node?;
        let is_said = node.user.is_some() || node.password.is_some();
        if is_said && (&node.user, &node.password) != (&address.user, &address.password) {
            return Err("the nodes of a cluster have one user and one password");
        }
        if node.wire != address.wire {
            return Err("the nodes of a cluster are all reached by TLS, or none");
        }
        address.shape = Shape::Cluster;
        address.database = address.database.max(node.database);
        address.nodes.extend(node.nodes);
    }
    if address.shape == Shape::Cluster {
        if address.nodes.iter().any(|node| matches!(node.host, Host::Unix(_))) {
            return Err("a cluster has no Unix sockets");
        }
        if address.database != 0 {
            return Err("a cluster has no databases");
        }
    }
    Ok(address)
}

fn one(text: &str) -> Result<RedisAddress, &'static str> {
    let url = Url::parse(text).map_err(|_| "is not a URL")?;
    let (shape, wire) = match url.scheme() {
        "redis" | "valkey" => (Shape::Single, Wire::Plain),
        "rediss" | "valkeys" => (Shape::Single, Wire::Tls),
        "redis+cluster" | "valkey+cluster" => (Shape::Cluster, Wire::Plain),
        "rediss+cluster" | "valkeys+cluster" => (Shape::Cluster, Wire::Tls),
        "unix" | "redis+unix" | "valkey+unix" => return socket(&url),
        _ => return Err("is no URL of a Redis"),
    };
    if wire == Wire::Tls && !cfg!(feature = "rustls") {
        return Err("needs rustls, which is not in this build of webpresence");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has more than a host, a port and a database");
    }
    let host = match url.host().ok_or("has no host")? {
        url::Host::Domain(name) => decoded(name)?,
        url::Host::Ipv4(ip) => ip.to_string(),
        url::Host::Ipv6(ip) => ip.to_string(),
    };
    let plain = |c: char| c.is_alphanumeric() || "-._:".contains(c);
    if host.is_empty() || !host.chars().all(plain) {
        return Err("has no host");
    }
    let database = match url.path().trim_start_matches('/') {
        "" => 0,
        number => number.parse().map_err(|_| "the database is no number up to 255")?,
    };
    let node = RedisNode { host: Host::Name(host), port: url.port().unwrap_or(PORT) };
    let user = Some(decoded(url.username())?).filter(|user| !user.is_empty());
    let password = url.password().map(decoded).transpose()?.filter(|password| !password.is_empty());
    if user.is_some() && password.is_none() {
        return Err("has a user without a password");
    }
    Ok(RedisAddress { nodes: vec![node], shape, wire, user, password: password.map(Secret::new), database })
}

/// `unix:/path?db=1&user=u&pass=p`.
fn socket(url: &Url) -> Result<RedisAddress, &'static str> {
    let path = decoded(url.path())?;
    if url.has_host() || !path.starts_with('/') || path.len() < 2 {
        return Err("the socket's path is not absolute");
    }
    let host = Host::Unix(PathBuf::from(path));
    let node = RedisNode { host, port: PORT };
    let (mut user, mut password, mut database) = (None, None, 0);
    for (name, value) in url.query_pairs() {
        match &*name {
            "db" => database = value.parse().map_err(|_| "the database is no number up to 255")?,
            "user" => user = Some(value.into_owned()),
            "pass" => password = Some(Secret::new(value.into_owned())),
            _ => return Err("has more than db, user and pass"),
        }
    }
    if user.is_some() && password.is_none() {
        return Err("has a user without a password");
    }
    Ok(RedisAddress { nodes: vec![node], shape: Shape::Single, wire: Wire::Plain, user, password, database })
}

fn decoded(text: &str) -> Result<String, &'static str> {
    percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).map_err(|_| "is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that was read, in one line; a password as it is.
    fn told(text: &str) -> String {
        let address = match address(text) {
            Ok(address) => address,
            Err(why) => return why.to_owned(),
        };
        let nodes: Vec<String> = address.nodes.iter().map(ToString::to_string).collect();
        let RedisAddress { shape, wire, user, password, database, .. } = &address;
        let who = (user.as_deref(), password.as_ref().map(Secret::reveal));
        format!("{shape:?} {wire:?} [{}] {who:?} {database}", nodes.join(", "))
    }

    #[test]
    fn addresses_are_read_as_other_programs_write_them() {
        let table = [
            ("redis://127.0.0.1", "Single Plain [127.0.0.1:6379] (None, None) 0"),
            ("redis://cache.example.com:7000/3", "Single Plain [cache.example.com:7000] (None, None) 3"),
            ("valkey://:p%40ss@[::1]/", "Single Plain [[::1]:6379] (None, Some(\"p@ss\")) 0"),
            ("redis://u:p@h", "Single Plain [h:6379] (Some(\"u\"), Some(\"p\")) 0"),
            ("unix:/run/redis.sock", "Single Plain [/run/redis.sock] (None, None) 0"),
            (
                "redis+unix:///run/r.sock?db=2&user=u&pass=p%25",
                "Single Plain [/run/r.sock] (Some(\"u\"), Some(\"p%\")) 2",
            ),
            ("redis+cluster://a:7000", "Cluster Plain [a:7000] (None, None) 0"),
            ("redis://u:p@a:1, redis://b:2 redis://c", "Cluster Plain [a:1, b:2, c:6379] (Some(\"u\"), Some(\"p\")) 0"),
            ("redis://:p@a,redis://:p@b", "Cluster Plain [a:6379, b:6379] (None, Some(\"p\")) 0"),
            ("redis://:p@a,redis://:q@b", "the nodes of a cluster have one user and one password"),
            ("redis://a,redis://:q@b", "the nodes of a cluster have one user and one password"),
            ("redis://a,redis://b/1", "a cluster has no databases"),
            ("redis://a,unix:/b", "a cluster has no Unix sockets"),
            ("redis+cluster://a/1", "a cluster has no databases"),
            ("redis://u@a", "has a user without a password"),
            ("redis://a/256", "the database is no number up to 255"),
            ("redis://a/x", "the database is no number up to 255"),
            ("redis://a?db=1", "has more than a host, a port and a database"),
            ("redis://", "has no host"),
            ("redis://a b", "is not a URL"),
            ("redis://*", "has no host"),
            ("http://a", "is no URL of a Redis"),
            ("unix:a", "the socket's path is not absolute"),
            ("unix://h/a", "the socket's path is not absolute"),
            ("unix:/a?x=1", "has more than db, user and pass"),
            ("a:1", "is no URL of a Redis"),
            ("127.0.0.1", "is not a URL"),
            (",", "there is no URL"),
        ];
        for (text, expected) in table {
            assert_eq!(told(text), expected, "{text}");
        }
        let tls = if cfg!(feature = "rustls") {
            ("Single Tls [a:6379] (None, None) 0", "the nodes of a cluster are all reached by TLS, or none")
        } else {
            ("needs rustls, which is not in this build of webpresence", "is")
        };
        assert_eq!(told("rediss://a"), tls.0);
        assert!(told("redis://a,rediss://b").contains(tls.1));
    }

    #[test]
    fn the_password_prints_as_stars() {
        let address = address("redis://u:hunter2@a").expect("an address");
        assert!(!format!("{address:?}").contains("hunter2"), "{address:?}");
    }
}
