//! Whose turn it is to look somebody up, by a lock on a file of his: it ends with the process that holds it, in whatever
//! way. Those who wait have the same file open, and find in it what was found, a refusal too; it is out of its place by
//! then, so that nobody who comes later can read it there. What is kept is that same file, moved.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};

use crate::probe::lease::create;

/// How soon it is seen that somebody else is done; each time it is later, up to the second one.
const POLL: Duration = Duration::from_millis(1);
const SLOW_POLL: Duration = Duration::from_millis(16);
/// How long somebody waits before he asks whether he who leads was stopped: most are done by then, whatever clocks say.
const DOUBT: Duration = Duration::from_secs(1);
/// Longer than any outcome is.
const LIMIT: u64 = 4 * 1024 * 1024;
/// What stands before an outcome and behind it, and not in it: without the second one the process that wrote was killed
/// meanwhile.
pub const END: u8 = b'\n';

/// The lead of one person.
#[derive(Debug)]
pub struct Lead(Claim);

/// By which it is seen whether a lead is still there. While one is left nobody else's file is taken for it.
#[derive(Clone, Debug)]
pub struct Claim {
    file: Arc<File>,
    path: PathBuf,
}

/// Whose turn it is.
#[derive(Debug)]
pub enum Turn {
    Ours(Lead),
    Told(Vec<u8>),
    Late,
}

/// What waiting has brought.
enum Waited {
    /// The lock is ours.
    Free,
    Told(Vec<u8>),
    /// Nobody looks so long: his process was stopped, and does not stand in the way of others for ever.
    Abandoned,
    Late,
}

/// Waits for the lead whose file is at `path`, or for what it brings somebody else. Nobody leads for longer than `most`.
pub async fn turn(path: &Path, most: Duration, deadline: Instant) -> io::Result<Turn> {
    loop {
        let file = create(path)?;
        // What is in it already was for others.
        let is_old = file.metadata()?.len() > 0;
        match wait(&file, is_old, most, deadline).await? {
            // Where it was taken away meanwhile, the next process locks another one.
            Waited::Free if is_at(path, &file) => {
                file.set_len(0)?;
                return Ok(Turn::Ours(Lead(Claim { file: Arc::new(file), path: path.to_owned() })));
            }
            Waited::Free => {}
            Waited::Told(outcome) => return Ok(Turn::Told(outcome)),
            Waited::Abandoned => give_away(path, &file)?,
            Waited::Late => {
                if is_abandoned(&file, most) {
                    give_away(path, &file)?;
                }
                return Ok(Turn::Late);
            }
        }
    }
}

/// Whoever waits takes a shared lock to see whether the lead is over, so that all see it at once.
async fn wait(file: &File, is_old: bool, most: Duration, deadline: Instant) -> io::Result<Waited> {
    let (begun, mut pause) = (Instant::now(), POLL);
    if taken(file.try_lock())? {
        return Ok(Waited::Free);
    }
    loop {
        let now = Instant::now();
        if now >= deadline {
            return Ok(Waited::Late);
        }
        sleep_until(deadline.min(now + pause)).await;
        pause = (pause * 2).min(SLOW_POLL);
        if !taken(file.try_lock_shared())? {
            if begun.elapsed() >= DOUBT && is_abandoned(file, most) {
                return Ok(Waited::Abandoned);
            }
            continue;
        }
        if let Some(outcome) = outcome(file)?.filter(|_| !is_old) {
            return Ok(Waited::Told(outcome));
        }
        if taken(file.try_lock())? {
            return Ok(Waited::Free);
        }
        file.unlock()?;
    }
}

fn taken(lock: Result<(), TryLockError>) -> io::Result<bool> {
    match lock {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// What was handed over; nothing where whoever had the lead ended without a word, or in the middle of it.
fn outcome(file: &File) -> io::Result<Option<Vec<u8>>> {
    let length = file.metadata()?.len();
    if length == 0 || length > LIMIT {
        return Ok(None);
    }
    let mut said = vec![0; length as usize];
    file.read_exact_at(&mut said, 0)?;
    // Where it is kept, whose it is and from when stands before it.
    let begins = said.iter().position(|byte| *byte == END).map(|at| at + 1);
    Ok(begins.and_then(|begins| said.get(begins..)?.strip_suffix(&[END])).map(<[u8]>::to_vec))
}

/// By the time at which he took it. A clock that is wrong takes it from him too early, which costs one more lookup.
fn is_abandoned(file: &File, most: Duration) -> bool {
    let taken = file.metadata().and_then(|metadata| metadata.modified()).ok();
    let age = taken.and_then(|taken| SystemTime::now().duration_since(taken).ok());
    age.is_some_and(|age| age >= most)
}

/// Whoever led must not come back to it.
fn give_away(path: &Path, file: &File) -> io::Result<()> {
    if is_at(path, file) { fs::remove_file(path) } else { Ok(()) }
}

fn is_at(path: &Path, file: &File) -> bool {
    let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let there = fs::symlink_metadata(path).map(place).ok();
    there.is_some() && there == file.metadata().map(place).ok()
}

impl Claim {
    /// False where something newer has come meanwhile.
    pub fn is_ours(&self) -> bool {
        is_at(&self.path, &self.file)
    }

    pub fn is_of(&self, path: &Path) -> bool {
        self.path == path
    }

    /// Says what is to be kept, and puts it into its place with all that it says; nothing where something newer has come
    /// meanwhile.
    pub fn keep(&self, whole: &[u8], place: &Path) -> io::Result<Option<fs::Metadata>> {
        self.file.write_all_at(whole, 0)?;
        let moved = fs::rename(&self.path, place);
        if moved.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Ok(None);
        }
        moved?;
        if is_at(place, &self.file) {
            return self.file.metadata().map(Some);
        }
        // It was taken away, and what was moved belongs to whoever leads now, or it was taken away afterwards.
        fs::remove_file(place).or_else(|error| (error.kind() == io::ErrorKind::NotFound).then_some(()).ok_or(error))?;
        Ok(None)
    }
}

impl Lead {
    /// As that of its claim.
    pub fn is_ours(&self) -> bool {
        self.0.is_ours()
    }

    pub fn claim(&self) -> Claim {
        self.0.clone()
    }

    /// To those who wait, unless it was kept, by which it is told. Where that fails, one of them looks anew.
    pub fn hand_over(self, outcome: &[u8]) {
        let file = &self.0.file;
        if file.metadata().is_ok_and(|there| there.len() > 0) {
            return;
        }
        if let Err(error) = file.write_all_at(&[&[END], outcome, &[END]].concat(), 0) {
            log::debug!("nobody is told what was found: {}: {error}", self.0.path.display());
        }
    }
}

impl Drop for Lead {
    /// Out of its place first: the lock goes with the file, behind this.
    fn drop(&mut self) {
        if self.is_ours() {
            let _ = fs::remove_file(&self.0.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A place for leads, and the path of one.
    fn place() -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("bob.lead");
        (directory, path)
    }

    const MOST: Duration = Duration::from_secs(6);

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    async fn ours(path: &Path) -> Lead {
        match turn(path, MOST, soon()).await.expect("files") {
            Turn::Ours(lead) => lead,
            other => panic!("{other:?}"),
        }
    }

    /// Somebody who waits from now on.
    async fn waiting(path: &Path) -> tokio::task::JoinHandle<Turn> {
        let path = path.to_owned();
        let task = tokio::spawn(async move { turn(&path, MOST, soon()).await.expect("files") });
        tokio::task::yield_now().await;
        task
    }

    #[tokio::test]
    async fn who_waits_is_told_and_nobody_who_comes_later() {
        let (directory, path) = place();
        let lead = ours(&path).await;
        let (one, other) = (waiting(&path).await, waiting(&path).await);
        lead.hand_over(b"refused");
        assert_eq!(fs::read_dir(directory.path()).expect("ours").count(), 0, "nothing of it is left");
        let next = ours(&path).await;
        for told in [one, other] {
            assert!(matches!(told.await.expect("no panic"), Turn::Told(outcome) if outcome == b"refused"));
        }
        assert!(next.is_ours());
    }

    #[tokio::test]
    async fn a_lead_without_an_outcome_goes_to_one_of_those_who_wait() {
        let (_directory, path) = place();
        let lead = ours(&path).await;
        let (one, other) = (waiting(&path).await, waiting(&path).await);
        drop(lead);
        let (first, rest) = tokio::select! {
            turn = one => (turn, None),
            turn = other => (turn, Some(())),
        };
        let Turn::Ours(first) = first.expect("no panic") else { panic!("its turn: {rest:?}") };
        assert!(first.is_ours());
    }

    /// As whoever was killed leaves it: there is no word in it, half of one, or a whole one.
    #[tokio::test]
    async fn what_a_killed_process_left_is_nothing_to_others() {
        for left in [&b""[..], b"\n", b"\nrefu", b"\nrefused\n"] {
            let (_directory, path) = place();
            fs::write(&path, left).expect("ours");
            let lead = ours(&path).await;
            assert_eq!(fs::metadata(&path).expect("there").len(), 0, "{left:?}");
            drop(lead);
            // Also where somebody just looks whether it is over.
            fs::write(&path, left).expect("ours");
            let peeping = File::open(&path).expect("there");
            peeping.lock_shared().expect("a lock");
            let next = waiting(&path).await;
            drop(peeping);
            assert!(matches!(next.await.expect("no panic"), Turn::Ours(_)), "{left:?}");
        }
    }

    #[tokio::test]
    async fn who_waited_for_a_killed_process_is_told_what_it_still_said() {
        let (_directory, path) = place();
        let killed = create(&path).expect("a file");
        killed.lock().expect("a lock");
        let (one, other) = (waiting(&path).await, waiting(&path).await);
        killed.write_all_at(b"\nrefused\n", 0).expect("ours");
        drop(killed);
        for told in [one, other] {
            assert!(matches!(told.await.expect("no panic"), Turn::Told(outcome) if outcome == b"refused"));
        }
        assert!(matches!(waiting(&path).await.await.expect("no panic"), Turn::Ours(_)), "nobody later");
    }

    /// It was taken away meanwhile, by whoever knows better or for somebody else's turn, or nothing happened.
    #[tokio::test]
    async fn what_is_kept_is_told_and_nobody_elses() {
        for (is_taken, is_led_anew) in [(false, false), (true, false), (true, true)] {
            let (directory, path) = place();
            let lead = ours(&path).await;
            let follower = waiting(&path).await;
            if is_taken {
                fs::remove_file(&path).expect("ours");
            }
            let next = if is_led_anew { Some(ours(&path).await) } else { None };
            let entry = directory.path().join("bob");
            let kept = lead.claim().keep(b"whose\naway\n", &entry).expect("files");
            assert_eq!(kept.is_some(), !is_taken);
            assert_eq!(fs::read(&entry).ok().as_deref(), kept.map(|_| &b"whose\naway\n"[..]));
            assert!(next.is_none_or(|next| !next.is_ours()), "a lookup too many, and nothing that is not true");
            lead.hand_over(b"away");
            assert!(matches!(follower.await.expect("no panic"), Turn::Told(outcome) if outcome == b"away"));
        }
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_he_has_time() {
        let (_directory, path) = place();
        let lead = ours(&path).await;
        let begun = Instant::now();
        let late = turn(&path, MOST, begun + Duration::from_millis(50)).await.expect("files");
        assert!(matches!(late, Turn::Late) && begun.elapsed() >= Duration::from_millis(50));
        assert!(lead.is_ours());
    }

    #[tokio::test]
    async fn a_process_that_was_stopped_loses_its_lead_while_others_wait() {
        let (_directory, path) = place();
        let lead = ours(&path).await;
        let taken_ago = |age| lead.0.file.set_modified(SystemTime::now() - age).expect("ours");
        let turn = async || turn(&path, MOST, Instant::now() + DOUBT + SLOW_POLL * 10).await.expect("files");
        taken_ago(MOST - Duration::from_secs(2));
        assert!(matches!(turn().await, Turn::Late) && lead.is_ours());
        taken_ago(MOST);
        let Turn::Ours(next) = turn().await else { panic!("nobody leads") };
        assert!(!lead.is_ours());
        drop(lead);
        assert!(next.is_ours(), "the one who lost it takes nothing from the next one");
    }

    #[tokio::test]
    async fn who_is_overtaken_still_tells_those_who_wait() {
        let (_directory, path) = place();
        let lead = ours(&path).await;
        let follower = waiting(&path).await;
        fs::remove_file(&path).expect("ours");
        let next = ours(&path).await;
        assert!(!lead.is_ours() && next.is_ours());
        lead.hand_over(b"away");
        assert!(matches!(follower.await.expect("no panic"), Turn::Told(outcome) if outcome == b"away"));
        assert!(next.is_ours());
    }
}
