//! What a daemon takes of the machine's memory and disk, as the kernel counts it (VmRSS, which has the pages of the
//! executable in it).

use std::fs;
use std::path::Path;

use crate::Plan;
use crate::crowd::{ask_each, jid};
use crate::rig::eventually;
use crate::rig::fastcgi::Connection;
use crate::rig::leash::Leash;
use crate::rig::tap::Tap;
use crate::rig::webpresence::Serve;
use crate::rows::{Findings, Section, Target, Unit, row};
use crate::stand::{Stand, UNTHROTTLED};
use crate::standin;

const IDLE: &str = "idle, nothing asked yet";
const CACHED: &str = "10,000 people cached";
const CONNECTIONS: &str = "1,000 connections at once, a request for a different person in hand on each";
const ASKED: &str = "100,000 people asked for once, entries = 10,000: memory";
const FILES: &str = "100,000 people asked for once, entries = 10,000: files";
const BYTES: &str = "100,000 people asked for once, entries = 10,000: bytes in them";

const ENTRIES: usize = 10_000;
const AT_ONCE: usize = 1000;
const ASKED_ONCE: usize = 100_000;

pub fn section() -> Section {
    Section {
        title: "Memory",
        about: "VmRSS of `webpresence serve` with the default configuration (`entries` is 10,000), but that nobody \
                counts as a stranger and `probes_per_second` is 100,000, so that caches are soon full; a new installation \
                each round, which knows nobody yet. A request is in hand when the question has gone to the XMPP server, which says nothing until \
                all have been counted. Files are those in the directory that processes share; beside the entries \
                there may be a hundredth of other things. 100,000 people are asked once, without rounds. The people are those of \
                a stand-in for an XMPP server, each away with a text."
            .to_owned(),
        rows: vec![
            row(IDLE, Target::AtMost(6.0), Unit::Megabytes),
            row(CACHED, Target::AtMost(14.0), Unit::Megabytes),
            row(CONNECTIONS, Target::AtMost(24.0), Unit::Megabytes),
            row(ASKED, Target::AtMost(14.0), Unit::Megabytes),
            row(FILES, Target::AtMost(ENTRIES as f64 * 1.01), Unit::Count),
            row(BYTES, Target::None, Unit::Megabytes),
        ],
    }
}

pub fn measure(stand: &Stand, plan: Plan, findings: &mut Findings) {
    let server = standin::start();
    let text = format!("{}\n", standin::TEXT);
    for _ in 0..plan.rounds {
        let installed = stand.install(4, "server = prosody", UNTHROTTLED, server);
        let serve = installed.serve();
        findings.add(IDLE, megabytes(&serve));
        ask_each(&serve.socket, 0..ENTRIES, &text);
        findings.add(CACHED, megabytes(&serve));
    }
    connections(stand, server, plan, findings);
    let installed = stand.install(5, "server = prosody", UNTHROTTLED, server);
    let serve = installed.serve();
    ask_each(&serve.socket, 0..plan.people(ASKED_ONCE), &text);
    findings.add(ASKED, megabytes(&serve));
    let (files, bytes) = below(installed.state());
    findings.add(FILES, files as f64);
    findings.add(BYTES, bytes as f64 / 1e6);
}

fn connections(stand: &Stand, server: u16, plan: Plan, findings: &mut Findings) {
    let tap = Tap::before(server);
    for _ in 0..plan.rounds {
        let installed = stand.install(6, "server = prosody", UNTHROTTLED, tap.port);
        let serve = installed.serve();
        // The session is open before.
        Connection::open(&serve.socket).ask(&format!("jid={}&type=text", jid(AT_ONCE)));
        tap.hold();
        let mut visitors: Vec<Connection> = (0..AT_ONCE).map(|_| Connection::open(&serve.socket)).collect();
        for (number, visitor) in visitors.iter_mut().enumerate() {
            let query = format!("jid={}&type=text", jid(number));
            visitor.send(&[("REQUEST_METHOD", b"GET"), ("QUERY_STRING", query.as_bytes())]);
        }
        // Each question is on its way, or in its turn: the process has nothing left to do.
        findings.add(CONNECTIONS, megabytes(&serve));
        tap.let_go();
        for mut visitor in visitors {
            let answer = visitor.receive().expect("webpresence answers");
            assert_eq!((answer.status, answer.text().as_str()), (200, format!("{}\n", standin::TEXT).as_str()));
        }
    }
}

/// So many looks in a row, each 10 ms after the one before, that find the same.
const STILL: usize = 30;

/// Once it does not change any more.
fn megabytes(serve: &Serve) -> f64 {
    let mut last = (0, 0);
    let settled = eventually("the memory settles", || {
        let now = resident_kb(&serve.leash);
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        (last.1 == STILL).then_some(now)
    });
    settled as f64 * 1024.0 / 1e6
}

fn resident_kb(leash: &Leash) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", leash.pid.as_raw_nonzero())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// How many files there are in a directory and all below it, and how long they are together.
fn below(directory: &Path) -> (usize, u64) {
    let entries = fs::read_dir(directory).expect("root, or ours").flatten();
    entries.fold((0, 0), |(files, bytes), entry| match entry.metadata() {
        Ok(data) if data.is_dir() => {
            let (more, longer) = below(&entry.path());
            (files + more, bytes + longer)
        }
        Ok(data) => (files + 1, bytes + data.len()),
        // Gone since it was listed.
        Err(_) => (files, bytes),
    })
}
