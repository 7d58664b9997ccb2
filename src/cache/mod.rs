//! What is known about people who let themselves be seen, and for how long it may be told: fresh up to `ttl`, served
//! while it is renewed up to `ttl + refresh`, and up to `stale` only where the server cannot be asked. A person is looked
//! up once at a time, however many wait in however many processes: a store below keeps what they know together. Who
//! refuses is not remembered here. Pictures live longer, but never without the presence that allows them.

mod lookups;
mod memory;
pub mod shelf;
pub mod store;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jid::BareJid;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::CacheSettings;
use crate::presence::{Picture, Presence, State};
use crate::probe::prober::before;
use crate::viewers::Viewers;
use lookups::{Done, Key, Lookups, Outcome, Outlook, SOON, Source, announce, arrived};
use memory::{Entry, Memory};
use store::{Edition, Lead, News, Part, Store, Turn, Written};

/// What a request gets to work with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Known, and how long ago it was asked. Older than `ttl` means: served while a lookup renews it, or because
    /// the server cannot be asked.
    Known { sight: Sight, age: Duration },
    /// The XMPP server could not be asked and nothing usable is remembered.
    Nothing { retry_after: Duration },
}

/// What is wanted of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Want {
    Presence,
    /// And the picture, as far as the presence allows it.
    Picture,
}

impl Want {
    /// Whose turn it is to look him up for that.
    fn part(self) -> Part {
        match self {
            Want::Presence => Part::Presence,
            Want::Picture => Part::Picture,
        }
    }
}

/// What a lookup has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    pub presence: Presence,
    /// Where it was wanted, and may be shown.
    pub picture: Option<Picture>,
    /// Who may see him by his roster, where that was wanted and could be read.
    pub viewers: Option<Viewers>,
    /// Somebody who does not exist would have been answered for, too.
    pub is_settled: bool,
}

impl Sight {
    /// A presence, and nothing else.
    pub fn bare(presence: Presence) -> Sight {
        Sight { presence, picture: None, viewers: None, is_settled: true }
    }
}

/// What a lookup brings: what it found, or after how long it is worth trying again.
pub type Lookup = Result<Sight, Duration>;

/// Whether a lookup may be spared where somebody else has just made one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Others,
    /// For whoever may not see what is known: it is not to help him.
    Nobody,
}

/// How long a picture counts as the newest one.
const PICTURE_LIFE: Duration = Duration::from_secs(3600);
/// How long nobody is asked again who has none, or whose server was slow.
const NO_PICTURE_LIFE: Duration = Duration::from_secs(60);
/// How often one request looks at most: with others who have less time, with those who know what he may not see, and
/// for himself.
const ROUNDS: usize = 3;

/// Whether something older than `ttl` may be served at once while it is renewed behind the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    Behind,
    /// The process ends with its answer.
    Never,
}

/// Whether the store is asked although it was just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Lately,
    Anew,
}

/// Tells the time of day, in milliseconds since 1970.
pub type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

/// What is known through one identity. See the module.
pub struct Cache {
    settings: CacheSettings,
    renewal: Renewal,
    clock: Clock,
    store: Store,
    inner: Mutex<Inner>,
}

struct Inner {
    memory: Memory,
    lookups: Lookups,
    /// Of lookups, where the process ends with its answer.
    tasks: Vec<JoinHandle<()>>,
}

impl Inner {
    /// A refusal deletes what was known.
    fn forget(&mut self, jid: &BareJid) {
        self.memory.change(jid);
        self.memory.remove(jid);
        self.lookups.overtake(jid);
    }
}

/// How usable an entry is.
#[derive(Debug, PartialEq)]
enum Freshness {
    Fresh,
    /// To be served while it is renewed.
    Renewable,
    /// Only for a server that cannot be asked.
    Stale,
    Gone,
}

impl Cache {
    pub fn new(settings: CacheSettings, renewal: Renewal, clock: Clock, store: Store) -> Cache {
        let memory = Memory::new(settings.entries);
        let inner = Mutex::new(Inner { memory, lookups: Lookups::default(), tasks: Vec::new() });
        Cache { settings, renewal, clock, store, inner }
    }

    /// What is known of `jid`, by `deadline`; `lookup` runs at most once at a time for a person and what it is to bring.
    /// Nobody is served from what is remembered without `may_see`; what a lookup brings comes back whatever it is.
    pub async fn find<F>(
        self: &Arc<Self>,
        jid: &BareJid,
        want: Want,
        deadline: Instant,
        may_see: impl Fn(&Sight) -> bool,
        lookup: impl Fn(Want) -> F,
    ) -> Found
    where
        F: Future<Output = Lookup> + Send + 'static,
    {
        self.keep_up(jid, want, Look::Lately).await;
        // A new picture is worth waiting for.
        let is_pictured = want == Want::Presence || self.lock().memory.is_picture_fresh(jid, (self.clock)());
        let missing = if is_pictured { Want::Presence } else { Want::Picture };
        let stored = self.stored(jid, want);
        let is_hidden = stored.as_ref().is_some_and(|(sight, _)| !may_see(sight));
        if let Some((sight, age)) = stored.filter(|_| is_pictured && !is_hidden) {
            match self.freshness(age) {
                Freshness::Fresh => return Found::Known { sight, age },
                Freshness::Renewable => {
                    self.lead_or_follow(&(jid.clone(), missing), deadline, Trust::Others, &lookup);
                    return Found::Known { sight, age };
                }
                Freshness::Stale | Freshness::Gone => {}
            }
        }
        let trust = if is_hidden { Trust::Nobody } else { Trust::Others };
        match self.look(&(jid.clone(), missing), deadline, trust, &may_see, &lookup).await {
            Ok((sight, age)) if want == missing => Found::Known { sight, age },
            Ok((sight, age)) => {
                let is_told = sight.presence.state != State::Forbidden;
                let picture = if is_told { self.lock().memory.picture(jid) } else { None };
                Found::Known { sight: Sight { picture, ..sight }, age }
            }
            Err(retry_after) => {
                let stored = self.stored(jid, want).filter(|(sight, _)| may_see(sight));
                let usable = stored.filter(|(_, age)| self.freshness(*age) != Freshness::Gone);
                usable.map_or(Found::Nothing { retry_after }, |(sight, age)| Found::Known { sight, age })
            }
        }
    }

    /// What needs no lookup, and how old it is. Whoever is to see it is the caller's business.
    pub async fn fresh(&self, jid: &BareJid) -> Option<(Sight, Duration)> {
        self.keep_up(jid, Want::Presence, Look::Lately).await;
        self.stored(jid, Want::Presence).filter(|(_, age)| self.freshness(*age) == Freshness::Fresh)
    }

    /// Whether somebody is remembered, however long ago, and as what `may_see` lets pass.
    pub async fn remembers(&self, jid: &BareJid, may_see: impl Fn(&Sight) -> bool) -> bool {
        self.keep_up(jid, Want::Presence, Look::Lately).await;
        let (inner, now_ms) = (self.lock(), (self.clock)());
        inner.memory.person(jid).is_some_and(|entry| entry.age_ms(now_ms).is_some() && may_see(&entry.what))
    }

    /// Takes what came without a lookup, about somebody who is asked for. A roster does not become newer by it.
    pub async fn update(&self, jid: &BareJid, presence: Presence) {
        if presence.state == State::Forbidden {
            return self.forget(jid).await;
        }
        self.lock().lookups.overtake(jid);
        self.store.overtake(jid).await;
        self.keep_up(jid, Want::Presence, Look::Anew).await;
        let now_ms = (self.clock)();
        let known = self.lock().memory.person(jid).map(|entry| (entry.what.viewers.clone(), entry.at_ms));
        let Some((viewers, at_ms)) = known else { return };
        let at_ms = if viewers.is_some() { at_ms.min(now_ms) } else { now_ms };
        let sight = Sight { viewers, ..Sight::bare(presence) };
        let age = Duration::from_millis(now_ms - at_ms);
        let told = as_bytes(&Lookup::Ok(sight.clone()));
        let Ok(edition) = self.write(jid, Part::Presence, &told, age, None).await else {
            return self.keep_up(jid, Want::Presence, Look::Anew).await;
        };
        let mut inner = self.lock();
        inner.memory.change(jid);
        inner.memory.put_person(jid, Entry::new(sight, at_ms, edition, now_ms));
        inner.lookups.overtake(jid);
    }

    /// What is known no longer holds: the next request looks anew.
    pub async fn forget(&self, jid: &BareJid) {
        self.lock().forget(jid);
        self.store.remove(jid, (self.clock)(), None).await;
        // Somebody may have read it there meanwhile.
        self.lock().forget(jid);
    }

    /// What is still being kept of what was found, where the process ends with its answer.
    pub fn tasks(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.lock().tasks)
    }

    /// What lookups bring, with the time it has taken since; after how long it is worth trying again.
    async fn look<F>(
        self: &Arc<Self>,
        key: &Key,
        deadline: Instant,
        mut trust: Trust,
        may_see: impl Fn(&Sight) -> bool,
        lookup: impl Fn(Want) -> F,
    ) -> Result<(Sight, Duration), Duration>
    where
        F: Future<Output = Lookup> + Send + 'static,
    {
        let mut last = Err(SOON);
        for _ in 0..ROUNDS {
            let (is_ours, outlook) = self.lead_or_follow(key, deadline, trust, &lookup);
            let Outcome { lookup, age, source } = arrived(outlook, deadline).await;
            match lookup {
                Ok(sight) if source == Source::Kept && !may_see(&sight) => {
                    trust = Trust::Nobody;
                    last = Ok((sight, age));
                }
                Ok(sight) => return Ok((sight, age)),
                // Somebody else led, who had less time left; when he came is nobody's business here.
                Err(retry_after) if is_ours && source == Source::Asked => return Err(retry_after),
                Err(retry_after) => last = Err(retry_after),
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        last
    }

    /// Follows the lookup that is under way, or begins one, which is ours then. It goes on whether or not anybody still
    /// waits.
    fn lead_or_follow<F>(
        self: &Arc<Self>,
        key: &Key,
        deadline: Instant,
        trust: Trust,
        lookup: impl Fn(Want) -> F,
    ) -> (bool, Outlook)
    where
        F: Future<Output = Lookup> + Send + 'static,
    {
        let mut inner = self.lock();
        if let Some(running) = inner.lookups.running(key) {
            return (false, running);
        }
        let (number, done, outlook) = inner.lookups.begin(key);
        drop(inner);
        // Apart, since it is over long before what it found is kept.
        let (cache, key, lookup) = (self.clone(), key.clone(), Box::pin(lookup(key.1)));
        // Apart from its task: glibc fills no hole with anything large that is aligned as tasks are.
        let task = tokio::spawn(Box::pin(async move {
            let outcome = cache.take_turn(&key, number, deadline, trust, lookup, &done).await;
            cache.lock().lookups.end(&key, number);
            done.send_replace(Some(outcome));
        }));
        if self.renewal == Renewal::Never {
            self.lock().tasks.push(task);
        }
        (true, outlook)
    }

    /// Looks somebody up, if no other process does.
    async fn take_turn(
        &self,
        key: &Key,
        number: u64,
        deadline: Instant,
        trust: Trust,
        lookup: impl Future<Output = Lookup>,
        done: &Done,
    ) -> Outcome {
        let (jid, want) = key;
        match self.store.turn(jid, want.part(), (self.clock)(), before(deadline)).await {
            Turn::Ours(lead) => {
                if trust == Trust::Others
                    && let Some((sight, age)) = self.just_kept(jid, *want).await
                {
                    return Outcome { lookup: Ok(sight), age, source: Source::Kept };
                }
                let outcome = lookup.await;
                announce(done, &outcome, Source::Asked);
                let told = as_bytes(&outcome);
                self.learn(key, number, &outcome, &told, &lead).await;
                self.store.hand_over(lead, &told).await;
                Outcome::new(outcome, Source::Asked)
            }
            Turn::Told(told) => {
                let outcome: Lookup = serde_json::from_slice(&told).unwrap_or(Err(SOON));
                announce(done, &outcome, Source::Told);
                match &outcome {
                    Ok(sight) if sight.presence.state == State::Forbidden => self.lock().forget(jid),
                    Ok(_) => self.keep_up(jid, *want, Look::Anew).await,
                    Err(_) => {}
                }
                Outcome::new(outcome, Source::Told)
            }
            Turn::Late => Outcome::new(Err(SOON), Source::Told),
        }
    }

    /// What another process has found out since this one looked.
    async fn just_kept(&self, jid: &BareJid, want: Want) -> Option<(Sight, Duration)> {
        self.keep_up(jid, want, Look::Anew).await;
        let is_pictured = want == Want::Presence || self.lock().memory.is_picture_fresh(jid, (self.clock)());
        self.stored(jid, want).filter(|(_, age)| is_pictured && self.freshness(*age) == Freshness::Fresh)
    }

    /// Stores what a lookup brought, unless it was overtaken.
    /// `told` is what is handed over.
    async fn learn(&self, key: &Key, number: u64, outcome: &Lookup, told: &[u8], lead: &Lead) {
        let ((jid, want), now_ms) = (key, (self.clock)());
        let Ok(Sight { presence, picture, viewers, .. }) = outcome else { return };
        if !self.lock().lookups.is_under_way(key, number) {
            return;
        }
        if presence.state == State::Forbidden {
            // The other sort of lookup, too, may have begun before he refused.
            self.lock().forget(jid);
            self.store.remove(jid, now_ms, Some(lead)).await;
            return self.lock().forget(jid);
        }
        let sight = Sight { viewers: viewers.clone(), ..Sight::bare(presence.clone()) };
        let write = async |part, bytes: &[u8]| self.write(jid, part, bytes, Duration::ZERO, Some(lead)).await;
        let bytes = match want {
            Want::Presence => Cow::Borrowed(told),
            Want::Picture => Cow::Owned(as_bytes(&Lookup::Ok(sight.clone()))),
        };
        let Ok(edition) = write(Part::Presence, &bytes).await else { return };
        let portrait = match want {
            Want::Presence => None,
            Want::Picture => write(Part::Picture, &as_bytes(picture)).await.ok(),
        };
        let mut inner = self.lock();
        if inner.lookups.is_under_way(key, number) {
            inner.memory.change(jid);
            inner.memory.put_person(jid, Entry::new(sight, now_ms, edition, now_ms));
            if let Some(edition) = portrait {
                inner.memory.put_picture(jid, Entry::new(picture.clone(), now_ms, edition, now_ms));
            }
        }
    }

    /// Into the store; fails where something newer has come meanwhile.
    async fn write(
        &self,
        jid: &BareJid,
        part: Part,
        bytes: &[u8],
        age: Duration,
        lead: Option<&Lead>,
    ) -> Result<Option<Edition>, Overtaken> {
        let news = News { bytes, age, now_ms: (self.clock)() };
        match self.store.write(jid, part, news, lead).await {
            Written::As(edition) => Ok(Some(edition)),
            Written::Nowhere => Ok(None),
            Written::Overtaken => Err(Overtaken),
        }
    }

    /// Brings memory up to what the store has.
    async fn keep_up(&self, jid: &BareJid, want: Want, look: Look) {
        let parts: &[Part] = if want == Want::Picture { &Part::ALL } else { &[Part::Presence] };
        for part in parts {
            // What is learned while the store is read is newer than that.
            for _ in 0..ROUNDS {
                let now_ms = (self.clock)();
                let (edition, changes) = {
                    let Inner { memory, .. } = &*self.lock();
                    if look == Look::Lately && memory.is_believed(jid, *part, now_ms) {
                        break;
                    }
                    (memory.edition(jid, *part), memory.changes(jid))
                };
                let kept = self.store.read(jid, *part, edition, now_ms).await;
                let mut inner = self.lock();
                if inner.memory.changes(jid) == changes {
                    inner.memory.hear(jid, *part, kept, now_ms);
                    break;
                }
            }
        }
    }

    fn stored(&self, jid: &BareJid, want: Want) -> Option<(Sight, Duration)> {
        let (inner, now_ms) = (self.lock(), (self.clock)());
        let entry = inner.memory.person(jid)?;
        let age = Duration::from_millis(entry.age_ms(now_ms)?);
        let picture = if want == Want::Picture { inner.memory.picture(jid) } else { None };
        Some((Sight { picture, ..entry.what.clone() }, age))
    }

    fn freshness(&self, age: Duration) -> Freshness {
        let CacheSettings { ttl, refresh, stale, .. } = self.settings;
        match age {
            age if age <= ttl => Freshness::Fresh,
            age if age <= ttl + refresh && self.renewal == Renewal::Behind => Freshness::Renewable,
            age if age <= stale.max(ttl + refresh) => Freshness::Stale,
            _ => Freshness::Gone,
        }
    }

    /// Held for a map access only; no code that could panic runs under it.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something newer has come meanwhile.
struct Overtaken;

fn as_bytes(what: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(what).expect("strings and numbers")
}

/// The system's clock.
pub fn wall_clock() -> Clock {
    Box::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
