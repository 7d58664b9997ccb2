//! Where somebody's entry is: a file in a bucket, which one process changes at a time, and which never holds more than its
//! share. What processes have left there that were killed is swept out.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

/// Bytes of a person on the disk: a block. Who has a long roster takes the place of several.
pub const PERSON_BYTES: u64 = 4096;
/// Nothing takes so long: whoever began what lies about was killed.
const ABANDONED: Duration = Duration::from_secs(60);
/// How long somebody else may change a bucket: it takes him some microseconds, unless his process was stopped.
const PATIENCE: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_micros(500);

const LEAD: &str = "lead";
pub const DRAFT: &str = "new";

/// See the module.
#[derive(Clone)]
pub struct Spot {
    pub bucket: PathBuf,
    pub name: String,
    pub most: Share,
}

/// What one bucket may hold, and how long.
#[derive(Clone, Copy)]
pub struct Share {
    pub files: usize,
    pub bytes: u64,
    pub life: Duration,
}

/// What is looked at beside names: each file costs a moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    Quick,
    Thorough,
}

impl Spot {
    pub fn path(&self) -> PathBuf {
        self.bucket.join(&self.name)
    }

    pub fn lead(&self) -> PathBuf {
        self.bucket.join(format!("{}.{LEAD}", self.name))
    }

    pub fn make_bucket(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.bucket)
    }

    /// While this is held nobody else puts anything into the bucket. Nothing where somebody else does not let go of it.
    pub fn lock(&self) -> io::Result<Option<File>> {
        let bucket = File::open(&self.bucket)?;
        let until = Instant::now() + PATIENCE;
        loop {
            match bucket.try_lock() {
                Ok(()) => return Ok(Some(bucket)),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() >= until => return Ok(None),
                Err(TryLockError::WouldBlock) => sleep(POLL),
            }
        }
    }

    pub fn lock_or_make(&self) -> io::Result<Option<File>> {
        match self.lock() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_bucket()?;
                self.lock()
            }
            lock => lock,
        }
    }

    /// Where a draft of it is written, by its number in this process.
    pub fn draft(&self, number: u64) -> PathBuf {
        self.bucket.join(format!("{}.{}.{number}.{DRAFT}", self.name, std::process::id()))
    }

    pub fn clear(&self, lock: Option<File>) -> io::Result<()> {
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
    pub fn sweep(&self, written: &fs::Metadata, sweep: Sweep) -> io::Result<()> {
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

/// One bucket in turn, also where nobody writes any more: `entries` was more once. Its folder stays, which another
/// configuration of this identity may be using.
pub fn sweep_another(folder: &Path, turn: u64, life: Duration, now: SystemTime) -> io::Result<()> {
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

fn is_older(there: &fs::Metadata, age: Duration, now: SystemTime) -> bool {
    there.modified().is_ok_and(|written| now.duration_since(written).is_ok_and(|found| found > age))
}

/// Somebody else may have been faster.
pub fn gone(removed: io::Result<()>) -> io::Result<()> {
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
