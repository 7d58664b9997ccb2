//! What goes to the XMPP server, and when, for somebody who has not consented and for nobody at all: the same steps, the
//! same stanzas, the same waits, so that whoever watches the time learns nothing. A relay on the way there writes it
//! down. What an account says is under TLS: there the lengths are compared, and all names have the same one.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::prosody::LastActivity;
use crate::rig::users::{Shown, Users};
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Kind, Privilege, Release, Xmpp};
use crate::rig::{ejabberd, prosody};

/// Names of one length: somebody who has not consented, nobody, and who is asked first so that the server is known.
const STRANGER: &str = "stranger";
const NOBODY: &str = "nobodyxx";
const FIRST: &str = "firstone";
/// He has been asked for his consent and has not answered.
const PENDING: &str = "thinking";
/// Alice has let us see her, and eight people besides.
const ALICE: &str = "aliceees";

const GRANTED: Privilege = Privilege { to: Identity::Component(0), roster: "get", presence: "roster" };
/// How often each is asked about; the middle counts, since the machine may be busy.
const ROUNDS: usize = 5;
/// Far more than one of two waits may be longer by chance, and less than the shortest of all steps that wait.
const SAME: Duration = Duration::from_millis(100);

/// One conversation: what the client wrote, each time as a whole, and how long it went on after its questions.
#[derive(Clone, Debug, Default)]
struct Passage {
    writes: Vec<(Instant, Vec<u8>)>,
}

/// Bytes of TLS's `close_notify`, behind the farewell of some.
const CLOSE_NOTIFY: usize = 24;
/// The end of TLS's handshake (RFC 8446, 4.4.4), with its ChangeCipherSpec (D.4), is shorter.
const SHORTEST_OF_OURS: usize = 100;

impl Passage {
    /// What follows TLS's own last word does not wait for anything, and may be read with it.
    fn write(&mut self, said: &[u8]) {
        let is_tls = |before: &&mut (Instant, Vec<u8>)| before.1[0] == 0x14 && before.1.len() < SHORTEST_OF_OURS;
        match self.writes.last_mut().filter(is_tls) {
            Some((_, before)) => before.extend_from_slice(said),
            None => self.writes.push((Instant::now(), said.to_vec())),
        }
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
                    all.push(Passage::default());
                    all.len() - 1
                };
                let (to_client, from_server) =
                    (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
                let all = all.clone();
                thread::spawn(move || {
                    copy(client, server, |said| {
                        all.lock().unwrap_or_else(PoisonError::into_inner)[number].write(said);
                    });
                });
                thread::spawn(move || copy(from_server, to_client, |_| {}));
            }
        });
        Recorder { port, passages }
    }

    /// The only conversation since the last call.
    fn take(&self) -> Passage {
        let mut all = self.passages.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(all.iter().filter(|passage| !passage.writes.is_empty()).count(), 1, "one session for one question");
        let passage = all.iter_mut().find(|passage| !passage.writes.is_empty()).expect("there is one");
        // The list only grows: each connection knows its place.
        std::mem::take(passage)
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, heed: impl Fn(&[u8])) {
    to.set_nodelay(true).expect("an open socket");
    let mut buffer = [0; 65536];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        heed(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// What was written and is the same for everybody, and what the last question took.
#[derive(Debug)]
struct Trace {
    writes: Vec<String>,
    time: Duration,
}

impl Trace {
    fn of(passage: Passage, identity: Identity, name: &str) -> Trace {
        let mut writes = passage.writes;
        writes.pop_if(|(_, bytes)| matches!(identity, Identity::Account(_)) && bytes.len() == CLOSE_NOTIFY);
        let (asked, ended) = (writes[writes.len().saturating_sub(2)].0, writes[writes.len() - 1].0);
        let plain = |bytes: &[u8]| match identity {
            Identity::Component(_) => impersonal(&String::from_utf8_lossy(bytes), &identity.jid(), name),
            Identity::Account(_) => format!("{} bytes", bytes.len()),
        };
        Trace { writes: writes.iter().map(|(_, bytes)| plain(bytes)).collect(), time: ended - asked }
    }
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

/// One installation behind the recorder.
struct Way {
    installed: Webpresence,
    recorder: Recorder,
}

impl Way {
    fn to(server: &Xmpp, identity: Identity) -> Way {
        let installed = Webpresence::new(server, identity);
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

    fn trace(&self, name: &str) -> Trace {
        self.ask(name).0
    }

    /// Asks for consent; a mute server does not tell whether the request has arrived.
    fn request(&self, server: &Xmpp, name: &str) {
        let output = self.installed.run(&["subscribe", &format!("{name}@{DOMAIN}")]);
        assert!(output.status.success() || is_mute(server, self.installed.identity), "{output:?}");
        self.recorder.take();
    }

    /// What the web tells, and nothing of its own in it.
    fn web(&self, name: &str) -> String {
        let answer = self.installed.get(&format!("jid={name}@{DOMAIN}&req_jid=eve@{DOMAIN}&type=text"));
        self.recorder.passages.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().for_each(|passage| {
            passage.writes.clear();
        });
        format!("{answer:?}")
    }
}

/// COMPAT: one ejabberd answers a component with privileges nothing but rosters, and never says what it is.
fn is_mute(server: &Xmpp, identity: Identity) -> bool {
    (server.kind, server.release) == (Kind::Ejabberd, Release::Newer) && identity == GRANTED.to
}

/// First contact, where nothing is known of the server, and every later one.
fn nobody_is_as_somebody(server: &Xmpp, identity: Identity) {
    let [somebody, nobody] = [STRANGER, NOBODY].map(|name| Way::to(server, identity).trace(name));
    assert_eq!(somebody.writes, nobody.writes, "{identity:?}, at first contact");
    let way = Way::to(server, identity);
    way.trace(FIRST);
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let [somebody, nobody] = [STRANGER, NOBODY].map(|name| way.trace(name));
        assert_eq!(somebody.writes, nobody.writes, "{identity:?}");
        for (times, trace) in times.iter_mut().zip([somebody, nobody]) {
            times.push(trace.time);
        }
    }
    let [somebody, nobody] = times.map(middle);
    assert!(somebody.abs_diff(nobody) < SAME, "{identity:?}: {somebody:?} and {nobody:?}");
    assert_eq!(way.web(STRANGER), way.web(NOBODY), "{identity:?}");
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Whoever has been asked for his consent is asked about as everybody is; only Prosody, or who may be one, must not see
/// the probe.
fn pending_is_as_nobody(server: &Xmpp, identity: Identity) {
    let way = Way::to(server, identity);
    way.trace(FIRST);
    way.request(server, PENDING);
    let nobody = way.trace(NOBODY);
    let pending = way.trace(PENDING);
    assert_eq!(pending.writes.len(), nobody.writes.len(), "the same steps");
    if matches!(identity, Identity::Component(_)) {
        let probe = format!("<presence from='{}/RESOURCE' to='NAME@{DOMAIN}' type='probe'/>", identity.jid());
        let is_spared = server.kind == Kind::Prosody || is_mute(server, identity);
        let without = |write: &String| if is_spared { write.replace(&probe, "") } else { write.clone() };
        assert_eq!(pending.writes, nobody.writes.iter().map(without).collect::<Vec<_>>(), "but for the probe");
        assert!(nobody.writes.iter().any(|write| write.contains(&probe)), "{nobody:?}");
    }
    assert!(pending.time.abs_diff(nobody.time) < SAME * 2, "{pending:?} {nobody:?}");
    assert_eq!(way.web(PENDING), way.web(NOBODY), "{identity:?}");
}

/// Those who are there, and a server that tells nobody the roster.
fn check(server: &Xmpp) {
    let users = people(server);
    for identity in [Identity::Component(1), Identity::Account(0)] {
        nobody_is_as_somebody(server, identity);
        pending_is_as_nobody(server, identity);
    }
    drop(users);
}

fn people(server: &Xmpp) -> Users {
    let users = Users::of(server);
    for user in [STRANGER, PENDING, "webstatus0"] {
        server.register(user);
    }
    for user in [STRANGER, PENDING] {
        users.login_unasked(&format!("{user}/home"), Shown::default());
    }
    // A roster that is not empty, as nobody's is.
    users.add("stranger/home", &format!("{PENDING}@{DOMAIN}"));
    users
}

/// The same where the component reads rosters; and it reads them, in as many steps.
fn check_granted(server: &Xmpp) {
    let users = people(server);
    let identity = GRANTED.to;
    nobody_is_as_somebody(server, identity);
    pending_is_as_nobody(server, identity);
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
    let unseen = way.trace(NOBODY);
    assert_eq!(seen.writes, unseen.writes, "nor is somebody who may be seen asked about in another way");
    assert!(seen.writes.iter().any(|write| write.contains("jabber:iq:roster")), "{seen:?}");
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
