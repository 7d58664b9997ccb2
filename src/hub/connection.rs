//! A connection to one Redis server or to the nodes of a cluster, and what went wrong where there is none. How long
//! somebody waits is not decided here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, Value, cmd,
};

use crate::config::Host;
use crate::config::redis::{RedisAddress, RedisNode, Shape, Wire};

/// How long somebody who waits for something is kept waiting before he hears that there is nothing.
const BLOCK: Duration = Duration::from_secs(1);
/// How long he waits for that word.
const BLOCK_PATIENCE: Duration = Duration::from_secs(3);
/// Of a cluster's node, a part of the time that there is for all of them.
const NODE: Duration = Duration::from_millis(250);
/// How often a node of a cluster is asked again, or another one in its place.
const RETRIES: u32 = 3;
/// Between them, in milliseconds.
const RETRY_MS: u64 = 20;

/// One for many callers.
#[derive(Clone)]
pub struct Connection {
    line: Line,
    /// Tells connections apart.
    name: Arc<()>,
}

#[derive(Clone)]
enum Line {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Why there is no connection.
pub enum Unreached {
    Silent,
    Because(RedisError),
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreached::Silent => f.write_str("it does not answer"),
            Unreached::Because(error) => write!(f, "{error}"),
        }
    }
}

impl From<RedisError> for Unreached {
    fn from(error: RedisError) -> Unreached {
        Unreached::Because(error)
    }
}

impl Connection {
    pub async fn open(address: &RedisAddress) -> Result<Connection, RedisError> {
        Connection::with(address, NODE).await
    }

    pub async fn ask(&self, command: &Cmd) -> Result<Value, RedisError> {
        match self.line.clone() {
            Line::Single(mut connection) => command.query_async(&mut connection).await,
            Line::Cluster(mut connection) => command.query_async(&mut connection).await,
        }
    }

    pub fn is(&self, other: &Connection) -> bool {
        Arc::ptr_eq(&self.name, &other.name)
    }

    /// To a cluster, where one node may be lost and the others serve.
    pub fn is_of_many(&self) -> bool {
        matches!(self.line, Line::Cluster(_))
    }

    /// Where an answer may take so long.
    async fn with(address: &RedisAddress, answer: Duration) -> Result<Connection, RedisError> {
        let infos = address.nodes.iter().map(|node| info(address, node)).collect::<Result<Vec<_>, _>>()?;
        let line = match (address.shape, infos.first()) {
            (Shape::Single, Some(info)) => {
                let client = Client::open(info.clone())?;
                let config = AsyncConnectionConfig::new().set_connection_timeout(Some(NODE));
                let config = config.set_response_timeout(Some(answer));
                Line::Single(client.get_multiplexed_async_connection_with_config(&config).await?)
            }
            _ => {
                let cluster = ClusterClient::builder(infos)
                    .connection_timeout(NODE)
                    .response_timeout(answer)
                    .overall_response_timeout(Some(2 * answer))
                    .retries(RETRIES)
                    .min_retry_wait(1)
                    .max_retry_wait(RETRY_MS);
                Line::Cluster(cluster.build()?.get_async_connection().await?)
            }
        };
        Ok(Connection { line, name: Arc::new(()) })
    }
}

/// One who waits for what others put into a list.
pub struct Listener(Connection);

impl Listener {
    pub async fn open(address: &RedisAddress) -> Result<Listener, RedisError> {
        Connection::with(address, BLOCK_PATIENCE).await.map(Listener)
    }

    /// What was put into the list first, or nothing within a second. Not to be broken off: what is on its way would be
    /// lost.
    pub async fn next(&self, list: &str) -> Result<Option<Vec<u8>>, RedisError> {
        let mut wait = cmd("BLPOP");
        wait.arg(list).arg(BLOCK.as_secs());
        let found: Option<(Vec<u8>, Vec<u8>)> = redis::from_redis_value(self.0.ask(&wait).await?)?;
        Ok(found.map(|(_, bytes)| bytes))
    }
}

fn info(address: &RedisAddress, node: &RedisNode) -> Result<ConnectionInfo, RedisError> {
    let target = match (&node.host, address.wire) {
        (Host::Unix(path), _) => ConnectionAddr::Unix(path.clone()),
        (Host::Name(name), Wire::Plain) => ConnectionAddr::Tcp(name.clone(), node.port),
        (Host::Name(name), Wire::Tls) => {
            ConnectionAddr::TcpTls { host: name.clone(), port: node.port, insecure: false, tls_params: None }
        }
    };
    let mut who = RedisConnectionInfo::default().set_db(address.database.into()).set_skip_set_lib_name();
    if let Some(user) = &address.user {
        who = who.set_username(user);
    }
    if let Some(password) = &address.password {
        who = who.set_password(password.reveal());
    }
    Ok(target.into_connection_info()?.set_redis_settings(who))
}
