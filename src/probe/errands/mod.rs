//! The questions of a session: written as stanzas, matched with what comes in, judged. A batch of questions is one
//! write: the probes first, the pings last, since on ordered servers a pong means that everything before it came.
//! Here is what goes out; `spare` sees to it that no more does than must, `hear` takes what comes in, `judge` decides when
//! a question is answered.

mod echo;
mod hear;
mod judge;
mod spare;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jid::{BareJid, FullJid};
use tokio::time::Instant;
use xmpp_parsers::minidom::Element;

use echo::Echo;
pub use hear::Address;
use spare::{Spare, Turn};

use super::avatar::{self, AVATAR_BYTES, AVATAR_STANZA_LIMIT, Avatars, Part};
use super::errand::Roster;
use super::facts::Facts;
use super::guests::Guests;
use super::inquiry::{Inquiry, Reply, Slot};
use super::own::{Clients, Own};
use super::requests::{Requests, Wish};
use super::standing::{Standing, Times};
use super::stanza::{Condition, INITIAL_PRESENCE, Query, Sender, WELCOMING_PRESENCE};
use super::stream::STANZA_LIMIT;
use super::watch::{Changes, Watch};
use super::{Clock, Event};
use crate::config::{DomainPattern, Identity, ServerKind, Visibility};
use crate::presence::Rule;
use crate::viewers::Viewers;

/// Bytes that each question may bring in.
pub const QUESTION_BYTES: usize = 64 * 1024;
/// Bytes of a stanza while a roster is awaited. What is longer is passed over.
pub const ROSTER_STANZA_LIMIT: usize = 2 * 1024 * 1024;
/// Bytes of the rosters whose questions are still open. What comes beyond it is not read.
const ROSTERS_BYTES: usize = 16 * 1024 * 1024;
/// Rosters that may still come when their questions are over.
const LATE_ROSTERS: usize = 256;

/// What people read who are asked for their consent: who will see what.
fn request(visibility: Visibility) -> &'static str {
    match visibility {
        Visibility::Anyone => {
            "If you accept, every visitor of a web page sees whether you are there, and your status text."
        }
        Visibility::Subscribers => {
            "If you accept, a web page shows whether you are there, and your status text, to those who see it in their \
             own clients."
        }
    }
}

/// How long a server that has let us read rosters before may take to say so again.
const GRANTING: Duration = Duration::from_millis(500);

/// How long a server may take to hand over what has waited for an account: requests, and what people wrote to it.
const HANDING_OVER: Duration = Duration::from_secs(1);

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
    /// The end of this request for consent.
    Request(u64),
    /// Which clients of our own account are connected.
    Items(u64),
    /// Who may see our own account.
    OwnRoster(u64),
    /// The end of the question about ourselves.
    Own(u64),
    /// An account's own contacts.
    Contacts,
    /// The time of our own server.
    Time(u64),
    /// Of a picture that is fetched.
    Picture(Part, u64),
    /// Whether the server of people who are watched is there.
    Knock,
}

/// All that one session has to find out.
pub struct Errands {
    us: BareJid,
    sender: Sender,
    facts: Facts,
    clock: Clock,
    rule: Rule,
    request: &'static str,
    /// Our own server.
    home: BareJid,
    served: Vec<DomainPattern>,
    /// An account's own server, which must not be probed: Openfire drops the client that does.
    spared: Option<BareJid>,
    configured: Option<ServerKind>,
    visible: bool,
    /// Offers to be shown are taken.
    accepts: bool,
    /// An account's own address, once the server has given it.
    bound: Option<FullJid>,
    /// An account's initial presence is out.
    appeared: bool,
    hands_over_until: Option<Instant>,
    /// An account's contacts who let us see them, once they were asked for and came.
    contacts: Option<HashSet<BareJid>>,
    contacts_awaited: bool,
    /// Put, but not written yet.
    fresh: Vec<u64>,
    spare: Spare,
    /// About people whom we have asked for consent, and who may not be probed before they have given it.
    pending: HashSet<u64>,
    inquiries: HashMap<u64, Inquiry>,
    own: HashMap<u64, Own>,
    clients: Clients,
    requests: Requests,
    times: Times,
    /// The domains that let us read rosters (XEP-0356), as far as this session has heard.
    granted: HashSet<String>,
    /// Until when the word of our own server is waited for that grants them again.
    granting_until: Option<Instant>,
    avatars: Avatars,
    /// People whom we asked back without waiting for an answer.
    asked_back: HashSet<BareJid>,
    guests: Guests,
    watch: Watch,
    events: Vec<Event>,
    /// Stanzas that are not questions about presence and not written yet.
    unsent: String,
    sent: HashMap<String, Sent>,
    counter: u64,
    /// Bytes that what was asked may bring in.
    allowance: usize,
    /// Questions wait until it is over.
    echo: Option<Echo>,
}

impl Errands {
    pub fn new(identity: &Identity, sender: Sender, mut facts: Facts, clock: Clock) -> Errands {
        facts.doubt_old_kinds(clock.epoch_s);
        Errands {
            us: identity.jid.clone(),
            sender,
            facts,
            clock,
            rule: identity.rule,
            request: request(identity.access.visibility),
            home: identity.home(),
            served: identity.access.domains.clone(),
            spared: (!identity.is_component()).then(|| domain_of(&identity.jid)),
            configured: identity.server,
            visible: identity.visible,
            accepts: identity.accept_subscriptions,
            bound: None,
            appeared: false,
            hands_over_until: None,
            contacts: None,
            contacts_awaited: false,
            fresh: Vec::new(),
            spare: Spare::default(),
            pending: HashSet::new(),
            inquiries: HashMap::new(),
            own: HashMap::new(),
            clients: Clients::default(),
            requests: Requests::default(),
            times: Times::default(),
            granted: HashSet::new(),
            granting_until: None,
            avatars: Avatars::default(),
            asked_back: HashSet::new(),
            guests: Guests::of(identity),
            watch: Watch::new(identity.rule),
            events: Vec::new(),
            unsent: String::new(),
            sent: HashMap::new(),
            counter: 0,
            allowance: 0,
            echo: None,
        }
    }

    /// What is answered from the watch is no older than an answer that counts as fresh.
    pub fn keep_within(&mut self, ttl: Duration) {
        self.watch.keep_within(ttl);
    }

    /// Another connection of this component may count still: nothing is asked before all that is ours comes here.
    pub fn doubt(&mut self) {
        self.echo = self.sender.from.as_ref().map(|_| Echo::default());
    }

    /// It was not found out whether another one counts.
    pub fn is_in_doubt(&self) -> bool {
        self.echo.is_some()
    }

    /// The server has given this account session its address.
    pub fn bound(&mut self, jid: Option<FullJid>) {
        self.bound = jid;
    }

    pub fn ask_pending(&mut self, id: u64, jid: BareJid, roster: Roster, until: Instant) {
        self.pending.insert(id);
        self.ask(id, jid, roster, until);
    }

    pub fn ask(&mut self, id: u64, jid: BareJid, roster: Roster, until: Instant) {
        self.allowance += QUESTION_BYTES;
        if jid == self.us && jid.node().is_some() {
            self.ask_ourselves(id, roster, until);
            return;
        }
        // Where our server cannot reach itself, it does not serve the domain: nobody there is known to be offline.
        let hosted = jid.domain() != self.home.domain() && self.is_own(jid.domain().as_str());
        let is_unreadable = self.facts.is_unreadable(&jid, until);
        let mut inquiry = Inquiry::new(jid, roster, hosted, until);
        inquiry.set_unreadable(is_unreadable);
        self.inquiries.insert(id, inquiry);
        self.fresh.push(id);
    }

    /// As `ask`, about somebody whom everybody may see: what his server has told since it was asked is as good.
    pub fn ask_watched(&mut self, id: u64, jid: BareJid, until: Instant) {
        self.ask(id, jid, Roster::Unwanted, until);
        if self.inquiries.contains_key(&id) {
            self.spare.may_recall(id);
        }
    }

    fn ask_ourselves(&mut self, id: u64, roster: Roster, until: Instant) {
        if !self.appeared && self.own.is_empty() {
            // Nobody has told what became of those that showed themselves before.
            self.clients = Clients::default();
        }
        let viewers = match roster {
            Roster::Unwanted => Reply::NotAsked,
            Roster::Wanted if self.facts.is_unreadable(&self.us, until) => Reply::Result(Viewers::default()),
            Roster::Wanted => Reply::Awaited,
        };
        let is_asked = viewers.is_awaited();
        self.own.insert(id, Own::listing(self.us.clone(), viewers, until));
        self.send(self.us.clone(), Query::Items, Topic::Items(id));
        if is_asked {
            self.send(self.us.clone(), Query::Roster, Topic::OwnRoster(id));
        }
    }

    /// Makes an account visible: its contacts' presences come in.
    fn appear(&mut self, presence: &str) {
        if self.spared.is_some() && !std::mem::replace(&mut self.appeared, true) {
            // Of changes before nothing was told.
            self.watch.doubt_everybody();
            self.unsent.push_str(presence);
        }
    }

    /// An account that takes offers appears now and then: its server keeps them until it does.
    pub fn collect(&mut self, now: Instant) {
        if self.accepts && self.spared.is_some() && !self.appeared && self.facts.is_time_to_collect(now) {
            self.appear(WELCOMING_PRESENCE);
            self.hands_over_until = Some(now + HANDING_OVER);
        }
    }

    /// Until when what waited may come in; a session that ended earlier would lose it.
    pub fn hands_over_until(&self) -> Option<Instant> {
        self.hands_over_until
    }

    /// In a session that is held for those who come, an account that takes offers is there for all of it.
    pub fn appear_to_listen(&mut self) {
        if self.accepts {
            self.appear(WELCOMING_PRESENCE);
        }
    }

    pub fn subscribe(&mut self, id: u64, jid: BareJid, until: Instant) {
        self.unsent.push_str(&self.sender.subscribe(&jid, self.request));
        self.request(id, jid, Wish::See, until);
    }

    pub fn unsubscribe(&mut self, id: u64, jid: BareJid, until: Instant) {
        self.unsent.push_str(&self.sender.unsubscribe(&jid));
        self.withdrawn(&jid);
        self.request(id, jid, Wish::Leave, until);
    }

    fn request(&mut self, id: u64, jid: BareJid, wish: Wish, until: Instant) {
        self.allowance += QUESTION_BYTES;
        self.send(domain_of(&jid), Query::Ping, Topic::Request(id));
        self.requests.put(id, jid, wish, until);
    }

    /// Asks how we stand with our own server.
    pub fn ask_standing(&mut self, id: u64, until: Instant) {
        self.allowance += QUESTION_BYTES;
        self.send(self.home.clone(), Query::Time, Topic::Time(id));
        self.times.put(id, until);
    }

    /// What was asked about it, as far as it is known or no longer waited for.
    pub fn standings(&mut self, now: Instant) -> Vec<(u64, Standing)> {
        let (grants_rosters, seen) = (self.granted.contains(self.home.as_str()), self.facts.seen(now));
        let settled = self.times.settled(now).into_iter();
        settled.map(|(id, time_s)| (id, Standing { time_s, grants_rosters, seen })).collect()
    }

    /// Fetches the picture of somebody whose presence was allowed.
    pub fn fetch_picture(&mut self, id: u64, jid: BareJid, until: Instant) {
        self.allowance += AVATAR_BYTES;
        self.request_picture(jid.clone(), Part::Metadata, id, avatar::metadata_request());
        self.request_picture(jid.clone(), Part::Vcard, id, avatar::vcard_request());
        self.avatars.begin(id, jid, until);
    }

    fn request_picture(&mut self, to: BareJid, part: Part, id: u64, payload: Element) {
        let number = self.next_id();
        self.unsent.push_str(&self.sender.get(&to, &number, payload));
        self.sent.insert(number, Sent { to, topic: Topic::Picture(part, id) });
    }

    /// Something waits for the next write.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Lets somebody in who offered to be shown.
    pub fn welcome(&mut self, jid: &BareJid) {
        self.unsent.push_str(&self.sender.subscribed(jid));
    }

    /// Asks somebody for consent who has offered it; the answer may come at any time.
    pub fn ask_back(&mut self, jid: &BareJid) {
        self.unsent.push_str(&self.sender.subscribe(jid, self.request));
        self.asked_back.insert(jid.clone());
    }

    /// Tells somebody something in words.
    pub fn say(&mut self, jid: &BareJid, text: &str) {
        self.unsent.push_str(&self.sender.message(jid, text));
    }

    /// Bytes that what was asked so far may bring in.
    pub fn allowance(&self) -> usize {
        self.allowance
    }

    /// The most bytes of an answer that is awaited.
    pub fn stanza_limit(&self) -> usize {
        self.sent.values().map(|sent| sent.topic.limit()).max().unwrap_or(STANZA_LIMIT)
    }

    pub fn into_facts(self) -> Facts {
        self.facts
    }

    /// How long the session has been going on.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.clock.at)
    }

    pub fn facts_mut(&mut self) -> &mut Facts {
        &mut self.facts
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What happened without a question since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

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
    /// who have consent, and to nobody else: that disturbs no one, and the probe follows when it says yes. All else is as
    /// for everybody, so that nobody can tell by the time whose request is out.
    fn write_pending(&mut self, id: u64, jid: &BareJid, out: &mut String) {
        self.pending.insert(id);
        self.inquiries.entry(id).and_modify(Inquiry::put_without_probe);
        self.write_queries(id, jid, out);
        self.write_info(id, jid, out);
    }

    /// Our request for consent is out, from before or in this session, and the server may be one that deletes it.
    fn is_pending(&self, id: u64, jid: &BareJid) -> bool {
        let asked = self.pending.contains(&id) || self.is_asked(jid);
        asked && matches!(self.kind(jid.domain().as_str()), None | Some(ServerKind::Prosody))
    }

    fn is_asked(&self, jid: &BareJid) -> bool {
        self.requests.is_out(jid) || self.asked_back.contains(jid)
    }

    /// XEP-0356 was granted there, and the roster is wanted for others or tells more than the server's silence does.
    /// Prosody's grants hold from the handshake on, so that an earlier session's word will do.
    fn reads_roster(&self, inquiry: &Inquiry) -> bool {
        let domain = inquiry.jid.domain().as_str();
        let is_prosody = self.kind(domain) == Some(ServerKind::Prosody);
        let is_needed = inquiry.viewers == Roster::Wanted || !is_prosody;
        let is_granted = self.granted.contains(domain) || is_prosody && self.facts.server(domain).roster;
        let may_ask = inquiry.roster == Reply::NotAsked && !inquiry.is_unreadable();
        inquiry.is_person() && self.spared.is_none() && is_needed && is_granted && may_ask
    }

    /// Only the server itself can grant it: rosters are its own. It says so in every session, behind the handshake.
    fn grants_rosters(&mut self, domain: &str, roster: bool) {
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
    fn may_not_read_rosters(&mut self, domain: &str) {
        if !self.granted.contains(domain) && self.facts.server(domain).roster {
            self.facts.server_mut(domain).roster = false;
        }
    }

    /// Puts questions again that may be asked by a probe after all.
    fn release(&mut self, may: impl Fn(&Inquiry) -> bool) {
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

    fn query(&mut self, to: BareJid, query: Query, topic: Topic, out: &mut String) {
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
    fn send(&mut self, to: BareJid, query: Query, topic: Topic) {
        let mut unsent = std::mem::take(&mut self.unsent);
        self.query(to, query, topic, &mut unsent);
        self.unsent = unsent;
    }

    fn next_id(&mut self) -> String {
        self.counter += 1;
        format!("q{}", self.counter)
    }

    /// The configuration speaks for our own server, experience for all others.
    fn kind(&self, domain: &str) -> Option<ServerKind> {
        let configured = self.configured.filter(|_| self.is_own(domain));
        configured.or_else(|| self.facts.server(domain).kind)
    }

    /// Whom this identity speaks for: our own server, and what the configuration adds.
    fn is_served(&self, domain: &str) -> bool {
        self.is_own(domain) || self.served.iter().any(|pattern| pattern.holds(domain))
    }

    /// Whether changes come by themselves from there, to be relied on (measured: Prosody 0.12 and 13, ejabberd 23 and 24).
    fn changes(&self, domain: &str) -> Changes {
        let is_reliable = matches!(self.kind(self.home.as_str()), Some(ServerKind::Prosody | ServerKind::Ejabberd));
        // Of an account that shows itself to nobody, nobody is told anything.
        let is_told = self.spared.is_none() || self.appeared;
        match self.kind(domain) {
            Some(ServerKind::Prosody) if is_told && is_reliable && self.is_own(domain) => Changes::Told,
            Some(ServerKind::Prosody | ServerKind::Ejabberd) if is_told && is_reliable => Changes::MostlyTold,
            _ => Changes::Untold,
        }
    }

    fn is_own(&self, domain: &str) -> bool {
        let home = self.home.as_str();
        domain == home || domain.strip_suffix(home).is_some_and(|rest| rest.ends_with('.'))
    }
}

impl Topic {
    /// Drops an inquiry that is over; true if nobody is left who wants the reply, or has to know it.
    fn forget(&mut self, id: u64) -> bool {
        match self {
            Topic::Slot(slot, ids) => {
                ids.retain(|other| *other != id);
                ids.is_empty() && *slot != Slot::Roster
            }
            Topic::Picture(_, other) => *other == id,
            Topic::Version | Topic::Request(_) | Topic::Time(_) | Topic::Knock => false,
            Topic::Items(_) | Topic::OwnRoster(_) | Topic::Own(_) | Topic::Contacts => false,
        }
    }

    fn is_roster(&self) -> bool {
        matches!(self, Topic::Contacts | Topic::OwnRoster(_) | Topic::Slot(Slot::Roster, _))
    }

    /// Nobody wants it any more.
    fn is_late_roster(&self) -> bool {
        matches!(self, Topic::Slot(Slot::Roster, ids) if ids.is_empty())
    }

    /// The most bytes of the answer that are kept.
    fn limit(&self) -> usize {
        match self {
            Topic::Picture(..) => AVATAR_STANZA_LIMIT,
            late if late.is_late_roster() => STANZA_LIMIT,
            Topic::Contacts | Topic::OwnRoster(_) | Topic::Slot(Slot::Roster, _) => ROSTER_STANZA_LIMIT,
            Topic::Slot(..) | Topic::Version | Topic::Time(_) => STANZA_LIMIT,
            Topic::Request(_) | Topic::Items(_) | Topic::Own(_) | Topic::Knock => STANZA_LIMIT,
        }
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

fn domain_of(jid: &BareJid) -> BareJid {
    BareJid::from_parts(None, jid.domain())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    pub(super) fn jid(text: &str) -> BareJid {
        BareJid::new(text).expect("a bare JID")
    }

    /// Of a component that may be told which server it is at.
    pub(super) fn errands_at(server: &str, facts: Facts, now: Instant) -> Errands {
        let text = format!("[xmpp]\njid = presence.example.com\npassword = secret\nserver = {server}\n");
        let identity = config::parse(&text, Path::new("test.ini")).expect("a configuration").identities.remove(0);
        Errands::new(&identity, Sender { from: None }, facts, Clock { at: now, epoch_s: 0 })
    }

    pub(super) fn errands(now: Instant) -> Errands {
        errands_at("prosody", Facts::default(), now)
    }

    pub(super) fn written(errands: &mut Errands, now: Instant) -> String {
        let mut said = String::new();
        errands.write(&mut said, now);
        said
    }

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
