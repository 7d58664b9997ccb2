//! A whole process, from its start to its end, as a web server without FastCGI pays it for each visitor: beside
//! `/bin/true`, which is what starting anything costs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::rig::http::Answer;
use crate::rig::webpresence::Webpresence;
use crate::rows::{Findings, Row, Target, Unit, median, row};

/// Of each program in a round.
const TIMES: usize = 40;

/// The build with everything inside, where it has been made; its name is the target's.
pub fn musl() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_BIN_EXE_webpresence"));
    let target = built.ancestors().nth(2).expect("target/release/webpresence");
    let path = target.join(format!("{}-unknown-linux-musl/release/webpresence", std::env::consts::ARCH));
    path.exists().then_some(path)
}

pub const MUSL_MISSING: &str =
    "there is no static build; it needs `rustup target add` for musl, and `make bench` makes it";

/// The rows for people of whom there are so many; all asked about were looked up before by another process.
pub fn rows(before: &str) -> Vec<Row> {
    vec![
        row(ratio(before, "dynamic"), Target::AtMost(2.0), Unit::Ratio),
        row(ratio(before, "static, musl"), Target::AtMost(1.2), Unit::Ratio),
    ]
}

fn ratio(before: &str, build: &str) -> String {
    format!("{before}CGI, cached on disk, whole process ({build}), of /bin/true")
}

pub const TIMES_ROWS: [&str; 3] = ["/bin/true", "CGI, cached on disk (dynamic)", "CGI, cached on disk (static, musl)"];

/// One round, the programs one after the other. `query` is that of the n-th visitor. Returns the medians in
/// milliseconds, in the order of [`TIMES_ROWS`].
pub fn round(installed: &Webpresence, query: impl Fn(usize) -> String) -> Vec<f64> {
    let programs = [Some(PathBuf::from(env!("CARGO_BIN_EXE_webpresence"))), musl()];
    let mut times = vec![Vec::new(); 1 + programs.iter().flatten().count()];
    for visitor in 0..TIMES {
        times[0].push(time(&mut Command::new("/bin/true")));
        for (times, program) in times[1..].iter_mut().zip(programs.iter().flatten()) {
            times.push(time(&mut cgi(program, installed, &query(visitor))));
        }
    }
    times.iter().map(|times| median(times)).collect()
}

/// Adds what a round said.
pub fn add(findings: &mut Findings, before: &str, medians: &[f64]) {
    for (build, of) in [("dynamic", 1), ("static, musl", 2)] {
        if let Some(ours) = medians.get(of) {
            findings.add(ratio(before, build), ours / medians[0]);
        }
    }
}

/// As a web server starts a CGI program (RFC 3875), with nothing but what it must say.
fn cgi(program: &Path, installed: &Webpresence, query: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("GATEWAY_INTERFACE", "CGI/1.1").env("REQUEST_METHOD", "GET");
    command.env("QUERY_STRING", query).env("WEBPRESENCE_CONFIG", &installed.config);
    command
}

fn time(command: &mut Command) -> f64 {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let status = command.spawn().and_then(|mut child| child.wait()).expect("it is there");
    let took = begun.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    took.as_secs_f64() * 1000.0
}

/// That both builds answer, with what the daemon said.
pub fn look(installed: &Webpresence, query: &str, icon: &[u8]) {
    for program in [Some(PathBuf::from(env!("CARGO_BIN_EXE_webpresence"))), musl()].iter().flatten() {
        let output = cgi(program, installed, query).output().expect("it is there");
        let answer = Answer::from_cgi(&output.stdout);
        assert_eq!((answer.status, &answer.body[..]), (200, icon), "{}", program.display());
    }
}
