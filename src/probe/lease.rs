//! Which process of this machine holds the session of an identity, by a lock on a file: Prosody refuses a second session
//! of a component, ejabberd accepts it and scatters the replies. The place of that file is also that of everything else
//! that the processes of one identity share.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jid::BareJid;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::digest;

/// What stands for itself in a file name.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'@');
/// The longest address that is a name as it is. A socket's whole path may have 107 bytes, a file's name 255.
const NAME_BYTES: usize = 64;
/// What is left of a longer one in front of its hash, and how much of the hash there is.
const NAME_HEAD: usize = 24;
const NAME_HASH: usize = 16;

/// Where the processes of one identity meet.
#[derive(Clone, Debug)]
pub struct Place {
    pub directory: PathBuf,
    name: String,
}

/// Held by this process alone until this is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub struct Lease(#[expect(dead_code, reason = "the lock is the file's, as long as it is open")] File);

impl Place {
    pub fn new(directory: &Path, jid: &BareJid) -> Place {
        Place { directory: directory.to_owned(), name: file_name(jid) }
    }

    /// The name of a file of this identity.
    pub fn name(&self, kind: &str) -> String {
        format!("{}.{kind}", self.name)
    }

    pub fn path(&self, kind: &str) -> PathBuf {
        self.directory.join(self.name(kind))
    }

    /// The lease, if no other process has it.
    pub fn lease(&self) -> io::Result<Option<Lease>> {
        let path = self.path("lease");
        let file = create(&path)?;
        match file.try_lock() {
            // Somebody may have removed the file meanwhile: then the next process would lock another one.
            Ok(()) if fs::metadata(&path)?.ino() == file.metadata()?.ino() => Ok(Some(Lease(file))),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// An address as part of a file's name. Two addresses never share one: no address as it is holds a `~`.
pub fn file_name(jid: &BareJid) -> String {
    let name = utf8_percent_encode(jid.as_str(), NAME).to_string();
    if name.len() <= NAME_BYTES {
        return name;
    }
    let hash = digest::digest(&digest::SHA256, jid.as_str().as_bytes());
    let hex: String = hash.as_ref().iter().take(NAME_HASH).map(|byte| format!("{byte:02x}")).collect();
    // Encoded, it is ASCII.
    format!("{}~{hex}", &name[..NAME_HEAD])
}

/// A file of ours alone, there already or not; a link in its place is not followed.
pub fn create(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).custom_flags(flags).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> BareJid {
        BareJid::new(text).expect("a bare JID")
    }

    #[test]
    fn one_at_a_time() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let place = |text| Place::new(directory.path(), &jid(text));
        let first = place("p.example.com").lease().expect("files").expect("a free lease");
        assert!(place("bob@example.com").lease().expect("files").is_some(), "identities do not wait for each other");
        assert!(place("p.example.com").lease().expect("files").is_none(), "it is held");
        drop(first);
        assert!(place("p.example.com").lease().expect("files").is_some(), "it is free again");
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::os::unix::fs::symlink("elsewhere", directory.path().join("p.example.com.lease")).expect("a link");
        assert!(Place::new(directory.path(), &jid("p.example.com")).lease().is_err());
        assert!(!directory.path().join("elsewhere").exists());
    }

    #[test]
    fn names_are_short_and_tell_addresses_apart() {
        assert_eq!(file_name(&jid("bob@example.com")), "bob@example.com");
        assert_eq!(file_name(&jid("bo/b@example.com".replace('/', "%").as_str())), "bo%25b@example.com");
        let whole = format!("{}@example.com", "x".repeat(NAME_BYTES - 12));
        assert_eq!(file_name(&jid(&whole)), whole);
        let longer: Vec<String> = ["a", "b"].map(|end| file_name(&jid(&format!("{whole}{end}")))).into();
        assert!(longer.iter().all(|name| name.len() <= NAME_BYTES && name.contains('~')), "{longer:?}");
        assert_ne!(longer[0], longer[1]);
    }
}
