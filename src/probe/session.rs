//! One XMPP session as a pure state machine: bytes and the time go in, bytes to send and answers come out. It logs in
//! as an external component (XEP-0114) or an ordinary account (RFC 6120, XEP-0388), and carries any number of questions
//! at once. Everything that may be sent together is sent together: a round trip is what a visitor waits for.

use std::mem;

use jid::{BareJid, FullJid, Jid};
use ring::digest;
use tokio::time::Instant;
use xmpp_parsers::bind::BindResponse;
use xmpp_parsers::minidom::Element;

use super::account::Pace;
use super::entrance::{self, Attempt, Entrance, Progress};
use super::errand::Roster;
use super::errands::{Address, Errands};
use super::facts::Facts;
use super::login::{Bindings, LoginFault, Proofs};
use super::sasl::condition;
use super::stanza::{Heard, Sender, bind, hear};
use super::stream::{Fault, Incoming, Reader};
use super::{Answer, Clock, Consent, Failure, ns};
use crate::config::{Identity, Security};
use crate::presence::Picture;

/// Bytes one session may bring in, beside what its questions may.
pub const SESSION_BYTES: usize = 1024 * 1024;
/// What each second adds, so that a session that is always held may be told what happens.
pub const SECOND_BYTES: usize = 4 * 1024;

/// Bytes of one roster that is awaited. They count for themselves, since the person it belongs to chooses how many they
/// are: beyond the limit of a stanza they are passed over.
pub const LONGEST_ROSTER: usize = 16 * 1024 * 1024;

const BIND_ID: &str = "bind";

/// What the driver has to do next.
#[derive(Debug, PartialEq)]
pub enum Step {
    Send(Vec<u8>),
    /// Begin TLS, then call [`Session::secured`].
    StartTls,
    /// Nothing until bytes come in, or until then.
    Wait(Option<Instant>),
}

/// The stages of RFC 6120 and XEP-0114, in their order.
enum State {
    /// Component: our header is out.
    ComponentHeader,
    /// Component: the handshake is out, and the questions behind it.
    Handshake,
    /// Account: header and `<starttls/>` are out.
    StartTls,
    /// `<proceed/>` came; TLS is the driver's.
    Securing,
    /// Account: our header is out on a channel that is as safe as it gets.
    Features,
    /// Account: a login is under way. With SASL2 the questions may be out behind it.
    Entering(Box<Attempt>),
    /// Logged in by SASL: the new header, the resource request and mostly the questions are out.
    Bind,
    Open,
    /// A failure was returned; nothing more is read.
    Ended,
}

/// See the module.
pub struct Session {
    jid: BareJid,
    password: String,
    security: Security,
    verify: bool,
    entrance: Entrance,
    state: State,
    reader: Reader,
    out: String,
    /// The questions that are out before the login is done.
    early: String,
    /// Of these, what went out in vain.
    again: String,
    errands: Errands,
    received: usize,
    /// Of the roster that is coming in.
    roster_bytes: usize,
    /// A stanza that is no part of the login has come in.
    has_heard: bool,
}

impl Session {
    /// `nonce` is printable, without a comma, and never used twice.
    pub fn new(identity: &Identity, facts: Facts, nonce: String, clock: Clock) -> Session {
        let from = identity.is_component().then(|| identity.jid.with_resource_str(&nonce).ok()).flatten();
        let (jid, password) = (identity.jid.clone(), identity.password.reveal().to_owned());
        Session {
            entrance: Entrance::new(jid.clone(), proofs(identity), password.clone(), nonce),
            jid,
            password,
            security: identity.security,
            verify: identity.verify,
            state: State::Ended,
            reader: Reader::default(),
            out: String::new(),
            early: String::new(),
            again: String::new(),
            errands: Errands::new(identity, Sender { from }, facts, clock),
            received: 0,
            roster_bytes: 0,
            has_heard: false,
        }
    }

    /// The connection is there, over TLS where `bindings` are: the next step sends our header.
    pub fn connected(&mut self, bindings: Option<Bindings>) {
        if self.jid.node().is_none() {
            self.header(ns::COMPONENT, "");
            self.state = State::ComponentHeader;
        } else if bindings.is_none() && self.security != Security::None {
            // The address is nobody's business before TLS: no `from` (RFC 6120, 4.7.1).
            self.header(ns::CLIENT, " version='1.0'");
            self.out.push_str("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
            self.state = State::StartTls;
        } else {
            self.greet(bindings);
        }
    }

    /// Our header on the channel that the login goes over, and the login right behind it where it is known how.
    fn greet(&mut self, bindings: Option<Bindings>) {
        let proved = bindings.is_some() && self.verify;
        self.entrance.channel(bindings.unwrap_or_default(), proved);
        self.client_header();
        let account = self.errands.facts_mut().account_mut(&self.jid);
        self.state = self.entrance.ahead(account, &mut self.out).map_or(State::Features, entering);
    }

    /// Puts a question: `id` comes back with its answer, by `until` at the latest.
    pub fn ask(&mut self, id: u64, jid: BareJid, roster: Roster, until: Instant) {
        self.errands.ask(id, jid, roster, until);
    }

    /// Puts a question about somebody whom we have asked for consent, and who has not answered as far as we know.
    pub fn ask_pending(&mut self, id: u64, jid: BareJid, roster: Roster, until: Instant) {
        self.errands.ask_pending(id, jid, roster, until);
    }

    /// Asks for consent: `id` comes back with what is known of it, by `until` at the latest.
    pub fn subscribe(&mut self, id: u64, jid: BareJid, until: Instant) {
        self.errands.subscribe(id, jid, until);
    }

    /// Gives consent back: `id` comes back when the server has it.
    pub fn unsubscribe(&mut self, id: u64, jid: BareJid, until: Instant) {
        self.errands.unsubscribe(id, jid, until);
    }

    /// From now on only the password itself, or the certificate, opens the account, and no token.
    pub fn prove_without_tokens(&mut self) {
        self.entrance.leave_tokens_alone();
    }

    /// By what the server has let us in, in its own words.
    pub fn entered_by(&self) -> String {
        match self.jid.node() {
            None => "a component's handshake".to_owned(),
            Some(_) => self.entrance.entered_by.clone(),
        }
    }

    /// Fetches the picture of somebody whose presence was allowed: `id` comes back with it, by `until` at the latest.
    pub fn fetch_picture(&mut self, id: u64, jid: BareJid, until: Instant) {
        self.errands.fetch_picture(id, jid, until);
    }

    /// What was put, and what people sent by themselves.
    pub fn errands(&mut self) -> &mut Errands {
        &mut self.errands
    }

    /// True once the server has taken our name and password.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// True once the server has said anything beside the login.
    pub fn has_heard(&self) -> bool {
        self.has_heard
    }

    /// The TLS that [`Step::StartTls`] asked for is up.
    pub fn secured(&mut self, bindings: Bindings) {
        self.reader = Reader::default();
        self.greet(Some(bindings));
    }

    /// What to do now.
    pub fn step(&mut self, now: Instant) -> Step {
        self.put_questions(now);
        if !self.out.is_empty() {
            return Step::Send(mem::take(&mut self.out).into_bytes());
        }
        match self.state {
            State::Securing => Step::StartTls,
            _ => Step::Wait(self.errands.next_judgement(now)),
        }
    }

    /// Writes the questions where the server may be asked already.
    fn put_questions(&mut self, now: Instant) {
        let early = match &self.state {
            State::Handshake | State::Open => false,
            State::Entering(attempt) if attempt.may_be_followed() => true,
            State::Bind => true,
            _ => return,
        };
        if early && self.errands.facts_mut().account_mut(&self.jid).pace > Pace::Swift {
            return;
        }
        let mut questions = mem::take(&mut self.again);
        self.errands.write(&mut questions, now);
        self.out.push_str(&questions);
        if early {
            self.early.push_str(&questions);
        }
    }

    /// The answers that are ready.
    pub fn answers(&mut self, now: Instant) -> Vec<(u64, Result<Answer, Failure>)> {
        self.errands.answers(now)
    }

    /// What became of the requests for consent that are settled.
    pub fn consents(&mut self, now: Instant) -> Vec<(u64, Result<Consent, Failure>)> {
        self.errands.consents(now)
    }

    /// The pictures that were fetched, or not.
    pub fn pictures(&mut self, now: Instant) -> Vec<(u64, Option<Picture>)> {
        self.errands.pictures(now)
    }

    /// The way out (RFC 6120, 4.4).
    pub fn close(&mut self) -> &'static [u8] {
        self.state = State::Ended;
        b"</stream:stream>"
    }

    /// What was learned about servers and people.
    pub fn into_facts(self) -> Facts {
        self.errands.into_facts()
    }

    /// What is known by now.
    pub fn facts(&self) -> &Facts {
        self.errands.facts()
    }

    /// Takes what the server sent.
    pub fn receive(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Failure> {
        let longest = self.errands.stanza_limit();
        loop {
            if matches!(self.state, State::Securing) && !bytes.is_empty() {
                return Err(Failure::Injected);
            }
            self.reader.expect_answer(longest);
            let before = bytes.len();
            let read = self.reader.next(&mut bytes);
            let incoming = read.map_err(|fault| self.disturbed(fault, now))?;
            self.count(before - bytes.len(), incoming.as_ref(), now)?;
            let Some(incoming) = incoming else { return Ok(()) };
            let state = mem::replace(&mut self.state, State::Ended);
            self.state = self.advance(state, incoming, now)?;
        }
    }

    /// Adds up what came in, which `incoming` is the end of, where it is complete.
    fn count(&mut self, bytes: usize, incoming: Option<&Incoming>, now: Instant) -> Result<(), Failure> {
        let element = match incoming {
            Some(Incoming::Element(element)) => Some(element),
            Some(Incoming::Header { .. } | Incoming::End) => None,
            None => self.reader.outermost(),
        };
        if let Some(owner) = element.and_then(|element| self.errands.owner_of_roster(element)) {
            let total = self.roster_bytes.saturating_add(bytes);
            self.roster_bytes = if incoming.is_some() { 0 } else { total };
            return if total > LONGEST_ROSTER { Err(self.endless(&owner, now)) } else { Ok(()) };
        }
        self.roster_bytes = 0;
        self.received = self.received.saturating_add(bytes);
        let age_s = usize::try_from(self.errands.age(now).as_secs()).unwrap_or(usize::MAX);
        let aged = age_s.saturating_mul(SECOND_BYTES);
        let is_flood = self.received > aged.saturating_add(SESSION_BYTES + self.errands.allowance());
        if is_flood { Err(Failure::Flood) } else { Ok(()) }
    }

    /// What a fault means where it came: everybody writes his own roster, and may put anything into it.
    fn disturbed(&mut self, fault: Fault, now: Instant) -> Failure {
        let owner = self.reader.outermost().and_then(|element| self.errands.owner_of_roster(element));
        match (fault, owner) {
            (Fault::TooLarge | Fault::TooDeep, Some(owner)) => self.endless(&owner, now),
            (fault, _) => Failure::Stream(fault),
        }
    }

    fn endless(&mut self, owner: &BareJid, now: Instant) -> Failure {
        self.errands.facts_mut().learn_unreadable(owner, now);
        Failure::RosterEndless
    }

    fn advance(&mut self, state: State, incoming: Incoming, now: Instant) -> Result<State, Failure> {
        let element = match (incoming, state) {
            (Incoming::End, state) => return Err(self.ended(String::new(), &state)),
            (Incoming::Element(element), state) if element.is("error", ns::STREAM) => {
                return Err(self.ended(condition(&element), &state));
            }
            (Incoming::Header { id: Some(id) }, State::ComponentHeader) => return Ok(self.handshake(&id)),
            (Incoming::Header { id: None }, State::ComponentHeader) => return Err(Failure::Unexpected("a stream id")),
            (Incoming::Header { .. }, state) => return Ok(state),
            (Incoming::Element(element), state) => (element, state),
        };
        match element {
            (element, State::Handshake) if element.is("handshake", ns::CLIENT) => Ok(State::Open),
            // jabberd2 sends features and questions of its own around the handshake.
            (_, state @ (State::ComponentHeader | State::Handshake)) => Ok(state),
            (element, State::StartTls) => start_tls(&element),
            (element, State::Features) => {
                let account = self.errands.facts_mut().account_mut(&self.jid);
                self.entrance.features(account, &element)?;
                let wants_tls = self.security == Security::None && element.has_child("starttls", ns::TLS);
                self.entrance.seen(account, &mut self.out).map(entering).map_err(|failure| match failure {
                    Failure::Login(LoginFault::NoMechanism) if wants_tls => Failure::WantsTls,
                    failure => failure,
                })
            }
            (element, State::Entering(attempt)) => self.enter(*attempt, element),
            (element, State::Bind) => self.bound(element, now),
            (element, State::Open) => {
                self.stanza(element, now);
                Ok(State::Open)
            }
            (_, State::Securing | State::Ended) => Err(Failure::Unexpected("nothing")),
        }
    }

    fn header(&mut self, namespace: &str, more: &str) {
        let header = format!("<stream:stream xmlns='{namespace}' xmlns:stream='{}' to='", ns::STREAM);
        // A component names itself, an account its server. Neither part of a JID can hold a quote or a bracket.
        let to = if namespace == ns::COMPONENT { self.jid.as_str() } else { self.jid.domain().as_str() };
        self.out.push_str(&format!("{header}{to}'{more}>"));
    }

    fn client_header(&mut self) {
        let from = escape(self.jid.as_str());
        self.header(ns::CLIENT, &format!(" from='{from}' version='1.0'"));
    }

    /// XEP-0114, 3: lower-case hex, since ejabberd takes no other.
    fn handshake(&mut self, id: &str) -> State {
        let proof = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{id}{}", self.password).as_bytes());
        let hex: String = proof.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        self.out.push_str(&format!("<handshake>{hex}</handshake>"));
        State::Handshake
    }

    fn enter(&mut self, attempt: Attempt, element: Element) -> Result<State, Failure> {
        let account = self.errands.facts_mut().account_mut(&self.jid);
        match self.entrance.take(account, attempt, element, &mut self.out)? {
            Progress::Going(attempt) => Ok(entering(attempt)),
            Progress::Again(attempt) => {
                self.again = mem::take(&mut self.early);
                Ok(entering(attempt))
            }
            Progress::Authenticated => {
                self.reader = Reader::default();
                self.client_header();
                self.out.push_str(&bind(BIND_ID));
                Ok(State::Bind)
            }
            Progress::Bound(jid) => Ok(self.open(jid)),
        }
    }

    /// With the address that the server gave us.
    fn open(&mut self, jid: Option<FullJid>) -> State {
        self.errands.bound(jid);
        self.early.clear();
        State::Open
    }

    fn bound(&mut self, element: Element, now: Instant) -> Result<State, Failure> {
        if !element.is("iq", ns::CLIENT) || element.attr("id") != Some(BIND_ID) {
            self.stanza(element, now);
            return Ok(State::Bind);
        }
        let bound = match hear(element) {
            Heard::Reply { outcome: Ok(Some(payload)), .. } => BindResponse::try_from(payload).ok(),
            _ => None,
        };
        match bound {
            Some(bound) => Ok(self.open(Some(bound.into()))),
            None if self.early.is_empty() => Err(Failure::Unexpected("a resource")),
            None => Err(self.too_hasty(Pace::BoundFirst)),
        }
    }

    /// What the end of the stream means where it came (RFC 6120, 4.9.3).
    fn ended(&mut self, condition: String, state: &State) -> Failure {
        let asked = !self.early.is_empty();
        let slower = match state {
            State::Entering(attempt) => {
                let account = self.errands.facts_mut().account_mut(&self.jid);
                self.entrance.disliked(account, attempt, asked, &condition)
            }
            // COMPAT: jabberd2 does so, and a login that comes in one piece with the header it never answers.
            State::Bind if asked && entrance::is_dislike(&condition) => Some(Pace::FeaturesFirst),
            _ => None,
        };
        if let Some(pace) = slower {
            return self.too_hasty(pace);
        }
        let in_login = !matches!(state, State::Bind | State::Open | State::Securing | State::Ended);
        match condition.as_str() {
            "conflict" => Failure::Conflict,
            "not-authorized" | "policy-violation" if in_login => Failure::LoginRefused(condition),
            "host-unknown" | "invalid-namespace" if in_login => Failure::NameUnknown(condition),
            _ => Failure::StreamEnded(condition),
        }
    }

    fn too_hasty(&mut self, pace: Pace) -> Failure {
        self.errands.facts_mut().account_mut(&self.jid).slow_down(pace);
        Failure::TooHasty
    }

    fn stanza(&mut self, element: Element, now: Instant) {
        self.has_heard |= element.has_ns(ns::CLIENT);
        let address = match element.attr("to").map(Jid::new) {
            None => Address::Ours,
            Some(Ok(to)) if to.to_bare() != self.jid => return,
            Some(Ok(to)) => self.errands.address(&to),
            Some(Err(_)) => return,
        };
        self.errands.hear(hear(element), address, now, &mut self.out);
    }
}

fn entering(attempt: Attempt) -> State {
    State::Entering(Box::new(attempt))
}

/// What the configuration gives us to prove who we are.
fn proofs(identity: &Identity) -> Proofs {
    match (&identity.client_certificate, identity.password.reveal()) {
        (None, _) => Proofs::Password,
        (Some(_), "") => Proofs::Certificate,
        (Some(_), _) => Proofs::Both,
    }
}

fn start_tls(element: &Element) -> Result<State, Failure> {
    match (element.name(), element.ns().as_str()) {
        ("features", ns::STREAM) if element.has_child("starttls", ns::TLS) => Ok(State::StartTls),
        ("features", ns::STREAM) | ("failure", ns::TLS) => Err(Failure::NoTls),
        ("proceed", ns::TLS) => Ok(State::Securing),
        _ => Err(Failure::Unexpected("TLS")),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}
