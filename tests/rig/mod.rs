//! Real servers for tests: Prosody, ejabberd, jabberd2, nginx, Apache and Redis as Debian packages them (Prosody and ejabberd
//! in two releases), people who are online with a client that is not ours, and the executable under test. Each lives in
//! a temporary directory of its own on loopback and ends with the test process, however that ends. Nothing here knows
//! what a right answer is.

pub mod apache;
pub mod certificate;
pub mod component;
pub mod copy;
pub mod crowd;
pub mod dns;
pub mod ejabberd;
pub mod fastcgi;
pub mod http;
pub mod jabberd2;
pub mod leash;
pub mod login;
pub mod nginx;
pub mod port;
pub mod prosody;
#[cfg(feature = "redis")]
pub mod redis;
pub mod tap;
pub mod tls;
pub mod users;
pub mod webpresence;
pub mod xmpp;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long anything in here may take before the test fails: far more than it needs on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// As [`patiently`], and the test fails where there is no answer.
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    patiently(ask).unwrap_or_else(|| panic!("{what}: not within {PATIENCE:?}"))
}

/// Asks again and again until there is an answer; the wait is bounded and ends as soon as it can.
pub fn patiently<T>(ask: impl FnMut() -> Option<T>) -> Option<T> {
    patiently_for(PATIENCE, ask)
}

/// As [`patiently`], for something that takes longer than anything else.
pub fn patiently_for<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        let found = ask();
        if found.is_some() || started.elapsed() >= patience {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The path of a program the tests need; without it they fail and say how to get it.
pub fn program(name: &str, package: &str) -> PathBuf {
    let places = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];
    let found = places.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is missing; install it with: apt-get install {package}"))
}

/// A copy in `dir` of the packages that `unpack.sh` has put into `folder`: the user the server runs as may not read the
/// repository. Without them the tests fail and say how to get them.
pub fn unpacked(folder: &str, dir: &Path) -> PathBuf {
    let original = repository("target/servers").join(folder);
    assert!(original.is_dir(), "{} is missing; get it with: sh tests/rig/install.sh test", original.display());
    let copied = Command::new("cp").arg("-r").arg(&original).arg(dir).status().expect("cp starts");
    assert!(copied.success(), "{} is copied", original.display());
    dir.join(folder)
}

/// A file of this repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Fills in the words between at signs.
pub fn fill(template: &str, words: &[(&str, &str)]) -> String {
    let filled =
        words.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value));
    let left = filled.split('@').nth(1).filter(|word| word.chars().all(|c| c.is_ascii_uppercase()) && !word.is_empty());
    assert_eq!(left, None, "a word of the template is not filled in");
    filled
}
