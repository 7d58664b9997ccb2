//! The store in a directory: what is kept, what stays out, and what others leave behind.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use tempfile::TempDir;

use super::entry::LIMIT;
use super::spot::DRAFT;
use super::*;
use crate::config;

const NOW: u64 = 1_800_000_000_000;

fn identity(more: &str) -> Identity {
    let text = format!("[xmpp]\njid = p.example.com\npassword = x\n{more}");
    config::parse(&text, Path::new("test.ini")).expect("a configuration").identities.remove(0)
}

fn jid(name: &str) -> BareJid {
    BareJid::new(&format!("{name}@example.com")).expect("a bare JID")
}

fn settings(entries: usize) -> CacheSettings {
    let [ttl, refresh, stale] = [30, 10, 300].map(Duration::from_secs);
    CacheSettings { ttl, refresh, stale, entries, directory: None }
}

/// A place for processes, and one of them.
fn place(entries: usize) -> (TempDir, Directory) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Directory::new(directory.path(), &identity(""), &settings(entries), Level::Debug);
    (directory, store)
}

async fn put(store: &Directory, name: &str, text: &str, at_ms: u64, lead: Option<&Lead>) -> Written {
    let age = Duration::from_millis(NOW - at_ms);
    store.write(&jid(name), Part::Presence, News { bytes: text.as_bytes(), age, now_ms: NOW }, lead).await
}

/// The text that is kept of somebody, and its age.
fn kept(store: &Directory, name: &str) -> Option<(String, u64)> {
    match store.read(&jid(name), Part::Presence, None, NOW) {
        Kept::Other { bytes, age, .. } => Some((String::from_utf8(bytes).expect("text"), age.as_millis() as u64)),
        Kept::Nothing => None,
        other => panic!("{other:?}"),
    }
}

fn said(text: &str, age_ms: u64) -> Option<(String, u64)> {
    Some((text.to_owned(), age_ms))
}

async fn lead(store: &Directory, name: &str, part: Part) -> Lead {
    match store.turn(&jid(name), part, NOW, Instant::now() + Duration::from_secs(5)).await {
        Turn::Ours(lead @ Lead::File(..)) => lead,
        other => panic!("{other:?}"),
    }
}

/// The files below a folder, by the ends of their names.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("ours").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path.extension().map_or(String::new(), |end| end.to_string_lossy().into_owned())),
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_one_writes_all_of_the_same_configuration_read() {
    let (directory, store) = place(10);
    assert_eq!(kept(&store, "bob"), None);
    let Written::As(first) = put(&store, "bob", "away", NOW - 7, None).await else { panic!("it is kept") };
    let of = |more: &str| Directory::new(directory.path(), &identity(more), &settings(10), Level::Debug);
    assert_eq!(kept(&of("timeout = 9\n"), "bob"), said("away", 7));
    assert_eq!(kept(&store, "carol"), None);
    for other in ["port = 99\n", "[access]\nvisibility = anyone\n"] {
        assert_eq!(kept(&of(other), "bob"), None, "{other}");
    }
    let read = |known| store.read(&jid("bob"), Part::Presence, Some(known), NOW);
    assert_eq!(read(first), Kept::Same);
    let Written::As(second) = put(&store, "bob", "chat", NOW, None).await else { panic!("it is kept") };
    assert_eq!(read(second), Kept::Same);
    let bytes = b"chat".to_vec();
    assert_eq!(read(first), Kept::Other { bytes, age: Duration::ZERO, edition: second });
    let mode = fs::metadata(store.spot(&jid("bob"), Part::Presence).path()).expect("it is there").mode();
    assert_eq!(mode & 0o777, 0o600);
    store.remove(&jid("bob"), NOW, None).await;
    assert_eq!(read(second), Kept::Nothing);
    assert_eq!(files(directory.path()), [""; 0]);
}

#[tokio::test]
async fn what_is_no_entry_means_nothing() {
    let (directory, store) = place(10);
    put(&store, "bob", "{}", NOW, None).await;
    let path = store.spot(&jid("bob"), Part::Presence).path();
    let whole = fs::read(&path).expect("it is there");
    let header = whole.len() - 3;
    for end in 0..whole.len() {
        fs::write(&path, &whole[..end]).expect("ours");
        assert_eq!(kept(&store, "bob"), None, "cut at {end}");
    }
    for (text, known) in [
        (format!("{NOW} bob@example.com\nx\n"), true),
        (format!("{} bob@example.com\nx\n", NOW + 1), false),
        (format!("{NOW} eve@example.com\nx\n"), false),
        ("now bob@example.com\nx\n".to_owned(), false),
        ("\u{0}\nx\n".to_owned(), false),
    ] {
        fs::write(&path, &text).expect("ours");
        assert_eq!(kept(&store, "bob").is_some(), known, "{text:?}");
    }
    for (bytes, known) in [(LIMIT, true), (LIMIT + 1, false)] {
        fs::write(&path, [&whole[..header], &vec![b'\n'; bytes as usize - header]].concat()).expect("ours");
        assert_eq!(kept(&store, "bob").is_some(), known, "{bytes} bytes");
    }
    let elsewhere = directory.path().join("elsewhere");
    fs::rename(&path, &elsewhere).expect("ours");
    fs::write(&elsewhere, &whole).expect("ours");
    std::os::unix::fs::symlink(&elsewhere, &path).expect("a link");
    assert_eq!(kept(&store, "bob"), None, "a link");
    assert!(matches!(put(&store, "bob", "new", NOW, None).await, Written::As(_)));
    assert_eq!((kept(&store, "bob"), fs::read(&elsewhere).expect("there")), (said("new", 0), whole));
}

#[tokio::test]
async fn what_is_newer_stays() {
    let (_directory, store) = place(10);
    for (text, at_ms, left) in [
        ("noon", NOW - 50, said("noon", 50)),
        ("morning", NOW - 60, said("noon", 50)),
        ("also noon", NOW - 50, said("also noon", 50)),
        ("evening", NOW - 40, said("evening", 40)),
    ] {
        put(&store, "bob", text, at_ms, None).await;
        assert_eq!(kept(&store, "bob"), left, "{text}");
    }
    let path = store.spot(&jid("bob"), Part::Presence).path();
    fs::write(&path, format!("{} bob@example.com\nfuture\n", NOW + 3_600_000)).expect("ours");
    put(&store, "bob", "now", NOW - 90, None).await;
    assert_eq!(kept(&store, "bob"), said("now", 90), "an entry from the future is in nobody's way");
}

#[tokio::test]
async fn who_was_overtaken_changes_nothing() {
    for part in Part::ALL {
        let (directory, store) = place(10);
        let early = lead(&store, "bob", part).await;
        store.overtake(&jid("bob")).await;
        assert!(matches!(put(&store, "bob", "push", NOW - 9, None).await, Written::As(_)));
        assert_eq!(put(&store, "bob", "early", NOW, Some(&early)).await, Written::Overtaken);
        store.remove(&jid("bob"), NOW, Some(&early)).await;
        assert_eq!(kept(&store, "bob"), said("push", 9));
        let late = lead(&store, "bob", part).await;
        assert!(matches!(put(&store, "bob", "late", NOW, Some(&late)).await, Written::As(_)));
        drop(late);
        let late = lead(&store, "bob", part).await;
        store.remove(&jid("bob"), NOW, Some(&late)).await;
        assert_eq!((kept(&store, "bob"), files(directory.path())), (None, vec![]), "a refusal leaves nothing");
        assert_eq!(put(&store, "bob", "late", NOW, Some(&late)).await, Written::Overtaken);
        assert_eq!(put(&store, "bob", "alone", NOW, Some(&Lead::Alone)).await, Written::Nowhere);
    }
}

/// A new person costs one file, and the next lookup one more, which takes the place of the first.
#[tokio::test]
async fn the_file_of_a_lead_becomes_the_entry() {
    let (directory, store) = place(10);
    let path = store.spot(&jid("bob"), Part::Presence).path();
    for text in ["away", "chat"] {
        let lead = lead(&store, "bob", Part::Presence).await;
        let led = fs::metadata(store.spot(&jid("bob"), Part::Presence).lead()).expect("it is there").ino();
        assert!(matches!(put(&store, "bob", text, NOW, Some(&lead)).await, Written::As(_)));
        assert_eq!(fs::metadata(&path).expect("it is there").ino(), led);
        let Lead::File(lead, _) = lead else { panic!("{lead:?}") };
        lead.hand_over(text.as_bytes());
        assert_eq!((kept(&store, "bob"), files(directory.path())), (said(text, 0), vec![String::new()]));
    }
}

/// Who comes when there are too many waits until one of them is done, as long as he can.
#[tokio::test(start_paused = true)]
async fn only_so_many_are_looked_up_and_written_at_a_time() {
    let (_directory, store) = place(10);
    let carol = jid("carol");
    let turn = || store.turn(&carol, Part::Presence, NOW, Instant::now() + Duration::from_secs(5));
    let is_late = async || {
        let begun = Instant::now();
        matches!(turn().await, Turn::Late) && begun.elapsed() >= Duration::from_secs(5)
    };
    let others = store.places.acquire_many(PLACES as u32 - 1).await.expect("it is open");
    let last = lead(&store, "bob", Part::Presence).await;
    assert!(is_late().await);
    drop(last);
    assert!(matches!(turn().await, Turn::Ours(_)));
    drop(others);
    let mut row: Vec<_> = (0..ROW).map(|_| Waiting::among(&store.waiting)).collect();
    assert!(is_late().await);
    row.pop();
    assert!(matches!(turn().await, Turn::Ours(_)));
}

/// Both sorts of lookup end with what is forgotten, and both sorts of entries.
#[tokio::test]
async fn what_is_forgotten_is_forgotten_with_its_picture() {
    let (directory, store) = place(10);
    let leads = [lead(&store, "bob", Part::Presence).await, lead(&store, "bob", Part::Picture).await];
    for part in Part::ALL {
        let news = News { bytes: b"x", age: Duration::ZERO, now_ms: NOW };
        assert!(matches!(store.write(&jid("bob"), part, news, Some(&leads[1])).await, Written::As(_)));
    }
    store.remove(&jid("bob"), NOW, None).await;
    assert_eq!(files(directory.path()), [""; 0]);
    for lead in &leads {
        assert_eq!(put(&store, "bob", "late", NOW, Some(lead)).await, Written::Overtaken);
    }
}

/// Two services of one identity have one session: what somebody says reaches the one that holds it.
#[tokio::test]
async fn what_is_forgotten_is_forgotten_by_those_who_show_it_to_others() {
    let (directory, store) = place(10);
    let of = |more: &str| Directory::new(directory.path(), &identity(more), &settings(10), Level::Debug);
    let (public, elsewhere) = (of("[access]\nvisibility = anyone\n"), of("port = 99\n"));
    for store in [&public, &elsewhere, &store] {
        put(store, "bob", "away", NOW - 7, None).await;
    }
    let leads = [lead(&public, "bob", Part::Presence).await, lead(&elsewhere, "bob", Part::Presence).await];
    store.remove(&jid("bob"), NOW, None).await;
    assert_eq!([&store, &public, &elsewhere].map(|store| kept(store, "bob")), [None, None, said("away", 7)]);
    assert_eq!(put(&public, "bob", "late", NOW, Some(&leads[0])).await, Written::Overtaken);
    assert!(matches!(put(&elsewhere, "bob", "late", NOW, Some(&leads[1])).await, Written::As(_)));
}

/// Also in buckets that nobody writes to any more.
#[tokio::test]
async fn what_is_old_goes_where_there_were_more_entries_once() {
    let (directory, many) = place(10_000);
    for number in 0..200 {
        put(&many, &format!("u{number}"), "away", NOW, None).await;
    }
    let buckets: Vec<_> =
        fs::read_dir(&many.folder).expect("ours").map(|bucket| bucket.expect("ours").path()).collect();
    for entry in buckets.iter().flat_map(|bucket| fs::read_dir(bucket).expect("ours")) {
        let file = File::options().write(true).open(entry.expect("ours").path()).expect("ours");
        file.set_modified(SystemTime::now() - PICTURE_LIFE - Duration::from_secs(1)).expect("ours");
    }
    let few = Directory::new(directory.path(), &identity(""), &settings(10), Level::Debug);
    for _ in 0..SELDOM * buckets.len() as u64 {
        put(&few, "bob", "away", NOW, None).await;
    }
    assert_eq!(files(directory.path()), [""], "of {} buckets", buckets.len());
}

#[tokio::test]
async fn files_are_never_more_than_entries() {
    for entries in [10, 300] {
        let (directory, store) = place(entries);
        for number in 0..entries * 3 {
            let name = format!("u{number}");
            put(&store, &name, "away", NOW, None).await;
            assert!(kept(&store, &name).is_some(), "who came last is known");
        }
        let left = files(directory.path()).len();
        assert!(left <= entries && left * 10 >= entries * 9, "{left} of {entries}");
    }
}

#[tokio::test]
async fn what_is_long_takes_the_place_of_several() {
    let (directory, store) = place(10);
    for number in 0..8 {
        put(&store, &format!("u{number}"), &"x".repeat(3000), NOW, None).await;
    }
    put(&store, "long", &"x".repeat(6 * PERSON_BYTES as usize), NOW, None).await;
    assert_eq!(files(directory.path()).len(), 1 + 5);
    put(&store, "longest", &"x".repeat(20 * PERSON_BYTES as usize), NOW, None).await;
    assert_eq!((files(directory.path()).len(), kept(&store, "longest").is_some()), (1, true));
}

#[tokio::test]
async fn pictures_have_a_limit() {
    let (directory, store) = place(1000);
    for number in 0..200 {
        let news = News { bytes: &[b'x'; 300_000], age: Duration::ZERO, now_ms: NOW };
        store.write(&jid(&format!("u{number}")), Part::Picture, news, None).await;
    }
    let pictures = files(directory.path()).len() as u64;
    assert!((32..=PICTURES_BYTES / 300_000).contains(&pictures), "{pictures}");
}

#[tokio::test]
async fn what_killed_processes_left_goes_after_a_minute() {
    for (age_s, left) in [(59, vec!["", "lead", "new"]), (61, vec![""])] {
        let (directory, store) = place(10);
        let spot = store.spot(&jid("bob"), Part::Presence);
        spot.make_bucket().expect("ours");
        for name in ["aa.lead", "bb.1.1.new"] {
            let file = File::create(spot.bucket.join(name)).expect("ours");
            file.set_modified(SystemTime::now() - Duration::from_secs(age_s)).expect("ours");
        }
        put(&store, "bob", "away", NOW, None).await;
        assert_eq!(files(directory.path()), left, "after {age_s} s");
    }
}

/// Nobody is told what is so old; it does not lie about either.
#[tokio::test]
async fn what_is_of_no_use_any_more_goes() {
    for (part, age_s, left) in
        [(Part::Presence, 299, 10), (Part::Presence, 301, 0), (Part::Picture, 3599, 10), (Part::Picture, 3601, 0)]
    {
        let (directory, store) = place(1000);
        let old: Vec<_> =
            (0..10).map(|number| store.spot(&jid("bob"), part).bucket.join(format!("{number}"))).collect();
        store.spot(&jid("bob"), part).make_bucket().expect("ours");
        for path in &old {
            let file = File::create(path).expect("ours");
            file.set_modified(SystemTime::now() - Duration::from_secs(age_s)).expect("ours");
        }
        for _ in 0..SELDOM {
            let news = News { bytes: b"x", age: Duration::ZERO, now_ms: NOW };
            assert!(matches!(store.write(&jid("bob"), part, news, None).await, Written::As(_)));
        }
        assert_eq!(files(directory.path()).len(), left + 1, "{part:?} after {age_s} s");
    }
}

/// Whoever was stopped while he wrote holds nobody up, and what he had in his hands is never seen.
#[tokio::test]
async fn a_process_that_was_stopped_while_it_wrote_is_not_waited_for() {
    let (directory, store) = place(10);
    put(&store, "bob", "away", NOW - 5, None).await;
    let spot = store.spot(&jid("bob"), Part::Presence);
    let stopped = spot.lock().expect("files").expect("nobody writes");
    fs::write(spot.bucket.join(format!("{}.1.1.{DRAFT}", spot.name)), "").expect("ours");
    assert_eq!(put(&store, "bob", "chat", NOW, None).await, Written::Nowhere);
    store.remove(&jid("bob"), NOW, None).await;
    assert_eq!(files(directory.path()), [""; 0]);
    drop(stopped);
    assert!(matches!(put(&store, "bob", "chat", NOW, None).await, Written::As(_)), "it was no failure");
}

/// A store that fails is left alone for a while, and forgets what it knew before.
#[tokio::test]
async fn after_a_failure_only_what_is_new_is_believed() {
    let (directory, store) = place(10);
    put(&store, "bob", "away", NOW - 5, None).await;
    let (folder, aside) = (store.folder.clone(), directory.path().join("aside"));
    fs::rename(&folder, &aside).expect("ours");
    fs::write(&folder, "in the way").expect("ours");
    let deadline = Instant::now() + Duration::from_secs(5);
    let turn = store.turn(&jid("bob"), Part::Presence, NOW, deadline).await;
    assert!(matches!(turn, Turn::Ours(Lead::Alone)), "{turn:?}");
    assert_eq!(put(&store, "bob", "away", NOW, None).await, Written::Nowhere);
    fs::remove_file(&folder).expect("ours");
    fs::rename(&aside, &folder).expect("ours");
    let read = |now_ms| store.read(&jid("bob"), Part::Presence, None, now_ms);
    assert_eq!((read(NOW), read(NOW + 9_999)), (Kept::Unreachable, Kept::Unreachable));
    assert_eq!(read(NOW + 10_000), Kept::Nothing, "he may have refused meanwhile");
    let news = News { bytes: b"back", age: Duration::ZERO, now_ms: NOW + 10_000 };
    assert!(matches!(store.write(&jid("bob"), Part::Presence, news, None).await, Written::As(_)));
    assert!(matches!(read(NOW + 10_000), Kept::Other { .. }));
}
