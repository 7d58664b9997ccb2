//! What is known by address, in memory, at most so much of it: what was stored longest ago leaves first.

use std::hash::RandomState;

use hashlink::LinkedHashMap;
use jid::BareJid;

/// See the module. There are thousands of entries: each is one allocation beside its address.
#[derive(Debug)]
pub struct Shelf<T> {
    /// The most that all entries may weigh.
    limit: usize,
    weight: usize,
    /// In the order in which they were stored.
    entries: LinkedHashMap<Box<str>, Item<T>, RandomState>,
}

#[derive(Debug)]
struct Item<T> {
    weight: usize,
    entry: T,
}

impl<T> Shelf<T> {
    pub fn new(limit: usize) -> Shelf<T> {
        Shelf { limit, weight: 0, entries: LinkedHashMap::with_hasher(RandomState::new()) }
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
            let Some((_, oldest)) = self.entries.pop_front() else { return };
            self.weight -= oldest.weight;
        }
        self.weight += weight;
        self.entries.insert(jid.as_str().into(), Item { weight, entry });
    }

    pub fn remove(&mut self, jid: &BareJid) {
        if let Some(item) = self.entries.remove(jid.as_str()) {
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
        assert_eq!((shelf.entries.len(), shelf.weight), (2, 2));
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
        assert_eq!((left(&shelf), shelf.weight), (vec![], 0));
    }
}
