//! The task that holds an identity's session: it takes its turn among the processes of this machine, connects, carries
//! every question that arrives while the session is open, lingers, and closes. What fails is not tried again at once.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use jid::BareJid;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::backoff::{ACCOUNT_REFUSED, Backoff, COMPONENT_REFUSED};
use super::facts::Facts;
use super::lease::Lease;
use super::pending::Pending;
use super::refused::Refused;
use super::session::Session;
use super::steps::{Stage, Steps};
use super::talk::Talk;
use super::{Answer, Consent, Failure, Why};
use crate::config::Identity;

/// What is left of a question's time for carrying its answer to the visitor.
const MARGIN: Duration = Duration::from_millis(150);
/// How often a lingering session looks whether another process wants its turn.
const MAKE_ROOM: Duration = Duration::from_millis(100);
/// How long a command's session waits for its next question.
const COMMAND_LINGER: Duration = Duration::from_secs(5);
/// How long a session may last, unless it lingers always.
const SESSION_AGE: Duration = Duration::from_secs(600);
/// Questions that may wait for the session; over it they are refused as if the server were silent.
const QUEUE: usize = 1024;

/// Nothing was learned, and when it is worth asking again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unasked {
    pub failure: Failure,
    pub retry_after: Duration,
}

/// A handle of one identity's task. When the last one is dropped, the task answers what is in hand, closes the session
/// and ends.
#[derive(Clone)]
pub struct Prober {
    errands: mpsc::Sender<Errand>,
}

/// How a prober behaves, beside what the identity says.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// Where the lease lies; without it this process cannot take turns with others.
    pub directory: Option<PathBuf>,
    /// How long the session stays open after the last answer; `None` is always.
    pub linger: Option<Duration>,
    pub steps: Steps,
}

impl Manner {
    /// One session carries what a command asks, one after the other; it closes as soon as the command is done.
    pub fn of_command(directory: Option<PathBuf>) -> Manner {
        Manner { directory, linger: Some(COMMAND_LINGER), steps: Steps::default() }
    }
}

struct Errand {
    jid: BareJid,
    deadline: Instant,
    want: Want,
}

enum Want {
    Presence(oneshot::Sender<Result<Answer, Unasked>>),
    Consent(oneshot::Sender<Result<Consent, Unasked>>),
}

impl Errand {
    fn fail(self, unasked: Unasked) {
        // Whoever asked may have gone; then nobody needs the answer.
        match self.want {
            Want::Presence(reply) => drop(reply.send(Err(unasked))),
            Want::Consent(reply) => drop(reply.send(Err(unasked))),
        }
    }
}

impl Prober {
    pub fn spawn(identity: Identity, manner: Manner) -> (Prober, JoinHandle<()>) {
        let (errands, inbox) = mpsc::channel(QUEUE);
        let task = Task {
            pending: Pending::new(manner.directory.as_deref()),
            refused: Refused::new(manner.directory.as_deref(), &identity),
            identity: Arc::new(identity),
            manner,
            inbox,
            facts: Facts::default(),
            backoff: Backoff::default(),
            waiting: HashMap::new(),
            counter: 0,
            answered: 0,
        };
        (Prober { errands }, tokio::spawn(task.run()))
    }

    /// Asks for the presence of `jid`; the answer is there by `deadline`.
    pub async fn ask(&self, jid: BareJid, deadline: Instant) -> Result<Answer, Unasked> {
        self.put(jid, deadline, Want::Presence).await
    }

    /// Asks `jid` for consent.
    pub async fn subscribe(&self, jid: BareJid, deadline: Instant) -> Result<Consent, Unasked> {
        self.put(jid, deadline, Want::Consent).await
    }

    async fn put<T>(
        &self,
        jid: BareJid,
        deadline: Instant,
        want: impl FnOnce(oneshot::Sender<Result<T, Unasked>>) -> Want,
    ) -> Result<T, Unasked> {
        let silent = || Unasked { failure: Failure::Silent, retry_after: Duration::from_secs(1) };
        let (reply, answer) = oneshot::channel();
        if self.errands.try_send(Errand { jid, deadline, want: want(reply) }).is_err() {
            return Err(silent());
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(silent()),
        }
    }
}

struct Task {
    identity: Arc<Identity>,
    pending: Pending,
    refused: Refused,
    manner: Manner,
    inbox: mpsc::Receiver<Errand>,
    facts: Facts,
    backoff: Backoff,
    waiting: HashMap<u64, Errand>,
    counter: u64,
    /// Answers of the present session.
    answered: usize,
}

/// Why a session came to its end without a fault.
enum End {
    /// Nobody asks any more, or others want their turn.
    Idle,
    /// The handle is gone.
    Closed,
}

impl Task {
    async fn run(mut self) {
        while let Some(errand) = self.inbox.recv().await {
            self.take(errand);
            while !self.waiting.is_empty() {
                match self.turn().await {
                    Ok(End::Idle) => {}
                    Ok(End::Closed) => return,
                    Err(failure) => self.fail_all(failure),
                }
            }
        }
    }

    fn take(&mut self, errand: Errand) {
        self.counter += 1;
        self.waiting.insert(self.counter, errand);
    }

    fn fail_all(&mut self, failure: Failure) {
        for errand in self.waiting.values().filter(|errand| matches!(errand.want, Want::Consent(_))) {
            self.pending.settle(&self.identity.jid, &errand.jid);
        }
        let unasked = Unasked { failure, retry_after: self.backoff.remaining(Instant::now()) };
        self.waiting.drain().for_each(|(_, errand)| errand.fail(unasked.clone()));
    }

    /// One session, from taking the turn to closing.
    async fn turn(&mut self) -> Result<End, Failure> {
        if let Some(failure) = self.backoff.stands_in_the_way(Instant::now()) {
            return Err(failure);
        }
        self.answered = 0;
        let lease = self.lease().await?;
        // Only now: whoever had the turn before may have been refused.
        if let Some((condition, wait)) = self.refused.stands(&self.identity, SystemTime::now()) {
            let failure = Failure::LoginRefused(condition);
            self.backoff.refused_elsewhere(failure.clone(), wait, Instant::now());
            return Err(failure);
        }
        let mut session = Session::new(&self.identity, std::mem::take(&mut self.facts), nonce());
        let outcome = self.hold(&mut session, lease.as_ref()).await;
        self.facts = session.into_facts();
        match &outcome {
            Ok(_) => {}
            // A session that served and then broke was only old: what is still in hand goes into a new one.
            Err(failure @ (Failure::StreamEnded(_) | Failure::Flood)) if self.answered > 0 => {
                log::info!("{}: {failure}", self.identity.jid);
                return Ok(End::Idle);
            }
            Err(failure) => {
                let refused = if self.identity.is_component() { COMPONENT_REFUSED } else { ACCOUNT_REFUSED };
                self.backoff.failed(failure, refused, Instant::now());
                if let Failure::LoginRefused(condition) = failure {
                    self.refused.note(&self.identity, condition);
                }
                let wait = self.backoff.remaining(Instant::now());
                log::warn!("{}: {failure}; next attempt in {} s", self.identity.jid, wait.as_secs());
            }
        }
        outcome
    }

    /// Waits for the turn of this process as long as anybody waits for an answer.
    async fn lease(&self) -> Result<Option<Lease>, Failure> {
        let Some(directory) = &self.manner.directory else { return Ok(None) };
        match Lease::acquire(directory, &self.identity.jid, self.patience()).await {
            Ok(Some(lease)) => {
                self.manner.steps.passed(Stage::Lease);
                Ok(Some(lease))
            }
            Ok(None) => Err(Failure::Busy),
            Err(error) => {
                log::warn!("no turns among processes: {}: {error}", directory.display());
                Ok(None)
            }
        }
    }

    /// Until when somebody waits.
    fn patience(&self) -> Instant {
        let deadlines = self.waiting.values().map(|errand| errand.deadline);
        deadlines.max().map_or_else(Instant::now, before)
    }

    async fn hold(&mut self, session: &mut Session, lease: Option<&Lease>) -> Result<End, Failure> {
        for (id, errand) in &self.waiting {
            self.put(session, *id, errand);
        }
        // As long as anybody waits, and never longer than one answer may take.
        let deadline = self.patience().min(Instant::now() + self.identity.timeout);
        let (identity, steps) = (self.identity.clone(), self.manner.steps.clone());
        let mut talk = Talk::open(identity, session, steps, deadline).await?;
        let end = self.converse(&mut talk, lease).await?;
        talk.goodbye().await;
        Ok(end)
    }

    /// Carries questions and answers until there is nothing more to do.
    async fn converse(&mut self, talk: &mut Talk<'_>, lease: Option<&Lease>) -> Result<End, Failure> {
        let opened = Instant::now();
        let mut idle_since = None;
        loop {
            let wait = talk.advance().await?;
            if talk.logged_in {
                // What went wrong before lies behind, and however this session ends, the next one may be tried soon.
                self.backoff.succeeded();
            }
            let now = Instant::now();
            self.deliver(talk, now)?;
            let idle = self.waiting.is_empty();
            let old = self.manner.linger.is_some() && now.saturating_duration_since(opened) > SESSION_AGE;
            // No new questions then: what is in hand is answered, and another session begins.
            let ending = old || lease.is_some_and(Lease::is_wanted);
            if idle {
                let since = *idle_since.get_or_insert(now);
                let lingered = self.manner.linger.is_some_and(|linger| since + linger <= now);
                if ending || lingered {
                    return Ok(End::Idle);
                }
            } else {
                idle_since = None;
                // A login that hangs must not outlast those who wait for it.
                if !talk.session.is_open() && now >= talk.deadline {
                    return Err(Failure::Silent);
                }
            }
            let login = if talk.session.is_open() { None } else { Some(talk.deadline) };
            let room = if idle { Some(now + MAKE_ROOM) } else { None };
            let until = [wait, login, room].into_iter().flatten().min().unwrap_or(now + MAKE_ROOM);
            tokio::select! {
                received = talk.receive() => received?,
                errand = self.inbox.recv(), if !ending && self.waiting.len() < QUEUE => match errand {
                    Some(errand) => {
                        self.take(errand);
                        if let Some(errand) = self.waiting.get(&self.counter) {
                            self.put(talk.session, self.counter, errand);
                        }
                    }
                    None if idle => return Ok(End::Closed),
                    None => talk.wait_only(until).await?,
                },
                () = sleep_until(until) => {}
            }
        }
    }

    fn put(&self, session: &mut Session, id: u64, errand: &Errand) {
        let (jid, until) = (errand.jid.clone(), before(errand.deadline));
        match &errand.want {
            Want::Presence(_) if self.pending.is_out(&self.identity.jid, &jid) => session.ask_pending(id, jid, until),
            Want::Presence(_) => session.ask(id, jid, until),
            Want::Consent(_) => {
                // Before it is out: from then on nobody may be probed, even if this process is no more.
                self.pending.note(&self.identity.jid, &jid);
                session.subscribe(id, jid, until);
            }
        }
    }

    /// Hands out what is ready.
    fn deliver(&mut self, talk: &mut Talk<'_>, now: Instant) -> Result<(), Failure> {
        let unasked = |failure| Unasked { failure, retry_after: Duration::from_secs(1) };
        let mut silent = false;
        for (id, answer) in talk.session.answers(now) {
            self.answered += usize::from(talk.logged_in);
            silent |= answer == Err(Failure::Silent);
            if let Some(Errand { jid, want: Want::Presence(reply), .. }) = self.waiting.remove(&id) {
                if answer.as_ref().is_ok_and(|answer| answer.why != Why::Pending) {
                    self.pending.settle(&self.identity.jid, &jid);
                }
                drop(reply.send(answer.map_err(unasked)));
            }
        }
        for (id, consent) in talk.session.consents(now) {
            if let Some(Errand { jid, want: Want::Consent(reply), .. }) = self.waiting.remove(&id) {
                match consent {
                    Ok(Consent::Asked) | Err(Failure::Silent) => {}
                    _ => self.pending.settle(&self.identity.jid, &jid),
                }
                drop(reply.send(consent.map_err(unasked)));
            }
        }
        // Our own server would have answered its ping: this connection is dead, and the next question wants a new one.
        let dead = silent && now.saturating_duration_since(talk.heard) + 2 * MARGIN >= self.identity.timeout;
        if dead { Err(Failure::Silent) } else { Ok(()) }
    }
}

/// When an answer must be ready to reach the visitor by his deadline.
fn before(deadline: Instant) -> Instant {
    deadline.checked_sub(MARGIN).unwrap_or(deadline)
}

/// Unpredictable and printable.
fn nonce() -> String {
    let mut bytes = [0; 18];
    SystemRandom::new().fill(&mut bytes).expect("the kernel gives random numbers once it has booted");
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::config;

    const HEADER: &str = "<stream:stream xmlns='jabber:component:accept' \
                          xmlns:stream='http://etherx.jabber.org/streams' id='1'>";
    const ANSWER: &str = "<handshake/><presence type='unsubscribed' from='bob@example.com' to='presence.example.com'/>";

    fn component(port: u16) -> Identity {
        let text = "[xmpp]\njid = presence.example.com\npassword = secret\ntimeout = 20\nserver = prosody\nport = ";
        let config = config::parse(&format!("{text}{port}\n"), Path::new("test.ini"));
        config.expect("a configuration").identities.remove(0)
    }

    async fn read_until(socket: &mut TcpStream, end: &str) {
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(end) {
            assert!(socket.read_buf(&mut read).await.expect("an open connection") > 0, "closed before {end}");
        }
    }

    /// Days of service may lie between two failures: the second is not punished for the first.
    #[tokio::test]
    async fn a_session_that_served_resets_the_pause_however_it_ends() {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = server.local_addr().expect("bound").port();
        let (prober, _task) = Prober::spawn(component(port), Manner::default());
        let bob = BareJid::new("bob@example.com").expect("a bare JID");
        let ask = || prober.ask(bob.clone(), Instant::now() + Duration::from_secs(20));
        for round in 0..5 {
            let serve = async {
                let (mut socket, _) = server.accept().await.expect("a connection");
                socket.write_all(HEADER.as_bytes()).await.expect("an open connection");
                read_until(&mut socket, "xmpp:ping").await;
                socket.write_all(ANSWER.as_bytes()).await.expect("an open connection");
                socket
            };
            let (answer, mut socket) = tokio::join!(ask(), serve);
            assert_eq!(answer.map(|answer| answer.why), Ok(Why::Refused), "round {round}");
            socket.write_all(b"<<").await.expect("an open connection");
            while socket.read(&mut [0; 100]).await.is_ok_and(|read| read > 0) {}
            let unasked = ask().await.expect_err("the session has just failed");
            assert_eq!(unasked.retry_after, Duration::from_secs(1), "round {round}");
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(1)).await;
            tokio::time::resume();
        }
    }
}
