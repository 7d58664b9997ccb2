//! The questions of the last minute as all processes of an identity have asked them, in one file where they take turns:
//! under CGI each request is a process of its own, and what it counts by itself is one. The file is a row of records
//! and what anybody finds in it is believed for a minute at most. Without a file that can be used each process goes by
//! its own list.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use jid::BareJid;
use log::Level;

use super::rate::{MOST, Question, WINDOW_MS};
use crate::probe::lease::{Place, create};

/// The time, the client, the target, the pair.
const RECORD: usize = 32;
/// A turn takes a tenth of a millisecond. Three hundred processes at once have waited for up to a fifth of a second, and
/// nobody is to get more answers by asking so. But whoever waits holds up all strangers of its process, so that it gives
/// up after half a second.
const TRIES: u32 = 1000;
const PAUSE: Duration = Duration::from_micros(500);

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    path: Option<PathBuf>,
    /// How loudly it is told that the file cannot be used.
    complaint: Level,
    /// How often a lock is tried that somebody else holds: once after it was not to be had, until it is.
    tries: u32,
    /// When the file could not be used. For as long as a question counts this process does without it, so that nothing
    /// is lost when it looks there again.
    failed_ms: Option<u64>,
    is_told: bool,
}

/// The file while it is ours alone; the lock ends with it.
struct Page {
    file: File,
    length: u64,
    questions: Vec<Question>,
}

impl Ledger {
    pub fn new(directory: Option<&Path>, identity: &BareJid, complaint: Level) -> Ledger {
        let path = directory.map(|directory| Place::new(directory, identity).path("unknown"));
        Ledger { path, complaint, tries: TRIES, failed_ms: None, is_told: false }
    }

    /// Changes the list of all processes, and leaves `asked` as it is then. It changes `asked` as it is where there is
    /// no file, and for this once where the lock cannot be had: better one question that others do not count than
    /// a page that waits for a process that hangs.
    pub fn change<T>(
        &mut self,
        asked: &mut Vec<Question>,
        now_ms: u64,
        rule: impl FnOnce(&mut Vec<Question>) -> T,
    ) -> T {
        let page = self.page(now_ms);
        if let Some(page) = &page {
            asked.clone_from(&page.questions);
        }
        let result = rule(asked);
        match page.map(|page| page.keep(asked)) {
            Some(Err(error)) => self.give_up(now_ms, &error),
            Some(Ok(())) => self.is_told = false,
            None => {}
        }
        result
    }

    fn page(&mut self, now_ms: u64) -> Option<Page> {
        let path = self.path.as_ref()?;
        if self.failed_ms.is_some_and(|failed_ms| failed_ms.abs_diff(now_ms) < WINDOW_MS) {
            return None;
        }
        self.failed_ms = None;
        match Page::open(path, self.tries) {
            Ok(Some(page)) => {
                self.tries = TRIES;
                Some(page)
            }
            Ok(None) => {
                self.tries = 1;
                self.tell(&"another process has locked it");
                None
            }
            Err(error) => {
                self.give_up(now_ms, &error);
                None
            }
        }
    }

    fn give_up(&mut self, now_ms: u64, error: &io::Error) {
        self.failed_ms = Some(now_ms);
        self.tell(error);
    }

    /// Once, until the file has been of use again.
    fn tell(&mut self, why: &dyn std::fmt::Display) {
        let Some(path) = self.path.as_ref().filter(|_| !self.is_told) else { return };
        log::log!(self.complaint, "this process counts unknown people for itself: {}: {why}", path.display());
        self.is_told = true;
    }
}

impl Page {
    /// Nothing where somebody else holds the lock all the time.
    fn open(path: &Path, tries: u32) -> io::Result<Option<Page>> {
        let file = create(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for attempt in 1..=tries {
            match file.try_lock() {
                Ok(()) => return Page::read(file).map(Some),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if attempt < tries => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        Ok(None)
    }

    /// What stands behind the last whole record was cut off by the end of a process or of the room on the disk; what
    /// stands behind the most that anybody writes is not ours.
    fn read(file: File) -> io::Result<Page> {
        let (length, mut records) = (file.metadata()?.len(), Vec::new());
        (&file).take((MOST * RECORD) as u64).read_to_end(&mut records)?;
        let (records, _) = records.as_chunks::<RECORD>();
        Ok(Page { file, length, questions: records.iter().map(read).collect() })
    }

    /// Writes from the first record on that has changed: mostly that is one more. A process that is killed meanwhile
    /// leaves some records twice and one mixed of two, which is a person too many for a minute.
    fn keep(self, asked: &[Question]) -> io::Result<()> {
        let same = asked.iter().zip(&self.questions).take_while(|(new, old)| new == old).count();
        let changed: Vec<_> = asked[same..].iter().map(write).collect();
        if !changed.is_empty() {
            self.file.write_all_at(changed.as_flattened(), (same * RECORD) as u64)?;
        }
        let length = (asked.len() * RECORD) as u64;
        if self.length > length {
            self.file.set_len(length)?;
        }
        Ok(())
    }
}

fn read(record: &[u8; RECORD]) -> Question {
    let (fields, _) = record.as_chunks();
    let field = |i: usize| u64::from_be_bytes(fields[i]);
    Question { at_ms: field(0), client: field(1), target: field(2), pair: field(3) }
}

fn write(question: &Question) -> [u8; RECORD] {
    let fields = [question.at_ms, question.client, question.target, question.pair].map(u64::to_be_bytes);
    *fields.as_flattened().first_chunk().expect("four numbers are a record")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn identity() -> BareJid {
        BareJid::new("p.example.com").expect("a bare JID")
    }

    fn question(number: u64) -> Question {
        Question { at_ms: NOW + number, client: 7, target: number, pair: number }
    }

    /// A directory, the path of the file in it, and what the file holds.
    fn stand(content: &[u8]) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("p.example.com.unknown");
        create(&path).and_then(|mut file| file.write_all(content)).expect("writable");
        (directory, path)
    }

    fn ledger(directory: &TempDir) -> Ledger {
        Ledger::new(Some(directory.path()), &identity(), Level::Warn)
    }

    /// A new process asks, however long it has to wait, and sees what all have asked.
    fn ask(directory: &TempDir, number: u64) -> Vec<Question> {
        let (mut ledger, mut asked) = (Ledger { tries: 60_000, ..ledger(directory) }, Vec::new());
        ledger.change(&mut asked, NOW, |asked| asked.push(question(number)));
        asked
    }

    #[test]
    fn processes_see_what_others_asked() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(ask(&directory, 1), [question(1)]);
        assert_eq!(ask(&directory, 2), [question(1), question(2)]);
        let path = directory.path().join("p.example.com.unknown");
        let metadata = fs::metadata(&path).expect("it is there");
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (2 * RECORD as u64, 0o600));
        let mut ledger = ledger(&directory);
        ledger.change(&mut Vec::new(), NOW, |asked| asked.retain(|known| *known != question(1)));
        assert_eq!(fs::read(&path).expect("it is there"), write(&question(2)), "what is taken out leaves the file");
    }

    #[test]
    fn threads_lose_nothing() {
        let (directory, path) = stand(b"");
        thread::scope(|scope| {
            for thread in 0..8 {
                let directory = &directory;
                scope.spawn(move || (0..50).for_each(|n| drop(ask(directory, thread * 50 + n))));
            }
        });
        let mut numbers: Vec<u64> = ask(&directory, 400).iter().map(|known| known.at_ms - NOW).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..=400).collect::<Vec<_>>());
        assert_eq!(fs::metadata(path).expect("it is there").len(), 401 * RECORD as u64);
    }

    #[test]
    fn what_stands_in_the_file_does_no_harm() {
        let whole = [write(&question(1)), write(&question(2))].concat();
        let huge = [whole.clone(), vec![0; MOST * RECORD]].concat();
        for (what, content, expected) in [
            ("a record that was cut", whole[..40].to_vec(), vec![question(1), question(9)]),
            ("less than a record", b"garbage".to_vec(), vec![question(9)]),
            (
                "a shift that was cut",
                [&whole[RECORD..], &whole[RECORD..]].concat(),
                vec![question(2), question(2), question(9)],
            ),
        ] {
            let (directory, path) = stand(&content);
            assert_eq!(ask(&directory, 9), expected, "{what}");
            let written: Vec<u8> = expected.iter().flat_map(write).collect();
            assert_eq!(fs::read(path).expect("it is there"), written, "{what}: repaired");
        }
        let (directory, path) = stand(&huge);
        assert_eq!(ask(&directory, 9).len(), MOST + 1, "no more is read than is ever written");
        let asked = Page::open(&path, 1).expect("a file").expect("free").questions;
        assert_eq!((asked.len(), asked[0]), (MOST, question(1)));
    }

    #[test]
    fn a_file_of_another_length_is_repaired_without_a_change() {
        let content = [&write(&question(1))[..], b"garbage"].concat();
        let (directory, path) = stand(&content);
        let mut ledger = ledger(&directory);
        ledger.change(&mut Vec::new(), NOW, |asked| assert_eq!(*asked, [question(1)]));
        assert_eq!(fs::read(path).expect("it is there"), write(&question(1)));
    }

    #[test]
    fn a_lock_that_is_held_is_not_waited_for_long() {
        let (directory, path) = stand(b"");
        ask(&directory, 1);
        let holder = create(&path).expect("a file");
        holder.lock().expect("a lock");
        let (mut ledger, mut asked) = (ledger(&directory), Vec::new());
        ledger.change(&mut asked, NOW, |asked| asked.push(question(2)));
        assert_eq!((ledger.tries, ledger.is_told, &asked[..]), (1, true, &[question(2)][..]), "memory for this once");
        drop(holder);
        ledger.change(&mut asked, NOW, |asked| asked.push(question(3)));
        assert_eq!((ledger.tries, ledger.is_told, asked), (TRIES, false, vec![question(1), question(3)]));
    }

    #[test]
    fn where_the_file_cannot_be_used_it_is_memory() {
        let (nowhere, linked, folder) = (Path::new("/proc/nowhere"), stand(b"").0, stand(b"").0);
        for (directory, in_the_way) in [(&linked, true), (&folder, false)] {
            let path = directory.path().join("p.example.com.unknown");
            fs::remove_file(&path).expect("it is there");
            let made = if in_the_way { symlink("elsewhere", &path) } else { fs::create_dir(&path) };
            made.expect("writable");
        }
        for directory in [nowhere, linked.path(), folder.path()] {
            let mut ledger = Ledger::new(Some(directory), &identity(), Level::Warn);
            let mut asked = Vec::new();
            for number in 0..5 {
                ledger.change(&mut asked, NOW, |asked| asked.push(question(number)));
            }
            assert_eq!((asked.len(), ledger.failed_ms, ledger.is_told), (5, Some(NOW), true), "{directory:?}");
        }
        assert!(!linked.path().join("elsewhere").exists());
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_to_whoever_changes_it() {
        let (_directory, path) = stand(&write(&question(1)));
        let page = || Page::read(File::open(&path).expect("it is there")).expect("readable");
        assert_eq!(page().keep(&[question(1)]).map_err(|error| error.kind()), Ok(()), "nothing to write");
        assert!(page().keep(&[question(1), question(2)]).is_err());
        assert!(page().keep(&[]).is_err());
    }

    #[test]
    fn a_minute_after_a_failure_the_file_is_tried_again() {
        let (directory, path) = stand(b"");
        fs::remove_file(&path).expect("it is there");
        fs::create_dir(&path).expect("writable");
        let (mut ledger, mut asked) = (ledger(&directory), Vec::new());
        ledger.change(&mut asked, NOW, |asked| asked.push(question(1)));
        fs::remove_dir(&path).expect("it is empty");
        for (later, is_there, expected) in
            [(WINDOW_MS - 1, false, vec![question(1), question(2)]), (WINDOW_MS, true, vec![question(2)])]
        {
            ledger.change(&mut asked, NOW + later, |asked| asked.push(question(2)));
            assert_eq!((path.exists(), &asked, ledger.is_told), (is_there, &expected, !is_there), "{later}");
        }
    }
}
