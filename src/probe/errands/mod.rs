//! The questions of a session: written as stanzas, matched with what comes in, judged. A batch of questions is one
//! write: the probes first, the pings last, since on ordered servers a pong means that everything before it came.
//! Here is what a session is to find out; `write` puts it into stanzas, `spare` sees to it that no more go out than must,
//! `hear` takes what comes in, `judge` decides when a question is answered.

mod echo;
mod hear;
mod judge;
mod spare;
mod topic;
mod write;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jid::{BareJid, FullJid};
use tokio::time::Instant;
use xmpp_parsers::minidom::Element;

use echo::Echo;
pub use hear::Address;
use spare::Spare;
use topic::{Sent, Topic};

use super::avatar::{self, AVATAR_BYTES, Avatars, Part};
use super::errand::Roster;
use super::facts::Facts;
use super::guests::Guests;
use super::inquiry::{Inquiry, Reply};
use super::own::{Clients, Own};
use super::requests::{Requests, Wish};
use super::standing::{Standing, Times};
use super::stanza::{Query, Sender, WELCOMING_PRESENCE};
use super::stream::STANZA_LIMIT;
use super::watch::{Changes, Watch};
use super::{Clock, Event};
use crate::config::{DomainPattern, Identity, ServerKind, Visibility};
use crate::presence::Rule;
use crate::viewers::Viewers;

/// Bytes that each question may bring in.
pub const QUESTION_BYTES: usize = 64 * 1024;
/// Bytes of the rosters whose questions are still open. What comes beyond it is not read.
const ROSTERS_BYTES: usize = 16 * 1024 * 1024;

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

/// How long a server may take to hand over what has waited for an account: requests, and what people wrote to it.
const HANDING_OVER: Duration = Duration::from_secs(1);

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
}
