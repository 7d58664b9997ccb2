//! The questions of a session as stanzas: what is asked about whom, together with what, and what waits. Nobody is asked
//! about in another way than everybody else of his server, but for those whom a probe would harm.

use std::time::Duration;

use jid::BareJid;
use tokio::time::Instant;

use super::spare::Turn;
use super::topic::{Sent, Topic};
use super::{Errands, domain_of};
use crate::config::ServerKind;
use crate::probe::errand::Roster;
use crate::probe::inquiry::{Inquiry, Reply, Slot};
use crate::probe::stanza::{Condition, INITIAL_PRESENCE, Query};

/// How long a server that has let us read rosters before may take to say so again.
const GRANTING: Duration = Duration::from_millis(500);
/// Rosters that may still come when their questions are over.
const LATE_ROSTERS: usize = 256;

impl Errands {
    /// Writes everything that was put since the last call.
    pub fn write(&mut self, out: &mut String, now: Instant) {
        if self.asks_ourselves(out, now) || self.awaits_grant(now) {
            return;
        }
        if self.facts.server(self.home.as_str()).wants_presence {
            self.collect(now);
            self.appear(INITIAL_PRESENCE);
        }
        self.appear_where_nobody_heeds(now);
        self.ask_for_contacts(now);
        out.push_str(&std::mem::take(&mut self.unsent));
        self.times.sent(now);
        let fresh = self.fresh_and_reachable(now);
        let fresh = self.not_to_be_spared(fresh, now);
        if !fresh.is_empty() {
            self.write_batch(fresh, out, now);
        }
        out.push_str(&std::mem::take(&mut self.unsent));
    }

    fn write_batch(&mut self, batch: Vec<u64>, out: &mut String, now: Instant) {
        let mut domains: Vec<(BareJid, Vec<u64>)> = Vec::new();
        let mut abroad = Vec::new();
        for (id, turn) in self.turns(batch, now) {
            let Some(jid) = self.inquiries.get(&id).map(|inquiry| inquiry.jid.clone()) else { continue };
            match turn {
                Turn::Behind(leader) => {
                    self.follow(id, leader);
                    continue;
                }
                Turn::With(leader) => self.follow(id, leader),
                Turn::Own if self.is_pending(id, &jid) => self.write_pending(id, &jid, out),
                Turn::Own => {
                    self.pending.remove(&id);
                    self.write_probe(id, &jid, out);
                }
            }
            let domain = domain_of(&jid);
            if domain != self.home {
                abroad.push(id);
            }
            match domains.iter_mut().find(|(known, _)| *known == domain) {
                Some((_, ids)) => ids.push(id),
                None => domains.push((domain, vec![id])),
            }
        }
        if domains.is_empty() {
            return;
        }
        // Whether an account's questions go out at all is up to its own server.
        if self.spared.is_some() {
            self.ask_version(self.home.clone(), out);
        }
        for (domain, ids) in domains {
            self.write_domain(domain, ids, out);
        }
        if !abroad.is_empty() {
            self.query(self.home.clone(), Query::Ping, Topic::Slot(Slot::Home, abroad), out);
        }
    }

    /// True as long as nobody else is to be asked.
    fn asks_ourselves(&mut self, out: &mut String, now: Instant) -> bool {
        self.echo.take_if(|echo| echo.is_over(now));
        let names = self.echo.as_mut().map(|echo| echo.round(now));
        names.iter().flatten().for_each(|name| out.push_str(&self.sender.echo(name)));
        self.echo.is_some()
    }

    /// COMPAT: ejabberd lets a component read rosters a moment after its handshake, and says so then. What comes earlier
    /// is refused, and one ejabberd drops every IQ until then. So nothing goes out before, where the grant is known.
    fn awaits_grant(&mut self, now: Instant) -> bool {
        let home = self.home.to_string();
        let is_told = self.granted.contains(&home) || self.kind(&home) == Some(ServerKind::Prosody);
        if is_told || self.sender.from.is_none() || !self.facts.server(&home).roster {
            self.granting_until = None;
            return false;
        }
        let is_over = *self.granting_until.get_or_insert(now + GRANTING) <= now;
        if is_over {
            self.granting_until = None;
            self.may_not_read_rosters(&home);
        }
        !is_over
    }

    /// Where silence means nothing by itself, the account's own roster tells who lets us see him.
    fn ask_for_contacts(&mut self, now: Instant) {
        let kind = self.kind(self.home.as_str());
        let telling = matches!(kind, Some(ServerKind::Prosody | ServerKind::Ejabberd));
        let is_readable = !self.facts.is_unreadable(&self.us, now);
        if self.appeared && !telling && is_readable && !std::mem::replace(&mut self.contacts_awaited, true) {
            self.send(self.us.clone(), Query::Roster, Topic::Contacts);
        }
    }

    /// What is to be written now. A server that could not be reached a moment ago is not asked again.
    fn fresh_and_reachable(&mut self, now: Instant) -> Vec<u64> {
        let (facts, inquiries) = (&self.facts, &mut self.inquiries);
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.retain(|id| {
            let Some(inquiry) = inquiries.get_mut(id) else { return false };
            let gone = facts.is_unreachable(inquiry.jid.domain().as_str(), now);
            if gone {
                inquiry.presence_error(Condition::Unreachable, now);
            }
            !gone
        });
        fresh
    }

    fn write_probe(&mut self, id: u64, jid: &BareJid, out: &mut String) {
        if self.spared.as_ref() != Some(jid) {
            out.push_str(&self.sender.probe(&jid.clone().into()));
        }
        self.inquiries.entry(id).and_modify(Inquiry::put);
        self.write_queries(id, jid, out);
        let is_told = self.inquiries.get(&id).is_some_and(|inquiry| inquiry.info.is_result());
        if !is_told && !self.tells_all_by_probe(jid) {
            self.write_info(id, jid, out);
        }
    }

    /// What goes with every question about a person.
    fn write_queries(&mut self, id: u64, jid: &BareJid, out: &mut String) {
        if self.inquiries.get(&id).is_some_and(|inquiry| self.reads_roster(inquiry)) {
            self.query(jid.clone(), Query::Roster, Topic::Slot(Slot::Roster, vec![id]), out);
        }
        if jid.node().is_some() {
            self.query(jid.clone(), Query::Last, Topic::Slot(Slot::Last, vec![id]), out);
        }
    }

    fn write_info(&mut self, id: u64, jid: &BareJid, out: &mut String) {
        self.query(jid.clone(), Query::Info, Topic::Slot(Slot::Info, vec![id]), out);
    }

    /// COMPAT: for whoever is asked about by XEP-0030 Prosody sets up a publish-subscribe service, which takes it longer
    /// than all else. There it says who is no person, and to the probe it says everything of those who have accounts: so
    /// that is left out where they have. Never for one person only, so that nobody can be told from another. A gateway
    /// below our own server may have rooms beside its people: that has to say itself that it is Prosody.
    fn tells_all_by_probe(&self, jid: &BareJid) -> bool {
        let server = self.facts.server(jid.domain().as_str());
        let kind = self.configured.filter(|_| jid.domain() == self.home.domain()).or(server.kind);
        jid.node().is_some() && kind == Some(ServerKind::Prosody) && server.has_accounts()
    }

    /// COMPAT: Prosody deletes a request for consent that is out when it sees a probe. But it answers XEP-0030 to those
    /// who have consent, and to nobody else: that disturbs no one, and the probe follows when it says yes. His refusal is
    /// told when everybody's is, so that nobody can tell by the time whose request is out.
    fn write_pending(&mut self, id: u64, jid: &BareJid, out: &mut String) {
        self.pending.insert(id);
        self.inquiries.entry(id).and_modify(Inquiry::put_without_probe);
        self.write_queries(id, jid, out);
        self.write_info(id, jid, out);
    }

    /// Our request for consent is out, from before or in this session, and the server may be one that deletes it.
    pub(super) fn is_pending(&self, id: u64, jid: &BareJid) -> bool {
        let asked = self.pending.contains(&id) || self.is_asked(jid);
        asked && matches!(self.kind(jid.domain().as_str()), None | Some(ServerKind::Prosody))
    }

    pub(super) fn is_asked(&self, jid: &BareJid) -> bool {
        self.requests.is_out(jid) || self.asked_back.contains(jid)
    }

    /// XEP-0356 was granted there, and the roster is wanted for others or tells more than the server's silence does.
    /// Prosody's grants hold from the handshake on, so that an earlier session's word will do.
    pub(super) fn reads_roster(&self, inquiry: &Inquiry) -> bool {
        let domain = inquiry.jid.domain().as_str();
        let is_prosody = self.kind(domain) == Some(ServerKind::Prosody);
        let is_needed = inquiry.viewers == Roster::Wanted || !is_prosody;
        let is_granted = self.granted.contains(domain) || is_prosody && self.facts.server(domain).roster;
        let may_ask = inquiry.roster == Reply::NotAsked && !inquiry.is_unreadable();
        inquiry.is_person() && self.spared.is_none() && is_needed && is_granted && may_ask
    }

    /// One ping for all questions about a domain, behind everything else that goes there.
    fn write_domain(&mut self, domain: BareJid, ids: Vec<u64>, out: &mut String) {
        let persons = ids.iter().any(|id| self.inquiries.get(id).is_some_and(Inquiry::is_person));
        if persons {
            self.ask_version(domain.clone(), out);
        }
        self.query(domain, Query::Ping, Topic::Slot(Slot::Ping, ids), out);
    }

    /// Asks a server what it is, unless that is known or asked.
    fn ask_version(&mut self, domain: BareJid, out: &mut String) {
        let asked = self.sent.values().any(|sent| sent.to == domain && matches!(sent.topic, Topic::Version));
        if !asked && self.kind(domain.as_str()).is_none() {
            self.query(domain, Query::Version, Topic::Version, out);
        }
    }

    pub(super) fn query(&mut self, to: BareJid, query: Query, topic: Topic, out: &mut String) {
        if let Topic::Slot(slot, ids) = &topic {
            for id in ids {
                self.inquiries.entry(*id).and_modify(|inquiry| await_reply(inquiry, *slot));
            }
        }
        if query == Query::Roster {
            self.forget_late_rosters();
        }
        let id = self.next_id();
        out.push_str(&self.sender.query(&to, &id, query));
        self.sent.insert(id, Sent { to, topic });
    }

    /// A roster that comes after all is passed over as long as it is known what it is. Not for ever: some never come.
    fn forget_late_rosters(&mut self) {
        if self.sent.values().filter(|sent| sent.topic.is_late_roster()).count() > LATE_ROSTERS {
            self.sent.retain(|_, sent| !sent.topic.is_late_roster());
        }
    }

    /// As `query`, with the next write.
    pub(super) fn send(&mut self, to: BareJid, query: Query, topic: Topic) {
        let mut unsent = std::mem::take(&mut self.unsent);
        self.query(to, query, topic, &mut unsent);
        self.unsent = unsent;
    }

    pub(super) fn next_id(&mut self) -> String {
        self.counter += 1;
        format!("q{}", self.counter)
    }
}

fn await_reply(inquiry: &mut Inquiry, slot: Slot) {
    match slot {
        Slot::Ping => inquiry.ping = Reply::Awaited,
        Slot::Home => inquiry.home = Reply::Awaited,
        Slot::Last => inquiry.last = Reply::Awaited,
        Slot::Info => inquiry.info = Reply::Awaited,
        Slot::Roster => inquiry.roster = Reply::Awaited,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{errands_at, jid, written};
    use super::*;
    use crate::probe::facts::Facts;

    /// What the address itself is asked, in the order of the stanzas.
    fn asked(said: &str, address: &str) -> Vec<&'static str> {
        let words = [("type='probe'", "probe"), ("jabber:iq:last", "last"), ("disco#info", "info")];
        let stanzas = said.split("to='").filter(|stanza| stanza.starts_with(&format!("{address}'")));
        stanzas
            .filter_map(|stanza| words.iter().find(|(sign, _)| stanza.contains(sign)))
            .map(|(_, word)| *word)
            .collect()
    }

    /// Prosody's people are asked for no XEP-0030 once it is known that they are people; everybody there is asked the
    /// same, but for those who may not be probed.
    #[test]
    fn what_everybody_is_asked() {
        use ServerKind::{Ejabberd, Openfire, Other, Prosody};
        const ALL: [&str; 3] = ["probe", "last", "info"];
        const SPARED: [&str; 2] = ["probe", "last"];
        const PENDING: [&str; 2] = ["last", "info"];
        let now = Instant::now();
        for (configured, told, accounts, address, people, pending) in [
            ("auto", None, false, "example.com", &ALL[..], &PENDING[..]),
            ("prosody", None, false, "example.com", &ALL, &PENDING),
            ("auto", Some(Prosody), false, "example.com", &ALL, &PENDING),
            ("prosody", None, true, "example.com", &SPARED, &PENDING),
            ("auto", Some(Prosody), true, "example.com", &SPARED, &PENDING),
            ("auto", Some(Prosody), true, "far.example", &SPARED, &PENDING),
            // There may be rooms beside the people of a gateway.
            ("prosody", None, true, "gateway.example.com", &ALL, &PENDING),
            ("prosody", Some(Prosody), true, "people.example.com", &SPARED, &PENDING),
            ("auto", None, true, "example.com", &ALL, &PENDING),
            ("auto", Some(Ejabberd), true, "example.com", &ALL, &ALL),
            ("auto", Some(Openfire), true, "example.com", &ALL, &ALL),
            ("auto", Some(Other), true, "example.com", &ALL, &ALL),
            ("ejabberd", Some(Prosody), true, "example.com", &ALL, &ALL),
        ] {
            let mut facts = Facts::default();
            told.iter().for_each(|kind| facts.learn_kind(address, *kind, 0));
            if accounts {
                facts.learn_accounts(address, 0);
            }
            let mut errands = errands_at(configured, facts, now);
            let until = now + Duration::from_secs(5);
            errands.ask(1, jid(&format!("bob@{address}")), Roster::Unwanted, until);
            errands.ask_pending(2, jid(&format!("carol@{address}")), Roster::Unwanted, until);
            errands.ask(3, jid(address), Roster::Unwanted, until);
            let said = written(&mut errands, now);
            let asked = ["bob@", "carol@", ""].map(|name| asked(&said, &format!("{name}{address}")));
            let expected = [people, pending, &["probe", "info"]];
            assert_eq!(asked, expected, "{configured} {told:?} {accounts} {address}: {said}");
        }
    }
}
