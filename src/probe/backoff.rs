//! When a session that failed may be tried again. A server that is down is asked ever more seldom; the password of an
//! account is not sent again for hours once it was refused, since ejabberd bans the whole address after twenty.

use std::time::Duration;

use tokio::time::Instant;

use super::Failure;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
pub const ACCOUNT_REFUSED: Duration = Duration::from_secs(2 * 3600);
/// Nobody counts the attempts of components, and one whose server has just started may be refused by mistake.
pub const COMPONENT_REFUSED: Duration = LONGEST;

/// See the module.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
    until: Option<(Instant, Failure)>,
}

impl Backoff {
    pub fn succeeded(&mut self) {
        *self = Backoff::default();
    }

    /// `refused` is how long to wait after a refused login: [`ACCOUNT_REFUSED`] or [`COMPONENT_REFUSED`].
    pub fn failed(&mut self, failure: &Failure, refused: Duration, now: Instant) {
        let wait = match failure {
            // The other process is done in a moment; the server has done nothing wrong.
            Failure::Busy => return,
            Failure::LoginRefused(_) => refused,
            Failure::Login(_) => LONGEST,
            _ => LONGEST.min(FIRST * 2_u32.saturating_pow(self.failures)),
        };
        self.failures += 1;
        self.until = Some((now + wait, failure.clone()));
    }

    /// Another process was refused: nothing is tried for so long.
    pub fn refused_elsewhere(&mut self, failure: Failure, wait: Duration, now: Instant) {
        self.until = Some((now + wait, failure));
    }

    /// The failure on whose account nothing is tried now.
    pub fn stands_in_the_way(&self, now: Instant) -> Option<Failure> {
        self.until.as_ref().filter(|(until, _)| now < *until).map(|(_, failure)| failure.clone())
    }

    /// How long to wait; at least a second.
    pub fn remaining(&self, now: Instant) -> Duration {
        let rest = self.until.as_ref().map(|(until, _)| until.saturating_duration_since(now));
        rest.unwrap_or_default().max(FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transport_failures_are_retried_ever_more_seldom() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..11 {
            backoff.failed(&Failure::Silent, ACCOUNT_REFUSED, now);
            assert_eq!(backoff.stands_in_the_way(now), Some(Failure::Silent));
            waits.push(backoff.remaining(now).as_secs());
            now += backoff.remaining(now);
            assert_eq!(backoff.stands_in_the_way(now), None);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        backoff.succeeded();
        backoff.failed(&Failure::Silent, ACCOUNT_REFUSED, now);
        assert_eq!(backoff.remaining(now).as_secs(), 1);
    }

    #[test]
    fn a_refused_password_is_not_sent_again_for_long() {
        for refused in [ACCOUNT_REFUSED, COMPONENT_REFUSED] {
            let (mut backoff, now) = (Backoff::default(), Instant::now());
            backoff.failed(&Failure::LoginRefused("not-authorized".into()), refused, now);
            assert!(backoff.stands_in_the_way(now + refused - FIRST).is_some());
            assert_eq!(backoff.stands_in_the_way(now + refused), None);
        }
    }

    #[test]
    fn waiting_for_another_process_is_no_failure() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        backoff.failed(&Failure::Busy, ACCOUNT_REFUSED, now);
        assert_eq!(backoff.stands_in_the_way(now), None);
    }
}
