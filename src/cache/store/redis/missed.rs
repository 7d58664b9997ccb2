//! Of whom something was to be removed while the hub was lost. It is removed as soon as the hub is back, behind the
//! visitors' backs: other machines may not have noticed, and believe what is there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jid::BareJid;
use redis::Value;
use tokio::time::Instant;

use super::ms;
use super::spot::Keys;
use crate::hub::{Hub, Trouble, eval};

/// People of whom something is to be removed once the hub is back. Of more, what it still has is soon too old.
const MISSED: usize = 10_000;

/// What is older than the time at which it should have been removed; what is younger was written by who knew.
const CATCH_UP: &str = "for _, key in ipairs(KEYS) do
  if redis.call('type', key).ok == 'string' then
    local life = tonumber(redis.call('getrange', key, 32, 43))
    if not life or life - redis.call('pttl', key) >= tonumber(ARGV[1]) then redis.call('del', key) end
  end
end
return 1";

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Missed(Arc<Mutex<People>>);

/// And when it would have been removed.
#[derive(Debug, Default)]
struct People {
    people: HashMap<BareJid, Instant>,
    is_caught_up_with: bool,
}

impl Missed {
    pub fn add(&self, jid: &BareJid) {
        let people = &mut self.lock().people;
        if people.len() < MISSED || people.contains_key(jid) {
            people.insert(jid.clone(), Instant::now());
        }
    }

    /// Begins to, where it is time. Nobody has his lead for longer than `lead`.
    pub fn catch_up(&self, hub: &Hub, keys: &Keys, lead: Duration) {
        let mut missed = self.lock();
        if missed.people.is_empty() || missed.is_caught_up_with || !hub.is_there() {
            return;
        }
        missed.is_caught_up_with = true;
        let (hub, keys, missed) = (hub.clone(), keys.clone(), self.clone());
        tokio::spawn(async move {
            missed.remove_all(&hub, &keys, lead).await;
            missed.lock().is_caught_up_with = false;
        });
    }

    /// Who is still missed afterwards stays so: the hub was lost again, or something came meanwhile.
    async fn remove_all(&self, hub: &Hub, keys: &Keys, lead: Duration) {
        let people: Vec<_> = self.lock().people.iter().map(|(jid, since)| (jid.clone(), *since)).collect();
        for (jid, since) in people {
            if remove(hub, keys, &jid, since, lead).await == Err(Trouble::Lost) {
                return;
            }
            let people = &mut self.lock().people;
            if people.get(&jid) == Some(&since) {
                people.remove(&jid);
            }
        }
    }

    /// Held for a map access; no code that could panic runs under it.
    fn lock(&self) -> MutexGuard<'_, People> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the hub had of somebody at that time.
async fn remove(hub: &Hub, keys: &Keys, jid: &BareJid, since: Instant, lead: Duration) -> Result<(), Trouble> {
    for spot in keys.spots(jid) {
        // Whoever leads since then knows.
        if since.elapsed() < lead {
            unless_lost(hub.ask(&spot.end_leads()).await)?;
        }
        // By then nobody wrote any more what he had begun to look up before.
        let age = ms(since.elapsed().saturating_sub(lead));
        let entries = spot.entries();
        unless_lost(hub.ask(&eval(CATCH_UP, &entries.each_ref().map(String::as_str), &[&age])).await)?;
    }
    Ok(())
}

/// What is not ours under such a key needs no removing.
fn unless_lost(answer: Result<Value, Trouble>) -> Result<(), Trouble> {
    match answer {
        Err(Trouble::Lost) => Err(Trouble::Lost),
        Ok(_) | Err(Trouble::Foreign) => Ok(()),
    }
}
