//! What is known about people who let themselves be seen, and for how long it may be told: fresh up to `ttl`, served
//! while it is renewed up to `ttl + refresh`, and up to `stale` only where the server cannot be asked. A person is looked
//! up once at a time, however many wait. Who refuses is not remembered here. Pictures live longer, but never without the
//! presence that allows them. The time of day is an argument, so that stores shared between processes can follow.

pub mod shelf;
pub mod store;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jid::BareJid;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::config::CacheSettings;
use crate::presence::{Picture, Presence, State};
use crate::viewers::Viewers;
use shelf::Shelf;

/// What a request gets to work with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Known, and how long ago it was asked. Older than `ttl` means: served while a lookup renews it, or because
    /// the server cannot be asked.
    Known { sight: Sight, age: Duration },
    /// The XMPP server could not be asked and nothing usable is remembered.
    Nothing { retry_after: Duration },
}

/// What is remembered of somebody, and when it was asked, in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    presence: Presence,
    viewers: Option<Viewers>,
    at_ms: u64,
}

/// What is wanted of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Want {
    Presence,
    /// And the picture, as far as the presence allows it.
    Picture,
}

/// What a lookup has found.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// Where a lookup's outcome will be.
type Outcome = watch::Receiver<Option<Lookup>>;

/// A picture, or that there is none, and when it was asked for.
#[derive(Clone, Debug)]
struct Portrait {
    picture: Option<Picture>,
    at_ms: u64,
}

/// How long a picture counts as the newest one.
const PICTURE_LIFE: Duration = Duration::from_secs(3600);
/// How long nobody is asked again who has none, or whose server was slow.
const NO_PICTURE_LIFE: Duration = Duration::from_secs(60);
/// Bytes of a roster that count as much as a person.
const ROSTER_BYTES: usize = 1024;
/// Bytes of all pictures that are remembered, and what each of them, or the lack of one, counts beside its own.
const PICTURES_BYTES: usize = 16 * 1024 * 1024;
const PICTURE_OVERHEAD: usize = 1024;

/// Whether something older than `ttl` may be served at once while it is renewed behind the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    Behind,
    /// The process ends with its answer.
    Never,
}

/// Tells the time of day, in milliseconds since 1970.
pub type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

/// See the module.
pub struct Cache {
    settings: CacheSettings,
    renewal: Renewal,
    clock: Clock,
    inner: Mutex<Inner>,
}

struct Inner {
    known: Shelf<Entry>,
    /// What nobody exceeds among them, however long his roster: a tenth of the room.
    heaviest: usize,
    /// Of people who are known.
    portraits: Shelf<Portrait>,
    /// The lookups under way, each with its number. The receiver sees the outcome; a sender that is gone leaves none.
    lookups: HashMap<(BareJid, Want), (u64, Outcome)>,
    counter: u64,
}

impl Inner {
    /// What a lookup under way will bring is older than what has come meanwhile: nobody else waits for it, and it is
    /// not kept.
    fn overtake(&mut self, jid: &BareJid) {
        for want in [Want::Presence, Want::Picture] {
            self.lookups.remove(&(jid.clone(), want));
        }
    }

    /// A long roster takes the place of several people.
    fn store(&mut self, jid: &BareJid, entry: Entry) {
        if entry.presence.state == State::Forbidden {
            return self.remove(jid);
        }
        let weight = 1 + entry.viewers.as_ref().map_or(0, Viewers::bytes) / ROSTER_BYTES;
        self.known.store(jid, weight.min(self.heaviest), entry);
    }

    /// A refusal deletes what was known.
    fn remove(&mut self, jid: &BareJid) {
        self.known.remove(jid);
        self.portraits.remove(jid);
    }

    fn store_portrait(&mut self, jid: &BareJid, portrait: Portrait) {
        let weight = PICTURE_OVERHEAD + portrait.picture.as_ref().map_or(0, |picture| picture.bytes().len());
        self.portraits.store(jid, weight, portrait);
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
    pub fn new(settings: CacheSettings, renewal: Renewal, clock: Clock) -> Cache {
        let known = Shelf::new(settings.entries);
        let heaviest = (settings.entries / 10).max(1);
        let portraits = Shelf::new(PICTURES_BYTES);
        let inner = Mutex::new(Inner { known, heaviest, portraits, lookups: HashMap::new(), counter: 0 });
        Cache { settings, renewal, clock, inner }
    }

    /// What is known of `jid`, by `deadline`; `lookup` runs at most once at a time for a person and what it is to bring.
    /// Nobody is served from what is remembered without `may_see`; what a lookup brings comes back whatever it is.
    pub async fn find<F>(
        self: &Arc<Self>,
        jid: &BareJid,
        want: Want,
        deadline: Instant,
        may_see: impl Fn(&Sight) -> bool,
        lookup: impl FnOnce(Want) -> F,
    ) -> Found
    where
        F: Future<Output = Lookup> + Send + 'static,
    {
        let stored = || self.stored(jid, want).filter(|(sight, _)| may_see(sight));
        // A new picture is worth waiting for.
        let is_pictured = want == Want::Presence || self.is_portrait_fresh(jid);
        let missing = if is_pictured { Want::Presence } else { Want::Picture };
        if let Some((sight, age)) = stored().filter(|_| is_pictured) {
            match self.freshness(age) {
                Freshness::Fresh => return Found::Known { sight, age },
                Freshness::Renewable => {
                    self.lead_or_follow(jid, missing, &mut Some(lookup));
                    return Found::Known { sight, age };
                }
                Freshness::Stale | Freshness::Gone => {}
            }
        }
        let mut lookup = Some(lookup);
        let mut found = arrived(self.lead_or_follow(jid, missing, &mut lookup), deadline).await;
        if found.is_err() && lookup.is_some() && Instant::now() < deadline {
            // Somebody else led, who had less time left; when he came is nobody's business here.
            found = arrived(self.lead_or_follow(jid, missing, &mut lookup), deadline).await;
        }
        match found {
            Ok(sight) if want == missing => Found::Known { sight, age: Duration::ZERO },
            Ok(sight) => {
                let picture = if sight.presence.state == State::Forbidden { None } else { self.picture(jid) };
                Found::Known { sight: Sight { picture, ..sight }, age: Duration::ZERO }
            }
            Err(retry_after) => {
                let usable = stored().filter(|(_, age)| self.freshness(*age) != Freshness::Gone);
                usable.map_or(Found::Nothing { retry_after }, |(sight, age)| Found::Known { sight, age })
            }
        }
    }

    /// Whether somebody is remembered, however long ago, and as what `may_see` lets pass.
    pub fn remembers(&self, jid: &BareJid, may_see: impl Fn(&Sight) -> bool) -> bool {
        self.stored(jid, Want::Presence).is_some_and(|(sight, _)| may_see(&sight))
    }

    /// Follows the lookup that is under way, or begins one, which takes `lookup`. It goes on whether or not anybody still
    /// waits.
    fn lead_or_follow<F>(
        self: &Arc<Self>,
        jid: &BareJid,
        want: Want,
        lookup: &mut Option<impl FnOnce(Want) -> F>,
    ) -> Outcome
    where
        F: Future<Output = Lookup> + Send + 'static,
    {
        let mut inner = self.lock();
        let key = (jid.clone(), want);
        // A sender that is gone without an outcome was a lookup that panicked, where that does not end the process.
        if let Some((_, running)) = inner.lookups.get(&key).filter(|(_, running)| running.has_changed().is_ok()) {
            return running.clone();
        }
        let (done, outcome) = watch::channel(None);
        let Some(lookup) = lookup.take() else { return outcome };
        inner.counter += 1;
        let number = inner.counter;
        inner.lookups.insert(key.clone(), (number, outcome.clone()));
        drop(inner);
        let (cache, lookup) = (self.clone(), lookup(want));
        tokio::spawn(async move {
            let outcome = lookup.await;
            cache.learn(&key, number, &outcome);
            done.send_replace(Some(outcome));
        });
        outcome
    }

    /// Takes what came without a lookup, about somebody who is asked for. A roster does not become newer by it.
    pub fn update(&self, jid: &BareJid, presence: Presence) {
        let mut inner = self.lock();
        if let Some(Entry { viewers, at_ms, .. }) = inner.known.look_up(jid).cloned() {
            let at_ms = if viewers.is_some() { at_ms } else { (self.clock)() };
            inner.store(jid, Entry { presence, viewers, at_ms });
        }
        inner.overtake(jid);
    }

    /// What is known no longer holds: the next request looks anew.
    pub fn forget(&self, jid: &BareJid) {
        let mut inner = self.lock();
        inner.remove(jid);
        inner.overtake(jid);
    }

    /// Stores what a lookup brought, unless it was overtaken.
    fn learn(&self, key: &(BareJid, Want), number: u64, outcome: &Lookup) {
        let mut inner = self.lock();
        if inner.lookups.get(key).is_none_or(|(current, _)| *current != number) {
            return;
        }
        inner.lookups.remove(key);
        let Ok(Sight { presence, picture, viewers, .. }) = outcome else { return };
        let ((jid, want), at_ms) = (key, (self.clock)());
        inner.store(jid, Entry { presence: presence.clone(), viewers: viewers.clone(), at_ms });
        if presence.state == State::Forbidden {
            // The other sort of lookup may have begun before he refused.
            inner.overtake(jid);
        }
        if *want == Want::Picture && presence.state != State::Forbidden {
            inner.store_portrait(jid, Portrait { picture: picture.clone(), at_ms });
        }
    }

    fn is_portrait_fresh(&self, jid: &BareJid) -> bool {
        let inner = self.lock();
        let Some(portrait) = inner.portraits.look_up(jid) else { return false };
        let life = if portrait.picture.is_some() { PICTURE_LIFE } else { NO_PICTURE_LIFE };
        (self.clock)().checked_sub(portrait.at_ms).is_some_and(|age_ms| Duration::from_millis(age_ms) <= life)
    }

    /// A picture that has become old is as good as its presence.
    fn picture(&self, jid: &BareJid) -> Option<Picture> {
        self.lock().portraits.look_up(jid).and_then(|portrait| portrait.picture.clone())
    }

    fn stored(&self, jid: &BareJid, want: Want) -> Option<(Sight, Duration)> {
        let entry = self.lock().known.look_up(jid)?.clone();
        // An entry from the future tells only that a clock was set: it is as good as none.
        let age_ms = (self.clock)().checked_sub(entry.at_ms)?;
        let picture = if want == Want::Picture { self.picture(jid) } else { None };
        let sight = Sight { picture, viewers: entry.viewers, ..Sight::bare(entry.presence) };
        Some((sight, Duration::from_millis(age_ms)))
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

/// What a lookup has brought by then.
async fn arrived(mut outcome: Outcome, deadline: Instant) -> Lookup {
    match timeout_at(deadline, outcome.wait_for(Option::is_some)).await {
        Ok(Ok(outcome)) => outcome.clone().unwrap_or(Err(Duration::from_secs(1))),
        Ok(Err(_)) | Err(_) => Err(Duration::from_secs(1)),
    }
}

/// The system's clock.
pub fn wall_clock() -> Clock {
    Box::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use super::*;

    const START_MS: u64 = 1_000_000;

    /// A cache with ttl 30, refresh 10, stale 300 whose clock and lookups the test holds in its hands.
    struct Rig {
        cache: Arc<Cache>,
        clock_ms: Arc<AtomicU64>,
        lookups: Arc<AtomicUsize>,
    }

    impl Rig {
        fn new(renewal: Renewal, entries: usize) -> Rig {
            let seconds = Duration::from_secs;
            let settings =
                CacheSettings { ttl: seconds(30), refresh: seconds(10), stale: seconds(300), entries, directory: None };
            let clock_ms = Arc::new(AtomicU64::new(START_MS));
            let hand = clock_ms.clone();
            let clock: Clock = Box::new(move || hand.load(Ordering::SeqCst));
            let cache = Arc::new(Cache::new(settings, renewal, clock));
            Rig { cache, clock_ms, lookups: Arc::default() }
        }

        fn at(&self, seconds: u64) {
            self.clock_ms.store(START_MS + seconds * 1000, Ordering::SeqCst);
        }

        async fn find(&self, name: &str, brings: Lookup) -> Found {
            self.find_as_wanted(name, Want::Presence, brings).await
        }

        /// The lookup brings the picture only where it is asked for.
        async fn find_as_wanted(&self, name: &str, want: Want, brings: Lookup) -> Found {
            let lookups = self.lookups.clone();
            let lookup = |want| async move {
                lookups.fetch_add(1, Ordering::SeqCst);
                brings.map(|sight| Sight { picture: sight.picture.filter(|_| want == Want::Picture), ..sight })
            };
            let found =
                self.cache.find(&jid(name), want, Instant::now() + Duration::from_secs(5), anybody, lookup).await;
            // A renewal behind the answer is done before the test goes on.
            while !self.cache.lock().lookups.is_empty() {
                tokio::task::yield_now().await;
            }
            found
        }

        fn lookups(&self) -> usize {
            self.lookups.load(Ordering::SeqCst)
        }
    }

    fn anybody(_: &Sight) -> bool {
        true
    }

    fn jid(name: &str) -> BareJid {
        BareJid::new(&format!("{name}@example.com")).expect("a bare JID")
    }

    fn is(state: State) -> Lookup {
        Ok(Sight::bare(Presence::bare(state)))
    }

    fn found(state: State, seconds: u64) -> Found {
        Found::Known { sight: Sight::bare(Presence::bare(state)), age: Duration::from_secs(seconds) }
    }

    /// Each number is another picture; 0 is none.
    fn pictured(state: State, picture: u8) -> Lookup {
        let picture = Some(picture).filter(|number| *number > 0).and_then(|number| Picture::new(&[number]));
        Ok(Sight { picture, ..Sight::bare(Presence::bare(state)) })
    }

    fn found_pictured(state: State, picture: u8, seconds: u64) -> Found {
        let Ok(sight) = pictured(state, picture) else { unreachable!() };
        Found::Known { sight, age: Duration::from_secs(seconds) }
    }

    const DOWN: Lookup = Err(Duration::from_secs(7));
    const NOTHING: Found = Found::Nothing { retry_after: Duration::from_secs(7) };

    /// What is served at each age, and how often the server was asked by then.
    async fn check(renewal: Renewal, stored: State, brings: Lookup, ages: &[(u64, Found, usize)]) {
        for (age, expected, lookups) in ages {
            let rig = Rig::new(renewal, 10);
            rig.find("bob", is(stored)).await;
            rig.at(*age);
            let served = rig.find("bob", brings.clone()).await;
            assert_eq!((&served, rig.lookups()), (expected, *lookups), "{renewal:?} {stored:?} after {age} s");
        }
    }

    #[tokio::test]
    async fn ages_are_served_as_promised() {
        use State::{Away, Dnd};
        let behind = [
            (0, found(Away, 0), 1),
            (30, found(Away, 30), 1),
            (31, found(Away, 31), 2),
            (40, found(Away, 40), 2),
            (41, found(Dnd, 0), 2),
        ];
        check(Renewal::Behind, Away, is(Dnd), &behind).await;
        let never = [(30, found(Away, 30), 1), (31, found(Dnd, 0), 2)];
        check(Renewal::Never, Away, is(Dnd), &never).await;
        let down = [(31, found(Away, 31), 2), (41, found(Away, 41), 2), (300, found(Away, 300), 2), (301, NOTHING, 2)];
        check(Renewal::Behind, Away, DOWN, &down).await;
    }

    #[tokio::test]
    async fn a_refusal_deletes_what_was_known_and_is_not_remembered() {
        let rig = Rig::new(Renewal::Behind, 10);
        rig.find("bob", is(State::Away)).await;
        rig.at(50);
        assert_eq!(rig.find("bob", is(State::Forbidden)).await, found(State::Forbidden, 0));
        assert_eq!((rig.find("bob", DOWN).await, rig.lookups()), (NOTHING, 3), "neither the presence nor the refusal");
        assert_eq!(rig.find("bob", is(State::Chat)).await, found(State::Chat, 0));
        rig.at(59);
        assert_eq!(rig.find("bob", DOWN).await, found(State::Chat, 9));
    }

    /// Somebody who may not see what is remembered is served as if nothing were.
    #[tokio::test]
    async fn nobody_is_served_what_he_may_not_see() {
        let rig = Rig::new(Renewal::Behind, 10);
        rig.find("bob", is(State::Away)).await;
        let ask = async |brings: Lookup| {
            let deadline = Instant::now() + Duration::from_secs(5);
            rig.cache.find(&jid("bob"), Want::Presence, deadline, |_| false, |_| async { brings }).await
        };
        for seconds in [0, 35, 100] {
            rig.at(seconds);
            assert_eq!(ask(DOWN).await, NOTHING, "after {seconds} s");
        }
        assert_eq!(ask(is(State::Dnd)).await, found(State::Dnd, 0), "what a lookup brings is for others to judge");
        assert!(rig.cache.remembers(&jid("bob"), anybody) && !rig.cache.remembers(&jid("bob"), |_| false));
        rig.at(10_000);
        assert!(rig.cache.remembers(&jid("bob"), anybody), "however old");
        assert!(!rig.cache.remembers(&jid("carol"), anybody));
    }

    #[tokio::test]
    async fn a_long_roster_takes_the_place_of_several_people() {
        let viewers = |number: usize| {
            let people: Vec<_> = (0..number).map(|n| jid(&format!("u{n}"))).collect();
            Some(Viewers::of(&people))
        };
        let rig = Rig::new(Renewal::Behind, 40);
        let store = async |name: String, number| {
            rig.find(&name, is(State::Away).map(|sight| Sight { viewers: viewers(number), ..sight })).await;
        };
        let left = |names: &str| (0..40).filter(|n| rig.cache.remembers(&jid(&format!("{names}{n}")), anybody)).count();
        for n in 0..30 {
            store(format!("short{n}"), 10).await;
        }
        for n in 0..6 {
            store(format!("long{n}"), 200).await;
        }
        assert_eq!((left("short"), left("long")), (22, 6), "three places each");
        store("longest0".to_owned(), 40_000).await;
        assert_eq!((left("short"), left("long"), left("longest")), (18, 6, 1), "nobody takes more than a tenth");
    }

    /// A roster is asked for again in its time, however often the presence changes.
    #[tokio::test]
    async fn what_comes_by_itself_makes_no_roster_newer() {
        let rig = Rig::new(Renewal::Behind, 10);
        let listed =
            || Sight { viewers: Some(Viewers::of(&[jid("alice")])), ..Sight::bare(Presence::bare(State::Away)) };
        rig.find("bob", Ok(listed())).await;
        rig.at(25);
        rig.cache.update(&jid("bob"), Presence::bare(State::Dnd));
        let sight = Sight { presence: Presence::bare(State::Dnd), ..listed() };
        assert_eq!(rig.find("bob", DOWN).await, Found::Known { sight, age: Duration::from_secs(25) });
        rig.at(41);
        rig.find("bob", Ok(listed())).await;
        assert_eq!(rig.lookups(), 2);
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_makes_nothing_last_for_ever() {
        let rig = Rig::new(Renewal::Behind, 10);
        rig.at(3600);
        rig.find("bob", is(State::Away)).await;
        rig.at(0);
        assert_eq!(rig.find("bob", is(State::Dnd)).await, found(State::Dnd, 0));
    }

    #[tokio::test]
    async fn many_who_ask_for_one_person_are_one_lookup() {
        let rig = Rig::new(Renewal::Behind, 10);
        let (go, gate) = watch::channel(false);
        let asked = (0..1000).map(|_| {
            let (mut gate, lookups) = (gate.clone(), rig.lookups.clone());
            let lookup = move |_| async move {
                lookups.fetch_add(1, Ordering::SeqCst);
                gate.wait_for(|open| *open).await.expect("the sender lives");
                is(State::Xa)
            };
            let cache = rig.cache.clone();
            tokio::spawn(async move {
                cache.find(&jid("bob"), Want::Presence, Instant::now() + Duration::from_secs(5), anybody, lookup).await
            })
        });
        let asked: Vec<_> = asked.collect();
        while rig.lookups() == 0 {
            tokio::task::yield_now().await;
        }
        go.send_replace(true);
        for answer in asked {
            assert_eq!(answer.await.expect("no panic"), found(State::Xa, 0));
        }
        assert_eq!(rig.lookups(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_is_answered_by_his_deadline_and_the_lookup_goes_on() {
        let rig = Rig::new(Renewal::Behind, 10);
        let (go, mut gate) = watch::channel(false);
        let lookup = |_| async move {
            gate.wait_for(|open| *open).await.expect("the sender lives");
            is(State::Xa)
        };
        let deadline = Instant::now() + Duration::from_secs(5);
        let served = rig.cache.find(&jid("bob"), Want::Presence, deadline, anybody, lookup).await;
        assert_eq!(served, Found::Nothing { retry_after: Duration::from_secs(1) });
        assert!(Instant::now() - deadline < Duration::from_millis(10));
        go.send_replace(true);
        assert_eq!(rig.find("bob", DOWN).await, found(State::Xa, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_follows_a_lookup_that_fails_has_his_own_time() {
        let rig = Rig::new(Renewal::Behind, 10);
        let begun = Instant::now();
        let ask = |after: u64, brings: Lookup| {
            let cache = rig.cache.clone();
            async move {
                tokio::time::sleep_until(begun + Duration::from_secs(after)).await;
                let deadline = begun + Duration::from_secs(after + 5);
                let slow = |_| async move {
                    tokio::time::sleep_until(deadline).await;
                    brings
                };
                let found = cache.find(&jid("bob"), Want::Presence, deadline, anybody, slow).await;
                (found, (Instant::now() - begun).as_secs())
            }
        };
        let (first, second) = tokio::join!(ask(0, DOWN), ask(3, DOWN));
        let nothing = Found::Nothing { retry_after: Duration::from_secs(1) };
        assert!([NOTHING, nothing.clone()].contains(&first.0) && first.1 == 5, "{first:?}");
        assert!(
            [NOTHING, nothing].contains(&second.0) && second.1 == 8,
            "{second:?}: not when the first one's time is over"
        );
    }

    #[tokio::test]
    async fn refusals_do_not_push_people_out() {
        let rig = Rig::new(Renewal::Behind, 20);
        rig.find("bob", is(State::Away)).await;
        for stranger in 0..100 {
            rig.find(&format!("stranger{stranger}"), is(State::Forbidden)).await;
        }
        let before = rig.lookups();
        assert_eq!((rig.find("bob", DOWN).await, rig.lookups()), (found(State::Away, 0), before));
    }

    #[tokio::test]
    async fn what_comes_by_itself_is_served_from_then_on() {
        let rig = Rig::new(Renewal::Behind, 10);
        rig.cache.update(&jid("bob"), Presence::bare(State::Chat));
        assert_eq!(rig.find("bob", is(State::Away)).await, found(State::Away, 0), "nobody had asked for him");
        rig.at(20);
        rig.cache.update(&jid("bob"), Presence::bare(State::Dnd));
        rig.at(50);
        assert_eq!(rig.find("bob", DOWN).await, found(State::Dnd, 30));
        rig.cache.update(&jid("bob"), Presence::bare(State::Forbidden));
        rig.at(81);
        assert_eq!(rig.find("bob", DOWN).await, NOTHING, "withdrawn consent leaves nothing");
        assert_eq!(rig.lookups(), 2);
    }

    #[tokio::test]
    async fn a_lookup_that_is_overtaken_is_not_kept() {
        for withdrawn in [true, false] {
            let rig = Rig::new(Renewal::Behind, 10);
            rig.find("bob", is(State::Away)).await;
            rig.at(31);
            let (go, mut gate) = watch::channel(false);
            let slow = |_| async move {
                gate.wait_for(|open| *open).await.expect("the sender lives");
                is(State::Away)
            };
            rig.cache.find(&jid("bob"), Want::Presence, Instant::now() + Duration::from_secs(5), anybody, slow).await;
            match withdrawn {
                true => rig.cache.update(&jid("bob"), Presence::bare(State::Forbidden)),
                false => rig.cache.forget(&jid("bob")),
            }
            go.send_replace(true);
            tokio::task::yield_now().await;
            assert_eq!(rig.find("bob", is(State::Xa)).await, found(State::Xa, 0));
        }
    }

    #[tokio::test]
    async fn a_picture_lives_longer_than_its_presence() {
        use State::{Away, Chat, Dnd};
        let rig = Rig::new(Renewal::Behind, 10);
        // After so many seconds, what a lookup would bring, what is served, and how often the server was asked by then.
        for (seconds, want, brings, expected, lookups) in [
            (0, Want::Presence, pictured(Away, 1), found(Away, 0), 1),
            (5, Want::Picture, pictured(Dnd, 1), found_pictured(Dnd, 1, 0), 2),
            (6, Want::Picture, DOWN, found_pictured(Dnd, 1, 1), 2),
            (7, Want::Presence, DOWN, found(Dnd, 2), 2),
            (40, Want::Picture, pictured(Chat, 2), found_pictured(Dnd, 1, 35), 3),
            (41, Want::Picture, DOWN, found_pictured(Chat, 1, 1), 3),
            (3605, Want::Picture, pictured(Away, 3), found_pictured(Away, 1, 0), 4),
            (3606, Want::Picture, DOWN, found_pictured(Away, 1, 1), 5),
            (3607, Want::Picture, pictured(Away, 3), found_pictured(Away, 3, 0), 6),
            (3608, Want::Picture, DOWN, found_pictured(Away, 3, 1), 6),
            (4000, Want::Picture, DOWN, NOTHING, 7),
        ] {
            rig.at(seconds);
            let served = rig.find_as_wanted("bob", want, brings).await;
            assert_eq!((served, rig.lookups()), (expected, lookups), "{want:?} after {seconds} s");
        }
    }

    #[tokio::test]
    async fn who_has_no_picture_is_asked_again_soon() {
        let rig = Rig::new(Renewal::Behind, 10);
        for (seconds, lookups) in [(0, 1), (20, 1), (60, 2), (61, 3)] {
            rig.at(seconds);
            rig.find_as_wanted("bob", Want::Picture, pictured(State::Away, 0)).await;
            assert_eq!(rig.lookups(), lookups, "after {seconds} s");
        }
        let served = rig.find_as_wanted("bob", Want::Picture, pictured(State::Away, 1)).await;
        assert_eq!(served, found(State::Away, 0));
    }

    #[tokio::test]
    async fn a_refusal_takes_the_picture_with_it() {
        use State::{Away, Forbidden};
        for how in ["a lookup", "a push", "forgotten"] {
            let rig = Rig::new(Renewal::Behind, 10);
            let find = async |brings| rig.find_as_wanted("bob", Want::Picture, brings).await;
            assert_eq!(find(pictured(Away, 1)).await, found_pictured(Away, 1, 0));
            rig.at(41);
            match how {
                "a lookup" => assert_eq!(find(pictured(Forbidden, 0)).await, found(Forbidden, 0)),
                "a push" => rig.cache.update(&jid("bob"), Presence::bare(Forbidden)),
                _ => rig.cache.forget(&jid("bob")),
            }
            rig.at(72);
            assert_eq!(find(pictured(Away, 0)).await, found(Away, 0), "{how}: nothing of it is left");
            rig.at(133);
            assert_eq!(find(pictured(Away, 2)).await, found_pictured(Away, 2, 0), "{how}");
        }
    }

    /// Whoever is asked for with a picture is not shown by a lookup that began before he refused.
    #[tokio::test]
    async fn a_refusal_overtakes_the_lookup_of_the_picture() {
        let rig = Rig::new(Renewal::Behind, 10);
        let (go, mut gate) = watch::channel(false);
        let slow = |_| async move {
            gate.wait_for(|open| *open).await.expect("the sender lives");
            pictured(State::Away, 1)
        };
        drop(rig.cache.lead_or_follow(&jid("bob"), Want::Picture, &mut Some(slow)));
        let deadline = Instant::now() + Duration::from_secs(5);
        let refused = |_| async { is(State::Forbidden) };
        rig.cache.find(&jid("bob"), Want::Presence, deadline, anybody, refused).await;
        go.send_replace(true);
        tokio::task::yield_now().await;
        assert_eq!(rig.find_as_wanted("bob", Want::Picture, DOWN).await, NOTHING);
    }

    #[test]
    fn pictures_have_a_limit() {
        let rig = Rig::new(Renewal::Behind, 10);
        let most = Picture::new(&vec![0; crate::presence::PICTURE_BYTES]).expect("as large as they may be");
        let mut inner = rig.cache.lock();
        for number in 0..100 {
            let portrait = Portrait { picture: Some(most.clone()), at_ms: 0 };
            inner.store_portrait(&jid(&format!("u{number}")), portrait);
        }
        let left = (0..100).filter(|number| inner.portraits.look_up(&jid(&format!("u{number}"))).is_some()).count();
        assert_eq!(left, PICTURES_BYTES / (most.bytes().len() + PICTURE_OVERHEAD));
    }
}
