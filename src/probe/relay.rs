//! How the processes of an identity share one session: whoever holds the lease listens on a Unix socket beside it, the
//! others ask him there. A question that stays without an answer when the connection ends is asked again, of whoever
//! holds the lease then. Only processes of the same user are heard.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::Failure;
use super::errand::{Errand, Finding, Outcome, Question, Unasked};
use super::lease::Place;
use super::lines::Lines;
use super::memory::Fingerprint;

/// Processes that are heard at the same time; more of them wait until they are.
const GUESTS: usize = 256;
/// Questions of one process that are open at the same time, and of all that are not yet put.
pub const QUESTIONS: usize = 1024;
/// The longest line of a question: an address has at most 2047 bytes.
const QUESTION_BYTES: usize = 8 * 1024;
/// The longest line of an answer: the longest roster (640 kB), a picture (342 kB), and many resources, each with texts of
/// many languages.
const ANSWER_BYTES: usize = 2 * 1024 * 1024;
/// How long a process may stay without a question.
const IDLE: Duration = Duration::from_secs(60);
/// How long a question may ask us to take: far more than any configuration allows.
pub(super) const LONGEST: Duration = Duration::from_secs(300);
/// How long the last answers may take to be read.
pub(super) const FAREWELL: Duration = Duration::from_millis(200);
/// How long nobody is let in after the system refused us a descriptor.
const BREATH: Duration = Duration::from_millis(50);
/// The longest path of a socket (unix(7)), without the zero at its end.
const PATH_BYTES: usize = 107;
const KIND: &str = "relay";

/// A question, as it is written.
#[derive(Serialize, Deserialize)]
struct Asked {
    id: u64,
    /// The [`Fingerprint`] of whoever asks.
    by: String,
    /// What is left of its time.
    time_ms: u64,
    question: Question,
}

/// An answer, as it is written.
#[derive(Serialize, Deserialize)]
struct Told {
    id: u64,
    outcome: Outcome,
}

/// What reaches the holder of the session.
pub enum Caller {
    Errand(Errand),
    /// Somebody who has another configuration, and needs a session of his own.
    Stranger,
}

/// What becomes of the socket of a holder who ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    Removed,
    /// The next holder finds it, as if this one had been killed.
    Left,
}

/// The holder's end: it listens until it is closed.
pub struct Relay {
    callers: mpsc::Receiver<Caller>,
    /// How others than the processes of this machine reach the holder.
    #[cfg(feature = "redis")]
    pub door: mpsc::Sender<Caller>,
    /// With the socket; without one, no process of this machine is let in.
    desk: Option<(tokio::task::JoinHandle<()>, PathBuf)>,
    /// The holder before did not take his leave, or the server not notice: to the server he may be there still.
    pub follows_a_death: bool,
}

impl Relay {
    /// Only for the holder of the lease: a socket that another one left is replaced.
    pub fn open(place: &Place, us: &Fingerprint) -> io::Result<Relay> {
        let socket = place.path(KIND);
        let follows_a_death = match fs::remove_file(&socket) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        let (path, _folder) = reachable(place)?;
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
        let (caller, callers) = mpsc::channel(QUESTIONS);
        let desk = tokio::spawn(receive(listener, us.text(), caller.clone()));
        Ok(Relay {
            callers,
            #[cfg(feature = "redis")]
            door: caller,
            desk: Some((desk, socket)),
            follows_a_death,
        })
    }

    /// Where this machine has no other process that could ask.
    #[cfg(feature = "redis")]
    pub fn without_socket() -> Relay {
        let (door, callers) = mpsc::channel(QUESTIONS);
        Relay { callers, door, desk: None, follows_a_death: false }
    }

    /// Whoever comes next; it never ends by itself.
    pub async fn next(&mut self) -> Caller {
        match self.callers.recv().await {
            Some(caller) => caller,
            None => std::future::pending().await,
        }
    }

    /// Who has come already.
    pub fn waiting(&mut self) -> Option<Caller> {
        self.callers.try_recv().ok()
    }

    /// Answers that are ready still go out; everything else is asked again, elsewhere. The lease is to be held until
    /// this is done, since the next holder puts his socket in the same place.
    pub async fn close(self, trace: Trace) {
        let Some((desk, socket)) = self.desk else { return };
        if trace == Trace::Removed
            && let Err(error) = fs::remove_file(&socket)
        {
            log::info!("{}: {error}", socket.display());
        }
        drop(self.callers);
        if timeout(2 * FAREWELL, desk).await.is_err() {
            log::info!("{}: not everybody has read his answers", socket.display());
        }
    }
}

/// Lets processes in until the holder closes.
async fn receive(listener: UnixListener, us: String, callers: mpsc::Sender<Caller>) {
    let mut guests = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if guests.len() < GUESTS => match accepted {
                Ok((stream, _)) if is_ours(&stream) => drop(guests.spawn(attend(stream, us.clone(), callers.clone()))),
                Ok(_) => log::warn!("a process of another user asked for the session"),
                Err(error) => {
                    log::warn!("asked by another process: {error}");
                    sleep(BREATH).await;
                }
            },
            Some(_) = guests.join_next() => {}
            () = callers.closed() => break,
        }
    }
    drop(listener);
    let _ = timeout(FAREWELL, async { while guests.join_next().await.is_some() {} }).await;
}

/// One process that asks. Whatever it does wrong ends its connection, and nothing else.
async fn attend(stream: UnixStream, us: String, callers: mpsc::Sender<Caller>) -> io::Result<()> {
    let mut lines = Lines::over(stream, QUESTION_BYTES);
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            asked = lines.hear::<Asked>() => {
                let asked = asked?;
                if open.len() >= QUESTIONS {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                // One who is gone while we wait for room leaves an errand that is forgotten.
                let sent = if asked.by == us { callers.send(put(asked, &mut open)) } else { callers.send(Caller::Stranger) };
                if sent.await.is_err() {
                    break;
                }
            }
            Some(done) = open.join_next() => match done {
                Ok((id, Ok(outcome))) => tell(&mut lines, id, outcome)?,
                // Dropped without an answer: the end of the connection tells to ask again.
                _ => break,
            },
            () = sleep(IDLE), if open.is_empty() => return Ok(()),
            () = callers.closed() => break,
        }
    }
    while let Some(done) = open.join_next().await {
        if let Ok((id, Ok(outcome))) = done {
            tell(&mut lines, id, outcome)?;
        }
    }
    lines.flush().await
}

type Open = JoinSet<(u64, Result<Outcome, oneshot::error::RecvError>)>;

fn put(asked: Asked, open: &mut Open) -> Caller {
    let (reply, outcome) = oneshot::channel();
    let id = asked.id;
    open.spawn(async move { (id, outcome.await) });
    let deadline = Instant::now() + Duration::from_millis(asked.time_ms).min(LONGEST);
    Caller::Errand(Errand::new(asked.question, deadline, Some(reply)))
}

fn tell(lines: &mut Lines, id: u64, outcome: Outcome) -> io::Result<()> {
    lines.say(&Told { id, outcome: fit(outcome) })
}

/// An answer in a form and of a length that the other end takes. A roster is never cut: who is missing there may not see.
pub(super) fn fit(outcome: Outcome) -> Outcome {
    let is_short = |outcome: &Outcome| serde_json::to_vec(outcome).is_ok_and(|text| text.len() + 100 < ANSWER_BYTES);
    let outcome = outcome.map_err(|unasked| Unasked { failure: unasked.failure.portable(), ..unasked });
    match outcome {
        outcome if is_short(&outcome) => outcome,
        Ok(Finding::Presence(mut answer)) => {
            // Only for the admin; the web shows one presence.
            answer.resources.clear();
            let outcome = Ok(Finding::Presence(answer));
            if is_short(&outcome) { outcome } else { Err(Unasked::now(Failure::Flood)) }
        }
        Ok(Finding::Avatar(mut answer, picture)) => {
            answer.resources.clear();
            let pictured = Ok(Finding::Avatar(answer.clone(), picture));
            let plain = Ok(Finding::Avatar(answer, None));
            [pictured, plain].into_iter().find(is_short).unwrap_or(Err(Unasked::now(Failure::Flood)))
        }
        _ => Err(Unasked::now(Failure::Flood)),
    }
}

/// The asking end.
pub struct Guest {
    lines: Lines,
    by: String,
    /// The last question that was put here, by its number.
    pub asked: u64,
}

impl Guest {
    /// At the socket of whoever holds the lease; `None` while there is none that answers.
    pub async fn at(place: &Place, us: &Fingerprint) -> Option<Guest> {
        let metadata = fs::symlink_metadata(place.path(KIND)).ok()?;
        if !metadata.file_type().is_socket() || metadata.uid() != uid() {
            return None;
        }
        let (path, _folder) = reachable(place).ok()?;
        let stream = UnixStream::connect(path).await.ok()?;
        is_ours(&stream).then(|| Guest { lines: Lines::over(stream, ANSWER_BYTES), by: us.text(), asked: 0 })
    }

    pub fn ask(&mut self, id: u64, errand: &Errand, now: Instant) -> io::Result<()> {
        let time = errand.deadline.saturating_duration_since(now);
        let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.lines.say(&Asked { id, by: self.by.clone(), time_ms, question: errand.question.clone() })
    }

    /// The next answer. After an error the holder is no more, or means something else by these lines.
    pub async fn told(&mut self) -> io::Result<(u64, Outcome)> {
        self.lines.hear().await.map(|Told { id, outcome }| (id, outcome))
    }
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn is_ours(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == uid())
}

/// A path of the socket that the system takes, and what must stay open while it is used.
fn reachable(place: &Place) -> io::Result<(PathBuf, Option<OwnedFd>)> {
    let path = place.path(KIND);
    if path.as_os_str().len() <= PATH_BYTES {
        return Ok((path, None));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(&place.directory, flags, Mode::empty())?;
    let short = format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), place.name(KIND));
    Ok((short.into(), Some(folder)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use jid::BareJid;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::config;
    use crate::presence::{Picture, Presence, Resource, State, Texts};
    use crate::probe::errand::Roster;
    use crate::probe::{Answer, Consent, Why};
    use crate::viewers::{VIEWERS, Viewers};

    fn us(password: &str) -> Fingerprint {
        let text = format!("[xmpp]\njid = presence.example.com\npassword = {password}\n");
        Fingerprint::of(&config::parse(&text, Path::new("test.ini")).expect("a configuration").identities[0])
    }

    fn bob() -> BareJid {
        BareJid::new("bob@example.com").expect("a bare JID")
    }

    fn place(directory: &Path) -> Place {
        Place::new(directory, &BareJid::new("presence.example.com").expect("a bare JID"))
    }

    fn within(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    async fn errand(relay: &mut Relay) -> Errand {
        match relay.next().await {
            Caller::Errand(errand) => errand,
            Caller::Stranger => panic!("a stranger"),
        }
    }

    fn there(name: &str, text: &str) -> Resource {
        let mut texts = Texts::default();
        texts.insert("", text);
        Resource { name: name.to_owned(), state: State::Away, priority: 1, texts, stamp: Some(7), idle: None }
    }

    #[tokio::test]
    async fn answers_come_in_any_order_and_whole() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut relay = Relay::open(&place(directory.path()), &us("x")).expect("a socket");
        let mut guest = Guest::at(&place(directory.path()), &us("x")).await.expect("somebody listens");
        let questions = [Question::Presence(bob(), Roster::Wanted), Question::Consent(bob())];
        for (id, question) in (1..).zip(&questions) {
            guest.ask(id, &Errand::new(question.clone(), within(9), None), Instant::now()).expect("little");
        }
        let resources = vec![there("home", "Lunch \"&\"\n"), there("", "")];
        let presence = Presence::best(&resources, crate::presence::Rule::MostAvailable).expect("one");
        let answer =
            Ok(Finding::Presence(Answer { presence, why: Why::Present, resources, viewers: None, settled: false }));
        let serve = async {
            let (first, second) = (errand(&mut relay).await, errand(&mut relay).await);
            assert_eq!([&first.question, &second.question], [&questions[0], &questions[1]]);
            let time = first.deadline.saturating_duration_since(Instant::now());
            assert!(time > Duration::from_secs(7) && time <= Duration::from_secs(9), "{time:?}");
            second.answer(Ok(Finding::Consent(Consent::Asked)));
            first.answer(answer.clone());
        };
        let hear = async { [guest.told().await.expect("an answer"), guest.told().await.expect("an answer")] };
        let (mut told, ()) = tokio::join!(hear, serve);
        told.sort_by_key(|(id, _)| *id);
        assert_eq!(told, [(1, answer), (2, Ok(Finding::Consent(Consent::Asked)))]);
    }

    #[tokio::test]
    async fn what_is_answered_when_it_closes_still_goes_out() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut relay = Relay::open(&place(directory.path()), &us("x")).expect("a socket");
        assert!(!relay.follows_a_death);
        let mut guest = Guest::at(&place(directory.path()), &us("x")).await.expect("somebody listens");
        for id in 0..3 {
            guest.ask(id, &Errand::new(Question::Consent(bob()), within(9), None), Instant::now()).expect("little");
        }
        let serve = async {
            let first = errand(&mut relay).await;
            let second = errand(&mut relay).await;
            first.answer(Ok(Finding::Consent(Consent::Given)));
            drop(second);
            relay.close(Trace::Removed).await;
        };
        let hear = async {
            assert_eq!(guest.told().await.expect("an answer"), (0, Ok(Finding::Consent(Consent::Given))));
            guest.told().await.expect_err("the others are to be asked again");
        };
        tokio::join!(hear, serve);
        assert!(Guest::at(&place(directory.path()), &us("x")).await.is_none(), "nobody listens any more");
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0, "nothing is left behind");
    }

    #[tokio::test]
    async fn a_dead_holders_socket_is_no_obstacle_and_nobody_else_may_connect() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("presence.example.com.relay");
        drop(UnixListener::bind(&socket).expect("a socket that is left behind"));
        assert!(Guest::at(&place(directory.path()), &us("x")).await.is_none());
        let relay = Relay::open(&place(directory.path()), &us("x")).expect("it is replaced");
        assert!(relay.follows_a_death);
        assert_eq!(fs::metadata(&socket).expect("there").mode() & 0o777, 0o600);
        assert!(Guest::at(&place(directory.path()), &us("x")).await.is_some());
        drop(relay);
        fs::remove_file(&socket).expect("there");
        let elsewhere = directory.path().join("elsewhere");
        let _elsewhere = UnixListener::bind(&elsewhere).expect("another socket");
        std::os::unix::fs::symlink(&elsewhere, &socket).expect("a link");
        assert!(Guest::at(&place(directory.path()), &us("x")).await.is_none(), "a link is not followed");
    }

    #[tokio::test]
    async fn the_longest_path_and_name_will_do() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let deep = directory.path().join("d".repeat(200)).join("e".repeat(200));
        fs::create_dir_all(&deep).expect("a directory");
        let long = BareJid::new(&format!("{}@{}.example.com", "ü".repeat(400), "x".repeat(60))).expect("a bare JID");
        let place = Place::new(&deep, &long);
        let mut relay = Relay::open(&place, &us("x")).expect("a socket");
        let mut guest = Guest::at(&place, &us("x")).await.expect("somebody listens");
        guest
            .ask(1, &Errand::new(Question::Presence(long.clone(), Roster::Wanted), within(9), None), Instant::now())
            .expect("little");
        let serve = async { errand(&mut relay).await.answer(Err(Unasked::now(Failure::Unexpected("a resource")))) };
        let (told, ()) = tokio::join!(guest.told(), serve);
        let (_, outcome) = told.expect("an answer");
        assert_eq!(outcome, Err(Unasked::now(Failure::Unexpected("a resource").portable())));
    }

    #[tokio::test]
    async fn another_configuration_is_not_served_but_noticed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut relay = Relay::open(&place(directory.path()), &us("x")).expect("a socket");
        let mut guest = Guest::at(&place(directory.path()), &us("y")).await.expect("somebody listens");
        guest
            .ask(1, &Errand::new(Question::Presence(bob(), Roster::Wanted), within(9), None), Instant::now())
            .expect("little");
        let (caller, told) = (relay.next(), guest.told());
        tokio::select! {
            caller = caller => assert!(matches!(caller, Caller::Stranger)),
            _ = told => panic!("answered"),
        }
    }

    #[tokio::test]
    async fn nothing_that_is_sent_harms_the_holder() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut relay = Relay::open(&place(directory.path()), &us("x")).expect("a socket");
        let socket = directory.path().join("presence.example.com.relay");
        let deep = "[".repeat(QUESTION_BYTES / 2) + "\n";
        let rows: [Vec<u8>; 6] = [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            b"{}\n".to_vec(),
            b"\xff\xfe\x00\n".to_vec(),
            br#"{"id":1,"by":"","time_ms":1,"question":{"presence":"not a jid @@"}}"#.iter().copied().chain(*b"\n").collect(),
            deep.into_bytes(),
            vec![b'x'; QUESTION_BYTES * 2 + CHUNKS],
        ];
        for sent in rows {
            let mut peer = UnixStream::connect(&socket).await.expect("it listens");
            // It may be thrown out before it has said everything.
            let _ = peer.write_all(&sent).await;
            let end = peer.read(&mut [0; 10]).await;
            assert!(matches!(end, Ok(0) | Err(_)), "{}", sent[..20.min(sent.len())].escape_ascii());
        }
        let mut guest = Guest::at(&place(directory.path()), &us("x")).await.expect("somebody listens");
        guest.ask(1, &Errand::new(Question::Consent(bob()), within(9), None), Instant::now()).expect("little");
        let serve = async { errand(&mut relay).await.answer(Ok(Finding::Consent(Consent::Given))) };
        let (told, ()) = tokio::join!(guest.told(), serve);
        assert_eq!(told.expect("an answer"), (1, Ok(Finding::Consent(Consent::Given))));
    }

    /// What a socket may hold that nobody reads any more.
    const CHUNKS: usize = 64 * 1024;

    #[tokio::test]
    async fn too_many_processes_wait_and_too_many_questions_end_one() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut relay = Relay::open(&place(directory.path()), &us("x")).expect("a socket");
        let ask = |guest: &mut Guest, id| {
            guest.ask(id, &Errand::new(Question::Consent(bob()), within(99), None), Instant::now()).expect("little");
        };
        let (mut guests, mut errands) = (Vec::new(), Vec::new());
        for id in 0..GUESTS as u64 {
            let mut guest = Guest::at(&place(directory.path()), &us("x")).await.expect("somebody listens");
            ask(&mut guest, id);
            guest.lines.flush().await.expect("written");
            errands.push(errand(&mut relay).await);
            guests.push(guest);
        }
        let mut late = Guest::at(&place(directory.path()), &us("x")).await.expect("the system lets it in");
        ask(&mut late, 0);
        late.lines.flush().await.expect("written");
        let heard = timeout(Duration::from_millis(50), relay.next()).await;
        assert!(heard.is_err(), "it is heard when there is room");
        drop(guests.pop());
        assert_eq!(errand(&mut relay).await.question, Question::Consent(bob()));
        drop(guests);
        let mut greedy = Guest::at(&place(directory.path()), &us("x")).await.expect("there is room again");
        (0..=QUESTIONS as u64).for_each(|id| ask(&mut greedy, id));
        let keep = async {
            let mut kept = Vec::new();
            while kept.len() < QUESTIONS {
                kept.push(errand(&mut relay).await);
            }
            kept
        };
        let (told, kept) = tokio::join!(greedy.told(), keep);
        told.expect_err("one question too many");
        let forgotten = async {
            while !kept.iter().all(Errand::is_forgotten) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(9), forgotten).await.expect("nobody waits for them");
    }

    #[test]
    fn what_is_too_long_to_be_told_is_shortened() {
        let answer = |text: usize, resources: usize| {
            let resource = there("x", &"t".repeat(text));
            let presence = Presence { texts: resource.texts.clone(), ..Presence::bare(State::Away) };
            Ok(Finding::Presence(Answer {
                presence,
                why: Why::Present,
                resources: vec![resource; resources],
                viewers: None,
                settled: true,
            }))
        };
        assert_eq!(fit(answer(1000, 3)), answer(1000, 3));
        assert_eq!(fit(answer(60_000, 40)), answer(60_000, 0));
        assert_eq!(fit(answer(ANSWER_BYTES, 0)), Err(Unasked::now(Failure::Flood)));
    }

    #[test]
    fn the_largest_picture_is_told_whole() {
        let picture = Picture::new(&vec![255; crate::presence::PICTURE_BYTES]);
        let answer = |text: usize, resources: usize| {
            let resource = there("x", &"t".repeat(text));
            let presence = Presence { texts: resource.texts.clone(), ..Presence::bare(State::Away) };
            Answer { presence, why: Why::Present, resources: vec![resource; resources], viewers: None, settled: true }
        };
        let pictured = Ok(Finding::Avatar(answer(60_000, 0), picture.clone()));
        assert_eq!(fit(Ok(Finding::Avatar(answer(60_000, 40), picture.clone()))), pictured);
        let text = serde_json::to_string(&pictured).expect("portable");
        assert_eq!(serde_json::from_str::<Outcome>(&text).expect("what was written"), pictured);
        assert!(text.len() < ANSWER_BYTES / 2, "{} bytes", text.len());
        let plain = Ok(Finding::Avatar(answer(ANSWER_BYTES * 9 / 10, 0), None));
        assert_eq!(fit(Ok(Finding::Avatar(answer(ANSWER_BYTES * 9 / 10, 0), picture.clone()))), plain);
        let flood = Err(Unasked::now(Failure::Flood));
        assert_eq!(fit(Ok(Finding::Avatar(answer(ANSWER_BYTES, 0), picture))), flood);
        for bad in ["\"\"", "\"AA!\"", "7"] {
            assert!(serde_json::from_str::<Picture>(bad).is_err(), "{bad}");
        }
    }

    /// Without it somebody would be refused whom the roster lets in.
    #[test]
    fn the_longest_roster_is_told_whole() {
        let people: Vec<_> =
            (0..VIEWERS).map(|n| BareJid::new(&format!("u{n}@example.com")).expect("a bare JID")).collect();
        let viewers = Some(Viewers::of(&people));
        let answer = |text: usize, resources: usize| {
            let resource = there("x", &"t".repeat(text));
            let presence = Presence { texts: resource.texts.clone(), ..Presence::bare(State::Away) };
            let resources = vec![resource; resources];
            Answer { presence, why: Why::Present, resources, viewers: viewers.clone(), settled: true }
        };
        let picture = Picture::new(&vec![255; crate::presence::PICTURE_BYTES]);
        let whole = Ok(Finding::Avatar(answer(10_000, 50), picture.clone()));
        assert_eq!(fit(whole.clone()), whole, "with fifty clients and the largest picture");
        let text = serde_json::to_string(&whole).expect("portable");
        assert_eq!(serde_json::from_str::<Outcome>(&text).expect("what was written"), whole);
        let clients = Ok(Finding::Presence(answer(60_000, 40)));
        assert_eq!(fit(clients), Ok(Finding::Presence(answer(60_000, 0))), "clients give way");
        let long = ANSWER_BYTES * 55 / 100;
        let plain = Ok(Finding::Avatar(answer(long, 0), None));
        assert_eq!(fit(Ok(Finding::Avatar(answer(long, 0), picture))), plain, "then the picture does");
        let flood = Err(Unasked::now(Failure::Flood));
        assert_eq!(fit(Ok(Finding::Presence(answer(ANSWER_BYTES * 7 / 10, 0)))), flood, "the roster never");
    }
}
