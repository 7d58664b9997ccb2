//! The identity asked about itself: somebody's own account shows its owner. An account cannot probe itself, so first
//! comes the way that nobody sees: the server lists the connected clients (XEP-0030 to the own bare address; ejabberd
//! does, Prosody does not), and each is probed. Where that fails and the configuration lets the account appear, an
//! initial presence does it: the server then tells about all other clients (RFC 6121, 4.2.2).

use jid::{BareJid, Jid};
use tokio::time::Instant;
use xmpp_parsers::minidom::Element;

use super::inquiry::{GRACE, PATIENCE, Reply};
use super::stanza::Condition;
use super::watch::CLIENTS;
use super::{Answer, Failure, Why, ns};
use crate::presence::{Presence, Resource, Rule, State};
use crate::viewers::Viewers;

/// How far the question about ourselves has come.
#[derive(Debug, PartialEq)]
enum Stage {
    /// The list of clients is awaited.
    Listing,
    /// The server lists no clients.
    Unlisted,
    /// The last ping is out, behind everything that makes clients show themselves.
    Asked,
    /// It came back.
    Complete,
}

/// See the module.
#[derive(Debug)]
pub struct Own {
    us: BareJid,
    until: Instant,
    stage: Stage,
    roster: Reply<Viewers>,
    heard: Option<Instant>,
}

/// The other clients of our account that have shown themselves in this session.
#[derive(Debug, Default)]
pub struct Clients {
    there: Vec<Resource>,
    /// What the last one said when it left.
    gone: Option<Presence>,
}

impl Clients {
    pub fn available(&mut self, resource: Resource) {
        self.there.retain(|known| known.name != resource.name);
        self.there.truncate(CLIENTS - 1);
        self.there.push(resource);
    }

    pub fn unavailable(&mut self, name: &str, presence: Presence) {
        let before = self.there.len();
        self.there.retain(|known| known.name != name);
        if self.there.len() < before {
            self.gone = Some(presence);
        }
    }
}

impl Own {
    /// The list is asked for, and our own roster where it is wanted.
    pub fn listing(us: BareJid, roster: Reply<Viewers>, until: Instant) -> Own {
        Own { us, until, stage: Stage::Listing, roster, heard: None }
    }

    /// Our roster came, or the server does not let us read it.
    pub fn read(&mut self, viewers: Option<Viewers>, now: Instant) {
        self.sign(now);
        self.roster.take(viewers.ok_or(Condition::Forbidden));
    }

    /// The list came, or an error. Returns the clients to probe, with a ping behind them.
    pub fn listed(&mut self, items: Option<&Element>, now: Instant) -> Vec<Jid> {
        self.sign(now);
        let ours = |jid: &Jid| jid.resource().is_some() && jid.to_bare() == self.us;
        let items = items.into_iter().flat_map(Element::children).filter(|item| item.is("item", ns::DISCO_ITEMS));
        let jids = items.filter_map(|item| Jid::new(item.attr("jid")?).ok());
        let clients: Vec<_> = jids.filter(ours).take(CLIENTS).collect();
        // At least this session is in the list where clients are.
        self.stage = if clients.is_empty() { Stage::Unlisted } else { Stage::Asked };
        clients
    }

    /// The account has appeared, and a ping is behind it.
    pub fn appears(&mut self) {
        self.stage = Stage::Asked;
    }

    /// A client has shown itself, or left.
    pub fn sign(&mut self, now: Instant) {
        self.heard = Some(now);
    }

    pub fn pong(&mut self, now: Instant) {
        self.sign(now);
        self.stage = Stage::Complete;
    }

    /// The answer, or when to judge again. ejabberd does not keep the order, so that a grace follows the pong.
    pub fn verdict(&self, clients: &Clients, rule: Rule, now: Instant) -> Result<Result<Answer, Failure>, Instant> {
        let wait = match (&self.stage, self.heard) {
            (Stage::Unlisted | Stage::Complete, Some(heard)) if self.roster.is_awaited() => {
                (heard + PATIENCE).min(self.until)
            }
            (Stage::Unlisted, _) => now,
            (Stage::Complete, Some(heard)) => (heard + GRACE).min(self.until),
            _ => self.until,
        };
        if now < wait {
            return Err(wait);
        }
        match (Presence::best(&clients.there, rule), &self.stage) {
            (Some(presence), _) => Ok(self.answer(presence, Why::Present, clients.there.clone())),
            (None, Stage::Complete) => {
                let presence = clients.gone.clone().unwrap_or(Presence::bare(State::Offline));
                Ok(self.answer(presence, Why::NoOtherClient, Vec::new()))
            }
            (None, Stage::Unlisted) => Ok(Err(Failure::Hidden)),
            (None, _) => Ok(Err(Failure::Silent)),
        }
    }

    /// Not without the roster, which alone tells who may know.
    fn answer(&self, presence: Presence, why: Why, resources: Vec<Resource>) -> Result<Answer, Failure> {
        let viewers = match &self.roster {
            Reply::Awaited => return Err(Failure::RosterLate),
            Reply::Result(viewers) => Some(viewers.clone()),
            Reply::NotAsked | Reply::Error(_) => None,
        };
        Ok(Answer { presence, why, resources, viewers, settled: true })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::presence::Texts;

    fn us() -> BareJid {
        BareJid::new("bob@example.com").expect("a bare JID")
    }

    fn items(jids: &[&str]) -> Element {
        let items: String = jids.iter().map(|jid| format!("<item jid='{jid}' node='x'/>")).collect();
        let query = format!("<query xmlns='http://jabber.org/protocol/disco#items'>{items}</query>");
        query.parse().expect("XML")
    }

    fn client(name: &str, state: State) -> Resource {
        Resource { name: name.into(), state, priority: 0, texts: Texts::default(), stamp: None, idle: None }
    }

    fn state(own: &Own, clients: &Clients, now: Instant) -> Result<Result<State, Failure>, Instant> {
        own.verdict(clients, Rule::MostAvailable, now).map(|answer| answer.map(|answer| answer.presence.state))
    }

    #[test]
    fn only_our_own_clients_are_probed() {
        let now = Instant::now();
        let mut own = Own::listing(us(), Reply::NotAsked, now + Duration::from_secs(5));
        let list = items(&["bob@example.com/a", "bob@example.com", "eve@example.com/x", "example.com/y"]);
        let clients: Vec<_> = own.listed(Some(&list), now).iter().map(Jid::to_string).collect();
        assert_eq!(clients, ["bob@example.com/a"]);
    }

    #[test]
    fn nobody_but_us_is_offline_and_the_pong_is_not_the_end() {
        let now = Instant::now();
        let until = now + Duration::from_secs(5);
        let (mut own, mut clients) = (Own::listing(us(), Reply::NotAsked, until), Clients::default());
        assert_eq!(state(&own, &clients, now), Err(until));
        own.listed(Some(&items(&["bob@example.com/web"])), now);
        own.pong(now);
        assert_eq!(state(&own, &clients, now), Err(now + GRACE));
        assert_eq!(state(&own, &clients, now + GRACE), Ok(Ok(State::Offline)));
        clients.available(client("home", State::Dnd));
        own.sign(now + GRACE);
        assert_eq!(state(&own, &clients, now + GRACE), Err(now + 2 * GRACE), "each presence restarts the grace");
        assert_eq!(state(&own, &clients, now + 2 * GRACE), Ok(Ok(State::Dnd)));
    }

    #[test]
    fn a_server_that_lists_no_clients_says_nothing() {
        let now = Instant::now();
        for list in [None, Some(items(&[])), Some(items(&["bob@example.com"]))] {
            let mut own = Own::listing(us(), Reply::NotAsked, now + Duration::from_secs(5));
            assert!(own.listed(list.as_ref(), now).is_empty());
            assert_eq!(state(&own, &Clients::default(), now), Ok(Err(Failure::Hidden)));
        }
    }

    /// What an earlier question has shown, where the server lists no clients any more.
    #[test]
    fn nobody_is_told_of_before_the_roster_came() {
        let now = Instant::now();
        let bob = Viewers::of(&[BareJid::new("carol@example.com").expect("a bare JID")]);
        let mut clients = Clients::default();
        clients.available(client("home", State::Chat));
        for (until, came, expected) in [
            (now + 2 * PATIENCE, Some(Some(bob.clone())), Ok(Some(bob))),
            (now + 2 * PATIENCE, Some(None), Ok(None)),
            (now + 2 * PATIENCE, None, Err(Failure::RosterLate)),
            (now + PATIENCE / 2, None, Err(Failure::RosterLate)),
        ] {
            let mut own = Own::listing(us(), Reply::Awaited, until);
            own.listed(None, now);
            let wait = own.verdict(&clients, Rule::MostAvailable, now).expect_err("the roster is out");
            assert_eq!(wait, until.min(now + PATIENCE));
            let is_there = came.is_some();
            came.into_iter().for_each(|viewers| own.read(viewers, now));
            let then = if is_there { now } else { wait };
            let answer = own.verdict(&clients, Rule::MostAvailable, then).expect("it is time");
            assert_eq!(answer.map(|answer| answer.viewers), expected);
        }
    }

    #[test]
    fn without_a_pong_nobody_is_offline() {
        let now = Instant::now();
        let until = now + Duration::from_secs(5);
        let (mut own, mut clients) = (Own::listing(us(), Reply::NotAsked, until), Clients::default());
        own.appears();
        assert_eq!(state(&own, &clients, until), Ok(Err(Failure::Silent)));
        clients.available(client("home", State::Away));
        clients.unavailable("home", Presence::bare(State::Offline));
        own.pong(now);
        assert_eq!(state(&own, &clients, now + GRACE), Ok(Ok(State::Offline)));
    }
}
