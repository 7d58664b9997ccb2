//! On the way to an XMPP server: counts connections and the probes of each person, and can hold back what the server
//! says. What passes is not changed and, unless it is held back, not delayed.

use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use crate::rig::copy::copy;
use crate::rig::eventually;

pub struct Tap {
    pub port: u16,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    sessions: AtomicUsize,
    open: AtomicUsize,
    probes: Mutex<HashMap<String, usize>>,
    is_held: Mutex<bool>,
    is_let_go: Condvar,
}

impl Tap {
    /// Before a port on loopback; lives as long as the process.
    pub fn before(target: u16) -> Tap {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let seen = Arc::new(Seen::default());
        let tap = Tap { port, seen: seen.clone() };
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                seen.sessions.fetch_add(1, Ordering::SeqCst);
                seen.open.fetch_add(1, Ordering::SeqCst);
                carry(client.expect("a connection"), server, seen.clone());
            }
        });
        tap
    }

    /// Connections made so far.
    pub fn sessions(&self) -> usize {
        self.seen.sessions.load(Ordering::SeqCst)
    }

    /// Waits until nobody is connected, and counts anew.
    pub fn rest(&self) {
        let is_alone = || (self.seen.open.load(Ordering::SeqCst) == 0).then_some(());
        eventually("the session is closed", is_alone);
        self.forget();
    }

    /// Probes of all people.
    pub fn probes(&self) -> usize {
        self.probed().values().sum()
    }

    /// How often each person was probed.
    pub fn probed(&self) -> HashMap<String, usize> {
        self.seen.probes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts anew.
    pub fn forget(&self) {
        self.seen.sessions.store(0, Ordering::SeqCst);
        self.seen.probes.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// From now on nothing that the server says arrives.
    pub fn hold(&self) {
        *self.seen.is_held.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    pub fn let_go(&self) {
        *self.seen.is_held.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.seen.is_let_go.notify_all();
    }
}

fn carry(client: TcpStream, server: TcpStream, seen: Arc<Seen>) {
    let (from, to) = (client.try_clone().expect("a descriptor"), server.try_clone().expect("a descriptor"));
    let counts = seen.clone();
    thread::spawn(move || {
        let rest = Mutex::new(Vec::new());
        copy(from, to, |bytes| {
            let mut rest = rest.lock().unwrap_or_else(PoisonError::into_inner);
            rest.extend_from_slice(bytes);
            let done = count(&rest, &counts);
            rest.drain(..done);
        });
        counts.open.fetch_sub(1, Ordering::SeqCst);
    });
    thread::spawn(move || {
        copy(server, client, |_| {
            let held = seen.is_held.lock().unwrap_or_else(PoisonError::into_inner);
            drop(seen.is_let_go.wait_while(held, |held| *held).unwrap_or_else(PoisonError::into_inner));
        });
    });
}

/// Counts the probes among the tags that are complete; returns how much that was.
fn count(bytes: &[u8], seen: &Seen) -> usize {
    let end = bytes.iter().rposition(|byte| *byte == b'>').map_or(0, |at| at + 1);
    let text = String::from_utf8_lossy(&bytes[..end]);
    let tags = text.split('<').filter(|tag| tag.starts_with("presence ") && tag.contains("type='probe'"));
    // A component also probes itself, to see whether its answers arrive; people have an at sign.
    let people = tags.filter_map(|tag| tag.split_once(" to='")?.1.split('\'').next()).filter(|to| to.contains('@'));
    let mut probes = seen.probes.lock().unwrap_or_else(PoisonError::into_inner);
    for person in people {
        *probes.entry(person.to_owned()).or_default() += 1;
    }
    end
}
