//! Interleaved rounds: in each, every way once, beginning with another one each time, so that what the machine does
//! meanwhile hits all alike. A ratio is that of one round.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::load::Sample;
use crate::paths::{Ratio, Way};
use crate::reason;
use crate::rows::Findings;

#[derive(Default)]
pub struct Rounds {
    samples: BTreeMap<Way, Vec<Sample>>,
    /// Ways that could not be measured in one of the rounds, and why: they have no figures.
    failed: BTreeMap<Way, String>,
}

impl Rounds {
    /// `also` is done at the end of each round.
    pub fn run(rounds: usize, ways: &[Way], measure: impl Fn(Way) -> Sample, mut also: impl FnMut()) -> Rounds {
        let mut all = Rounds::default();
        for round in 0..rounds {
            for turn in 0..ways.len() {
                let way = ways[(round + turn) % ways.len()];
                if !all.failed.contains_key(&way) {
                    all.measure(way, &measure);
                }
            }
            also();
        }
        all
    }

    fn measure(&mut self, way: Way, measure: impl Fn(Way) -> Sample) {
        let once = || catch_unwind(AssertUnwindSafe(|| measure(way)));
        // A web server that closes some connections once is not one that cannot be measured.
        match once().or_else(|_| once()) {
            Ok(sample) => self.samples.entry(way).or_default().push(sample),
            Err(panic) => {
                self.samples.remove(&way);
                self.failed.insert(way, reason(panic.as_ref()));
            }
        }
    }

    pub fn of(&self, way: Way) -> &[Sample] {
        self.samples.get(&way).map_or(&[], Vec::as_slice)
    }

    pub fn troubles(&self) -> impl Iterator<Item = String> {
        self.failed.values().cloned()
    }

    /// Adds the ratio of each round to the row that [`Ratio::row`] made.
    pub fn compare(&self, ratio: &Ratio, before: &str, findings: &mut Findings) {
        let pairs = self.of(ratio.ours).iter().zip(self.of(ratio.peer));
        findings.add_all(&ratio.what(before), pairs.map(|(ours, peer)| ours.per_second / peer.per_second));
    }
}
