//! wrk: how many answers a second a web server gives, and how long the slow ones take. Where more than one in a thousand
//! is no answer, or another one than 2xx and 3xx, the measurement fails: a fast refusal is no figure.

use std::process::Command;

use crate::rig::{program, repository};

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub per_second: f64,
    pub p99_ms: f64,
    pub requests: usize,
}

/// What is asked for.
pub struct Load<'a> {
    pub url: String,
    pub headers: Vec<String>,
    /// Instead of the address itself, those of many people: how many, from which on, and the path with their number.
    pub people: Option<(usize, usize, &'a str)>,
}

impl Load<'_> {
    pub fn of(url: &str) -> Load<'static> {
        Load { url: url.to_owned(), headers: Vec::new(), people: None }
    }

    pub fn run(&self, connections: usize, seconds: usize) -> Sample {
        let (sample, bad) = self.go(connections, seconds);
        let what = self.people.map_or(self.url.as_str(), |(.., place)| place);
        assert!(bad.sum * 1000 <= sample.requests, "wrk -c{connections} {what}: of {}: {}", sample.requests, bad.told);
        sample
    }

    /// For the sake of those who answer, while they still get ready; whatever the answers are.
    pub fn warm(&self, connections: usize, seconds: usize) -> usize {
        self.go(connections, seconds).0.requests
    }

    fn go(&self, connections: usize, seconds: usize) -> (Sample, Bad) {
        let mut command = Command::new(program("wrk", "wrk"));
        command.args(["-t1", "--latency", "--timeout", "20"]);
        command.arg(format!("-c{connections}")).arg(format!("-d{seconds}"));
        for header in &self.headers {
            command.args(["-H", header]);
        }
        if let Some((people, offset, place)) = self.people {
            command.arg("-s").arg(repository("benches/speed/peers/people.lua"));
            command.env("PEOPLE", people.to_string()).env("OFFSET", offset.to_string()).env("PLACE", place);
        }
        let output = command.arg(&self.url).output().expect("wrk starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let sample = Sample::read(&text);
        (sample.unwrap_or_else(|| panic!("{command:?}: {output:?}")), bad(&text))
    }
}

/// What wrk counted that is no answer.
struct Bad {
    sum: usize,
    told: String,
}

/// `Non-2xx or 3xx responses: 3` and `Socket errors: connect 0, read 1, write 0, timeout 0`.
fn bad(text: &str) -> Bad {
    let is_one = |line: &&str| line.starts_with("Non-2xx") || line.starts_with("Socket errors");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(is_one).collect();
    let told = lines.join("; ");
    let counts = lines.iter().filter_map(|line| line.split_once(':')).flat_map(|(_, counts)| counts.split([' ', ',']));
    Bad { sum: counts.filter_map(|word| word.parse::<usize>().ok()).sum(), told }
}

impl Sample {
    fn read(text: &str) -> Option<Sample> {
        let line = |mark: &str| text.lines().find_map(|line| line.trim().strip_prefix(mark)).map(str::trim);
        let requests = text.lines().find(|line| line.contains(" requests in "))?.split_whitespace().next()?;
        Some(Sample {
            per_second: line("Requests/sec:")?.parse().ok()?,
            p99_ms: ms(line("99%")?)?,
            requests: requests.parse().ok()?,
        })
    }
}

/// `310.00us`, `1.25ms`, `1.03s`.
fn ms(text: &str) -> Option<f64> {
    let end = text.find(|c: char| c.is_alphabetic())?;
    let number: f64 = text[..end].parse().ok()?;
    let factor = match &text[end..] {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1000.0,
        "m" => 60_000.0,
        _ => return None,
    };
    Some(number * factor)
}
