//! How late a visitor sees what somebody has done: straight from the daemon and through nginx's cache, with a session
//! that is held and without one, after a new presence and after consent is taken back. Measured from the moment the
//! person's server has it to the first right answer, by a visitor who looks again and again.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::Plan;
use crate::rig::http::Request;
use crate::rig::leash::Leash;
use crate::rig::nginx::Nginx;
use crate::rig::patiently;
use crate::rig::users::Shown;
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::DOMAIN;
use crate::rows::{Findings, Section, Target, Unit, row};
use crate::stand::{CHANGING, Stand, changing, serve_on, sockets};
use crate::web::{self, Place, Room};

const TTL_S: f64 = 5.0;
const REFRESH_S: f64 = 2.0;
const TIMES: &str = "ttl = 5\nrefresh = 2\nstale = 10\n";
/// A refusal is told a whole second after its lookup began, and headers know whole seconds.
const SLACK_S: f64 = 1.0;

/// What somebody does.
const DEEDS: [&str; 2] = ["a new presence", "consent withdrawn"];

/// How he is looked at.
struct Way {
    name: &'static str,
    /// Whether the first installation's nginx, or the second's, and below which path.
    server: usize,
    place: &'static str,
    /// For each deed.
    targets: [f64; 2],
}

const PASSED: &str = "passed";
/// As the shipped snippet has it.
const KEPT: &str = "presence";

const HELD: usize = 10;
const COLD: usize = 11;
const MOST: f64 = TTL_S + REFRESH_S + SLACK_S;

const WAYS: [Way; 4] = [
    Way { name: "straight from the daemon, session held", server: 0, place: PASSED, targets: [1.0, 1.5] },
    Way { name: "through nginx's cache, session held", server: 0, place: KEPT, targets: [MOST, MOST] },
    Way { name: "straight from the daemon, no session held", server: 1, place: PASSED, targets: [MOST, MOST] },
    Way { name: "through nginx's cache, no session held", server: 1, place: KEPT, targets: [MOST, MOST] },
];

pub fn section() -> Section {
    let pairs = (0..DEEDS.len()).flat_map(|deed| WAYS.iter().map(move |way| (deed, way)));
    let rows = pairs.map(|(deed, way)| row(way.what(deed), Target::AtMost(way.targets[deed]), Unit::Seconds));
    let about = format!(
        "{CHANGING} people at once for each deed, each looked at every 10 ms in all four ways, all behind \
         nginx, whose cache is that of the shipped files, with `ttl = 5` and `refresh = 2`; with the \
         defaults (30 and 10) the longest waits are as much longer. They act right \
         after they were looked up, when the wait is longest. Where a session is held (`linger = always`) the \
         daemon is told; a refusal takes it a second, as each does. Elsewhere an answer may be as old as `ttl` and \
         `refresh` together, and a second more for whole seconds in headers and for that refusal. \
         `make bench-privacy` measures a cache after a withdrawal against the very `max-age` it was given.",
    );
    Section { title: "What a visitor can see late", about, rows: rows.collect() }
}

impl Way {
    fn what(&self, deed: usize) -> String {
        format!("{}: {}", DEEDS[deed], self.name)
    }
}

/// The two installations, and nginx before each.
struct Windows {
    nginx: Vec<Nginx>,
    installed: Vec<Webpresence>,
    _behind: (Vec<Leash>, tempfile::TempDir),
}

pub fn measure(stand: &Stand, _plan: Plan, findings: &mut Findings) {
    let windows = Windows::open(stand);
    let people: Vec<String> = changing().collect();
    let (those_who_change, those_who_withdraw) = people.split_at(CHANGING);
    let dnd = Shown { show: "dnd", ..Shown::default() };
    let changed = windows.watch(those_who_change, "Do not disturb\n", |person| stand.users.show(&home(person), dnd));
    let withdrawn = windows.watch(those_who_withdraw, "Forbidden\n", |person| {
        for installed in &windows.installed {
            stand.users.revoke(&home(person), &installed.identity.jid());
        }
    });
    for (deed, seen) in [changed, withdrawn].into_iter().enumerate() {
        for (way, times) in WAYS.iter().zip(seen) {
            findings.add_all(&way.what(deed), times.iter().map(Duration::as_secs_f64));
        }
    }
}

fn home(person: &str) -> String {
    format!("{person}/home")
}

impl Windows {
    fn open(stand: &Stand) -> Windows {
        let dir = sockets();
        let lingers = [(HELD, "linger = always"), (COLD, "linger = 0")];
        let installed = lingers.map(|(number, linger)| stand.install(number, linger, TIMES, stand.component_port()));
        let paths: Vec<PathBuf> = ["held", "cold"].iter().map(|name| dir.path().join(name)).collect();
        let daemons = installed.iter().zip(&paths).map(|(installed, path)| serve_on(installed, path)).collect();
        let before = |path: &PathBuf| web::nginx(b"", path, Room::Shipped, &[Place(PASSED, path)]).0;
        let nginx = paths.iter().map(before).collect();
        Windows { nginx, installed: installed.into(), _behind: (daemons, dir) }
    }

    fn look(&self, way: &Way, person: &str) -> String {
        let target = format!("/{}/?jid={person}@{DOMAIN}&type=text", way.place);
        self.nginx[way.server].send(Request::get(&target)).text()
    }

    /// Each person is looked at for the first time, and does something; how long each way, in its order, then goes on
    /// showing something else than `text`.
    fn watch(&self, people: &[String], text: &str, deed: impl Fn(&str) + Sync) -> Vec<Vec<Duration>> {
        let seen: Vec<Vec<Duration>> = thread::scope(|scope| {
            let watched = people.iter().map(|person| {
                let deed = &deed;
                scope.spawn(move || {
                    WAYS.iter().for_each(|way| assert_eq!(self.look(way, person), "Away\n", "{}", way.name));
                    deed(person);
                    self.wait(person, text)
                })
            });
            let watched: Vec<_> = watched.collect();
            watched.into_iter().map(|run| run.join().expect("its figures")).collect()
        });
        (0..WAYS.len()).map(|way| seen.iter().map(|times| times[way]).collect()).collect()
    }

    fn wait(&self, person: &str, text: &str) -> Vec<Duration> {
        let begun = Instant::now();
        let mut seen = [None; WAYS.len()];
        let all = patiently(|| {
            for (way, seen) in WAYS.iter().zip(&mut seen) {
                if seen.is_none() && self.look(way, person) == text {
                    *seen = Some(begun.elapsed());
                }
            }
            seen.iter().copied().collect()
        });
        all.unwrap_or_else(|| panic!("{person} is never {text:?}: {seen:?}"))
    }
}
