//! People some of whom may see others, at a Prosody and an ejabberd, where the server shows the component the rosters and
//! where it does not. Nobody in it changes who may see whom; a test that wants that meets a company of its own.

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use crate::rig::prosody::LastActivity;
use crate::rig::users::{Shown, Users};
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Kind, Privilege, Release, Xmpp};
use crate::rig::{ejabberd, prosody};
use crate::world::patient;

pub const ASKER: Identity = Identity::Component(0);
pub const HERE: Shown = Shown { show: "away", texts: &[("", "Lunch")], priority: 0 };

/// Where it is known who has a subscription to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// XEP-0356.
    Roster,
    Listed,
}

/// People of whom some may see others.
pub struct Company {
    pub server: Xmpp,
    pub users: Users,
    source: Source,
}

/// A test's stay with a company: it is alone with it, since the server lets the identity be connected once. A test that
/// fails shows the server's log.
pub struct Visit(MutexGuard<'static, Company>);

/// One company of each kind for the whole test process: nobody in it changes who may see whom.
pub fn visit(kind: Kind, source: Source) -> Visit {
    static MET: [OnceLock<Mutex<Company>>; 4] = [const { OnceLock::new() }; 4];
    let place = 2 * usize::from(kind == Kind::Ejabberd) + usize::from(source == Source::Listed);
    let company = MET[place].get_or_init(|| Mutex::new(Company::meet(kind, source)));
    Visit(company.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Deref for Visit {
    type Target = Company;

    fn deref(&self) -> &Company {
        &self.0
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.server.leash.log());
        }
    }
}

/// Those who are asked about. The first two let the identity see them, the third has not answered it, the fourth has
/// never heard of it, the last is nobody. All names are equally long.
pub const TARGETS: [&str; 5] = ["alice", "gonny", "later", "aloof", "ghost"];

/// As [`Source::Listed`] has it: no more than the rosters say, and a domain of friends.
const VIEWERS: &str = "[viewers]
@friends = bob@example.test, *@friends.test
alice@example.test = @friends, carol@example.test
*@example.test = bob@example.test
";

impl Company {
    pub fn meet(kind: Kind, source: Source) -> Company {
        let granted = [Privilege { to: ASKER, roster: "get", presence: "managed_entity" }];
        let privileges = if source == Source::Roster { &granted[..] } else { &[] };
        let server = match kind {
            Kind::Prosody => prosody::start_with(Release::Stable, LastActivity::On, privileges),
            Kind::Ejabberd => ejabberd::start_with(Release::Stable, privileges),
            Kind::Jabberd2 => unreachable!("it has no XEP-0356"),
        };
        let company = Company { users: Users::of(&server), server, source };
        company.befriend();
        company.consent();
        company
    }

    /// Alice's roster: bob both ways, carol sees her, she sees dave, erin has asked in vain, frank is not in it. All
    /// the others are seen by bob alone.
    fn befriend(&self) {
        for user in ["alice", "gonny", "later", "aloof", "bob", "carol", "dave", "erin", "frank"] {
            self.server.register(user);
            let is_target = TARGETS.contains(&user);
            let login = if is_target { Users::login_unasked } else { Users::login };
            login(&self.users, &home(user), if is_target { HERE } else { Shown::default() });
        }
        let requests = [("bob", "alice"), ("carol", "alice"), ("bob", "gonny"), ("bob", "later"), ("bob", "aloof")];
        for (asker, asked) in requests {
            self.users.add(&home(asker), &jid(asked));
            self.users.approve(&home(asked), &jid(asker));
        }
        for asked in ["bob", "dave"] {
            self.users.add(&home("alice"), &jid(asked));
            self.users.granted(&home(asked), &jid("alice"));
        }
        self.users.add(&home("erin"), &jid("alice"));
    }

    fn consent(&self) {
        let installed = patient(&self.server, ASKER);
        ask_for_consent(&installed, &["alice", "gonny"]);
        for user in ["alice", "gonny"] {
            self.users.approve(&home(user), &ASKER.jid());
        }
        self.users.logout(&home("gonny"), &[]);
    }

    /// An installation with these lines in `[access]`, and time for a busy machine.
    pub fn install(&self, access: &str) -> Webpresence {
        let installed = Webpresence::tuned(&self.server, ASKER, "timeout = 20", "");
        // It knows whom it has asked: the server would forget that if he were asked where he is.
        ask_for_consent(&installed, &["later"]);
        guard(&installed, &format!("{access}unknown_per_minute = 0\nunknown_per_minute_all = 0\n"));
        if self.source == Source::Listed {
            installed.configure(&format!("{}{VIEWERS}", installed.configuration()));
        }
        installed
    }
}

fn ask_for_consent(installed: &Webpresence, users: &[&str]) {
    for user in users {
        let output = installed.run(&["subscribe", &jid(user)]);
        assert!(String::from_utf8_lossy(&output.stdout).contains("asked; has to accept"), "{output:?}");
    }
}

pub fn guard(installed: &Webpresence, access: &str) {
    let open = "visibility = anyone\n";
    let configuration = installed.configuration();
    assert!(configuration.contains(open), "{configuration}");
    installed.configure(&configuration.replace(open, access));
}

pub fn jid(user: &str) -> String {
    format!("{user}@{DOMAIN}")
}

pub fn home(user: &str) -> String {
    format!("{user}/home")
}
