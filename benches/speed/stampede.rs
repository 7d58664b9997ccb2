//! What reaches the XMPP server, counted on the way there, when many visitors come at once or all the time.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::Plan;
use crate::crowd::{self, jid};
use crate::rig::fastcgi::Connection;
use crate::rig::leash::Leash;
use crate::rig::webpresence::Webpresence;
use crate::rows::{Findings, Section, Target, Unit, row};
use crate::stand::{Stand, serve_on, sockets};
use crate::tap::Tap;

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

/// The time of the steady views runs ten times as fast as with the default of 30 seconds.
const TTL: Duration = Duration::from_secs(3);
const SCALED: &str = "ttl = 3\nrefresh = 1\nstale = 30\n";
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
    let about = format!(
        "Counted by a relay between webpresence and Prosody, which has 12,000 people, all of them real for it (accounts \
         and rosters in its own storage) and offline. `linger = 0`: between two rounds no session is open, and \
         nobody has been asked for before. For the steady views the time is scaled to a tenth: `ttl = 3` and \
         `refresh = 1` instead of 30 and 10; each of 1,000 people is viewed every {} ms for {} s, once without a \
         session held (`linger = 0`) and once with (`linger = always`). What each one is first asked is not counted.",
        VIEWED_EVERY.as_millis(),
        steady_time(plan).as_secs(),
    );
    Section { title: "Load on the XMPP server", about, rows }
}

pub fn measure(stand: &Stand, plan: Plan, findings: &mut Findings) {
    let tap = Tap::before(stand.component_port());
    let installed = stand.install(7, "linger = 0", "", tap.port);
    let daemons = Daemons::start(&installed);
    // The server is known, and nobody stumbles over what the first session of all has to do.
    daemons.visit_at_once(&[jid(0)]);
    let mut next = 1;
    for _ in 0..plan.rounds {
        tap.rest();
        let took = daemons.visit_at_once(&vec![jid(next); VISITORS]);
        findings.add(ONE_PROBES, tap.probes() as f64);
        findings.add(ONE_SESSIONS, tap.sessions() as f64);
        findings.add(ONE_LAST, took.as_secs_f64());
        next += 1;
        for (who, [probes, sessions, last]) in [&daemons.sockets[..1], &daemons.sockets].into_iter().zip(MANY) {
            tap.rest();
            let people: Vec<String> = (next..next + DIFFERENT).map(jid).collect();
            let before = processor_time(&stand.prosody.leash);
            let took = visit_at_once(who, &people);
            findings.add(MANY_SERVER, processor_time(&stand.prosody.leash) - before);
            findings.add(probes, tap.probes() as f64);
            findings.add(sessions, tap.sessions() as f64);
            findings.add(last, took.as_secs_f64());
            next += DIFFERENT;
        }
    }
    drop(daemons);
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

/// Both at the same time: neither needs much.
fn steady(stand: &Stand, plan: Plan, findings: &mut Findings) {
    let both = [(8, "linger = 0"), (9, "linger = always")];
    let [without, with] = thread::scope(|scope| {
        both.map(|(number, linger)| scope.spawn(move || view(stand, plan, number, linger)))
            .map(|run| run.join().expect("its figures"))
    });
    let windows = steady_time(plan).as_secs_f64() / TTL.as_secs_f64();
    findings.add(STEADY, without.values().copied().max().unwrap_or(0) as f64 / windows);
    findings.add(STEADY_MEAN, without.values().sum::<usize>() as f64 / PEOPLE as f64 / windows);
    findings.add(STEADY_HELD, with.values().sum::<usize>() as f64);
}

/// How often each person was probed while all were viewed.
fn view(stand: &Stand, plan: Plan, number: usize, linger: &str) -> HashMap<String, usize> {
    let tap = Tap::before(stand.component_port());
    let installed = stand.install(number, linger, SCALED, tap.port);
    let serve = installed.serve();
    crowd::ask_each(&serve.socket, 0..PEOPLE, crowd::OFFLINE);
    tap.forget();
    let ends = Instant::now() + steady_time(plan);
    thread::scope(|scope| {
        for part in 0..PROCESSES {
            let people: Vec<usize> = (part..PEOPLE).step_by(PROCESSES).collect();
            scope.spawn({
                let socket: &Path = &serve.socket;
                move || keep_viewing(socket, &people, ends)
            });
        }
    });
    tap.probed()
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
