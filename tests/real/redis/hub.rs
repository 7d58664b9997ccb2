//! The store by itself, as two machines see it: each call is compared with what it is to bring.

use std::path::Path;
use std::time::{Duration, Instant};

use jid::BareJid;
use log::Level;
use tempfile::TempDir;
use webpresence::cache::store::{Edition, Kept, Lead, News, Part, Store, Turn, Written};
use webpresence::config::{self, Config};
use webpresence::hub::Hub;
use webpresence::probe::choices::Choices;
use webpresence::probe::guests::Order;
use webpresence::probe::lease::Place;
use webpresence::probe::notes::Notes;

use crate::rig::redis::{Cluster, Redis};
use crate::rig::{PATIENCE, eventually};

/// Every call tells it; nothing here depends on it, but for the directory of a machine whose hub is lost.
const NOW_MS: u64 = 1_700_000_000_000;
/// A visitor is kept waiting by one call of the store so long at the most, on a busy machine.
const MOMENT: Duration = Duration::from_millis(400);
/// And so long where it is known that there is nothing to wait for.
const BLINK: Duration = Duration::from_millis(50);

struct Machine {
    store: Store,
    _directory: TempDir,
}

fn machine(url: &str) -> Machine {
    tuned(url, "")
}

fn tuned(url: &str, cache: &str) -> Machine {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let text = format!("[xmpp]\njid = p.example.com\npassword = x\n[cache]\nurl = {url}\n{cache}\n");
    let Config { identities, cache, redis, .. } = config::parse(&text, Path::new("F")).expect("a configuration");
    let hub = Hub::new(redis.expect("it is written"), Level::Warn);
    let store = Store::open(Some(directory.path()), &identities[0], &cache, Level::Warn);
    Machine { store: store.beneath(Some(hub), &identities[0], &cache), _directory: directory }
}

fn bob() -> BareJid {
    jid("bob@example.com")
}

fn jid(text: &str) -> BareJid {
    BareJid::new(text).expect("a bare JID")
}

impl Machine {
    async fn write(&self, who: &BareJid, bytes: &[u8], age_s: u64, lead: Option<&Lead>) -> Written {
        let news = News { bytes, age: Duration::from_secs(age_s), now_ms: NOW_MS };
        self.store.write(who, Part::Presence, news, lead).await
    }

    /// The bytes and their age in whole seconds; nothing where there is nothing.
    async fn read(&self, who: &BareJid) -> Option<(Vec<u8>, u64)> {
        match self.store.read(who, Part::Presence, None, NOW_MS).await {
            Kept::Other { bytes, age, .. } => Some((bytes, age.as_secs())),
            Kept::Nothing => None,
            other => panic!("{other:?}"),
        }
    }

    async fn turn(&self, who: &BareJid, ms: u64) -> Turn {
        let deadline = tokio::time::Instant::now() + Duration::from_millis(ms);
        self.store.turn(who, Part::Presence, NOW_MS, deadline).await
    }

    async fn lead(&self, who: &BareJid) -> Lead {
        match self.turn(who, 5000).await {
            Turn::Ours(lead) => lead,
            other => panic!("{other:?}"),
        }
    }
}

fn edition(written: Written) -> Edition {
    match written {
        Written::As(edition) => edition,
        other => panic!("{other:?}"),
    }
}

/// Everything that two machines do with one store.
async fn share(url: &str) {
    let (one, other) = (machine(url), machine(url));
    assert_eq!(one.read(&bob()).await, None);
    let first = edition(one.write(&bob(), b"away", 0, None).await);
    assert_eq!(other.read(&bob()).await, Some((b"away".to_vec(), 0)));
    let who = bob();
    let read = |known| other.store.read(&who, Part::Presence, known, NOW_MS);
    assert_eq!(read(Some(first)).await, Kept::Same);
    let second = edition(one.write(&bob(), b"dnd", 0, None).await);
    assert_ne!(first, second);
    assert!(
        matches!(read(Some(first)).await, Kept::Other { bytes, edition, .. } if bytes == b"dnd" && edition == second)
    );
    // What is older changes nothing.
    assert_eq!(one.write(&bob(), b"away", 20, None).await, Written::Overtaken);
    assert_eq!(other.read(&jid("carol@example.com")).await, None);
    assert_eq!(one.store.read(&bob(), Part::Picture, None, NOW_MS).await, Kept::Nothing);
    one.store.remove(&bob(), NOW_MS, None).await;
    assert_eq!(other.read(&bob()).await, None);
    // Nor does a service of the same identity have it that shows it to others.
    let public = tuned(url, "[access]\nvisibility = anyone");
    edition(public.write(&bob(), b"away", 0, None).await);
    assert_eq!(one.read(&bob()).await, None);
    let lead = public.lead(&bob()).await;
    one.store.remove(&bob(), NOW_MS, None).await;
    assert_eq!(public.read(&bob()).await, None);
    assert_eq!(public.write(&bob(), b"away", 0, Some(&lead)).await, Written::Overtaken);
    edition(one.write(&bob(), b"away", 20, None).await);
    assert_eq!(other.read(&bob()).await, Some((b"away".to_vec(), 20)), "as old as it is");
    assert_eq!(one.write(&bob(), b"away", 400, None).await, Written::Nowhere, "older than anything is told");
    take_turns(&one, &other).await;
    // Enough people for every slot's owner.
    for n in 0..50 {
        let who = jid(&format!("u{n}@example.com"));
        edition(one.write(&who, who.as_str().as_bytes(), 0, None).await);
        assert_eq!(other.read(&who).await, Some((who.as_str().as_bytes().to_vec(), 0)));
    }
}

async fn take_turns(one: &Machine, other: &Machine) {
    let lead = one.lead(&bob()).await;
    assert!(matches!(other.turn(&bob(), 50).await, Turn::Late));
    let who = bob();
    let waits = other.turn(&who, 5000);
    let tells = async {
        assert!(matches!(one.write(&bob(), b"chat", 0, Some(&lead)).await, Written::As(_)));
        one.store.hand_over(lead, b"refused").await;
    };
    let (told, ()) = tokio::join!(waits, tells);
    assert!(matches!(told, Turn::Told(outcome) if outcome == b"refused"));
    // Whoever comes later looks himself; what is overtaken is not kept.
    let lead = other.lead(&bob()).await;
    one.store.overtake(&bob()).await;
    assert_eq!(other.write(&bob(), b"xa", 0, Some(&lead)).await, Written::Overtaken);
    let next = one.lead(&bob()).await;
    other.store.remove(&bob(), NOW_MS, Some(&lead)).await;
    assert_eq!(other.read(&bob()).await.map(|(bytes, _)| bytes), Some(b"chat".to_vec()), "nor does it remove");
    drop(lead);
    assert!(matches!(one.write(&bob(), b"xa", 0, Some(&next)).await, Written::As(_)), "the next one's lead goes on");
    // Who removes with his own lead still tells those who wait.
    let waits = other.turn(&who, 5000);
    let tells = async {
        one.store.remove(&bob(), NOW_MS, Some(&next)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        one.store.hand_over(next, b"forbidden").await;
    };
    let (told, ()) = tokio::join!(waits, tells);
    assert!(matches!(told, Turn::Told(outcome) if outcome == b"forbidden"));
    assert_eq!(other.read(&bob()).await, None);
    // A lead that is dropped is free at once; one that is kept lasts longer than it does without being renewed.
    drop(one.lead(&bob()).await);
    let begun = Instant::now();
    let lead = other.lead(&bob()).await;
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    assert!(matches!(one.turn(&bob(), 1500).await, Turn::Late));
    assert!(matches!(other.write(&bob(), b"away", 0, Some(&lead)).await, Written::As(_)));
    other.store.remove(&bob(), NOW_MS, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_share_a_store() {
    let redis = Redis::start();
    share(&redis.url()).await;
    share(&format!("{}/5", redis.url())).await;
    // Nothing of it stays for ever, and no address is to be read there.
    for key in redis.ask(&["KEYS", "*"]).lines() {
        assert!(!key.contains("bob") && redis.ask(&["PTTL", key]).parse::<i64>().is_ok_and(|ms| ms > 0), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_share_a_cluster() {
    let cluster = Cluster::start();
    share(&cluster.url()).await;
    let all: Vec<String> = cluster.0.iter().map(Redis::url).collect();
    share(&all.join(",")).await;
    for node in &cluster.0 {
        assert!(node.ask(&["DBSIZE"]) != "0", "every node has its part");
    }
}

/// A slot that has moved, which nobody has told us.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_of_a_cluster_moves() {
    let cluster = Cluster::start();
    let (one, other) = (machine(&cluster.url()), machine(&cluster.url()));
    edition(one.write(&bob(), b"away", 0, None).await);
    let [a, b, c] = &cluster.0;
    let has_it = |node: &&Redis| !node.ask(&["KEYS", "*:presence"]).is_empty();
    let from = [a, b, c].into_iter().find(has_it).expect("somebody has it");
    let to = [a, b, c].into_iter().find(|node| node.port != from.port).expect("another one");
    let keys = from.ask(&["KEYS", "*:presence"]);
    let slot = from.ask(&["CLUSTER", "KEYSLOT", keys.lines().next().expect("an entry")]);
    let (from_id, to_id) = (from.ask(&["CLUSTER", "MYID"]), to.ask(&["CLUSTER", "MYID"]));
    // While it moves, it is asked for here and there (ASK), and then elsewhere (MOVED).
    to.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
    from.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
    let keys = from.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
    let place = to.port.to_string();
    let mut migrate = vec!["MIGRATE", "127.0.0.1", &place, "", "0", "1000", "KEYS"];
    migrate.extend(keys.lines());
    assert_eq!(from.ask(&migrate), "OK");
    assert_eq!(other.read(&bob()).await.map(|(bytes, _)| bytes), Some(b"away".to_vec()), "by ASK");
    for node in [to, from] {
        node.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    }
    // Finding out who has what may take longer than a visitor is kept waiting.
    let until = Instant::now() + PATIENCE;
    for machine in [&one, &other] {
        while machine.read(&bob()).await.map(|(bytes, _)| bytes) != Some(b"away".to_vec()) {
            assert!(Instant::now() < until, "by MOVED");
        }
    }
    edition(one.write(&bob(), b"dnd", 0, None).await);
    assert_eq!(other.read(&bob()).await.map(|(bytes, _)| bytes), Some(b"dnd".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_people_are_kept_than_the_configuration_says() {
    let redis = Redis::start();
    let one = tuned(&redis.url(), "entries = 256");
    for n in 0..2000 {
        one.write(&jid(&format!("u{n}@example.com")), b"away", 0, None).await;
    }
    let kept = entries(&redis);
    assert!((200..=256).contains(&kept), "{kept}");
    assert!(one.read(&jid("u1999@example.com")).await.is_some(), "the newest is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_are_weighed() {
    let redis = Redis::start();
    let one = tuned(&redis.url(), "entries = 100");
    let news = News { bytes: &[b'x'; 400_000], age: Duration::ZERO, now_ms: NOW_MS };
    for number in 0..120 {
        edition(one.store.write(&jid(&format!("u{number}@example.com")), Part::Picture, news, None).await);
    }
    let left = redis.ask(&["KEYS", "*:picture"]).lines().filter(|key| !key.ends_with("}:picture")).count();
    assert!((60..=83).contains(&left), "{left} of 400 kB each");
}

/// Presences live for seconds here, pictures for an hour: those are not forgotten for these, nor newer ones for older.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_outlast_presences() {
    let redis = Redis::start();
    let one = tuned(&redis.url(), "entries = 128\nttl = 1\nrefresh = 0\nstale = 1");
    let who = |n: usize| jid(&format!("u{n}@example.com"));
    let picture = async |n: usize| {
        let news = News { bytes: b"picture", age: Duration::ZERO, now_ms: NOW_MS };
        edition(one.store.write(&who(n), Part::Picture, news, None).await);
    };
    for n in (0..128).chain(0..128) {
        picture(n).await;
    }
    edition(one.write(&who(0), b"away", 0, None).await);
    eventually("nobody's presence is known", || redis.ask(&["KEYS", "*}:presence"]).is_empty().then_some(()));
    for n in 128..138 {
        picture(n).await;
        let kept = one.store.read(&who(n), Part::Picture, None, NOW_MS).await;
        assert!(matches!(kept, Kept::Other { .. }), "{n}: {kept:?}");
    }
    // The list of those who are kept lasts as long as the youngest of them.
    let one = tuned(&redis.url(), "entries = 128\nstale = 300");
    edition(one.write(&who(0), b"away", 0, None).await);
    edition(one.write(&who(1), b"away", 290, None).await);
    for key in redis.ask(&["KEYS", "*}:presence*"]).lines() {
        assert!(redis.ask(&["PTTL", key]).parse::<i64>().is_ok_and(|ms| ms > 200_000), "{key}");
    }
}

/// A machine, and people that it has written to a cluster that serves what it has.
async fn known_to_a_part(cluster: &Cluster) -> (Machine, Vec<BareJid>) {
    for node in &cluster.0 {
        node.ask(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let one = machine(&cluster.url());
    let people: Vec<_> = (0..60).map(|n| jid(&format!("u{n}@example.com"))).collect();
    for who in &people {
        edition(one.write(who, b"away", 0, None).await);
    }
    (one, people)
}

/// How many people a server knows.
fn entries(node: &Redis) -> usize {
    let count = "return #redis.call('keys', '*:presence') - #redis.call('keys', '*}:presence')";
    node.ask(&["EVAL", count, "0"]).parse().expect("a number")
}

/// One node of a cluster is killed, and nobody takes its place: what the others have is told as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_loses_a_node() {
    let mut cluster = Cluster::start();
    let (one, people) = known_to_a_part(&cluster).await;
    // Not any node: the slots that show whether a server serves are nothing special.
    let is_first = |node: &Redis| !node.ask(&["GET", "webpresence:proof"]).contains("MOVED");
    let place = cluster.0.iter().position(is_first).expect("somebody has it");
    let lost = entries(&cluster.0[place]);
    assert!((1..60).contains(&lost), "{lost}");
    cluster.0[place].kill();
    let mut told = 0;
    let until = Instant::now() + PATIENCE;
    for round in 0..5 {
        told = 0;
        for who in &people {
            let begun = Instant::now();
            told += usize::from(one.read(who).await.is_some());
            assert!(begun.elapsed() < MOMENT, "{:?}", begun.elapsed());
        }
        assert!(round == 0 || told == people.len() - lost, "{told} of {} in round {round}", people.len() - lost);
        assert!(Instant::now() < until);
    }
    assert!(told > 0);
}

/// Everybody withdraws while all of a cluster is lost, and one node does not come back: those of the others do not wait for
/// it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_withdrawn_is_removed_though_a_node_stays_lost() {
    let mut cluster = Cluster::start();
    let (one, people) = known_to_a_part(&cluster).await;
    cluster.0.iter().for_each(Redis::stop);
    eventually_lost(&one).await;
    for who in &people {
        one.store.remove(who, NOW_MS, None).await;
    }
    let [first, second, third] = &mut cluster.0;
    third.kill();
    for node in [&*first, &*second] {
        node.go_on();
        eventually("it answers", || (node.ask(&["PING"]) == "PONG").then_some(()));
        assert!(entries(node) > 5, "it still has its part");
    }
    let until = Instant::now() + PATIENCE;
    while entries(first) + entries(second) > 0 {
        assert!(Instant::now() < until, "what was to be removed is removed");
        let _ = one.store.read(&people[0], Part::Presence, None, NOW_MS).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Both have heard something at the same moment, and each learns what the other has heard.
#[tokio::test]
async fn machines_that_agree_at_once_miss_nothing() {
    let redis = Redis::start();
    let config = config::parse(
        &format!("[xmpp]\njid = p.example.com\npassword = x\n[cache]\nurl = {}\n", redis.url()),
        Path::new("F"),
    );
    let Config { identities, redis: address, .. } = config.expect("a configuration");
    let us = &identities[0].jid;
    let hubs = [(); 2].map(|()| Hub::new(address.clone().expect("it is written"), Level::Warn));
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a temporary directory"));
    let [mut one, mut other] = folders.each_ref().map(|folder| Notes::new(Place::new(folder.path(), us), "n".into()));
    for round in 0..20 {
        let people = [jid(&format!("a{round}@example.com")), jid(&format!("b{round}@example.com"))];
        for (folder, who) in folders.iter().zip(&people) {
            Choices::new(Some(folder.path())).take(us, who, Order::Off).expect("it is ours");
        }
        let (first, second) = tokio::join!(one.agree(&hubs[0]), other.agree(&hubs[1]));
        assert_eq!((first, second), (Ok(()), Ok(())));
        one.agree(&hubs[0]).await.expect("it is there");
        other.agree(&hubs[1]).await.expect("it is there");
        for folder in &folders {
            let choices = Choices::new(Some(folder.path()));
            assert!(people.iter().all(|who| choices.of(us, who).hides()), "round {round}");
        }
    }
    assert!(redis.ask(&["TTL", "n"]).parse::<u32>().is_ok_and(|s| s > 300 * 24 * 3600), "not for ever, but for long");
}

/// Others use the same Redis, or somebody wants to see what we do with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_ours_is_nothing() {
    let redis = Redis::start();
    let (one, other) = (machine(&redis.url()), machine(&redis.url()));
    edition(one.write(&bob(), b"away", 0, None).await);
    let all = redis.ask(&["KEYS", "*:presence"]);
    let key = all.lines().find(|key| !key.ends_with("}:presence")).expect("an entry").to_owned();
    let ours = redis.ask(&["GETRANGE", &key, "0", "43"]);
    let jid_line = |rest: &str| format!("{ours}bob@example.com\n{rest}");
    let long = "x".repeat(100);
    let foreign: [&[&str]; 8] = [
        &["LPUSH", &key, "x"],
        &["SET", &key, "x", "PX", "100000"],
        &["SET", &key, &long, "PX", "100000"],
        &["SET", &key, &format!("{ours}carol@example.com\naway"), "PX", "100000"],
        &["SET", &key, &jid_line("away")],
        &["SET", &key, &jid_line("away"), "PX", "100000000"],
        &["SET", &key, &format!("{}bob@example.com\naway", "z".repeat(44)), "PX", "100000"],
        &[
            "EVAL",
            "return redis.call('set', KEYS[1], redis.call('getrange', KEYS[1], 0, 59) .. string.rep('x', 3000000), 'px', 100000)",
            "1",
            &key,
        ],
    ];
    for command in foreign {
        redis.ask(&["DEL", &key]);
        edition(one.write(&bob(), b"away", 0, None).await);
        if command[0] == "LPUSH" {
            redis.ask(&["DEL", &key]);
        }
        redis.ask(command);
        assert_eq!(other.read(&bob()).await, None, "{command:?}");
        if command[0] != "EVAL" {
            // Where it says that it is newer than ours, it goes by its own end.
            redis.ask(&["DEL", &key]);
        }
        one.store.remove(&bob(), NOW_MS, None).await;
    }
    // A value of another type is replaced, and a lead of another type is nobody's.
    redis.ask(&["LPUSH", &key, "x"]);
    edition(one.write(&bob(), b"away", 0, None).await);
    assert!(other.read(&bob()).await.is_some());
    redis.ask(&["LPUSH", &format!("{key}:lead"), "x"]);
    assert!(matches!(one.turn(&bob(), 1000).await, Turn::Ours(Lead::File(..))), "the directory's turns");
    let huge = vec![b'x'; 2 * 1024 * 1024];
    assert_eq!(one.write(&jid("huge@example.com"), &huge, 0, None).await, Written::Nowhere);
}

/// The calls of one lookup, none of which waits for a Redis that is not there, however it is not.
async fn goes_on_by_itself(one: &Machine, who: &BareJid, is_known_lost: bool) {
    let mut took = Vec::new();
    let mut begun = Instant::now();
    let mut lap = |took: &mut Vec<Duration>| {
        took.push(begun.elapsed());
        begun = Instant::now();
    };
    assert_eq!(one.read(who).await, None);
    lap(&mut took);
    let lead = one.lead(who).await;
    lap(&mut took);
    assert!(matches!(lead, Lead::File(..)), "{lead:?}");
    edition(one.write(who, b"away", 0, Some(&lead)).await);
    lap(&mut took);
    one.store.hand_over(lead, b"away").await;
    assert_eq!(one.read(who).await.map(|(bytes, _)| bytes), Some(b"away".to_vec()));
    one.store.overtake(who).await;
    one.store.remove(who, NOW_MS, None).await;
    assert_eq!(one.read(who).await, None);
    lap(&mut took);
    assert!(took.iter().all(|took| *took < MOMENT), "{took:?}");
    // The machine may be busy once.
    let blinks = took.iter().filter(|took| **took < BLINK).count();
    assert!(!is_known_lost || blinks + 1 >= took.len(), "{took:?}");
}

async fn eventually_written(one: &Machine, who: &BareJid, redis: &Redis) {
    let until = Instant::now() + PATIENCE;
    loop {
        one.write(who, b"chat", 0, None).await;
        if redis.ask(&["EVAL", "return #redis.call('keys', '*:presence')", "0"]) != "0" {
            return;
        }
        assert!(Instant::now() < until, "it does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_redis_is_done_without_and_comes_back() {
    let mut redis = Redis::start();
    let one = machine(&redis.url());
    let known = edition(one.write(&bob(), b"away", 0, None).await);
    redis.kill();
    let kept = one.store.read(&bob(), Part::Presence, Some(known), NOW_MS).await;
    assert_eq!(kept, Kept::Unreachable, "memory goes on telling what it knows");
    for n in 0..3 {
        goes_on_by_itself(&one, &jid(&format!("u{n}@example.com")), true).await;
    }
    let redis = redis.start_again();
    eventually_written(&one, &bob(), &redis).await;
    assert_eq!(machine(&redis.url()).read(&bob()).await, Some((b"chat".to_vec(), 0)));
}

/// It was stopped, and has everything still: also what was withdrawn meanwhile, and what has changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_redis_had_before_it_was_lost_is_not_believed() {
    let redis = Redis::start();
    let (one, two) = (machine(&redis.url()), machine(&redis.url()));
    for who in ["bob@example.com", "carol@example.com"] {
        edition(one.write(&jid(who), b"away", 0, None).await);
    }
    redis.stop();
    goes_on_by_itself(&one, &jid("u@example.com"), false).await;
    eventually_lost(&one).await;
    goes_on_by_itself(&one, &jid("v@example.com"), true).await;
    one.store.remove(&bob(), NOW_MS, None).await;
    redis.go_on();
    eventually("it answers", || (redis.ask(&["PING"]) == "PONG").then_some(()));
    assert!(two.read(&jid("carol@example.com")).await.is_some(), "who noticed nothing believes it");
    let until = Instant::now() + PATIENCE;
    while two.read(&bob()).await.is_some() {
        assert!(Instant::now() < until, "what was to be removed is removed");
        let _ = one.store.read(&bob(), Part::Presence, None, NOW_MS).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(one.read(&jid("carol@example.com")).await, None, "it may have changed");
    edition(one.write(&jid("dave@example.com"), b"away", 0, None).await);
    assert!(one.read(&jid("dave@example.com")).await.is_some());
}

/// Until no call waits any more.
async fn eventually_lost(one: &Machine) {
    let until = Instant::now() + PATIENCE;
    loop {
        let begun = Instant::now();
        one.store.overtake(&bob()).await;
        if begun.elapsed() < Duration::from_millis(20) {
            return;
        }
        assert!(Instant::now() < until);
    }
}

/// It answers, and does nothing for us.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_refuses_is_done_without() {
    let (master, full, locked, user) =
        (Redis::start(), Redis::start(), Redis::with(&["--requirepass", "right"]), Redis::start());
    let replica = Redis::with(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
    eventually("the replica follows", || {
        replica.ask(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
    });
    full.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    user.ask(&["ACL", "SETUSER", "web", "on", ">pw", "~*", "+@read"]);
    let port = |redis: &Redis| redis.port;
    let urls = [
        replica.url(),
        full.url(),
        locked.url(),
        format!("redis://:hunter2@127.0.0.1:{}", port(&locked)),
        format!("redis://web:pw@127.0.0.1:{}", port(&user)),
        format!("{}/99", user.url()),
        "redis://127.0.0.1:1".to_owned(),
        "unix:/no/such/socket".to_owned(),
        format!("redis+cluster://127.0.0.1:{}", port(&user)),
    ];
    for url in urls {
        let one = machine(&url);
        for n in 0..2 {
            goes_on_by_itself(&one, &jid(&format!("u{n}@example.com")), n > 0).await;
        }
    }
    let one = machine(&format!("redis://:right@127.0.0.1:{}", port(&locked)));
    edition(one.write(&bob(), b"away", 0, None).await);
    assert!(locked.tells_with_password("right", &["DBSIZE"]) != "0", "with the right password it is used");
    full.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    let one = machine(&full.url());
    eventually_written(&one, &bob(), &full).await;
}

/// It becomes full while it is used, and has room again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_becomes_full_is_done_without_for_a_while() {
    let redis = Redis::start();
    let one = machine(&redis.url());
    edition(one.write(&bob(), b"away", 0, None).await);
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    edition(one.write(&bob(), b"dnd", 0, None).await);
    assert_eq!(one.read(&bob()).await.map(|(bytes, _)| bytes), Some(b"dnd".to_vec()), "by the directory");
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    redis.ask(&["FLUSHALL"]);
    eventually_written(&one, &bob(), &redis).await;
}
