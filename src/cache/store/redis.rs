//! The store of many machines, in the hub: one value for each person, which says how long it was to live; from what is
//! left of that its age follows, by the hub's clock alone. Where the hub is lost the processes of a machine go on by their
//! directory; what was written before it came back is not believed, since it may have changed meanwhile.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jid::BareJid;
use redis::Value;
use ring::digest;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::directory::Directory;
use super::{Edition, Kept, News, Part, Turn, Written};
use crate::cache::PICTURE_LIFE;
use crate::config::{CacheSettings, Identity};
use crate::hub::{Hub, Trouble, eval, token};
use crate::probe::memory::Fingerprint;

/// People of one bucket, about; a bucket has one slot of a cluster.
const BUCKET: usize = 128;
/// Pictures are fewer: a few dozen kilobytes each, as a rule.
const PICTURES: usize = 1024;
/// The longest value that is read, and written.
const LIMIT: usize = 2 * 1024 * 1024;
/// How long a lead lasts without being renewed, and how soon it is.
const LEAD: Duration = Duration::from_secs(1);
const RENEWAL: Duration = Duration::from_millis(300);
/// How long an outcome waits for those who wait for it.
const TOLD: Duration = Duration::from_secs(3);
/// How soon it is seen that somebody else is done; each time it is later, up to the second one.
const POLL: Duration = Duration::from_millis(1);
const SLOW_POLL: Duration = Duration::from_millis(16);
/// People of whom something is to be removed once the hub is back. Of more, what it still has is soon too old.
const MISSED: usize = 10_000;
/// The digits of an edition, and of a lifetime in milliseconds behind it.
const EDITION: usize = 32;
const LIFE: usize = 12;
/// What every edition of the hub has, and none of a directory, which makes them of inodes and lengths.
const OURS: u128 = 1 << 127;

/// The value and how long it still lives, unless the edition is known.
const READ: &str = "local length = redis.call('strlen', KEYS[1])
if length == 0 or length > tonumber(ARGV[2]) then return false end
if redis.call('getrange', KEYS[1], 0, 31) == ARGV[1] then return 1 end
return {redis.call('get', KEYS[1]), redis.call('pttl', KEYS[1])}";

/// As long as the lead is ours, and nothing younger is there. Of a bucket that is over its share, those leave that were
/// written longest ago; their list and the number of the last turn last as long as whoever is kept longest.
const WRITE: &str = "if ARGV[4] ~= '' and redis.call('get', KEYS[2]) ~= ARGV[4] then return 0 end
if redis.call('type', KEYS[1]).ok == 'string' then
  local life = tonumber(redis.call('getrange', KEYS[1], 32, 43))
  if life and life - redis.call('pttl', KEYS[1]) < tonumber(ARGV[3]) then return 0 end
end
redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2])
local turn = redis.call('incr', KEYS[4])
redis.call('zadd', KEYS[3], turn, KEYS[1])
local over = redis.call('zcard', KEYS[3]) - tonumber(ARGV[5])
if over > 0 then
  for _, oldest in ipairs(redis.call('zrange', KEYS[3], 0, over - 1)) do
    redis.call('del', oldest)
    redis.call('zrem', KEYS[3], oldest)
  end
end
for key = 3, 4 do
  redis.call('pexpire', KEYS[key], math.max(redis.call('pttl', KEYS[key]), tonumber(ARGV[2])))
end
return 1";

/// Both parts of somebody and whatever lead there is, but for that of whoever removes, who still has to hand over.
const REMOVE: &str = "if ARGV[1] ~= '' and redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
for key = 2, #KEYS do redis.call('del', KEYS[key]) end
if ARGV[1] == '' then redis.call('del', KEYS[1]) end
return 1";

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

/// See the module.
#[derive(Debug)]
pub struct Redis {
    hub: Hub,
    /// What is shared while the hub is lost.
    local: Option<Directory>,
    realm: String,
    entries: usize,
    buckets: usize,
    lives: [Duration; 2],
    /// Of whom something would have been removed while it was lost.
    missed: Mutex<HashSet<BareJid>>,
}

/// The lead of one person, by a key that runs out unless it is renewed.
#[derive(Debug)]
pub struct Lead {
    hub: Hub,
    key: String,
    token: String,
    keeper: AbortHandle,
    is_over: bool,
}

/// The keys of one person, all of one slot.
struct Spot {
    bucket: String,
    name: String,
}

impl Spot {
    fn entry(&self, part: Part) -> String {
        format!("{}:{}:{}", self.bucket, self.name, word(part))
    }

    fn lead(&self, part: Part) -> String {
        format!("{}:lead", self.entry(part))
    }
}

fn word(part: Part) -> &'static str {
    match part {
        Part::Presence => "presence",
        Part::Picture => "picture",
    }
}

impl Redis {
    pub fn new(hub: Hub, local: Option<Directory>, identity: &Identity, settings: &CacheSettings) -> Redis {
        let known = format!("{} {:?}", Fingerprint::among_machines(identity).text(), identity.access.visibility);
        let life = settings.stale.max(settings.ttl + settings.refresh);
        Redis {
            hub,
            local,
            realm: hex(digest::digest(&digest::SHA256, known.as_bytes()).as_ref(), 8),
            entries: settings.entries,
            buckets: 1 << (settings.entries / BUCKET).max(1).ilog2(),
            lives: [life, PICTURE_LIFE + life],
            missed: Mutex::default(),
        }
    }

    pub async fn read(&self, jid: &BareJid, part: Part, known: Option<Edition>, now_ms: u64) -> Kept {
        self.catch_up().await;
        let edition = known.map_or(String::new(), |Edition(known)| format!("{known:032x}"));
        let limit = LIMIT.to_string();
        let read = eval(READ, &[&self.spot(jid).entry(part)], &[edition.as_bytes(), limit.as_bytes()]);
        match self.hub.ask(&read).await {
            Ok(Value::Int(1)) => Kept::Same,
            Ok(found) => self.kept(jid, found).unwrap_or(Kept::Nothing),
            Err(Trouble::Foreign) => Kept::Nothing,
            Err(Trouble::Lost) => {
                let kept = self.local.as_ref().map_or(Kept::Unreachable, |local| local.read(jid, part, known, now_ms));
                // What the hub told before is not in the directory, and holds as long as memory says.
                let is_from_hub = known.is_some_and(|Edition(known)| known & OURS != 0);
                if kept == Kept::Nothing && is_from_hub { Kept::Unreachable } else { kept }
            }
        }
    }

    pub async fn write(&self, jid: &BareJid, part: Part, news: News<'_>, lead: Option<&super::Lead>) -> Written {
        let spot = self.spot(jid);
        let (lead_key, token) = match lead {
            None => (spot.lead(part), ""),
            // A picture's brings the presence too.
            Some(super::Lead::Redis(lead)) => (lead.key.clone(), &*lead.token),
            // It was taken while the hub was lost.
            Some(super::Lead::Alone | super::Lead::File(_)) => return self.write_here(jid, part, news, lead).await,
        };
        let life = self.lives[part as usize];
        let Some(rest) = life.checked_sub(news.age).filter(|rest| !rest.is_zero()) else { return Written::Nowhere };
        let Ok(edition) = u128::from_str_radix(&crate::hub::token(), 16).map(|number| number | OURS) else {
            return Written::Nowhere;
        };
        let value = [format!("{edition:032x}{:0LIFE$}{jid}\n", life.as_millis()).as_bytes(), news.bytes].concat();
        if value.len() > LIMIT {
            return Written::Nowhere;
        }
        let share = match part {
            Part::Presence => self.entries / self.buckets,
            Part::Picture => PICTURES.min(self.entries).div_ceil(self.buckets),
        };
        let kept = format!("{}:{}", spot.bucket, word(part));
        let counter = format!("{kept}:turn");
        let keys = [&*spot.entry(part), &*lead_key, &*kept, &*counter];
        let numbers = [rest.as_millis(), news.age.as_millis(), share as u128].map(|number| number.to_string());
        let [rest, age, share] = numbers.each_ref().map(String::as_bytes);
        match self.hub.ask(&eval(WRITE, &keys, &[&value, rest, age, token.as_bytes(), share])).await {
            Ok(Value::Int(1)) => Written::As(Edition(edition)),
            Ok(_) => Written::Overtaken,
            Err(Trouble::Foreign) => Written::Nowhere,
            Err(Trouble::Lost) => {
                // What the hub has is older, and may no longer be true.
                self.miss(jid);
                self.write_here(jid, part, news, None).await
            }
        }
    }

    pub async fn remove(&self, jid: &BareJid, now_ms: u64, lead: Option<&super::Lead>) {
        let ours = match lead {
            Some(super::Lead::Redis(lead)) => Some(lead),
            _ => None,
        };
        if self.strike(jid, ours).await == Err(Trouble::Lost) {
            self.miss(jid);
        }
        if let Some(local) = &self.local {
            let lead = lead.filter(|_| ours.is_none());
            local.remove(jid, now_ms, lead).await;
        }
    }

    pub async fn overtake(&self, jid: &BareJid) {
        let mut delete = redis::cmd("DEL");
        let spot = self.spot(jid);
        delete.arg(&Part::ALL.map(|part| spot.lead(part))[..]);
        if self.hub.ask(&delete).await == Err(Trouble::Lost) {
            self.miss(jid);
        }
        if let Some(local) = &self.local {
            local.overtake(jid).await;
        }
    }

    pub async fn turn(&self, jid: &BareJid, part: Part, now_ms: u64, deadline: Instant) -> Turn {
        self.catch_up().await;
        match self.turn_in_hub(jid, part, deadline).await {
            Ok(turn) => turn,
            Err(_) => match &self.local {
                Some(local) => local.turn(jid, part, now_ms, deadline).await,
                None => Turn::Ours(super::Lead::Alone),
            },
        }
    }

    async fn turn_in_hub(&self, jid: &BareJid, part: Part, deadline: Instant) -> Result<Turn, Trouble> {
        let (ours, key, mut pause) = (token(), self.spot(jid).lead(part), POLL);
        let mut theirs = ours.clone();
        loop {
            let (told, sent) = (format!("{key}:told:{theirs}"), Instant::now());
            let took = self.hub.ask(&eval(TURN, &[&key, &told], &[ours.as_bytes(), &ms(LEAD)])).await?;
            match redis::from_redis_value::<(u8, Vec<u8>)>(took) {
                Ok((1, _)) => return Ok(Turn::Ours(super::Lead::Redis(Lead::of(&self.hub, key, ours)))),
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

    /// Removes everything that is kept of somebody, by the lead that is ours, if one is.
    async fn strike(&self, jid: &BareJid, lead: Option<&Lead>) -> Result<(), Trouble> {
        let spot = self.spot(jid);
        let [mut own, mut other] = Part::ALL.map(|part| spot.lead(part));
        if lead.is_some_and(|lead| lead.key == other) {
            std::mem::swap(&mut own, &mut other);
        }
        let [presence, picture] = Part::ALL.map(|part| spot.entry(part));
        let token = lead.map_or("", |lead| &lead.token);
        self.hub.ask(&eval(REMOVE, &[&own, &other, &presence, &picture], &[token.as_bytes()])).await.map(drop)
    }

    /// Removes what was to be removed while the hub was lost.
    async fn catch_up(&self) {
        if !self.hub.is_there() {
            return;
        }
        let missed = std::mem::take(&mut *self.missed());
        for jid in missed {
            if self.strike(&jid, None).await == Err(Trouble::Lost) {
                self.miss(&jid);
            }
        }
    }

    fn miss(&self, jid: &BareJid) {
        let mut missed = self.missed();
        if missed.len() < MISSED {
            missed.insert(jid.clone());
        }
    }

    fn missed(&self) -> std::sync::MutexGuard<'_, HashSet<BareJid>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write_here(&self, jid: &BareJid, part: Part, news: News<'_>, lead: Option<&super::Lead>) -> Written {
        match &self.local {
            Some(local) => local.write(jid, part, news, lead).await,
            None => Written::Nowhere,
        }
    }

    /// A value as [`WRITE`] puts it, with what is left of its life; nothing where it is not ours.
    fn kept(&self, jid: &BareJid, found: Value) -> Option<Kept> {
        let (value, left) = redis::from_redis_value::<(Vec<u8>, i64)>(found).ok()?;
        let (head, rest) = value.split_at_checked(EDITION + LIFE)?;
        let (edition, life) = std::str::from_utf8(head).ok()?.split_at(EDITION);
        let edition = Edition(u128::from_str_radix(edition, 16).ok()?);
        let age =
            Duration::from_millis(life.parse().ok()?).checked_sub(Duration::from_millis(left.try_into().ok()?))?;
        let bytes = rest.strip_prefix(jid.as_str().as_bytes())?.strip_prefix(b"\n")?;
        let is_believed = self.hub.back_for().is_none_or(|back| age < back);
        is_believed.then(|| Kept::Other { bytes: bytes.to_vec(), age, edition })
    }

    fn spot(&self, jid: &BareJid) -> Spot {
        let hash = digest::digest(&digest::SHA256, jid.as_str().as_bytes());
        let (front, _) = hash.as_ref().split_first_chunk().expect("SHA-256 has 32 bytes");
        let bucket = usize::from_be_bytes(*front) % self.buckets;
        Spot { bucket: format!("webpresence:{{{}:{bucket:x}}}", self.realm), name: hex(hash.as_ref(), 16) }
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

fn ms(time: Duration) -> Vec<u8> {
    time.as_millis().to_string().into_bytes()
}

fn hex(bytes: &[u8], count: usize) -> String {
    bytes.iter().take(count).map(|byte| format!("{byte:02x}")).collect()
}
