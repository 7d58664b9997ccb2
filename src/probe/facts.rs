//! What sessions have taught about servers and people, and what the next session may build on. Kept for the life of
//! the process; bounded, since strangers choose what is asked about.

use std::collections::HashMap;
use std::time::Duration;

use jid::BareJid;
use tokio::time::Instant;

use crate::config::ServerKind;

/// How long an answer proves that somebody consented.
const CONSENT: Duration = Duration::from_secs(24 * 3600);
/// Facts of one sort that are kept; over it the sort starts anew.
const LIMIT: usize = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Facts {
    kinds: HashMap<String, ServerKind>,
    consents: HashMap<BareJid, Instant>,
}

impl Facts {
    /// Which software serves a domain.
    pub fn kind(&self, domain: &str) -> Option<ServerKind> {
        self.kinds.get(domain).copied()
    }

    pub fn learn_kind(&mut self, domain: &str, kind: ServerKind) {
        if self.kinds.len() >= LIMIT {
            self.kinds.clear();
        }
        self.kinds.insert(domain.to_owned(), kind);
    }

    /// Somebody was seen, within a day, and has not refused since.
    pub fn consented(&self, jid: &BareJid, now: Instant) -> bool {
        self.consents.get(jid).is_some_and(|seen| now.saturating_duration_since(*seen) < CONSENT)
    }

    pub fn learn_consent(&mut self, jid: &BareJid, now: Instant) {
        if self.consents.len() >= LIMIT {
            self.consents.clear();
        }
        self.consents.insert(jid.clone(), now);
    }

    pub fn forget_consent(&mut self, jid: &BareJid) {
        self.consents.remove(jid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consent_is_believed_for_a_day_and_never_past_a_refusal() {
        let (mut facts, now) = (Facts::default(), Instant::now());
        let bob = BareJid::new("bob@example.com").expect("a bare JID");
        assert!(!facts.consented(&bob, now));
        facts.learn_consent(&bob, now);
        assert!(facts.consented(&bob, now + CONSENT - Duration::from_secs(1)));
        assert!(!facts.consented(&bob, now + CONSENT));
        facts.forget_consent(&bob);
        assert!(!facts.consented(&bob, now));
    }

    #[test]
    fn strangers_cannot_make_it_grow() {
        let (mut facts, now) = (Facts::default(), Instant::now());
        for number in 0..LIMIT + 1 {
            facts.learn_kind(&format!("{number}.example"), ServerKind::Other);
            facts.learn_consent(&BareJid::new(&format!("u@{number}.example")).expect("a bare JID"), now);
        }
        assert_eq!((facts.kinds.len(), facts.consents.len()), (1, 1));
    }
}
