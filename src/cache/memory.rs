//! Presences by address in memory, at most so many: the one that was stored longest ago leaves first.

use std::collections::{BTreeMap, HashMap};

use jid::BareJid;

use super::Entry;

/// See the module.
#[derive(Debug)]
pub struct Shelf {
    limit: usize,
    entries: HashMap<BareJid, (u64, Entry)>,
    /// Addresses by the order in which they were stored.
    order: BTreeMap<u64, BareJid>,
    counter: u64,
}

impl Shelf {
    pub fn new(limit: usize) -> Shelf {
        Shelf { limit, entries: HashMap::new(), order: BTreeMap::new(), counter: 0 }
    }

    pub fn look_up(&self, jid: &BareJid) -> Option<&Entry> {
        self.entries.get(jid).map(|(_, entry)| entry)
    }

    pub fn store(&mut self, jid: &BareJid, entry: Entry) {
        self.remove(jid);
        while self.entries.len() >= self.limit {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.entries.remove(&oldest);
        }
        self.counter += 1;
        self.order.insert(self.counter, jid.clone());
        self.entries.insert(jid.clone(), (self.counter, entry));
    }

    pub fn remove(&mut self, jid: &BareJid) {
        if let Some((number, _)) = self.entries.remove(jid) {
            self.order.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::{Presence, State};

    #[test]
    fn the_oldest_leaves_first() {
        let jid = |n: usize| BareJid::new(&format!("u{n}@example.com")).expect("a bare JID");
        let entry = |at_ms| Entry { presence: Presence::bare(State::Away), at_ms };
        let mut shelf = Shelf::new(2);
        shelf.store(&jid(1), entry(1));
        shelf.store(&jid(2), entry(2));
        shelf.store(&jid(1), entry(3));
        shelf.store(&jid(3), entry(4));
        let there = |n| shelf.look_up(&jid(n)).map(|entry| entry.at_ms);
        assert_eq!([there(1), there(2), there(3)], [Some(3), None, Some(4)]);
        assert_eq!((shelf.entries.len(), shelf.order.len()), (2, 2));
        let mut none = Shelf::new(0);
        none.store(&jid(1), entry(1));
        assert_eq!(none.look_up(&jid(1)), None);
    }
}
