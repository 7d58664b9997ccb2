//! A TCP relay that makes loopback as slow as a way of 50 ms there and back, and writes down when what passed.
//!
//! Every chunk is handed on 25 ms after it came, in both directions. A connection is there at once, before the relay
//! has said anything; on the real way the client could send nothing for a whole round trip. Since in XMPP the client
//! speaks first, the relay makes up for it by handing on nothing of the client before one and a half round trips after
//! the connection: every later byte is as late as it would be on that way. What TCP itself does on long ways (its slow
//! start, Nagle's algorithm against a late ACK) does not show: both ends have neighbours that acknowledge at once.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub const ROUND_TRIP: Duration = Duration::from_millis(50);
const ONE_WAY: Duration = Duration::from_millis(25);

/// One connection: when it was made, and when its client was handed something.
#[derive(Clone)]
pub struct Passage {
    pub connected: Instant,
    pub arrivals: Vec<Instant>,
}

pub struct Relay {
    pub port: u16,
    passages: Arc<Mutex<Vec<Passage>>>,
}

impl Relay {
    /// To a port on loopback; lives as long as the process.
    pub fn to(port: u16) -> Relay {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let relay = Relay { port: listener.local_addr().expect("bound").port(), passages: Arc::default() };
        let passages = relay.passages.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let connected = Instant::now();
                let server = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
                carry(client.expect("a connection"), server, connected, &passages);
            }
        });
        relay
    }

    /// The last connection that was made.
    pub fn last(&self) -> Passage {
        let passages = self.passages.lock().unwrap_or_else(PoisonError::into_inner);
        passages.last().expect("the client came this way").clone()
    }
}

type Chunk = (Instant, Vec<u8>);

fn carry(client: TcpStream, server: TcpStream, connected: Instant, passages: &Arc<Mutex<Vec<Passage>>>) {
    let number = {
        let mut all = passages.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Passage { connected, arrivals: Vec::new() });
        all.len() - 1
    };
    let note = {
        let passages = passages.clone();
        move || passages.lock().unwrap_or_else(PoisonError::into_inner)[number].arrivals.push(Instant::now())
    };
    let earliest = connected + ROUND_TRIP + ONE_WAY;
    one_direction(&client, &server, move |now| earliest.max(now + ONE_WAY), || {});
    one_direction(&server, &client, |now| now + ONE_WAY, note);
}

/// Hands on what comes from `from` to `to` at the time that `due` says; `handed` is told each time.
fn one_direction(
    from: &TcpStream,
    to: &TcpStream,
    due: impl Fn(Instant) -> Instant + Send + 'static,
    handed: impl Fn() + Send + 'static,
) {
    let (from, to) = (from.try_clone().expect("a descriptor"), to.try_clone().expect("a descriptor"));
    to.set_nodelay(true).expect("a TCP socket");
    let (sender, receiver) = channel();
    thread::spawn(move || take(from, &sender, due));
    thread::spawn(move || hand_on(to, receiver, handed));
}

fn take(mut from: TcpStream, sender: &Sender<Chunk>, due: impl Fn(Instant) -> Instant) {
    let mut buffer = [0; 65536];
    loop {
        // A neighbour that waits for the ACK of its last write is not what is measured.
        rustix::net::sockopt::set_tcp_quickack(&from, true).expect("a TCP socket");
        let length = from.read(&mut buffer).unwrap_or(0);
        // An empty chunk is the end.
        let sent = sender.send((due(Instant::now()), buffer[..length].to_vec()));
        if length == 0 || sent.is_err() {
            return;
        }
    }
}

fn hand_on(mut to: TcpStream, receiver: Receiver<Chunk>, handed: impl Fn()) {
    for (due, bytes) in receiver {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if !bytes.is_empty() {
            // Before it is: whoever gets it may be done with it before this thread goes on.
            handed();
        }
        if bytes.is_empty() || to.write_all(&bytes).is_err() {
            // Whoever has gone needs no goodbye.
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
    }
}
