//! `make bench-privacy`: whether a refusal tells by its time, its headers or its bytes who is there. Three thousand people
//! who may not be seen, a thousand for each reason, are asked for once each, in no order, thirty at a time, through the
//! socket of a daemon between real servers. Prints the table, writes it to `benches/PRIVACY.md`, and fails where the
//! reasons can be told apart; or where a cache in front keeps somebody visible for longer than its answer said.

mod cached;
#[path = "../machine.rs"]
mod machine;
mod people;
#[path = "../../tests/rig/mod.rs"]
#[expect(dead_code, reason = "the rig is the tests'; a part of it is enough here")]
mod rig;

use std::fs;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use people::{COUNT, KINDS};
use rig::fastcgi::Connection;
use rig::http::Answer;
use rig::webpresence::Webpresence;
use rig::xmpp::{DOMAIN, Identity, Privilege, Release, Xmpp};
use rig::{ejabberd, prosody};

const AT_ONCE: usize = 30;
const IDENTITY: Identity = Identity::Component(0);
const GRANTED: Privilege = Privilege { to: IDENTITY, roster: "get", presence: "managed_entity" };

/// What medians may differ by.
const MEDIANS_MS: f64 = 1.0;
/// The chance that one of the first kind took longer than one of the second is less than this, and more than the rest.
const AREA: f64 = 0.55;

fn main() -> ExitCode {
    eprintln!("Prosody");
    let prosody = measure(&prosody::start_with(Release::Stable, prosody::LastActivity::On, &[GRANTED]));
    eprintln!("ejabberd");
    let ejabberd = measure(&ejabberd::start_with(Release::Stable, &[GRANTED]));
    let outcomes = [("Prosody 0.12", prosody), ("ejabberd 23", ejabberd)];
    eprintln!("A cache in front");
    let cached = cached::measure();
    let report = report(&outcomes, &cached);
    println!("{report}");
    fs::write(rig::repository("benches/PRIVACY.md"), &report).expect("the sources can be written");
    let is_well = outcomes.iter().all(|(_, outcome)| outcome.is_well()) && cached.is_well();
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What came back about the people of one server.
struct Outcome {
    /// In milliseconds, sorted, by kind.
    times: [Vec<f64>; KINDS.len()],
    /// The different answers there were, without the time.
    answers: Vec<String>,
}

fn measure(server: &Xmpp) -> Outcome {
    let installed = Webpresence::tuned(server, IDENTITY, "timeout = 10", "");
    people::make(server, &installed, IDENTITY);
    let access = "visibility = subscribers\nunknown_per_minute = 0\nunknown_per_minute_all = 0\n";
    installed.configure(&installed.configuration().replace("visibility = anyone\n", access));
    let serve = installed.serve();
    // The session is open, and the server known, before anybody is measured.
    Connection::open(&serve.socket).ask(&query("first"));
    let questions = shuffled();
    let (next, answered) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let mut connection = Connection::open(&serve.socket);
                while let Some((kind, number)) = questions.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let query = query(&people::name(*kind, *number));
                    let started = Instant::now();
                    let answer = connection.ask(&query);
                    let took = started.elapsed();
                    answered.lock().expect("nobody panics with it").push((*kind, took, answer));
                }
            });
        }
    });
    Outcome::of(&answered.into_inner().expect("nobody panicked"))
}

/// Of a type that does not name who was asked for: the bytes are compared as they are.
fn query(name: &str) -> String {
    format!("jid={name}@{DOMAIN}&req_jid=frank@{DOMAIN}&type=text")
}

/// Everybody, the kinds mixed: by a generator of Knuth's, so that each run is the same.
fn shuffled() -> Vec<(usize, usize)> {
    let mut questions: Vec<_> =
        (0..KINDS.len()).flat_map(|kind| (0..COUNT).map(move |number| (kind, number))).collect();
    let mut random = 20_240_601_u64;
    for last in (1..questions.len()).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        questions.swap(last, (random >> 33) as usize % (last + 1));
    }
    questions
}

impl Outcome {
    fn of(answered: &[(usize, Duration, Answer)]) -> Outcome {
        let times = std::array::from_fn(|kind| {
            let mine = answered.iter().filter(|(of, ..)| *of == kind);
            let mut times: Vec<f64> = mine.map(|(_, took, _)| took.as_secs_f64() * 1000.0).collect();
            times.sort_by(f64::total_cmp);
            assert_eq!(times.len(), COUNT);
            times
        });
        let mut answers: Vec<String> = answered.iter().map(|(.., answer)| format!("{answer:?}")).collect();
        answers.sort();
        answers.dedup();
        Outcome { times, answers }
    }

    fn is_well(&self) -> bool {
        self.differs_ms() <= MEDIANS_MS
            && self.areas().iter().all(|area| (1.0 - AREA..AREA).contains(area))
            && self.is_one()
    }

    fn differs_ms(&self) -> f64 {
        let medians = self.times.each_ref().map(|times| at(times, 0.5));
        medians.iter().fold(f64::MIN, |most, median| most.max(*median))
            - medians.iter().fold(f64::MAX, |least, median| least.min(*median))
    }

    /// Of each kind against the next.
    fn areas(&self) -> [f64; KINDS.len()] {
        std::array::from_fn(|kind| area(&self.times[kind], &self.times[(kind + 1) % KINDS.len()]))
    }

    /// One refusal for all.
    fn is_one(&self) -> bool {
        self.answers.len() == 1 && self.answers[0].contains("status: 200")
    }

    fn row(&self, name: &str) -> String {
        let times = self
            .times
            .each_ref()
            .map(|times| format!("{:.1} ({:.1}–{:.1})", at(times, 0.5), at(times, 0.05), at(times, 0.95)));
        let areas = self.areas().map(|area| format!("{area:.3}")).join(", ");
        let answers =
            if self.is_one() { "identical".to_owned() } else { format!("{} different ✗", self.answers.len()) };
        let verdict = if self.is_well() { "" } else { " ✗" };
        format!("| {name} | {} | {:.2} | {areas} | {answers}{verdict} |\n", times.join(" | "), self.differs_ms())
    }
}

/// Of sorted figures, the one that this part of them is below.
fn at(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

/// How often one of the first took longer than one of the second, equal ones by half (Mann and Whitney): 0.5 tells
/// nothing. Both are sorted.
fn area(first: &[f64], second: &[f64]) -> f64 {
    let below = |than: f64| second.partition_point(|time| *time < than) as f64;
    let not_above = |than: f64| second.partition_point(|time| *time <= than) as f64;
    let won: f64 = first.iter().map(|time| (below(*time) + not_above(*time)) / 2.0).sum();
    won / (first.len() * second.len()) as f64
}

fn report(outcomes: &[(&str, Outcome)], cached: &cached::Cached) -> String {
    let rows: String = outcomes.iter().map(|(name, outcome)| outcome.row(name)).collect();
    let kinds = KINDS.map(|(kind, _)| kind).join(" | ");
    format!(
        "# What a refusal tells\n\n\
         {COUNT} people of each kind, each asked for once by somebody who may not see him, in no order and {AT_ONCE} at a time,\n\
         through the socket of `webpresence serve`: the median of the milliseconds to the answer, and from where to where\n\
         nine tenths of them are. The area is that under the curve of a rank test (Mann and Whitney) of each kind against\n\
         the next: 0.5 tells nothing, 1 or 0 everything. ✗ marks medians that differ by more than {MEDIANS_MS} ms, an area\n\
         of {AREA} or more (or the same to the other side), and answers whose headers or bytes are not all the same.\n\
         `make bench-privacy` writes this file.\n\n\
         | server | {kinds} | medians differ by | areas | answers |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n{rows}\n\
         {cached}\n\
         Measured on {}, with {}.\n",
        machine::hardware(),
        machine::versions(&["prosody", "ejabberd", "nginx"]),
    )
}
