//! What goes to the XMPP server, and when, for somebody who has not consented and for nobody at all: the same stanzas in
//! the same order, the same waits, so that whoever watches the time learns nothing. A relay on the way there writes it
//! down. What an account says is under TLS: there the lengths are compared, and all names have the same one. How it is
//! cut into packets is chance: it depends on whether two answers of the server come together.

use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::copy::copy;
use crate::rig::prosody::LastActivity;
use crate::rig::users::{Shown, Users};
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Kind, Privilege, Release, Xmpp};
use crate::rig::{ejabberd, eventually, prosody};
use crate::world::patient;

/// Names of one length: somebody who has not consented, nobody, and who has, and is asked first so that the server is
/// known.
const STRANGER: &str = "stranger";
const NOBODY: &str = "nobodyxx";
const FIRST: &str = "firstone";
/// He has been asked for his consent and has not answered.
const PENDING: &str = "thinking";
/// Alice has let us see her, and eight people besides.
const ALICE: &str = "aliceees";

const GRANTED: Privilege = Privilege { to: Identity::Component(0), roster: "get", presence: "roster" };
/// How often each is asked about, in turn; the middle counts, since the machine may be busy.
const ROUNDS: usize = 5;
/// Far more than one of two waits may be longer by chance, and less than the shortest of all steps that wait, which is
/// the fifth of a second that presences have behind the pong.
const SAME: Duration = Duration::from_millis(150);

/// One conversation: all that the client said, and how long it took from its first word to its last.
#[derive(Clone, Debug)]
struct Passage {
    said: Vec<u8>,
    begun: Instant,
    ended: Instant,
    is_over: bool,
}

impl Passage {
    fn new() -> Passage {
        let now = Instant::now();
        Passage { said: Vec::new(), begun: now, ended: now, is_over: false }
    }

    fn hear(&mut self, said: &[u8]) {
        self.ended = Instant::now();
        if self.said.is_empty() {
            self.begun = self.ended;
        }
        self.said.extend_from_slice(said);
    }
}

/// On the way to the server.
struct Recorder {
    port: u16,
    passages: Arc<Mutex<Vec<Passage>>>,
}

impl Recorder {
    fn before(target: u16) -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let passages: Arc<Mutex<Vec<Passage>>> = Arc::default();
        let all = passages.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a connection");
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let number = {
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    all.push(Passage::new());
                    all.len() - 1
                };
                let (to_client, from_server) =
                    (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
                let all = all.clone();
                thread::spawn(move || {
                    let all = || all.lock().unwrap_or_else(PoisonError::into_inner);
                    copy(client, server, |said| all()[number].hear(said));
                    all()[number].is_over = true;
                });
                thread::spawn(move || copy(from_server, to_client, |_| {}));
            }
        });
        Recorder { port, passages }
    }

    /// The only conversation since the last call; the last of it may not have been read when the client has ended.
    fn take(&self) -> Passage {
        self.until_all_are_over();
        let mut heard = self.passages();
        let mut talks = heard.iter_mut().filter(|passage| !passage.said.is_empty());
        let (Some(only), None) = (talks.next(), talks.next()) else { panic!("one session for one question") };
        // The list only grows: each connection knows its place.
        std::mem::replace(only, Passage::new())
    }

    fn forget(&self) {
        self.until_all_are_over();
        self.passages().iter_mut().for_each(|passage| passage.said.clear());
    }

    fn until_all_are_over(&self) {
        let is_over = |passage: &Passage| passage.is_over || passage.said.is_empty();
        eventually("all conversations are over", || self.passages().iter().all(is_over).then_some(()));
    }

    fn passages(&self) -> MutexGuard<'_, Vec<Passage>> {
        self.passages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was said and is the same for everybody, and what it took.
#[derive(Debug)]
struct Trace {
    said: String,
    time: Duration,
}

impl Trace {
    fn of(Passage { said, begun, ended, .. }: Passage, identity: Identity, name: &str) -> Trace {
        let said = match identity {
            Identity::Component(_) => unnumbered(&impersonal(&String::from_utf8_lossy(&said), &identity.jid(), name)),
            Identity::Account(_) => format!("{} bytes", length(&said)),
        };
        Trace { said, time: ended - begun }
    }
}

const IQ: &str = " id='q";
const LAST: &str = "<query xmlns='jabber:iq:last'/></iq>";
const INFO: &str = "<query xmlns='http://jabber.org/protocol/disco#info'/></iq>";

/// Of TLS 1.3 (RFC 8446, 5.1): the type of its first record, and of those that are encrypted; there what each of them
/// adds to what is said, and the length of one that holds an alert.
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const ADDED: usize = 17;
const ALERT: usize = 2 + ADDED;

/// How much was said, before TLS and under it. Some farewells are not followed by the alert that nothing comes any more.
fn length(said: &[u8]) -> usize {
    let before = said.iter().position(|byte| *byte == HANDSHAKE).expect("TLS is spoken");
    let (mut length, mut rest) = (before, &said[before..]);
    while let [kind, _, _, high, low, behind @ ..] = rest {
        let record = usize::from(u16::from_be_bytes([*high, *low]));
        if *kind == APPLICATION_DATA && record != ALERT {
            length += record - ADDED;
        }
        rest = behind.get(record..).unwrap_or_default();
    }
    length
}

/// Without the name, the proof of the secret and the address of the very session.
fn impersonal(said: &str, jid: &str, name: &str) -> String {
    let said = said.replace(&format!("{name}@"), "NAME@");
    let resource = said.split_once(&format!("from='{jid}/")).and_then(|(_, rest)| rest.split('\'').next());
    let said = resource.map_or(said.clone(), |resource| said.replace(resource, "RESOURCE"));
    match said.split_once("<handshake>").and_then(|(front, rest)| Some((front, rest.split_once('<')?.1))) {
        Some((front, rest)) => format!("{front}<handshake>PROOF<{rest}"),
        None => said,
    }
}

/// Without the numbers of IQs, which count what was asked before.
fn unnumbered(said: &str) -> String {
    let mut parts = said.split(IQ);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |said, part| said + IQ + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// One installation behind the recorder.
struct Way {
    installed: Webpresence,
    recorder: Recorder,
}

impl Way {
    fn to(server: &Xmpp, identity: Identity) -> Way {
        let installed = patient(server, identity);
        let there = match identity {
            Identity::Component(_) => server.ports.component,
            Identity::Account(_) => server.ports.client,
        };
        let recorder = Recorder::before(there);
        let text = installed.configuration().replace("visibility = anyone", "visibility = subscribers");
        installed.configure(&text.replace(&format!("\nport = {there}\n"), &format!("\nport = {}\n", recorder.port)));
        Way { installed, recorder }
    }

    /// A session of its own for one question, and what the command says.
    fn ask(&self, name: &str) -> (Trace, String) {
        let output = self.installed.run(&["probe", &format!("{name}@{DOMAIN}")]);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        (Trace::of(self.recorder.take(), self.installed.identity, name), told)
    }

    /// Asks for consent; a mute server does not tell whether the request has arrived.
    fn request(&self, server: &Xmpp, name: &str) {
        let is_mute = is_mute(server, self.installed.identity);
        let usual = self.installed.configuration();
        if is_mute {
            // Nothing comes before the time is over.
            self.installed.configure(&usual.replace("timeout = 20", "timeout = 8"));
        }
        let output = self.installed.run(&["subscribe", &format!("{name}@{DOMAIN}")]);
        assert!(output.status.success() || is_mute, "{output:?}");
        self.installed.configure(&usual);
        self.recorder.take();
    }

    /// What the web tells about each, all at the same time.
    fn web(&self, names: [&str; 3]) -> [String; 3] {
        let query = |name| format!("jid={name}@{DOMAIN}&req_jid=eve@{DOMAIN}&type=text");
        let answers = thread::scope(|scope| {
            let asked = names.map(|name| scope.spawn(move || format!("{:?}", self.installed.get(&query(name)))));
            asked.map(|thread| thread.join().expect("an answer"))
        });
        self.recorder.forget();
        answers
    }
}

/// COMPAT: one ejabberd answers a component with privileges nothing but rosters, and never says what it is.
fn is_mute(server: &Xmpp, identity: Identity) -> bool {
    (server.kind, server.release) == (Kind::Ejabberd, Release::Newer) && identity == GRANTED.to
}

/// First contact, where nothing is known of the server, and every later one. Whoever has been asked for his consent is
/// asked about as everybody is; only Prosody, or who may be one, must not see the probe, and Prosody is asked in its place
/// what it tells those alone who have consent.
fn all_are_alike(server: &Xmpp, users: &Users, identity: Identity) {
    let [somebody, nobody] = [STRANGER, NOBODY].map(|name| Way::to(server, identity).ask(name).0);
    assert_eq!(somebody.said, nobody.said, "{identity:?}, at first contact");
    let way = Way::to(server, identity);
    way.request(server, FIRST);
    users.granted(&format!("{FIRST}/home"), &identity.jid());
    way.ask(FIRST);
    way.request(server, PENDING);
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let traces = [STRANGER, NOBODY, PENDING].map(|name| way.ask(name).0);
        let [somebody, nobody, pending] = traces.each_ref().map(|trace| trace.said.as_str());
        assert_eq!(somebody, nobody, "{identity:?}");
        assert_eq!(pending, spared(server, identity, nobody), "{identity:?}: but for the probe");
        for (times, trace) in times.iter_mut().zip(&traces) {
            times.push(trace.time);
        }
    }
    let [somebody, nobody, pending] = times.map(middle);
    assert!(somebody.abs_diff(nobody) < SAME, "{identity:?}: {somebody:?} and {nobody:?}");
    assert!(pending.abs_diff(nobody) < SAME, "{identity:?}: {pending:?} and {nobody:?}");
    let [somebody, nobody, pending] = way.web([STRANGER, NOBODY, PENDING]);
    assert_eq!(somebody, nobody, "{identity:?}");
    assert_eq!(pending, nobody, "{identity:?}");
}

/// What is said of nobody, as it is where a probe is not to be sent.
fn spared(server: &Xmpp, identity: Identity, nobody: &str) -> String {
    let is_prosody = server.kind == Kind::Prosody;
    if !is_prosody && !is_mute(server, identity) {
        return nobody.to_owned();
    }
    match identity {
        Identity::Component(_) => {
            let us = format!("from='{}/RESOURCE'", identity.jid());
            let probe = format!("<presence {us} to='NAME@{DOMAIN}' type='probe'/>");
            let info = format!("<iq {us}{IQ}' to='NAME@{DOMAIN}' type='get'>{INFO}");
            assert!(nobody.contains(&probe) && nobody.contains(&info) != is_prosody, "{nobody}");
            let rest = nobody.replace(&probe, "");
            if is_prosody { rest.replace(LAST, &(LAST.to_owned() + &info)) } else { rest }
        }
        Identity::Account(_) => {
            let probe = format!("<presence to='{NOBODY}@{DOMAIN}' type='probe'/>").len();
            let info = format!("<iq{IQ}1' to='{NOBODY}@{DOMAIN}' type='get'>{INFO}").len();
            let length = nobody.strip_suffix(" bytes").and_then(|length| length.parse::<usize>().ok());
            format!("{} bytes", length.expect("a length") + if is_prosody { info } else { 0 } - probe)
        }
    }
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Those who are there, and a server that tells nobody the roster.
fn check(server: &Xmpp) {
    let users = people(server);
    for identity in [Identity::Component(1), Identity::Account(0)] {
        all_are_alike(server, &users, identity);
    }
    drop(users);
}

fn people(server: &Xmpp) -> Users {
    let users = Users::of(server);
    for user in [FIRST, STRANGER, PENDING, "webstatus0"] {
        server.register(user);
    }
    users.login(&format!("{FIRST}/home"), Shown::default());
    for user in [STRANGER, PENDING] {
        users.login_unasked(&format!("{user}/home"), Shown::default());
    }
    // A roster that is not empty, as nobody's is.
    users.add("stranger/home", &format!("{PENDING}@{DOMAIN}"));
    users
}

/// The same where the component reads rosters; and it reads them, whoever may be seen.
fn check_granted(server: &Xmpp) {
    let users = people(server);
    let identity = GRANTED.to;
    all_are_alike(server, &users, identity);
    for user in [ALICE, "bob"] {
        server.register(user);
        users.login(&format!("{user}/home"), Shown::default());
    }
    users.add("bob/home", &format!("{ALICE}@{DOMAIN}"));
    users.granted(&format!("{ALICE}/home"), &format!("bob@{DOMAIN}"));
    let way = Way::to(server, identity);
    way.request(server, ALICE);
    users.granted(&format!("{ALICE}/home"), &identity.jid());
    let ask = |asked: &str| {
        let output = way.installed.run(&["probe", "--for", &format!("{asked}@{DOMAIN}"), &format!("{ALICE}@{DOMAIN}")]);
        way.recorder.take();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let (bob, eve) = (ask("bob"), ask("eve"));
    assert!(bob.contains("available") && bob.contains("may see this: has a subscription, by the roster"), "{bob}");
    assert!(eve.contains("available") && eve.contains("may not see this: has no subscription, by the roster"), "{eve}");
    let (seen, _) = way.ask(ALICE);
    let (unseen, _) = way.ask(NOBODY);
    assert_eq!(seen.said, unseen.said, "nor is somebody who may be seen asked about in another way");
    assert!(seen.said.contains("jabber:iq:roster"), "{seen:?}");
}

#[test]
fn prosody_nobody_is_as_somebody() {
    check(&prosody::start(LastActivity::On));
}

#[test]
fn newer_prosody_nobody_is_as_somebody() {
    check(&prosody::start_with(Release::Newer, LastActivity::Off, &[]));
}

#[test]
fn ejabberd_nobody_is_as_somebody() {
    check(&ejabberd::start());
}

#[test]
fn newer_ejabberd_nobody_is_as_somebody() {
    check(&ejabberd::start_with(Release::Newer, &[]));
}

#[test]
fn prosody_grants_and_nobody_is_as_somebody() {
    check_granted(&prosody::start_with(Release::Stable, LastActivity::On, &[GRANTED]));
}

#[test]
fn newer_prosody_grants_and_nobody_is_as_somebody() {
    check_granted(&prosody::start_with(Release::Newer, LastActivity::On, &[GRANTED]));
}

#[test]
fn ejabberd_grants_and_nobody_is_as_somebody() {
    check_granted(&ejabberd::start_with(Release::Stable, &[GRANTED]));
}

#[test]
fn newer_ejabberd_grants_and_nobody_is_as_somebody() {
    check_granted(&ejabberd::start_with(Release::Newer, &[GRANTED]));
}
