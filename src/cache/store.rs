//! What all processes of an identity know together, beneath the memory of each: bytes under an address, how old they are,
//! and whose turn it is to look somebody up. What the bytes mean is the cache's business. Nothing here is needed for a
//! right answer: where a store fails, each process goes by its own memory, and the log is told once.

use std::time::Duration;

use jid::BareJid;
use tokio::time::Instant;

/// See the module.
#[derive(Debug, Default)]
pub enum Store {
    /// Each process for itself.
    #[default]
    Nowhere,
}

/// What is kept of somebody: his presence changes with every minute, his picture hardly ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    Presence,
    Picture,
}

/// Which writing of an entry: another one has another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edition(pub u128);

/// What a store has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The edition that the caller knows.
    Same,
    Other {
        bytes: Vec<u8>,
        age: Duration,
        edition: Edition,
    },
    /// Never written, removed, or gone by its age.
    Nothing,
    /// The store cannot tell: memory counts.
    Unreachable,
}

/// Whose turn it is to look somebody up.
#[derive(Debug)]
pub enum Turn {
    /// This process's, until it drops the lead.
    Ours(Lead),
    /// Another process's, which has handed over what it found; whoever waited for it gets that, a refusal too.
    Told(Vec<u8>),
    /// Another process's, which is not done.
    Late,
}

/// The right to look somebody up, alone among all processes. It ends when it is dropped, and with the process.
#[derive(Debug)]
pub enum Lead {
    /// Of this process alone: it knows of no other.
    Alone,
}

impl Store {
    /// What is kept of `jid`, if it is not the edition that is known already. `now_ms`: milliseconds since 1970.
    pub async fn read(&self, _jid: &BareJid, _part: Part, _known: Option<Edition>, _now_ms: u64) -> Kept {
        match self {
            Store::Nowhere => Kept::Unreachable,
        }
    }

    /// Keeps it for everybody, and tells which edition it is; not where the lead was overtaken meanwhile.
    pub async fn write(
        &self,
        _jid: &BareJid,
        _part: Part,
        _bytes: &[u8],
        _now_ms: u64,
        _lead: Option<&Lead>,
    ) -> Option<Edition> {
        match self {
            Store::Nowhere => None,
        }
    }

    /// Nothing is known of him any more.
    pub async fn remove(&self, _jid: &BareJid) {
        match self {
            Store::Nowhere => {}
        }
    }

    /// What lookups under way will bring is older than what has come meanwhile: their leads end.
    pub async fn overtake(&self, _jid: &BareJid) {
        match self {
            Store::Nowhere => {}
        }
    }

    /// Waits until this process may look, or another one has, at most until `deadline`.
    pub async fn turn(&self, _jid: &BareJid, _part: Part, _deadline: Instant) -> Turn {
        match self {
            Store::Nowhere => Turn::Ours(Lead::Alone),
        }
    }

    /// Hands over what was found to those who wait for their turn.
    pub async fn hand_over(&self, lead: Lead, _outcome: &[u8]) {
        match lead {
            Lead::Alone => {}
        }
    }
}
