//! People in great numbers, by number. Twelve thousand of them are on Prosody and may be seen: one has really agreed, in a
//! real session, and his account and roster become everybody's, as files of Prosody's own storage. The first hundred are
//! on ejabberd as well. None of these is online, which is a state like any other: the server looks each of them up and
//! says so. Of the rest only the stand-in knows.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::rig::fastcgi::Connection;
use crate::rig::xmpp::{DOMAIN, Xmpp};

/// Those on Prosody.
pub const REAL: usize = 12_000;
/// Those on ejabberd.
pub const AT_EJABBERD: usize = 100;
/// What one of them is told to be.
pub const OFFLINE: &str = "Unavailable\n";
/// Who fills a cache asks for so many at once.
const AT_ONCE: usize = 32;

/// As wrk's script writes it, too.
pub const NAME: &str = "person%06d";

pub fn name(number: usize) -> String {
    format!("person{number:06}")
}

pub fn jid(number: usize) -> String {
    format!("{}@{DOMAIN}", name(number))
}

/// Makes all of them like `model`, who must have been written by the server.
pub fn multiply(server: &Xmpp, model: &str) {
    let data = server.leash.dir().join("data").join(DOMAIN.replace('.', "%2e"));
    for folder in ["accounts", "roster"] {
        let folder = data.join(folder);
        let model = folder.join(format!("{model}.dat"));
        link(&folder, &model, 0..REAL);
    }
}

/// One file with many names; Prosody writes a new file where it changes one.
fn link(folder: &Path, model: &Path, people: Range<usize>) {
    let owner = fs::metadata(model).expect("Prosody has written it");
    let mut paths = people.map(|number| folder.join(format!("{}.dat", name(number))));
    let first = paths.next().expect("not empty");
    fs::copy(model, &first).expect("Prosody has written it");
    chown(&first, Some(owner.uid()), Some(owner.gid())).expect("root, or the same");
    for path in paths {
        fs::hard_link(&first, path).expect("the same folder");
    }
}

/// Asks for each of these people once, through the socket of a daemon; each has to be shown with `text`.
pub fn ask_each(socket: &Path, people: Range<usize>, text: &str) {
    let next = AtomicUsize::new(people.start);
    let ask = || {
        let mut connection = Connection::open(socket);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= people.end {
                return;
            }
            let answer = connection.ask(&format!("jid={}&type=text", jid(number)));
            assert_eq!((answer.status, answer.text().as_str()), (200, text), "{}", jid(number));
        }
    };
    thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(ask))));
}
