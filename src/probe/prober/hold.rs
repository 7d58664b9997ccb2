//! Holding the session: connecting, taking every question that arrives while it is open, from this process and from
//! the others, lingering, and closing. A session that breaks under its questions is followed by another one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Opening, POLL, Proof, Task, before};
use crate::config::ServerKind;
use crate::probe::errand::{Attempt, Errand, Question, Roster};
use crate::probe::lease::Lease;
use crate::probe::relay::{Caller, QUESTIONS, Relay, Trace};
use crate::probe::session::Session;
use crate::probe::stream::Fault;
use crate::probe::talk::{Farewell, Talk};
use crate::probe::{Clock, Failure};

/// How long a session may last, unless it lingers always.
const SESSION_AGE: Duration = Duration::from_secs(600);
/// A session that lasted so long shows that nobody else is after its place.
const STEADY: Duration = Duration::from_secs(300);
/// How long a session that lingers always may hear nothing before it asks whether it is alive (XEP-0199).
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// COMPAT: Prosody may not know yet that the connection of a process that was killed is gone. The pauses double.
const CONFLICT_PAUSE: Duration = Duration::from_millis(50);
pub(super) const CONFLICTS: u32 = 6;
/// COMPAT: jabberd2, which has just ended a session for our haste, may take the next connection for it meanwhile.
const HASTE_PAUSE: Duration = Duration::from_millis(100);
/// How often, at the most, what a session has taught is written down while it goes on.
const KEEP_FACTS: Duration = Duration::from_secs(10);
/// When nothing else is due.
const LATER: Duration = Duration::from_secs(3600);

/// What the holder has beside its session.
pub(super) struct House {
    pub(super) relay: Option<Relay>,
    /// A process with another configuration waits: what is in hand is answered, and the lease goes round.
    pub(super) is_sought: bool,
    /// For all we know the server may still count a connection that was there before.
    pub(super) is_haunted: bool,
    facts_kept: Option<Instant>,
    /// Something was answered since.
    has_learned: bool,
}

impl Task {
    /// From taking the lease to giving it back.
    pub(super) async fn preside(&mut self, lease: Option<Lease>) {
        // Only now: whoever had the lease before may have failed.
        if self.put_off() {
            return;
        }
        let place = self.place.as_ref().filter(|_| lease.is_some());
        let relay = place.and_then(|place| match Relay::open(place, &self.us) {
            Ok(relay) => Some(relay),
            Err(error) => {
                log::warn!("other processes cannot ask this one: {}: {error}", place.directory.display());
                None
            }
        });
        let is_haunted = relay.as_ref().is_some_and(|relay| relay.follows_a_death);
        let mut house = House { relay, is_sought: false, is_haunted, facts_kept: None, has_learned: false };
        self.memory.recall_facts(&mut self.facts, Instant::now(), SystemTime::now());
        #[cfg(feature = "redis")]
        let outcome = self.sessions_among_machines(&mut house).await;
        #[cfg(not(feature = "redis"))]
        let outcome = self.sessions(&mut house).await;
        if let Err(failure) = outcome {
            self.fail_all(failure, Attempt::Made);
        }
        if let Some(relay) = house.relay {
            let is_haunted = house.is_haunted && self.others_may_get_our_answers();
            relay.close(if is_haunted { Trace::Left } else { Trace::Removed }).await;
        }
        drop(lease);
        if house.is_sought {
            sleep(POLL * 3).await;
        }
    }

    /// COMPAT: ejabberd lets a component connect twice, and gives each connection some of the other's answers. Prosody
    /// and Openfire say `conflict`.
    fn others_may_get_our_answers(&self) -> bool {
        let home = self.identity.home();
        let kind = self.identity.server.or_else(|| self.facts.server(home.as_str()).kind);
        self.identity.is_component() && !matches!(kind, Some(ServerKind::Prosody | ServerKind::Openfire))
    }

    /// One session after the other as long as somebody asks and they serve.
    pub(super) async fn sessions(&mut self, house: &mut House) -> Result<(), Failure> {
        let (mut conflicts, mut was_hasty) = (0, false);
        loop {
            let time = self.login_deadline().saturating_duration_since(Instant::now());
            let Err(failure) = self.session(house).await else { return Ok(()) };
            if !self.logged_in {
                self.retract();
            }
            let pause = CONFLICT_PAUSE * 2_u32.pow(conflicts);
            match &failure {
                failure if self.may_go_on_after(failure) => {
                    log::info!("{}: {failure}", self.identity.jid);
                    self.waiting.values_mut().for_each(|errand| errand.noted = false);
                    if self.waiting.is_empty() {
                        return Ok(());
                    }
                }
                Failure::TooHasty if !was_hasty => {
                    was_hasty = true;
                    sleep(HASTE_PAUSE).await;
                }
                _ if !self.logged_in
                    && is_confused(&failure, was_hasty)
                    && conflicts < CONFLICTS
                    && Instant::now() + pause < self.patience() =>
                {
                    conflicts += 1;
                    sleep(pause).await;
                }
                // The turn came so late that this says little about the server: the next question has more time.
                Failure::Silent | Failure::Unreachable { .. } if time < self.identity.timeout / 2 => {
                    log::info!("{}: {failure}, with {} ms left", self.identity.jid, time.as_millis());
                    return Err(failure);
                }
                _ => {
                    self.failed(&failure);
                    return Err(failure);
                }
            }
        }
    }

    /// It was only old, or one person's stanza was too much: what is still in hand goes into a new session.
    fn may_go_on_after(&self, failure: &Failure) -> bool {
        match failure {
            // Nobody asks for that roster again.
            Failure::RosterEndless => true,
            Failure::StreamEnded(_) | Failure::Flood | Failure::Stream(Fault::TooLarge | Fault::TooDeep) => {
                self.answered > 0
            }
            _ => false,
        }
    }

    /// What went out with a login that failed was not asked: the next session asks it.
    fn retract(&mut self) {
        for errand in self.waiting.values_mut().filter(|errand| errand.noted) {
            self.pending.settle(&self.identity.jid, errand.question.jid());
            errand.noted = false;
        }
    }

    fn failed(&mut self, failure: &Failure) {
        let now = Instant::now();
        // Whoever tries again before the time does not make the pause longer.
        if self.backoff.stands_in_the_way(now).is_none() || matches!(failure, Failure::LoginRefused(_)) {
            let setback = self.backoff.failed(failure, now);
            self.memory.note_setback(setback, SystemTime::now());
        }
        let wait = self.backoff.remaining(now);
        log::warn!("{}: {failure}; next attempt in {} s", self.identity.jid, wait.as_secs());
    }

    async fn session(&mut self, house: &mut House) -> Result<(), Failure> {
        (self.answered, self.logged_in, self.written) = (0, false, None);
        self.waiting.values_mut().for_each(|errand| errand.put_at = None);
        let is_in_doubt = house.is_haunted && self.others_may_get_our_answers();
        let mut session = Session::new(&self.identity, std::mem::take(&mut self.facts), nonce(), clock());
        if self.manner.proof == Proof::Password {
            session.prove_without_tokens();
        }
        if self.manner.opening == Opening::Always {
            session.errands().appear_to_listen();
        }
        if is_in_doubt {
            session.errands().doubt();
        }
        session.errands().allow(self.budget);
        if let Some(ttl) = self.manner.ttl {
            session.errands().keep_within(ttl);
        }
        let outcome = self.hold(&mut session, house).await;
        // Also what came with the end of the stream.
        self.attend(&mut session);
        house.is_haunted = outcome != Ok(Farewell::Mutual) || session.errands().is_in_doubt();
        self.budget = session.errands().budget().unwrap_or(self.budget);
        self.facts = session.into_facts();
        self.memory.keep_facts(&self.facts, Instant::now(), SystemTime::now());
        outcome.map(drop)
    }

    async fn hold(&mut self, session: &mut Session, house: &mut House) -> Result<Farewell, Failure> {
        self.take_more(house);
        self.put_fresh(session);
        let (identity, steps, deadline) = (self.identity.clone(), self.manner.steps.clone(), self.login_deadline());
        let mut talk = Talk::open(identity, session, steps, deadline).await?;
        self.converse(&mut talk, house).await?;
        Ok(talk.goodbye().await)
    }

    /// Until when somebody waits.
    fn patience(&self) -> Instant {
        let deadlines = self.waiting.values().map(|errand| errand.deadline);
        deadlines.max().map_or_else(Instant::now, before)
    }

    /// As long as anybody waits, and never longer than one answer may take.
    fn login_deadline(&self) -> Instant {
        let longest = Instant::now() + self.identity.timeout;
        if self.waiting.is_empty() { longest } else { self.patience().min(longest) }
    }

    /// Carries questions and answers until there is nothing more to do.
    async fn converse(&mut self, talk: &mut Talk<'_>, house: &mut House) -> Result<(), Failure> {
        let opened = Instant::now();
        let (mut idle_since, mut knocked) = (None, opened);
        loop {
            self.take_more(house);
            let together = self.together(Instant::now());
            if together.is_none() {
                self.put_fresh(talk.session);
            }
            self.attend(talk.session);
            let wait = talk.advance().await.inspect_err(|_| self.ended(opened))?;
            if talk.logged_in && !self.logged_in {
                // What went wrong before lies behind, and however this session ends, the next one may be tried soon.
                self.logged_in = true;
            }
            let (now, before) = (Instant::now(), self.answered);
            let has_told = self.deliver(talk, now)?;
            house.has_learned |= has_told;
            // Only now: a server that takes the login and then closes is no better than one that does not.
            if before == 0 && self.answered > 0 {
                self.backoff.succeeded();
                self.memory.forget_setback();
            }
            // A login that hangs must not outlast those who wait for it.
            if !talk.session.is_open() && now >= talk.deadline {
                return Err(Failure::Silent);
            }
            // A picture that may be fetched now is asked for at once.
            let is_next = talk.session.is_open() && talk.session.errands().has_unsent();
            let wait = if is_next { Some(now) } else { wait };
            self.keep_facts(talk.session, house, now);
            let age = self.manner.linger.map(|_| opened + SESSION_AGE);
            // No new questions then: what is in hand is answered, and another session begins.
            let ending = !self.is_wanted || house.is_sought || age.is_some_and(|age| age <= now);
            let idle = self.waiting.is_empty();
            idle_since = if idle { idle_since.filter(|_| !has_told).or(Some(now)) } else { None };
            let lingered = idle_since.zip(self.manner.linger).map(|(since, linger)| since + linger);
            // What is on its way to us would be lost.
            let handed_over = talk.session.errands().hands_over_until().filter(|until| now < *until);
            let lingered = lingered.map(|end| handed_over.map_or(end, |handed_over| end.max(handed_over)));
            if idle && handed_over.is_none() && (ending || lingered.is_some_and(|end| end <= now)) {
                self.ended(opened);
                return Ok(());
            }
            let knock = self
                .manner
                .linger
                .is_none()
                .then(|| talk.heard.map_or(knocked, |heard| heard.max(knocked)) + KEEP_ALIVE);
            if talk.session.is_open() && idle && knock.is_some_and(|knock| knock <= now) {
                knocked = now;
                self.knock(now);
                continue;
            }
            let login = (!talk.session.is_open()).then_some(talk.deadline);
            let knock = knock.filter(|_| idle && login.is_none());
            let age = age.filter(|_| !ending);
            let until = [wait, login, lingered, handed_over, knock, age, together].into_iter().flatten().min();
            let until = until.unwrap_or(now + LATER);
            let room = !ending && self.waiting.len() < QUESTIONS;
            tokio::select! {
                // What was told already is to be in the next answer.
                biased;
                received = talk.receive() => received.inspect_err(|_| self.ended(opened))?,
                errand = self.inbox.recv(), if room => self.arrived(errand),
                caller = next(&mut house.relay), if room => self.called(caller, house),
                () = sleep_until(until) => {}
            }
        }
    }

    /// A session that lasted has shown that nobody else is after its place.
    fn ended(&mut self, opened: Instant) {
        if opened.elapsed() >= STEADY {
            self.backoff.lasted();
        }
    }

    /// Asks our own server about itself; its answer is for nobody.
    fn knock(&mut self, now: Instant) {
        let question = Question::Presence(self.identity.home(), Roster::Unwanted);
        self.take(Errand::new(question, now + self.identity.timeout, None));
    }

    pub(super) fn called(&mut self, caller: Caller, house: &mut House) {
        match caller {
            Caller::Errand(errand) => self.take(errand),
            Caller::Stranger => house.is_sought = true,
        }
    }

    /// Takes what has come in meanwhile, as far as there is room: one write carries it all.
    pub(super) fn take_more(&mut self, house: &mut House) {
        while self.may_take() && !house.is_sought {
            if let Ok(errand) = self.inbox.try_recv() {
                self.take(errand);
            } else if let Some(caller) = house.relay.as_mut().and_then(Relay::waiting) {
                self.called(caller, house);
            } else {
                break;
            }
        }
    }

    /// Writes down what was learned, now and then: a process whose session stays may be killed.
    fn keep_facts(&mut self, session: &Session, house: &mut House, now: Instant) {
        let is_time = house.facts_kept.is_none_or(|kept| kept + KEEP_FACTS <= now);
        if house.has_learned && is_time && self.manner.linger != Some(Duration::ZERO) {
            (house.has_learned, house.facts_kept) = (false, Some(now));
            self.memory.keep_facts(session.facts(), now, SystemTime::now());
        }
    }
}

/// The server takes this login for another one that has just ended.
fn is_confused(failure: &Failure, was_hasty: bool) -> bool {
    match failure {
        Failure::Conflict => true,
        Failure::StreamEnded(condition) => was_hasty && condition == "internal-server-error",
        _ => false,
    }
}

pub(super) async fn next(relay: &mut Option<Relay>) -> Caller {
    match relay {
        Some(relay) => relay.next().await,
        None => std::future::pending().await,
    }
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
