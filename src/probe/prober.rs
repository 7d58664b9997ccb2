//! The task that holds an identity's session: it takes its turn among the processes of this machine, connects, carries
//! every question that arrives while the session is open, lingers, and closes. What fails is not tried again at once.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
use super::{Answer, Clock, Consent, Failure, Why};
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
    /// When a session took it.
    put_at: Option<Instant>,
    /// That this person was asked is remembered only because of this errand, and so far it may not be true.
    noted: bool,
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
            logged_in: false,
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
        if self.errands.try_send(Errand { jid, deadline, want: want(reply), put_at: None, noted: false }).is_err() {
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
    /// The present session was open, so that what was put may have gone out.
    logged_in: bool,
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

    fn take(&mut self, mut errand: Errand) {
        if let Want::Consent(_) = errand.want {
            // Before it is out: from then on nobody may be probed, even if this process is no more.
            errand.noted = self.pending.note(&self.identity.jid, &errand.jid);
        }
        self.counter += 1;
        self.waiting.insert(self.counter, errand);
    }

    /// Takes what has come in meanwhile, as far as there is room.
    fn take_more(&mut self) {
        while self.waiting.len() < QUEUE
            && let Ok(errand) = self.inbox.try_recv()
        {
            self.take(errand);
        }
    }

    fn fail_all(&mut self, failure: Failure) {
        let unasked = Unasked { failure, retry_after: self.backoff.remaining(Instant::now()) };
        for (_, errand) in self.waiting.drain() {
            // An older request may be out still, and one that a session took may have arrived.
            if errand.noted && !self.logged_in {
                self.pending.settle(&self.identity.jid, &errand.jid);
            }
            errand.fail(unasked.clone());
        }
    }

    /// One session, from taking the turn to closing.
    async fn turn(&mut self) -> Result<End, Failure> {
        (self.answered, self.logged_in) = (0, false);
        if let Some(failure) = self.backoff.stands_in_the_way(Instant::now()) {
            return Err(failure);
        }
        let lease = self.lease().await?;
        // While others wait for theirs, this turn is only for those who are here now.
        self.take_more();
        // Only now: whoever had the turn before may have been refused.
        if let Some((condition, wait)) = self.refused.stands(&self.identity, SystemTime::now()) {
            let failure = Failure::LoginRefused(condition);
            self.backoff.refused_elsewhere(failure.clone(), wait, Instant::now());
            return Err(failure);
        }
        let mut session = Session::new(&self.identity, std::mem::take(&mut self.facts), nonce(), clock());
        let time = self.patience().saturating_duration_since(Instant::now());
        let outcome = self.hold(&mut session, lease.as_ref()).await;
        self.facts = session.into_facts();
        match &outcome {
            Ok(_) => {}
            // A session that served and then broke was only old: what is still in hand goes into a new one.
            Err(failure @ (Failure::StreamEnded(_) | Failure::Flood)) if self.answered > 0 => {
                log::info!("{}: {failure}", self.identity.jid);
                self.waiting.values_mut().for_each(|errand| errand.noted = false);
                return Ok(End::Idle);
            }
            // The turn came so late that this says little about the server: the next question has more time.
            Err(failure @ (Failure::Silent | Failure::Unreachable { .. })) if time < self.identity.timeout / 2 => {
                log::info!("{}: {failure}, with {} ms left", self.identity.jid, time.as_millis());
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
        for (id, errand) in &mut self.waiting {
            put(&self.pending, &self.identity.jid, session, *id, errand);
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
                self.logged_in = true;
            }
            let now = Instant::now();
            self.deliver(talk, now)?;
            // A login that hangs must not outlast those who wait for it.
            if !talk.session.is_open() && now >= talk.deadline {
                return Err(Failure::Silent);
            }
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
            }
            let login = if talk.session.is_open() { None } else { Some(talk.deadline) };
            let room = if idle { Some(now + MAKE_ROOM) } else { None };
            let until = [wait, login, room].into_iter().flatten().min().unwrap_or(now + MAKE_ROOM);
            tokio::select! {
                received = talk.receive() => received?,
                errand = self.inbox.recv(), if !ending && self.waiting.len() < QUEUE => match errand {
                    Some(errand) => {
                        self.take(errand);
                        if let Some(errand) = self.waiting.get_mut(&self.counter) {
                            put(&self.pending, &self.identity.jid, talk.session, self.counter, errand);
                        }
                    }
                    None if idle => return Ok(End::Closed),
                    None => talk.wait_only(until).await?,
                },
                () = sleep_until(until) => {}
            }
        }
    }

    /// Hands out what is ready.
    fn deliver(&mut self, talk: &mut Talk<'_>, now: Instant) -> Result<(), Failure> {
        let unasked = |failure| Unasked { failure, retry_after: Duration::from_secs(1) };
        let mut dead = false;
        for (id, answer) in talk.session.answers(now) {
            self.answered += usize::from(talk.logged_in);
            if let Some(Errand { jid, want: Want::Presence(reply), put_at, .. }) = self.waiting.remove(&id) {
                // Our own server would have answered its ping: this connection is dead, and the next question wants a
                // new one. Not if anything came in since, or if there was little time to answer.
                let put_at = put_at.filter(|put_at| talk.heard < *put_at && answer == Err(Failure::Silent));
                dead |= put_at.is_some_and(|put_at| now - put_at + 2 * MARGIN >= self.identity.timeout);
                if answer.as_ref().is_ok_and(|answer| answer.why != Why::Pending) {
                    self.pending.settle(&self.identity.jid, &jid);
                }
                drop(reply.send(answer.map_err(unasked)));
            }
        }
        for (id, consent) in talk.session.consents(now) {
            if let Some(Errand { jid, want: Want::Consent(reply), noted, .. }) = self.waiting.remove(&id) {
                match consent {
                    Ok(Consent::Asked) | Err(Failure::Silent) => {}
                    // An older request may be out still.
                    Err(_) if !noted => {}
                    _ => self.pending.settle(&self.identity.jid, &jid),
                }
                drop(reply.send(consent.map_err(unasked)));
            }
        }
        if dead { Err(Failure::Silent) } else { Ok(()) }
    }
}

fn put(pending: &Pending, identity: &BareJid, session: &mut Session, id: u64, errand: &mut Errand) {
    errand.put_at = Some(Instant::now());
    let (jid, until) = (errand.jid.clone(), before(errand.deadline));
    match &errand.want {
        Want::Presence(_) if pending.is_out(identity, &jid) => session.ask_pending(id, jid, until),
        Want::Presence(_) => session.ask(id, jid, until),
        Want::Consent(_) => session.subscribe(id, jid, until),
    }
}

/// When an answer must be ready to reach the visitor by his deadline.
fn before(deadline: Instant) -> Instant {
    deadline.checked_sub(MARGIN).unwrap_or(deadline)
}

fn clock() -> Clock {
    let epoch_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Clock { at: Instant::now(), epoch_s }
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
    const LONG: Duration = Duration::from_secs(20);
    const ANSWER: &str = "<handshake/><presence type='unsubscribed' from='bob@example.com' to='presence.example.com'/>";

    fn component(port: u16) -> Identity {
        component_within(port, 20)
    }

    fn component_within(port: u16, timeout: u64) -> Identity {
        let text = "[xmpp]\njid = presence.example.com\npassword = secret\nserver = prosody\n";
        let config = config::parse(&format!("{text}timeout = {timeout}\nport = {port}\n"), Path::new("test.ini"));
        config.expect("a configuration").identities.remove(0)
    }

    async fn listen() -> (TcpListener, u16) {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = server.local_addr().expect("bound").port();
        (server, port)
    }

    fn bob() -> BareJid {
        BareJid::new("bob@example.com").expect("a bare JID")
    }

    fn within(time: Duration) -> Instant {
        Instant::now() + time
    }

    /// A server's end of a session that has put its questions.
    async fn greet(server: &TcpListener) -> TcpStream {
        let (mut socket, _) = server.accept().await.expect("a connection");
        socket.write_all(HEADER.as_bytes()).await.expect("an open connection");
        read_until(&mut socket, "xmpp:ping").await;
        socket
    }

    async fn read_until(socket: &mut TcpStream, end: &str) -> String {
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(end) {
            assert!(socket.read_buf(&mut read).await.expect("an open connection") > 0, "closed before {end}");
        }
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Days of service may lie between two failures: the second is not punished for the first.
    #[tokio::test]
    async fn a_session_that_served_resets_the_pause_however_it_ends() {
        let (server, port) = listen().await;
        let (prober, _task) = Prober::spawn(component(port), Manner::default());
        let ask = || prober.ask(bob(), within(LONG));
        for round in 0..5 {
            let serve = async {
                let mut socket = greet(&server).await;
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

    /// Nobody waits any more, and the session would linger for ever.
    #[tokio::test]
    async fn a_login_that_hangs_is_given_up_with_the_last_question() {
        let (server, port) = listen().await;
        let (prober, _task) = Prober::spawn(component(port), Manner::default());
        let ask = prober.ask(bob(), within(2 * MARGIN));
        let (answer, mut socket) = tokio::join!(ask, greet(&server));
        assert_eq!(answer.expect_err("no login").failure, Failure::Silent);
        let closed = timeout_at(within(LONG), socket.read(&mut [0; 100])).await;
        assert_eq!(closed.expect("the connection is given up").ok(), Some(0));
    }

    /// The server of somebody abroad says nothing, our own does: that ends no session.
    #[tokio::test]
    async fn a_silent_server_abroad_is_no_dead_connection() {
        let (server, port) = listen().await;
        let (prober, _task) = Prober::spawn(component_within(port, 1), Manner::default());
        let ask = |jid: &str| prober.ask(BareJid::new(jid).expect("a bare JID"), within(Duration::from_secs(1)));
        let serve = async {
            let mut socket = greet(&server).await;
            socket.write_all(ANSWER.as_bytes()).await.expect("an open connection");
            socket
        };
        let (answer, mut socket) = tokio::join!(ask("bob@example.com"), serve);
        assert_eq!(answer.map(|answer| answer.why), Ok(Why::Refused));
        let serve = async {
            let asked = read_until(&mut socket, "to='example.com' type='get'><ping").await;
            let ping = asked.rsplit_once("<iq ").map(|(_, ping)| ping.replace("type='get'", "")).expect("a ping");
            let id = ping.split('\'').skip_while(|part| !part.ends_with("id=")).nth(1).expect("an id");
            let to = ping.split('\'').nth(1).expect("a sender");
            let pong = format!("<iq from='example.com' to='{to}' id='{id}' type='result'/>");
            socket.write_all(pong.as_bytes()).await.expect("an open connection");
        };
        let (answer, ()) = tokio::join!(ask("eve@example.net"), serve);
        assert_eq!(answer.expect_err("nobody said anything").failure, Failure::Silent);
        let again = async {
            read_until(&mut socket, "probe").await;
            let answer = ANSWER.strip_prefix("<handshake/>").expect("it begins so");
            socket.write_all(answer.as_bytes()).await.expect("an open connection");
        };
        let (answer, ()) = tokio::join!(ask("bob@example.com"), again);
        assert_eq!(answer.map(|answer| answer.why), Ok(Why::Refused), "by the same session");
    }

    #[tokio::test]
    async fn what_waits_with_the_turn_shares_the_session() {
        let (server, port) = listen().await;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let manner = Manner { directory: Some(directory.path().to_owned()), ..Manner::default() };
        let identity = component(port);
        let turn = Lease::acquire(directory.path(), &identity.jid, within(LONG)).await;
        let turn = turn.expect("files").expect("a free turn");
        let (prober, _task) = Prober::spawn(identity, manner);
        let asked: Vec<_> = (0..5)
            .map(|number| {
                let (prober, jid) = (prober.clone(), format!("user{number}@example.com"));
                tokio::spawn(async move { prober.ask(BareJid::new(&jid).expect("a bare JID"), within(LONG)).await })
            })
            .collect();
        while !turn.is_wanted() {
            tokio::task::yield_now().await;
        }
        // Another process goes on waiting.
        let wanted = std::fs::File::open(directory.path().join("presence.example.com.wanted")).expect("a lock file");
        wanted.lock_shared().expect("a lock");
        drop(turn);
        let (mut socket, _) = server.accept().await.expect("a connection");
        socket.write_all(HEADER.as_bytes()).await.expect("an open connection");
        let written = read_until(&mut socket, "xmpp:ping").await;
        assert_eq!(written.matches("type='probe'").count(), asked.len(), "{written}");
    }

    /// Having waited for others nearly to the end is not the server's fault.
    #[tokio::test]
    async fn a_session_that_began_too_late_delays_no_other() {
        let (server, port) = listen().await;
        let (prober, _task) = Prober::spawn(component(port), Manner::default());
        let (late, _socket) = tokio::join!(prober.ask(bob(), within(2 * MARGIN)), greet(&server));
        assert_eq!(late.expect_err("no login").failure, Failure::Silent);
        let serve = async {
            let mut socket = greet(&server).await;
            socket.write_all(ANSWER.as_bytes()).await.expect("an open connection");
            socket
        };
        let (answer, socket) = tokio::join!(prober.ask(bob(), within(LONG)), timeout_at(within(LONG), serve));
        assert_eq!(answer.map(|answer| answer.why), Ok(Why::Refused));
        assert!(socket.is_ok());
    }

    /// On Prosody a probe would delete the request that was sent before.
    #[tokio::test]
    async fn a_request_that_cannot_be_repeated_may_be_out_still() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (server, port) = listen().await;
        drop(server);
        let identity = component(port);
        let pending = Pending::new(Some(directory.path()));
        for (before, after) in [(true, true), (false, false)] {
            let asked = if before { pending.note(&identity.jid, &bob()) } else { false };
            assert_eq!(asked, before);
            let (prober, task) = Prober::spawn(identity.clone(), Manner::of_command(Some(directory.path().to_owned())));
            prober.subscribe(bob(), within(LONG)).await.expect_err("nobody listens");
            assert_eq!(pending.is_out(&identity.jid, &bob()), after);
            pending.settle(&identity.jid, &bob());
            drop(prober);
            task.await.expect("no panic");
        }
    }
}
