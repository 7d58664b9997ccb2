//! What to do about a store that fails: the log is told once, memory goes on, and after a while it is tried again. What
//! was kept before that is not believed afterwards, since somebody may have been forgotten in between.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::Level;

/// How long a store that has failed is left alone.
const PAUSE: Duration = Duration::from_secs(10);
/// Whoever fails again so soon was never well, and the log knows.
const STEADY: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct Trouble {
    place: PathBuf,
    /// How loudly it is told.
    complaint: Level,
    inner: Mutex<Inner>,
}

/// Times are in milliseconds since 1970.
#[derive(Debug, Default)]
struct Inner {
    /// Since when it is left alone.
    since_ms: Option<u64>,
    failed_ms: u64,
    /// What was kept before is not believed.
    end_ms: u64,
    is_told: bool,
}

impl Trouble {
    pub fn new(place: &Path, complaint: Level) -> Trouble {
        Trouble { place: place.to_owned(), complaint, inner: Mutex::default() }
    }

    /// Whether it is left alone for now.
    pub fn is_present(&self, now_ms: u64) -> bool {
        let mut inner = self.lock();
        let Some(since_ms) = inner.since_ms else { return false };
        // A clock that was set makes it shorter or longer by that, but not endless.
        if u128::from(since_ms.abs_diff(now_ms)) < PAUSE.as_millis() {
            return true;
        }
        (inner.since_ms, inner.end_ms) = (None, now_ms);
        false
    }

    /// Whether something of that time is not believed.
    pub fn reaches(&self, at_ms: u64) -> bool {
        at_ms < self.lock().end_ms
    }

    pub fn begins(&self, now_ms: u64, error: &dyn std::fmt::Display) {
        let mut inner = self.lock();
        (inner.since_ms, inner.failed_ms) = (Some(now_ms), now_ms);
        let is_told = std::mem::replace(&mut inner.is_told, true);
        drop(inner);
        if !is_told {
            let place = self.place.display();
            log::log!(self.complaint, "this process remembers people for itself: {place}: {error}");
        }
    }

    /// Something was kept.
    pub fn is_over(&self, now_ms: u64) {
        let mut inner = self.lock();
        if !inner.is_told || u128::from(inner.failed_ms.abs_diff(now_ms)) < STEADY.as_millis() {
            return;
        }
        inner.is_told = false;
        drop(inner);
        log::info!("people are remembered together again: {}", self.place.display());
    }

    /// Held for a look; no code that could panic runs under it.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_left_alone_and_then_believed_only_about_what_is_new() {
        let trouble = Trouble::new(Path::new("people"), Level::Debug);
        assert!(!trouble.is_present(1_000) && !trouble.reaches(0));
        trouble.begins(1_000, &"full");
        for (now_ms, present) in [(1_000, true), (10_999, true), (11_000, false)] {
            assert_eq!(trouble.is_present(now_ms), present, "at {now_ms}");
        }
        assert!(trouble.reaches(10_999) && !trouble.reaches(11_000));
        trouble.begins(50_000, &"full");
        assert!(!trouble.is_present(20_000), "a clock that was set back");
    }

    #[test]
    fn it_is_told_once_until_all_was_well_for_a_minute() {
        let trouble = Trouble::new(Path::new("people"), Level::Debug);
        let is_told = || trouble.lock().is_told;
        for (begins, now_ms, told) in [
            (true, 0, true),
            (false, 20_000, true),
            (true, 30_000, true),
            (false, 89_999, true),
            (false, 90_000, false),
        ] {
            if begins {
                trouble.begins(now_ms, &"full")
            } else {
                trouble.is_over(now_ms)
            }
            assert_eq!(is_told(), told, "at {now_ms}");
        }
    }
}
