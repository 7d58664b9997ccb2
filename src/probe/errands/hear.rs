//! What comes in: each stanza goes to the questions it answers and to those who deal with what nobody asked for. What
//! the holder of the session has to know or to do about it leaves as events.

use jid::{BareJid, Jid};
use tokio::time::Instant;
use xmpp_parsers::minidom::Element;
use xmpp_parsers::version::VersionResult;

use super::{Errands, ROSTERS_BYTES, Sent, Topic, domain_of};
use crate::config::ServerKind;
use crate::presence::{Presence, Resource, State};
use crate::probe::avatar::{self, Part};
use crate::probe::errand::Roster;
use crate::probe::guests::Order;
use crate::probe::inquiry::{Inquiry, Listed, Slot, Sort};
use crate::probe::stanza::{Condition, Heard, INITIAL_PRESENCE, Query};
use crate::probe::{Event, ns, roster};

/// To whom a stanza that reached us was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// To this very session.
    Ours,
    /// To our identity, whoever speaks for it.
    Everybody,
    /// To a session of our identity that is no more.
    Former,
}

impl Errands {
    /// To whom `to` speaks; the bare JID is ours already.
    pub fn address(&self, to: &Jid) -> Address {
        match &self.sender.from {
            Some(ours) if *to == *ours => Address::Ours,
            Some(_) if to.resource().is_some() => Address::Former,
            Some(_) => Address::Everybody,
            None => Address::Ours,
        }
    }

    /// Takes one stanza that was addressed to us; an answer we owe goes to `out`.
    pub fn hear(&mut self, heard: Heard, address: Address, now: Instant, out: &mut String) {
        match heard.from().map(|from| from.domain().as_str()) {
            Some(domain) if heard.is_bounced() => self.watch.doubt_server(domain),
            Some(domain) => self.watch.heard(domain, now),
            None => {}
        }
        // Somebody else speaks for us, or has done so a moment ago: he may have got what was for us.
        if address == Address::Former {
            self.watch.doubt_everybody();
        }
        match heard {
            // An account's own presence comes back to it.
            Heard::Available { from, .. } if self.bound.as_ref().is_some_and(|bound| *bound == from) => {}
            Heard::Available { from, resource } => self.available(&from.to_bare(), resource, address, now),
            Heard::Unavailable { from, presence } => self.unavailable(&from, presence, now),
            Heard::Subscribed { from } => self.subscribed(from.to_bare()),
            Heard::Unsubscribed { from } => self.unsubscribed(from.to_bare(), now),
            Heard::Subscribe { from } => {
                let from = from.to_bare();
                if self.accepts && self.guests.hears(&from, now) {
                    self.events.push(Event::Offer(from));
                }
            }
            // An account's server says it for us (RFC 6121, 3.3.3).
            Heard::Unsubscribe { from } if self.spared.is_none() => {
                out.push_str(&self.sender.unsubscribed(&from.to_bare()));
            }
            Heard::Message { from, body } => {
                let from = from.to_bare();
                // Another account may be somebody's own, and what is written to it is for him.
                let ours = self.accepts || self.spared.is_none();
                if ours && self.guests.hears(&from, now) {
                    self.events.push(Event::Order(from, Order::read(&body)));
                }
            }
            // Only what comes back is an error; we never send to a client.
            Heard::PresenceError { from, condition } if from.resource().is_none() => {
                let bare = from.to_bare();
                if condition == Condition::Unreachable {
                    self.requests.lost(&bare);
                }
                self.watch.doubt(&bare);
                self.about(&bare, |inquiry| inquiry.presence_error(condition, now));
            }
            Heard::Privilege { from, roster } if from.node().is_none() && self.is_served(from.domain().as_str()) => {
                self.grants_rosters(from.domain().as_str(), roster);
            }
            // That session has used the same numbers.
            Heard::Reply { .. } if address == Address::Former => {}
            Heard::Reply { from, id, outcome } => self.replied(from, &id, outcome, now),
            Heard::Probe { from, id } if self.sender.from.as_ref().is_some_and(|ours| from == *ours) => {
                self.echo.iter_mut().for_each(|echo| echo.hear(&id));
            }
            Heard::Request { from, to, id, payload } => out.push_str(&self.sender.reply(from, to, id, &payload)),
            Heard::PresenceError { .. } | Heard::Unsubscribe { .. } | Heard::Privilege { .. } => {}
            Heard::Probe { .. } | Heard::Other => {}
        }
    }

    fn available(&mut self, from: &BareJid, mut resource: Resource, address: Address, now: Instant) {
        if *from == self.us {
            self.clients.available(resource);
            self.own.values_mut().for_each(|own| own.sign(now));
            return;
        }
        if address != Address::Ours {
            // No answer of a server, who would say since when: a change, and that is now.
            resource.stamp = resource.stamp.or(Some(self.clock.epoch_s(now)));
        }
        self.about(from, |inquiry| match address {
            Address::Everybody | Address::Former => inquiry.pushed(resource.clone(), now),
            Address::Ours => inquiry.available(resource.clone(), now),
        });
        let changed = self.watch.available(from, resource, self.clock.epoch_s(now));
        self.events.extend(changed.map(|presence| Event::Changed(from.clone(), presence)));
    }

    fn unavailable(&mut self, from: &Jid, presence: Presence, now: Instant) {
        let (bare, name) = (from.to_bare(), from.resource().map(|r| r.as_str()).unwrap_or_default());
        if bare == self.us {
            self.clients.unavailable(name, presence);
            self.own.values_mut().for_each(|own| own.sign(now));
            return;
        }
        // COMPAT: Prosody acknowledges a request for consent like this, even to somebody who does not exist.
        if !(self.is_asked(&bare) && name.is_empty()) {
            self.about(&bare, |inquiry| inquiry.unavailable(name, presence.clone(), now));
        }
        let changed = self.watch.unavailable(from, &presence);
        self.events.extend(changed.map(|presence| Event::Changed(bare, presence)));
    }

    fn subscribed(&mut self, from: BareJid) {
        self.requests.given(&from);
        self.asked_back.remove(&from);
        if let Some(contacts) = &mut self.contacts {
            contacts.insert(from.clone());
        }
        self.release(|inquiry| inquiry.jid == from);
        self.events.push(Event::Consented(from));
    }

    fn unsubscribed(&mut self, from: BareJid, now: Instant) {
        self.requests.refused(&from);
        self.asked_back.remove(&from);
        let is_asked_about = self.inquiries.values().any(|inquiry| inquiry.jid == from);
        self.about(&from, |inquiry| inquiry.unsubscribed(now));
        self.need_not_ask(&from);
        self.withdrawn(&from);
        // Whoever asks about him right now has it in his answer.
        if from.node().is_some() && !is_asked_about {
            self.events.push(Event::Changed(from, Presence::bare(State::Forbidden)));
        }
    }

    /// This person does not let us see him, or we no longer want to.
    pub(super) fn withdrawn(&mut self, jid: &BareJid) {
        if let Some(contacts) = &mut self.contacts {
            contacts.remove(jid);
        }
        self.facts.forget_consent(jid);
        self.watch.end(jid);
    }

    /// Puts questions again that may be asked by a probe after all.
    pub(super) fn release(&mut self, may: impl Fn(&Inquiry) -> bool) {
        for id in self.pending.clone() {
            let Some(inquiry) = self.inquiries.get_mut(&id).filter(|inquiry| may(inquiry)) else { continue };
            inquiry.release();
            // Whatever his word for it: he lets us see him.
            self.asked_back.remove(&inquiry.jid);
            // The pong that is still out would belong to the first round. The roster is asked for once.
            self.sent.retain(|_, sent| sent.topic.is_roster() || !sent.topic.forget(id));
            self.pending.remove(&id);
            self.fresh.push(id);
        }
    }

    /// Only the server itself can grant it: rosters are its own. It says so in every session, behind the handshake.
    pub(super) fn grants_rosters(&mut self, domain: &str, roster: bool) {
        self.facts.server_mut(domain).roster = roster;
        if !roster {
            self.granted.remove(domain);
            return;
        }
        self.granted.insert(domain.to_owned());
        // What is out already went without, since nobody knew.
        let is_wanting = |id: &u64, inquiry: &Inquiry| {
            let is_out = inquiry.jid.domain().as_str() == domain && !self.fresh.contains(id);
            is_out && inquiry.viewers == Roster::Wanted && self.reads_roster(inquiry)
        };
        let wanting = self.inquiries.iter().filter(|(id, inquiry)| is_wanting(id, inquiry));
        let mut wanting: Vec<_> = wanting.map(|(id, inquiry)| (*id, inquiry.jid.clone())).collect();
        wanting.sort_by_key(|(id, _)| *id);
        for (id, jid) in wanting {
            self.send(jid, Query::Roster, Topic::Slot(Slot::Roster, vec![id]));
        }
    }

    /// A roster that was not read although an earlier session was told that it may be.
    pub(super) fn may_not_read_rosters(&mut self, domain: &str) {
        if !self.granted.contains(domain) && self.facts.server(domain).roster {
            self.facts.server_mut(domain).roster = false;
        }
    }

    /// Whose roster comes in where this is an answer that brings one, to be kept or not.
    pub fn owner_of_roster(&self, iq: &Element) -> Option<BareJid> {
        let id = iq.attr("id").filter(|_| iq.is("iq", ns::CLIENT))?;
        let from = iq.attr("from").map(Jid::new).transpose().ok()?;
        let sent = self.awaited(from.as_ref(), id).filter(|sent| sent.topic.is_roster());
        sent.map(|sent| sent.to.clone())
    }

    /// COMPAT: an account's server answers for it without a `from` (RFC 6120, 8.1.2.1).
    fn awaited(&self, from: Option<&Jid>, id: &str) -> Option<&Sent> {
        let ours = |to: &BareJid| from.is_none() && *to == self.us && self.spared.is_some();
        let expected = |sent: &&Sent| ours(&sent.to) || from.is_some_and(|from| *from == sent.to);
        self.sent.get(id).filter(expected)
    }

    fn replied(&mut self, from: Option<Jid>, id: &str, outcome: Result<Option<Element>, Condition>, now: Instant) {
        if self.awaited(from.as_ref(), id).is_some()
            && let Some(sent) = self.sent.remove(id)
        {
            if sent.to == self.home {
                self.home_spoke();
            }
            self.reply(sent, outcome, now);
        }
    }

    fn about(&mut self, jid: &BareJid, tell: impl Fn(&mut Inquiry)) {
        self.inquiries.values_mut().filter(|inquiry| inquiry.jid == *jid).for_each(tell);
    }

    fn reply(&mut self, sent: Sent, outcome: Result<Option<Element>, Condition>, now: Instant) {
        match sent.topic {
            Topic::Slot(Slot::Roster, ids) => {
                let domain = sent.to.domain().as_str();
                // Whatever else the server may say instead, it is no refusal to let us read, and shows nobody more.
                let is_refused = outcome == Err(Condition::Forbidden);
                if is_refused || outcome.is_err() && !self.granted.contains(domain) {
                    self.may_not_read_rosters(domain);
                    for id in ids {
                        self.inquiries.entry(id).and_modify(|inquiry| inquiry.listed(None, now));
                    }
                } else {
                    let roster = outcome.ok().flatten();
                    ids.into_iter().for_each(|id| self.roster_came(id, roster.as_ref(), now));
                }
            }
            Topic::Slot(slot, ids) => {
                if slot == Slot::Info {
                    self.learn_accounts(&sent.to, outcome.as_ref().ok().and_then(Option::as_ref), now);
                }
                for id in ids {
                    let outcome = outcome.as_ref().map(Option::as_ref).map_err(|condition| *condition);
                    self.inquiries.entry(id).and_modify(|inquiry| inquiry.reply(slot, outcome, now));
                }
                self.release(Inquiry::is_answered);
            }
            // Out of reach, it has not said what it is: it is asked again next time.
            Topic::Version if outcome == Err(Condition::Unreachable) => {}
            Topic::Version => {
                let kind = outcome.ok().flatten().map_or(ServerKind::Other, software);
                self.facts.learn_kind(sent.to.as_str(), kind, self.clock.epoch_s(now));
                let harmless = self.kind(sent.to.as_str()) != Some(ServerKind::Prosody);
                self.release(|inquiry| harmless && inquiry.jid.domain() == sent.to.domain());
            }
            Topic::Request(id) => self.requests.pong(id, outcome == Err(Condition::Unreachable), now),
            Topic::Items(id) => self.listed(id, outcome.ok().flatten(), now),
            Topic::OwnRoster(id) => {
                let is_refused = outcome == Err(Condition::Forbidden);
                let viewers = outcome.ok().flatten().and_then(|roster| roster::viewers(&roster, &self.us));
                let viewers = (!is_refused).then(|| viewers.unwrap_or_default());
                self.own.entry(id).and_modify(|own| own.read(viewers, now));
            }
            Topic::Knock => self.opened(&sent.to, outcome.map(drop)),
            Topic::Own(id) => self.own.get_mut(&id).into_iter().for_each(|own| own.pong(now)),
            Topic::Time(id) => self.times.told(id, outcome.ok().flatten()),
            Topic::Picture(part, id) => {
                let item = self.avatars.heard(id, part, outcome.ok().flatten().as_ref());
                if let Some((jid, item)) = item {
                    self.request_picture(jid, Part::Data, id, avatar::data_request(&item));
                }
            }
            Topic::Contacts => self.contacts = outcome.ok().flatten().map(|roster| roster::watched(&roster).collect()),
        }
    }

    /// Where one has an account, all have. Servers and rooms never say so.
    fn learn_accounts(&mut self, from: &BareJid, info: Option<&Element>, now: Instant) {
        if from.node().is_some() && info.map(Sort::of) == Some(Sort::Account) {
            self.facts.learn_accounts(from.domain().as_str(), self.clock.epoch_s(now));
        }
    }

    /// Somebody's roster, or something else in its place: too long a one, or a word that there is none. Nobody is in it.
    fn roster_came(&mut self, id: u64, roster: Option<&Element>, now: Instant) {
        let is_room = self.inquiries.values().map(Inquiry::roster_bytes).sum::<usize>() < ROSTERS_BYTES;
        let Some(inquiry) = self.inquiries.get_mut(&id) else { return };
        let is_kept = inquiry.viewers == Roster::Wanted && is_room;
        let viewers = || roster.and_then(|roster| roster::viewers(roster, &self.us)).unwrap_or_default();
        let lets_us_see = roster.map(|roster| roster::lets_see(roster, &self.us));
        inquiry.listed(Some(Listed { lets_us_see, viewers: is_kept.then(viewers) }), now);
    }

    /// The clients of our own account are known, if the server tells: each is asked by its full address.
    fn listed(&mut self, id: u64, items: Option<Element>, now: Instant) {
        let Some(own) = self.own.get_mut(&id) else { return };
        let clients = own.listed(items.as_ref(), now);
        if clients.is_empty() && !self.visible {
            return;
        }
        if clients.is_empty() {
            own.appears();
            self.appear(INITIAL_PRESENCE);
        }
        clients.iter().for_each(|client| self.unsent.push_str(&self.sender.probe(client)));
        self.send(domain_of(&self.us), Query::Ping, Topic::Own(id));
    }
}

/// Which software an answer to XEP-0092 names.
fn software(payload: Element) -> ServerKind {
    let name = VersionResult::try_from(payload).map(|version| version.name.to_lowercase()).unwrap_or_default();
    let known =
        [("prosody", ServerKind::Prosody), ("ejabberd", ServerKind::Ejabberd), ("openfire", ServerKind::Openfire)];
    known.into_iter().find(|(word, _)| name.contains(word)).map_or(ServerKind::Other, |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{errands, jid, written};
    use super::*;
    use crate::probe::budget::Budget;
    use crate::probe::inquiry::Reply;
    use crate::probe::{Why, ns};
    use crate::viewers::{VIEWERS, Viewers};

    /// Whoever takes back his consent while a question about him waits for its turn: that may never come, and what was
    /// known of him is not to be told any longer.
    #[test]
    fn who_withdraws_while_a_question_waits_is_not_shown() {
        let now = Instant::now();
        let mut errands = errands(now);
        errands.allow(Budget::new(1));
        for id in 1..=6 {
            errands.ask(id, jid(&format!("u{id}@example.com")), Roster::Unwanted, now + Duration::from_secs(5));
        }
        let mut said = written(&mut errands, now);
        assert!(said.contains("u5@") && !said.contains("u6@"), "{said}");
        let from = Jid::new("u6@example.com").expect("a JID");
        errands.hear(Heard::Unsubscribed { from }, Address::Everybody, now, &mut said);
        errands.write(&mut said, now + Duration::from_secs(2));
        let answers: Vec<_> =
            errands.answers(now).into_iter().map(|(id, answer)| (id, answer.map(|a| a.why))).collect();
        assert_eq!(answers, [(6, Ok(Why::Refused))]);
        assert!(!said.contains("u6@"), "there is nothing left to ask: {said}");
    }

    /// Many rosters at once, each as long as one may be: those for which there is no room count as unread.
    #[test]
    fn the_rosters_of_a_session_have_a_limit() {
        let now = Instant::now();
        let mut errands = errands(now);
        let many: Vec<_> = (0..VIEWERS).map(|number| jid(&format!("u{number}@example.com"))).collect();
        let longest = Viewers::of(&many);
        let mut roster = Element::bare("query", ns::ROSTER);
        roster.append_text("both carol@example.com\n");
        let room = ROSTERS_BYTES / longest.bytes();
        for id in 0..room as u64 + 3 {
            errands.ask(id, jid(&format!("bob{id}@example.com")), Roster::Wanted, now + Duration::from_secs(5));
            let inquiry = errands.inquiries.get_mut(&id).expect("it is put");
            inquiry.roster = Reply::Awaited;
            // The last ones hold less than their rosters, which come while the others are held.
            if id <= room as u64 {
                inquiry.listed(Some(Listed { lets_us_see: Some(true), viewers: Some(longest.clone()) }), now);
            }
        }
        let last = room as u64 + 2;
        let is_read = |errands: &Errands, id| matches!(&errands.inquiries[&id].roster, Reply::Result(listed) if listed.viewers.is_some());
        errands.roster_came(last, Some(&roster), now);
        assert!(!is_read(&errands, last), "there is no room");
        assert_eq!(errands.inquiries[&last].roster, Reply::Result(Listed { lets_us_see: Some(false), viewers: None }));
        errands.inquiries.remove(&0);
        errands.roster_came(last - 1, Some(&roster), now);
        assert!(is_read(&errands, last - 1), "one was answered");
    }
}
