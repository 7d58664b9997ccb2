//! Who may be asked about, by which identity, and who may see the answer. It is pure and knows neither the web nor
//! XMPP: who asks is proved elsewhere, what his roster says is found out elsewhere, and what follows is decided here.

use jid::BareJid;

use crate::config::{Access, Config, Identity, Visibility};
use crate::viewers::Viewers;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Asker {
    /// Nobody, or nobody who is believed.
    Nobody,
    /// Somebody who says so himself.
    Claimed(BareJid),
    /// Somebody known by a login or a signature.
    Proven(BareJid),
}

impl Asker {
    pub fn jid(&self) -> Option<&BareJid> {
        match self {
            Asker::Nobody => None,
            Asker::Claimed(jid) | Asker::Proven(jid) => Some(jid),
        }
    }
}

/// The identity that speaks for a target: the first whose domains hold it.
pub fn serving<'a>(config: &'a Config, target: &BareJid) -> Option<&'a Identity> {
    let domain = target.domain().as_str();
    config.identities.iter().find(|identity| identity.access.domains.iter().any(|pattern| pattern.holds(domain)))
}

/// Whether it matters who asks. A target without a local part (component, server, room service) has no roster, so that
/// every visitor may see it.
pub fn needs_asker(access: &Access, target: &BareJid) -> bool {
    access.visibility == Visibility::Subscribers && target.node().is_some()
}

/// Whether the lists of the configuration take this target out.
pub fn is_excluded(access: &Access, target: &BareJid) -> bool {
    let is_allowed = access.allow.is_empty() || access.allow.iter().any(|pattern| pattern.holds(target));
    !is_allowed || access.deny.iter().any(|pattern| pattern.holds(target))
}

/// Whether somebody may see a target that has agreed to be shown. `viewers` are those of its roster, where that can be
/// read; `[viewers]` speaks where it cannot. Nobody becomes the target itself by saying so.
pub fn may_see(access: &Access, target: &BareJid, asker: &Asker, viewers: Option<&Viewers>) -> bool {
    if !needs_asker(access, target) {
        return true;
    }
    match (asker, viewers) {
        (Asker::Nobody, _) => false,
        (Asker::Proven(jid), _) if jid == target => true,
        (Asker::Claimed(jid), _) if jid == target => false,
        (Asker::Claimed(jid) | Asker::Proven(jid), Some(viewers)) => viewers.holds(jid),
        (Asker::Claimed(jid) | Asker::Proven(jid), None) => access.lists(target, jid),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{self, DomainPattern, JidPattern};

    fn jid(text: &str) -> BareJid {
        BareJid::new(text).expect("the rows hold addresses")
    }

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
            ("a@room.example.com", Some("closed")),
            ("room.example.com", Some("closed")),
            ("a@open.example", None),
            ("a@x.open.example", Some("open")),
            ("a@x.y.open.example", Some("open")),
            ("a@notopen.example", None),
            ("a@corp.example", Some("closed")),
            ("corp.example", Some("closed")),
            ("a@192.0.2.1", Some("late")),
            ("a@other.example", None),
            ("other.example", None),
            ("a@münchen.example", None),
        ];
        for (address, expected) in rows {
            let identity = serving(&config, &jid(address));
            assert_eq!(identity.map(|identity| identity.name.as_str()), expected, "{address}");
        }
    }

    fn access(visibility: Visibility) -> Access {
        let exactly = |text: &str| JidPattern::Exactly(jid(text));
        let everybody = |domain: &str| JidPattern::Everybody(DomainPattern::Exactly(domain.into()));
        Access {
            visibility,
            allow: vec![everybody("example.com"), exactly("example.com")],
            deny: vec![exactly("eve@example.com")],
            viewers: vec![
                (exactly("alice@example.com"), vec![exactly("bob@example.com"), everybody("corp.example")]),
                (everybody("example.com"), vec![exactly("boss@example.com")]),
            ],
            ..Access::open(Vec::new())
        }
    }

    #[test]
    fn deny_wins_over_allow() {
        let access = access(Visibility::Anyone);
        for (target, excluded) in [
            ("alice@example.com", false),
            ("eve@example.com", true),
            ("example.com", false),
            ("room.example.com", true),
            ("alice@room.example.com", true),
        ] {
            assert_eq!(is_excluded(&access, &jid(target)), excluded, "{target}");
        }
        assert!(!is_excluded(&Access::open(Vec::new()), &jid("eve@example.com")));
    }

    #[test]
    fn who_may_see_whom() {
        let access = access(Visibility::Subscribers);
        let roster = Viewers::of(&[jid("carol@example.com"), jid("alice@example.com")]);
        let alice = "alice@example.com";
        // Target, who asks, and whether he may: by a claim and proven, with the roster and by the configuration.
        for (target, asker, [claimed, proven], [claimed_listed, proven_listed]) in [
            (alice, alice, [false, true], [false, true]),
            (alice, "alice@evil.example", [false, false], [false, false]),
            (alice, "carol@example.com", [true, true], [false, false]),
            (alice, "bob@example.com", [false, false], [true, true]),
            (alice, "x@corp.example", [false, false], [true, true]),
            (alice, "boss@example.com", [false, false], [true, true]),
            (alice, "corp.example", [false, false], [false, false]),
            ("dave@example.com", "bob@example.com", [false, false], [false, false]),
            ("dave@example.com", "boss@example.com", [false, false], [true, true]),
            ("example.com", "bob@example.com", [true, true], [true, true]),
        ] {
            let may = |asker: Asker, viewers| may_see(&access, &jid(target), &asker, viewers);
            let both = |viewers| [may(Asker::Claimed(jid(asker)), viewers), may(Asker::Proven(jid(asker)), viewers)];
            assert_eq!(both(Some(&roster)), [claimed, proven], "{asker} about {target}, by the roster");
            assert_eq!(both(None), [claimed_listed, proven_listed], "{asker} about {target}, by the configuration");
        }
        assert!(!may_see(&access, &jid(alice), &Asker::Nobody, Some(&roster)));
        assert!(may_see(&access, &jid("example.com"), &Asker::Nobody, None), "a host has no roster");
        assert!(may_see(&self::access(Visibility::Anyone), &jid(alice), &Asker::Nobody, None));
    }
}
