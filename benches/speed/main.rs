//! `make bench`: how fast, how small and how sparing it is, beside the modules of the XMPP servers, libfcgi, a static
//! file, and a responder that does nothing. Interleaved rounds, ratios within a round, medians; every row with what it
//! should be. Prints the tables and, unless the rounds were cut, writes them to `benches/RESULTS.md`. A miss is a result
//! like any other; the command fails only where something could not be measured.
//!
//! `ROUNDS` and `SECONDS` (of a run of wrk) make it shorter, `ONLY` names a table by the beginning of its title.

mod crowd;
mod growth;
mod late;
mod load;
#[path = "../machine.rs"]
mod machine;
mod memory;
mod paths;
mod peers;
#[path = "../../tests/rig/mod.rs"]
#[expect(dead_code, reason = "the rig is the tests'; a part of it is enough here")]
mod rig;
mod rounds;
mod rows;
mod spawn;
mod stampede;
mod stand;
mod standin;
mod web;

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use rows::{Findings, Section, Tally};
use stand::Stand;

/// At least, for figures that are written down.
const ROUNDS: usize = 9;
const SECONDS: usize = 3;

/// How much is done.
#[derive(Clone, Copy)]
pub struct Plan {
    pub rounds: usize,
    /// Of a run of wrk in the first table.
    pub seconds: usize,
}

type Measure = fn(&Stand, Plan, &mut Findings);

fn main() -> ExitCode {
    let plan = Plan { rounds: number("ROUNDS", ROUNDS), seconds: number("SECONDS", SECONDS) };
    let only = std::env::var("ONLY").unwrap_or_default();
    allow_connections();
    let begun = Instant::now();
    let tables: [(Section, Measure); 6] = [
        (paths::section(plan), paths::measure),
        (memory::section(), memory::measure),
        (stampede::section(plan), stampede::measure),
        (late::section(), late::measure),
        (growth::connections_section(), growth::measure_connections),
        (growth::people_section(), growth::measure_people),
    ];
    let chosen: Vec<_> = tables.into_iter().filter(|(section, _)| section.title.starts_with(&only)).collect();
    eprintln!("the servers, and {} people", crowd::REAL);
    let stand = Stand::start();
    let mut report = String::new();
    let mut all = Tally::default();
    for (section, measure) in chosen {
        eprintln!("{:>5} s  {}", begun.elapsed().as_secs(), section.title);
        let (table, tally) = section.table(&findings(measure, &stand, plan));
        println!("{table}");
        report += &format!("{table}\n");
        all += tally;
    }
    println!("{} ✓, {} ✗, {} not measured; {} s.", all.held, all.missed, all.unmeasured, begun.elapsed().as_secs());
    if !plan.is_full() || !only.is_empty() {
        println!("Cut short (100,000 people may be 10,000): nothing is written.");
    } else {
        fs::write(rig::repository("benches/RESULTS.md"), document(plan, &report)).expect("the sources can be written");
    }
    if all.unmeasured == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Plan {
    fn is_full(self) -> bool {
        self.rounds >= ROUNDS && self.seconds >= SECONDS
    }

    /// So many, or a tenth of the crowd where somebody is in a hurry.
    pub fn people(self, wanted: usize) -> usize {
        if self.is_full() { wanted } else { wanted.min(10_000) }
    }
}

/// What a table's measurements came to, as far as they got.
fn findings(measure: Measure, stand: &Stand, plan: Plan) -> Findings {
    let mut findings = Findings::default();
    let ended = catch_unwind(AssertUnwindSafe(|| measure(stand, plan, &mut findings)));
    findings.troubles.extend(ended.err().map(|panic| reason(panic.as_ref())));
    findings
}

/// The first line of what a panic says.
pub fn reason(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it failed");
    text.lines().next().unwrap_or_default().to_owned()
}

fn number(name: &str, otherwise: usize) -> usize {
    let Ok(text) = std::env::var(name) else { return otherwise };
    text.parse().ok().filter(|number| *number > 0).unwrap_or_else(|| panic!("{name}={text} is no number"))
}

/// A thousand connections need as many descriptors, here and in the servers.
fn allow_connections() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(16_384, |most| most.min(16_384));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).expect("up to the hard limit");
}

fn document(plan: Plan, tables: &str) -> String {
    format!(
        "# How fast, how small, how sparing\n\n\
         The median of {} interleaved rounds, with the least and the most; a ratio is that of two figures of the same\n\
         round. ✓ and ✗ say whether a target is reached; a dash is a figure without one. Where the time goes in rows that fall\n\
         short stands in [PROFILE.md](PROFILE.md). `make bench` installs the peers, measures and writes this file.\n\n\
         {tables}\
         Measured on {}, with {}, {}.\n",
        plan.rounds,
        machine::hardware(),
        machine::versions(&[
            "nginx",
            "apache2",
            "libapache2-mod-fcgid",
            "prosody",
            "ejabberd",
            "ejabberd-mod-webpresence",
            "libfcgi0ldbl",
            "wrk",
            "gcc",
        ]),
        "Prosody's mod_webpresence of Debian's prosody-modules",
    )
}
