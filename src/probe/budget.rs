//! How fast a session may ask: so many questions a second on average, and a number at once when it was quiet before. It
//! is pure, and outlives the session.

use std::time::Duration;

use tokio::time::Instant;

/// What may be spent at once, in seconds of the average.
const SAVINGS: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// What a question costs.
    price: Duration,
    /// When all that was spent will have been saved again.
    even: Option<Instant>,
}

impl Budget {
    /// `per_second` is not 0.
    pub fn new(per_second: u32) -> Budget {
        Budget { price: Duration::from_secs(1) / per_second.max(1), even: None }
    }

    /// Pays for one question; false where it has to wait.
    pub fn pay(&mut self, now: Instant) -> bool {
        let even = self.even.map_or(now, |even| even.max(now)) + self.price;
        let is_there = even <= now + SAVINGS;
        if is_there {
            self.even = Some(even);
        }
        is_there
    }

    /// When the next question can be paid.
    pub fn next(&self, now: Instant) -> Instant {
        self.even.and_then(|even| (even + self.price).checked_sub(SAVINGS)).map_or(now, |next| next.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_then_one_after_the_other() {
        let (mut budget, now) = (Budget::new(200), Instant::now() + Duration::from_secs(60));
        let at_once = |budget: &mut Budget, now| (0..2000).filter(|_| budget.pay(now)).count();
        assert_eq!(at_once(&mut budget, now), 1000);
        assert_eq!(budget.next(now), now + Duration::from_millis(5));
        assert!(!budget.pay(now + Duration::from_micros(4999)));
        assert!(budget.pay(budget.next(now)) && !budget.pay(budget.next(now) - Duration::from_micros(1)));
        assert_eq!(at_once(&mut budget, now + Duration::from_secs(1)), 199);
        assert_eq!(at_once(&mut budget, now + Duration::from_secs(3)), 400);
        assert_eq!(at_once(&mut budget, now + Duration::from_secs(60)), 1000, "no more is saved");
    }

    #[test]
    fn one_a_second_is_the_least() {
        let (mut budget, now) = (Budget::new(1), Instant::now());
        assert_eq!((0..9).filter(|_| budget.pay(now)).count(), 5);
        assert_eq!(budget.next(now), now + Duration::from_secs(1));
    }
}
