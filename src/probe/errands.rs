//! The questions of a session: written as stanzas, matched with what comes in, judged. A batch of questions is one
//! write: the probes first, the pings last, since on ordered servers a pong means that everything before it came.

use std::collections::{HashMap, HashSet};

use jid::{BareJid, Jid};
use tokio::time::Instant;
use xmpp_parsers::minidom::Element;
use xmpp_parsers::version::VersionResult;

use super::facts::Facts;
use super::inquiry::{Circumstances, GRACE, Inquiry, Reply, Slot};
use super::stanza::{Condition, Heard, Query, Sender};
use super::{Answer, Consent, Failure};
use crate::config::{Identity, ServerKind};
use crate::presence::{Rule, State};

/// What people read who are asked for their consent.
const REQUEST: &str = "Shows on a web page whether you are there, and your status text.";

/// An IQ of ours that is out.
struct Sent {
    to: BareJid,
    topic: Topic,
}

enum Topic {
    /// Part of these inquiries.
    Slot(Slot, Vec<u64>),
    /// Which software the domain runs.
    Version,
    /// The end of these requests for consent.
    Subscription(u64),
}

/// A request for consent under way.
struct Subscription {
    id: u64,
    jid: BareJid,
    until: Instant,
    given: bool,
    refused: bool,
    /// The request cannot be delivered.
    lost: bool,
    pong: Option<Instant>,
}

/// To whom a stanza that reached us was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// To this very session.
    Ours,
    /// To our identity, whoever speaks for it.
    Everybody,
}

/// All that one session has to find out.
pub struct Errands {
    sender: Sender,
    facts: Facts,
    rule: Rule,
    /// Our own server.
    home: BareJid,
    /// An account's own server, which must not be probed: Openfire drops the client that does.
    spared: Option<BareJid>,
    configured: Option<ServerKind>,
    /// Put, but not written yet.
    fresh: Vec<u64>,
    /// About people whom we have asked for consent, and who may not be probed before they have given it.
    pending: HashSet<u64>,
    inquiries: HashMap<u64, Inquiry>,
    subscriptions: Vec<Subscription>,
    /// Requests for consent that are not written yet, as stanzas.
    unsent: String,
    sent: HashMap<String, Sent>,
    counter: u64,
    put: usize,
}

impl Errands {
    pub fn new(identity: &Identity, sender: Sender, facts: Facts) -> Errands {
        Errands {
            sender,
            facts,
            rule: identity.rule,
            home: identity.home(),
            spared: (!identity.is_component()).then(|| domain_of(&identity.jid)),
            configured: identity.server,
            fresh: Vec::new(),
            pending: HashSet::new(),
            inquiries: HashMap::new(),
            subscriptions: Vec::new(),
            unsent: String::new(),
            sent: HashMap::new(),
            counter: 0,
            put: 0,
        }
    }

    pub fn ask_pending(&mut self, id: u64, jid: BareJid, until: Instant) {
        self.pending.insert(id);
        self.ask(id, jid, until);
    }

    pub fn ask(&mut self, id: u64, jid: BareJid, until: Instant) {
        self.put += 1;
        // Where our server cannot reach itself, it does not serve the domain: nobody there is known to be offline.
        let hosted = jid.domain() != self.home.domain() && self.is_own(jid.domain().as_str());
        self.inquiries.insert(id, Inquiry::new(jid, hosted, until));
        self.fresh.push(id);
    }

    pub fn subscribe(&mut self, id: u64, jid: BareJid, until: Instant) {
        self.put += 1;
        let domain = domain_of(&jid);
        let iq = self.next_id();
        self.unsent.push_str(&self.sender.subscribe(&jid, REQUEST));
        self.unsent.push_str(&self.sender.query(&domain, &iq, Query::Ping));
        self.sent.insert(iq, Sent { to: domain, topic: Topic::Subscription(id) });
        self.subscriptions.push(Subscription { id, jid, until, given: false, refused: false, lost: false, pong: None });
    }

    /// Questions put so far.
    pub fn put(&self) -> usize {
        self.put
    }

    pub fn into_facts(self) -> Facts {
        self.facts
    }

    pub fn facts_mut(&mut self) -> &mut Facts {
        &mut self.facts
    }

    /// Writes everything that was put since the last call.
    pub fn write(&mut self, out: &mut String) {
        out.push_str(&std::mem::take(&mut self.unsent));
        let fresh = std::mem::take(&mut self.fresh);
        if fresh.is_empty() {
            return;
        }
        let mut domains: Vec<(BareJid, Vec<u64>)> = Vec::new();
        let mut abroad = Vec::new();
        for id in fresh {
            let Some(jid) = self.inquiries.get(&id).map(|inquiry| inquiry.jid.clone()) else { continue };
            let domain = domain_of(&jid);
            match self.is_pending(id, &jid) {
                true => self.write_pending(id, &jid, out),
                false => {
                    self.pending.remove(&id);
                    self.write_probe(id, &jid, out);
                }
            }
            if domain != self.home {
                abroad.push(id);
            }
            match domains.iter_mut().find(|(known, _)| *known == domain) {
                Some((_, ids)) => ids.push(id),
                None => domains.push((domain, vec![id])),
            }
        }
        for (domain, ids) in domains {
            self.write_domain(domain, ids, out);
        }
        if !abroad.is_empty() {
            self.query(self.home.clone(), Query::Ping, Topic::Slot(Slot::Home, abroad), out);
        }
    }

    fn write_probe(&mut self, id: u64, jid: &BareJid, out: &mut String) {
        if self.spared.as_ref() != Some(jid) {
            out.push_str(&self.sender.probe(jid));
        }
        if jid.node().is_some() {
            self.query(jid.clone(), Query::Last, Topic::Slot(Slot::Last, vec![id]), out);
        }
        self.query(jid.clone(), Query::Info, Topic::Slot(Slot::Info, vec![id]), out);
    }

    /// COMPAT: Prosody deletes a request for consent that is out when it sees a probe. But it answers XEP-0030 to those
    /// who have consent, and to nobody else: that disturbs no one, and the probe follows when it says yes.
    fn write_pending(&mut self, id: u64, jid: &BareJid, out: &mut String) {
        self.pending.insert(id);
        self.inquiries.entry(id).and_modify(|inquiry| inquiry.set_pending(true));
        self.query(jid.clone(), Query::Info, Topic::Slot(Slot::Info, vec![id]), out);
    }

    /// Our request for consent is out, from before or in this session, and the server may be one that deletes it.
    fn is_pending(&self, id: u64, jid: &BareJid) -> bool {
        let asked = self.pending.contains(&id) || self.subscriptions.iter().any(|s| s.jid == *jid && !s.given);
        asked && matches!(self.kind(jid.domain().as_str()), None | Some(ServerKind::Prosody))
    }

    /// Puts questions again that may be asked by a probe after all.
    fn release(&mut self, may: impl Fn(&Inquiry) -> bool) {
        for id in self.pending.clone() {
            let Some(inquiry) = self.inquiries.get_mut(&id).filter(|inquiry| may(inquiry)) else { continue };
            inquiry.set_pending(false);
            await_reply(inquiry, Slot::Ping);
            // The pong that is still out would belong to the first round.
            self.sent.retain(|_, sent| !sent.topic.forget(id));
            self.pending.remove(&id);
            self.fresh.push(id);
        }
    }

    /// One ping for all questions about a domain, behind everything else that goes there.
    fn write_domain(&mut self, domain: BareJid, ids: Vec<u64>, out: &mut String) {
        let persons = ids.iter().any(|id| self.inquiries.get(id).is_some_and(Inquiry::is_person));
        let asked = self.sent.values().any(|sent| sent.to == domain && matches!(sent.topic, Topic::Version));
        if persons && !asked && self.kind(domain.as_str()).is_none() {
            self.query(domain.clone(), Query::Version, Topic::Version, out);
        }
        self.query(domain, Query::Ping, Topic::Slot(Slot::Ping, ids), out);
    }

    fn query(&mut self, to: BareJid, query: Query, topic: Topic, out: &mut String) {
        if let Topic::Slot(slot, ids) = &topic {
            for id in ids {
                self.inquiries.entry(*id).and_modify(|inquiry| await_reply(inquiry, *slot));
            }
        }
        let id = self.next_id();
        out.push_str(&self.sender.query(&to, &id, query));
        self.sent.insert(id, Sent { to, topic });
    }

    fn next_id(&mut self) -> String {
        self.counter += 1;
        format!("q{}", self.counter)
    }

    /// To whom `to` speaks; the bare JID is ours already.
    pub fn address(&self, to: &Jid) -> Address {
        match &self.sender.from {
            Some(ours) if *to != *ours => Address::Everybody,
            _ => Address::Ours,
        }
    }

    /// Takes one stanza that was addressed to us; an answer we owe goes to `out`.
    pub fn hear(&mut self, heard: Heard, address: Address, now: Instant, out: &mut String) {
        match heard {
            Heard::Available { from, resource } if address == Address::Everybody => {
                self.about(&from.to_bare(), |inquiry| inquiry.pushed(resource.clone(), now));
            }
            Heard::Available { from, resource } => {
                self.about(&from.to_bare(), |inquiry| inquiry.available(resource.clone(), now));
            }
            Heard::Unavailable { from, texts } => {
                let (bare, name) = (from.to_bare(), from.resource().map(|r| r.as_str()).unwrap_or_default());
                // COMPAT: Prosody acknowledges a request for consent like this, even to somebody who does not exist.
                let asked = self.subscriptions.iter().any(|s| s.jid == bare && !s.given);
                if !(asked && name.is_empty()) {
                    self.about(&bare, |inquiry| inquiry.unavailable(name, texts.clone(), now));
                }
            }
            Heard::Unsubscribed { from } => {
                let bare = from.to_bare();
                self.subscriptions.iter_mut().filter(|s| s.jid == bare).for_each(|s| s.refused = true);
                self.about(&bare, |inquiry| inquiry.unsubscribed(now));
            }
            Heard::Subscribed { from } => {
                let bare = from.to_bare();
                self.subscriptions.iter_mut().filter(|s| s.jid == bare).for_each(|s| s.given = true);
                self.release(|inquiry| inquiry.jid == bare);
            }
            Heard::PresenceError { from, condition } => {
                let (bare, lost) = (from.to_bare(), condition == Condition::Unreachable);
                self.subscriptions.iter_mut().filter(|s| s.jid == bare).for_each(|s| s.lost |= lost);
                self.about(&bare, |inquiry| inquiry.presence_error(condition, now));
            }
            Heard::Reply { from: Some(from), id, outcome } => {
                let expected = self.sent.get(&id).is_some_and(|sent| from == sent.to);
                if let Some(sent) = expected.then(|| self.sent.remove(&id)).flatten() {
                    self.reply(sent, outcome, now);
                }
            }
            Heard::Request { from, id, payload } => out.push_str(&self.sender.reply(from, id, &payload)),
            Heard::Reply { from: None, .. } | Heard::Other => {}
        }
    }

    fn about(&mut self, jid: &BareJid, tell: impl Fn(&mut Inquiry)) {
        self.inquiries.values_mut().filter(|inquiry| inquiry.jid == *jid).for_each(tell);
    }

    fn reply(&mut self, sent: Sent, outcome: Result<Option<Element>, Condition>, now: Instant) {
        match sent.topic {
            Topic::Slot(slot, ids) => {
                for id in ids {
                    let outcome = outcome.as_ref().map(Option::as_ref).map_err(|condition| *condition);
                    self.inquiries.entry(id).and_modify(|inquiry| inquiry.reply(slot, outcome, now));
                }
                self.release(Inquiry::is_answered_by_info);
            }
            // Out of reach, it has not said what it is: it is asked again next time.
            Topic::Version if outcome == Err(Condition::Unreachable) => {}
            Topic::Version => {
                let kind = outcome.ok().flatten().map_or(ServerKind::Other, software);
                self.facts.server_mut(sent.to.as_str()).kind = Some(kind);
                let harmless = self.kind(sent.to.as_str()) != Some(ServerKind::Prosody);
                self.release(|inquiry| harmless && inquiry.jid.domain() == sent.to.domain());
            }
            Topic::Subscription(id) => {
                for subscription in self.subscriptions.iter_mut().filter(|s| s.id == id) {
                    subscription.pong = Some(now);
                    subscription.lost |= outcome == Err(Condition::Unreachable);
                }
            }
        }
    }

    /// When the next answer may be ready without anything coming in.
    pub fn next_judgement(&self, now: Instant) -> Option<Instant> {
        let inquiries =
            self.inquiries.values().map(|inquiry| match inquiry.verdict(self.circumstances(inquiry, now)) {
                Ok(_) => now,
                Err(later) => later,
            });
        inquiries.chain(self.subscriptions.iter().map(|s| s.settles(now))).min()
    }

    pub fn answers(&mut self, now: Instant) -> Vec<(u64, Result<Answer, Failure>)> {
        let judged = |(id, inquiry): (&u64, &Inquiry)| {
            let verdict = inquiry.verdict(self.circumstances(inquiry, now));
            verdict.ok().map(|answer| (*id, answer))
        };
        let ready: Vec<_> = self.inquiries.iter().filter_map(judged).collect();
        for (id, answer) in &ready {
            let Some(inquiry) = self.inquiries.remove(id) else { continue };
            self.pending.remove(id);
            self.sent.retain(|_, sent| !sent.topic.forget(*id));
            // A server that has not said in time what it is will be asked again.
            let domain = domain_of(&inquiry.jid);
            let overdue = inquiry.is_overdue(now);
            self.sent.retain(|_, sent| !(overdue && sent.to == domain && matches!(sent.topic, Topic::Version)));
            match answer {
                Ok(answer) if answer.presence.state == State::Forbidden => self.facts.forget_consent(&inquiry.jid),
                Ok(_) if inquiry.proves_consent() => self.facts.learn_consent(&inquiry.jid, now),
                _ => {}
            }
        }
        ready
    }

    pub fn consents(&mut self, now: Instant) -> Vec<(u64, Result<Consent, Failure>)> {
        let settled = self.subscriptions.extract_if(.., |s| s.settles(now) <= now);
        settled.map(|s| (s.id, s.outcome())).collect()
    }

    fn circumstances(&self, inquiry: &Inquiry, now: Instant) -> Circumstances {
        // A host's silence means the same on every server.
        let kind = if inquiry.is_person() { self.kind(inquiry.jid.domain().as_str()) } else { Some(ServerKind::Other) };
        // COMPAT: Openfire and jabberd2 leave the probes of an account that shows itself to nobody unanswered.
        let heeded = self.spared.is_none() || matches!(kind, Some(ServerKind::Prosody | ServerKind::Ejabberd));
        Circumstances { kind, heeded, consented: self.facts.consented(&inquiry.jid, now), rule: self.rule, now }
    }

    /// The configuration speaks for our own server, experience for all others.
    fn kind(&self, domain: &str) -> Option<ServerKind> {
        let configured = self.configured.filter(|_| self.is_own(domain));
        configured.or_else(|| self.facts.server(domain).kind)
    }

    fn is_own(&self, domain: &str) -> bool {
        let home = self.home.as_str();
        domain == home || domain.strip_suffix(home).is_some_and(|rest| rest.ends_with('.'))
    }
}

impl Topic {
    /// Drops an inquiry that is over; true if nobody is left who wants the reply.
    fn forget(&mut self, id: u64) -> bool {
        match self {
            Topic::Slot(_, ids) => {
                ids.retain(|other| *other != id);
                ids.is_empty()
            }
            Topic::Version | Topic::Subscription(_) => false,
        }
    }
}

impl Subscription {
    /// When the outcome is known: an approval may follow the pong where the order is not kept.
    fn settles(&self, now: Instant) -> Instant {
        match self.pong {
            _ if self.given || self.refused || self.lost => now,
            Some(pong) => (pong + GRACE).min(self.until),
            None => self.until,
        }
    }

    fn outcome(&self) -> Result<Consent, Failure> {
        match (self.given, self.pong) {
            (true, _) => Ok(Consent::Given),
            _ if self.refused => Ok(Consent::Refused),
            _ if self.lost => Err(Failure::RemoteUnreachable),
            (false, Some(_)) => Ok(Consent::Asked),
            (false, None) => Err(Failure::Silent),
        }
    }
}

fn await_reply(inquiry: &mut Inquiry, slot: Slot) {
    match slot {
        Slot::Ping => inquiry.ping = Reply::Awaited,
        Slot::Home => inquiry.home = Reply::Awaited,
        Slot::Last => inquiry.last = Reply::Awaited,
        Slot::Info => inquiry.info = Reply::Awaited,
    }
}

fn domain_of(jid: &BareJid) -> BareJid {
    BareJid::from_parts(None, jid.domain())
}

/// Which software an answer to XEP-0092 names.
fn software(payload: Element) -> ServerKind {
    let name = VersionResult::try_from(payload).map(|version| version.name.to_lowercase()).unwrap_or_default();
    let known =
        [("prosody", ServerKind::Prosody), ("ejabberd", ServerKind::Ejabberd), ("openfire", ServerKind::Openfire)];
    known.into_iter().find(|(word, _)| name.contains(word)).map_or(ServerKind::Other, |(_, kind)| kind)
}
