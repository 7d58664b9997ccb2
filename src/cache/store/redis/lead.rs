//! Whose turn it is to look somebody up among all machines, by a key that runs out unless it is renewed: it ends with the
//! process that has it. What was found is left, for a moment, under a name that only those who waited know.

use std::time::Duration;

use redis::Value;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::{LIMIT, ms};
use crate::cache::store::{self, Turn};
use crate::hub::{Hub, Trouble, eval, token};

/// How long a lead lasts without being renewed, and how soon it is.
pub const LEAD: Duration = Duration::from_secs(1);
const RENEWAL: Duration = Duration::from_millis(300);
/// How long an outcome waits for those who wait for it.
const TOLD: Duration = Duration::from_secs(3);
/// How soon it is seen that somebody else is done; each time it is later, up to the second one.
const POLL: Duration = Duration::from_millis(1);
const SLOW_POLL: Duration = Duration::from_millis(16);

/// What was handed over by whom we wait for, else the lead, else who has it.
const TURN: &str = "local told = redis.call('get', KEYS[2])
if told then return {2, told} end
if redis.call('set', KEYS[1], ARGV[1], 'nx', 'px', ARGV[2]) then return {1, ''} end
return {0, redis.call('get', KEYS[1])}";

const RENEW: &str = "if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('pexpire', KEYS[1], ARGV[2])";

const HAND_OVER: &str = "if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] ~= '' then redis.call('set', KEYS[2], ARGV[2], 'px', ARGV[3]) end
return redis.call('del', KEYS[1])";

/// The lead of one person, by a key that runs out unless it is renewed.
#[derive(Debug)]
pub struct Lead {
    hub: Hub,
    pub(super) key: String,
    pub(super) token: String,
    keeper: AbortHandle,
    is_over: bool,
}

/// Waits for the lead under `key`, or for what it brings somebody else.
pub async fn turn(hub: &Hub, key: String, deadline: Instant) -> Result<Turn, Trouble> {
    let (ours, mut pause) = (token(), POLL);
    let mut theirs = ours.clone();
    loop {
        let (told, sent) = (format!("{key}:told:{theirs}"), Instant::now());
        let took = hub.ask(&eval(TURN, &[&key, &told], &[ours.as_bytes(), &ms(LEAD)])).await?;
        match redis::from_redis_value::<(u8, Vec<u8>)>(took) {
            Ok((1, _)) => return Ok(Turn::Ours(store::Lead::Redis(Lead::of(hub, key, ours)))),
            Ok((2, told)) => return Ok(Turn::Told(told)),
            Ok((_, token)) => theirs = String::from_utf8_lossy(&token).into_owned(),
            Err(_) => return Err(Trouble::Foreign),
        }
        if sent >= deadline {
            return Ok(Turn::Late);
        }
        sleep_until(deadline.min(Instant::now() + pause)).await;
        pause = (pause * 2).min(SLOW_POLL);
    }
}

impl Lead {
    fn of(hub: &Hub, key: String, token: String) -> Lead {
        let (kept, ours, line) = (key.clone(), token.clone(), hub.clone());
        let keeper = tokio::spawn(async move {
            loop {
                sleep(RENEWAL).await;
                // One that was overtaken is nobody's any more.
                if line.ask(&eval(RENEW, &[&kept], &[ours.as_bytes(), &ms(LEAD)])).await == Ok(Value::Int(0)) {
                    return;
                }
            }
        });
        Lead { hub: hub.clone(), key, token, keeper: keeper.abort_handle(), is_over: false }
    }

    /// To those who wait. Where that fails, one of them looks anew.
    pub async fn hand_over(mut self, outcome: &[u8]) {
        self.is_over = true;
        let outcome = if outcome.len() > LIMIT { b"" } else { outcome };
        let told = format!("{}:told:{}", self.key, self.token);
        let hand_over = eval(HAND_OVER, &[&self.key, &told], &[self.token.as_bytes(), outcome, &ms(TOLD)]);
        if let Err(trouble) = self.hub.ask(&hand_over).await {
            log::debug!("nobody is told what was found: {trouble:?}");
        }
    }
}

impl Drop for Lead {
    /// Without a word it is given back at once, or runs out.
    fn drop(&mut self) {
        self.keeper.abort();
        if let (false, Ok(runtime)) = (self.is_over, Handle::try_current()) {
            let (hub, key, token) = (self.hub.clone(), self.key.clone(), self.token.clone());
            runtime
                .spawn(async move { hub.ask(&eval(HAND_OVER, &[&key, &key], &[token.as_bytes(), b"", b"0"])).await });
        }
    }
}
