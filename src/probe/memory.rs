//! What the processes of an identity remember together, as files where they take turns: what sessions have taught, and
//! what went wrong last. Only the holder of the lease writes; everybody reads. Each CGI request is a process of its own,
//! and each would send a wrong password again: COMPAT: ejabberd bans an address for an hour after twenty.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ring::digest;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::backoff::Setback;
use super::facts::Facts;
use super::lease::Place;
use crate::config::{Access, Identity, Privacy};
#[cfg(feature = "redis")]
use crate::config::{Security, TlsLibrary};

/// Bytes of a fingerprint that tell one configuration's file from another's.
const SHORT: usize = 4;
const SETBACK_BYTES: u64 = 16 * 1024;
/// Ten thousand servers and people, and room for long names.
const FACTS_BYTES: u64 = 4 * 1024 * 1024;
/// Of a file that is being written; then it takes the place of the one before.
const DRAFT: &str = "new";

/// See the module. Without a place nothing is remembered beyond this process.
pub struct Memory {
    place: Option<Place>,
    /// The sort of file that holds this configuration's setback.
    setback: String,
    /// The facts that this process read or wrote last, and what they were.
    facts: Option<(Stamp, [u8; 32])>,
    /// The last setback could not be written down, so that this process alone knows it.
    is_unwritable: bool,
}

/// What of the configuration decides how a session goes and what its answers are, the password with it. Whoever has
/// another one does not ask through our session, and what went wrong for him says nothing to us.
#[derive(Clone)]
pub struct Fingerprint([u8; 32]);

/// Which edition of a file.
#[derive(PartialEq)]
struct Stamp {
    inode: u64,
    modified: Option<SystemTime>,
}

/// The form in which a setback is written down: when, in milliseconds since 1970, and what it was.
#[derive(Serialize, Deserialize)]
struct Written {
    at_ms: u64,
    setback: Setback,
}

impl Fingerprint {
    pub fn of(identity: &Identity) -> Fingerprint {
        let password = identity.password.reveal();
        Fingerprint(hash(&format!("{password}\n{:?}", what_matters(identity))))
    }

    /// The same for the processes of other machines. Nothing of the password goes there, whose hash could be guessed at;
    /// and the way to the server is each machine's own.
    #[cfg(feature = "redis")]
    pub fn among_machines(identity: &Identity) -> Fingerprint {
        let rest = Identity {
            host: None,
            port: None,
            security: Security::AsOffered,
            tls: TlsLibrary::ALL[0],
            ca_file: None,
            client_certificate: None,
            verify: true,
            ..what_matters(identity)
        };
        Fingerprint(hash(&format!("{rest:?}")))
    }

    /// Fit to be told to a process of the same user.
    pub fn text(&self) -> String {
        BASE64.encode(self.0)
    }

    /// What sort of file a setback of this configuration is. Another configuration's is its own: whoever gets in by
    /// that one must not make this one forget that it was refused.
    fn setback(&self) -> String {
        let hex: String = self.0.iter().take(SHORT).map(|byte| format!("{byte:02x}")).collect();
        format!("failed.{hex}")
    }
}

/// How long somebody waits, who may see it and how much of it is each process's own affair.
fn what_matters(identity: &Identity) -> Identity {
    Identity {
        name: String::new(),
        timeout: Duration::ZERO,
        linger: None,
        access: Access::open(identity.access.domains.clone()),
        privacy: Privacy::default(),
        ..identity.clone()
    }
}

impl Memory {
    pub fn new(place: Option<Place>, identity: Fingerprint) -> Memory {
        Memory { place, setback: identity.setback(), facts: None, is_unwritable: false }
    }

    /// Where a setback is written down.
    pub fn setback_file(directory: &Path, identity: &Identity) -> PathBuf {
        Place::new(directory, &identity.jid).path(&Fingerprint::of(identity).setback())
    }

    /// False where this process alone knows what went wrong, also because it could not be written down.
    pub fn is_shared(&self) -> bool {
        self.place.is_some() && !self.is_unwritable
    }

    /// What went wrong last with the present configuration, and what is left of the pause after it.
    pub fn setback(&self, now: SystemTime) -> Option<(Setback, Duration)> {
        let (text, _) = read(&self.place.as_ref()?.path(&self.setback), SETBACK_BYTES)?;
        let written: Written = serde_json::from_str(&text).ok()?;
        // A time in the future tells only that a clock was set.
        let age = Duration::from_millis(epoch_ms(now).checked_sub(written.at_ms)?);
        let rest = written.setback.wait.saturating_sub(age);
        Some((written.setback, rest))
    }

    /// Remembers for every process what went wrong.
    pub fn note_setback(&mut self, setback: &Setback, now: SystemTime) {
        let Some(place) = &self.place else { return };
        let written = Written { at_ms: epoch_ms(now), setback: setback.clone() };
        let text = serde_json::to_string(&written).expect("a portable failure, strings and numbers");
        let written = write(place, &self.setback, &text);
        self.is_unwritable = written.is_err();
        told(place, &self.setback, written);
    }

    /// What went wrong lies behind.
    pub fn forget_setback(&mut self) {
        let Some(place) = &self.place else { return };
        self.is_unwritable = false;
        match fs::remove_file(place.path(&self.setback)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => told(place, &self.setback, Err(error)),
            _ => {}
        }
    }

    /// Learns what other processes have learned since this one last looked.
    pub fn recall_facts(&mut self, facts: &mut Facts, now: Instant, wall: SystemTime) {
        let Some(place) = &self.place else { return };
        let path = place.path("facts");
        let last = self.facts.as_ref().map(|(stamp, _)| stamp);
        if last.is_some() && last == stamp(&path).as_ref() {
            return;
        }
        if let Some((text, stamp)) = read(&path, FACTS_BYTES) {
            facts.refresh(&text, now, epoch_ms(wall) / 1000);
            self.facts = Some((stamp, hash(&text)));
        }
    }

    /// Writes down what this process knows, where that is not written yet.
    pub fn keep_facts(&mut self, facts: &Facts, now: Instant, wall: SystemTime) {
        let Some(place) = &self.place else { return };
        let text = facts.write(now, epoch_ms(wall) / 1000);
        if self.facts.as_ref().is_some_and(|(_, written)| *written == hash(&text)) {
            return;
        }
        told(place, "facts", write(place, "facts", &text));
        self.facts = stamp(&place.path("facts")).map(|stamp| (stamp, hash(&text)));
    }
}

fn hash(text: &str) -> [u8; 32] {
    digest::digest(&digest::SHA256, text.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn epoch_ms(now: SystemTime) -> u64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some(Stamp { inode: metadata.ino(), modified: metadata.modified().ok() })
}

/// The text of a file of at most so many bytes; a link in its place is not followed.
fn read(path: &Path, limit: u64) -> Option<(String, Stamp)> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let metadata = file.metadata().ok().filter(|metadata| metadata.is_file() && metadata.len() <= limit)?;
    let stamp = Stamp { inode: metadata.ino(), modified: metadata.modified().ok() };
    let mut text = String::new();
    file.take(limit).read_to_string(&mut text).ok()?;
    Some((text, stamp))
}

/// Nobody ever reads half of it: it is renamed into its place. Whoever holds the lease is alone with its draft.
fn write(place: &Place, kind: &str, text: &str) -> io::Result<()> {
    let draft = place.path(&format!("{kind}.{DRAFT}"));
    let _ = fs::remove_file(&draft);
    let mut file: File = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    fs::rename(draft, place.path(kind))
}

fn told(place: &Place, kind: &str, written: io::Result<()>) {
    if let Err(error) = written {
        log::warn!("cannot remember for the next session: {}: {error}", place.path(kind).display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::config::ServerKind;
    use crate::probe::Failure;
    use crate::probe::backoff::{Backoff, REFUSED, Strictness};

    fn identity(jid: &str, more: &str) -> Identity {
        let text = format!("[xmpp]\njid = {jid}\n{more}\n");
        config::parse(&text, Path::new("test.ini")).expect("a configuration").identities.remove(0)
    }

    fn memory(directory: &Path, identity: &Identity) -> Memory {
        Memory::new(Some(Place::new(directory, &identity.jid)), Fingerprint::of(identity))
    }

    fn refused() -> Setback {
        let failure = Failure::LoginRefused("not-authorized".into());
        Backoff::new(Strictness::Account).failed(&failure, Instant::now()).clone()
    }

    #[test]
    fn another_process_knows_until_the_configuration_changes_or_the_time_is_over() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let user = identity("web@example.com", "password = wrong");
        let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
        let rest = |identity: &Identity, at| memory(directory.path(), identity).setback(at).map(|(_, rest)| rest);
        assert_eq!(rest(&user, now), None);
        memory(directory.path(), &user).note_setback(&refused(), now);
        assert_eq!(memory(directory.path(), &user).setback(now), Some((refused(), REFUSED)));
        assert_eq!(rest(&user, now + hour), Some(hour));
        assert_eq!(rest(&user, now + 3 * hour), Some(Duration::ZERO), "it still counts for the next pause");
        assert_eq!(rest(&user, now - hour), None, "a clock that was set back");
        for (jid, more) in [
            ("web@example.com", "password = right"),
            ("web@example.com", "password = wrong\nport = 5223"),
            ("web@example.org", "password = wrong"),
        ] {
            assert_eq!(rest(&identity(jid, more), now), None, "{jid} {more}");
        }
        let patient = identity("web@example.com", "password = wrong\ntimeout = 9\nlinger = 900");
        assert_eq!(rest(&patient, now), Some(REFUSED), "what changes nothing for the server");
        memory(directory.path(), &identity("web@example.com", "password = right")).forget_setback();
        assert!(rest(&user, now).is_some(), "another configuration that works says nothing about this one");
        memory(directory.path(), &user).forget_setback();
        assert_eq!(rest(&user, now), None);
    }

    #[test]
    fn what_is_no_such_file_means_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let user = identity("web@example.com", "password = wrong");
        let now = SystemTime::now();
        memory(directory.path(), &user).note_setback(&refused(), now);
        let path = Memory::setback_file(directory.path(), &user);
        let whole = fs::read(&path).expect("it was noted");
        assert!(!String::from_utf8_lossy(&whole).contains("wrong"), "the password is written down");
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).expect("a writable directory");
            assert_eq!(memory(directory.path(), &user).setback(now), None, "cut at {end}");
        }
        let size = |bytes: u64| [whole.clone(), vec![b' '; bytes as usize - whole.len()]].concat();
        for (bytes, known) in [(SETBACK_BYTES, true), (SETBACK_BYTES + 1, false)] {
            fs::write(&path, size(bytes)).expect("a writable directory");
            assert_eq!(memory(directory.path(), &user).setback(now).is_some(), known, "{bytes} bytes");
        }
        fs::remove_file(&path).expect("it was there");
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, &whole).expect("a writable directory");
        std::os::unix::fs::symlink(&elsewhere, &path).expect("a link");
        assert_eq!(memory(directory.path(), &user).setback(now), None, "a link");
        memory(directory.path(), &user).note_setback(&refused(), now);
        assert_eq!(fs::read(&elsewhere).expect("still there"), whole, "nothing is written through a link");
        assert!(memory(directory.path(), &user).setback(now).is_some());
        let mut alone = Memory::new(None, Fingerprint::of(&user));
        alone.note_setback(&refused(), now);
        assert_eq!(alone.setback(now), None);
    }

    #[test]
    fn facts_are_read_when_another_process_has_written_them() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let user = identity("web@example.com", "password = x");
        let (now, wall) = (Instant::now(), SystemTime::now());
        let (mut writer, mut reader) = (memory(directory.path(), &user), memory(directory.path(), &user));
        let (mut learned, mut known) = (Facts::default(), Facts::default());
        reader.recall_facts(&mut known, now, wall);
        for kind in [ServerKind::Prosody, ServerKind::Ejabberd] {
            learned.server_mut("example.com").kind = Some(kind);
            writer.keep_facts(&learned, now, wall);
            reader.recall_facts(&mut known, now, wall);
            assert_eq!(known.server("example.com").kind, Some(kind));
        }
        known.server_mut("example.com").kind = None;
        reader.recall_facts(&mut known, now, wall);
        assert_eq!(known.server("example.com").kind, None, "the same edition is not read twice");
        let mode = fs::metadata(directory.path().join("web@example.com.facts")).expect("written").mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(directory.path().join("web@example.com.facts"), "{").expect("ours");
        reader.recall_facts(&mut learned, now, wall);
        assert_eq!(learned.server("example.com").kind, Some(ServerKind::Ejabberd), "what is broken takes nothing away");
    }

    #[test]
    fn what_cannot_be_written_down_is_known_to_this_process_alone() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut memory = memory(&directory.path().join("gone"), &identity("web@example.com", "password = wrong"));
        assert!(memory.is_shared());
        memory.note_setback(&refused(), SystemTime::now());
        assert!(!memory.is_shared());
        memory.forget_setback();
        assert!(memory.is_shared());
    }
}
