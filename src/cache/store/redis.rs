//! The store of many machines, in the hub: one value for each person, which says how long it was to live; from what is
//! left of that its age follows, by the hub's clock alone. Where the hub is lost the processes of a machine go on by their
//! directory; what was written before it came back is not believed, since it may have changed meanwhile.

mod lead;
mod missed;
mod spot;

use std::time::Duration;

use jid::BareJid;
use redis::Value;
use tokio::time::Instant;

use super::directory::Directory;
use super::{Edition, Kept, News, Part, Turn, Written, realms};
use crate::cache::PICTURE_LIFE;
use crate::config::{CacheSettings, Identity};
use crate::hub::{Hub, Trouble, eval};
use crate::probe::memory::Fingerprint;
pub use lead::Lead;
use missed::Missed;
use spot::Keys;

/// Pictures are fewer: a few dozen kilobytes each, as a rule. All of them weigh no more than so many bytes, but for one in
/// each bucket.
const PICTURES: usize = 1024;
const PICTURES_BYTES: usize = 32 * 1024 * 1024;
/// The longest value that is read, and written.
const LIMIT: usize = 2 * 1024 * 1024;
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

/// See the module.
pub struct Redis {
    hub: Hub,
    /// What is shared while the hub is lost.
    local: Option<Directory>,
    keys: Keys,
    entries: usize,
    lives: [Duration; 2],
    missed: Missed,
    /// How long somebody may have his lead.
    lead: Duration,
}

impl Redis {
    pub fn new(hub: Hub, local: Option<Directory>, identity: &Identity, settings: &CacheSettings) -> Redis {
        let realms = realms(&Fingerprint::among_machines(identity).text(), identity.access.visibility);
        let life = settings.stale.max(settings.ttl + settings.refresh);
        Redis {
            hub,
            local,
            keys: Keys::new(realms, settings.entries),
            entries: settings.entries,
            lives: [life, PICTURE_LIFE + life],
            missed: Missed::default(),
            lead: identity.timeout + lead::LEAD,
        }
    }

    pub async fn read(&self, jid: &BareJid, part: Part, known: Option<Edition>, now_ms: u64) -> Kept {
        self.missed.catch_up(&self.hub, &self.keys, self.lead);
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
            Some(super::Lead::Alone | super::Lead::File(..)) => return self.write_here(jid, part, news, lead).await,
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
        let buckets = self.keys.buckets();
        let (share, room) = match part {
            Part::Presence => (self.entries / buckets, 0),
            Part::Picture => (PICTURES.min(self.entries).div_ceil(buckets), PICTURES_BYTES / buckets),
        };
        let kept = spot.list(part);
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
                self.missed.add(jid);
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
            self.missed.add(jid);
        }
        if let Some(local) = &self.local {
            let lead = lead.filter(|_| ours.is_none());
            local.remove(jid, now_ms, lead).await;
        }
    }

    pub async fn overtake(&self, jid: &BareJid) {
        for spot in self.keys.spots(jid) {
            if self.hub.ask(&spot.end_leads()).await == Err(Trouble::Lost) {
                self.missed.add(jid);
            }
        }
        if let Some(local) = &self.local {
            local.overtake(jid).await;
        }
    }

    pub async fn turn(&self, jid: &BareJid, part: Part, now_ms: u64, deadline: Instant) -> Turn {
        self.missed.catch_up(&self.hub, &self.keys, self.lead);
        match lead::turn(&self.hub, self.keys.spot(jid).lead(part), deadline).await {
            Ok(turn) => turn,
            Err(_) => match &self.local {
                Some(local) => local.turn(jid, part, now_ms, deadline).await,
                None => Turn::Ours(super::Lead::Alone),
            },
        }
    }

    /// Removes everything that is kept of somebody, by the lead that is ours, if one is.
    async fn strike(&self, jid: &BareJid, lead: Option<&Lead>) -> Result<(), Trouble> {
        let [spot, other_service] = self.keys.spots(jid);
        let [mut own, mut other] = spot.leads();
        if lead.is_some_and(|lead| lead.key == other) {
            std::mem::swap(&mut own, &mut other);
        }
        let [presence, picture] = spot.entries();
        let token = lead.map_or("", |lead| &lead.token);
        let removed = self.hub.ask(&eval(REMOVE, &[&own, &other, &presence, &picture], &[token.as_bytes()])).await?;
        // A lead that was overtaken removes nothing.
        if removed == Value::Int(0) {
            return Ok(());
        }
        let keys = [other_service.leads(), other_service.entries()].concat();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.hub.ask(&eval(REMOVE, &keys, &[b""])).await.map(drop)
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

fn ms(time: Duration) -> Vec<u8> {
    time.as_millis().to_string().into_bytes()
}
