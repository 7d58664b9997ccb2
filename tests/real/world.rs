//! The world most tests live in: one Prosody and one ejabberd for the whole test process, and a newer one of each and a
//! jabberd2 for the tests that ask for it, all with the same cast of people who have let the asking identities see them, or have
//! not. Nobody in the cast changes what he shows; a test that wants somebody to move brings its own user.

use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::rig::users::{Shown, Users};
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Kind, OTHER, ROOMS, Release, Xmpp};
use crate::rig::{ejabberd, jabberd2, prosody};

pub struct World {
    pub server: Xmpp,
    pub users: Users,
}

/// User, what he shows while he is online, and the farewell of those who have gone since.
type Role = (&'static str, Shown<'static>, Option<&'static [(&'static str, &'static str)]>);

const CAST: [Role; 7] = [
    ("available", Shown { show: "", texts: &[], priority: 0 }, None),
    ("chat", Shown { show: "chat", texts: &[("", "Ask me  anything\n")], priority: 1 }, None),
    ("away", Shown { show: "away", texts: &[("", "Lunch"), ("de", "Mittag")], priority: 5 }, None),
    ("xa", Shown { show: "xa", texts: &[], priority: 0 }, None),
    ("dnd", Shown { show: "dnd", texts: &[("", "R&D <\"1\">")], priority: -1 }, None),
    ("gone", Shown { show: "", texts: &[], priority: 0 }, Some(&[("", "See you tomorrow")])),
    ("silent", Shown { show: "", texts: &[], priority: 0 }, Some(&[])),
];

/// Online, but nobody who asks has his consent.
const STRANGER: &str = "stranger";

/// A room the stranger has opened.
pub const ROOM: &str = "lounge";

/// The first identities of each kind are known to the cast; a test takes one by its number. Fewer tests ask the newer
/// servers.
pub const KNOWN: usize = if cfg!(feature = "redis") { 30 } else { 18 };
pub const KNOWN_TO_NEWER: usize = 5;
/// COMPAT: jabberd2 takes one of two logins at once for the other.
const KNOWN_TO_JABBERD2: usize = 1;

/// Identities nobody has met yet, a new one each time.
pub fn next_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(KNOWN);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < Identity::COUNT, "more identities are needed");
    number
}

/// A test's stay: a test that fails shows the server's log.
pub struct Visit(&'static World);

pub fn visit(kind: Kind) -> Visit {
    static PROSODY: OnceLock<World> = OnceLock::new();
    static EJABBERD: OnceLock<World> = OnceLock::new();
    static JABBERD2: OnceLock<World> = OnceLock::new();
    Visit(match kind {
        Kind::Prosody => PROSODY.get_or_init(|| World::new(prosody::start(prosody::LastActivity::On), KNOWN)),
        Kind::Ejabberd => EJABBERD.get_or_init(|| World::new(ejabberd::start(), KNOWN)),
        Kind::Jabberd2 => JABBERD2.get_or_init(|| World::new(jabberd2::start(), KNOWN_TO_JABBERD2)),
    })
}

/// The same at the newer Prosody or ejabberd.
pub fn visit_newer(kind: Kind) -> Visit {
    static PROSODY: OnceLock<World> = OnceLock::new();
    static EJABBERD: OnceLock<World> = OnceLock::new();
    Visit(match kind {
        Kind::Prosody => PROSODY.get_or_init(|| {
            World::new(prosody::start_with(Release::Newer, prosody::LastActivity::On, &[]), KNOWN_TO_NEWER)
        }),
        Kind::Ejabberd => {
            EJABBERD.get_or_init(|| World::new(ejabberd::start_with(Release::Newer, &[]), KNOWN_TO_NEWER))
        }
        Kind::Jabberd2 => unreachable!("there is one jabberd2"),
    })
}

impl Deref for Visit {
    type Target = World;

    fn deref(&self) -> &World {
        self.0
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.server.leash.log());
        }
    }
}

impl World {
    fn new(server: Xmpp, known: usize) -> World {
        for number in 0..known {
            server.register(&format!("webstatus{number}"));
        }
        let users = Users::of(&server);
        for (user, ..) in CAST {
            server.register(user);
            users.login(&format!("{user}/home"), Shown::default());
        }
        server.register(STRANGER);
        users.login_unasked(&format!("{STRANGER}/home"), Shown::default());
        if server.kind != Kind::Jabberd2 {
            users.join(&format!("{STRANGER}/home"), &format!("{ROOM}@{ROOMS}"));
        }
        users.component(OTHER);
        let world = World { server, users };
        world.meet(known);
        for (user, shown, farewell) in CAST {
            // Not before: jabberd2 shows no request to a client with a negative priority.
            world.users.show(&format!("{user}/home"), shown);
            if let Some(texts) = farewell {
                world.users.logout(&format!("{user}/home"), texts);
            }
        }
        world
    }

    /// The cast gets to know those who ask, all at the same time.
    fn meet(&self, known: usize) {
        thread::scope(|scope| {
            for identity in (0..known).flat_map(|n| [Identity::Component(n), Identity::Account(n)]) {
                scope.spawn(move || {
                    let installed = patient(&self.server, identity);
                    consent(&self.users, &installed, identity, &CAST.map(|(user, _, _)| user));
                });
            }
        });
    }
}

/// An installation for setting something up: the machine may be busy, and nobody waits for a page.
pub fn patient(server: &Xmpp, identity: Identity) -> Webpresence {
    Webpresence::tuned(server, identity, "timeout = 20\n", "")
}

/// The real way: the identity asks, the users (online at "home") say yes.
pub fn consent(people: &Users, installed: &Webpresence, identity: Identity, users: &[&str]) {
    let jids: Vec<String> = users.iter().map(|user| format!("{user}@{DOMAIN}")).collect();
    let arguments: Vec<&str> = ["subscribe"].into_iter().chain(jids.iter().map(String::as_str)).collect();
    let output = installed.run(&arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    for user in users {
        people.granted(&format!("{user}/home"), &identity.jid());
    }
}
