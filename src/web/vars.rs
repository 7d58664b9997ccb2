//! The CGI variables of one request (RFC 3875, 4.1), all in one buffer: some thirty of them come with every request, and
//! five or ten are looked at. Values are bytes: whoever sends a header chooses them. How many there may be is the
//! gateway's business.

use std::{fmt, mem};

/// Names and values in the order they came.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Vars {
    bytes: Vec<u8>,
    places: Vec<Place>,
    last: Last,
}

/// By what is hinted: where the last such name is among the places, counted from one. Fewer fit into a request.
type Last = [u16; 32];

/// Where in the bytes a name begins, its value behind it, and where that ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Place {
    hint: u16,
    name: usize,
    value: usize,
    end: usize,
    /// The one before it, as in `Last`.
    before: u16,
}

impl Place {
    /// Of a name that begins there, with a value of so many bytes right behind it.
    pub fn new(begin: usize, name: &[u8], value_len: usize) -> Place {
        let value = begin + name.len();
        Place { hint: hint(name), name: begin, value, end: value + value_len, before: 0 }
    }

    /// Takes its place among those there are.
    fn follow(&mut self, index: usize, last: &mut Last) {
        let number = u16::try_from(index + 1).unwrap_or_default();
        self.before = mem::replace(&mut last[head(self.hint)], number);
    }
}

impl Vars {
    /// Those that lie at `places` within `bytes`, whatever else is there.
    pub fn new(bytes: Vec<u8>, mut places: Vec<Place>) -> Vars {
        let mut last = Last::default();
        for (index, place) in places.iter_mut().enumerate() {
            place.follow(index, &mut last);
        }
        Vars { bytes, places, last }
    }

    pub fn insert(&mut self, name: &[u8], value: &[u8]) {
        let mut place = Place::new(self.bytes.len(), name, value.len());
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        place.follow(self.places.len(), &mut self.last);
        self.places.push(place);
    }

    /// The last value of this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let (name, hint) = (name.as_bytes(), hint(name.as_bytes()));
        let mut number = self.last[head(hint)];
        while number > 0 {
            let place = &self.places[usize::from(number) - 1];
            let (known, value) = self.pair(place);
            if place.hint == hint && known == name {
                return Some(value);
            }
            number = place.before;
        }
        None
    }

    /// All pairs, those of a repeated name too.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.places.iter().map(|place| self.pair(place))
    }

    fn pair(&self, place: &Place) -> (&[u8], &[u8]) {
        (&self.bytes[place.name..place.value], &self.bytes[place.value..place.end])
    }
}

/// What tells most names apart at a glance: twenty times thirty are compared for a request.
fn hint(name: &[u8]) -> u16 {
    u16::from_be_bytes([name.len() as u8, name.last().copied().unwrap_or_default()])
}

/// One of a few: most names that are looked for are not there, and most of those meet nobody here.
fn head(hint: u16) -> usize {
    usize::from(hint.wrapping_mul(0x9e37) >> 11)
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Vars {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(pairs: T) -> Vars {
        let mut vars = Vars::default();
        pairs.into_iter().for_each(|(name, value)| vars.insert(name.as_ref().as_bytes(), value.as_ref()));
        vars
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>, const COUNT: usize> From<[(N, V); COUNT]> for Vars {
    fn from(pairs: [(N, V); COUNT]) -> Vars {
        pairs.into_iter().collect()
    }
}

impl fmt::Debug for Vars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown =
            self.iter().map(|(name, value)| (name.escape_ascii().to_string(), value.escape_ascii().to_string()));
        f.debug_map().entries(shown).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_name_counts() {
        let vars = Vars::from([("A", "1"), ("", "x"), ("BC", ""), ("A", "\u{ff}"), ("B", "2")]);
        for (name, value) in [
            ("A", Some("\u{ff}")),
            ("B", Some("2")),
            ("BC", Some("")),
            ("", Some("x")),
            ("a", None),
            ("C", None),
            ("ABC", None),
        ] {
            assert_eq!(vars.get(name), value.map(str::as_bytes), "{name}");
        }
        assert_eq!(format!("{vars:?}"), r#"{"A": "1", "": "x", "BC": "", "A": "\\xc3\\xbf", "B": "2"}"#);
        assert_eq!(Vars::default().get(""), None);
    }
}
