//! A password that an account's server refused, remembered as a file where processes take turns: each CGI request is a
//! process of its own, and each would send it again. COMPAT: ejabberd bans an address for an hour after twenty refusals.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use super::backoff::ACCOUNT_REFUSED;
use super::lease::{create, file_name};
use crate::config::Identity;

const SALT_BYTES: usize = 16;
const PROOF_BYTES: usize = 32;
/// Of a server's condition; see `session::condition`.
const CONDITION_BYTES: u64 = 256;

/// See the module. Without a directory nothing is remembered. The file holds a salt, a proof of the password, and the
/// server's condition; it lies beside nothing that its reader could not read in the configuration.
#[derive(Clone, Debug, Default)]
pub struct Refused(Option<PathBuf>);

impl Refused {
    pub fn new(directory: Option<&Path>, identity: &Identity) -> Refused {
        let directory = directory.filter(|_| !identity.is_component());
        Refused(directory.map(|directory| Refused::file(directory, identity)))
    }

    /// Where it is remembered.
    pub fn file(directory: &Path, identity: &Identity) -> PathBuf {
        directory.join(format!("{}.refused", file_name(&identity.jid)))
    }

    /// The condition by which the present password was refused, and how long it is not to be sent again.
    pub fn stands(&self, identity: &Identity, now: SystemTime) -> Option<(String, Duration)> {
        let mut file = fs::File::open(self.0.as_ref()?).ok()?;
        // A time in the future tells only that a clock was set.
        let age = now.duration_since(file.metadata().ok()?.modified().ok()?).ok()?;
        let rest = ACCOUNT_REFUSED.checked_sub(age).filter(|rest| !rest.is_zero())?;
        let (mut salt, mut proof, mut condition) = ([0; SALT_BYTES], [0; PROOF_BYTES], String::new());
        file.read_exact(&mut salt).ok()?;
        file.read_exact(&mut proof).ok()?;
        file.take(CONDITION_BYTES).read_to_string(&mut condition).ok()?;
        hmac::verify(&key(identity), &salt, &proof).ok().map(|()| (condition, rest))
    }

    pub fn note(&self, identity: &Identity, condition: &str) {
        let Some(path) = &self.0 else { return };
        let mut salt = [0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).expect("the kernel gives random numbers once it has booted");
        let proof = hmac::sign(&key(identity), &salt);
        let content = [&salt, proof.as_ref(), condition.as_bytes()].concat();
        let noted = create(path).and_then(|mut file| file.set_len(0).and_then(|()| file.write_all(&content)));
        if let Err(error) = noted {
            log::warn!("cannot remember that the password was refused: {}: {error}", path.display());
        }
    }
}

fn key(identity: &Identity) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, identity.password.reveal().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn identity(jid: &str, password: &str) -> Identity {
        let text = format!("[xmpp]\njid = {jid}\npassword = {password}\n");
        config::parse(&text, Path::new("test.ini")).expect("a configuration").identities.remove(0)
    }

    #[test]
    fn another_process_knows_until_the_password_changes_or_the_time_is_over() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let user = identity("web@example.com", "wrong");
        let refused = || Refused::new(Some(directory.path()), &user);
        let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
        assert_eq!(refused().stands(&user, now), None);
        refused().note(&user, "not-authorized");
        let stands = |identity: &Identity, later| {
            let place = Refused::new(Some(directory.path()), identity);
            place.stands(identity, now + later).map(|(condition, _)| condition)
        };
        assert_eq!(stands(&user, hour), Some("not-authorized".into()));
        assert_eq!(stands(&user, ACCOUNT_REFUSED + hour), None);
        assert_eq!(stands(&identity("web@example.com", "right"), hour), None);
        assert_eq!(stands(&identity("web@example.org", "wrong"), hour), None);
        assert_eq!(refused().stands(&user, now - hour), None, "a clock that was set back");
        let (_, rest) = refused().stands(&user, now + hour).expect("an hour is left");
        assert!(rest <= hour + Duration::from_secs(1), "{rest:?}");
    }

    #[test]
    fn what_is_no_such_file_means_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let user = identity("web@example.com", "wrong");
        let refused = Refused::new(Some(directory.path()), &user);
        refused.note(&user, "");
        let path = directory.path().join("web@example.com.refused");
        let whole = fs::read(&path).expect("it was noted");
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).expect("a writable directory");
            assert_eq!(refused.stands(&user, SystemTime::now() + Duration::from_secs(1)), None, "cut at {end}");
        }
        let component = identity("presence.example.com", "wrong");
        Refused::new(Some(directory.path()), &component).note(&component, "not-authorized");
        Refused::new(None, &user).note(&user, "not-authorized");
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
    }
}
