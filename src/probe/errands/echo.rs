//! Whether all that the server has for us comes to us. COMPAT: ejabberd gives each of two connections of a component
//! some of what is for both, by chance, and one whose process was killed counts until ejabberd has noticed. So a session
//! that follows such an end first sends itself a number of stanzas, again and again, until all of one round come back:
//! then no other connection is left, and since the dead do not rise none will be. Questions wait for that.

use std::time::Duration;

use tokio::time::Instant;

/// Stanzas in a round. Beside another connection all of them come back once in 65,536 times.
const ROUND: usize = 16;
/// How soon the next round follows the first, if that has not come back; from then on each takes so much longer.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a server is waited for that sends nothing of it back.
const PATIENCE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub struct Echo {
    /// How many have come back of each round.
    heard: Vec<usize>,
    begun: Option<Instant>,
    due: Option<Instant>,
}

impl Echo {
    /// The names of the stanzas that are to be sent now: none before the next round is due.
    pub fn round(&mut self, now: Instant) -> Vec<String> {
        if self.due.is_some_and(|due| now < due) {
            return Vec::new();
        }
        self.begun.get_or_insert(now);
        self.heard.push(0);
        self.due = Some(now + PAUSE * u32::try_from(self.heard.len()).unwrap_or(u32::MAX));
        (0..ROUND).map(|number| format!("e{}-{number}", self.heard.len() - 1)).collect()
    }

    /// One came back. Only the server itself can send it: whoever else speaks in our name is not let in.
    pub fn hear(&mut self, name: &str) {
        let round = name.strip_prefix('e').and_then(|name| name.split_once('-')?.0.parse::<usize>().ok());
        if let Some(heard) = round.and_then(|round| self.heard.get_mut(round)) {
            *heard += 1;
        }
    }

    /// Nobody else gets what is ours. A server that sends nothing back at all cannot tell.
    pub fn is_over(&self, now: Instant) -> bool {
        let gave_up = !self.is_answered() && self.begun.is_some_and(|begun| begun + PATIENCE <= now);
        gave_up || self.heard.contains(&ROUND)
    }

    /// The server does send back what we send ourselves.
    pub fn is_answered(&self) -> bool {
        self.heard.iter().any(|heard| *heard > 0)
    }

    /// When the next round is due.
    pub fn next(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_when_a_whole_round_has_come_back() {
        let (mut echo, now) = (Echo::default(), Instant::now());
        let first = echo.round(now);
        assert_eq!((first.len(), echo.round(now).len()), (ROUND, 0), "once");
        first.iter().skip(1).for_each(|name| echo.hear(name));
        assert!(!echo.is_over(now + PATIENCE), "one went elsewhere");
        let later = echo.next().expect("a round is out");
        assert_eq!(later, now + PAUSE);
        let second = echo.round(later);
        assert!(first.iter().all(|name| !second.contains(name)));
        second.iter().skip(1).for_each(|name| echo.hear(name));
        ["", "e", "q1", "e1", "e7-0", "e99999999999999999999-0"].iter().for_each(|name| echo.hear(name));
        assert!(!echo.is_over(later));
        assert_eq!(echo.next(), Some(later + 2 * PAUSE), "the longer it takes, the less is sent");
        echo.hear(&second[0]);
        assert!(echo.is_over(later));
    }

    #[test]
    fn a_server_that_sends_nothing_back_is_not_waited_for_for_ever() {
        let (mut echo, now) = (Echo::default(), Instant::now());
        echo.round(now);
        assert!(!echo.is_over(now + PATIENCE - PAUSE) && !echo.is_answered());
        assert!(echo.is_over(now + PATIENCE));
    }
}
