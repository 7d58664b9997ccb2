//! A table's rows: what is measured, what it should come to, and what it came to. Rows are declared before anything is
//! measured, so that one that could not be measured stands in the table with the reason, and none is left out.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

/// Of the text between the tables.
const WIDTH: usize = 118;

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
    Above(f64),
    Exactly(f64),
    /// There is none; the figure is told for those who compare.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Of a peer's figure in the same round.
    Ratio,
    PerSecond,
    Ms,
    Seconds,
    Megabytes,
    Count,
}

pub struct Row {
    /// Unique.
    pub what: String,
    pub target: Target,
    pub unit: Unit,
}

pub fn row(what: impl Into<String>, target: Target, unit: Unit) -> Row {
    Row { what: what.into(), target, unit }
}

/// One table.
pub struct Section {
    pub title: &'static str,
    /// What its rows mean and how they were measured, as Markdown.
    pub about: String,
    pub rows: Vec<Row>,
}

/// What was measured, by the words of the row: a value of each round.
#[derive(Default)]
pub struct Findings {
    values: BTreeMap<String, Vec<f64>>,
    /// Why the rest of a section is missing.
    pub troubles: Vec<String>,
}

impl Findings {
    pub fn add(&mut self, what: impl Into<String>, value: f64) {
        self.values.entry(what.into()).or_default().push(value);
    }

    pub fn add_all(&mut self, what: &str, values: impl IntoIterator<Item = f64>) {
        for value in values {
            self.add(what, value);
        }
    }
}

impl Section {
    /// The table, and how many of its rows hold, do not hold, and could not be measured.
    pub fn table(&self, findings: &Findings) -> (String, Tally) {
        let mut tally = Tally::default();
        let lines = self.rows.iter().map(|row| row.line(findings, &mut tally));
        let lines: String = lines.collect();
        let trouble = findings.troubles.iter().map(|trouble| format!("\nNot measured: {trouble}\n"));
        let known = |what: &&String| self.rows.iter().any(|row| row.what == **what);
        let strangers: Vec<&String> = findings.values.keys().filter(|what| !known(what)).collect();
        assert!(strangers.is_empty(), "measured without a row: {strangers:?}");
        let head = "| row | target | measured | |\n| --- | --- | --- | --- |\n";
        let (about, trouble) = (filled(&self.about), trouble.collect::<String>());
        (format!("## {}\n\n{about}\n{head}{lines}{trouble}", self.title), tally)
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub held: usize,
    pub missed: usize,
    pub unmeasured: usize,
}

/// In lines that are read without scrolling.
fn filled(text: &str) -> String {
    let mut lines = String::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        length += 1 + word.chars().count();
        if length > WIDTH {
            length = word.chars().count();
            lines.push('\n');
        } else if !lines.is_empty() {
            lines.push(' ');
        }
        lines.push_str(word);
    }
    lines + "\n"
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.held += other.held;
        self.missed += other.missed;
        self.unmeasured += other.unmeasured;
    }
}

impl Row {
    fn line(&self, findings: &Findings, tally: &mut Tally) -> String {
        let Some(values) = findings.values.get(&self.what) else {
            tally.unmeasured += 1;
            return format!("| {} | {} | not measured | ✗ |\n", self.what, Told(self.target, self.unit));
        };
        let verdict = match self.target.holds(values) {
            None => "",
            Some(true) => "✓",
            Some(false) => "✗",
        };
        tally.held += usize::from(verdict == "✓");
        tally.missed += usize::from(verdict == "✗");
        let measured = self.unit.spread(values);
        format!("| {} | {} | {measured} | {verdict} |\n", self.what, Told(self.target, self.unit))
    }
}

impl Target {
    /// The median counts; where there is only one right figure, each round's.
    fn holds(self, values: &[f64]) -> Option<bool> {
        let figure = median(values);
        match self {
            Target::AtLeast(limit) => Some(figure >= limit),
            Target::AtMost(limit) => Some(figure <= limit),
            Target::Above(limit) => Some(figure > limit),
            Target::Exactly(wanted) => Some(values.iter().all(|value| *value == wanted)),
            Target::None => None,
        }
    }
}

struct Told(Target, Unit);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, limit) = match self.0 {
            Target::AtLeast(limit) => ("≥ ", limit),
            Target::AtMost(limit) => ("≤ ", limit),
            Target::Above(limit) => ("> ", limit),
            Target::Exactly(wanted) => ("", wanted),
            Target::None => return write!(f, "–"),
        };
        let number = if limit.fract() == 0.0 { format!("{limit:.0}") } else { format!("{limit}") };
        write!(f, "{word}{number}{}", self.1.word())
    }
}

impl Unit {
    fn word(self) -> &'static str {
        match self {
            Unit::Ratio => " ×",
            Unit::PerSecond => "/s",
            Unit::Ms => " ms",
            Unit::Seconds => " s",
            Unit::Megabytes => " MB",
            Unit::Count => "",
        }
    }

    fn number(self, value: f64) -> String {
        match self {
            Unit::Ratio | Unit::Ms | Unit::Seconds => format!("{value:.2}"),
            Unit::Megabytes => format!("{value:.1}"),
            Unit::Count if value.fract() != 0.0 => format!("{value:.2}"),
            Unit::PerSecond | Unit::Count => format!("{value:.0}"),
        }
    }

    /// The median, with the least and the most where there were several rounds.
    fn spread(self, values: &[f64]) -> String {
        let middle = format!("{}{}", self.number(median(values)), self.word());
        if values.len() == 1 {
            return middle;
        }
        let least = values.iter().copied().fold(f64::MAX, f64::min);
        let most = values.iter().copied().fold(f64::MIN, f64::max);
        format!("{middle} ({}–{})", self.number(least), self.number(most))
    }
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}
