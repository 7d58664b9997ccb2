//! The store in a directory: one file for each person, put into its place whole, in buckets that never hold more than
//! their share. What is newer wins, whoever writes it. A process may be killed at any moment, the disk may be full or not
//! writable, other clocks may go wrong: what remains is a lookup too many. Only processes of our own user get in here.

#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use jid::BareJid;
use log::Level;
use ring::digest;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::lead;
use super::trouble::Trouble;
use super::{Edition, Kept, Lead, News, Part, Turn, Written, realms};
use crate::cache::PICTURE_LIFE;
use crate::config::{CacheSettings, Identity};
use crate::probe::lease::Place;
use crate::probe::memory::Fingerprint;

/// People of one bucket, about: what is looked through whenever one of them is written.
const BUCKET: usize = 128;
/// Bytes of a person on the disk: a block. Who has a long roster takes the place of several.
const PERSON_BYTES: u64 = 4096;
/// Pictures are fewer, and counted by their bytes.
const PICTURE_BUCKETS: usize = 8;
const PICTURES_BYTES: u64 = 16 * 1024 * 1024;
/// The longest file that is read.
const LIMIT: u64 = 2 * 1024 * 1024;
/// Nothing takes so long: whoever began what lies about was killed.
const ABANDONED: Duration = Duration::from_secs(60);
/// How much longer than its visitor waits a lookup may have its lead.
const LEAD_MARGIN: Duration = Duration::from_secs(1);
/// How long somebody else may change a bucket: it takes him some microseconds, unless his process was stopped.
const PATIENCE: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_micros(500);
/// Two writings of the same length within a tick of the clock would look the same.
const PADS: u64 = 32;

/// Every so many writings of a process it looks for what is too old.
const SELDOM: u64 = 16;

const LEAD: &str = "lead";
const DRAFT: &str = "new";

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
    trouble: Trouble,
}

type Realm = [u8; digest::SHA256_OUTPUT_LEN];

/// Where somebody's entry is.
#[derive(Clone)]
struct Spot {
    bucket: PathBuf,
    name: String,
    most: Share,
}

/// An entry on its way to its place.
struct Writing {
    spot: Spot,
    jid: BareJid,
    whole: Vec<u8>,
    draft: PathBuf,
    /// Of what is newer.
    times_ms: RangeInclusive<u64>,
    claim: Option<lead::Claim>,
}

/// What one bucket may hold, and how long.
#[derive(Clone, Copy)]
struct Share {
    files: usize,
    bytes: u64,
    life: Duration,
}

/// What is looked at beside names: each file costs a moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sweep {
    Quick,
    Thorough,
}

/// One file, and what it says about itself.
struct Entry {
    at_ms: u64,
    bytes: Vec<u8>,
    edition: Edition,
}

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
        let Some(lock) = spot.lock_or_make().await? else { return Ok(Written::Nowhere) };
        let number = self.writings.fetch_add(1, Ordering::Relaxed);
        let at_ms = now_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let pad = " ".repeat((number % PADS) as usize);
        let writing = Writing {
            whole: [format!("{at_ms} {jid}{pad}\n").as_bytes(), bytes].concat(),
            draft: spot.bucket.join(format!("{}.{}.{number}.{DRAFT}", spot.name, std::process::id())),
            spot: spot.clone(),
            jid: jid.clone(),
            times_ms: at_ms + 1..=now_ms,
            claim: lead.map(lead::Lead::claim),
        };
        let (folder, life) = (self.folder.clone(), self.life.max(PICTURE_LIFE));
        let written = self.by_hand(move || {
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
        let lock = match spot.lock().await {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        self.by_hand(move || spot.clear(lock)).await.map(drop)
    }

    /// On a thread of its own, since a disk may be slow. Nothing where the runtime ends.
    async fn by_hand<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<Option<T>> {
        let _turn = self.hand.lock().await;
        spawn_blocking(work).await.ok().transpose()
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

impl Spot {
    fn path(&self) -> PathBuf {
        self.bucket.join(&self.name)
    }

    fn lead(&self) -> PathBuf {
        self.bucket.join(format!("{}.{LEAD}", self.name))
    }

    fn make_bucket(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.bucket)
    }

    /// While this is held nobody else puts anything into the bucket. Nothing where somebody else does not let go of it.
    async fn lock(&self) -> io::Result<Option<File>> {
        let bucket = File::open(&self.bucket)?;
        let until = Instant::now() + PATIENCE;
        loop {
            match bucket.try_lock() {
                Ok(()) => return Ok(Some(bucket)),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() >= until => return Ok(None),
                Err(TryLockError::WouldBlock) => sleep(POLL).await,
            }
        }
    }

    async fn lock_or_make(&self) -> io::Result<Option<File>> {
        match self.lock().await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_bucket()?;
                self.lock().await
            }
            lock => lock,
        }
    }

    fn clear(&self, lock: Option<File>) -> io::Result<()> {
        if lock.is_none() {
            // Whoever was stopped there may have a draft of it in his hands.
            self.remove_those(|name| name.starts_with(&self.name) && name.ends_with(DRAFT))?;
        }
        gone(fs::remove_file(self.path()))
    }

    fn remove_those(&self, are_meant: impl Fn(&str) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.bucket)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(&are_meant) {
                gone(fs::remove_file(entry.path()))?;
            }
        }
        Ok(())
    }

    /// Whatever is over the share leaves, what was written longest ago first, and what processes have left that were
    /// killed. Times are those of the file system, which is the same for all of them.
    fn sweep(&self, written: &fs::Metadata, sweep: Sweep) -> io::Result<()> {
        let now = written.modified()?;
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.bucket)? {
            let entry = entry?;
            let name = entry.file_name();
            match name.to_str() {
                Some(name) if !name.contains('.') => entries.push(entry.path()),
                _ if entry.metadata().is_ok_and(|there| is_older(&there, ABANDONED, now)) => {
                    gone(fs::remove_file(entry.path()))?
                }
                _ => {}
            }
        }
        if sweep == Sweep::Thorough || entries.len() > self.most.files || written.len() > PERSON_BYTES {
            self.shrink(entries, written, now)?;
        }
        Ok(())
    }

    fn shrink(&self, entries: Vec<PathBuf>, written: &fs::Metadata, now: SystemTime) -> io::Result<()> {
        let seen = entries.into_iter().filter_map(|path| fs::symlink_metadata(&path).ok().map(|there| (there, path)));
        let mut entries: Vec<_> = seen.filter(|(there, _)| there.ino() != written.ino()).collect();
        entries.sort_by_key(|(there, _)| std::cmp::Reverse((there.mtime(), there.mtime_nsec())));
        let (mut files, mut bytes) = (1, written.len());
        for (there, path) in entries {
            (files, bytes) = (files + 1, bytes + there.len());
            if files > self.most.files || bytes > self.most.bytes || is_older(&there, self.most.life, now) {
                gone(fs::remove_file(path))?;
            }
        }
        Ok(())
    }
}

impl Writing {
    /// Nothing where it was overtaken.
    fn put(&self) -> io::Result<Option<fs::Metadata>> {
        let is_newer = |there: &Entry| self.times_ms.contains(&there.at_ms);
        if self.is_overtaken() || Entry::read(&self.spot.path(), &self.jid)?.as_ref().is_some_and(is_newer) {
            return Ok(None);
        }
        let there = self.place();
        // This process may have been stopped in between, and what was removed then must not come back.
        if self.is_overtaken() {
            let place = if there.is_ok() { self.spot.path() } else { self.draft.clone() };
            return gone(fs::remove_file(place)).map(|()| None);
        }
        there.inspect_err(|_| drop(fs::remove_file(&self.draft))).map(Some)
    }

    fn place(&self) -> io::Result<fs::Metadata> {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&self.draft)?;
        file.write_all(&self.whole)?;
        fs::rename(&self.draft, self.spot.path())?;
        file.metadata()
    }

    fn is_overtaken(&self) -> bool {
        self.claim.as_ref().is_some_and(|claim| !claim.is_ours())
    }
}

impl Entry {
    /// Nothing where there is none, or something that is none. A link in its place is not followed.
    fn read(path: &Path, jid: &BareJid) -> io::Result<Option<Entry>> {
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) if is_none(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let there = file.metadata()?;
        if !there.is_file() || there.len() > LIMIT {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(there.len() as usize + 1);
        file.take(LIMIT).read_to_end(&mut bytes)?;
        Ok(Entry::parse(bytes, jid, edition(&there)))
    }

    fn parse(mut bytes: Vec<u8>, jid: &BareJid, edition: Edition) -> Option<Entry> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (at_ms, address) = std::str::from_utf8(&bytes[..end]).ok()?.split_once(' ')?;
        let at_ms = at_ms.parse().ok().filter(|_| address.trim_end() == jid.as_str())?;
        bytes.drain(..=end);
        Some(Entry { at_ms, bytes, edition })
    }
}

/// One bucket in turn, also where nobody writes any more: `entries` was more once. Its folder stays, which another
/// configuration of this identity may be using.
fn sweep_another(folder: &Path, turn: u64, life: Duration, now: SystemTime) -> io::Result<()> {
    let buckets = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    let Some(bucket) = buckets.get((turn % buckets.len().max(1) as u64) as usize) else { return Ok(()) };
    for entry in fs::read_dir(bucket.path())? {
        let entry = entry?;
        let is_whole = entry.file_name().to_str().is_some_and(|name| !name.contains('.'));
        let most = if is_whole { life } else { ABANDONED };
        if entry.metadata().is_ok_and(|there| is_older(&there, most, now)) {
            gone(fs::remove_file(entry.path()))?;
        }
    }
    Ok(())
}

fn edition(there: &fs::Metadata) -> Edition {
    let time = (there.mtime() as u64).wrapping_mul(1_000_000_000).wrapping_add(there.mtime_nsec() as u64);
    Edition(u128::from(there.ino() ^ there.len().rotate_right(24)) << 64 | u128::from(time))
}

fn is_older(there: &fs::Metadata, age: Duration, now: SystemTime) -> bool {
    there.modified().is_ok_and(|written| now.duration_since(written).is_ok_and(|found| found > age))
}

/// No file of ours.
fn is_none(error: &io::Error) -> bool {
    let is_link = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    error.kind() == io::ErrorKind::NotFound || is_link
}

/// Somebody else may have been faster.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// As a process holds the lock of this bucket that was stopped there.
#[cfg(test)]
pub fn stopped_while_it_wrote(bucket: &Path) -> File {
    let bucket = File::open(bucket).expect("there is one");
    bucket.lock().expect("nobody writes");
    bucket
}
