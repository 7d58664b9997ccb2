//! Who was told lately that he may not see whom: as long as that holds, he is told the same without a lookup.

use std::time::Duration;

use tokio::time::Instant;

use jid::BareJid;

use super::Pair;
use crate::access::Asker;
use crate::cache::shelf::Shelf;

/// Visitors that are remembered for one person; another takes the place of the oldest.
const ASKERS: usize = 100;

/// See the module.
#[derive(Debug)]
pub struct Refusals {
    ttl: Duration,
    people: Shelf<Vec<(Asker, Instant)>>,
}

impl Refusals {
    pub fn new(most: usize, ttl: Duration) -> Refusals {
        Refusals { ttl, people: Shelf::new(most.max(1)) }
    }

    pub fn age(&self, pair: &Pair, now: Instant) -> Option<Duration> {
        let told = self.people.look_up(&pair.target)?;
        let (_, at) = told.iter().find(|(asker, _)| *asker == pair.asker)?;
        Some(now.saturating_duration_since(*at)).filter(|age| *age <= self.ttl)
    }

    pub fn insert(&mut self, pair: &Pair, now: Instant) {
        let mut told = self.people.look_up(&pair.target).cloned().unwrap_or_default();
        told.retain(|(asker, at)| *asker != pair.asker && now.saturating_duration_since(*at) <= self.ttl);
        if told.len() >= ASKERS {
            told.remove(0);
        }
        told.push((pair.asker.clone(), now));
        self.people.store(&pair.target, told.len(), told);
    }

    pub fn remove(&mut self, target: &BareJid) {
        self.people.remove(target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    fn jid(name: &str) -> BareJid {
        BareJid::new(&format!("{name}@example.com")).expect("a bare JID")
    }

    fn pair(target: &str, asker: Asker) -> Pair {
        Pair { target: jid(target), asker }
    }

    #[test]
    fn only_who_was_told_is_told_again() {
        let now = Instant::now();
        let mut refusals = Refusals::new(10, TTL);
        let (claimed, proven) = (Asker::Claimed(jid("bob")), Asker::Proven(jid("bob")));
        refusals.insert(&pair("alice", claimed.clone()), now);
        for (target, asker, after, age) in [
            ("alice", claimed.clone(), 0, Some(0)),
            ("alice", claimed.clone(), 30, Some(30)),
            ("alice", claimed.clone(), 31, None),
            ("alice", proven.clone(), 0, None),
            ("alice", Asker::Claimed(jid("carol")), 0, None),
            ("alice", Asker::Nobody, 0, None),
            ("carol", claimed.clone(), 0, None),
        ] {
            let found = refusals.age(&pair(target, asker.clone()), now + Duration::from_secs(after));
            assert_eq!(found, age.map(Duration::from_secs), "{target} {asker:?} {after}");
        }
        refusals.insert(&pair("alice", Asker::Nobody), now + TTL);
        refusals.insert(&pair("alice", claimed.clone()), now + TTL);
        assert_eq!(refusals.age(&pair("alice", claimed.clone()), now + TTL), Some(Duration::ZERO));
        refusals.remove(&jid("alice"));
        assert_eq!(refusals.age(&pair("alice", claimed), now), None);
    }

    #[test]
    fn strangers_cannot_make_it_grow() {
        let now = Instant::now();
        let mut refusals = Refusals::new(200, TTL);
        for n in 0..ASKERS + 5 {
            refusals.insert(&pair("alice", Asker::Claimed(jid(&format!("u{n}")))), now);
        }
        let remembered = |refusals: &Refusals, target: &str| {
            (0..1000)
                .filter(|n| refusals.age(&pair(target, Asker::Claimed(jid(&format!("u{n}")))), now).is_some())
                .count()
        };
        assert_eq!(remembered(&refusals, "alice"), ASKERS);
        for n in 0..200 {
            refusals.insert(&pair(&format!("t{n}"), Asker::Nobody), now);
        }
        assert_eq!(remembered(&refusals, "alice"), 0, "the oldest left");
        let left = (0..200).filter(|n| refusals.age(&pair(&format!("t{n}"), Asker::Nobody), now).is_some()).count();
        assert_eq!(left, 200);
    }
}
