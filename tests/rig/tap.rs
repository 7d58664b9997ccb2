//! On the way to an XMPP server: counts connections and the probes of each address, and can hold back what the server
//! says. What passes is not changed and, unless it is held back, not delayed; but a connection beside another one waits
//! a moment, so that one that is just ending does not count as open.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::copy::copy;

#[derive(Clone)]
pub struct Tap {
    pub port: u16,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    total: AtomicUsize,
    open: AtomicUsize,
    /// The most that were open at the same time.
    most: AtomicUsize,
    /// Those on their way to the server, by whom they are about.
    probes: Mutex<HashMap<String, usize>>,
    /// What came in one read.
    pieces: AtomicUsize,
    is_held: Mutex<bool>,
    is_let_go: Condvar,
}

impl Tap {
    /// Before a port on loopback; lives as long as the process.
    pub fn before(target: u16) -> Tap {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let tap = Tap { port, seen: Arc::default() };
        let ours = tap.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a connection");
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                ours.opened();
                carry(client, server, ours.seen.clone());
            }
        });
        tap
    }

    /// Connections made so far.
    pub fn total(&self) -> usize {
        self.seen.total.load(Ordering::SeqCst)
    }

    pub fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    pub fn most(&self) -> usize {
        self.seen.most.load(Ordering::SeqCst)
    }

    /// All of them.
    pub fn probes(&self) -> usize {
        self.probed().values().sum()
    }

    /// How often each address was probed. A component also probes itself, to see whether its answers arrive.
    pub fn probed(&self) -> HashMap<String, usize> {
        lock(&self.seen.probes).clone()
    }

    /// In how many pieces everything came that was said to the server.
    pub fn pieces(&self) -> usize {
        self.seen.pieces.load(Ordering::SeqCst)
    }

    /// From now on nothing that the server says arrives.
    pub fn hold(&self) {
        *lock(&self.seen.is_held) = true;
    }

    pub fn let_go(&self) {
        *lock(&self.seen.is_held) = false;
        self.seen.is_let_go.notify_all();
    }

    fn opened(&self) {
        self.seen.total.fetch_add(1, Ordering::SeqCst);
        // One that has just ended may not have been noticed yet.
        let ends = Instant::now() + Duration::from_millis(50);
        while self.open() > 0 && Instant::now() < ends {
            thread::yield_now();
        }
        let open = self.seen.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.seen.most.fetch_max(open, Ordering::SeqCst);
    }
}

fn carry(client: TcpStream, server: TcpStream, seen: Arc<Seen>) {
    let (to_client, from_server) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    let counts = seen.clone();
    thread::spawn(move || {
        // A word may come in two pieces.
        let rest = RefCell::new(Vec::new());
        copy(client, server, |said| {
            counts.pieces.fetch_add(1, Ordering::SeqCst);
            let mut rest = rest.borrow_mut();
            rest.extend_from_slice(said);
            let done = count(&rest, &mut lock(&counts.probes));
            rest.drain(..done);
        });
        counts.open.fetch_sub(1, Ordering::SeqCst);
    });
    thread::spawn(move || {
        copy(from_server, to_client, |_| {
            let held = lock(&seen.is_held);
            drop(seen.is_let_go.wait_while(held, |held| *held).unwrap_or_else(PoisonError::into_inner));
        });
    });
}

/// Counts the probes among the tags that are complete; returns how much that was.
fn count(bytes: &[u8], probes: &mut HashMap<String, usize>) -> usize {
    let end = bytes.iter().rposition(|byte| *byte == b'>').map_or(0, |at| at + 1);
    let text = String::from_utf8_lossy(&bytes[..end]);
    for tag in text.split('<').filter(|tag| tag.starts_with("presence ") && tag.contains("type='probe'")) {
        let to = tag.split_once(" to='").and_then(|(_, rest)| rest.split('\'').next()).unwrap_or_default();
        *probes.entry(to.to_owned()).or_default() += 1;
    }
    end
}

fn lock<T>(of_ours: &Mutex<T>) -> MutexGuard<'_, T> {
    of_ours.lock().unwrap_or_else(PoisonError::into_inner)
}
