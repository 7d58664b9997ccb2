//! `make bench-probe`: how many round trips lie between the connection and the answer, on a way of 50 ms there and
//! back, measured outside of the executable. Real servers, every way to log in, interleaved rounds, and in the same
//! rounds tokio-xmpp. Prints the table, writes it to `benches/PROBE.md`, and fails where a figure is more than half a
//! round trip over what it should be.

mod cases;
#[path = "../machine.rs"]
mod machine;
mod relay;
#[path = "../../tests/rig/mod.rs"]
#[expect(dead_code, reason = "the rig is the tests'; a part of it is enough here")]
mod rig;
mod run;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use cases::{SERVERS, Server, WAYS, Way};
use relay::ROUND_TRIP;
use run::{Sample, Stand};

/// Odd, for the median's sake.
const ROUNDS: usize = 9;
const LOOPBACK_ROUNDS: usize = 51;
/// What may be above the whole number: the server's own time, and ours.
const SLACK: f64 = 0.5;
/// What we may take from the last thing that comes in to the answer, in round trips.
const WAIT: f64 = 0.1;
const LOOPBACK_LIMIT: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    let stands: Vec<Stand> = SERVERS.iter().map(Stand::new).collect();
    let mut lines = Vec::new();
    for stand in &stands {
        lines.extend(WAYS.map(|way| Line { row: stand.row, way, ours: Vec::new(), peer: Vec::new() }));
    }
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        for (line, stand) in lines.iter_mut().zip(stands.iter().flat_map(|stand| [stand; WAYS.len()])) {
            line.ours.push(stand.measure(line.way));
            // Where it failed at once it is not waited for again.
            if round == 1 || !line.peer.is_empty() {
                line.peer.extend(stand.measure_peer(line.way));
            }
        }
    }
    let loopback: Vec<[Duration; 2]> = (0..LOOPBACK_ROUNDS).map(|_| stands[0].measure_loopback()).collect();
    let [ours, peer] = [0, 1].map(|who| loopback.iter().map(|pair| pair[who]).collect::<Vec<_>>());
    let report = report(&lines, &ours, &peer);
    println!("{report}");
    fs::write(rig::repository("benches/PROBE.md"), &report).expect("the sources can be written");
    let well = lines.iter().all(Line::is_well) && median(ours) < LOOPBACK_LIMIT;
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One line of the table.
struct Line {
    row: &'static Server,
    way: Way,
    ours: Vec<Sample>,
    peer: Vec<Sample>,
}

impl Line {
    fn is_well(&self) -> bool {
        let (wire, answer) = (median(wires(&self.ours)), median(answers(&self.ours)));
        // A wait of ours that is no round trip would show here.
        let waited = trips(answer.saturating_sub(wire + self.row.grace));
        trips(wire) <= f64::from(self.way.expected(self.row)) + SLACK && waited <= WAIT
    }

    fn text(&self) -> String {
        let (server, way, expected) = (self.row.name, self.way.name(), self.way.expected(self.row));
        let wire = spread(wires(&self.ours));
        let answer = median(answers(&self.ours)).as_millis();
        let peer = if self.peer.is_empty() { "–".to_owned() } else { spread(wires(&self.peer)) };
        let verdict = if self.is_well() { "" } else { " ✗" };
        format!("| {server} | {way} | {expected} | {wire}{verdict} | {answer} | {peer} |\n")
    }
}

fn report(lines: &[Line], ours: &[Duration], peer: &[Duration]) -> String {
    let table: String = lines.iter().map(Line::text).collect();
    let verdict = if median(ours.to_vec()) < LOOPBACK_LIMIT { "" } else { " ✗" };
    format!(
        "# Round trips of a probe\n\n\
         From the connection to the last thing that goes into the answer, divided by the round trip of {} ms: the\n\
         median of {ROUNDS} interleaved rounds, with the least and the most. The connection counts as one. ✗ marks what\n\
         is more than {SLACK} over what it should be. On ejabberd the answer comes 200 ms after that, since more might\n\
         follow. A dash: tokio-xmpp does not go that way, or gets no answer. `make bench-probe` writes this file.\n\n\
         | server | way | should be | webpresence | answer, ms | tokio-xmpp |\n\
         | --- | --- | --- | --- | --- | --- |\n{table}\n\
         On loopback without a delay, a cold component on Prosody, from the start of the process to its answer, median\n\
         of {LOOPBACK_ROUNDS} and the least: webpresence {}{verdict} (should be under {} ms), tokio-xmpp {}.\n\n\
         Measured on {}, with {}, Prosody 13 and ejabberd 24 of Debian's backports, tokio-xmpp 6.\n",
        ROUND_TRIP.as_millis(),
        loopback_text(ours),
        LOOPBACK_LIMIT.as_millis(),
        loopback_text(peer),
        machine::hardware(),
        machine::versions(&["prosody", "ejabberd"]),
    )
}

fn wires(samples: &[Sample]) -> Vec<Duration> {
    samples.iter().map(|sample| sample.wire).collect()
}

fn answers(samples: &[Sample]) -> Vec<Duration> {
    samples.iter().map(|sample| sample.answer).collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn spread(times: Vec<Duration>) -> String {
    let [least, most] = [times.iter().min(), times.iter().max()].map(|time| trips(*time.expect("rounds were made")));
    format!("{:.2} ({least:.2}–{most:.2})", trips(median(times)))
}

fn trips(time: Duration) -> f64 {
    time.as_secs_f64() / ROUND_TRIP.as_secs_f64()
}

fn loopback_text(times: &[Duration]) -> String {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let least = times.iter().min().copied().unwrap_or_default();
    format!("{:.1} ms ({:.1})", ms(median(times.to_vec())), ms(least))
}
