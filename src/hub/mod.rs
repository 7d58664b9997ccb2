//! The Redis or Valkey server, or the cluster, where machines meet: one connection for all that this process asks, and
//! whether it is there. Whoever asks waits a moment at the most: what does not answer is lost, which the log is told
//! once, and is looked for again every few seconds, behind everybody's back. What is asked, and what becomes of it
//! without an answer, is the business of `cache::store` and `probe::machines`.

mod connection;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use log::Level;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value, cmd};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::config::redis::RedisAddress;
pub use connection::Listener;
use connection::{Connection, Unreached};

/// How long an answer is waited for where a visitor waits.
const ANSWER: Duration = Duration::from_millis(100);
/// How long a server is waited for that is connected to, or that did not answer.
const LOOK: Duration = Duration::from_millis(300);
/// How soon it is looked for again.
const AGAIN: Duration = Duration::from_secs(2);
/// How soon the log is told the same again.
const TOLD: Duration = Duration::from_secs(60);
/// The longest reason, in characters: it may be the server's own words.
const REASON_CHARS: usize = 200;
/// Shows that scripts run and that something can be written, which a replica and a full server refuse.
const PROOF: &str = "return redis.call('set', KEYS[1], '1', 'px', 1000)";
const PROOF_KEY: &str = "webpresence:proof";
/// Keys of so many slots tell whether anything of a cluster serves.
const SLOTS: usize = 8;

/// See the module. All of them are one.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    address: RedisAddress,
    link: watch::Sender<Link>,
    /// What the log was told last, and whether that it is over is still to be told.
    told: Mutex<Told>,
    complaint: Level,
    /// Whether the connection to a cluster serves is being found out.
    is_in_doubt: AtomicBool,
}

#[derive(Default)]
struct Told {
    last: Option<(String, Instant)>,
    is_open: bool,
    /// When it was over last.
    over: Option<Instant>,
}

#[derive(Clone)]
enum Link {
    /// Nobody has asked yet.
    Untried,
    /// A look is under way; nobody knows.
    Sought,
    Up(Connection),
    /// Until then nobody looks.
    Lost(Instant),
}

/// There is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The server is not there, or does nothing for us: what is shared is not to be had.
    Lost,
    /// Under this key is something that is not ours.
    Foreign,
}

/// How long somebody waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    /// A visitor is kept waiting.
    Little,
    /// What is decided then lasts longer than a moment's delay.
    Some,
}

impl Hub {
    /// Nothing is connected before something is asked.
    pub fn new(address: RedisAddress, complaint: Level) -> Hub {
        let (link, told) = (watch::Sender::new(Link::Untried), Mutex::default());
        Hub(Arc::new(Inner { address, link, told, complaint, is_in_doubt: AtomicBool::new(false) }))
    }

    /// What one visitor waits for.
    pub async fn ask(&self, command: &Cmd) -> Result<Value, Trouble> {
        self.put(command, Patience::Little).await
    }

    /// What decides about a session. Where the server is only slow, this waits to see whether it is there.
    pub async fn ask_calmly(&self, command: &Cmd) -> Result<Value, Trouble> {
        self.put(command, Patience::Some).await
    }

    /// Another connection, for somebody who waits there until something comes.
    pub async fn listener(&self) -> Result<Listener, Trouble> {
        match timeout(LOOK, Listener::open(&self.0.address)).await {
            Ok(Ok(listener)) => Ok(listener),
            _ => Err(Trouble::Lost),
        }
    }

    /// Whether it serves; else why not, for a person.
    pub async fn prove(&self) -> Result<(), String> {
        let proof = self.ask_calmly(&eval(PROOF, &[PROOF_KEY], &[])).await;
        let reason = || self.told().last.as_ref().map(|(reason, _)| reason.clone());
        proof.map(drop).map_err(|_| reason().unwrap_or_else(|| Unreached::Silent.to_string()))
    }

    /// Not lost: somebody asked and was answered, or nobody has asked yet.
    pub fn is_there(&self) -> bool {
        matches!(*self.0.link.borrow(), Link::Untried | Link::Up(_))
    }

    /// How long the server has been back, if it was lost: what it had before may have changed meanwhile.
    pub fn back_for(&self) -> Option<Duration> {
        self.told().over.map(|over| over.elapsed())
    }

    async fn put(&self, command: &Cmd, patience: Patience) -> Result<Value, Trouble> {
        let limit = match patience {
            Patience::Little => ANSWER,
            Patience::Some => LOOK + ANSWER,
        };
        let mut used = None;
        let asked = timeout(limit, async {
            let connection = used.insert(self.connection(patience).await?);
            match connection.ask(command).await {
                // It was closed while nobody asked, or the server has just started again.
                Err(error) if error.is_connection_dropped() && !connection.is_of_many() => {
                    self.seek_instead_of(connection);
                    let connection = used.insert(self.connection(Patience::Some).await?);
                    connection.ask(command).await.map_err(|error| self.failed(connection, &error))
                }
                answer => answer.map_err(|error| self.failed(connection, &error)),
            }
        });
        let answer = asked.await;
        answer.unwrap_or_else(|_| {
            used.inspect(|connection| self.doubt(connection));
            Err(Trouble::Lost)
        })
    }

    /// The connection, if there is one. The first who asks waits for it, and so does whoever has patience.
    async fn connection(&self, patience: Patience) -> Result<Connection, Trouble> {
        let mut link = self.0.link.subscribe();
        let is_first = self.seek_where(|link| matches!(link, Link::Untried));
        self.seek_where(|link| matches!(link, Link::Lost(until) if *until <= Instant::now()));
        loop {
            match &*link.borrow_and_update() {
                Link::Up(connection) => return Ok(connection.clone()),
                Link::Sought if is_first || patience == Patience::Some || !self.is_told() => {}
                _ => return Err(Trouble::Lost),
            }
            if link.changed().await.is_err() {
                return Err(Trouble::Lost);
            }
        }
    }

    /// The server is known to be lost, and it is waited for by nobody.
    fn is_told(&self) -> bool {
        self.told().is_open
    }

    /// It did not answer. Of a cluster that may be one node: the others go on, unless nothing is to be had from any.
    fn doubt(&self, connection: &Connection) {
        if !connection.is_of_many() {
            self.seek_instead_of(connection);
        } else if !self.0.is_in_doubt.swap(true, Ordering::Relaxed) {
            let (hub, connection) = (self.clone(), connection.clone());
            tokio::spawn(async move {
                if !matches!(timeout(LOOK, prove(&connection)).await, Ok(Ok(()))) {
                    hub.seek_instead_of(&connection);
                }
                hub.0.is_in_doubt.store(false, Ordering::Relaxed);
            });
        }
    }

    fn seek_instead_of(&self, connection: &Connection) {
        self.seek_where(|link| matches!(link, Link::Up(present) if present.is(connection)));
    }

    /// Begins to look for the server where the link is such; true if so.
    fn seek_where(&self, is_such: impl FnOnce(&Link) -> bool) -> bool {
        let begins = self.0.link.send_if_modified(|link| {
            let is_such = is_such(link);
            if is_such {
                *link = Link::Sought;
            }
            is_such
        });
        if begins {
            let hub = self.clone();
            tokio::spawn(async move { hub.look().await });
        }
        begins
    }

    async fn look(self) {
        let found = async {
            let connection = Connection::open(&self.0.address).await?;
            prove(&connection).await?;
            Ok(connection)
        };
        let found = match timeout(LOOK, found).await {
            Ok(found) => found,
            Err(_) => Err(Unreached::Silent),
        };
        match found {
            Ok(connection) => {
                self.praise();
                self.0.link.send_replace(Link::Up(connection));
            }
            Err(why) => {
                self.complain(&why.to_string());
                self.0.link.send_replace(Link::Lost(Instant::now() + AGAIN));
            }
        }
    }

    /// What an error means for everybody else.
    fn failed(&self, connection: &Connection, error: &RedisError) -> Trouble {
        if error.code() == Some("WRONGTYPE") {
            return Trouble::Foreign;
        }
        match error.kind() {
            // A slot of a cluster that nobody has now: the others are there.
            ErrorKind::Server(ServerErrorKind::ClusterDown | ServerErrorKind::TryAgain) => {
                self.complain(&error.to_string());
            }
            // One of its nodes.
            _ if connection.is_of_many() => {
                self.complain(&error.to_string());
                self.doubt(connection);
            }
            ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::AuthenticationFailed => {
                self.complain(&error.to_string());
                self.0.link.send_if_modified(|link| {
                    let is_present = matches!(link, Link::Up(present) if present.is(connection));
                    if is_present {
                        *link = Link::Lost(Instant::now() + AGAIN);
                    }
                    is_present
                });
            }
            _ => self.doubt(connection),
        }
        Trouble::Lost
    }

    fn complain(&self, reason: &str) {
        let reason: String = reason.chars().take(REASON_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let (mut told, now) = (self.told(), Instant::now());
        told.is_open = true;
        if told.last.as_ref().is_some_and(|(last, at)| *last == reason && now < *at + TOLD) {
            return;
        }
        log::log!(self.0.complaint, "{self}: {reason}; until it serves, this machine goes by itself");
        told.last = Some((reason, now));
    }

    fn praise(&self) {
        let mut told = self.told();
        if std::mem::take(&mut told.is_open) {
            told.over = Some(Instant::now());
            log::log!(self.0.complaint, "{self} serves again");
        }
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.0.address.nodes.first().map(ToString::to_string).unwrap_or_default();
        write!(f, "redis at {node}")
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Whether anything is served there.
async fn prove(connection: &Connection) -> Result<(), RedisError> {
    let mut proofs = JoinSet::new();
    for slot in 0..if connection.is_of_many() { SLOTS } else { 1 } {
        let connection = connection.clone();
        proofs.spawn(async move { connection.ask(&eval(PROOF, &[&format!("{PROOF_KEY}:{slot}")], &[])).await });
    }
    let mut outcome = Ok(());
    while let Some(proof) = proofs.join_next().await {
        match proof {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => outcome = Err(error),
            Err(_) => {}
        }
    }
    outcome
}

/// A script with its keys, all of one slot. It is sent whole each time, so that no server has to know it already.
pub fn eval(script: &str, keys: &[&str], arguments: &[&[u8]]) -> Cmd {
    let mut command = cmd("EVAL");
    command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
    command
}

/// What nobody else says: unpredictable, and printable.
pub fn token() -> String {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).expect("the kernel gives random numbers once it has booted");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
