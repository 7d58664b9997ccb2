//! What all processes of an identity know together, beneath the memory of each: bytes under an address, how old they are,
//! and whose turn it is to look somebody up. What the bytes mean is the cache's business. Nothing here is needed for a
//! right answer: where a store fails, each process goes by its own memory, and the log is told once.

mod directory;
mod lead;
#[cfg(feature = "redis")]
mod redis;
mod trouble;

use std::path::Path;
use std::time::Duration;

use jid::BareJid;
use log::Level;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::config::{CacheSettings, Identity, Visibility};
#[cfg(feature = "redis")]
use crate::hub::Hub;
use directory::Directory;
#[cfg(test)]
pub use directory::stopped_while_it_wrote;

/// See the module.
#[derive(Default)]
pub enum Store {
    /// Each process for itself.
    #[default]
    Nowhere,
    /// The processes of one machine.
    Directory(Box<Directory>),
    /// Those of many.
    #[cfg(feature = "redis")]
    Redis(Box<redis::Redis>),
}

/// What is kept of somebody: his presence changes with every minute, his picture hardly ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    Presence,
    Picture,
}

impl Part {
    pub const ALL: [Part; 2] = [Part::Presence, Part::Picture];
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

/// What became of something that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    As(Edition),
    /// Something newer has come meanwhile: this is not to be remembered at all.
    Overtaken,
    /// The store failed: memory counts.
    Nowhere,
}

/// What is to be kept, how old it is by now, and the time of day in milliseconds since 1970. A presence that a lookup has
/// brought is kept as it is handed over to those who wait.
#[derive(Clone, Copy, Debug)]
pub struct News<'a> {
    pub bytes: &'a [u8],
    pub age: Duration,
    pub now_ms: u64,
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
    /// And its place among those that this process has at a time.
    File(lead::Lead, OwnedSemaphorePermit),
    #[cfg(feature = "redis")]
    Redis(redis::Lead),
}

/// Of a configuration, and of one that differs from it in who may see the answers alone. Both have one session, and what
/// somebody wants, or refuses, is so for both; what one knows of him is nothing to the other.
fn realms(configuration: &str, visibility: Visibility) -> [String; 2] {
    let other = match visibility {
        Visibility::Subscribers => Visibility::Anyone,
        Visibility::Anyone => Visibility::Subscribers,
    };
    [visibility, other].map(|visibility| format!("{configuration} {visibility:?}"))
}

impl Store {
    /// What the processes of `identity` share: where, and how loudly it is told that it fails.
    pub fn open(directory: Option<&Path>, identity: &Identity, settings: &CacheSettings, complaint: Level) -> Store {
        match directory {
            Some(path) => Store::Directory(Box::new(Directory::new(path, identity, settings, complaint))),
            None => Store::Nowhere,
        }
    }

    /// Of many machines: this one is what is left where the hub is lost.
    #[cfg(feature = "redis")]
    pub fn beneath(self, hub: Option<Hub>, identity: &Identity, settings: &CacheSettings) -> Store {
        let Some(hub) = hub else { return self };
        let local = match self {
            Store::Directory(directory) => Some(*directory),
            Store::Nowhere | Store::Redis(_) => None,
        };
        Store::Redis(Box::new(redis::Redis::new(hub, local, identity, settings)))
    }

    /// What is kept of `jid`, if it is not the edition that is known already. `now_ms`: milliseconds since 1970.
    pub async fn read(&self, jid: &BareJid, part: Part, known: Option<Edition>, now_ms: u64) -> Kept {
        match self {
            Store::Nowhere => Kept::Unreachable,
            Store::Directory(directory) => directory.read(jid, part, known, now_ms),
            #[cfg(feature = "redis")]
            Store::Redis(redis) => redis.read(jid, part, known, now_ms).await,
        }
    }

    /// Keeps it for everybody; not where the lead was overtaken meanwhile, nor where something newer is there.
    pub async fn write(&self, jid: &BareJid, part: Part, news: News<'_>, lead: Option<&Lead>) -> Written {
        match self {
            Store::Nowhere => Written::Nowhere,
            Store::Directory(directory) => directory.write(jid, part, news, lead).await,
            #[cfg(feature = "redis")]
            Store::Redis(redis) => redis.write(jid, part, news, lead).await,
        }
    }

    /// Nothing is known of him any more, and nothing that is under way will be kept. Not by a lead that was overtaken:
    /// what it knows no longer holds.
    pub async fn remove(&self, jid: &BareJid, now_ms: u64, lead: Option<&Lead>) {
        match self {
            Store::Nowhere => {}
            Store::Directory(directory) => directory.remove(jid, now_ms, lead).await,
            #[cfg(feature = "redis")]
            Store::Redis(redis) => redis.remove(jid, now_ms, lead).await,
        }
    }

    /// What lookups under way will bring is older than what has come meanwhile: their leads end.
    pub async fn overtake(&self, jid: &BareJid) {
        match self {
            Store::Nowhere => {}
            Store::Directory(directory) => directory.overtake(jid).await,
            #[cfg(feature = "redis")]
            Store::Redis(redis) => redis.overtake(jid).await,
        }
    }

    /// Waits until this process may look, or another one has, at most until `deadline`.
    pub async fn turn(&self, jid: &BareJid, part: Part, now_ms: u64, deadline: Instant) -> Turn {
        match self {
            Store::Nowhere => Turn::Ours(Lead::Alone),
            Store::Directory(directory) => directory.turn(jid, part, now_ms, deadline).await,
            #[cfg(feature = "redis")]
            Store::Redis(redis) => redis.turn(jid, part, now_ms, deadline).await,
        }
    }

    /// Hands over what was found to those who wait for their turn now; nobody who comes later sees it.
    pub async fn hand_over(&self, lead: Lead, outcome: &[u8]) {
        match lead {
            Lead::Alone => {}
            Lead::File(lead, _) => lead.hand_over(outcome),
            #[cfg(feature = "redis")]
            Lead::Redis(lead) => lead.hand_over(outcome).await,
        }
    }
}
