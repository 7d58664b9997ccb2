//! What is remembered about visitors who get to see nothing: who was refused whom, and how many people that nobody
//! here knows each client has asked for. Both keep an answer from telling whether somebody exists: a refusal comes
//! from memory only for those who had it already, and whoever tries many names soon gets no answer at all, whichever
//! process he asks. The time is an argument.

pub mod ledger;
pub mod rate;
mod refusals;

use std::net::IpAddr;
use std::time::Duration;

use jid::BareJid;
use tokio::time::Instant;

use crate::access::Asker;
use refusals::Refusals;

/// Who asks about whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    pub target: BareJid,
    pub asker: Asker,
}

/// What concerns this process alone; what all of them count together is a [`rate::Rate`].
pub struct Strangers {
    refusals: Refusals,
    /// When the admin was told that the rate stands in somebody's way.
    told: Option<Instant>,
}

/// The admin is told no more often that the rate stands in somebody's way.
const REMINDER: Duration = Duration::from_secs(60);

impl Strangers {
    /// `refusals`: how many are remembered, each for `ttl`.
    pub fn new(refusals: usize, ttl: Duration) -> Strangers {
        Strangers { refusals: Refusals::new(refusals, ttl), told: None }
    }

    /// How long ago this visitor was told that he may not see this person, as far as it still holds.
    pub fn refused(&self, pair: &Pair, client: Option<IpAddr>, now: Instant) -> Option<Duration> {
        self.refusals.age(pair, client, now)
    }

    /// This visitor is told that he may not see this person.
    pub fn refuse(&mut self, pair: &Pair, client: Option<IpAddr>, now: Instant) {
        self.refusals.insert(pair, client, now);
    }

    /// Whatever was refused about this person no longer holds.
    pub fn pardon(&mut self, target: &BareJid) {
        self.refusals.remove(target);
    }

    /// Whether it is time to tell the admin that somebody was not admitted.
    pub fn is_news(&mut self, now: Instant) -> bool {
        let is_news = self.told.is_none_or(|told| now.saturating_duration_since(told) >= REMINDER);
        if is_news {
            self.told = Some(now);
        }
        is_news
    }
}
