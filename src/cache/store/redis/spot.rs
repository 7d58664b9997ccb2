//! Under which keys somebody is in the hub: hashes of whose answers they are and of his address, so that nobody reads there
//! who is known. People are in buckets; all keys of a bucket are of one slot of a cluster, so that scripts may change them
//! together.

use jid::BareJid;
use redis::Cmd;
use ring::digest;

use crate::cache::store::Part;

/// People of one bucket, about.
const BUCKET: usize = 128;

/// Where people are.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Its own, and one whose people are removed with ours.
    realms: [String; 2],
    buckets: usize,
}

/// The keys of one person, all of one slot.
pub struct Spot {
    bucket: String,
    name: String,
}

impl Keys {
    /// `realms` as texts that say all of them; room for so many people.
    pub fn new(realms: [String; 2], entries: usize) -> Keys {
        let realm = |text: String| hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref(), 8);
        Keys { realms: realms.map(realm), buckets: 1 << (entries / BUCKET).max(1).ilog2() }
    }

    pub fn buckets(&self) -> usize {
        self.buckets
    }

    pub fn spot(&self, jid: &BareJid) -> Spot {
        self.spot_in(&self.realms[0], jid)
    }

    /// Ours first.
    pub fn spots(&self, jid: &BareJid) -> [Spot; 2] {
        self.realms.each_ref().map(|realm| self.spot_in(realm, jid))
    }

    fn spot_in(&self, realm: &str, jid: &BareJid) -> Spot {
        let hash = digest::digest(&digest::SHA256, jid.as_str().as_bytes());
        let (front, _) = hash.as_ref().split_first_chunk().expect("SHA-256 has 32 bytes");
        let bucket = usize::from_be_bytes(*front) % self.buckets;
        Spot { bucket: format!("webpresence:{{{realm}:{bucket:x}}}"), name: hex(hash.as_ref(), 16) }
    }
}

impl Spot {
    pub fn entry(&self, part: Part) -> String {
        format!("{}:{}:{}", self.bucket, self.name, word(part))
    }

    pub fn lead(&self, part: Part) -> String {
        format!("{}:lead", self.entry(part))
    }

    pub fn entries(&self) -> [String; 2] {
        Part::ALL.map(|part| self.entry(part))
    }

    pub fn leads(&self) -> [String; 2] {
        Part::ALL.map(|part| self.lead(part))
    }

    pub fn end_leads(&self) -> Cmd {
        let mut delete = redis::cmd("DEL");
        delete.arg(&self.leads()[..]);
        delete
    }

    /// The list of those in this bucket, by that part.
    pub fn list(&self, part: Part) -> String {
        format!("{}:{}", self.bucket, word(part))
    }
}

fn word(part: Part) -> &'static str {
    match part {
        Part::Presence => "presence",
        Part::Picture => "picture",
    }
}

fn hex(bytes: &[u8], count: usize) -> String {
    bytes.iter().take(count).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn jid(text: &str) -> BareJid {
        BareJid::new(text).expect("a bare JID")
    }

    #[test]
    fn keys_tell_nobody_who_is_there() {
        let keys = Keys::new(["ours".to_owned(), "theirs".to_owned()], 1024);
        let bob = keys.spot(&jid("bob@example.com"));
        let (bucket, name) = ("webpresence:{ae0bec9e9d33c563:4}", "5ff860bf1190596c7188ab851db691f0");
        assert_eq!(bob.entry(Part::Presence), format!("{bucket}:{name}:presence"));
        assert_eq!(bob.lead(Part::Picture), format!("{bucket}:{name}:picture:lead"));
        assert_eq!(bob.list(Part::Presence), format!("{bucket}:presence"));
    }

    #[test]
    fn all_of_a_bucket_are_of_one_slot() {
        let keys = Keys::new(["ours".to_owned(), "theirs".to_owned()], 1024);
        let slot = |key: &str| key.split(['{', '}']).nth(1).map(str::to_owned);
        let mut slots = HashSet::new();
        for number in 0..200 {
            let [ours, theirs] = keys.spots(&jid(&format!("u{number}@example.com")));
            assert_ne!(slot(&ours.bucket), slot(&theirs.bucket), "what one knows is nothing to the other");
            for part in Part::ALL {
                for key in [ours.entry(part), ours.lead(part), ours.list(part)] {
                    assert_eq!(slot(&key), slot(&ours.bucket), "{key}");
                }
            }
            slots.insert(ours.bucket);
        }
        assert_eq!(slots.len(), 8, "1024 people are in so many buckets");
    }

    #[test]
    fn a_few_people_are_in_one_bucket() {
        for (entries, buckets) in [(1, 1), (255, 1), (256, 2), (1000, 4), (10_000, 64)] {
            assert_eq!(Keys::new(Default::default(), entries).buckets(), buckets, "{entries}");
        }
    }
}
