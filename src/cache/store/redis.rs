//! The store of many machines, in the hub: one value for each person, which says how long it was to live; from what is
//! left of that its age follows, by the hub's clock alone. Where the hub is lost the processes of a machine go on by their
//! directory; what was written before it came back is not believed, since it may have changed meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jid::BareJid;
use redis::Value;
use ring::digest;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::directory::Directory;
use super::{Edition, Kept, News, Part, Turn, Written, realms};
use crate::cache::PICTURE_LIFE;
use crate::config::{CacheSettings, Identity};
use crate::hub::{Hub, Trouble, eval, token};
use crate::probe::memory::Fingerprint;

/// People of one bucket, about; a bucket has one slot of a cluster.
const BUCKET: usize = 128;
/// Pictures are fewer: a few dozen kilobytes each, as a rule. All of them weigh no more than so many bytes, but for one in
/// each bucket.
const PICTURES: usize = 1024;
const PICTURES_BYTES: usize = 32 * 1024 * 1024;
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
/// written longest ago; their list and the number of the last turn last as long as whoever is kept longest. Where bytes are
/// not counted there is room for 0.
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
local room = tonumber(ARGV[6])
if room > 0 then
  for _, key in ipairs(redis.call('zrevrange', KEYS[3], 0, -1)) do
    room = room - redis.call('strlen', key)
    if room < 0 and key ~= KEYS[1] then
      redis.call('del', key)
      redis.call('zrem', KEYS[3], key)
    end
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

/// What is older than the time at which it should have been removed; what is younger was written by who knew.
const CATCH_UP: &str = "for _, key in ipairs(KEYS) do
  if redis.call('type', key).ok == 'string' then
    local life = tonumber(redis.call('getrange', key, 32, 43))
    if not life or life - redis.call('pttl', key) >= tonumber(ARGV[1]) then redis.call('del', key) end
  end
end
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
    keys: Keys,
    entries: usize,
    lives: [Duration; 2],
    missed: Arc<Mutex<Missed>>,
    /// How long somebody may have his lead.
    lead: Duration,
}

/// Of whom something would have been removed while the hub was lost, and when.
#[derive(Debug, Default)]
struct Missed {
    people: HashMap<BareJid, Instant>,
    is_caught_up_with: bool,
}

/// Where people are.
#[derive(Clone, Debug)]
struct Keys {
    /// Its own, and one whose people are removed with ours.
    realms: [String; 2],
    buckets: usize,
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
        let realms = realms(&Fingerprint::among_machines(identity).text(), identity.access.visibility);
        let realm = |text: String| hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref(), 8);
        let buckets = 1 << (settings.entries / BUCKET).max(1).ilog2();
        let life = settings.stale.max(settings.ttl + settings.refresh);
        Redis {
            hub,
            local,
            keys: Keys { realms: realms.map(realm), buckets },
            entries: settings.entries,
            lives: [life, PICTURE_LIFE + life],
            missed: Arc::default(),
            lead: identity.timeout + LEAD,
        }
    }

    pub async fn read(&self, jid: &BareJid, part: Part, known: Option<Edition>, now_ms: u64) -> Kept {
        self.catch_up();
        let edition = known.map_or(String::new(), |Edition(known)| format!("{known:032x}"));
        let limit = LIMIT.to_string();
        let read = eval(READ, &[&self.keys.spot(jid).entry(part)], &[edition.as_bytes(), limit.as_bytes()]);
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
        let spot = self.keys.spot(jid);
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
        let buckets = self.keys.buckets;
        let (share, room) = match part {
            Part::Presence => (self.entries / buckets, 0),
            Part::Picture => (PICTURES.min(self.entries).div_ceil(buckets), PICTURES_BYTES / buckets),
        };
        let kept = format!("{}:{}", spot.bucket, word(part));
        let counter = format!("{kept}:turn");
        let keys = [&*spot.entry(part), &*lead_key, &*kept, &*counter];
        let numbers = [rest.as_millis(), news.age.as_millis(), share as u128, room as u128];
        let numbers = numbers.map(|number| number.to_string());
        let [rest, age, share, room] = numbers.each_ref().map(String::as_bytes);
        match self.hub.ask(&eval(WRITE, &keys, &[&value, rest, age, token.as_bytes(), share, room])).await {
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
        for spot in self.keys.spots(jid) {
            if self.hub.ask(&delete(&spot)).await == Err(Trouble::Lost) {
                self.miss(jid);
            }
        }
        if let Some(local) = &self.local {
            local.overtake(jid).await;
        }
    }

    pub async fn turn(&self, jid: &BareJid, part: Part, now_ms: u64, deadline: Instant) -> Turn {
        self.catch_up();
        match self.turn_in_hub(jid, part, deadline).await {
            Ok(turn) => turn,
            Err(_) => match &self.local {
                Some(local) => local.turn(jid, part, now_ms, deadline).await,
                None => Turn::Ours(super::Lead::Alone),
            },
        }
    }

    async fn turn_in_hub(&self, jid: &BareJid, part: Part, deadline: Instant) -> Result<Turn, Trouble> {
        let (ours, key, mut pause) = (token(), self.keys.spot(jid).lead(part), POLL);
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
        let [spot, other_service] = self.keys.spots(jid);
        let [mut own, mut other] = Part::ALL.map(|part| spot.lead(part));
        if lead.is_some_and(|lead| lead.key == other) {
            std::mem::swap(&mut own, &mut other);
        }
        let [presence, picture] = Part::ALL.map(|part| spot.entry(part));
        let token = lead.map_or("", |lead| &lead.token);
        let removed = self.hub.ask(&eval(REMOVE, &[&own, &other, &presence, &picture], &[token.as_bytes()])).await?;
        // A lead that was overtaken removes nothing.
        if removed == Value::Int(0) {
            return Ok(());
        }
        let spot = other_service;
        let keys = [
            spot.lead(Part::Presence),
            spot.lead(Part::Picture),
            spot.entry(Part::Presence),
            spot.entry(Part::Picture),
        ];
        self.hub.ask(&eval(REMOVE, &keys.each_ref().map(String::as_str), &[b""])).await.map(drop)
    }

    /// Removes what was to be removed while the hub was lost, behind the visitors' backs: what the hub had before it came
    /// back is not believed here.
    fn catch_up(&self) {
        let mut missed = lock(&self.missed);
        if missed.people.is_empty() || missed.is_caught_up_with || !self.hub.is_there() {
            return;
        }
        missed.is_caught_up_with = true;
        let (hub, keys, missed, lead) = (self.hub.clone(), self.keys.clone(), self.missed.clone(), self.lead);
        tokio::spawn(async move {
            catch_up(&hub, &keys, &missed, lead).await;
            lock(&missed).is_caught_up_with = false;
        });
    }

    fn miss(&self, jid: &BareJid) {
        let people = &mut lock(&self.missed).people;
        if people.len() < MISSED || people.contains_key(jid) {
            people.insert(jid.clone(), Instant::now());
        }
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
}

impl Keys {
    fn spot(&self, jid: &BareJid) -> Spot {
        self.spot_in(&self.realms[0], jid)
    }

    /// Ours first.
    fn spots(&self, jid: &BareJid) -> [Spot; 2] {
        self.realms.each_ref().map(|realm| self.spot_in(realm, jid))
    }

    fn spot_in(&self, realm: &str, jid: &BareJid) -> Spot {
        let hash = digest::digest(&digest::SHA256, jid.as_str().as_bytes());
        let (front, _) = hash.as_ref().split_first_chunk().expect("SHA-256 has 32 bytes");
        let bucket = usize::from_be_bytes(*front) % self.buckets;
        Spot { bucket: format!("webpresence:{{{realm}:{bucket:x}}}"), name: hex(hash.as_ref(), 16) }
    }
}

/// Who is still missed afterwards stays so: the hub was lost again, or something came meanwhile.
async fn catch_up(hub: &Hub, keys: &Keys, missed: &Mutex<Missed>, lead: Duration) {
    let people: Vec<_> = lock(missed).people.iter().map(|(jid, since)| (jid.clone(), *since)).collect();
    for (jid, since) in people {
        for spot in keys.spots(&jid) {
            // Whoever leads since then knows.
            if since.elapsed() < lead && hub.ask(&delete(&spot)).await == Err(Trouble::Lost) {
                return;
            }
            let entries = Part::ALL.map(|part| spot.entry(part));
            // By then nobody wrote any more what he had begun to look up before.
            let age = ms(since.elapsed().saturating_sub(lead));
            if hub.ask(&eval(CATCH_UP, &entries.each_ref().map(String::as_str), &[&age])).await == Err(Trouble::Lost) {
                return;
            }
        }
        let people = &mut lock(missed).people;
        if people.get(&jid) == Some(&since) {
            people.remove(&jid);
        }
    }
}

/// Of both leads.
fn delete(spot: &Spot) -> redis::Cmd {
    let mut delete = redis::cmd("DEL");
    delete.arg(&Part::ALL.map(|part| spot.lead(part))[..]);
    delete
}

/// Held for a map access; no code that could panic runs under it.
fn lock(missed: &Mutex<Missed>) -> MutexGuard<'_, Missed> {
    missed.lock().unwrap_or_else(PoisonError::into_inner)
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
