//! Who was told lately that he may not see whom: as long as that holds, he is told the same without a lookup. Of
//! somebody who only says who he is, it is the client that was told: nobody learns that another one has asked.

use std::net::IpAddr;
use std::time::Duration;

use jid::BareJid;
use tokio::time::Instant;

use super::Pair;
use crate::access::Asker;
use crate::cache::shelf::Shelf;

/// Visitors that are remembered for one person; another takes the place of the oldest.
const ASKERS: usize = 100;

/// See the module.
#[derive(Debug)]
pub struct Refusals {
    ttl: Duration,
    /// For one person.
    most: usize,
    people: Shelf<Vec<Told>>,
}

/// That somebody was told.
#[derive(Clone, Debug)]
struct Told {
    asker: Asker,
    client: Option<IpAddr>,
    at: Instant,
}

impl Told {
    fn new(pair: &Pair, client: Option<IpAddr>, at: Instant) -> Told {
        let client = client.filter(|_| matches!(pair.asker, Asker::Claimed(_)));
        Told { asker: pair.asker.clone(), client, at }
    }

    fn is_to(&self, other: &Told) -> bool {
        (&self.asker, self.client) == (&other.asker, other.client)
    }
}

impl Refusals {
    pub fn new(most: usize, ttl: Duration) -> Refusals {
        let room = most.max(1);
        Refusals { ttl, most: ASKERS.min(room), people: Shelf::new(room) }
    }

    pub fn age(&self, pair: &Pair, client: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let asked = Told::new(pair, client, now);
        let told = self.people.look_up(&pair.target)?.iter().find(|told| told.is_to(&asked))?;
        Some(now.saturating_duration_since(told.at)).filter(|age| *age <= self.ttl)
    }

    pub fn insert(&mut self, pair: &Pair, client: Option<IpAddr>, now: Instant) {
        let new = Told::new(pair, client, now);
        let mut told = self.people.look_up(&pair.target).cloned().unwrap_or_default();
        told.retain(|known| !known.is_to(&new) && now.saturating_duration_since(known.at) <= self.ttl);
        if told.len() >= self.most {
            told.remove(0);
        }
        told.push(new);
        self.people.store(&pair.target, told.len(), told);
    }

    pub fn remove(&mut self, target: &BareJid) {
        self.people.remove(target);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const TTL: Duration = Duration::from_secs(30);
    const HERE: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));

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
        refusals.insert(&pair("alice", claimed.clone()), HERE, now);
        for (target, asker, after, age) in [
            ("alice", claimed.clone(), 0, Some(0)),
            ("alice", claimed.clone(), 30, Some(30)),
            ("alice", claimed.clone(), 31, None),
            ("alice", proven.clone(), 0, None),
            ("alice", Asker::Claimed(jid("carol")), 0, None),
            ("alice", Asker::Nobody, 0, None),
            ("carol", claimed.clone(), 0, None),
        ] {
            let found = refusals.age(&pair(target, asker.clone()), HERE, now + Duration::from_secs(after));
            assert_eq!(found, age.map(Duration::from_secs), "{target} {asker:?} {after}");
        }
        for asker in [Asker::Nobody, claimed.clone(), proven.clone()] {
            refusals.insert(&pair("alice", asker.clone()), HERE, now + TTL);
            let age = |client| refusals.age(&pair("alice", asker.clone()), client, now + TTL);
            assert_eq!(age(HERE), Some(Duration::ZERO));
            // What somebody claims elsewhere tells him nothing about who else has claimed it.
            assert_eq!(age(None).is_some(), asker != claimed, "{asker:?}");
        }
        refusals.remove(&jid("alice"));
        assert_eq!(refusals.age(&pair("alice", claimed), HERE, now), None);
    }

    #[test]
    fn strangers_cannot_make_it_grow() {
        let now = Instant::now();
        let mut refusals = Refusals::new(200, TTL);
        for n in 0..ASKERS + 5 {
            refusals.insert(&pair("alice", Asker::Claimed(jid(&format!("u{n}")))), HERE, now);
        }
        let remembered = |refusals: &Refusals, target: &str| {
            (0..1000)
                .filter(|n| refusals.age(&pair(target, Asker::Claimed(jid(&format!("u{n}")))), HERE, now).is_some())
                .count()
        };
        assert_eq!(remembered(&refusals, "alice"), ASKERS);
        for n in 0..200 {
            refusals.insert(&pair(&format!("t{n}"), Asker::Nobody), HERE, now);
        }
        assert_eq!(remembered(&refusals, "alice"), 0, "the oldest left");
        let left =
            (0..200).filter(|n| refusals.age(&pair(&format!("t{n}"), Asker::Nobody), HERE, now).is_some()).count();
        assert_eq!(left, 200);
        let mut few = Refusals::new(2, TTL);
        (0..5).for_each(|n| few.insert(&pair("alice", Asker::Claimed(jid(&format!("u{n}")))), HERE, now));
        assert_eq!(remembered(&few, "alice"), 2, "as many as there is room for");
    }
}
