//! What servers tell without being asked, once somebody has been seen: a change of presence is passed on, so that the
//! next visitor sees it. Only about people whose consent this very session has seen proved. Prosody with XEP-0356 tells
//! about everybody, anyone may send a presence to us alone, and one client that leaves is not the person.

use std::collections::HashMap;

use jid::{BareJid, Jid};

use crate::presence::{Presence, Resource, Rule};

/// Clients of one person that are remembered; another one takes the place of the oldest.
pub const CLIENTS: usize = 50;
/// People who are watched at most; over it nobody new is.
const LIMIT: usize = 10_000;

/// See the module.
pub struct Watch {
    rule: Rule,
    people: HashMap<BareJid, Vec<Resource>>,
}

impl Watch {
    pub fn new(rule: Rule) -> Watch {
        Watch { rule, people: HashMap::new() }
    }

    /// A lookup has shown that this person lets us see him, with these clients.
    pub fn begin(&mut self, jid: &BareJid, resources: &[Resource]) {
        if self.people.len() < LIMIT || self.people.contains_key(jid) {
            self.people.insert(jid.clone(), resources.to_vec());
        }
    }

    /// He was seen not to let us any more.
    pub fn end(&mut self, jid: &BareJid) {
        self.people.remove(jid);
    }

    /// A client of his came, or changed what it shows. Returns what he is now.
    pub fn available(&mut self, from: &BareJid, resource: Resource) -> Option<Presence> {
        let resources = self.people.get_mut(from)?;
        resources.retain(|known| known.name != resource.name);
        if resources.len() >= CLIENTS {
            resources.remove(0);
        }
        resources.push(resource);
        Presence::best(resources, self.rule)
    }

    /// A client of his left; a person without any is offline.
    pub fn unavailable(&mut self, from: &Jid, gone: &Presence) -> Option<Presence> {
        let (jid, left) = (from.to_bare(), from.resource()?);
        let resources = self.people.get_mut(&jid)?;
        let before = resources.len();
        resources.retain(|known| known.name != left.as_str());
        if resources.len() == before {
            return None;
        }
        Some(Presence::best(resources, self.rule).unwrap_or_else(|| gone.clone()))
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
        watch.begin(&bob(), resources);
        watch
    }

    fn left(watch: &mut Watch, from: &str) -> Option<State> {
        watch.unavailable(&full(from), &Presence::bare(State::Offline)).map(|presence| presence.state)
    }

    #[test]
    fn a_change_of_somebody_watched_is_told() {
        let mut watch = watching(&[]);
        let states = [State::Away, State::Chat, State::Dnd];
        let told = states.map(|state| watch.available(&bob(), client("home", state)).map(|p| p.state));
        assert_eq!(told, states.map(Some));
    }

    /// Prosody with XEP-0356 sends the presence of all its users, whether they consented or not.
    #[test]
    fn a_snapshot_of_everybody_shows_nobody() {
        let mut watch = watching(&[]);
        let eve = BareJid::new("eve@example.com").expect("a bare JID");
        assert_eq!(watch.available(&eve, client("home", State::Chat)), None);
        assert_eq!(watch.unavailable(&full("eve@example.com/home"), &Presence::bare(State::Offline)), None);
    }

    /// Anybody may send us a presence of his own, and be looked up and refused before.
    #[test]
    fn a_presence_sent_to_us_alone_shows_nobody() {
        let mut watch = watching(&[]);
        watch.end(&bob());
        assert_eq!(watch.available(&bob(), client("home", State::Chat)), None);
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
        assert_eq!(watch.available(&bob(), client("home", State::Chat)), None);
    }

    #[test]
    fn nobody_has_clients_without_end() {
        let mut watch = watching(&[]);
        for number in 0..CLIENTS + 5 {
            watch.available(&bob(), client(&number.to_string(), State::Away));
        }
        assert_eq!(watch.people[&bob()].len(), CLIENTS);
    }

    #[test]
    fn strangers_cannot_make_it_grow() {
        let mut watch = watching(&[]);
        for number in 0..LIMIT + 5 {
            watch.begin(&BareJid::new(&format!("u{number}@example.com")).expect("a bare JID"), &[]);
        }
        assert_eq!(watch.people.len(), LIMIT);
        watch.begin(&bob(), &[client("home", State::Chat)]);
        assert_eq!(left(&mut watch, "bob@example.com/home"), Some(State::Offline), "who is known is renewed");
    }
}
