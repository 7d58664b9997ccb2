//! When a session that failed may be tried again. A server that is down is asked ever more seldom; a password is not
//! sent again for hours once it was refused, since ejabberd bans the whole address after twenty. Pure: where it is
//! remembered is `memory`'s business.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Failure;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
pub const REFUSED: Duration = Duration::from_secs(2 * 3600);
/// The first pauses of a component are shorter: nobody bans it, and one whose server has just started may be refused by
/// mistake.
const COMPONENT_REFUSED: Duration = LONGEST;

/// What went wrong last, in the form in which processes tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setback {
    pub failure: Failure,
    pub sort: Sort,
    /// Of this sort, one after the other.
    pub times: u32,
    /// From then on.
    pub wait: Duration,
}

/// What has to change before it is worth trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// The server, or the way to it.
    Transport,
    /// Name or password.
    Refusal,
    /// Somebody else uses the identity.
    Conflict,
}

/// Who counts how often a password is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    Component,
    Account,
}

/// See the module.
#[derive(Debug)]
pub struct Backoff {
    strictness: Strictness,
    last: Option<(Setback, Instant)>,
    /// Sessions that another one ended, until one lasted.
    conflicts: u32,
}

impl Backoff {
    pub fn new(strictness: Strictness) -> Backoff {
        Backoff { strictness, last: None, conflicts: 0 }
    }

    /// A login that went well; only a session that lasts shows that nobody else wants it.
    pub fn succeeded(&mut self) {
        self.last = None;
    }

    pub fn lasted(&mut self) {
        self.conflicts = 0;
    }

    pub fn failed(&mut self, failure: &Failure, now: Instant) -> &Setback {
        let sort = match failure {
            Failure::LoginRefused(_) => Sort::Refusal,
            Failure::Conflict => Sort::Conflict,
            _ => Sort::Transport,
        };
        let before = self.last.as_ref().filter(|(last, _)| last.sort == sort).map_or(0, |(last, _)| last.times);
        let times = if sort == Sort::Conflict { self.conflicts } else { before };
        let doubled = |first: Duration| first.saturating_mul(2_u32.saturating_pow(times));
        let wait = match (sort, self.strictness, failure) {
            (Sort::Refusal, Strictness::Account, _) => REFUSED,
            (Sort::Refusal, Strictness::Component, _) => doubled(COMPONENT_REFUSED).min(REFUSED),
            (_, _, Failure::Login(_)) => LONGEST,
            _ => doubled(FIRST).min(LONGEST),
        };
        if sort == Sort::Conflict {
            self.conflicts = self.conflicts.saturating_add(1);
        }
        let setback = Setback { failure: failure.clone().portable(), sort, times: times.saturating_add(1), wait };
        &self.last.insert((setback, now + wait)).0
    }

    /// What the processes of this identity know together replaces what this one knew: `rest` is left of the pause.
    pub fn recall(&mut self, known: Option<(Setback, Duration)>, now: Instant) {
        if let Some((Setback { sort: Sort::Conflict, times, .. }, _)) = &known {
            self.conflicts = self.conflicts.max(*times);
        }
        self.last = known.map(|(setback, rest)| (setback, now + rest));
    }

    /// What went wrong, where on its account nothing is to be tried now.
    pub fn stands_in_the_way(&self, now: Instant) -> Option<&Setback> {
        self.last.as_ref().filter(|(_, until)| now < *until).map(|(setback, _)| setback)
    }

    /// When an attempt may be made.
    pub fn until(&self) -> Option<Instant> {
        self.last.as_ref().map(|(_, until)| *until)
    }

    /// How long to wait; at least a second.
    pub fn remaining(&self, now: Instant) -> Duration {
        self.until().map(|until| until.saturating_duration_since(now)).unwrap_or_default().max(FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses after a failure that happens again and again, in seconds.
    fn pauses<const N: usize>(backoff: &mut Backoff, failure: &Failure) -> [u64; N] {
        let mut now = Instant::now();
        [(); N].map(|()| {
            backoff.failed(failure, now);
            assert!(backoff.stands_in_the_way(now).is_some_and(|setback| setback.failure == *failure));
            let wait = backoff.remaining(now);
            now += wait;
            assert_eq!(backoff.stands_in_the_way(now), None);
            wait.as_secs()
        })
    }

    #[test]
    fn transport_failures_are_retried_ever_more_seldom() {
        let mut backoff = Backoff::new(Strictness::Account);
        let expected = [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300];
        assert_eq!(pauses(&mut backoff, &Failure::Silent), expected);
        backoff.succeeded();
        assert_eq!(pauses(&mut backoff, &Failure::Silent), [1]);
    }

    #[test]
    fn a_refused_password_is_not_sent_again_for_long() {
        let refused = Failure::LoginRefused("not-authorized".into());
        assert_eq!(pauses(&mut Backoff::new(Strictness::Account), &refused), [7200, 7200]);
        assert_eq!(
            pauses(&mut Backoff::new(Strictness::Component), &refused),
            [300, 600, 1200, 2400, 4800, 7200, 7200]
        );
    }

    /// A server that was down for long and refuses a component once, having just started.
    #[test]
    fn a_failure_of_another_sort_counts_anew() {
        let mut backoff = Backoff::new(Strictness::Component);
        pauses::<9>(&mut backoff, &Failure::Silent);
        assert_eq!(pauses(&mut backoff, &Failure::LoginRefused("host-unknown".into())), [300]);
        assert_eq!(pauses(&mut backoff, &Failure::Silent), [1]);
    }

    /// Two machines that throw each other out log in each time: that is no success.
    #[test]
    fn whoever_is_replaced_again_and_again_gives_way() {
        let mut backoff = Backoff::new(Strictness::Component);
        for expected in [1, 2, 4, 8] {
            assert_eq!(pauses(&mut backoff, &Failure::Conflict), [expected]);
            backoff.succeeded();
        }
        backoff.lasted();
        assert_eq!(pauses(&mut backoff, &Failure::Conflict), [1]);
    }

    #[test]
    fn another_process_goes_on_counting() {
        let now = Instant::now();
        for failure in [Failure::Silent, Failure::Conflict] {
            let mut first = Backoff::new(Strictness::Account);
            pauses::<3>(&mut first, &failure);
            let setback = first.failed(&failure, now).clone();
            let mut second = Backoff::new(Strictness::Account);
            second.recall(Some((setback, Duration::from_secs(5))), now);
            assert_eq!(second.remaining(now).as_secs(), 5);
            assert_eq!(pauses(&mut second, &failure), [16]);
            second.recall(None, now);
            assert_eq!(second.stands_in_the_way(now), None);
        }
    }
}
