//! What a held session knows without asking is what it would be told if it asked: beside it stands another identity of
//! the same people's, which asks each time. What servers do not tell is looked up, at the latest when the session has
//! heard nothing for a while.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jid::BareJid;
use rustix::process::Signal;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;
use webpresence::config::{self, Environment};
use webpresence::presence::{Presence, Resource, State};
use webpresence::probe::errand::Unasked;
use webpresence::probe::prober::{Manner, Prober};
use webpresence::probe::{Answer, Failure};

use crate::rig::eventually;
use crate::rig::prosody::LastActivity;
use crate::rig::tap::Tap;
use crate::rig::users::{Shown, Users};
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Kind, Release, Xmpp};
use crate::rig::{ejabberd, prosody};
use crate::world::{consent, next_number, visit, visit_newer};

/// How long an answer may take, and how long the session may be deaf until that is noticed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A session that is held, what it has asked, and somebody who asks each time.
struct Pair {
    runtime: Runtime,
    tap: Tap,
    held: Prober,
    asking: Prober,
    askers: [String; 2],
    is_readable: bool,
}

impl Pair {
    /// Both have the consent of these users, who are online at "home".
    fn of(server: &Xmpp, people: &Users, users: &[&str]) -> Pair {
        Pair::held_by(Identity::Component(next_number()), server, people, users)
    }

    fn held_by(identity: Identity, server: &Xmpp, people: &Users, users: &[&str]) -> Pair {
        let identities = [identity, Identity::Component(next_number())];
        let (tap, more) = match identity {
            Identity::Component(_) => (Tap::before(server.ports.component), ""),
            Identity::Account(number) => {
                server.register(&format!("webstatus{number}"));
                // It shows itself to collect offers, and from then on it is told what changes.
                (Tap::before(server.ports.client), "accept_subscriptions = yes\n")
            }
        };
        let [held, asking] = identities.map(|asker| {
            let more = if asker == identity { more } else { "" };
            let more = format!("{more}timeout = {}", TIMEOUT.as_secs());
            let installed = Webpresence::tuned(server, asker, &more, "");
            consent(people, &installed, asker, users);
            config::load(Some(&installed.config), &Environment::from_process()).expect("ours").identities.remove(0)
        });
        let held = config::Identity { port: Some(tap.port), ..held };
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (held, asking) = runtime.block_on(async {
            (Prober::spawn(held, Manner::default()).0, Prober::spawn(asking, Manner::of_command(None)).0)
        });
        let is_readable = matches!(identity, Identity::Component(_));
        Pair { runtime, tap, held, asking, askers: identities.map(Identity::jid), is_readable }
    }

    fn ask(&self, prober: &Prober, user: &str) -> Result<Answer, Unasked> {
        let jid = BareJid::new(&format!("{user}@{DOMAIN}")).expect("an address");
        self.runtime.block_on(async { prober.ask(jid, Instant::now() + TIMEOUT).await })
    }

    /// Lets time pass.
    fn pass(&self, time: Duration) {
        self.runtime.block_on(async {
            tokio::time::pause();
            tokio::time::advance(time).await;
            tokio::time::resume();
        });
    }

    fn held(&self, user: &str) -> Answer {
        self.ask(&self.held, user).expect("a session")
    }

    /// The one says what the other is told, after so many probes: a push comes by itself, how soon is the server's
    /// affair. Without a probe nothing at all was said.
    fn agree(&self, step: &str, user: &str, probes: usize) -> Answer {
        let pieces = self.tap.pieces();
        let told = self.agree_at_last(step, user, probes);
        assert!(probes > 0 || self.tap.pieces() == pieces, "something was said: {step}");
        told
    }

    /// The same, where a ping may go out.
    fn agree_at_last(&self, step: &str, user: &str, probes: usize) -> Answer {
        let before = self.tap.probes();
        let told = eventually(step, || {
            let (held, asking) = (self.held(user), self.ask(&self.asking, user).expect("a session"));
            let is_same = same(&held, &asking);
            if !is_same {
                println!("{step}: {held:?} instead of {asking:?}");
            }
            is_same.then_some(held)
        });
        // What an account says is under TLS.
        let counted = if self.is_readable { probes } else { 0 };
        assert_eq!(self.tap.probes() - before, counted, "probes: {step}: {told:?}");
        told
    }
}

/// The servers' clocks count in seconds, and they know a moment earlier than we do.
fn same(one: &Answer, other: &Answer) -> bool {
    const SLACK: u64 = 2;
    let near = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (Some(one), Some(other)) => one.abs_diff(other) <= SLACK,
        (one, other) => one == other,
    };
    let timeless = |answer: &Answer| {
        let presence = Presence { since: None, ..answer.presence.clone() };
        let mut resources: Vec<_> =
            answer.resources.iter().map(|resource| Resource { stamp: None, ..resource.clone() }).collect();
        resources.sort_by(|one, other| one.name.cmp(&other.name));
        (presence, resources, answer.viewers.clone())
    };
    timeless(one) == timeless(other) && near(one.presence.since, other.presence.since)
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("later").as_secs()
}

fn a_day(server: &Xmpp, people: &Users) {
    a_day_of("diurnal", Identity::Component(next_number()), server, people);
}

fn a_day_of(user: &str, asker: Identity, server: &Xmpp, people: &Users) {
    let client = |name: &str| format!("{user}/{name}");
    server.register(user);
    people.login(&client("home"), Shown { show: "away", texts: &[("", "Lunch"), ("de", "Mittag")], priority: 5 });
    let pair = Pair::held_by(asker, server, people, &[user]);
    let agree = |step: &str, probes: usize| pair.agree(step, user, probes);
    agree("asked for the first time", 1);
    people.show(&client("home"), Shown { show: "dnd", texts: &[("", "At <work> & busy")], priority: 7 });
    assert_eq!(agree("another text and priority", 0).presence.priority, 7);
    people.login(&client("phone"), Shown { show: "chat", texts: &[], priority: 1 });
    assert_eq!(agree("a second client", 0).resources.len(), 2);
    people.login(&client("robot"), Shown { show: "", texts: &[("", "I am a robot")], priority: -1 });
    agree("one that does not count", 0);
    people.show_idle(&client("phone"), Shown { show: "xa", texts: &[], priority: 1 }, now_s() - 3600);
    people.logout(&client("home"), &[("", "Home now")]);
    let idle = agree("one of several left, the other is idle", 0);
    assert!(idle.presence.since.is_some_and(|since| since.abs_diff(now_s() - 3600) < 60), "{idle:?}");
    people.vanish(&client("phone"));
    assert_eq!(agree("a connection broke", 0).presence.priority, -1);
    people.logout(&client("robot"), &[("", "Good night")]);
    assert_eq!(agree("the last one left", 1).presence.state, State::Offline);
    agree("and is still gone", 0);
    people.login(&client("home"), Shown { show: "xa", texts: &[("", "Back")], priority: 0 });
    assert_eq!(agree("he is back", 0).presence.state, State::Xa);
}

#[test]
fn prosody_tells_what_happens_in_a_day() {
    let world = visit(Kind::Prosody);
    a_day(&world.server, &world.users);
}

#[test]
fn newer_prosody_tells_what_happens_in_a_day() {
    let world = visit_newer(Kind::Prosody);
    a_day(&world.server, &world.users);
}

#[test]
fn prosody_without_last_activity_tells_what_happens_in_a_day() {
    let server = prosody::start(LastActivity::Off);
    let users = Users::of(&server);
    a_day(&server, &users);
}

#[test]
fn ejabberd_tells_what_happens_in_a_day() {
    let world = visit(Kind::Ejabberd);
    a_day(&world.server, &world.users);
}

#[test]
fn newer_ejabberd_tells_what_happens_in_a_day() {
    let world = visit_newer(Kind::Ejabberd);
    a_day(&world.server, &world.users);
}

#[test]
fn prosody_tells_an_account_what_happens_in_a_day() {
    let world = visit(Kind::Prosody);
    a_day_of("nocturnal", Identity::Account(next_number()), &world.server, &world.users);
}

#[test]
fn ejabberd_tells_an_account_what_happens_in_a_day() {
    let world = visit(Kind::Ejabberd);
    a_day_of("nocturnal", Identity::Account(next_number()), &world.server, &world.users);
}

/// In every way there is: by a word, by removing the contact, by blocking it, by going for good.
fn no_longer_shown(server: &Xmpp, people: &Users) {
    const USERS: [&str; 4] = ["taciturn", "unfriend", "blocking", "leaving1"];
    for user in USERS {
        server.register(user);
        people.login(&format!("{user}/home"), Shown::default());
    }
    let pair = Pair::of(server, people, &USERS);
    for user in USERS {
        assert_eq!(pair.agree("shown", user, 1).presence.state, State::Available);
    }
    for asker in &pair.askers {
        people.revoke("taciturn/home", asker);
        people.remove("unfriend/home", asker);
        people.block("blocking/home", asker);
    }
    server.remove("leaving1");
    if server.kind == Kind::Ejabberd {
        // It tells nobody that he is blocked.
        assert_eq!(pair.held("blocking").presence.state, State::Available);
        pair.pass(Duration::from_secs(120));
    }
    for user in &USERS[..3] {
        let told = eventually(user, || Some(pair.held(user)).filter(|told| told.presence.state == State::Forbidden));
        assert!(same(&told, &pair.ask(&pair.asking, user).expect("a session")), "{user}: {told:?}");
    }
    let told = eventually("deleted", || {
        let (held, asking) = (pair.held("leaving1"), pair.ask(&pair.asking, "leaving1").expect("a session"));
        same(&held, &asking).then_some(held)
    });
    // Stable's Prosody does not know it yet, and shows him to whoever asks.
    let is_known = server.kind == Kind::Ejabberd || server.release == Release::Newer;
    assert_eq!(told.presence.state == State::Forbidden, is_known, "{told:?}");
}

#[test]
fn prosody_shows_nobody_who_does_not_want_it() {
    let world = visit(Kind::Prosody);
    no_longer_shown(&world.server, &world.users);
}

#[test]
fn newer_prosody_shows_nobody_who_does_not_want_it() {
    let world = visit_newer(Kind::Prosody);
    no_longer_shown(&world.server, &world.users);
}

#[test]
fn ejabberd_shows_nobody_who_does_not_want_it() {
    let world = visit(Kind::Ejabberd);
    no_longer_shown(&world.server, &world.users);
}

#[test]
fn newer_ejabberd_shows_nobody_who_does_not_want_it() {
    let world = visit_newer(Kind::Ejabberd);
    no_longer_shown(&world.server, &world.users);
}

/// What was known ends with the session.
fn the_server_ends(start: fn() -> Xmpp) {
    for signal in [Signal::TERM, Signal::KILL] {
        let server = start();
        let users = Users::of(&server);
        server.register("survivor");
        users.login("survivor/home", Shown::default());
        let pair = Pair::of(&server, &users, &["survivor"]);
        pair.agree("shown", "survivor", 1);
        pair.agree("watched", "survivor", 0);
        server.leash.signal(signal);
        let failure = eventually("nobody is asked", || pair.ask(&pair.held, "survivor").err());
        assert_ne!(failure.failure, Failure::Crowded, "{signal:?}");
        assert_eq!(pair.ask(&pair.held, "survivor").ok(), None, "{signal:?}");
    }
}

#[test]
fn prosody_ends() {
    the_server_ends(|| prosody::start_with(Release::Stable, LastActivity::Off, &[]));
}

#[test]
fn ejabberd_ends() {
    the_server_ends(ejabberd::start);
}

/// A connection that no longer brings anything, without an end: what was known is told for half a minute. Then a ping
/// stays unanswered, and so does the question; the next one has a session of its own.
fn a_deaf_connection(kind: Kind) {
    let world = visit(kind);
    let user = "overheard";
    world.server.register(user);
    world.users.login(&format!("{user}/home"), Shown::default());
    let pair = Pair::of(&world.server, &world.users, &[user]);
    pair.agree("shown", user, 1);
    pair.tap.hold();
    world.users.show(&format!("{user}/home"), Shown { show: "dnd", ..Shown::default() });
    assert_eq!(pair.held(user).presence.state, State::Available, "a moment later");
    pair.pass(Duration::from_secs(30));
    let (total, probes) = (pair.tap.total(), pair.tap.probes());
    let silent = pair.ask(&pair.held, user).expect_err("nothing comes in");
    assert_eq!(silent.failure, Failure::Silent);
    assert_eq!(pair.tap.probes() - probes, 1, "it was asked in earnest");
    pair.tap.let_go();
    let told = eventually("another session", || pair.ask(&pair.held, user).ok());
    assert_eq!((told.presence.state, pair.tap.total() - total), (State::Dnd, 1));
}

#[test]
fn prosody_a_deaf_connection() {
    a_deaf_connection(Kind::Prosody);
}

#[test]
fn ejabberd_a_deaf_connection() {
    a_deaf_connection(Kind::Ejabberd);
}

/// A session in which nothing happens is asked whether it is alive, and nobody about anybody.
fn a_quiet_server(kind: Kind) {
    let world = visit(kind);
    let user = "sedentary";
    world.server.register(user);
    world.users.login(&format!("{user}/home"), Shown { show: "away", ..Shown::default() });
    let pair = Pair::of(&world.server, &world.users, &[user]);
    pair.agree("shown", user, 1);
    for _ in 0..3 {
        pair.pass(Duration::from_secs(30));
        pair.agree_at_last("half a minute later", user, 0);
    }
}

#[test]
fn prosody_is_quiet() {
    a_quiet_server(Kind::Prosody);
}

#[test]
fn ejabberd_is_quiet() {
    a_quiet_server(Kind::Ejabberd);
}
