//! What one process remembers of people: what it learned itself, and what it read in the store that all share. What was
//! looked at there a moment ago is believed without another look, so that most answers cost none. It is pure: the time
//! of day is an argument, in milliseconds since 1970.

use std::hash::{DefaultHasher, Hash, Hasher};

use jid::BareJid;

use super::shelf::Shelf;
use super::store::{Edition, Kept, Part};
use super::{Lookup, NO_PICTURE_LIFE, PICTURE_LIFE, Sight};
use crate::presence::{Picture, State};
use crate::viewers::Viewers;

/// How long something is believed without a look into the store: what one process learns, all tell by then.
pub const BELIEVED_MS: u64 = 1000;
/// Bytes of a roster that count as much as a person.
const ROSTER_BYTES: usize = 1024;
/// Bytes of all pictures that are remembered, and what each of them, or the lack of one, counts beside its own.
pub const PICTURES_BYTES: usize = 16 * 1024 * 1024;
pub const PICTURE_OVERHEAD: usize = 1024;

/// What could not be kept in the store cannot be taken away there, so that it counts no longer than a store that has failed
/// is left alone.
const UNSHARED_MS: u64 = 10_000;
/// Numbers of changes.
const CHANGES: usize = 64;

/// See the module.
pub struct Memory {
    /// Without pictures.
    people: Shelf<Entry<Sight>>,
    /// What nobody exceeds among them, however long his roster: a tenth of the room.
    heaviest: usize,
    /// Of people who are known; also that there is none.
    pictures: Shelf<Entry<Option<Picture>>>,
    /// How often something was learned: what was read in the store before that may be older. Several people share a number,
    /// and who reads about one of them once more for another's sake loses nothing.
    changes: [u64; CHANGES],
}

/// What is remembered, when it was asked, and how it stands in the store.
#[derive(Debug)]
pub struct Entry<T> {
    pub what: T,
    pub at_ms: u64,
    /// None where it could not be written there. In halves, which need no padding.
    edition: Option<[u64; 2]>,
    checked_ms: u64,
}

impl<T> Entry<T> {
    pub fn new(what: T, at_ms: u64, edition: Option<Edition>, now_ms: u64) -> Entry<T> {
        let edition = edition.map(|Edition(whole)| [(whole >> 64) as u64, whole as u64]);
        Entry { what, at_ms, edition, checked_ms: now_ms }
    }

    fn edition(&self) -> Option<Edition> {
        self.edition.map(|[high, low]| Edition(u128::from(high) << 64 | u128::from(low)))
    }

    /// What is remembered from the future is as good as nothing: a clock was set.
    pub fn age_ms(&self, now_ms: u64) -> Option<u64> {
        now_ms.checked_sub(self.at_ms)
    }

    /// Whether the store, which has it as it was at that time, tells nothing new.
    fn outlives(&self, at_ms: u64) -> bool {
        self.edition.is_none() && at_ms <= self.at_ms
    }
}

impl Memory {
    pub fn new(entries: usize) -> Memory {
        Memory {
            people: Shelf::new(entries),
            heaviest: (entries / 10).max(1),
            pictures: Shelf::new(PICTURES_BYTES),
            changes: [0; CHANGES],
        }
    }

    pub fn person(&self, jid: &BareJid) -> Option<&Entry<Sight>> {
        self.people.look_up(jid)
    }

    /// A picture that has become old is as good as its presence.
    pub fn picture(&self, jid: &BareJid) -> Option<Picture> {
        self.pictures.look_up(jid).and_then(|entry| entry.what.clone())
    }

    pub fn is_picture_fresh(&self, jid: &BareJid, now_ms: u64) -> bool {
        let Some(entry) = self.pictures.look_up(jid) else { return false };
        let life = if entry.what.is_some() { PICTURE_LIFE } else { NO_PICTURE_LIFE };
        entry.age_ms(now_ms).is_some_and(|age_ms| u128::from(age_ms) <= life.as_millis())
    }

    pub fn changes(&self, jid: &BareJid) -> u64 {
        self.changes[number(jid)]
    }

    /// Something is learned about him.
    pub fn change(&mut self, jid: &BareJid) {
        self.changes[number(jid)] += 1;
    }

    /// A long roster takes the place of several people.
    pub fn put_person(&mut self, jid: &BareJid, entry: Entry<Sight>) {
        let weight = 1 + entry.what.viewers.as_ref().map_or(0, Viewers::bytes) / ROSTER_BYTES;
        self.people.store(jid, weight.min(self.heaviest), entry);
    }

    pub fn put_picture(&mut self, jid: &BareJid, entry: Entry<Option<Picture>>) {
        let weight = PICTURE_OVERHEAD + entry.what.as_ref().map_or(0, |picture| picture.bytes().len());
        self.pictures.store(jid, weight, entry);
    }

    pub fn remove(&mut self, jid: &BareJid) {
        self.people.remove(jid);
        self.pictures.remove(jid);
    }

    /// Whether what is remembered needs no look into the store now.
    pub fn is_believed(&self, jid: &BareJid, part: Part, now_ms: u64) -> bool {
        let checked_ms = match part {
            Part::Presence => self.people.look_up(jid).map(|entry| entry.checked_ms),
            Part::Picture => self.pictures.look_up(jid).map(|entry| entry.checked_ms),
        };
        checked_ms.is_some_and(|checked_ms| checked_ms.abs_diff(now_ms) < BELIEVED_MS)
    }

    pub fn edition(&self, jid: &BareJid, part: Part) -> Option<Edition> {
        match part {
            Part::Presence => self.people.look_up(jid)?.edition(),
            Part::Picture => self.pictures.look_up(jid)?.edition(),
        }
    }

    /// Takes what the store has.
    pub fn hear(&mut self, jid: &BareJid, part: Part, kept: Kept, now_ms: u64) {
        match part {
            Part::Presence => {
                if let Some(entry) = heard(&mut self.people, jid, kept, now_ms, as_person) {
                    self.put_person(jid, entry);
                }
            }
            Part::Picture => {
                if let Some(entry) = heard(&mut self.pictures, jid, kept, now_ms, as_picture) {
                    self.put_picture(jid, entry);
                }
            }
        }
    }
}

/// What is to be remembered instead of what was.
fn heard<T>(
    shelf: &mut Shelf<Entry<T>>,
    jid: &BareJid,
    kept: Kept,
    now_ms: u64,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Option<Entry<T>> {
    let known = shelf.look_up_mut(jid);
    if let Kept::Other { bytes, age, edition } = &kept
        && let Some(what) = read(bytes)
    {
        let at_ms = now_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        if known.as_ref().is_none_or(|known| !known.outlives(at_ms)) {
            return Some(Entry::new(what, at_ms, Some(*edition), now_ms));
        }
    }
    let known = known?;
    let is_there = matches!(kept, Kept::Same | Kept::Unreachable);
    let is_unshared = known.edition.is_none() && known.age_ms(now_ms).is_some_and(|age_ms| age_ms < UNSHARED_MS);
    if is_there || is_unshared {
        known.checked_ms = now_ms;
    } else {
        // Whoever wrote it there, or somebody else, has taken it away.
        shelf.remove(jid);
    }
    None
}

/// Which number of changes is his.
fn number(jid: &BareJid) -> usize {
    let mut hasher = DefaultHasher::new();
    jid.as_str().hash(&mut hasher);
    hasher.finish() as usize % CHANGES
}

/// Nobody writes down a refusal, and what is written for somebody is not what is told to everybody.
fn as_person(bytes: &[u8]) -> Option<Sight> {
    let sight = serde_json::from_slice::<Lookup>(bytes).ok()?.ok()?;
    let is_known = !matches!(sight.presence.state, State::Forbidden | State::Unknown);
    // What is read has room for more; a copy has not.
    let presence = sight.presence.clone();
    is_known.then(|| Sight { viewers: sight.viewers, ..Sight::bare(presence) })
}

fn as_picture(bytes: &[u8]) -> Option<Option<Picture>> {
    serde_json::from_slice(bytes).ok()
}
