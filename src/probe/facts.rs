//! What sessions have taught about servers and people, and what the next session may build on. Bounded, since strangers
//! choose what is asked about. It can be written down and read by another process; files are not its business.

use std::collections::HashMap;
use std::time::Duration;

use jid::BareJid;
use serde::{Deserialize, Serialize, Serializer};
use tokio::time::Instant;

use super::account::Account;
use crate::config::ServerKind;

/// How long an answer proves that somebody consented.
const CONSENT: Duration = Duration::from_secs(24 * 3600);
/// How long a domain that our server could not reach is not asked about.
const UNREACHABLE: Duration = Duration::from_secs(30);
/// How long a roster that could not even be passed over is not asked for; longer than any question may take.
const UNREADABLE: Duration = Duration::from_secs(600);
/// How often, at the most, an account appears to collect requests: its contacts see it come and go.
const COLLECT: Duration = Duration::from_secs(300);
/// How long a server is taken for what it said it is.
const KIND_S: u64 = 24 * 3600;
/// Facts of one sort that are kept; over it the sort starts anew.
const LIMIT: usize = 10_000;
/// Of what is written down: what another form says is not understood, and forgotten.
const VERSION: u32 = 1;

/// See the module.
#[derive(Debug, Default)]
pub struct Facts {
    servers: HashMap<String, Server>,
    consents: HashMap<Box<str>, Instant>,
    /// When the account last appeared, to collect what waited for it.
    collected: Option<Instant>,
    /// Domains that our server could not reach, until when that is believed.
    unreachable: HashMap<String, Instant>,
    /// People whose rosters end sessions, until when nobody asks for them.
    unreadable: HashMap<BareJid, Instant>,
    /// Those that we log in to, so that no stranger adds to it.
    accounts: HashMap<BareJid, Account>,
}

/// What is known about the server of one domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Server {
    pub kind: Option<ServerKind>,
    /// When it said so, in seconds since 1970.
    kind_at_s: u64,
    /// It answers an account only once that has sent an initial presence.
    pub wants_presence: bool,
    /// It lets us read the rosters of its users (XEP-0356).
    pub roster: bool,
    /// It left a ping unanswered, and has answered none since.
    pub mute: bool,
    /// When it said of somebody that he has an account there (XEP-0030), in seconds since 1970.
    accounts_at_s: Option<u64>,
}

/// The form in which facts are written down. Times are seconds since 1970.
#[derive(Deserialize)]
struct Written {
    version: u32,
    servers: HashMap<String, Server>,
    consents: HashMap<Box<str>, u64>,
    #[serde(default)]
    collected: Option<u64>,
    #[serde(default)]
    accounts: HashMap<BareJid, Account>,
}

/// The same, borrowed.
#[derive(Serialize)]
struct Writing<'a> {
    version: u32,
    servers: &'a HashMap<String, Server>,
    consents: Seen<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    collected: Option<u64>,
    accounts: &'a HashMap<BareJid, Account>,
}

/// Who was seen, when, at the time of day that it is now: ten thousand people are not copied for that.
struct Seen<'a> {
    consents: &'a HashMap<Box<str>, Instant>,
    now: Instant,
    epoch_s: u64,
}

impl Seen<'_> {
    fn at_s(&self, at: Instant) -> u64 {
        self.epoch_s.saturating_sub(self.now.saturating_duration_since(at).as_secs())
    }
}

impl Serialize for Seen<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.consents.iter().map(|(jid, at)| (jid, self.at_s(*at))))
    }
}

impl Server {
    /// Whoever is asked about there has an account, or is nobody: people and rooms do not share a domain.
    pub fn has_accounts(&self) -> bool {
        self.accounts_at_s.is_some()
    }
}

impl Facts {
    /// What [`Facts::write`] wrote, where it is still understood. `now` is `epoch_s` seconds after 1970.
    pub fn read(text: &str, now: Instant, epoch_s: u64) -> Facts {
        let mut facts = Facts::default();
        facts.refresh(text, now, epoch_s);
        facts
    }

    /// As [`Facts::read`], replacing what was written down before; what is never written stays, and so does everything
    /// where the text is not understood.
    pub fn refresh(&mut self, text: &str, now: Instant, epoch_s: u64) {
        let Ok(Written { version: VERSION, servers, consents, collected, accounts }) = serde_json::from_str(text)
        else {
            return;
        };
        // What was in the future tells only that a clock was set.
        let at = |at_s| now.checked_sub(Duration::from_secs(epoch_s.checked_sub(at_s)?));
        let seen = |(jid, at_s)| at(at_s).map(|at| (jid, at));
        self.collected = collected.and_then(at);
        self.servers = servers;
        self.consents = consents.into_iter().filter_map(seen).collect();
        let mut before = std::mem::replace(&mut self.accounts, accounts);
        for (jid, account) in &mut self.accounts {
            account.token = account.token.take().filter(|token| !token.is_over(epoch_s));
            account.salted = before.remove(jid).and_then(|account| account.salted);
        }
    }

    pub fn write(&self, now: Instant, epoch_s: u64) -> String {
        let consents = Seen { consents: &self.consents, now, epoch_s };
        let (collected, accounts) = (self.collected.map(|at| consents.at_s(at)), &self.accounts);
        let writing = Writing { version: VERSION, servers: &self.servers, consents, collected, accounts };
        serde_json::to_string(&writing).expect("strings, numbers and maps with strings as keys")
    }

    /// What is known about a server; nothing of a stranger.
    pub fn server(&self, domain: &str) -> Server {
        self.servers.get(domain).cloned().unwrap_or_default()
    }

    /// The server of a domain has said what it is.
    pub fn learn_kind(&mut self, domain: &str, kind: ServerKind, epoch_s: u64) {
        let server = self.server_mut(domain);
        (server.kind, server.kind_at_s) = (Some(kind), epoch_s);
        // These two answer an account that nobody sees.
        server.wants_presence &= !matches!(kind, ServerKind::Prosody | ServerKind::Ejabberd);
    }

    /// Somebody of this domain has an account there.
    pub fn learn_accounts(&mut self, domain: &str, epoch_s: u64) {
        self.server_mut(domain).accounts_at_s.get_or_insert(epoch_s);
    }

    /// Another server may have taken the place of one that was asked long ago: it is asked again. To be called between
    /// questions only, since a question waits for what it asked itself.
    pub fn doubt_old_kinds(&mut self, epoch_s: u64) {
        let is_new = |at_s: u64| epoch_s.checked_sub(at_s).is_some_and(|age_s| age_s < KIND_S);
        for server in self.servers.values_mut() {
            server.kind = server.kind.filter(|_| is_new(server.kind_at_s));
            server.accounts_at_s = server.accounts_at_s.filter(|at_s| is_new(*at_s));
        }
    }

    /// To learn about a server.
    pub fn server_mut(&mut self, domain: &str) -> &mut Server {
        if self.servers.len() >= LIMIT && !self.servers.contains_key(domain) {
            self.servers.clear();
        }
        self.servers.entry(domain.to_owned()).or_default()
    }

    /// What the next login to an account may build on, and learns.
    pub fn account_mut(&mut self, jid: &BareJid) -> &mut Account {
        self.accounts.entry(jid.clone()).or_default()
    }

    /// True if it is time to collect what waits for the account; then it is taken as done.
    pub fn is_time_to_collect(&mut self, now: Instant) -> bool {
        let due = self.collected.is_none_or(|at| now.saturating_duration_since(at) >= COLLECT);
        if due {
            self.collected = Some(now);
        }
        due
    }

    /// Our server could not reach this domain a moment ago.
    pub fn is_unreachable(&self, domain: &str, now: Instant) -> bool {
        self.unreachable.get(domain).is_some_and(|until| now < *until)
    }

    pub fn learn_unreachable(&mut self, domain: &str, now: Instant) {
        if self.unreachable.len() >= LIMIT {
            self.unreachable.clear();
        }
        // What was said from memory prolongs nothing.
        if !self.is_unreachable(domain, now) {
            self.unreachable.insert(domain.to_owned(), now + UNREACHABLE);
        }
    }

    /// This roster ended a session not long before `at`.
    pub fn is_unreadable(&self, jid: &BareJid, at: Instant) -> bool {
        self.unreadable.get(jid).is_some_and(|until| at < *until)
    }

    pub fn learn_unreadable(&mut self, jid: &BareJid, now: Instant) {
        if self.unreadable.len() >= LIMIT {
            self.unreadable.clear();
        }
        self.unreadable.insert(jid.clone(), now + UNREADABLE);
    }

    /// Somebody was seen, within a day, and has not refused since.
    pub fn consented(&self, jid: &BareJid, now: Instant) -> bool {
        self.consents.get(jid.as_str()).is_some_and(|seen| is_recent(*seen, now))
    }

    /// How many people were seen within a day.
    pub fn seen(&self, now: Instant) -> usize {
        self.consents.values().filter(|seen| is_recent(**seen, now)).count()
    }

    pub fn learn_consent(&mut self, jid: &BareJid, now: Instant) {
        if self.consents.len() >= LIMIT {
            self.consents.clear();
        }
        self.consents.insert(jid.as_str().into(), now);
    }

    pub fn forget_consent(&mut self, jid: &BareJid) {
        self.consents.remove(jid.as_str());
    }
}

fn is_recent(seen: Instant, now: Instant) -> bool {
    now.saturating_duration_since(seen) < CONSENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consent_is_believed_for_a_day_and_never_past_a_refusal() {
        let (mut facts, now) = (Facts::default(), Instant::now());
        let bob = BareJid::new("bob@example.com").expect("a bare JID");
        assert!(!facts.consented(&bob, now));
        facts.learn_consent(&bob, now);
        assert!(facts.consented(&bob, now + CONSENT - Duration::from_secs(1)));
        assert!(!facts.consented(&bob, now + CONSENT));
        assert_eq!((facts.seen(now), facts.seen(now + CONSENT)), (1, 0));
        facts.forget_consent(&bob);
        assert!(!facts.consented(&bob, now));
    }

    #[test]
    fn strangers_cannot_make_it_grow() {
        let (mut facts, now) = (Facts::default(), Instant::now());
        for number in 0..LIMIT + 1 {
            facts.learn_kind(&format!("{number}.example"), ServerKind::Other, 0);
            facts.learn_consent(&BareJid::new(&format!("u@{number}.example")).expect("a bare JID"), now);
        }
        assert_eq!((facts.servers.len(), facts.consents.len()), (1, 1));
    }

    #[test]
    fn another_process_reads_what_was_written() {
        let (mut facts, now) = (Facts::default(), Instant::now());
        let bob = BareJid::new("bob@example.com").expect("a bare JID");
        facts.learn_kind("example.com", ServerKind::Ejabberd, 1_000_000);
        facts.learn_accounts("example.com", 1_000_000);
        facts.learn_consent(&bob, now);
        let text = facts.write(now + Duration::from_secs(60), 1_000_060);
        let later = Instant::now() + CONSENT;
        for (epoch_s, consented) in [(1_000_000, true), (1_086_399, true), (1_086_400, false), (999_999, false)] {
            let read = Facts::read(&text, later, epoch_s);
            assert_eq!(read.server("example.com"), facts.server("example.com"));
            assert_eq!(read.consented(&bob, later), consented, "{epoch_s}");
        }
    }

    #[test]
    fn an_account_is_kept_by_its_address_and_its_token_until_its_time_is_over() {
        let now = Instant::now();
        let jid = |text: &str| BareJid::new(text).expect("a bare JID");
        let account = r#"{"pace":"BoundFirst","token":{"mechanism":"HT-SHA-256-NONE","secret":"a","expires_s":60}}"#;
        let text =
            format!(r#"{{"version":1,"servers":{{}},"consents":{{}},"accounts":{{"a@example.com":{account}}}}}"#);
        let written = |epoch_s| {
            let mut facts = Facts::read(&text, now, epoch_s);
            facts.account_mut(&jid("a@example.com"));
            facts.write(now, epoch_s)
        };
        assert_eq!(written(59), text);
        assert_eq!(
            written(60),
            text.replace(r#","token":{"mechanism":"HT-SHA-256-NONE","secret":"a","expires_s":60}"#, "")
        );
        let older = text.replace(&format!(r#","accounts":{{"a@example.com":{account}}}"#), "");
        assert!(Facts::read(&older, now, 1).write(now, 1).contains(r#""accounts":{}"#), "{older}");
    }

    #[test]
    fn what_is_not_understood_is_forgotten() {
        let now = Instant::now();
        let mut facts = Facts::default();
        facts.learn_kind("example.com", ServerKind::Ejabberd, 1_000_000);
        let whole = facts.write(now, 7);
        for end in 0..whole.len() {
            assert_eq!(Facts::read(&whole[..end], now, 7).server("example.com"), Server::default(), "cut at {end}");
        }
        let other = whole.replace("\"version\":1", "\"version\":2");
        assert_eq!(Facts::read(&other, now, 7).server("example.com"), Server::default());
    }

    #[test]
    fn a_domain_out_of_reach_is_tried_again_after_a_while() {
        let (mut facts, now) = (Facts::default(), Instant::now());
        assert!(!facts.is_unreachable("far.example", now));
        facts.learn_unreachable("far.example", now);
        facts.learn_unreachable("far.example", now + UNREACHABLE / 2);
        assert!(facts.is_unreachable("far.example", now + UNREACHABLE - Duration::from_millis(1)));
        assert!(!facts.is_unreachable("far.example", now + UNREACHABLE));
    }

    #[test]
    fn a_roster_that_ended_a_session_is_asked_for_again_after_a_while() {
        let (mut facts, now) = (Facts::default(), Instant::now());
        let bob = BareJid::new("bob@example.com").expect("a bare JID");
        assert!(!facts.is_unreadable(&bob, now));
        facts.learn_unreadable(&bob, now);
        assert!(facts.is_unreadable(&bob, now + UNREADABLE - Duration::from_millis(1)));
        assert!(!facts.is_unreadable(&bob, now + UNREADABLE));
        for number in 0..LIMIT {
            facts.learn_unreadable(&BareJid::new(&format!("u{number}@example.com")).expect("a bare JID"), now);
        }
        assert!(facts.unreadable.len() < LIMIT, "strangers cannot make it grow");
    }

    #[test]
    fn requests_are_collected_now_and_then_by_whichever_process() {
        let (mut facts, now) = (Facts::default(), Instant::now());
        assert!(facts.is_time_to_collect(now) && !facts.is_time_to_collect(now));
        let mut other = Facts::read(&facts.write(now, 1_000_000), now, 1_000_000);
        assert!(!other.is_time_to_collect(now + COLLECT - Duration::from_secs(1)));
        assert!(other.is_time_to_collect(now + COLLECT) && !other.is_time_to_collect(now + COLLECT));
    }

    #[test]
    fn that_people_have_accounts_must_be_said_anew_every_day_and_older_files_do_not_tell() {
        let (mut facts, now) = (Facts::default(), Instant::now());
        facts.learn_accounts("example.com", 1_000_000);
        // What is said again on the same day adds nothing, and nothing is written for it.
        let written = facts.write(now, 0);
        facts.learn_accounts("example.com", 1_000_001);
        assert_eq!(facts.write(now, 0), written);
        for (epoch_s, known) in [(1_000_000 + KIND_S - 1, true), (1_000_000 + KIND_S, false)] {
            facts.doubt_old_kinds(epoch_s);
            assert_eq!(facts.server("example.com").has_accounts(), known, "{epoch_s}");
        }
        let older = written.replace(r#","accounts_at_s":1000000"#, "");
        assert_ne!(older, written);
        assert_eq!(Facts::read(&older, now, 0).server("example.com"), Server::default());
    }

    #[test]
    fn what_a_server_is_must_be_said_anew_every_day() {
        let mut facts = Facts::default();
        facts.server_mut("example.com").wants_presence = true;
        facts.learn_kind("example.com", ServerKind::Other, 1_000_000);
        assert!(facts.server("example.com").wants_presence);
        for (epoch_s, kind) in [(1_000_000 + KIND_S - 1, Some(ServerKind::Other)), (1_000_000 + KIND_S, None)] {
            facts.doubt_old_kinds(epoch_s);
            assert_eq!(facts.server("example.com").kind, kind);
        }
        facts.learn_kind("example.com", ServerKind::Prosody, 1_000_000);
        assert!(!facts.server("example.com").wants_presence, "another server has taken its place");
        facts.doubt_old_kinds(999_999);
        assert_eq!(facts.server("example.com").kind, None, "a clock that was set back");
    }
}
