//! The lookups of one process that are under way, and those who wait for them. Nobody is looked up twice at a time; what
//! comes by itself meanwhile overtakes a lookup that began before.

use std::collections::HashMap;
use std::time::Duration;

use jid::BareJid;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::{Lookup, Want};
use crate::presence::State;

/// When it is worth trying again where nobody could tell.
pub const SOON: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub struct Lookups {
    /// Each with its number. The receiver sees the outcome; a sender that is gone leaves none.
    pub under_way: HashMap<Key, (u64, Outlook)>,
    counter: u64,
}

/// What is looked up: who, and what of him.
pub type Key = (BareJid, Want);

/// What became of a lookup, and whose it was.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub lookup: Lookup,
    pub age: Duration,
    pub source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Asked for whoever gets it.
    Asked,
    /// Somebody else's, who may have had less time.
    Told,
    /// Somebody else's, who was done when it was our turn.
    Kept,
}

impl Lookups {
    /// The one for this.
    pub fn running(&self, key: &Key) -> Option<Outlook> {
        // A sender that is gone without an outcome was a lookup that panicked, where that does not end the process.
        let running = self.under_way.get(key).filter(|(_, running)| running.has_changed().is_ok());
        running.map(|(_, running)| running.clone())
    }

    /// A new one, by its number.
    pub fn begin(&mut self, key: &Key) -> (u64, Done, Outlook) {
        let (done, outlook) = watch::channel(None);
        self.counter += 1;
        self.under_way.insert(key.clone(), (self.counter, outlook.clone()));
        (self.counter, done, outlook)
    }

    /// Whether it was not overtaken.
    pub fn is_under_way(&self, key: &Key, number: u64) -> bool {
        self.under_way.get(key).is_some_and(|(current, _)| *current == number)
    }

    pub fn end(&mut self, key: &Key, number: u64) {
        if self.is_under_way(key, number) {
            self.under_way.remove(key);
        }
    }

    /// What a lookup under way will bring is older than what has come meanwhile: nobody else waits for it, and it is
    /// not kept.
    pub fn overtake(&mut self, jid: &BareJid) {
        for want in [Want::Presence, Want::Picture] {
            self.under_way.remove(&(jid.clone(), want));
        }
    }
}

impl Outcome {
    pub fn new(lookup: Lookup, source: Source) -> Outcome {
        Outcome { lookup, age: Duration::ZERO, source }
    }
}

/// Where a lookup's outcome will be.
pub type Outlook = watch::Receiver<Option<Outcome>>;
/// Where it is told.
pub type Done = watch::Sender<Option<Outcome>>;

/// Tells those who wait before it is kept, which may take longer than they have. A refusal is told once nothing is left
/// of what was known before, and a failure to nobody who comes later.
pub fn announce(done: &Done, lookup: &Lookup, source: Source) {
    if lookup.as_ref().is_ok_and(|sight| sight.presence.state != State::Forbidden) {
        done.send_replace(Some(Outcome::new(lookup.clone(), source)));
    }
}

/// What a lookup has brought by then.
pub async fn arrived(mut outlook: Outlook, deadline: Instant) -> Outcome {
    let outcome = match timeout_at(deadline, outlook.wait_for(Option::is_some)).await {
        Ok(Ok(outcome)) => outcome.clone(),
        Ok(Err(_)) | Err(_) => None,
    };
    outcome.unwrap_or(Outcome::new(Err(SOON), Source::Told))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Sight;
    use crate::presence::Presence;

    fn bob(want: Want) -> Key {
        (BareJid::new("bob@example.com").expect("a bare JID"), want)
    }

    #[test]
    fn who_is_looked_up_is_waited_for_until_it_is_over() {
        let (mut lookups, key) = (Lookups::default(), bob(Want::Presence));
        assert!(lookups.running(&key).is_none());
        let (first, _done, _) = lookups.begin(&key);
        assert!(lookups.running(&key).is_some() && lookups.running(&bob(Want::Picture)).is_none());
        lookups.end(&key, first);
        assert!(lookups.running(&key).is_none());
    }

    #[test]
    fn what_was_overtaken_ends_nobody_elses() {
        let (mut lookups, key) = (Lookups::default(), bob(Want::Picture));
        let (first, _done, _) = lookups.begin(&key);
        lookups.overtake(&key.0);
        assert!(!lookups.is_under_way(&key, first));
        let (second, _later, _) = lookups.begin(&key);
        lookups.end(&key, first);
        assert!(lookups.is_under_way(&key, second));
    }

    #[test]
    fn nobody_waits_for_a_lookup_that_panicked() {
        let (mut lookups, key) = (Lookups::default(), bob(Want::Presence));
        let (_, done, _) = lookups.begin(&key);
        drop(done);
        assert!(lookups.running(&key).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_and_a_failure_are_not_told_before_the_end() {
        let sight = |state| Ok(Sight::bare(Presence::bare(state)));
        for (lookup, is_told) in [(sight(State::Away), true), (sight(State::Forbidden), false), (Err(SOON), false)] {
            let (_, done, outlook) = Lookups::default().begin(&bob(Want::Presence));
            announce(&done, &lookup, Source::Asked);
            let outcome = arrived(outlook, Instant::now() + SOON).await;
            assert_eq!(outcome.source == Source::Asked, is_told, "{lookup:?}");
            assert_eq!(outcome.lookup, if is_told { lookup } else { Err(SOON) });
        }
    }
}
