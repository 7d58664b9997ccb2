//! Requests for consent that nobody has answered yet, remembered as empty files where processes take turns. COMPAT:
//! Prosody deletes such a request when we probe the person, who then never gets to see it; so nobody is probed while
//! one is out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jid::BareJid;

use super::lease::{create, file_name};

/// See the module. Without a directory nothing is remembered.
#[derive(Clone, Debug, Default)]
pub struct Pending(Option<PathBuf>);

impl Pending {
    pub fn new(directory: Option<&Path>) -> Pending {
        Pending(directory.map(Path::to_owned))
    }

    pub fn is_out(&self, identity: &BareJid, person: &BareJid) -> bool {
        self.file(identity, person).is_some_and(|file| file.exists())
    }

    /// True if it was not remembered before.
    pub fn note(&self, identity: &BareJid, person: &BareJid) -> bool {
        let Some(file) = self.file(identity, person) else { return false };
        let new = !file.exists();
        if let Err(error) = create(&file).and_then(|file| file.set_modified(SystemTime::now())) {
            log::warn!("cannot remember that {person} was asked: {}: {error}", file.display());
        }
        new
    }

    /// The request that is out is younger than `time`.
    pub fn was_asked_within(&self, identity: &BareJid, person: &BareJid, time: Duration, now: SystemTime) -> bool {
        let file = self.file(identity, person).and_then(|file| fs::metadata(file).ok());
        // A time in the future tells only that a clock was set.
        let age = file.and_then(|file| now.duration_since(file.modified().ok()?).ok());
        age.is_some_and(|age| age < time)
    }

    /// The person has answered.
    pub fn settle(&self, identity: &BareJid, person: &BareJid) {
        let Some(file) = self.file(identity, person) else { return };
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => log::warn!("{}: {error}", file.display()),
            _ => {}
        }
    }

    fn file(&self, identity: &BareJid, person: &BareJid) -> Option<PathBuf> {
        let name = format!("{}.asked.{}", file_name(identity), file_name(person));
        self.0.as_ref().map(|directory| directory.join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_out_until_it_is_settled() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let pending = Pending::new(Some(directory.path()));
        let jid = |text: &str| BareJid::new(text).expect("a bare JID");
        let (us, bob) = (jid("p.example.com"), jid("bob@example.com"));
        pending.settle(&us, &bob);
        assert!(!pending.is_out(&us, &bob));
        assert!(pending.note(&us, &bob));
        assert!(!pending.note(&us, &bob), "it was remembered before");
        assert!(pending.is_out(&us, &bob));
        let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
        let asked = |time, later| pending.was_asked_within(&us, &bob, time, now + later);
        assert!(asked(2 * hour, hour) && !asked(hour, 2 * hour));
        assert!(!pending.was_asked_within(&us, &bob, hour, now - hour), "a clock that was set back");
        assert!(!pending.was_asked_within(&bob, &us, hour, now));
        assert!(!pending.is_out(&us, &jid("bob@example.org")) && !pending.is_out(&bob, &us));
        pending.settle(&us, &bob);
        assert!(!pending.is_out(&us, &bob));
    }

    #[test]
    fn without_a_place_nothing_is_out_and_long_names_are_no_matter() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let us = BareJid::new("p.example.com").expect("a bare JID");
        let long = BareJid::new(&format!("{}@example.com", "x".repeat(250))).expect("a bare JID");
        for (pending, person, out) in
            [(Pending::default(), &us, false), (Pending::new(Some(directory.path())), &long, true)]
        {
            assert_eq!((pending.note(&us, person), pending.is_out(&us, person)), (out, out));
            pending.settle(&us, person);
            assert!(!pending.is_out(&us, person));
        }
    }
}
