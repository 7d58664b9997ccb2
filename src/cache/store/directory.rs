//! The store in a directory: one file for each person, put into its place whole, in buckets that never hold more than
//! their share. What is newer wins, whoever writes it. A process may be killed at any moment, the disk may be full or not
//! writable, other clocks may go wrong: what remains is a lookup too many. Only processes of our own user get in here.

mod entry;
mod spot;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, io};

use jid::BareJid;
use log::Level;
use ring::digest;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::lead;
use super::trouble::Trouble;
use super::{Edition, Kept, Lead, News, Part, Turn, Written, realms};
use crate::cache::PICTURE_LIFE;
use crate::config::{CacheSettings, Identity};
use crate::probe::lease::Place;
use crate::probe::memory::Fingerprint;
use entry::{Entry, Writing, edition};
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

/// So much waits for a disk that is slower than lookups; what comes more is not shared.
const ROW: usize = 256;

/// Every so many writings of a process it looks for what is too old.
const SELDOM: u64 = 16;

/// See the module.
#[derive(Debug)]
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
    /// One thing at a time: a disk does no more, and threads cost memory.
    hand: Mutex<()>,
    /// Places in the row of what is to be written.
    row: Semaphore,
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
            hand: Mutex::default(),
            row: Semaphore::new(ROW),
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
            Some(Lead::File(lead)) => Some(lead),
            None => None,
            // Nobody could have overtaken it.
            Some(_) => return Written::Nowhere,
        };
        if self.trouble.is_present(news.now_ms) {
            return Written::Nowhere;
        }
        let spot = self.spot(jid, part);
        match self.put(&spot, jid, news, lead).await {
            Ok(written) => {
                self.trouble.is_over(news.now_ms);
                written
            }
            Err(error) => {
                // What is there is older, and may no longer be true.
                let _ = fs::remove_file(spot.path());
                self.trouble.begins(news.now_ms, &error);
                Written::Nowhere
            }
        }
    }

    pub async fn remove(&self, jid: &BareJid, now_ms: u64, lead: Option<&Lead>) {
        if let Some(Lead::File(lead)) = lead
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
        let spot = self.spot(jid, part);
        let turn = match lead::turn(&spot.lead(), self.lead, deadline).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match spot.make_bucket() {
                Ok(()) => lead::turn(&spot.lead(), self.lead, deadline).await,
                Err(error) => Err(error),
            },
            turn => turn,
        };
        match turn {
            Ok(lead::Turn::Ours(lead)) => Turn::Ours(Lead::File(lead)),
            Ok(lead::Turn::Told(outcome)) => Turn::Told(outcome),
            Ok(lead::Turn::Late) => Turn::Late,
            Err(error) => {
                self.trouble.begins(now_ms, &error);
                Turn::Ours(Lead::Alone)
            }
        }
    }

    async fn put(
        &self,
        spot: &Spot,
        jid: &BareJid,
        News { bytes, age, now_ms }: News<'_>,
        lead: Option<&lead::Lead>,
    ) -> io::Result<Written> {
        let Ok(_place) = self.row.try_acquire() else { return Ok(Written::Nowhere) };
        let _turn = self.hand.lock().await;
        let Some(lock) = spot.lock_or_make().await? else { return Ok(Written::Nowhere) };
        let number = self.writings.fetch_add(1, Ordering::Relaxed);
        let at_ms = now_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let pad = " ".repeat((number % PADS) as usize);
        let writing = Writing {
            whole: [format!("{at_ms} {jid}{pad}\n").as_bytes(), bytes].concat(),
            draft: spot.draft(number),
            spot: spot.clone(),
            jid: jid.clone(),
            times_ms: at_ms + 1..=now_ms,
            claim: lead.map(lead::Lead::claim),
        };
        let (folder, life) = (self.folder.clone(), self.life.max(PICTURE_LIFE));
        let written = by_hand(move || {
            let _lock = lock;
            let Some(there) = writing.put()? else { return Ok(Written::Overtaken) };
            let is_seldom = number.is_multiple_of(SELDOM);
            writing.spot.sweep(&there, if is_seldom { Sweep::Thorough } else { Sweep::Quick })?;
            if is_seldom {
                sweep_another(&folder, number / SELDOM, life, there.modified()?)?;
            }
            Ok(Written::As(edition(&there)))
        });
        Ok(written.await?.unwrap_or(Written::Nowhere))
    }

    /// Without its entry, whoever wrote it.
    async fn clear(&self, spot: Spot) -> io::Result<()> {
        let _turn = self.hand.lock().await;
        let lock = match spot.lock().await {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        by_hand(move || spot.clear(lock)).await.map(drop)
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

/// On a thread of its own, since a disk may be slow. Nothing where the runtime ends.
async fn by_hand<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<Option<T>> {
    spawn_blocking(work).await.ok().transpose()
}
