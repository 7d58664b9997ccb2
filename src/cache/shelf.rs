//! What is known by address, in memory, at most so much of it: what was stored longest ago leaves first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jid::BareJid;

/// See the module. There are thousands of entries: an address is there once, and what is in boxes takes no more room than
/// it needs, however full the map is.
#[derive(Debug)]
pub struct Shelf<T> {
    /// The most that all entries may weigh.
    limit: usize,
    weight: usize,
    entries: HashMap<Arc<str>, Box<Item<T>>>,
    /// Addresses by the order in which they were stored.
    order: BTreeMap<u64, Arc<str>>,
    counter: u64,
}

#[derive(Debug)]
struct Item<T> {
    number: u64,
    weight: usize,
    entry: T,
}

impl<T> Shelf<T> {
    pub fn new(limit: usize) -> Shelf<T> {
        Shelf { limit, weight: 0, entries: HashMap::new(), order: BTreeMap::new(), counter: 0 }
    }

    pub fn look_up(&self, jid: &BareJid) -> Option<&T> {
        self.entries.get(jid.as_str()).map(|item| &item.entry)
    }

    pub fn look_up_mut(&mut self, jid: &BareJid) -> Option<&mut T> {
        self.entries.get_mut(jid.as_str()).map(|item| &mut item.entry)
    }

    /// Of what weighs more than all may, nothing is kept.
    pub fn store(&mut self, jid: &BareJid, weight: usize, entry: T) {
        self.remove(jid);
        while self.weight + weight > self.limit {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.weight -= self.entries.remove(&oldest).map_or(0, |item| item.weight);
        }
        self.counter += 1;
        self.weight += weight;
        let address: Arc<str> = jid.as_str().into();
        self.order.insert(self.counter, address.clone());
        self.entries.insert(address, Box::new(Item { number: self.counter, weight, entry }));
    }

    pub fn remove(&mut self, jid: &BareJid) {
        if let Some(item) = self.entries.remove(jid.as_str()) {
            self.order.remove(&item.number);
            self.weight -= item.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(n: usize) -> BareJid {
        BareJid::new(&format!("u{n}@example.com")).expect("a bare JID")
    }

    #[test]
    fn the_oldest_leaves_first() {
        let mut shelf = Shelf::new(2);
        for (number, entry) in [(1, 'a'), (2, 'b'), (1, 'c'), (3, 'd')] {
            shelf.store(&jid(number), 1, entry);
        }
        assert_eq!([1, 2, 3].map(|n| shelf.look_up(&jid(n)).copied()), [Some('c'), None, Some('d')]);
        assert_eq!((shelf.entries.len(), shelf.order.len(), shelf.weight), (2, 2, 2));
        let mut none = Shelf::new(0);
        none.store(&jid(1), 1, 'a');
        assert_eq!(none.look_up(&jid(1)), None);
    }

    #[test]
    fn what_is_heavy_takes_the_place_of_several() {
        let mut shelf = Shelf::new(10);
        for (number, weight) in [(1, 3), (2, 3), (3, 4), (4, 5)] {
            shelf.store(&jid(number), weight, number);
        }
        let left = |shelf: &Shelf<usize>| (1..6).filter(|n| shelf.look_up(&jid(*n)).is_some()).collect::<Vec<_>>();
        assert_eq!((left(&shelf), shelf.weight), (vec![3, 4], 9));
        shelf.remove(&jid(3));
        shelf.store(&jid(5), 5, 5);
        assert_eq!((left(&shelf), shelf.weight), (vec![4, 5], 10));
        shelf.store(&jid(1), 11, 1);
        assert_eq!((left(&shelf), shelf.weight, shelf.order.len()), (vec![], 0, 0));
    }
}
