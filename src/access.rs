//! Who may be asked about, and by which identity. It is pure and knows neither the web nor XMPP: "not served" and
//! "not allowed" leave here as one value, so that nobody behind can tell them apart by accident.

use jid::BareJid;

use crate::config::{Config, Identity, Visibility};

/// What to do about one address.
#[derive(Clone, Copy, Debug)]
pub enum Decision<'a> {
    /// This identity asks.
    Ask(&'a Identity),
    /// Nobody is asked.
    Forbidden,
}

/// Decides about one target: the first identity whose domains hold it speaks for it. A target without a local part
/// (component, server) has no roster, so that it needs no requester and is asked under either visibility.
pub fn decide<'a>(config: &'a Config, target: &BareJid) -> Decision<'a> {
    match serving(config, target) {
        Some(identity) if identity.access.visibility == Visibility::Anyone || target.node().is_none() => {
            Decision::Ask(identity)
        }
        _ => Decision::Forbidden,
    }
}

/// True where the answer depends on no requester, whichever identity gives it. What is said alike about everybody
/// (a refusal, a target that nobody serves) goes by this and not by one identity, which would be a hint.
pub fn is_open(config: &Config) -> bool {
    config.identities.iter().all(|identity| identity.access.visibility == Visibility::Anyone)
}

/// The identity that speaks for a target: the first whose domains hold it.
pub fn serving<'a>(config: &'a Config, target: &BareJid) -> Option<&'a Identity> {
    let domain = target.domain().as_str();
    config.identities.iter().find(|identity| identity.access.domains.iter().any(|pattern| pattern.holds(domain)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    /// Identities by name, visibility and domains.
    fn config(identities: &[(&str, &str, &str)]) -> Config {
        let sections = identities.iter().map(|(name, visibility, domains)| {
            let xmpp = format!("[xmpp {name}]\njid = {name}.example.com\npassword = secret\n");
            format!("{xmpp}[access {name}]\nvisibility = {visibility}\ndomains = {domains}\n")
        });
        let text: String = sections.collect();
        config::parse(&text, Path::new("test.ini")).unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn the_first_identity_that_serves_a_domain_speaks_for_it() {
        let config = config(&[
            ("open", "anyone", "example.com, *.open.example"),
            ("closed", "subscribers", "*.example.com, Corp.Example"),
            ("late", "anyone", "corp.example, 192.0.2.1"),
        ]);
        let rows = [
            ("a@example.com", Some("open")),
            ("A@EXAMPLE.com", Some("open")),
            ("example.com", Some("open")),
            ("a@xexample.com", None),
            ("a@room.example.com", None),
            ("room.example.com", Some("closed")),
            ("a@open.example", None),
            ("a@x.open.example", Some("open")),
            ("a@x.y.open.example", Some("open")),
            ("a@notopen.example", None),
            ("a@corp.example", None),
            ("corp.example", Some("closed")),
            ("a@192.0.2.1", Some("late")),
            ("a@other.example", None),
            ("other.example", None),
            ("a@münchen.example", None),
        ];
        for (jid, expected) in rows {
            let decision = decide(&config, &BareJid::new(jid).expect("the rows hold addresses"));
            let name = match decision {
                Decision::Ask(identity) => Some(identity.name.as_str()),
                Decision::Forbidden => None,
            };
            assert_eq!(name, expected, "{jid}");
        }
    }

    #[test]
    fn one_closed_identity_closes_what_is_said_alike() {
        let (open, closed) = (("open", "anyone", "a.example"), ("closed", "subscribers", "b.example"));
        assert!(is_open(&config(&[open])));
        assert!(is_open(&config(&[open, ("other", "anyone", "c.example")])));
        assert!(!is_open(&config(&[open, closed])));
        assert!(!is_open(&config(&[closed])));
    }
}
