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

#[derive(Debug, Default)]
struct People {
    people: HashMap<BareJid, Miss>,
    is_caught_up_with: bool,
}

#[derive(Clone, Copy, Debug)]
struct Miss {
    /// When it would have been removed.
    since: Instant,
    /// When the hub, or its node, was still lost.
    tried: Option<Instant>,
}

impl Missed {
    pub fn add(&self, jid: &BareJid) {
        let people = &mut self.lock().people;
        let known = people.get(jid);
        if people.len() < MISSED || known.is_some() {
            let tried = known.and_then(|miss| miss.tried);
            people.insert(jid.clone(), Miss { since: Instant::now(), tried });
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
            missed.remove_all(|jid, since| remove(hub.clone(), keys.clone(), jid, since, lead)).await;
            missed.lock().is_caught_up_with = false;
        });
    }

    /// Until somebody's node is lost: each of its keys would cost the time in which it does not answer. He comes last the
    /// next time, so that those of other nodes do not wait for him. Who is still missed afterwards stays so, and for whom
    /// something came meanwhile.
    async fn remove_all<F>(&self, remove: impl Fn(BareJid, Instant) -> F)
    where
        F: Future<Output = Result<(), Trouble>>,
    {
        for (jid, since) in self.in_turn() {
            let removed = remove(jid.clone(), since).await;
            let people = &mut self.lock().people;
            if removed == Err(Trouble::Lost) {
                people.entry(jid).and_modify(|miss| miss.tried = Some(Instant::now()));
                return;
            }
            if people.get(&jid).is_some_and(|miss| miss.since == since) {
                people.remove(&jid);
            }
        }
    }

    /// Those who were not tried yet first.
    fn in_turn(&self) -> Vec<(BareJid, Instant)> {
        let mut people: Vec<_> = self.lock().people.iter().map(|(jid, miss)| (jid.clone(), *miss)).collect();
        people.sort_by_key(|(_, miss)| (miss.tried, miss.since));
        people.into_iter().map(|(jid, miss)| (jid, miss.since)).collect()
    }

    /// Held for a map access; no code that could panic runs under it.
    fn lock(&self) -> MutexGuard<'_, People> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the hub had of somebody at that time.
async fn remove(hub: Hub, keys: Keys, jid: BareJid, since: Instant, lead: Duration) -> Result<(), Trouble> {
    for spot in keys.spots(&jid) {
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const DEAD: [&str; 3] = ["a0@example.com", "a4@example.com", "a8@example.com"];

    fn nine() -> Missed {
        let missed = Missed::default();
        for number in 0..9 {
            missed.add(&BareJid::new(&format!("a{number}@example.com")).expect("a bare JID"));
        }
        missed
    }

    /// Who was tried while the node of these is lost, in that order.
    async fn tried(missed: &Missed, dead: &[&str]) -> Vec<String> {
        let tried = RefCell::new(Vec::new());
        let is_dead = |jid: &BareJid| dead.contains(&jid.as_str());
        let remove = async |jid: BareJid, _| {
            tried.borrow_mut().push(jid.to_string());
            if is_dead(&jid) { Err(Trouble::Lost) } else { Ok(()) }
        };
        missed.remove_all(remove).await;
        tried.into_inner()
    }

    fn left(missed: &Missed) -> Vec<String> {
        let mut left: Vec<_> = missed.lock().people.keys().map(BareJid::to_string).collect();
        left.sort();
        left
    }

    #[tokio::test]
    async fn a_dead_node_costs_one_wait_and_keeps_nobody_elses_from_being_removed() {
        let missed = nine();
        let mut rounds = Vec::new();
        for _ in 0..6 {
            rounds.push(tried(&missed, &DEAD).await.join(" ").replace("@example.com", ""));
        }
        assert_eq!(rounds, ["a0", "a1 a2 a3 a4", "a5 a6 a7 a8", "a0", "a4", "a8"]);
        assert_eq!(left(&missed), DEAD);
        assert_eq!(tried(&missed, &[]).await, DEAD);
        assert!(left(&missed).is_empty());
    }

    #[tokio::test]
    async fn who_is_missed_again_meanwhile_stays_and_does_not_come_first() {
        let missed = nine();
        assert_eq!(tried(&missed, &DEAD).await, ["a0@example.com"]);
        let first = BareJid::new(DEAD[0]).expect("a bare JID");
        missed.add(&first);
        let again = async |jid: BareJid, _| {
            missed.add(&jid);
            Ok(())
        };
        missed.remove_all(again).await;
        assert_eq!(left(&missed).len(), 9, "what was removed was older");
        assert_eq!(missed.in_turn().last().map(|(jid, _)| jid.clone()), Some(first));
    }

    #[test]
    fn no_more_are_missed_than_there_is_room_for() {
        let missed = Missed::default();
        let jid = |number: usize| BareJid::new(&format!("a{number}@example.com")).expect("a bare JID");
        (0..=MISSED).for_each(|number| missed.add(&jid(number)));
        let since = |missed: &Missed| missed.lock().people.get(&jid(0)).map(|miss| miss.since);
        let before = since(&missed);
        missed.add(&jid(0));
        assert_eq!(missed.lock().people.len(), MISSED);
        assert!(since(&missed) > before, "who is among them may be missed again");
    }
}
