//! What reaches the XMPP server, counted on the way there, when many visitors come at once or all the time.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::Plan;
use crate::crowd::{self, jid};
use crate::rig::eventually;
use crate::rig::fastcgi::Connection;
use crate::rig::leash::Leash;
use crate::rig::tap::Tap;
use crate::rig::webpresence::Webpresence;
use crate::rows::{Findings, Section, Target, Unit, row};
use crate::stand::{AT_EJABBERD, Stand, serve_on, sockets};

const PROCESSES: usize = 8;
/// Visitors of one person.
const VISITORS: usize = 1000;
/// Different people at once.
const DIFFERENT: usize = 500;

const ONE_PROBES: &str = "1,000 requests at once for one cold person, 8 processes: probes";
const ONE_SESSIONS: &str = "1,000 requests at once for one cold person, 8 processes: sessions";
const ONE_LAST: &str = "1,000 requests at once for one cold person, 8 processes: the last answer after";
/// Through one daemon, and through eight: probes, sessions, the last answer.
const MANY: [[&str; 3]; 2] = [
    [
        "500 different cold people at once, one daemon: probes",
        "500 different cold people at once, one daemon: sessions",
        "500 different cold people at once, one daemon: the last answer after",
    ],
    [
        "500 different cold people at once, 8 processes: probes",
        "500 different cold people at once, 8 processes: sessions",
        "500 different cold people at once, 8 processes: the last answer after",
    ],
];
/// What of that the server needs whoever asks.
const MANY_SERVER: &str = "500 different cold people at once: processor time that Prosody took for it";
const STEADY: &str = "1,000 people viewed all the time, no session held: most probes of one person per ttl";
const STEADY_MEAN: &str = "1,000 people viewed all the time, no session held: probes per person per ttl";
const STEADY_HELD: &str = "1,000 people viewed all the time, session held: probes, all together";
const EJABBERD: &str = "100 people of ejabberd viewed all the time, no session held: most probes of one person per ttl";
const EJABBERD_HELD: &str = "100 people of ejabberd viewed all the time, session held: probes, all together";

/// The time of the steady views runs ten times as fast as with the default of 30 seconds.
const TTL: Duration = Duration::from_secs(3);
const SCALED: &str = "ttl = 3\nrefresh = 1\nstale = 30\n[limits]\nprobes_per_second = 2000\n";
const PEOPLE: usize = 1000;
/// Each person is viewed once in that time.
const VIEWED_EVERY: Duration = Duration::from_millis(300);

pub fn section(plan: Plan) -> Section {
    let mut rows = vec![
        row(ONE_PROBES, Target::Exactly(1.0), Unit::Count),
        row(ONE_SESSIONS, Target::Exactly(1.0), Unit::Count),
        row(ONE_LAST, Target::None, Unit::Seconds),
    ];
    for [probes, sessions, last] in MANY {
        rows.push(row(probes, Target::Exactly(DIFFERENT as f64), Unit::Count));
        rows.push(row(sessions, Target::Exactly(1.0), Unit::Count));
        rows.push(row(last, Target::AtMost(1.0), Unit::Seconds));
    }
    rows.push(row(MANY_SERVER, Target::None, Unit::Seconds));
    rows.push(row(STEADY, Target::AtMost(1.0), Unit::Count));
    rows.push(row(STEADY_MEAN, Target::None, Unit::Count));
    rows.push(row(STEADY_HELD, Target::Exactly(0.0), Unit::Count));
    rows.push(row(EJABBERD, Target::AtMost(1.0), Unit::Count));
    rows.push(row(EJABBERD_HELD, Target::Exactly(0.0), Unit::Count));
    let about = format!(
        "Counted by a relay between webpresence and Prosody, which has 12,000 people, all of them real for it (accounts \
         and rosters in its own storage) and offline; ejabberd has 100 such. The limits are the default ones, but that \
         nobody counts as a stranger. `linger = 0`: between two rounds no session is open; the processes are new each \
         time, and nobody has been asked for before. The time runs from the first question to the last answer. For the \
         steady views it is scaled to a tenth: `ttl = 3`, `refresh = 1` and `probes_per_second = 2000` instead of 30, 10 \
         and 200; each person is viewed every {} ms for {} s of real time, once without a session held (`linger = 0`) and \
         once with (`linger = always`). What each one is first asked is not counted. Two times of webpresence's own are not \
         scaled, and this is too short to show them: a session on which nothing was heard for 30 s is first tried by a \
         ping, and whoever is watched is asked about again some minutes after he last was, since news of him may have \
         been lost on the way (two where not all changes are told, ten else). So a session that is held costs no probe \
         per ttl, but one per person in some minutes.",
        VIEWED_EVERY.as_millis(),
        steady_time(plan).as_secs(),
    );
    Section { title: "Load on the XMPP server", about, rows }
}

pub fn measure(stand: &Stand, plan: Plan, findings: &mut Findings) {
    let tap = Tap::before(stand.component_port());
    let installed = stand.install(7, "linger = 0", "", tap.port);
    // The server is known, and nobody stumbles over what the first session of all has to do.
    Daemons::start(&installed).visit_at_once(&[jid(0)]);
    let mut next = 1;
    for _ in 0..plan.rounds {
        let since = Since::rest(&tap);
        let took = Daemons::start(&installed).visit_at_once(&vec![jid(next); VISITORS]);
        findings.add(ONE_PROBES, since.probes() as f64);
        findings.add(ONE_SESSIONS, since.sessions() as f64);
        findings.add(ONE_LAST, took.as_secs_f64());
        next += 1;
        for (processes, [probes, sessions, last]) in [1, PROCESSES].into_iter().zip(MANY) {
            let since = Since::rest(&tap);
            // None has used up any of what it may ask in a second.
            let daemons = Daemons::start(&installed);
            let people: Vec<String> = (next..next + DIFFERENT).map(jid).collect();
            let before = processor_time(&stand.prosody.leash);
            let took = visit_at_once(&daemons.sockets[..processes], &people);
            findings.add(MANY_SERVER, processor_time(&stand.prosody.leash) - before);
            findings.add(probes, since.probes() as f64);
            findings.add(sessions, since.sessions() as f64);
            findings.add(last, took.as_secs_f64());
            next += DIFFERENT;
        }
    }
    steady(stand, plan, findings);
}

/// Processes of one installation.
struct Daemons {
    sockets: Vec<PathBuf>,
    _leashes: Vec<Leash>,
    _dir: tempfile::TempDir,
}

impl Daemons {
    fn start(installed: &Webpresence) -> Daemons {
        let dir = sockets();
        let sockets: Vec<PathBuf> = (0..PROCESSES).map(|number| dir.path().join(number.to_string())).collect();
        let leashes = sockets.iter().map(|socket| serve_on(installed, socket)).collect();
        Daemons { sockets, _leashes: leashes, _dir: dir }
    }

    fn visit_at_once(&self, people: &[String]) -> Duration {
        visit_at_once(&self.sockets, people)
    }
}

/// A visitor for each of `people`, all connected before the first of them asks, spread over the daemons. Returns the time
/// from the first question to the last answer.
fn visit_at_once(sockets: &[PathBuf], people: &[String]) -> Duration {
    let mut visitors: Vec<(Connection, String)> = people
        .iter()
        .enumerate()
        .map(|(number, person)| (Connection::open(&sockets[number % sockets.len()]), format!("jid={person}&type=text")))
        .collect();
    let begun = Instant::now();
    for (visitor, query) in &mut visitors {
        visitor.send(&[("REQUEST_METHOD", b"GET"), ("QUERY_STRING", query.as_bytes())]);
    }
    for (visitor, query) in &mut visitors {
        let answer = visitor.receive().expect("webpresence answers");
        assert_eq!((answer.status, answer.text().as_str()), (200, crowd::OFFLINE), "{query}");
    }
    begun.elapsed()
}

/// Seconds, of the program and of the kernel for it (proc(5), `stat`; the kernel counts hundredths for programs).
fn processor_time(leash: &Leash) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", leash.pid.as_raw_nonzero())).expect("it runs");
    let after_name = stat.rsplit(") ").next().expect("its name is in brackets");
    let ticks = after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / 100.0
}

fn steady_time(plan: Plan) -> Duration {
    TTL * plan.rounds as u32
}

/// What has come through the tap since then.
struct Since<'a> {
    tap: &'a Tap,
    sessions: usize,
    probed: HashMap<String, usize>,
}

impl Since<'_> {
    fn now(tap: &Tap) -> Since<'_> {
        Since { tap, sessions: tap.total(), probed: tap.probed() }
    }

    /// Waits until nobody is connected.
    fn rest(tap: &Tap) -> Since<'_> {
        eventually("the session is closed", || (tap.open() == 0).then_some(()));
        Since::now(tap)
    }

    fn sessions(&self) -> usize {
        self.tap.total() - self.sessions
    }

    /// Of all people.
    fn probes(&self) -> usize {
        self.probed().values().sum()
    }

    /// How often each person was probed who was: a component also probes itself, and people have an at sign.
    fn probed(&self) -> HashMap<String, usize> {
        let mut probed = self.tap.probed();
        probed.retain(|jid, count| {
            *count -= self.probed.get(jid).unwrap_or(&0);
            *count > 0 && jid.contains('@')
        });
        probed
    }
}

/// Who is viewed all the time, by what.
struct Views {
    /// Of the installation.
    number: usize,
    linger: &'static str,
    /// Of the server, for components.
    port: u16,
    people: usize,
}

/// All at the same time: none needs much.
fn steady(stand: &Stand, plan: Plan, findings: &mut Findings) {
    let lingers = ["linger = 0", "linger = always"];
    let kinds = [
        ([8, 9], stand.component_port(), PEOPLE, [STEADY, STEADY_HELD]),
        (AT_EJABBERD, stand.ejabberd.ports.component, crowd::AT_EJABBERD, [EJABBERD, EJABBERD_HELD]),
    ];
    let windows = steady_time(plan).as_secs_f64() / TTL.as_secs_f64();
    let views = kinds.each_ref().map(|(numbers, port, people, _)| {
        [0, 1].map(|way| Views { number: numbers[way], linger: lingers[way], port: *port, people: *people })
    });
    let probes = thread::scope(|scope| {
        let runs = views.each_ref().map(|both| both.each_ref().map(|views| scope.spawn(|| views.probes(stand, plan))));
        runs.map(|both| both.map(|run| run.join().expect("its figures")))
    });
    for ((.., rows), [without, with]) in kinds.iter().zip(&probes) {
        findings.add(rows[0], without.values().copied().max().unwrap_or(0) as f64 / windows);
        findings.add(rows[1], with.values().sum::<usize>() as f64);
    }
    findings.add(STEADY_MEAN, probes[0][0].values().sum::<usize>() as f64 / PEOPLE as f64 / windows);
}

impl Views {
    /// How often each person was probed while all were viewed.
    fn probes(&self, stand: &Stand, plan: Plan) -> HashMap<String, usize> {
        let tap = Tap::before(self.port);
        let installed = stand.install(self.number, self.linger, SCALED, tap.port);
        let serve = installed.serve();
        crowd::ask_each(&serve.socket, 0..self.people, crowd::OFFLINE);
        let since = Since::now(&tap);
        let ends = Instant::now() + steady_time(plan);
        thread::scope(|scope| {
            for part in 0..PROCESSES {
                let people: Vec<usize> = (part..self.people).step_by(PROCESSES).collect();
                scope.spawn({
                    let socket: &Path = &serve.socket;
                    move || keep_viewing(socket, &people, ends)
                });
            }
        });
        since.probed()
    }
}

/// Evenly, until it ends.
fn keep_viewing(socket: &Path, people: &[usize], ends: Instant) {
    let mut connection = Connection::open(socket);
    let mut due = Instant::now();
    for person in people.iter().cycle() {
        due += VIEWED_EVERY / people.len() as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if Instant::now() >= ends {
            return;
        }
        let answer = connection.ask(&format!("jid={}&type=text", jid(*person)));
        assert_eq!((answer.status, answer.text().as_str()), (200, crowd::OFFLINE), "{}", jid(*person));
    }
}
