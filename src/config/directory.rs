//! The folder where processes share what they know. It is made when missing, and used only if it belongs to the user
//! we run as and nobody else can write there; what is kept in it is for the cache.

use std::fmt;
use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, Mode, OFlags};

/// What the names of folders end with that the cache makes in it.
const PEOPLE: &str = ".people";

/// Makes the folder and its missing parents (0700), checks that it is ours, and closes it to others. The descriptor
/// that is checked is the one that is changed, so that nothing can be exchanged in between. A folder that is as it should
/// be is not even opened: each request of CGI comes by here.
///
/// # Errors
/// Why there is no such folder, in one line for the log. The caller goes on in memory only.
pub fn open(directory: Option<&Path>, uid: u32) -> Result<PathBuf, Unusable> {
    // Without a slash at its end, behind which a link would be followed.
    let path = &directory.ok_or(Unusable::Nowhere)?.components().collect::<PathBuf>();
    let because = |why| Unusable::Because(path.to_owned(), why);
    let failed = |e: rustix::io::Errno| because(Why::Failed(e.kind()));
    if !is_ours_alone(path, uid) {
        make(path, uid).map_err(because)?;
    }
    rustix::fs::access(path, Access::WRITE_OK | Access::EXEC_OK).map_err(failed)?;
    Ok(path.to_owned())
}

/// A directory that nobody but this user gets into. A link is none.
fn is_ours_alone(path: &Path, uid: u32) -> bool {
    let is_ours = |found: Metadata| found.is_dir() && found.uid() == uid && found.mode() & 0o7777 == 0o700;
    std::fs::symlink_metadata(path).is_ok_and(is_ours)
}

fn make(path: &Path, uid: u32) -> Result<(), Why> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| Why::NotMade(e.kind()))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| match e {
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => Why::NotADirectory,
        e => Why::Failed(e.kind()),
    })?;
    let is_ours = holds_only_ours(path, uid).map_err(|e| Why::Failed(e.kind()))?;
    close_to_others(folder, uid, is_ours)
}

/// Nothing is in it but what a process of ours has put there for itself. Somebody else uses any other folder, as
/// everybody uses /var/lib: it must not be closed to him.
fn holds_only_ours(path: &Path, uid: u32) -> io::Result<bool> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let found = entry.metadata()?;
        let is_other = found.is_dir() && !entry.file_name().as_encoded_bytes().ends_with(PEOPLE.as_bytes());
        if is_other || found.uid() != uid || found.mode() & 0o077 != 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn close_to_others(folder: impl AsFd, uid: u32, is_ours: bool) -> Result<(), Why> {
    let stat = rustix::fs::fstat(&folder).map_err(|e| Why::Failed(e.kind()))?;
    let mode = Mode::from_raw_mode(stat.st_mode);
    if stat.st_uid != uid {
        return Err(Why::Foreign { owner: stat.st_uid, uid });
    }
    // What others could write may already be a trap; what they could only read is simply closed (systemd makes 0755).
    if mode.intersects(Mode::WGRP | Mode::WOTH) {
        return Err(Why::Writable { mode: mode.bits() });
    }
    if mode.intersects(Mode::RWXG | Mode::RWXO) {
        if !is_ours {
            return Err(Why::InUse { mode: mode.bits() });
        }
        rustix::fs::fchmod(&folder, Mode::RWXU).map_err(|e| Why::Failed(e.kind()))?;
    }
    Ok(())
}

/// Why nothing can be shared between processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// None was configured, and none of the usual places is ours.
    Nowhere,
    Because(PathBuf, Why),
}

/// What is wrong with a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    NotMade(io::ErrorKind),
    /// Or a symbolic link, which is not followed.
    NotADirectory,
    Foreign {
        owner: u32,
        uid: u32,
    },
    Writable {
        mode: u32,
    },
    /// Open to others, and there are files in it that are not ours alone.
    InUse {
        mode: u32,
    },
    Failed(io::ErrorKind),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, why) = match self {
            Unusable::Nowhere => return f.write_str("no directory for the cache belongs to this user"),
            Unusable::Because(path, why) => (path.display(), why),
        };
        match why {
            Why::NotMade(kind) => write!(f, "{path} cannot be made: {kind}"),
            Why::NotADirectory => write!(f, "{path} is not a directory (links are not followed)"),
            Why::Foreign { owner, uid } => write!(f, "{path} belongs to user {owner}, not to user {uid}"),
            Why::Writable { mode } => write!(f, "others may write in {path} (mode {mode:04o})"),
            Why::InUse { mode } => {
                write!(f, "{path} is open to others (mode {mode:04o}) and used for something else")
            }
            Why::Failed(kind) => write!(f, "{path} cannot be used: {kind}"),
        }
    }
}

impl std::error::Error for Unusable {}
