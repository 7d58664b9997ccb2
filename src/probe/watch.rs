//! What servers tell without being asked, once somebody has been seen: a change of presence is passed on, so that the
//! next visitor sees it. Only about people whose consent this very session has seen proved. Prosody with XEP-0356 tells
//! about everybody, anyone may send a presence to us alone, and one client that leaves is not the person.
//! As long as his server is known to be there, and passes on what changes, nobody has to ask it about him.

use std::collections::HashMap;
use std::time::Duration;

use jid::{BareJid, Jid};
use tokio::time::Instant;

use super::{Answer, Why};
use crate::presence::{Presence, Resource, Rule};

/// Clients of one person that are remembered; another one takes the place of the oldest.
pub const CLIENTS: usize = 50;
/// People who are watched at most; over it nobody new is.
const LIMIT: usize = 10_000;
/// How long a server counts as there after the last word from it.
const ALIVE: Duration = Duration::from_secs(30);
/// How long nobody is asked about somebody of whom changes are told: what was told may have been lost on its way.
const BELIEF: Duration = Duration::from_secs(600);
/// The same where not all changes are.
const SHORT_BELIEF: Duration = Duration::from_secs(120);

/// See the module.
pub struct Watch {
    rule: Rule,
    people: HashMap<BareJid, Person>,
    /// The servers of those people.
    servers: HashMap<String, Server>,
}

struct Person {
    clients: Vec<Resource>,
    /// What the server said of him when it was asked, and nobody was there.
    absence: Option<Box<(Presence, Why)>>,
    /// Until when that, and what it has told since, is taken for all there is to know.
    believed: Option<Instant>,
}

struct Server {
    heard: Instant,
    /// It answers pings, so that one can show that it is there.
    answers: bool,
}

/// Whether the server tells by itself when somebody changes, so that it need not be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    Told,
    /// COMPAT: ejabberd says nothing to somebody whom a user blocks (XEP-0191, 3.3), and nothing more about that user.
    ToldUnlessBlocked,
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
        Watch { rule, people: HashMap::new(), servers: HashMap::new() }
    }

    /// A lookup has shown that this person lets us see him, with these clients.
    pub fn begin(&mut self, jid: &BareJid, answer: &Answer, changes: Changes, now: Instant) {
        if self.people.len() >= LIMIT && !self.people.contains_key(jid) {
            return;
        }
        if self.servers.len() >= LIMIT {
            self.servers.clear();
        }
        let clients = answer.resources.clone();
        let absence = clients.is_empty().then(|| (answer.presence.clone(), answer.why));
        // Who hides may leave without a word about it.
        let absence =
            absence.filter(|(presence, why)| presence.since.is_some() || *why == Why::SaidOffline).map(Box::new);
        let believed = match changes {
            Changes::Told => Some(now + BELIEF),
            Changes::ToldUnlessBlocked => Some(now + SHORT_BELIEF),
            Changes::Untold => None,
        };
        self.people.insert(jid.clone(), Person { clients, absence, believed });
        let server = Server { heard: now, answers: false };
        self.servers.entry(jid.domain().to_string()).or_insert(server);
    }

    /// He was seen not to let us any more.
    pub fn end(&mut self, jid: &BareJid) {
        self.people.remove(jid);
    }

    /// Something was heard about him that only his server can explain.
    pub fn doubt(&mut self, jid: &BareJid) {
        if let Some(person) = self.people.get_mut(jid) {
            person.believed = None;
        }
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
        let Some(person) = self.people.get(jid) else { return Recollection::Nothing };
        let is_believed = person.believed.is_some_and(|until| now < until);
        let Some(answer) = person.answer(self.rule).filter(|_| is_believed) else { return Recollection::Nothing };
        match self.servers.get(jid.domain().as_str()) {
            Some(server) if now.saturating_duration_since(server.heard) < ALIVE => Recollection::Known(answer),
            Some(server) if server.answers => Recollection::Silent,
            _ => Recollection::Nothing,
        }
    }

    /// A client of his came, or changed what it shows. Returns what he is now.
    pub fn available(&mut self, from: &BareJid, mut resource: Resource, epoch_s: u64) -> Option<Presence> {
        let person = self.people.get_mut(from)?;
        person.clients.retain(|known| known.name != resource.name);
        if person.clients.len() >= CLIENTS {
            person.clients.remove(0);
            person.believed = None;
        }
        // As servers stamp it for those who ask later. Whatever their clock says, it is newer than what was there.
        let newest = person.clients.iter().filter_map(|known| known.stamp).max();
        resource.stamp = resource.stamp.or(newest.max(Some(epoch_s)));
        person.clients.push(resource);
        Presence::best(&person.clients, self.rule)
    }

    /// A client of his left; a person without any is offline. What is known of his absence, only the server can say.
    pub fn unavailable(&mut self, from: &Jid, gone: &Presence) -> Option<Presence> {
        let person = self.people.get_mut(&from.to_bare())?;
        let Some(left) = from.resource() else {
            person.believed = None;
            return None;
        };
        let before = person.clients.len();
        person.clients.retain(|known| known.name != left.as_str());
        if person.clients.len() == before {
            return None;
        }
        if person.clients.is_empty() {
            (person.absence, person.believed) = (None, None);
        }
        Some(Presence::best(&person.clients, self.rule).unwrap_or_else(|| gone.clone()))
    }
}

impl Person {
    fn answer(&self, rule: Rule) -> Option<Answer> {
        let present = Presence::best(&self.clients, rule).map(|presence| (presence, Why::Present));
        let (presence, why) = present.or_else(|| self.absence.as_deref().cloned())?;
        Some(Answer { presence, why, resources: self.clients.clone(), viewers: None, settled: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::{State, Texts};

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
        assert_eq!(watch.people[&bob()].clients.len(), CLIENTS);
        assert_eq!(watch.recall(&bob(), Instant::now()), Recollection::Nothing, "one of them was forgotten");
    }

    #[test]
    fn strangers_cannot_make_it_grow() {
        let mut watch = watching(&[]);
        for number in 0..LIMIT + 5 {
            let jid = BareJid::new(&format!("u{number}@{number}.example")).expect("a bare JID");
            watch.begin(&jid, &seen(&[]), Changes::Told, Instant::now());
        }
        assert_eq!((watch.people.len(), watch.servers.len()), (LIMIT, LIMIT));
        watch.begin(&bob(), &seen(&[client("home", State::Chat)]), Changes::Told, Instant::now());
        assert_eq!(left(&mut watch, "bob@example.com/home"), Some(State::Offline), "who is known is renewed");
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
        watch.heard("example.com", begun + BELIEF);
        assert!(known(&watch, begun + BELIEF - Duration::from_millis(1)).is_some());
        assert_eq!(watch.recall(&bob(), begun + BELIEF), Recollection::Nothing, "it is asked now and then");
        watch.begin(&bob(), &seen(&[]), Changes::ToldUnlessBlocked, begun);
        watch.heard("example.com", begun + SHORT_BELIEF);
        assert!(known(&watch, begun + SHORT_BELIEF - Duration::from_millis(1)).is_some());
        assert_eq!(watch.recall(&bob(), begun + SHORT_BELIEF), Recollection::Nothing);
    }
}
