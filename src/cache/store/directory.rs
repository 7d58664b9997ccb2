//! The store in a directory: one file for each person, put into its place whole, in buckets that never hold more than
//! their share. What is newer wins, whoever writes it. A process may be killed at any moment, the disk may be full or not
//! writable, other clocks may go wrong: what remains is a lookup too many. Only processes of our own user get in here.

mod entry;
mod spot;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, io};

use jid::BareJid;
use log::Level;
use ring::digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use super::lead;
use super::trouble::Trouble;
use super::{Edition, Kept, Lead, News, Part, Turn, Written, realms};
use crate::cache::PICTURE_LIFE;
use crate::config::{CacheSettings, Identity};
use crate::probe::lease::Place;
use crate::probe::memory::Fingerprint;
use crate::turns::Turns;
use entry::{Draft, Entry, Placed, Writing, edition, whole};
#[cfg(test)]
pub use spot::stopped_while_it_wrote;
use spot::{PERSON_BYTES, Share, Spot, Sweep, sweep_another};

/// People of one bucket, about: what is looked through whenever one of them is written.
const BUCKET: usize = 128;
/// Pictures are fewer, and counted by their bytes.
const PICTURE_BUCKETS: usize = 8;
const PICTURES_BYTES: u64 = 16 * 1024 * 1024;
/// How much longer than its visitor waits a lookup may have its lead.
const LEAD_MARGIN: Duration = Duration::from_secs(1);
/// Two writings of the same length within a tick of the clock would look the same.
const PADS: u64 = 32;

/// So many people are looked up at a time, and whoever comes more waits: a thousand connections may each ask for somebody
/// else.
const PLACES: usize = 1024;
/// Where so much waits for a disk that is slower than lookups, nobody else is looked up until something of it is written.
const ROW: usize = 64;

/// Every so many writings of a process it looks for what is too old.
const SELDOM: u64 = 16;

/// See the module.
pub struct Directory {
    folder: PathBuf,
    /// Its own, and one whose people are removed with ours.
    realms: [Realm; 2],
    entries: usize,
    /// How long anything is of use.
    life: Duration,
    buckets: usize,
    writings: AtomicU64,
    /// How long nobody leads.
    lead: Duration,
    places: Arc<Semaphore>,
    /// How much waits to be written.
    waiting: watch::Sender<usize>,
    /// What is written and removed: one thing at a time, since a disk does no more.
    row: Turns<()>,
    trouble: Trouble,
}

type Realm = [u8; digest::SHA256_OUTPUT_LEN];

impl Directory {
    /// What one configuration knows is nothing to another: both may write here, and neither finds the other's.
    pub fn new(directory: &Path, identity: &Identity, settings: &CacheSettings, complaint: Level) -> Directory {
        let CacheSettings { ttl, refresh, stale, entries, .. } = *settings;
        let folder = Place::new(directory, &identity.jid).path("people");
        let realms = realms(&Fingerprint::of(identity).text(), identity.access.visibility);
        let realm = |text: String| digest::digest(&digest::SHA256, text.as_bytes());
        let buckets = 1 << (entries / BUCKET).max(1).ilog2();
        Directory {
            trouble: Trouble::new(&folder, complaint),
            folder,
            realms: realms.map(|text| realm(text).as_ref().try_into().expect("so long is SHA-256")),
            entries,
            life: stale.max(ttl + refresh),
            buckets,
            writings: AtomicU64::new(u64::from(std::process::id())),
            lead: identity.timeout + LEAD_MARGIN,
            places: Arc::new(Semaphore::new(PLACES)),
            waiting: watch::Sender::new(0),
            row: Turns::new(()),
        }
    }

    pub fn read(&self, jid: &BareJid, part: Part, known: Option<Edition>, now_ms: u64) -> Kept {
        if self.trouble.is_present(now_ms) {
            return Kept::Unreachable;
        }
        let path = self.spot(jid, part).path();
        let found = match known {
            Some(known) if fs::symlink_metadata(&path).is_ok_and(|there| edition(&there) == known) => {
                return Kept::Same;
            }
            _ => Entry::read(&path, jid),
        };
        match found {
            // An entry from the future tells only that a clock was set.
            Ok(Some(Entry { at_ms, bytes, edition })) if at_ms <= now_ms && !self.trouble.reaches(at_ms) => {
                Kept::Other { bytes, age: Duration::from_millis(now_ms - at_ms), edition }
            }
            Ok(_) => Kept::Nothing,
            Err(error) => {
                self.trouble.begins(now_ms, &error);
                Kept::Unreachable
            }
        }
    }

    pub async fn write(&self, jid: &BareJid, part: Part, news: News<'_>, lead: Option<&Lead>) -> Written {
        let lead = match lead {
            Some(Lead::File(lead, _)) => Some(lead),
            None => None,
            // Nobody could have overtaken it.
            Some(_) => return Written::Nowhere,
        };
        if self.trouble.is_present(news.now_ms) {
            return Written::Nowhere;
        }
        match self.put(jid, part, news, lead).await {
            Ok(written) => {
                self.trouble.is_over(news.now_ms);
                written
            }
            Err(error) => {
                // What is there is older, and may no longer be true.
                let _ = fs::remove_file(self.spot(jid, part).path());
                self.trouble.begins(news.now_ms, &error);
                Written::Nowhere
            }
        }
    }

    pub async fn remove(&self, jid: &BareJid, now_ms: u64, lead: Option<&Lead>) {
        if let Some(Lead::File(lead, _)) = lead
            && !lead.is_ours()
        {
            return;
        }
        // First: whoever still has his lead under the lock writes before this removes.
        self.overtake(jid).await;
        // Nobody is to read it while there is a row.
        for spot in self.spots(jid) {
            let _ = fs::remove_file(spot.path());
        }
        for spot in self.spots(jid) {
            if let Err(error) = self.clear(spot).await {
                self.trouble.begins(now_ms, &error);
            }
        }
    }

    pub async fn overtake(&self, jid: &BareJid) {
        for spot in self.spots(jid) {
            let _ = fs::remove_file(spot.lead());
        }
    }

    pub async fn turn(&self, jid: &BareJid, part: Part, now_ms: u64, deadline: Instant) -> Turn {
        if self.trouble.is_present(now_ms) {
            return Turn::Ours(Lead::Alone);
        }
        let Some(place) = self.place(deadline).await else { return Turn::Late };
        let spot = self.spot(jid, part);
        let turn = match lead::turn(&spot.lead(), self.lead, deadline).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match spot.make_bucket() {
                Ok(()) => lead::turn(&spot.lead(), self.lead, deadline).await,
                Err(error) => Err(error),
            },
            turn => turn,
        };
        match turn {
            Ok(lead::Turn::Ours(lead)) => Turn::Ours(Lead::File(lead, place)),
            Ok(lead::Turn::Told(outcome)) => Turn::Told(outcome),
            Ok(lead::Turn::Late) => Turn::Late,
            Err(error) => {
                self.trouble.begins(now_ms, &error);
                Turn::Ours(Lead::Alone)
            }
        }
    }

    /// Once this process may look at somebody more.
    async fn place(&self, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        let place = async {
            self.waiting.subscribe().wait_for(|waiting| *waiting < ROW).await.ok()?;
            self.places.clone().acquire_owned().await.ok()
        };
        timeout_at(deadline, place).await.ok()?
    }

    async fn put(
        &self,
        jid: &BareJid,
        part: Part,
        News { bytes, age, now_ms }: News<'_>,
        lead: Option<&lead::Lead>,
    ) -> io::Result<Written> {
        let number = self.writings.fetch_add(1, Ordering::Relaxed);
        let at_ms = now_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let (spot, claim) = (self.spot(jid, part), lead.map(lead::Lead::claim));
        let draft = match claim {
            // A picture's lead tells the presence, too.
            Some(claim) if part == Part::Presence && claim.is_of(&spot.lead()) => Draft::Lead(claim),
            claim => Draft::New(spot.draft(number), claim),
        };
        let whole = whole(at_ms, jid, (number % PADS) as usize, bytes);
        let writing = Writing { whole, spot, jid: jid.clone(), times_ms: at_ms + 1..=now_ms, draft };
        let (folder, life) = (self.folder.clone(), self.life.max(PICTURE_LIFE));
        let _waiting = Waiting::among(&self.waiting);
        let written = self.row.take(move |()| {
            let Some(_lock) = writing.spot.lock_or_make()? else { return Ok(Written::Nowhere) };
            let Some(Placed { there, is_new }) = writing.put()? else { return Ok(Written::Overtaken) };
            let is_seldom = number.is_multiple_of(SELDOM);
            if is_new || is_seldom || there.len() > PERSON_BYTES {
                writing.spot.sweep(&there, if is_seldom { Sweep::Thorough } else { Sweep::Quick })?;
            }
            if is_seldom {
                sweep_another(&folder, number / SELDOM, life, there.modified()?)?;
            }
            Ok(Written::As(edition(&there)))
        });
        written.await.unwrap_or(Ok(Written::Nowhere))
    }

    /// Without its entry, whoever wrote it.
    async fn clear(&self, spot: Spot) -> io::Result<()> {
        let cleared = self.row.take(move |()| match spot.lock() {
            Ok(lock) => spot.clear(lock),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        });
        cleared.await.unwrap_or(Ok(()))
    }

    /// Of somebody's entries, ours first.
    fn spots(&self, jid: &BareJid) -> Vec<Spot> {
        let of = |realm| Part::ALL.map(|part| self.spot_in(realm, jid, part));
        self.realms.iter().flat_map(of).collect()
    }

    fn spot(&self, jid: &BareJid, part: Part) -> Spot {
        self.spot_in(&self.realms[0], jid, part)
    }

    fn spot_in(&self, realm: &Realm, jid: &BareJid, part: Part) -> Spot {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(realm);
        context.update(jid.as_str().as_bytes());
        let hash = context.finish();
        let (front, _) = hash.as_ref().split_first_chunk().expect("SHA-256 has 32 bytes");
        let front = usize::from_be_bytes(*front);
        let name = hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let (bucket, most) = match part {
            Part::Presence => {
                let files = self.entries / self.buckets;
                let bytes = files as u64 * PERSON_BYTES;
                (format!("{:x}", front % self.buckets), Share { files, bytes, life: self.life })
            }
            Part::Picture => {
                let files = self.entries.div_ceil(PICTURE_BUCKETS);
                let bytes = PICTURES_BYTES / PICTURE_BUCKETS as u64;
                // Told as long as its presence is, however old.
                let life = self.life.max(PICTURE_LIFE);
                (format!("pictures.{:x}", front % PICTURE_BUCKETS), Share { files, bytes, life })
            }
        };
        Spot { bucket: self.folder.join(bucket), name, most }
    }
}

/// Something that is on its way to the disk.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl Waiting<'_> {
    fn among(all: &watch::Sender<usize>) -> Waiting<'_> {
        all.send_modify(|waiting| *waiting += 1);
        Waiting(all)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}
