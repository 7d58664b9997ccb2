//! One file and what it says about itself: whose it is, and from when. It is put into its place whole, and not where
//! something newer is, nor by a lead that was overtaken. The file of a lead becomes the entry of what was found by it.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jid::BareJid;

use super::spot::{Spot, gone};
use crate::cache::store::Edition;
use crate::cache::store::lead::{Claim, END};

/// The longest file that is read.
pub const LIMIT: u64 = 2 * 1024 * 1024;

/// See the module.
pub struct Entry {
    pub at_ms: u64,
    pub bytes: Vec<u8>,
    pub edition: Edition,
}

/// An entry on its way to its place.
pub struct Writing {
    pub spot: Spot,
    pub jid: BareJid,
    pub whole: Vec<u8>,
    /// Of what is newer.
    pub times_ms: RangeInclusive<u64>,
    pub draft: Draft,
}

/// What it is written to first.
pub enum Draft {
    /// The file of a lead, in which those who wait for it read it.
    Lead(Claim),
    /// One of its own, under a lead where one brought it.
    New(PathBuf, Option<Claim>),
}

/// What was put into its place.
pub struct Placed {
    pub there: fs::Metadata,
    /// Nothing was there before.
    pub is_new: bool,
}

/// What stands in a file.
pub fn whole(at_ms: u64, jid: &BareJid, pad: usize, bytes: &[u8]) -> Vec<u8> {
    [format!("{at_ms} {jid}{:pad$}", "").as_bytes(), &[END], bytes, &[END]].concat()
}

impl Entry {
    /// Nothing where there is none, or something that is none. A link in its place is not followed.
    pub fn read(path: &Path, jid: &BareJid) -> io::Result<Option<Entry>> {
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
        let end = bytes.iter().position(|byte| *byte == END)?;
        let (at_ms, address) = std::str::from_utf8(&bytes[..end]).ok()?.split_once(' ')?;
        let at_ms = at_ms.parse().ok().filter(|_| address.trim_end() == jid.as_str())?;
        bytes.drain(..=end);
        bytes.pop_if(|last| *last == END)?;
        Some(Entry { at_ms, bytes, edition })
    }
}

impl Writing {
    /// Nothing where it was overtaken.
    pub fn put(&self) -> io::Result<Option<Placed>> {
        let before = Entry::read(&self.spot.path(), &self.jid)?;
        let is_outdated = before.as_ref().is_some_and(|there| self.times_ms.contains(&there.at_ms));
        if is_outdated || self.draft.is_overtaken() {
            return Ok(None);
        }
        let there = match &self.draft {
            Draft::Lead(claim) => claim.keep(&self.whole, &self.spot.path())?,
            Draft::New(path, _) => self.place(path)?,
        };
        Ok(there.map(|there| Placed { there, is_new: before.is_none() }))
    }

    fn place(&self, draft: &Path) -> io::Result<Option<fs::Metadata>> {
        let there = self.rename(draft);
        // This process may have been stopped in between, and what was removed then must not come back.
        if self.draft.is_overtaken() {
            let place = if there.is_ok() { &self.spot.path() } else { draft };
            return gone(fs::remove_file(place)).map(|()| None);
        }
        there.inspect_err(|_| drop(fs::remove_file(draft))).map(Some)
    }

    fn rename(&self, draft: &Path) -> io::Result<fs::Metadata> {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(draft)?;
        file.write_all(&self.whole)?;
        fs::rename(draft, self.spot.path())?;
        file.metadata()
    }
}

impl Draft {
    fn is_overtaken(&self) -> bool {
        match self {
            Draft::Lead(claim) | Draft::New(_, Some(claim)) => !claim.is_ours(),
            Draft::New(_, None) => false,
        }
    }
}

pub fn edition(there: &fs::Metadata) -> Edition {
    let time = (there.mtime() as u64).wrapping_mul(1_000_000_000).wrapping_add(there.mtime_nsec() as u64);
    Edition(u128::from(there.ino() ^ there.len().rotate_right(24)) << 64 | u128::from(time))
}

/// No file of ours.
fn is_none(error: &io::Error) -> bool {
    let is_link = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    error.kind() == io::ErrorKind::NotFound || is_link
}
