//! Whose turn it is: one process of this machine at a time holds the session of an identity, by a lock on a file.
//! Prosody refuses a second session of a component, ejabberd accepts it and scatters the replies. Whoever waits says so
//! by a second lock, so that a session which only lingers makes room.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use jid::BareJid;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::{Instant, sleep};

/// How often a lock that somebody else holds is tried again.
const POLL: Duration = Duration::from_millis(5);
/// What stands for itself in a file name.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'@');

/// The turn of this process; it ends when this is dropped, or with the process.
pub struct Lease {
    /// Locked.
    _turn: File,
    wanted: File,
}

impl Lease {
    /// Waits for the turn of `jid` in `directory`; `None` if it did not come by `deadline`.
    pub async fn acquire(directory: &Path, jid: &BareJid, deadline: Instant) -> io::Result<Option<Lease>> {
        let turn = open(directory, jid, "lease")?;
        let wanted = open(directory, jid, "wanted")?;
        // Whoever waits already comes first: he tries within this time.
        if is_locked(&wanted) {
            sleep(POLL * 2).await;
        }
        if !try_lock(turn.try_lock())? {
            // Shared, so that any number can wait.
            let waiting = open(directory, jid, "wanted")?;
            waiting.lock_shared()?;
            while !try_lock(turn.try_lock())? {
                if Instant::now() >= deadline {
                    return Ok(None);
                }
                sleep(POLL).await;
            }
        }
        Ok(Some(Lease { _turn: turn, wanted }))
    }

    /// True while another process waits for its turn.
    pub fn is_wanted(&self) -> bool {
        is_locked(&self.wanted)
    }
}

/// True if another process has locked this file.
fn is_locked(file: &File) -> bool {
    match file.try_lock() {
        Ok(()) => {
            if let Err(error) = file.unlock() {
                log::warn!("lock file of the session: {error}");
            }
            false
        }
        Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Error(_)) => false,
    }
}

/// An address as part of a file's name.
pub fn file_name(jid: &BareJid) -> String {
    utf8_percent_encode(jid.as_str(), NAME).to_string()
}

fn open(directory: &Path, jid: &BareJid, kind: &str) -> io::Result<File> {
    create(&directory.join(format!("{}.{kind}", file_name(jid))))
}

/// A file of ours alone, there already or not; a link in its place is not followed.
pub fn create(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).custom_flags(flags).open(path)
}

fn try_lock(outcome: Result<(), TryLockError>) -> io::Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    #[tokio::test]
    async fn one_at_a_time_and_the_waiting_is_seen() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let jid = BareJid::new("p.example.com").expect("a bare JID");
        let other = BareJid::new("bob@example.com").expect("a bare JID");
        let acquire = |jid| Lease::acquire(directory.path(), jid, soon());

        let first = acquire(&jid).await.expect("files").expect("a free turn");
        assert!(!first.is_wanted());
        assert!(acquire(&other).await.expect("files").is_some(), "identities do not wait for each other");
        assert!(acquire(&jid).await.expect("files").is_none(), "the turn is taken");
        assert!(!first.is_wanted(), "nobody waits any more");

        let waiting = Lease::acquire(directory.path(), &jid, Instant::now() + Duration::from_secs(20));
        let hand_over = async {
            while !first.is_wanted() {
                tokio::task::yield_now().await;
            }
            drop(first);
        };
        let (second, ()) = tokio::join!(waiting, hand_over);
        assert!(second.expect("files").is_some());
    }

    #[tokio::test]
    async fn a_link_in_the_way_is_not_followed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::os::unix::fs::symlink("elsewhere", directory.path().join("p.example.com.lease")).expect("a link");
        let jid = BareJid::new("p.example.com").expect("a bare JID");
        assert!(Lease::acquire(directory.path(), &jid, soon()).await.is_err());
        assert!(!directory.path().join("elsewhere").exists());
    }
}
