//! Who asks, as far as the configuration believes it: what the request claims, the web server's login, or a signed
//! link. Whether he may see anything is for `access`.

use std::net::IpAddr;

use jid::BareJid;

use super::origins;
use super::request::{Query, Request};
use crate::access::Asker;
use crate::config::{Identity, Requester};

/// Who asks this identity.
pub fn asker(request: &Request, query: &Query, identity: &Identity) -> Asker {
    let access = &identity.access;
    match &access.requester {
        Requester::Query => query.req_jid.clone().map_or(Asker::Nobody, Asker::Claimed),
        // No page is to read what its visitor may see.
        Requester::RemoteUser { .. } if origins::is_foreign(request, &access.cors) => Asker::Nobody,
        Requester::RemoteUser { domain } => login(request, domain).map_or(Asker::Nobody, Asker::Proven),
        Requester::Signed(_) => {
            query.proven(&identity.jid).map_or(Asker::Nobody, |proven| Asker::Proven(proven.requester.clone()))
        }
    }
}

/// The web server's own login. A name alone is none: nginx hands over that of any Basic header (`$remote_user`), whose
/// password nobody has looked at. Only what a location with a login sets tells them apart.
fn login(request: &Request, domain: &str) -> Option<BareJid> {
    let is_checked = request.var("AUTH_TYPE").is_some() || request.var("WEBPRESENCE_AUTH") == Some(b"1");
    let name = request.var("REMOTE_USER").filter(|_| is_checked)?;
    let name = str::from_utf8(name).ok()?;
    let whole = if name.contains('@') { name.to_owned() } else { format!("{name}@{domain}") };
    let jid = BareJid::new(&whole).ok()?;
    // Where people choose their names, one that only becomes another's by Unicode's rules (ª, full width) is not his.
    let is_plain = jid.node().is_some_and(|node| whole.to_ascii_lowercase().starts_with(&format!("{node}@")));
    (is_plain && jid.domain().as_str() == domain).then_some(jid)
}

/// The address a request comes from, where the web server tells it.
pub fn client(request: &Request) -> Option<IpAddr> {
    str::from_utf8(request.var("REMOTE_ADDR")?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn logins_that_are_believed() {
        for (name, auth_type, marked, expected) in [
            ("alice", "", "1", Some("alice@example.com")),
            ("alice", "Basic", "", Some("alice@example.com")),
            ("Alice@Example.com", "", "1", Some("alice@example.com")),
            ("alice", "", "", None),
            ("alice", "", "yes", None),
            ("alice@evil.example", "", "1", None),
            ("alice@example.com@evil.example", "", "1", None),
            ("alice@evil.example@example.com", "", "1", None),
            ("alice/home", "", "1", None),
            ("alice@example.com/home", "", "1", None),
            ("@example.com", "", "1", None),
            ("uid=alice, dc=example", "", "1", None),
            ("a lice", "", "1", None),
            ("ärger", "", "1", Some("ärger@example.com")),
            ("ªlice", "", "1", None),
            ("ａlice", "", "1", None),
            ("\u{212a}arl", "", "1", None),
            ("Ärger", "", "1", None),
            ("", "Basic", "1", None),
        ] {
            let vars = [("REMOTE_USER", name), ("AUTH_TYPE", auth_type), ("WEBPRESENCE_AUTH", marked)];
            let request = Request { vars: vars.into(), body: vec![], excess: None, arrived: Instant::now() };
            let found = login(&request, "example.com");
            assert_eq!(found.as_ref().map(|jid| jid.as_str()), expected, "{name} {auth_type} {marked}");
        }
    }
}
