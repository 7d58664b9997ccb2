//! Who is in somebody's roster with a subscription to him: all that `visibility = subscribers` needs to know of it.
//! Kept as digests, so that a long roster is small and no list of contacts lies about.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jid::BareJid;
use ring::digest;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most people of one roster that count; of a longer one the rest see nothing.
pub const VIEWERS: usize = 40_000;

/// Enough of SHA-256 that nobody finds an address for somebody else's digest.
const DIGEST_BYTES: usize = 12;

type Digest = [u8; DIGEST_BYTES];

/// The people who may see somebody, by his roster. Cheap to copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Viewers(Arc<[Digest]>);

impl Viewers {
    pub fn of<'a>(people: impl IntoIterator<Item = &'a BareJid>) -> Viewers {
        let mut digests: Vec<_> = people.into_iter().take(VIEWERS).map(digest).collect();
        digests.sort_unstable();
        digests.dedup();
        Viewers(digests.into())
    }

    pub fn holds(&self, jid: &BareJid) -> bool {
        self.0.binary_search(&digest(jid)).is_ok()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

fn digest(jid: &BareJid) -> Digest {
    let whole = digest::digest(&digest::SHA256, jid.as_str().as_bytes());
    std::array::from_fn(|i| whole.as_ref()[i])
}

impl Serialize for Viewers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(self.0.as_flattened()))
    }
}

impl<'de> Deserialize<'de> for Viewers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Viewers, D::Error> {
        let text = <Cow<'_, str>>::deserialize(deserializer)?;
        let bytes = BASE64.decode(text.as_bytes()).map_err(D::Error::custom)?;
        let (digests, rest) = bytes.as_chunks::<DIGEST_BYTES>();
        let is_sorted = digests.is_sorted_by(|one, other| one < other);
        if !rest.is_empty() || digests.len() > VIEWERS || !is_sorted {
            return Err(D::Error::custom("digests in their order"));
        }
        Ok(Viewers(digests.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jids(names: &[&str]) -> Vec<BareJid> {
        names.iter().map(|name| BareJid::new(name).expect("a bare JID")).collect()
    }

    #[test]
    fn whole_addresses_are_held() {
        let viewers = Viewers::of(&jids(&["Bob@Example.com", "carol@example.com", "bob@example.com"]));
        assert_eq!((viewers.len(), viewers.is_empty()), (2, false));
        for (name, held) in [
            ("bob@example.com", true),
            ("carol@example.com", true),
            ("bob@evil.example", false),
            ("bob@example.com.evil.example", false),
            ("example.com", false),
            ("alice@example.com", false),
        ] {
            assert_eq!(viewers.holds(&jids(&[name])[0]), held, "{name}");
        }
        assert!(!Viewers::default().holds(&jids(&["bob@example.com"])[0]));
    }

    #[test]
    fn they_reach_another_process_whole_or_not_at_all() {
        for names in [&[][..], &["a@example.com"], &["a@example.com", "b@example.com", "c@example.com"]] {
            let viewers = Viewers::of(&jids(names));
            let text = serde_json::to_string(&viewers).expect("text");
            assert_eq!(serde_json::from_str::<Viewers>(&text).expect("what was written"), viewers);
        }
        let backwards = BASE64.encode([[2; DIGEST_BYTES], [1; DIGEST_BYTES]].as_flattened());
        for text in ["\"AAAA\"".to_owned(), "\"!\"".to_owned(), "1".to_owned(), format!("\"{backwards}\"")] {
            assert!(serde_json::from_str::<Viewers>(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_roster_has_a_limit() {
        let many: Vec<_> =
            (0..VIEWERS + 1).map(|n| BareJid::new(&format!("u{n}@example.com")).expect("a bare JID")).collect();
        let viewers = Viewers::of(&many);
        assert_eq!((viewers.len(), viewers.bytes()), (VIEWERS, VIEWERS * DIGEST_BYTES));
        assert!(viewers.holds(&many[VIEWERS - 1]) && !viewers.holds(&many[VIEWERS]));
    }
}
