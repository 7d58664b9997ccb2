//! What servers tell without being asked, once somebody has been seen: a change of presence is passed on, so that the
//! next visitor sees it. Only about people whose consent this very session has seen proved. Prosody with XEP-0356 tells
//! about everybody, anyone may send a presence to us alone, and one client that leaves is not the person.
//! As long as his server is known to be there, and passes on what changes, nobody has to ask it about him.

use std::collections::HashMap;
use std::time::Duration;

use jid::{BareJid, Jid};
use tokio::time::Instant;

use super::{Answer, Why};
use crate::presence::{Presence, Resource, Rule, State, Texts};

/// Clients of one person that are remembered; another one takes the place of the oldest.
pub const CLIENTS: usize = 50;
/// People who are watched at most.
const LIMIT: usize = 10_000;
/// How many of them leave at once when somebody new comes: to find out whose turn it is takes a look at everybody.
const LEAVING: usize = LIMIT / 16;
/// How long a server counts as there after the last word from it, where an answer counts as fresh as long.
const ALIVE: Duration = Duration::from_secs(30);
/// How long nobody is asked about somebody of whom changes are told: what was told may have been lost on its way.
const BELIEF: Duration = Duration::from_secs(600);
/// The same where not all changes are.
const SHORT_BELIEF: Duration = Duration::from_secs(120);

/// See the module.
pub struct Watch {
    rule: Rule,
    alive: Duration,
    people: HashMap<Box<str>, Person>,
    /// The servers of those people.
    servers: HashMap<String, Server>,
}

struct Person {
    /// What is known of him, written down: as values it takes three times the memory, and many are watched of whom nobody
    /// asks again.
    known: Box<[u8]>,
    /// Until when that is taken for all there is to know.
    believed: Option<Instant>,
}

/// What his server has told.
struct Known {
    clients: Vec<Resource>,
    /// When it was asked, and nobody was there.
    absence: Option<(Presence, Why)>,
}

/// The parts of a [`Resource`], in its order and without their names.
type Written = (String, State, i8, Texts, Option<u64>, Option<u64>);

struct Server {
    heard: Instant,
    /// It answers pings, so that one can show that it is there.
    answers: bool,
}

/// Whether the server tells by itself when somebody changes, so that it need not be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    Told,
    /// Not all. COMPAT: ejabberd says nothing to somebody whom a user blocks (XEP-0191, 3.3), and nothing more about that
    /// user. Nobody says anything where a server that is not ours crashes and starts again.
    MostlyTold,
    /// Or nobody knows.
    Untold,
}

/// What is known of somebody without asking his server about him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recollection {
    /// What it would say.
    Known(Answer),
    /// The same, if a ping shows that it is there.
    Silent,
    Nothing,
}

impl Watch {
    pub fn new(rule: Rule) -> Watch {
        Watch { rule, alive: ALIVE, people: HashMap::new(), servers: HashMap::new() }
    }

    /// Nobody is answered for whose server has said nothing for longer than an answer counts as fresh.
    pub fn keep_within(&mut self, ttl: Duration) {
        self.alive = ttl.min(ALIVE);
    }

    /// A lookup has shown that this person lets us see him, with these clients.
    pub fn begin(&mut self, jid: &BareJid, answer: &Answer, changes: Changes, now: Instant) {
        if self.people.len() >= LIMIT && !self.people.contains_key(jid.as_str()) {
            self.make_room();
        }
        if self.servers.len() >= LIMIT {
            self.servers.clear();
        }
        let clients = answer.resources.clone();
        let absence = clients.is_empty().then(|| (answer.presence.clone(), answer.why));
        // Who hides may leave without a word about it.
        let absence = absence.filter(|(presence, why)| presence.since.is_some() || *why == Why::SaidOffline);
        let believed = match changes {
            Changes::Told => Some(now + BELIEF),
            Changes::MostlyTold => Some(now + SHORT_BELIEF),
            Changes::Untold => None,
        };
        let known = Known { clients, absence }.written();
        self.people.insert(jid.as_str().into(), Person { known, believed });
        let server = Server { heard: now, answers: false };
        self.servers.entry(jid.domain().to_string()).or_insert(server);
    }

    /// Of whom least is to be expected leave: those no longer believed, then those who will not be for long.
    fn make_room(&mut self) {
        let mut ends: Vec<_> = self.people.values().map(|person| person.believed).collect();
        let last = *ends.select_nth_unstable(LEAVING - 1).1;
        let mut left = 0;
        self.people.retain(|_, person| {
            let leaves = person.believed <= last && left < LEAVING;
            left += usize::from(leaves);
            !leaves
        });
    }

    /// He was seen not to let us any more.
    pub fn end(&mut self, jid: &BareJid) {
        self.people.remove(jid.as_str());
    }

    /// Something was heard about him that only his server can explain.
    pub fn doubt(&mut self, jid: &BareJid) {
        if let Some(person) = self.people.get_mut(jid.as_str()) {
            person.believed = None;
        }
    }

    /// This server cannot be reached: what its people have changed may not have come here.
    pub fn doubt_server(&mut self, domain: &str) {
        let is_there = |jid: &str| jid.rsplit_once('@').map_or(jid, |(_, host)| host) == domain;
        let there = self.people.iter_mut().filter(|(jid, _)| is_there(jid));
        there.for_each(|(_, person)| person.believed = None);
    }

    /// Not all that is told may have come here.
    pub fn doubt_everybody(&mut self) {
        self.people.values_mut().for_each(|person| person.believed = None);
    }

    /// Anything came in from this domain.
    pub fn heard(&mut self, domain: &str, now: Instant) {
        if let Some(server) = self.servers.get_mut(domain) {
            server.heard = now;
        }
    }

    /// It has answered a ping.
    pub fn answers(&mut self, domain: &str) {
        if let Some(server) = self.servers.get_mut(domain) {
            server.answers = true;
        }
    }

    /// What his server would say if it were asked now.
    pub fn recall(&self, jid: &BareJid, now: Instant) -> Recollection {
        let person = self.people.get(jid.as_str()).filter(|person| person.believed.is_some_and(|until| now < until));
        let Some(answer) = person.and_then(|person| person.known().answer(self.rule)) else {
            return Recollection::Nothing;
        };
        match self.servers.get(jid.domain().as_str()) {
            Some(server) if now.saturating_duration_since(server.heard) < self.alive => Recollection::Known(answer),
            Some(server) if server.answers => Recollection::Silent,
            _ => Recollection::Nothing,
        }
    }

    /// A client of his came, or changed what it shows. Returns what he is now.
    pub fn available(&mut self, from: &BareJid, mut resource: Resource, epoch_s: u64) -> Option<Presence> {
        let person = self.people.get_mut(from.as_str())?;
        let mut known = person.known();
        let clients = &mut known.clients;
        clients.retain(|known| known.name != resource.name);
        if clients.len() >= CLIENTS {
            clients.remove(0);
            person.believed = None;
        }
        // As servers stamp it for those who ask later. Whatever their clock says, it is newer than what was there.
        let newest = clients.iter().filter_map(|known| known.stamp).max();
        resource.stamp = resource.stamp.or(newest.max(Some(epoch_s)));
        clients.push(resource);
        person.known = known.written();
        Presence::best(&known.clients, self.rule)
    }

    /// A client of his left; a person without any is offline. What is known of his absence, only the server can say.
    pub fn unavailable(&mut self, from: &Jid, gone: &Presence) -> Option<Presence> {
        let person = self.people.get_mut(from.to_bare().as_str())?;
        let Some(left) = from.resource() else {
            person.believed = None;
            return None;
        };
        let mut known = person.known();
        let before = known.clients.len();
        known.clients.retain(|known| known.name != left.as_str());
        if known.clients.len() == before {
            return None;
        }
        if known.clients.is_empty() {
            (known.absence, person.believed) = (None, None);
        }
        person.known = known.written();
        Some(Presence::best(&known.clients, self.rule).unwrap_or_else(|| gone.clone()))
    }
}

impl Person {
    fn known(&self) -> Known {
        let read = |(name, state, priority, texts, stamp, idle): Written| Resource {
            name,
            state,
            priority,
            texts,
            stamp,
            idle,
        };
        let (clients, absence): (Vec<Written>, _) = serde_json::from_slice(&self.known).expect("it was written here");
        Known { clients: clients.into_iter().map(read).collect(), absence }
    }
}

impl Known {
    fn written(&self) -> Box<[u8]> {
        let parts = |r: &Resource| (r.name.clone(), r.state, r.priority, r.texts.clone(), r.stamp, r.idle);
        let clients: Vec<Written> = self.clients.iter().map(parts).collect();
        serde_json::to_vec(&(clients, &self.absence)).expect("strings and numbers").into()
    }

    fn answer(self, rule: Rule) -> Option<Answer> {
        let present = Presence::best(&self.clients, rule).map(|presence| (presence, Why::Present));
        let (presence, why) = present.or(self.absence)?;
        Some(Answer { presence, why, resources: self.clients, viewers: None, settled: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bob() -> BareJid {
        BareJid::new("bob@example.com").expect("a bare JID")
    }

    fn full(text: &str) -> Jid {
        Jid::new(text).expect("a JID")
    }

    fn client(name: &str, state: State) -> Resource {
        Resource { name: name.into(), state, priority: 0, texts: Texts::default(), stamp: None, idle: None }
    }

    fn watching(resources: &[Resource]) -> Watch {
        let mut watch = Watch::new(Rule::MostAvailable);
        watch.begin(&bob(), &seen(resources), Changes::Told, Instant::now());
        watch
    }

    fn seen(resources: &[Resource]) -> Answer {
        let resources = resources.to_vec();
        let (presence, why) = match Presence::best(&resources, Rule::MostAvailable) {
            Some(presence) => (presence, Why::Present),
            None => (Presence { since: Some(7), ..Presence::bare(State::Offline) }, Why::LastActivity),
        };
        Answer { presence, why, resources, viewers: None, settled: true }
    }

    fn left(watch: &mut Watch, from: &str) -> Option<State> {
        watch.unavailable(&full(from), &Presence::bare(State::Offline)).map(|presence| presence.state)
    }

    #[test]
    fn a_change_of_somebody_watched_is_told() {
        let mut watch = watching(&[]);
        let states = [State::Away, State::Chat, State::Dnd];
        let told = states.map(|state| watch.available(&bob(), client("home", state), 9).map(|p| p.state));
        assert_eq!(told, states.map(Some));
    }

    /// Prosody with XEP-0356 sends the presence of all its users, whether they consented or not.
    #[test]
    fn a_snapshot_of_everybody_shows_nobody() {
        let mut watch = watching(&[]);
        let eve = BareJid::new("eve@example.com").expect("a bare JID");
        assert_eq!(watch.available(&eve, client("home", State::Chat), 9), None);
        assert_eq!(watch.unavailable(&full("eve@example.com/home"), &Presence::bare(State::Offline)), None);
    }

    /// Anybody may send us a presence of his own, and be looked up and refused before.
    #[test]
    fn a_presence_sent_to_us_alone_shows_nobody() {
        let mut watch = watching(&[]);
        watch.end(&bob());
        assert_eq!(watch.available(&bob(), client("home", State::Chat), 9), None);
    }

    #[test]
    fn one_client_that_leaves_is_not_the_person() {
        let mut watch = watching(&[client("home", State::Chat), client("phone", State::Away)]);
        assert_eq!(left(&mut watch, "bob@example.com/tablet"), None, "it was not there");
        assert_eq!(left(&mut watch, "bob@example.com"), None, "it is no client");
        assert_eq!(left(&mut watch, "bob@example.com/home"), Some(State::Away));
        assert_eq!(left(&mut watch, "bob@example.com/phone"), Some(State::Offline));
        assert_eq!(left(&mut watch, "bob@example.com/phone"), None);
    }

    /// ejabberd says first that the consent is gone and then that the person is: he must not end as offline.
    #[test]
    fn withdrawn_and_then_unavailable_stays_withdrawn() {
        let mut watch = watching(&[client("home", State::Chat)]);
        watch.end(&bob());
        assert_eq!(left(&mut watch, "bob@example.com/home"), None);
        assert_eq!(watch.available(&bob(), client("home", State::Chat), 9), None);
    }

    #[test]
    fn nobody_has_clients_without_end() {
        let mut watch = watching(&[]);
        for number in 0..CLIENTS + 5 {
            watch.available(&bob(), client(&number.to_string(), State::Away), 9);
        }
        assert_eq!(watch.people[bob().as_str()].known().clients.len(), CLIENTS);
        assert_eq!(watch.recall(&bob(), Instant::now()), Recollection::Nothing, "one of them was forgotten");
    }

    #[test]
    fn strangers_cannot_make_it_grow() {
        let mut watch = watching(&[]);
        for number in 0..LIMIT + 5 {
            let jid = BareJid::new(&format!("u{number}@{number}.example")).expect("a bare JID");
            watch.begin(&jid, &seen(&[]), Changes::Told, Instant::now());
        }
        assert!(watch.people.len() <= LIMIT && watch.servers.len() <= LIMIT);
    }

    /// A session that lasts for ever meets more people than it can watch: those it has known for long make room.
    #[test]
    fn whoever_was_asked_about_long_ago_makes_room() {
        let (mut watch, begun) = (Watch::new(Rule::MostAvailable), Instant::now());
        let jid = |number: usize| BareJid::new(&format!("u{number}@example.com")).expect("a bare JID");
        let at = |number: usize| begun + Duration::from_millis(number as u64);
        for number in 0..LIMIT {
            watch.begin(&jid(number), &seen(&[]), Changes::Told, at(number));
        }
        watch.doubt(&jid(LIMIT - 1));
        watch.begin(&bob(), &seen(&[client("home", State::Chat)]), Changes::Told, at(LIMIT));
        let gone: Vec<_> = (0..LIMIT).filter(|number| !watch.people.contains_key(jid(*number).as_str())).collect();
        let oldest: Vec<_> = (0..LEAVING - 1).chain([LIMIT - 1]).collect();
        assert_eq!((gone, watch.people.len()), (oldest, LIMIT - LEAVING + 1));
        assert_eq!(left(&mut watch, "bob@example.com/home"), Some(State::Offline));
        // Where nobody is believed, not all of them leave at once.
        watch.doubt_everybody();
        for number in 0..2 * LEAVING {
            watch.begin(&jid(LIMIT + number), &seen(&[]), Changes::Untold, at(LIMIT));
        }
        assert!(watch.people.len() > LIMIT - LEAVING);
    }

    /// Ten thousand of them have less than two megabytes, beside the addresses.
    #[test]
    fn what_is_known_of_somebody_is_small_and_whole() {
        let mut texts = Texts::default();
        texts.insert("", "Lunch");
        let resource = Resource { texts, stamp: Some(1_700_000_000), priority: -1, ..client("home", State::Away) };
        let watch = watching(std::slice::from_ref(&resource));
        let person = &watch.people[bob().as_str()];
        assert_eq!(
            String::from_utf8_lossy(&person.known),
            r#"[[["home","away",-1,[["","Lunch"]],1700000000,null]],null]"#
        );
        assert_eq!((person.known().clients, size_of::<Person>()), (vec![resource], 32));
    }

    /// One of its people cannot be reached: what changed for the others may be lost as well.
    #[test]
    fn a_server_out_of_reach_is_doubted_for_all_of_its_people() {
        let now = Instant::now();
        let mut watch = watching(&[client("home", State::Chat)]);
        let all = ["carol@example.com", "example.com", "bob@other.example.com", "bob@example.org"];
        let all = all.map(|jid| BareJid::new(jid).expect("a bare JID"));
        all.iter().for_each(|jid| watch.begin(jid, &seen(&[]), Changes::Told, now));
        watch.doubt_server("example.com");
        watch.heard("example.com", now);
        assert_eq!(watch.recall(&bob(), now), Recollection::Nothing);
        let is_known = all.map(|jid| watch.recall(&jid, now) != Recollection::Nothing);
        assert_eq!(is_known, [false, false, true, true]);
    }

    fn known(watch: &Watch, now: Instant) -> Option<(State, Option<u64>)> {
        match watch.recall(&bob(), now) {
            Recollection::Known(answer) => Some((answer.presence.state, answer.presence.since)),
            Recollection::Silent | Recollection::Nothing => None,
        }
    }

    #[test]
    fn who_is_watched_is_known_until_he_leaves() {
        let now = Instant::now();
        let mut watch = watching(&[]);
        assert_eq!(known(&watch, now), Some((State::Offline, Some(7))));
        watch.available(&bob(), client("home", State::Dnd), 60);
        assert_eq!(known(&watch, now), Some((State::Dnd, Some(60))));
        watch.available(&bob(), client("phone", State::Away), 61);
        assert_eq!(known(&watch, now), Some((State::Away, Some(61))));
        watch.available(&bob(), client("home", State::Away), 50);
        assert_eq!(known(&watch, now), Some((State::Away, Some(61))), "a clock that was set back");
        left(&mut watch, "bob@example.com/phone");
        assert_eq!(known(&watch, now), Some((State::Away, Some(61))));
        left(&mut watch, "bob@example.com/home");
        assert_eq!(watch.recall(&bob(), now), Recollection::Nothing, "his last words are for the server to tell");
        watch.available(&bob(), client("home", State::Away), 70);
        assert_eq!(watch.recall(&bob(), now), Recollection::Nothing, "as long as it was not asked");
    }

    #[test]
    fn what_may_be_wrong_is_not_told() {
        let now = Instant::now();
        let mut untold = watching(&[]);
        untold.begin(&bob(), &seen(&[client("home", State::Chat)]), Changes::Untold, now);
        let mut doubted = watching(&[]);
        doubted.doubt(&bob());
        let mut doubtful = watching(&[]);
        doubtful.doubt_everybody();
        let mut gone = watching(&[client("home", State::Chat)]);
        assert_eq!(left(&mut gone, "bob@example.com"), None, "it is no client");
        let mut ended = watching(&[client("home", State::Chat)]);
        ended.end(&bob());
        for watch in [untold, doubted, doubtful, gone, ended] {
            assert_eq!(watch.recall(&bob(), now), Recollection::Nothing);
        }
    }

    #[test]
    fn a_server_that_says_nothing_may_be_gone() {
        let begun = Instant::now();
        let mut watch = Watch::new(Rule::MostAvailable);
        watch.begin(&bob(), &seen(&[]), Changes::Told, begun);
        let (last, late) = (begun + ALIVE - Duration::from_millis(1), begun + ALIVE);
        assert!(known(&watch, last).is_some());
        assert_eq!(watch.recall(&bob(), late), Recollection::Nothing, "it is not known to answer pings");
        watch.answers("example.com");
        assert_eq!(watch.recall(&bob(), late), Recollection::Silent);
        watch.heard("other.example", late);
        assert_eq!(watch.recall(&bob(), late), Recollection::Silent);
        watch.heard("example.com", late);
        assert!(known(&watch, late).is_some());
        watch.keep_within(Duration::from_secs(2));
        let later = late + Duration::from_secs(2);
        assert_eq!(watch.recall(&bob(), later), Recollection::Silent, "answers count for less");
        watch.keep_within(BELIEF);
        assert!(known(&watch, later).is_some());
        watch.heard("example.com", begun + BELIEF);
        assert!(known(&watch, begun + BELIEF - Duration::from_millis(1)).is_some());
        assert_eq!(watch.recall(&bob(), begun + BELIEF), Recollection::Nothing, "it is asked now and then");
        watch.begin(&bob(), &seen(&[]), Changes::MostlyTold, begun);
        watch.heard("example.com", begun + SHORT_BELIEF);
        assert!(known(&watch, begun + SHORT_BELIEF - Duration::from_millis(1)).is_some());
        assert_eq!(watch.recall(&bob(), begun + SHORT_BELIEF), Recollection::Nothing);
    }
}
