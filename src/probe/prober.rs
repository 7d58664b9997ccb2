//! An identity's task: what is asked goes into the one session that the processes of this machine share for it, whether
//! this process holds it or another one does. Here it is decided which; `hold` and `visit` do it. What fails is not
//! tried again at once.

#[cfg(feature = "redis")]
mod among;
mod attend;
mod carry;
mod hold;
#[cfg(test)]
mod tests;
mod visit;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jid::BareJid;
use rustix::io::Errno;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::backoff::{Backoff, Setback, Sort, Strictness};
use super::budget::Budget;
use super::choices::Choices;
pub use super::errand::Unasked;
use super::errand::{Attempt, Errand, Finding, Outcome, Question, Roster};
use super::facts::Facts;
use super::lease::{Lease, Place};
#[cfg(feature = "redis")]
use super::machines::Meeting;
use super::memory::{Fingerprint, Memory};
use super::pending::Pending;
use super::relay::{Guest, QUESTIONS};
use super::standing::Standing;
use super::steps::{Stage, Steps};
use super::{Answer, Consent, Event, Failure};
use crate::access;
use crate::config::{Access, Config, Identity, Limits, Visibility};
#[cfg(feature = "redis")]
use crate::hub::Hub;
use crate::presence::Picture;

/// What is left of a question's time for carrying its answer to the visitor.
const MARGIN: Duration = Duration::from_millis(150);
/// What is left of it where another process was to answer.
const LAST_MARGIN: Duration = Duration::from_millis(75);
/// How long a command's session waits for its next question.
const COMMAND_LINGER: Duration = Duration::from_secs(5);
/// How soon a lease that somebody else holds, without answering, is tried again; each time it is later, up to the
/// second one. Only while somebody waits.
const POLL: Duration = Duration::from_millis(2);
const SLOW_POLL: Duration = Duration::from_millis(50);
/// How often a process that would hold its session always looks whether it may.
const WATCH: Duration = Duration::from_secs(1);

/// A handle of one identity's task. When the last one is dropped, the task answers what is in hand, closes the session
/// and ends.
#[derive(Clone)]
pub struct Prober {
    errands: mpsc::Sender<Errand>,
    access: Arc<Access>,
    caution: Caution,
    lookups: Lookups,
}

/// How a prober behaves, beside what the identity says.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// Where processes meet; without it this one knows of no other.
    pub directory: Option<PathBuf>,
    /// How long the session stays open after the last answer; `None` is always.
    pub linger: Option<Duration>,
    pub opening: Opening,
    pub caution: Caution,
    pub steps: Steps,
    pub proof: Proof,
    /// Who is told what happens without a question, as long as this process holds the session.
    pub news: Option<mpsc::UnboundedSender<Event>>,
    pub lookups: Lookups,
    pub limits: Limits,
    /// How long an answer counts as fresh.
    pub ttl: Option<Duration>,
    /// Where machines meet.
    #[cfg(feature = "redis")]
    pub hub: Option<Hub>,
}

/// Room for the questions of one process, whichever identities they are for.
#[derive(Clone, Debug)]
pub struct Lookups(Arc<Semaphore>);

impl Lookups {
    pub fn new(limits: Limits) -> Lookups {
        Lookups(Arc::new(Semaphore::new(limits.lookups)))
    }
}

impl Default for Lookups {
    fn default() -> Lookups {
        Lookups::new(Limits::default())
    }
}

/// When a session is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opening {
    /// When somebody asks.
    #[default]
    Asked,
    /// At once, and again whenever it has ended.
    Always,
}

/// Which failures put off the next attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caution {
    #[default]
    Web,
    /// A person who tries again has done something about it, as a rule. But not about a refused password as long as the
    /// configuration is the same.
    Person,
}

/// What a login shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// Whatever is fastest.
    #[default]
    Any,
    /// No token, which would open the account although the password is wrong.
    Password,
}

impl Manner {
    /// One session carries what a command asks, one after the other; it closes as soon as the command is done.
    pub fn of_command(directory: Option<PathBuf>) -> Manner {
        Manner { directory, linger: Some(COMMAND_LINGER), caution: Caution::Person, ..Manner::default() }
    }

    /// Where the configuration has a hub. How loudly it is told that it is lost is for the caller.
    #[cfg(feature = "redis")]
    pub fn among_machines(self, config: &Config, complaint: log::Level) -> Manner {
        Manner { hub: config.redis.clone().map(|address| Hub::new(address, complaint)), ..self }
    }

    #[cfg(not(feature = "redis"))]
    pub fn among_machines(self, _config: &Config, _complaint: log::Level) -> Manner {
        self
    }
}

impl Prober {
    pub fn spawn(identity: Identity, manner: Manner) -> (Prober, JoinHandle<()>) {
        let (errands, inbox) = mpsc::channel(manner.limits.lookups.max(1));
        let place = manner.directory.as_deref().map(|directory| Place::new(directory, &identity.jid));
        let us = Fingerprint::of(&identity);
        let (access, caution) = (Arc::new(identity.access.clone()), manner.caution);
        let (lookups, budget) = (manner.lookups.clone(), Budget::new(manner.limits.probes_per_second));
        let strictness = if identity.is_component() { Strictness::Component } else { Strictness::Account };
        let task = Task {
            pending: Pending::new(manner.directory.as_deref()),
            choices: Choices::new(manner.directory.as_deref()),
            memory: Memory::new(place.clone(), us.clone()),
            place,
            us,
            #[cfg(feature = "redis")]
            meeting: manner.hub.clone().map(|hub| Meeting::new(hub, &identity)),
            identity: Arc::new(identity),
            manner,
            inbox,
            is_wanted: true,
            facts: Facts::default(),
            backoff: Backoff::new(strictness),
            budget,
            written: None,
            waiting: HashMap::new(),
            counter: 0,
            due: Instant::now(),
            answered: 0,
            logged_in: false,
        };
        (Prober { errands, access, caution, lookups }, tokio::spawn(task.run()))
    }

    /// Asks for the presence of `jid`, and who may see him where that matters; the answer is there by `deadline`.
    pub async fn ask(&self, jid: BareJid, deadline: Instant) -> Result<Answer, Unasked> {
        match self.put(self.about_presence(jid), deadline).await? {
            Finding::Presence(answer) => Ok(answer),
            _ => Err(Unasked::now(Failure::Busy)),
        }
    }

    /// As [`ask`](Prober::ask), with the picture of a person who may be shown.
    pub async fn ask_with_picture(
        &self,
        jid: BareJid,
        deadline: Instant,
    ) -> Result<(Answer, Option<Picture>), Unasked> {
        let roster = self.roster(&jid);
        match self.put(Question::Avatar(jid, roster), deadline).await? {
            Finding::Avatar(answer, picture) => Ok((answer, picture)),
            _ => Err(Unasked::now(Failure::Busy)),
        }
    }

    /// Asks `jid` for consent.
    pub async fn subscribe(&self, jid: BareJid, deadline: Instant) -> Result<Consent, Unasked> {
        match self.put(Question::Consent(jid), deadline).await? {
            Finding::Consent(consent) => Ok(consent),
            _ => Err(Unasked::now(Failure::Busy)),
        }
    }

    /// Gives consent back: we no longer see `jid`.
    pub async fn unsubscribe(&self, jid: BareJid, deadline: Instant) -> Result<Consent, Unasked> {
        match self.put(Question::Return(jid), deadline).await? {
            Finding::Consent(consent) => Ok(consent),
            _ => Err(Unasked::now(Failure::Busy)),
        }
    }

    /// How the identity stands with its own server, `home`.
    pub async fn standing(&self, home: BareJid, deadline: Instant) -> Result<Standing, Unasked> {
        match self.put(Question::Standing(home), deadline).await? {
            Finding::Standing(standing) => Ok(standing),
            _ => Err(Unasked::now(Failure::Busy)),
        }
    }

    /// Who is looked up although he is not shown is looked up like anybody else, and a person at a terminal wants to see the
    /// server answer.
    fn about_presence(&self, jid: BareJid) -> Question {
        let is_shown = !access::needs_asker(&self.access, &jid) && !access::is_excluded(&self.access, &jid);
        if is_shown && self.caution == Caution::Web {
            return Question::Watched(jid);
        }
        let roster = self.roster(&jid);
        Question::Presence(jid, roster)
    }

    /// A host has no roster.
    fn roster(&self, jid: &BareJid) -> Roster {
        let is_wanted = self.access.visibility == Visibility::Subscribers && jid.node().is_some();
        if is_wanted { Roster::Wanted } else { Roster::Unwanted }
    }

    async fn put(&self, question: Question, deadline: Instant) -> Outcome {
        let Ok(_room) = self.lookups.0.try_acquire() else { return Err(Unasked::now(Failure::Crowded)) };
        let (reply, answer) = oneshot::channel();
        if self.errands.try_send(Errand::new(question, deadline, Some(reply))).is_err() {
            return Err(Unasked::now(Failure::Silent));
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(Unasked::now(Failure::Silent)),
        }
    }
}

struct Task {
    identity: Arc<Identity>,
    us: Fingerprint,
    place: Option<Place>,
    #[cfg(feature = "redis")]
    meeting: Option<Meeting>,
    pending: Pending,
    choices: Choices,
    memory: Memory,
    manner: Manner,
    inbox: mpsc::Receiver<Errand>,
    /// Somebody has the handle.
    is_wanted: bool,
    facts: Facts,
    backoff: Backoff,
    budget: Budget,
    /// When the present session last put a question.
    written: Option<Instant>,
    waiting: HashMap<u64, Errand>,
    counter: u64,
    /// When a session that is always held is to be opened.
    due: Instant,
    /// Answers of the present session.
    answered: usize,
    /// The present session was open, so that what was put may have gone out.
    logged_in: bool,
}

/// Where questions go.
enum Seat {
    /// Into a session of our own. Without a lease this process knows of no other.
    Holder(Option<Lease>),
    /// To the process that has it.
    Guest(Guest),
    /// Nobody asks any more.
    Nobody,
}

impl Task {
    async fn run(mut self) {
        while self.has_something_to_do().await {
            self.turn().await;
            self.due = Instant::now() + WATCH;
        }
    }

    /// Waits for a question, or for the time to open a session that is always held; false once the handle is gone.
    async fn has_something_to_do(&mut self) -> bool {
        if !self.waiting.is_empty() {
            return true;
        }
        let due = self.backoff.until().map_or(self.due, |until| until.max(self.due));
        tokio::select! {
            errand = self.inbox.recv() => {
                self.arrived(errand);
                !self.waiting.is_empty()
            }
            () = sleep_until(due), if self.is_held_always() => true,
        }
    }

    /// Until nobody asks any more, or no session can be had.
    async fn turn(&mut self) {
        // Holders that ended one after the other without a word for us.
        let mut in_vain = 0;
        loop {
            match self.seat(&mut in_vain).await {
                Seat::Holder(lease) => return self.preside(lease).await,
                Seat::Guest(guest) => in_vain = if self.visit(guest).await { 0 } else { in_vain.saturating_add(1) },
                Seat::Nobody => return,
            }
        }
    }

    /// Tries to become the holder, or to reach him, as long as anybody waits.
    async fn seat(&mut self, in_vain: &mut u32) -> Seat {
        loop {
            if !self.has_reason() || self.put_off() {
                return Seat::Nobody;
            }
            let Some(place) = &self.place else { return Seat::Holder(None) };
            match place.lease() {
                Ok(Some(lease)) => {
                    self.manner.steps.passed(Stage::Lease);
                    return Seat::Holder(Some(lease));
                }
                Ok(None) => {}
                // Where no file can be locked, this process knows of no other.
                Err(error) if is_without_locks(&error) => {
                    log::warn!("no turns among processes: {}: {error}", place.directory.display());
                    return Seat::Holder(None);
                }
                Err(error) => {
                    let reason =
                        format!("whose session it is cannot be told: {}: {error}", place.path("lease").display());
                    log::warn!("{}: {reason}", self.identity.jid);
                    self.fail_all(Failure::Reported(reason), Attempt::Made);
                    self.due = Instant::now() + WATCH;
                    return Seat::Nobody;
                }
            }
            if *in_vain > 0 {
                self.pause(POLL.saturating_mul(*in_vain).min(SLOW_POLL)).await;
            }
            let Some(place) = &self.place else { return Seat::Holder(None) };
            if let Some(guest) = Guest::at(place, &self.us).await {
                return Seat::Guest(guest);
            }
            *in_vain = in_vain.saturating_add(1);
            self.fail_late();
        }
    }

    /// Waits, but not past the arrival of a question, and without hurry where nobody has one.
    async fn pause(&mut self, time: Duration) {
        let time = if self.waiting.is_empty() { WATCH } else { time };
        tokio::select! {
            errand = self.inbox.recv(), if self.may_take() => self.arrived(errand),
            () = sleep_until(Instant::now() + time) => {}
        }
    }

    /// There is a question, or the session is to be there without one.
    fn has_reason(&self) -> bool {
        !self.waiting.is_empty() || self.is_held_always()
    }

    fn is_held_always(&self) -> bool {
        self.is_wanted && self.manner.opening == Opening::Always
    }

    fn may_take(&self) -> bool {
        self.is_wanted && self.waiting.len() < QUESTIONS
    }

    /// What the handle's channel brought: a question, or its end.
    fn arrived(&mut self, errand: Option<Errand>) {
        match errand {
            Some(errand) => self.take(errand),
            None => self.is_wanted = false,
        }
    }

    fn take(&mut self, errand: Errand) {
        self.counter += 1;
        self.waiting.insert(self.counter, errand);
    }

    /// Fails everything where an earlier failure forbids an attempt.
    fn put_off(&mut self) -> bool {
        let now = Instant::now();
        if self.memory.is_shared() {
            self.backoff.recall(self.memory.setback(SystemTime::now()), now);
        }
        let heeded = |setback: &&Setback| self.manner.caution == Caution::Web || setback.sort == Sort::Refusal;
        let Some(failure) = self.backoff.stands_in_the_way(now).filter(heeded).map(|last| last.failure.clone()) else {
            return false;
        };
        self.fail_all(failure, Attempt::PutOff);
        true
    }

    fn fail_all(&mut self, failure: Failure, attempt: Attempt) {
        let unasked = Unasked { failure, retry_after: self.backoff.remaining(Instant::now()), attempt };
        for (_, errand) in self.waiting.drain() {
            // An older request may be out still, and one that a session took may have arrived.
            if errand.noted && !self.logged_in {
                self.pending.settle(&self.identity.jid, errand.question.jid());
            }
            errand.answer(Err(unasked.clone()));
        }
    }

    /// Fails those whose time is over while another process has the session and does not answer.
    fn fail_late(&mut self) {
        let now = Instant::now();
        let late = self.waiting.extract_if(|_, errand| late(errand) <= now).map(|(_, errand)| errand);
        let late: Vec<_> = late.collect();
        if !late.is_empty() {
            log::warn!("{}: {}", self.identity.jid, Failure::Busy);
        }
        late.into_iter().for_each(|errand| errand.answer(Err(Unasked::now(Failure::Busy))));
    }
}

fn is_without_locks(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::OPNOTSUPP | Errno::NOLCK | Errno::NOSYS))
}

/// When an answer must be ready to reach the visitor by his deadline.
pub fn before(deadline: Instant) -> Instant {
    deadline.checked_sub(MARGIN).unwrap_or(deadline)
}

/// When another process no longer has the time to answer.
fn late(errand: &Errand) -> Instant {
    errand.deadline.checked_sub(LAST_MARGIN).unwrap_or(errand.deadline)
}
