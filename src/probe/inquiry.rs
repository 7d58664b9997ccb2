//! One question about one JID: what has come in for it, when that is enough, and what it means. Servers differ in what
//! they leave unsaid, so the rules are a table of evidence; nothing here touches the stream, and the time is an argument.
//!
//! A presence beats everything else. Prosody and Openfire send every presence before the pong, so there the pong ends
//! the wait; elsewhere a grace follows it that each presence restarts. What silence means then depends on the server.

use std::time::Duration;

use jid::BareJid;
use tokio::time::Instant;
use xmpp_parsers::minidom::Element;

use super::errand::Roster;
use super::stanza::{Condition, made_by_server};
use super::watch::CLIENTS;
use super::{Answer, Failure, Why, ns};
use crate::config::ServerKind;
use crate::presence::{Presence, Resource, Rule, State, Texts};
use crate::viewers::Viewers;

/// How long presences may come in after everything else has, on servers that do not keep the order.
pub const GRACE: Duration = Duration::from_millis(200);
/// How long an IQ answer is waited for once there is a sign of life. COMPAT: one ejabberd drops every IQ of a
/// component while mod_privilege is on.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// An IQ of ours and what became of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Reply<T> {
    #[default]
    NotAsked,
    Awaited,
    Result(T),
    Error(Condition),
}

impl<T> Reply<T> {
    pub fn is_awaited(&self) -> bool {
        matches!(self, Reply::Awaited)
    }

    pub fn is_result(&self) -> bool {
        matches!(self, Reply::Result(_))
    }

    fn is_unreachable(&self) -> bool {
        matches!(self, Reply::Error(Condition::Unreachable))
    }

    /// Takes the outcome of an IQ, unless it was answered already.
    pub fn take(&mut self, outcome: Result<T, Condition>) {
        if self.is_awaited() {
            *self = outcome.map_or_else(Reply::Error, Reply::Result);
        }
    }
}

/// What `jabber:iq:last` said (XEP-0012).
#[derive(Clone, Debug, PartialEq)]
pub struct Last {
    /// `None` where the server sent no number.
    seconds: Option<u64>,
    text: String,
}

impl Last {
    /// Online by this account; on ejabberd also without anything to show.
    fn is_now(&self) -> bool {
        self.seconds == Some(0) && self.text.is_empty()
    }
}

/// What `disco#info` said the target is (XEP-0030).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// A person's account. Most servers say so only to those who have consent (XEP-0030, 8).
    Account,
    /// A component, server or room.
    Service,
    /// What came says neither.
    Unclear,
}

impl Sort {
    /// COMPAT: a room is asked about like a person, since its address looks like one; its identity tells.
    pub fn of(payload: &Element) -> Sort {
        let identities = payload.children().filter(|child| child.is("identity", ns::DISCO_INFO));
        match identities.filter_map(|identity| identity.attr("category")).collect::<Vec<_>>().as_slice() {
            [] => Sort::Unclear,
            categories if categories.contains(&"account") => Sort::Account,
            _ => Sort::Service,
        }
    }
}

/// Which of the IQs sent along with the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Ping to the target's domain.
    Ping,
    /// Ping to our own server: proof that it is alive while the target is silent.
    Home,
    Last,
    Info,
    /// The person's roster, by XEP-0356.
    Roster,
}

/// What the person's roster says.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// `None` where something else came in its place.
    pub lets_us_see: Option<bool>,
    /// Where they were wanted, and there was room for them.
    pub viewers: Option<Viewers>,
}

/// What is known from elsewhere when an inquiry is judged.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// The software of the target's server; `None` while its answer is awaited.
    pub kind: Option<ServerKind>,
    /// The server answers our probes at all.
    pub heeded: bool,
    /// This person is known to have consented.
    pub consented: bool,
    pub rule: Rule,
    pub now: Instant,
    /// The time of day then, in seconds since 1970.
    pub epoch_s: u64,
}

/// What was written for a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// Nothing yet, or nothing that counts.
    Unasked,
    /// All that it needs.
    Out,
    /// Nothing: it goes with another one.
    Follows,
}

/// A question under way.
#[derive(Clone, Debug)]
pub struct Inquiry {
    pub jid: BareJid,
    /// Whether the answer tells who may see this person.
    pub viewers: Roster,
    /// The target's host belongs to our own server, so "cannot be reached" means that it is not running.
    own_host: bool,
    /// The answer must be out by then.
    until: Instant,
    course: Course,
    resources: Vec<Resource>,
    /// What came for our identity and not for this session.
    pushed: Vec<Resource>,
    offline: Option<Presence>,
    refused: bool,
    /// We have asked for consent, nobody has answered, and so nobody was probed.
    pending: bool,
    error: Option<Condition>,
    pub ping: Reply<()>,
    pub home: Reply<()>,
    pub last: Reply<Last>,
    pub info: Reply<Sort>,
    pub roster: Reply<Listed>,
    /// The roster is not asked for, since it has ended a session before.
    unreadable: bool,
    /// When the last piece of evidence came in.
    heard: Option<Instant>,
    /// When the first sign of life came in.
    alive: Option<Instant>,
}

impl Inquiry {
    pub fn new(jid: BareJid, viewers: Roster, own_host: bool, until: Instant) -> Inquiry {
        Inquiry {
            jid,
            viewers,
            own_host,
            until,
            course: Course::Unasked,
            resources: Vec::new(),
            pushed: Vec::new(),
            offline: None,
            refused: false,
            pending: false,
            error: None,
            ping: Reply::NotAsked,
            home: Reply::NotAsked,
            last: Reply::NotAsked,
            info: Reply::NotAsked,
            roster: Reply::NotAsked,
            unreadable: false,
            heard: None,
            alive: None,
        }
    }

    /// Nothing has been heard: the same question is put anew.
    pub fn begin_again(&mut self) {
        let again = Inquiry::new(self.jid.clone(), self.viewers, self.own_host, self.until);
        *self = Inquiry { unreadable: self.unreadable, ..again };
    }

    /// The same question, which is out for `other` already: what has come for that one has come for this one.
    pub fn follow(&mut self, other: &Inquiry) {
        *self = Inquiry { until: self.until, course: Course::Follows, ..other.clone() };
    }

    /// It is written now.
    pub fn put(&mut self) {
        self.course = Course::Out;
    }

    /// It is written now, but for the probe.
    pub fn put_without_probe(&mut self) {
        (self.course, self.pending) = (Course::Out, true);
    }

    /// He may be probed after all, and it is to be put once more: until then it has no answer, and nobody may wait for one.
    /// What he is has been said, or is still to be asked.
    pub fn release(&mut self) {
        (self.course, self.pending, self.ping) = (Course::Unasked, false, Reply::Awaited);
        if !self.info.is_result() {
            self.info = Reply::NotAsked;
        }
    }

    /// It was put for itself, and whoever asks the same may wait for its answer. Not for that of one who waits himself:
    /// what was lost on its way would never be asked again.
    pub fn is_out(&self) -> bool {
        self.course == Course::Out && !self.pending
    }

    /// What it asks: who agrees in that asks the same.
    pub fn subject(&self) -> (&BareJid, Roster) {
        (&self.jid, self.viewers)
    }

    /// When its time is over.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// A person has an account somewhere; everything else (component, server) is a host.
    pub fn is_person(&self) -> bool {
        self.jid.node().is_some()
    }

    pub fn available(&mut self, resource: Resource, now: Instant) {
        self.sign(now);
        self.resources.retain(|known| known.name != resource.name);
        self.resources.truncate(CLIENTS - 1);
        self.resources.push(resource);
    }

    /// A presence that went to our identity as a whole. It changes what a client has shown to this session. COMPAT:
    /// Prosody with XEP-0356 sends those of everybody, consent or not; alone they do not count.
    pub fn pushed(&mut self, resource: Resource, now: Instant) {
        self.sign(now);
        if let Some(known) = self.resources.iter_mut().find(|known| known.name == resource.name) {
            *known = resource;
            return;
        }
        self.pushed.retain(|known| known.name != resource.name);
        self.pushed.truncate(CLIENTS - 1);
        self.pushed.push(resource);
    }

    /// The presences that count. COMPAT: with XEP-0356 ejabberd too sends us changes of people without consent. Answers
    /// to a probe go to the session that asked (measured: Prosody, ejabberd, jabberd2); anything else counts only beside
    /// one of them, or a result of XEP-0012, which prove consent, on Openfire, and for a host, which needs nobody's.
    fn seen(&self, here: Circumstances) -> Vec<Resource> {
        let all = match here.kind {
            _ if !self.is_person() => true,
            None => false,
            Some(ServerKind::Openfire) => true,
            Some(ServerKind::Prosody | ServerKind::Ejabberd | ServerKind::Other) => self.shows_consent(here),
        };
        let pushed = self.pushed.iter().filter(|pushed| self.resources.iter().all(|known| known.name != pushed.name));
        self.resources.iter().chain(pushed.filter(|_| all)).cloned().collect()
    }

    /// `name` is the resource that left, empty for the bare JID. COMPAT: where nobody was probed, the latter is Prosody's
    /// receipt for our request for consent, even to somebody who does not exist.
    pub fn unavailable(&mut self, name: &str, presence: Presence, now: Instant) {
        self.sign(now);
        if self.pending && name.is_empty() {
            return;
        }
        let before = self.resources.len();
        self.resources.retain(|known| known.name != name);
        self.pushed.retain(|known| known.name != name);
        if name.is_empty() || self.resources.len() < before {
            self.offline = Some(presence);
        }
    }

    /// Only a person has a roster to refuse by; many a component says this to everybody.
    pub fn unsubscribed(&mut self, now: Instant) {
        self.sign(now);
        if self.is_person() {
            self.refused = true;
            self.resources.clear();
            self.pushed.clear();
        }
    }

    pub fn presence_error(&mut self, condition: Condition, now: Instant) {
        self.sign(now);
        self.error = Some(condition);
        self.refused |= condition == Condition::Forbidden && self.is_person();
    }

    /// The person's roster came back: `None` where nobody lets us read it.
    pub fn listed(&mut self, listed: Option<Listed>, now: Instant) {
        self.sign(now);
        self.roster.take(listed.ok_or(Condition::Forbidden));
    }

    /// Whether the roster is left alone. Then nobody is in it.
    pub fn set_unreadable(&mut self, unreadable: bool) {
        self.unreadable = unreadable;
    }

    pub fn is_unreadable(&self) -> bool {
        self.unreadable
    }

    /// Who may see this person was asked, and is not known.
    pub fn lacks_viewers(&self) -> bool {
        let is_unread = self.roster.is_awaited() || self.roster.is_result();
        self.viewers == Roster::Wanted && is_unread && self.viewers().is_none()
    }

    /// Bytes that the roster takes until the answer is out.
    pub fn roster_bytes(&self) -> usize {
        self.viewers().map_or(0, |viewers| viewers.bytes())
    }

    /// Who may see this person, as far as that was wanted and read.
    fn viewers(&self) -> Option<Viewers> {
        match &self.roster {
            _ if self.unreadable => (self.viewers == Roster::Wanted).then(Viewers::default),
            Reply::Result(listed) => listed.viewers.clone(),
            Reply::NotAsked | Reply::Awaited | Reply::Error(_) => None,
        }
    }

    /// Whether this person lets us see him, by his roster. Prosody's silence tells it as well, and in order, so that
    /// there the roster is read for others only.
    fn consent_by_roster(&self, here: Circumstances) -> Option<bool> {
        match &self.roster {
            Reply::Result(listed) if here.kind != Some(ServerKind::Prosody) => listed.lets_us_see,
            _ => None,
        }
    }

    /// The server has answered for the roster, be there such a person or not.
    fn roster_spoke(&self, here: Circumstances) -> bool {
        self.roster.is_result() && here.kind != Some(ServerKind::Prosody)
    }

    /// An IQ of ours came back.
    pub fn reply(&mut self, slot: Slot, outcome: Result<Option<&Element>, Condition>, now: Instant) {
        self.sign(now);
        match slot {
            Slot::Ping => self.ping.take(outcome.map(drop)),
            Slot::Home => self.home.take(outcome.map(drop)),
            Slot::Last => self.last.take(outcome.map(last)),
            Slot::Info => self.info.take(outcome.map(|payload| payload.map_or(Sort::Unclear, Sort::of))),
            // See `listed`: whoever knows who we are reads it.
            Slot::Roster => {}
        }
    }

    fn sign(&mut self, now: Instant) {
        self.heard = Some(now);
        self.alive.get_or_insert(now);
    }

    /// XEP-0030 or XEP-0012 was answered, which servers do only for those who have consent.
    pub fn is_answered(&self) -> bool {
        self.info.is_result() || self.last.is_result()
    }

    /// Its time is over.
    pub fn is_overdue(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// What is still out is no longer waited for.
    pub fn is_given_up(&self, now: Instant) -> bool {
        self.alive.is_some_and(|alive| alive + PATIENCE <= now)
    }

    /// True once the server itself has shown that this person lets us see him.
    pub fn proves_consent(&self) -> bool {
        self.is_person() && !self.refused && (!self.resources.is_empty() || self.last.is_result())
    }

    /// The same, where the server's kind is known. COMPAT: to those who have consent Prosody says that somebody is offline;
    /// from the others it hides him. Without mod_lastactivity, which Debian leaves off, that is all it says.
    pub fn shows_consent(&self, here: Circumstances) -> bool {
        let is_told = here.kind == Some(ServerKind::Prosody) && self.offline.is_some() && !self.refused;
        self.is_person() && is_told || self.proves_consent()
    }

    /// This person does not let us see him, and nothing that came later says otherwise.
    pub fn is_refused(&self) -> bool {
        self.refused && self.resources.is_empty()
    }

    /// The answer, or when to judge again.
    pub fn verdict(&self, here: Circumstances) -> Result<Result<Answer, Failure>, Instant> {
        // Where probes for somebody who does not exist stay silent, this one was withdrawn just now.
        if self.is_refused() {
            return Ok(Ok(self.answer(Presence::bare(State::Forbidden), Why::Refused)));
        }
        let wait = self.wait(here);
        if here.now < wait {
            return Err(wait);
        }
        let judged = match self.is_person() {
            true => self.judge_person(here).map(|answer| Answer { settled: self.is_settled(here), ..answer }),
            false => self.judge_host(here),
        };
        match judged {
            // Nobody is given up for silent before the deadline.
            Err(Failure::Silent) if here.now < self.until => Err(self.until),
            judged => Ok(judged),
        }
    }

    /// Somebody who does not exist would be answered for by now. A presence alone is answered for earlier.
    fn is_settled(&self, here: Circumstances) -> bool {
        let roster_spoke = self.roster_spoke(here) && !self.lacks_viewers();
        self.is_complete(here) || roster_spoke || self.unreachable()
    }

    /// Everything that was asked has its answer.
    fn is_complete(&self, here: Circumstances) -> bool {
        let person = self.last.is_awaited() || self.roster.is_awaited();
        let awaited = person || self.info.is_awaited() || self.ping.is_awaited();
        let home = self.home.is_awaited() && !self.is_person();
        !awaited && !home && here.kind.is_some()
    }

    /// Until when more evidence is worth waiting for.
    fn wait(&self, here: Circumstances) -> Instant {
        let settled = self.is_complete(here);
        let ordered = matches!(here.kind, Some(ServerKind::Prosody | ServerKind::Openfire)) || !self.is_person();
        let wait = match (self.heard, self.alive) {
            (Some(_), Some(alive)) if self.unreachable() => alive,
            (Some(heard), Some(_)) if settled && ordered => heard,
            (Some(heard), Some(_)) if settled => heard + GRACE,
            // The pong of our own server says nothing about the target. Without a roster that is to tell who may know,
            // nobody would be told.
            (Some(heard), Some(alive)) if self.target_spoke(here) && !self.lacks_viewers() => {
                (alive + PATIENCE).max(heard + GRACE)
            }
            _ => self.until,
        };
        wait.min(self.until)
    }

    /// Anything came in that only the target or its server can have sent. A host's refused probe may be the word of
    /// our own server, and is no reason to give up on the host.
    fn target_spoke(&self, here: Circumstances) -> bool {
        let presence = !self.resources.is_empty() || self.offline.is_some();
        match self.is_person() {
            // The pong alone says nothing about a person: the other answers may only be slow.
            // COMPAT: ejabberd 24 with mod_privilege answers a component nothing but this.
            true => presence || self.roster_spoke(here),
            false => presence || self.ping.is_result() || self.info.is_result(),
        }
    }

    /// The target's server is there and has dealt with everything before the ping. A refused ping says so too: many
    /// have no XEP-0199.
    fn server_spoke(&self, here: Circumstances) -> bool {
        let pong = matches!(self.ping, Reply::Result(()) | Reply::Error(_)) && !self.ping.is_unreachable();
        pong || self.roster_spoke(here)
    }

    fn judge_person(&self, here: Circumstances) -> Result<Answer, Failure> {
        let resources = self.seen(here);
        if let Some(presence) = Presence::best(&resources, here.rule) {
            return Ok(Answer { resources, ..self.answer(presence, Why::Present) });
        }
        if let Some(said) = &self.offline {
            let last = self.by_last_activity(here);
            let texts = if said.texts.is_empty() { last.texts } else { said.texts.clone() };
            let presence = Presence { since: said.since.or(last.since), ..Presence::offline(texts) };
            return Ok(self.answer(presence, Why::SaidOffline));
        }
        if self.unreachable() {
            return self.not_reached(here);
        }
        if self.info == Reply::Result(Sort::Service) {
            return Ok(self.answer(Presence::bare(State::Available), Why::Service));
        }
        match &self.last {
            // The server has him online, and yet his presence did not come: he is not offline, nobody has looked.
            Reply::Result(last) if last.is_now() && !here.heeded => return Err(Failure::NotHeeded),
            Reply::Result(_) => return Ok(self.answer(self.by_last_activity(here), Why::LastActivity)),
            _ => {}
        }
        self.judge_silence(here)
    }

    fn judge_silence(&self, here: Circumstances) -> Result<Answer, Failure> {
        let no = |why| Ok(self.answer(Presence::bare(State::Forbidden), why));
        let kind = here.kind.unwrap_or(ServerKind::Other);
        let offline = || Ok(self.answer(Presence::offline(Texts::default()), Why::Silence(kind)));
        match kind {
            _ if self.error.is_some() || self.info == Reply::Error(Condition::NotFound) => no(Why::NotFound),
            _ if !self.server_spoke(here) => Err(Failure::Silent),
            _ if self.pending => no(Why::Pending),
            // Openfire refuses XEP-0012 to everybody, and a probe with more than silence.
            ServerKind::Openfire if here.heeded => offline(),
            ServerKind::Openfire => Err(Failure::NotHeeded),
            _ if self.last == Reply::Error(Condition::Forbidden) => no(Why::NoConsent(kind)),
            ServerKind::Prosody => no(Why::Silence(kind)),
            _ if self.consent_by_roster(here) == Some(false) => no(Why::NoConsent(kind)),
            _ if self.consent_by_roster(here) == Some(true) => offline(),
            // XEP-0030, 8: ejabberd answers it to those who have consent, and to nobody else. COMPAT: jabberd2 to all.
            ServerKind::Ejabberd if self.info == Reply::Result(Sort::Account) => offline(),
            ServerKind::Ejabberd if matches!(self.info, Reply::Error(_)) => no(Why::NoConsent(kind)),
            _ if here.consented => offline(),
            _ => no(Why::Silence(kind)),
        }
    }

    /// A host needs nobody's consent: any result means that it is there, and its silence that it is not.
    fn judge_host(&self, here: Circumstances) -> Result<Answer, Failure> {
        let resources = self.seen(here);
        if let Some(presence) = Presence::best(&resources, here.rule) {
            return Ok(Answer { resources, ..self.answer(presence, Why::Service) });
        }
        if self.ping.is_result() || self.info.is_result() {
            return Ok(self.answer(Presence::bare(State::Available), Why::Service));
        }
        if self.unreachable() {
            return self.not_reached(here);
        }
        if self.info == Reply::Error(Condition::NotFound) {
            return Ok(self.answer(Presence::bare(State::Forbidden), Why::NotFound));
        }
        if self.alive.is_none() {
            return Err(Failure::Silent);
        }
        Ok(self.answer(Presence::offline(Texts::default()), Why::NotRunning))
    }

    fn unreachable(&self) -> bool {
        let iqs = self.ping.is_unreachable() || self.info.is_unreachable() || self.last.is_unreachable();
        self.error == Some(Condition::Unreachable) || iqs
    }

    /// Nothing runs under a name of our own server. A host is offline then, and so is a person who has consented;
    /// anybody else looks like all others who have not, since nobody there may be told from nobody at all.
    fn not_reached(&self, here: Circumstances) -> Result<Answer, Failure> {
        match self.own_host {
            true if !self.is_person() || here.consented => {
                Ok(self.answer(Presence::offline(Texts::default()), Why::NotRunning))
            }
            true => Ok(self.answer(Presence::bare(State::Forbidden), Why::NotRunning)),
            false => Err(Failure::RemoteUnreachable),
        }
    }

    /// Somebody who is not there: his last words and since when. Not for `seconds='0'` without a word: that is an
    /// account without a presence to show, which may be hiding.
    fn by_last_activity(&self, here: Circumstances) -> Presence {
        let mut presence = Presence::bare(State::Offline);
        let Reply::Result(last) = &self.last else { return presence };
        if !made_by_server(&last.text) {
            presence.texts.insert("", &last.text);
        }
        presence.since = last.seconds.filter(|_| !last.is_now()).and_then(|ago_s| here.epoch_s.checked_sub(ago_s));
        presence
    }

    fn answer(&self, presence: Presence, why: Why) -> Answer {
        Answer { presence, why, resources: Vec::new(), viewers: self.viewers(), settled: true }
    }
}

fn last(payload: Option<&Element>) -> Last {
    let seconds = payload.and_then(|query| query.attr("seconds")).and_then(|seconds| seconds.parse().ok());
    Last { seconds, text: payload.map(Element::text).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTIL_MS: u64 = 5000;
    const EPOCH_S: u64 = 1_000_000;

    /// One piece of evidence.
    #[derive(Clone, Debug)]
    enum Came {
        Here(&'static str, State),
        Gone(&'static str, &'static str),
        Unsubscribed,
        Error(Condition),
        Pong,
        NoPong(Condition),
        Home,
        Last(&'static str),
        NoLast(Condition),
        Info(&'static str),
        NoInfo(Condition),
        /// XEP-0030 was not asked for.
        Uninformed,
        Roster(bool),
    }
    use Came::*;

    fn info(category: &str) -> Element {
        let text = format!(
            "<query xmlns='http://jabber.org/protocol/disco#info'><identity category='{category}' type='x'/></query>"
        );
        text.parse().expect("XML")
    }

    fn bob() -> BareJid {
        BareJid::new("bob@example.com").expect("a bare JID")
    }

    fn texts(text: &str) -> Texts {
        let mut texts = Texts::default();
        texts.insert("", text);
        texts
    }

    impl Came {
        fn tell(self, inquiry: &mut Inquiry, now: Instant) {
            match self {
                Here(name, state) => {
                    let resource =
                        Resource { name: name.into(), state, priority: 0, texts: texts(name), stamp: None, idle: None };
                    inquiry.available(resource, now);
                }
                Gone(name, text) => inquiry.unavailable(name, Presence::offline(texts(text)), now),
                Unsubscribed => inquiry.unsubscribed(now),
                Error(condition) => inquiry.presence_error(condition, now),
                Pong => inquiry.reply(Slot::Ping, Ok(None), now),
                NoPong(condition) => inquiry.reply(Slot::Ping, Err(condition), now),
                Home => inquiry.reply(Slot::Home, Ok(None), now),
                Last(text) => {
                    let mut query = Element::bare("query", ns::LAST);
                    query.append_text(text);
                    inquiry.reply(Slot::Last, Ok(Some(&query)), now);
                }
                NoLast(condition) => inquiry.reply(Slot::Last, Err(condition), now),
                Info(category) => inquiry.reply(Slot::Info, Ok(Some(&info(category))), now),
                NoInfo(condition) => inquiry.reply(Slot::Info, Err(condition), now),
                Uninformed => inquiry.info = Reply::NotAsked,
                Roster(lets_us_see) => {
                    inquiry.roster = Reply::Awaited;
                    let lets_us_see = Some(lets_us_see);
                    inquiry.listed(Some(Listed { lets_us_see, viewers: Some(Viewers::default()) }), now);
                }
            }
        }
    }

    /// What an inquiry comes to: state, text, when in ms after the last evidence; or the failure.
    type Outcome = Result<(State, String, u64), Failure>;

    fn judge(jid: &str, kind: Option<ServerKind>, consented: bool, evidence: &[Came]) -> Outcome {
        let start = Instant::now();
        let until = start + Duration::from_millis(UNTIL_MS);
        let jid = BareJid::new(jid).expect("a bare JID");
        let mut inquiry = Inquiry::new(jid, super::Roster::Wanted, true, until);
        (inquiry.ping, inquiry.info) = (Reply::Awaited, Reply::Awaited);
        match inquiry.is_person() {
            true => inquiry.last = Reply::Awaited,
            false => inquiry.home = Reply::Awaited,
        }
        evidence.iter().cloned().for_each(|came| came.tell(&mut inquiry, start));
        let mut now = start;
        loop {
            match inquiry.verdict(Circumstances {
                kind,
                heeded: true,
                consented,
                rule: Rule::MostAvailable,
                now,
                epoch_s: EPOCH_S,
            }) {
                Ok(outcome) => {
                    let after = (now - start).as_millis() as u64;
                    return outcome.map(|answer| {
                        let text = answer.presence.texts.choose(&[]).unwrap_or("").to_owned();
                        (answer.presence.state, text, after)
                    });
                }
                Err(later) => {
                    assert!(later > now && later <= until, "an inquiry waits for something, and not for ever");
                    now = later;
                }
            }
        }
    }

    /// Evidence from the servers as it was measured, and what it must come to.
    #[test]
    fn persons_by_server() {
        use ServerKind::{Ejabberd, Openfire, Other, Prosody};
        use State::*;
        let no = Condition::Forbidden;
        let nothing = Condition::Other;
        let all_no = [NoLast(no), NoInfo(nothing), Pong];
        for (kind, evidence, state, text, after_ms) in [
            (Prosody, vec![Here("r", Away), NoLast(nothing), Info("account"), Pong], Away, "r", 0),
            (Prosody, vec![Gone("", ""), Last("bye"), Info("account"), Pong], Offline, "bye", 0),
            (Prosody, vec![Gone("", "gone"), Last("bye"), Info("account"), Pong], Offline, "gone", 0),
            (Prosody, vec![Gone("", ""), Last("Disconnected: closed"), Info("account"), Pong], Offline, "", 0),
            (Prosody, all_no.to_vec(), Forbidden, "", 0),
            (Prosody, vec![NoLast(nothing), NoInfo(nothing), Pong], Forbidden, "", 0),
            (Prosody, vec![Unsubscribed], Forbidden, "", 0),
            (
                Prosody,
                vec![NoInfo(nothing), Error(nothing), NoLast(nothing), Info("conference"), Pong],
                Forbidden,
                "",
                0,
            ),
            (Prosody, vec![Error(nothing), NoLast(nothing), Info("conference"), Pong], Available, "", 0),
            (Ejabberd, vec![Pong, Last(""), Info("account"), Here("r", Chat)], Chat, "r", 200),
            (Ejabberd, vec![Pong, Last("see you"), Info("account")], Offline, "see you", 200),
            (Ejabberd, vec![Pong, Last(""), Info("account")], Offline, "", 200),
            (Ejabberd, vec![Pong, Last("Stream reset by peer"), Info("account")], Offline, "", 200),
            (Ejabberd, all_no.to_vec(), Forbidden, "", 200),
            (Ejabberd, vec![NoLast(nothing), Info("conference"), Pong], Available, "", 200),
            (Ejabberd, vec![NoLast(nothing), NoInfo(Condition::NotFound), Pong], Forbidden, "", 200),
            (Openfire, all_no.to_vec(), Offline, "", 0),
            (Openfire, vec![Here("r", Dnd), NoLast(no), NoInfo(nothing), Pong], Dnd, "r", 0),
            (Openfire, vec![Error(no)], Forbidden, "", 0),
            (Other, vec![NoLast(nothing), NoInfo(nothing), Pong], Forbidden, "", 200),
            (Other, vec![Error(Condition::Unreachable)], Forbidden, "", 0),
            (Other, vec![Error(Condition::NotFound), NoLast(nothing), NoInfo(nothing), Pong], Forbidden, "", 200),
        ] {
            let outcome = judge("bob@example.com", Some(kind), false, &evidence);
            assert_eq!(outcome, Ok((state, text.into(), after_ms)), "{kind:?} {evidence:?}");
        }
    }

    /// What it says to XEP-0030 changes nothing about people there, nor when the answer is ready.
    #[test]
    fn prosody_tells_the_same_of_people_without_xep_0030() {
        let (no, nothing) = (NoLast(Condition::Forbidden), NoLast(Condition::Other));
        let rows = [
            (vec![Here("r", State::Away), nothing.clone(), Pong], Info("account")),
            (vec![Here("r", State::Away), Last("brb"), Pong], Info("account")),
            (vec![Here("r", State::Away), Gone("r", "bye"), Pong], Info("account")),
            (vec![Gone("", ""), Last("bye"), Pong], Info("account")),
            (vec![Gone("", "gone"), nothing.clone(), Pong], Info("account")),
            (vec![Gone("", ""), nothing.clone()], Info("account")),
            (vec![no, Pong], NoInfo(Condition::Other)),
            (vec![nothing.clone(), Pong], NoInfo(Condition::Other)),
            (vec![nothing.clone(), Pong], NoInfo(Condition::NotFound)),
            (vec![nothing.clone(), NoPong(Condition::Other)], NoInfo(Condition::Other)),
            (vec![nothing, Roster(true), Pong], NoInfo(Condition::Other)),
            (vec![Unsubscribed], NoInfo(Condition::Other)),
            (vec![Error(Condition::Unreachable)], NoInfo(Condition::Unreachable)),
            (vec![NoPong(Condition::Unreachable)], NoInfo(Condition::Unreachable)),
        ];
        for ((rest, info), consented) in rows.iter().flat_map(|row| [(row, false), (row, true)]) {
            let [asked, unasked] = [info, &Uninformed].map(|first| {
                let evidence = [std::slice::from_ref(first), rest].concat();
                judge("bob@example.com", Some(ServerKind::Prosody), consented, &evidence)
            });
            assert_eq!(asked, unasked, "{rest:?} {consented}");
        }
    }

    #[test]
    fn silence_is_offline_only_where_consent_is_known() {
        use ServerKind::{Ejabberd, Other, Prosody};
        use State::{Forbidden, Offline};
        let silent = [NoLast(Condition::Other), NoInfo(Condition::Other), Pong];
        let known = [NoLast(Condition::Other), Info("account"), Pong];
        let listed = [NoLast(Condition::Other), NoInfo(Condition::Other), Roster(true), Pong];
        let unlisted = [NoLast(Condition::Other), NoInfo(Condition::Other), Roster(false), Pong];
        for (kind, consented, evidence, state, after_ms) in [
            (Other, true, &silent[..], Offline, 200),
            (Other, false, &silent, Forbidden, 200),
            // ejabberd has just said that the consent of yesterday is gone, or that he has blocked us.
            (Ejabberd, true, &silent, Forbidden, 200),
            (Ejabberd, false, &known, Offline, 200),
            (Other, false, &known, Forbidden, 200),
            (Ejabberd, false, &listed, Offline, 200),
            (Ejabberd, true, &unlisted, Forbidden, 200),
            (Prosody, true, &silent, Forbidden, 0),
            (Prosody, true, &listed, Forbidden, 0),
        ] {
            let outcome = judge("bob@example.com", Some(kind), consented, evidence);
            assert_eq!(outcome, Ok((state, String::new(), after_ms)), "{kind:?} {consented} {evidence:?}");
        }
    }

    /// Nobody may tell from the answer that a person is not there, and hosts are no secret.
    #[test]
    fn what_does_not_run_below_our_server() {
        let gone = [Error(Condition::Unreachable)];
        for (jid, consented, state) in [
            ("bob@nosuch.example.com", false, State::Forbidden),
            ("bob@nosuch.example.com", true, State::Offline),
            ("nosuch.example.com", false, State::Offline),
        ] {
            let outcome = judge(jid, Some(ServerKind::Prosody), consented, &gone);
            assert_eq!(outcome, Ok((state, String::new(), 0)), "{jid} {consented}");
        }
    }

    /// There its silence tells already, and what it says of others must change nothing.
    #[test]
    fn a_roster_is_no_consent_on_prosody() {
        let rows = [Roster(true), Roster(false)].map(|roster| {
            let evidence = [NoLast(Condition::Other), NoInfo(Condition::Other), roster];
            [(Some(ServerKind::Prosody), evidence.to_vec()), (Some(ServerKind::Ejabberd), evidence.to_vec())]
        });
        let told: Vec<_> = rows
            .into_iter()
            .flatten()
            .map(|(kind, evidence)| judge("bob@example.com", kind, false, &evidence))
            .collect();
        let nobody = || String::new();
        assert_eq!(
            told,
            [
                Err(Failure::Silent),
                Ok((State::Offline, nobody(), 1000)),
                Err(Failure::Silent),
                Ok((State::Forbidden, nobody(), 1000)),
            ],
            "without a pong"
        );
    }

    #[test]
    fn any_presence_beats_any_last_activity() {
        let evidence = [Last("gone home"), Info("account"), Pong, Here("r", State::Xa)];
        let outcome = judge("bob@example.com", Some(ServerKind::Ejabberd), false, &evidence);
        assert_eq!(outcome, Ok((State::Xa, "r".into(), 200)));
    }

    #[test]
    fn a_resource_that_leaves_while_we_listen_leaves_the_others() {
        let rest = [Last(""), Info("account"), Pong];
        let kind = Some(ServerKind::Ejabberd);
        let one = [&[Here("a", State::Chat), Here("b", State::Dnd), Gone("a", "bye")], &rest[..]].concat();
        assert_eq!(judge("bob@example.com", kind, false, &one), Ok((State::Dnd, "b".into(), 200)));
        let none = [&[Here("a", State::Chat), Gone("a", "bye")], &rest[..]].concat();
        assert_eq!(judge("bob@example.com", kind, false, &none), Ok((State::Offline, "bye".into(), 200)));
        let stranger =
            [&[Gone("x", "bye")], &[NoLast(Condition::Forbidden), NoInfo(Condition::Other), Pong][..]].concat();
        assert_eq!(judge("bob@example.com", kind, false, &stranger), Ok((State::Forbidden, String::new(), 200)));
    }

    #[test]
    fn iqs_that_never_come_do_not_hold_a_presence_up() {
        let presence = [Here("r", State::Away)];
        let outcome = judge("bob@example.com", Some(ServerKind::Ejabberd), false, &presence);
        assert_eq!(outcome, Ok((State::Away, "r".into(), 1000)));
        let outcome = judge("bob@example.com", None, false, &presence);
        assert_eq!(outcome, Ok((State::Away, "r".into(), 1000)), "the server never said what it is");
        let only_pong = judge("bob@example.com", Some(ServerKind::Prosody), false, &[Pong]);
        assert_eq!(only_pong, Ok((State::Forbidden, String::new(), UNTIL_MS)), "the other answers may only be slow");
    }

    #[test]
    fn a_server_that_says_nothing_is_not_a_person_offline() {
        assert_eq!(judge("bob@example.com", Some(ServerKind::Prosody), true, &[]), Err(Failure::Silent));
        assert_eq!(judge("gateway.example.com", Some(ServerKind::Other), true, &[]), Err(Failure::Silent));
    }

    #[test]
    fn hosts() {
        use State::*;
        let (nothing, unknown) = (Condition::Other, Condition::NotFound);
        for (evidence, state, after_ms) in [
            (vec![Here("", Available), Info("server"), Pong, Home], Available, 0),
            (vec![Info("server"), Pong, Home], Available, 0),
            (vec![Error(unknown), Info("conference"), NoPong(nothing), Home], Available, 0),
            (vec![Error(Condition::Unreachable)], Offline, 0),
            (vec![NoPong(Condition::Unreachable), NoInfo(Condition::Unreachable), Home], Offline, 0),
            (vec![NoPong(unknown), NoInfo(unknown), Home], Forbidden, 0),
            (vec![Home], Offline, UNTIL_MS),
            (vec![Info("gateway"), Home], Available, 1000),
            (vec![Unsubscribed, Info("component"), Pong, Home], Available, 0),
            (vec![Error(Condition::Forbidden), Info("component"), Pong, Home], Available, 0),
        ] {
            let outcome = judge("gateway.example.com", Some(ServerKind::Other), false, &evidence);
            assert_eq!(outcome, Ok((state, String::new(), after_ms)), "{evidence:?}");
        }
    }

    /// Openfire and jabberd2 leave the probes of an account that shows itself to nobody unanswered.
    #[test]
    fn an_account_that_nobody_answers_calls_nobody_offline() {
        let now = Instant::now();
        let query = |seconds: &str, text: &str| {
            let xml = format!("<query xmlns='jabber:iq:last' seconds='{seconds}'>{text}</query>");
            Ok(xml.parse::<Element>().expect("XML"))
        };
        let offline = |text| Ok((State::Offline, text));
        for (kind, last, heeded, expected) in [
            (ServerKind::Openfire, Err(Condition::Forbidden), false, Err(Failure::NotHeeded)),
            (ServerKind::Openfire, Err(Condition::Forbidden), true, offline(None)),
            (ServerKind::Other, query("0", ""), false, Err(Failure::NotHeeded)),
            (ServerKind::Other, query("60", "bye"), false, offline(Some("bye"))),
            (ServerKind::Ejabberd, query("0", ""), true, offline(None)),
        ] {
            let jid = BareJid::new("bob@example.com").expect("a bare JID");
            let mut inquiry = Inquiry::new(jid, super::Roster::Unwanted, false, now + Duration::from_secs(5));
            (inquiry.ping, inquiry.last) = (Reply::Awaited, Reply::Awaited);
            inquiry.reply(Slot::Last, last.as_ref().map(Some).map_err(|condition| *condition), now);
            inquiry.reply(Slot::Ping, Ok(None), now);
            let here = Circumstances {
                kind: Some(kind),
                heeded,
                consented: false,
                rule: Rule::MostAvailable,
                now: now + GRACE,
                epoch_s: EPOCH_S,
            };
            let verdict = inquiry.verdict(here).expect("it is time");
            let found = verdict.as_ref().map(|answer| (answer.presence.state, answer.presence.texts.choose(&[])));
            assert_eq!(found, expected.as_ref().map(|e| *e), "{kind:?}");
        }
    }

    #[test]
    fn what_was_not_sent_to_this_session_answers_it_only_where_nobody_else_is_sent() {
        let now = Instant::now();
        use ServerKind::{Ejabberd, Openfire, Other, Prosody};
        for (kind, last, state) in [
            (Prosody, false, State::Forbidden),
            (Openfire, false, State::Dnd),
            (Ejabberd, false, State::Forbidden),
            (Ejabberd, true, State::Dnd),
            (Other, false, State::Forbidden),
            (Other, true, State::Dnd),
        ] {
            let jid = BareJid::new("bob@example.com").expect("a bare JID");
            let mut inquiry = Inquiry::new(jid, super::Roster::Unwanted, false, now + Duration::from_secs(5));
            (inquiry.ping, inquiry.last) = (Reply::Awaited, Reply::Awaited);
            let texts = Texts::default();
            inquiry.pushed(
                Resource { name: "r".into(), state: State::Dnd, priority: 0, texts, stamp: None, idle: None },
                now,
            );
            inquiry.reply(Slot::Last, if last { Ok(None) } else { Err(Condition::Forbidden) }, now);
            inquiry.reply(Slot::Ping, Ok(None), now);
            let here = Circumstances {
                kind: Some(kind),
                heeded: true,
                consented: false,
                rule: Rule::MostAvailable,
                now: now + GRACE,
                epoch_s: EPOCH_S,
            };
            let answer = inquiry.verdict(here).expect("it is time").expect("an answer");
            assert_eq!(answer.presence.state, state, "{kind:?} {last}");
        }
    }

    #[test]
    fn a_receipt_for_our_request_is_nobody_offline() {
        let now = Instant::now();
        let mut inquiry = Inquiry::new(bob(), super::Roster::Unwanted, false, now + PATIENCE);
        inquiry.put_without_probe();
        (inquiry.ping, inquiry.info) = (Reply::Awaited, Reply::Awaited);
        inquiry.unavailable("", Presence::bare(State::Offline), now);
        inquiry.reply(Slot::Info, Err(Condition::Other), now);
        inquiry.reply(Slot::Ping, Ok(None), now);
        let kind = Some(ServerKind::Prosody);
        let here =
            Circumstances { kind, heeded: true, consented: false, rule: Rule::MostAvailable, now, epoch_s: EPOCH_S };
        let answer = inquiry.verdict(here).expect("it is time").expect("an answer");
        assert_eq!((answer.presence.state, answer.why), (State::Forbidden, Why::Pending));
    }

    #[test]
    fn a_remote_server_out_of_reach_is_not_somebody_offline() {
        let now = Instant::now();
        let jid = BareJid::new("bob@remote.example").expect("a bare JID");
        let mut inquiry = Inquiry::new(jid, super::Roster::Unwanted, false, now + Duration::from_secs(5));
        inquiry.presence_error(Condition::Unreachable, now);
        let here = Circumstances {
            kind: None,
            heeded: true,
            consented: true,
            rule: Rule::MostAvailable,
            now,
            epoch_s: EPOCH_S,
        };
        assert_eq!(inquiry.verdict(here), Ok(Err(Failure::RemoteUnreachable)));
    }

    #[test]
    fn since_when_somebody_is_gone() {
        let now = Instant::now();
        let here = Circumstances {
            kind: Some(ServerKind::Prosody),
            heeded: true,
            consented: false,
            rule: Rule::MostAvailable,
            now,
            epoch_s: EPOCH_S,
        };
        let query = |attribute: &str, text: &str| {
            let xml = format!("<query xmlns='jabber:iq:last' {attribute}>{text}</query>");
            xml.parse::<Element>().expect("XML")
        };
        for (said, last, since) in [
            (None, query("seconds='60'", ""), Some(EPOCH_S - 60)),
            (None, query("seconds='0'", "bye"), Some(EPOCH_S)),
            (None, query("seconds='0'", ""), None),
            (None, query("seconds='9999999'", ""), None),
            (None, query("", "bye"), None),
            (Some(7), query("seconds='60'", ""), Some(7)),
        ] {
            let mut inquiry = Inquiry::new(bob(), super::Roster::Unwanted, false, now + PATIENCE);
            (inquiry.ping, inquiry.last) = (Reply::Awaited, Reply::Awaited);
            inquiry.unavailable("", Presence { since: said, ..Presence::bare(State::Offline) }, now);
            inquiry.reply(Slot::Last, Ok(Some(&last)), now);
            inquiry.reply(Slot::Ping, Ok(None), now);
            let answer = inquiry.verdict(here).expect("it is time").expect("an answer");
            assert_eq!(answer.presence.since, since, "{said:?} {last:?}");
        }
    }
}
