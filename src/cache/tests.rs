//! The cache with a clock and lookups that the test holds in its hands, in one process and in several.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::watch;

use super::memory::{BELIEVED_MS, PICTURE_OVERHEAD, PICTURES_BYTES};
use super::store::Kept;
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
        let cache = Arc::new(Cache::new(settings, renewal, clock, Store::Nowhere));
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
        let lookup = |want| {
            let (lookups, brings) = (self.lookups.clone(), brings.clone());
            async move {
                lookups.fetch_add(1, Ordering::SeqCst);
                brings.map(|sight| Sight { picture: sight.picture.filter(|_| want == Want::Picture), ..sight })
            }
        };
        let found = self.cache.find(&jid(name), want, Instant::now() + Duration::from_secs(5), anybody, lookup).await;
        // A renewal behind the answer is done before the test goes on.
        while !self.cache.lock().lookups.under_way.is_empty() {
            tokio::task::yield_now().await;
        }
        found
    }

    fn lookups(&self) -> usize {
        self.lookups.load(Ordering::SeqCst)
    }
}

/// A lookup that brings this once the gate is open.
fn gated(gate: &watch::Receiver<bool>, brings: Lookup) -> impl Fn(Want) -> BoxedLookup + use<> {
    let gate = gate.clone();
    move |_| {
        let (mut gate, brings) = (gate.clone(), brings.clone());
        Box::pin(async move {
            gate.wait_for(|open| *open).await.expect("the sender lives");
            brings
        })
    }
}

type BoxedLookup = std::pin::Pin<Box<dyn Future<Output = Lookup> + Send>>;

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
        rig.cache.find(&jid("bob"), Want::Presence, deadline, |_| false, |_| std::future::ready(brings.clone())).await
    };
    for seconds in [0, 35, 100] {
        rig.at(seconds);
        assert_eq!(ask(DOWN).await, NOTHING, "after {seconds} s");
    }
    assert_eq!(ask(is(State::Dnd)).await, found(State::Dnd, 0), "what a lookup brings is for others to judge");
    let remembers = async |name| rig.cache.remembers(&jid(name), anybody).await;
    assert!(remembers("bob").await && !rig.cache.remembers(&jid("bob"), |_| false).await);
    rig.at(10_000);
    assert!(remembers("bob").await, "however old");
    assert!(!remembers("carol").await);
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
    let left = |names: &str| {
        let inner = rig.cache.lock();
        (0..40).filter(|n| inner.memory.person(&jid(&format!("{names}{n}"))).is_some()).count()
    };
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
    let listed = || Sight { viewers: Some(Viewers::of(&[jid("alice")])), ..Sight::bare(Presence::bare(State::Away)) };
    rig.find("bob", Ok(listed())).await;
    rig.at(25);
    rig.cache.update(&jid("bob"), Presence::bare(State::Dnd)).await;
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
        let (gate, lookups) = (gated(&gate, is(State::Xa)), rig.lookups.clone());
        let lookup = move |want| {
            lookups.fetch_add(1, Ordering::SeqCst);
            gate(want)
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
    let (go, gate) = watch::channel(false);
    let lookup = gated(&gate, is(State::Xa));
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
            let slow = |_| {
                let brings = brings.clone();
                async move {
                    tokio::time::sleep_until(deadline).await;
                    brings
                }
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
    rig.cache.update(&jid("bob"), Presence::bare(State::Chat)).await;
    assert_eq!(rig.find("bob", is(State::Away)).await, found(State::Away, 0), "nobody had asked for him");
    rig.at(20);
    rig.cache.update(&jid("bob"), Presence::bare(State::Dnd)).await;
    rig.at(50);
    assert_eq!(rig.find("bob", DOWN).await, found(State::Dnd, 30));
    rig.cache.update(&jid("bob"), Presence::bare(State::Forbidden)).await;
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
        let (go, gate) = watch::channel(false);
        let slow = gated(&gate, is(State::Away));
        rig.cache.find(&jid("bob"), Want::Presence, Instant::now() + Duration::from_secs(5), anybody, slow).await;
        match withdrawn {
            true => rig.cache.update(&jid("bob"), Presence::bare(State::Forbidden)).await,
            false => rig.cache.forget(&jid("bob")).await,
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
            "a push" => rig.cache.update(&jid("bob"), Presence::bare(Forbidden)).await,
            _ => rig.cache.forget(&jid("bob")).await,
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
    let (go, gate) = watch::channel(false);
    let deadline = Instant::now() + Duration::from_secs(5);
    let slow = gated(&gate, pictured(State::Away, 1));
    drop(rig.cache.lead_or_follow(&(jid("bob"), Want::Picture), deadline, Trust::Others, slow));
    let refused = |_| async { is(State::Forbidden) };
    rig.cache.find(&jid("bob"), Want::Presence, deadline, anybody, refused).await;
    go.send_replace(true);
    tokio::task::yield_now().await;
    assert_eq!(rig.find_as_wanted("bob", Want::Picture, DOWN).await, NOTHING);
}

#[test]
fn what_could_not_be_shared_ends_where_the_store_works() {
    let (bob, second) = (jid("bob"), 1000);
    for (age_ms, kept, is_left) in
        [(9 * second, Kept::Nothing, true), (10 * second, Kept::Nothing, false), (10 * second, Kept::Unreachable, true)]
    {
        let mut memory = Memory::new(10);
        let sight = Sight::bare(Presence::bare(State::Away));
        memory.put_person(&bob, Entry::new(sight, START_MS, None, START_MS));
        memory.put_picture(&bob, Entry::new(Picture::new(&[1]), START_MS, None, START_MS));
        for part in Part::ALL {
            memory.hear(&bob, part, kept.clone(), START_MS + age_ms);
        }
        let left = (memory.person(&bob).is_some(), memory.picture(&bob).is_some());
        assert_eq!(left, (is_left, is_left), "{kept:?} after {age_ms} ms");
    }
}

#[test]
fn pictures_have_a_limit() {
    let most = Picture::new(&vec![0; crate::presence::PICTURE_BYTES]).expect("as large as they may be");
    let mut memory = Memory::new(10);
    for number in 0..100 {
        memory.put_picture(&jid(&format!("u{number}")), Entry::new(Some(most.clone()), 0, None, 0));
    }
    let left = (0..100).filter(|number| memory.picture(&jid(&format!("u{number}"))).is_some()).count();
    assert_eq!(left, PICTURES_BYTES / (most.bytes().len() + PICTURE_OVERHEAD));
}

/// Several processes with one directory and one clock.
struct Machine {
    rigs: Vec<Rig>,
    directory: tempfile::TempDir,
}

impl Machine {
    fn of(processes: usize) -> Machine {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let first = Rig::new(Renewal::Behind, 10);
        let rig = |_| {
            let text = "[xmpp]\njid = p.example.com\npassword = x\n";
            let config = crate::config::parse(text, std::path::Path::new("test.ini")).expect("a configuration");
            let settings = first.cache.settings.clone();
            let store = Store::open(Some(directory.path()), &config.identities[0], &settings, log::Level::Debug);
            let (hand, lookups) = (first.clock_ms.clone(), first.lookups.clone());
            let clock: Clock = Box::new(move || hand.load(Ordering::SeqCst));
            let cache = Arc::new(Cache::new(settings, Renewal::Behind, clock, store));
            Rig { cache, clock_ms: first.clock_ms.clone(), lookups }
        };
        Machine { rigs: (0..processes).map(rig).collect(), directory }
    }

    /// Of all of them together.
    fn lookups(&self) -> usize {
        self.rigs[0].lookups()
    }

    /// Somebody asks one process for bob, and what he gets; the lookup brings this once the gate is open.
    fn ask(
        &self,
        process: usize,
        gate: &watch::Receiver<bool>,
        brings: Lookup,
        may_see: bool,
    ) -> tokio::task::JoinHandle<Found> {
        let rig = &self.rigs[process];
        let (cache, lookups, lookup) = (rig.cache.clone(), rig.lookups.clone(), gated(gate, brings));
        let lookup = move |want| {
            let (lookups, lookup) = (lookups.clone(), lookup(want));
            async move {
                lookups.fetch_add(1, Ordering::SeqCst);
                lookup.await
            }
        };
        tokio::spawn(async move {
            let deadline = Instant::now() + Duration::from_secs(5);
            cache.find(&jid("bob"), Want::Presence, deadline, |_| may_see, lookup).await
        })
    }

    /// Who comes before that is one of those who waited.
    async fn until_kept(&self, process: usize) {
        while !self.rigs[process].cache.lock().lookups.under_way.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn until_looked_up(&self, times: usize) {
        while self.lookups() < times {
            tokio::task::yield_now().await;
        }
        // Whoever waits has come to wait.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn many_processes_are_one_lookup() {
    for brings in [is(State::Xa), is(State::Forbidden)] {
        let machine = Machine::of(8);
        let (go, gate) = watch::channel(false);
        let asked: Vec<_> = (0..400).map(|n| machine.ask(n % 8, &gate, brings.clone(), true)).collect();
        machine.until_looked_up(1).await;
        go.send_replace(true);
        let state = brings.as_ref().map(|sight| sight.presence.state).expect("it is known");
        for answer in asked {
            assert_eq!(answer.await.expect("no panic"), found(state, 0));
        }
        assert_eq!(machine.lookups(), 1, "{state:?}");
        // Nobody who comes later is served a refusal.
        let later = machine.rigs[3].find("bob", DOWN).await;
        let expected = if state == State::Forbidden { (NOTHING, 2) } else { (found(state, 0), 1) };
        assert_eq!((later, machine.lookups()), expected);
    }
}

#[tokio::test]
async fn what_one_learns_all_tell_within_a_second() {
    use State::{Away, Dnd, Xa};
    for what in ["a push", "withdrawn", "forgotten", "a refusal"] {
        let machine = Machine::of(3);
        let [one, two, three] = &machine.rigs[..] else { unreachable!() };
        assert_eq!(one.find("bob", is(Away)).await, found(Away, 0));
        assert_eq!(two.find("bob", DOWN).await, found(Away, 0));
        assert_eq!(machine.lookups(), 1);
        // Long known, so that the next one is a lookup.
        one.at(41);
        match what {
            "a push" => three.cache.update(&jid("bob"), Presence::bare(Dnd)).await,
            "withdrawn" => three.cache.update(&jid("bob"), Presence::bare(State::Forbidden)).await,
            "forgotten" => three.cache.forget(&jid("bob")).await,
            _ => drop(three.find("bob", is(State::Forbidden)).await),
        }
        let before = machine.lookups();
        let expected = if what == "a push" { (found(Dnd, 0), before) } else { (found(Xa, 0), before + 1) };
        assert_eq!((two.find("bob", is(Xa)).await, machine.lookups()), expected, "{what}");
        assert_eq!((one.find("bob", DOWN).await, machine.lookups()), expected, "{what}");
    }
}

/// Without a look into the store for a second; then what was taken away there is gone here.
#[tokio::test]
async fn what_was_looked_at_just_now_is_believed() {
    let machine = Machine::of(2);
    let [one, two] = &machine.rigs[..] else { unreachable!() };
    one.find("bob", is(State::Away)).await;
    two.find("bob", DOWN).await;
    one.cache.forget(&jid("bob")).await;
    one.clock_ms.store(START_MS + BELIEVED_MS - 1, Ordering::SeqCst);
    let Found::Known { sight, .. } = two.find("bob", DOWN).await else { panic!("it is believed") };
    assert_eq!(sight.presence.state, State::Away);
    one.clock_ms.store(START_MS + BELIEVED_MS, Ordering::SeqCst);
    assert_eq!(two.find("bob", DOWN).await, NOTHING);
}

/// What comes while another process looks somebody up is newer than what it finds.
#[tokio::test]
async fn another_process_overtakes_a_lookup() {
    for what in ["a push", "withdrawn", "forgotten"] {
        let machine = Machine::of(2);
        let [one, two] = &machine.rigs[..] else { unreachable!() };
        one.find("bob", is(State::Away)).await;
        one.at(41);
        let (go, gate) = watch::channel(false);
        let early = machine.ask(0, &gate, is(State::Away), true);
        machine.until_looked_up(2).await;
        match what {
            "a push" => two.cache.update(&jid("bob"), Presence::bare(State::Dnd)).await,
            "withdrawn" => two.cache.update(&jid("bob"), Presence::bare(State::Forbidden)).await,
            _ => two.cache.forget(&jid("bob")).await,
        }
        go.send_replace(true);
        assert_eq!(early.await.expect("no panic"), found(State::Away, 0), "who waited gets what he waited for");
        machine.until_kept(0).await;
        for rig in &machine.rigs {
            rig.at(43);
            let expected = if what == "a push" { found(State::Dnd, 2) } else { NOTHING };
            assert_eq!(rig.find("bob", DOWN).await, expected, "{what}");
        }
    }
}

/// A lookup that began after the push, and ends before another one that began before it.
#[tokio::test]
async fn of_two_lookups_the_later_one_counts() {
    let machine = Machine::of(3);
    let (go, gate) = watch::channel(false);
    let early = machine.ask(0, &gate, is(State::Away), true);
    machine.until_looked_up(1).await;
    machine.rigs[2].cache.forget(&jid("bob")).await;
    assert_eq!(machine.rigs[1].find("bob", is(State::Xa)).await, found(State::Xa, 0));
    go.send_replace(true);
    early.await.expect("no panic");
    machine.until_kept(0).await;
    for rig in &machine.rigs {
        rig.at(2);
        assert_eq!(rig.find("bob", DOWN).await, found(State::Xa, 2));
    }
}

/// Whoever may not see what others know waits for a lookup as if nobody did, also where it was found a moment ago.
#[tokio::test]
async fn what_others_know_helps_nobody_who_may_not_see_it() {
    for (may_see, lookups, expected) in [(true, 0, found(State::Away, 0)), (false, 1, found(State::Xa, 0))] {
        let machine = Machine::of(2);
        let (_go, gate) = watch::channel(true);
        let other = &machine.rigs[1].cache;
        let deadline = Instant::now() + Duration::from_secs(5);
        let Turn::Ours(lead) = other.store.turn(&jid("bob"), Part::Presence, START_MS, deadline).await else {
            panic!("nobody looks")
        };
        let asked = machine.ask(0, &gate, is(State::Xa), may_see);
        tokio::time::sleep(Duration::from_millis(5)).await;
        let sight = Sight::bare(Presence::bare(State::Away));
        assert!(
            other.write(&jid("bob"), Part::Presence, &as_bytes(&Lookup::Ok(sight)), Duration::ZERO, None).await.is_ok()
        );
        // Without a word: as if he had begun to wait a moment later.
        drop(lead);
        assert_eq!((asked.await.expect("no panic"), machine.lookups()), (expected, lookups), "may see: {may_see}");
        machine.until_kept(0).await;
        // And where it was known to all before.
        let asked = machine.ask(0, &gate, is(State::Xa), may_see);
        assert_eq!(asked.await.expect("no panic"), if may_see { found(State::Away, 0) } else { found(State::Xa, 0) });
        assert_eq!(machine.lookups(), lookups * 2);
    }
}

/// As where another process was stopped while it wrote: what was found is told before it is kept.
#[tokio::test]
async fn who_asks_does_not_wait_until_it_is_kept() {
    let machine = Machine::of(1);
    let rig = &machine.rigs[0];
    rig.find("eve", is(State::Away)).await;
    let bucket = machine.directory.path().join("p.example.com.people/0");
    let _stopped = store::stopped_while_it_wrote(&bucket);
    let deadline = Instant::now() + Duration::from_millis(50);
    let ready = |_| std::future::ready(is(State::Xa));
    let served = rig.cache.find(&jid("bob"), Want::Presence, deadline, anybody, ready).await;
    assert_eq!(served, found(State::Xa, 0));
}

#[tokio::test]
async fn who_waits_for_a_process_that_fails_looks_himself() {
    let machine = Machine::of(3);
    let (go, gate) = watch::channel(false);
    let first = machine.ask(0, &gate, DOWN, true);
    machine.until_looked_up(1).await;
    let (_open, open) = watch::channel(true);
    let others = [1, 2].map(|process| machine.ask(process, &open, is(State::Away), true));
    tokio::time::sleep(Duration::from_millis(5)).await;
    go.send_replace(true);
    assert_eq!(first.await.expect("no panic"), NOTHING);
    for other in others {
        assert_eq!(other.await.expect("no panic"), found(State::Away, 0));
    }
    assert_eq!(machine.lookups(), 2);
}

#[tokio::test]
async fn processes_renew_together() {
    let machine = Machine::of(4);
    for rig in &machine.rigs {
        assert_eq!(rig.find("bob", is(State::Away)).await, found(State::Away, 0));
    }
    machine.rigs[0].at(35);
    let (go, gate) = watch::channel(false);
    for process in 0..4 {
        let served = machine.ask(process, &gate, is(State::Dnd), true).await.expect("no panic");
        assert_eq!(served, found(State::Away, 35), "nobody waits");
    }
    machine.until_looked_up(2).await;
    go.send_replace(true);
    for (process, rig) in machine.rigs.iter().enumerate() {
        machine.until_kept(process).await;
        assert_eq!(rig.find("bob", DOWN).await, found(State::Dnd, 0));
    }
    assert_eq!(machine.lookups(), 2);
}

#[tokio::test]
async fn pictures_are_shared_as_long_as_he_may_be_seen() {
    use State::{Away, Forbidden};
    let machine = Machine::of(2);
    let [one, two] = &machine.rigs[..] else { unreachable!() };
    let find = async |rig: &Rig, brings| rig.find_as_wanted("bob", Want::Picture, brings).await;
    assert_eq!(find(one, pictured(Away, 1)).await, found_pictured(Away, 1, 0));
    assert_eq!((find(two, DOWN).await, machine.lookups()), (found_pictured(Away, 1, 0), 1));
    two.cache.update(&jid("bob"), Presence::bare(Forbidden)).await;
    one.at(1);
    assert_eq!(find(one, DOWN).await, NOTHING);
    assert_eq!(find(one, pictured(Away, 0)).await, found(Away, 0), "nothing of it is left");
    assert_eq!((find(two, DOWN).await, machine.lookups()), (found(Away, 0), 3));
}

/// Where the place of the store cannot be used, each process goes by its own memory.
#[tokio::test]
async fn a_store_that_fails_is_done_without() {
    let machine = Machine::of(2);
    let [one, two] = &machine.rigs[..] else { unreachable!() };
    // A name that no folder can have, since it is a file's.
    drop(
        tempfile::Builder::new()
            .prefix("p.example.com.people")
            .suffix("")
            .rand_bytes(0)
            .tempfile_in(&machine.directory)
            .expect("ours")
            .keep()
            .expect("ours"),
    );
    for (seconds, lookups) in [(0, 2), (9, 2), (29, 2)] {
        one.at(seconds);
        assert_eq!(one.find("bob", is(State::Away)).await, found(State::Away, seconds));
        assert_eq!(two.find("bob", is(State::Away)).await, found(State::Away, seconds));
        assert_eq!(machine.lookups(), lookups, "after {seconds} s");
    }
    one.cache.update(&jid("bob"), Presence::bare(State::Forbidden)).await;
    assert_eq!(one.find("bob", DOWN).await, NOTHING);
}
