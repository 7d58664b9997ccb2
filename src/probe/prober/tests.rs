//! The prober between servers and other processes that the tests play: what is put, by whom, and how often.

mod spared;

use std::path::Path;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::hold::CONFLICTS;
use super::*;
use crate::config::{self, ServerKind, Visibility};
use crate::probe::Why;
use crate::probe::backoff::REFUSED;
use crate::probe::stream::{PASSED_DEPTH_LIMIT, STANZA_LIMIT, TOKEN_LIMIT};
use crate::viewers::Viewers;

const HEADER: &str = "<stream:stream xmlns='jabber:component:accept' \
                      xmlns:stream='http://etherx.jabber.org/streams' id='1'>";
const LONG: Duration = Duration::from_secs(20);
const ANSWER: &str = "<handshake/><presence type='unsubscribed' from='bob@example.com' to='presence.example.com'/>";
const GRANT: &str = "<message from='example.com' to='presence.example.com'><privilege xmlns='urn:xmpp:privilege:2'>\
                     <perm access='roster' type='get'/></privilege></message>";
const PING_AT_HOME: &str = "to='example.com' type='get'><ping";

fn component(port: u16) -> Identity {
    component_within(port, 20)
}

fn component_within(port: u16, timeout: u64) -> Identity {
    component_with(port, &format!("timeout = {timeout}\n"))
}

/// With more lines, and sections behind them.
fn component_with(port: u16, more: &str) -> Identity {
    let text =
        format!("[xmpp]\njid = presence.example.com\npassword = secret\nserver = prosody\nport = {port}\n{more}");
    let config = config::parse(&text, Path::new("test.ini"));
    config.expect("a configuration").identities.remove(0)
}

async fn listen() -> (TcpListener, u16) {
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = server.local_addr().expect("bound").port();
    (server, port)
}

fn bob() -> BareJid {
    BareJid::new("bob@example.com").expect("a bare JID")
}

fn within(time: Duration) -> Instant {
    Instant::now() + time
}

/// A server's end of a session that has put its questions.
async fn greet(server: &TcpListener) -> TcpStream {
    let (mut socket, _) = server.accept().await.expect("a connection");
    socket.write_all(HEADER.as_bytes()).await.expect("an open connection");
    read_until(&mut socket, "xmpp:ping").await;
    socket
}

async fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(end) {
        assert!(socket.read_buf(&mut read).await.expect("an open connection") > 0, "closed before {end}");
    }
    String::from_utf8_lossy(&read).into_owned()
}

/// A server's end of a session that it has let in, whatever is asked.
async fn let_in(server: &TcpListener) -> TcpStream {
    let (mut socket, _) = server.accept().await.expect("a connection");
    socket.write_all(HEADER.as_bytes()).await.expect("an open connection");
    read_until(&mut socket, "</handshake>").await;
    socket.write_all(b"<handshake/>").await.expect("an open connection");
    socket
}

/// The answer to the ping that `asked` ends in.
fn pong(asked: &str) -> String {
    let ping = asked.rsplit_once("<iq ").map(|(_, ping)| ping.replace("type='get'", "")).expect("a ping");
    let id = ping.split('\'').skip_while(|part| !part.ends_with("id=")).nth(1).expect("an id");
    let to = ping.split('\'').nth(1).expect("a sender");
    format!("<iq from='example.com' to='{to}' id='{id}' type='result'/>")
}

/// Up to the stanza with this id, behind which nothing follows.
async fn read_round(socket: &mut TcpStream, last: &str) -> String {
    let read = read_until(socket, last).await;
    if read.ends_with("/>") { read } else { read + &read_until(socket, "/>").await }
}

/// Days of service may lie between two failures: the second is not punished for the first.
#[tokio::test]
async fn a_session_that_served_resets_the_pause_however_it_ends() {
    let (server, port) = listen().await;
    let (prober, _task) = Prober::spawn(component(port), Manner::default());
    let ask = || prober.ask(bob(), within(LONG));
    for round in 0..5 {
        let serve = async {
            let mut socket = greet(&server).await;
            socket.write_all(ANSWER.as_bytes()).await.expect("an open connection");
            socket
        };
        let (answer, mut socket) = tokio::join!(ask(), serve);
        assert_eq!(answer.map(|answer| answer.why), Ok(Why::Refused), "round {round}");
        socket.write_all(b"<<").await.expect("an open connection");
        while socket.read(&mut [0; 100]).await.is_ok_and(|read| read > 0) {}
        let unasked = ask().await.expect_err("the session has just failed");
        assert_eq!(unasked.retry_after, Duration::from_secs(1), "round {round}");
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::time::resume();
    }
}

/// Nobody waits any more, and the session would linger for ever.
#[tokio::test]
async fn a_login_that_hangs_is_given_up_with_the_last_question() {
    let (server, port) = listen().await;
    let (prober, _task) = Prober::spawn(component(port), Manner::default());
    let ask = prober.ask(bob(), within(2 * MARGIN));
    let (answer, mut socket) = tokio::join!(ask, greet(&server));
    assert_eq!(answer.expect_err("no login").failure, Failure::Silent);
    let closed = timeout_at(within(LONG), socket.read(&mut [0; 100])).await;
    assert_eq!(closed.expect("the connection is given up").ok(), Some(0));
}

/// The server of somebody abroad says nothing, our own does: that ends no session.
#[tokio::test]
async fn a_silent_server_abroad_is_no_dead_connection() {
    let (server, port) = listen().await;
    let (prober, _task) = Prober::spawn(component_within(port, 1), Manner::default());
    let ask = |jid: &str| prober.ask(BareJid::new(jid).expect("a bare JID"), within(Duration::from_secs(1)));
    let serve = async {
        let mut socket = greet(&server).await;
        socket.write_all(ANSWER.as_bytes()).await.expect("an open connection");
        socket
    };
    let (answer, mut socket) = tokio::join!(ask("bob@example.com"), serve);
    assert_eq!(answer.map(|answer| answer.why), Ok(Why::Refused));
    let serve = async {
        let asked = read_until(&mut socket, PING_AT_HOME).await;
        socket.write_all(pong(&asked).as_bytes()).await.expect("an open connection");
    };
    let (answer, ()) = tokio::join!(ask("eve@example.net"), serve);
    assert_eq!(answer.expect_err("nobody said anything").failure, Failure::Silent);
    let again = async {
        read_until(&mut socket, "probe").await;
        let answer = ANSWER.strip_prefix("<handshake/>").expect("it begins so");
        socket.write_all(answer.as_bytes()).await.expect("an open connection");
    };
    let (answer, ()) = tokio::join!(ask("bob@example.com"), again);
    assert_eq!(answer.map(|answer| answer.why), Ok(Why::Refused), "by the same session");
}

/// Anybody may send us a stanza that cannot be read through. It costs a session, and nobody his answer.
#[tokio::test]
async fn a_monstrous_stanza_of_a_stranger_fails_nobody() {
    let (server, port) = listen().await;
    let (prober, _task) = Prober::spawn(component(port), Manner::default());
    let refuse = async || {
        let mut socket = greet(&server).await;
        socket.write_all(ANSWER.as_bytes()).await.expect("an open connection");
        socket
    };
    let ask = || prober.ask(bob(), within(LONG));
    let (answer, mut socket) = tokio::join!(ask(), refuse());
    assert_eq!(answer.map(|answer| answer.why), Ok(Why::Refused));
    let deep = "<a>".repeat(PASSED_DEPTH_LIMIT + 1);
    let long = format!("<message from='eve@example.net' id='{}'", "x".repeat(TOKEN_LIMIT * 2));
    let wide = format!("<message {}", "a='b' ".repeat(STANZA_LIMIT));
    for (name, monster) in [("deep", deep), ("long", long), ("wide", wide)] {
        let serve = async {
            read_until(&mut socket, "xmpp:ping").await;
            // It may be given up in the middle of it.
            let _ = socket.write_all(monster.as_bytes()).await;
            refuse().await
        };
        let (answer, other) = tokio::join!(ask(), serve);
        assert_eq!(answer.map(|answer| answer.why), Ok(Why::Refused), "{name}");
        socket = other;
    }
}

/// A server that answers every question of every session, one session after the other, and counts them.
struct Server {
    sessions: Arc<Mutex<Vec<usize>>>,
    task: JoinHandle<()>,
}

impl Server {
    fn serve(listener: TcpListener, to_a_probe: ToAProbe) -> Server {
        let sessions = Arc::new(Mutex::new(Vec::new()));
        let counts = sessions.clone();
        let task = tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.expect("a connection");
                counts.lock().expect("no panic").push(0);
                socket.write_all(HEADER.as_bytes()).await.expect("an open connection");
                serve_session(&mut socket, &counts, to_a_probe).await;
            }
        });
        Server { sessions, task }
    }

    /// Questions by session.
    fn questions(&self) -> Vec<usize> {
        self.sessions.lock().expect("no panic").clone()
    }

    fn probes(&self) -> usize {
        self.questions().iter().sum()
    }

    fn sessions(&self) -> usize {
        self.questions().len()
    }
}

/// What is said of somebody to whoever asks, by their addresses.
type ToAProbe = fn(&str, &str) -> String;

/// Nobody may be seen.
fn refused(theirs: &str, _ours: &str) -> String {
    format!("<presence type='unsubscribed' from='{theirs}' to='presence.example.com'/>")
}

/// Everybody is there and may be seen.
fn shown(theirs: &str, ours: &str) -> String {
    format!("<presence from='{theirs}/home' to='{ours}'/>")
}

/// Answers everything, by a pong where nothing else came (Prosody), until the session ends.
async fn serve_session(socket: &mut TcpStream, counts: &Mutex<Vec<usize>>, to_a_probe: ToAProbe) {
    let mut heard = Vec::new();
    loop {
        if socket.read_buf(&mut heard).await.unwrap_or(0) == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&heard).into_owned();
        let Some(end) = text.rfind('>') else { continue };
        let mut answers = String::new();
        for stanza in text[..=end].split_inclusive('>') {
            let attribute = |name: &str| {
                stanza.split_once(&format!("{name}='")).and_then(|(_, rest)| rest.split('\'').next()).unwrap_or("")
            };
            let (ours, theirs, id) = (attribute("from"), attribute("to"), attribute("id"));
            if stanza.starts_with("<handshake") {
                answers.push_str("<handshake/>");
            } else if stanza.contains("type='probe'") {
                *counts.lock().expect("no panic").last_mut().expect("a session") += 1;
                answers.push_str(&to_a_probe(theirs, ours));
            } else if stanza.starts_with("<iq") {
                answers.push_str(&format!("<iq type='result' from='{theirs}' to='{ours}' id='{id}'/>"));
            } else if stanza.contains("</stream:stream") {
                return;
            }
        }
        heard.drain(..=end);
        if socket.write_all(answers.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn user(number: usize) -> BareJid {
    BareJid::new(&format!("user{number}@example.com")).expect("a bare JID")
}

fn always() -> Manner {
    Manner { opening: Opening::Always, ..Manner::default() }
}

fn meeting_in(directory: &Path) -> Manner {
    Manner { directory: Some(directory.to_owned()), ..Manner::default() }
}

/// Each as in a process of its own: they share the directory and nothing else.
#[tokio::test]
async fn eight_share_one_session() {
    let (listener, port) = listen().await;
    let server = Server::serve(listener, refused);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let processes: Vec<_> = (0..8).map(|_| Prober::spawn(component(port), meeting_in(directory.path())).0).collect();
    let asked: Vec<_> = (0..200)
        .map(|number| {
            let prober = processes[number % 8].clone();
            tokio::spawn(async move { prober.ask(user(number), within(LONG)).await })
        })
        .collect();
    for task in asked {
        let answer = task.await.expect("no panic");
        assert_eq!(answer.map(|answer| answer.why), Ok(Why::Refused));
    }
    assert_eq!(server.questions(), [200], "one session carried everything");
    assert_eq!(
        processes[3].subscribe(bob(), within(LONG)).await.map_err(|unasked| unasked.failure),
        Ok(Consent::Asked)
    );
    server.task.abort();
}

/// The holder is no more, in the middle of everything: whoever waited asks again, and one of them is the next holder.
#[tokio::test]
async fn the_holder_may_die() {
    let (listener, port) = listen().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (holder, death) = Prober::spawn(component(port), meeting_in(directory.path()));
    let dying = tokio::spawn(async move { holder.ask(user(0), within(LONG)).await });
    // It is logged in and has put its question, but nobody answers.
    let held = greet(&listener).await;
    let processes: Vec<_> = (0..7).map(|_| Prober::spawn(component(port), meeting_in(directory.path())).0).collect();
    let asked: Vec<_> = (0..70)
        .map(|number| {
            let prober = processes[number % 7].clone();
            tokio::spawn(async move { prober.ask(user(number), within(LONG)).await })
        })
        .collect();
    // All of them wait at its socket.
    tokio::time::sleep(POLL * 10).await;
    death.abort();
    assert!(death.await.expect_err("it is dead").is_cancelled());
    drop(held);
    let server = Server::serve(listener, refused);
    for task in asked {
        let answer = task.await.expect("no panic");
        assert_eq!(answer.map(|answer| answer.why), Ok(Why::Refused));
    }
    assert_eq!(server.questions(), [70], "one session carried everything");
    dying.await.expect("no panic").expect_err("it died");
    server.task.abort();
}

/// A component of ejabberd's, behind one that has left its socket.
fn after_a_death(port: u16, directory: &Path) -> (Prober, JoinHandle<()>, PathBuf) {
    let identity = Identity { server: Some(ServerKind::Ejabberd), ..component(port) };
    let socket = Place::new(directory, &identity.jid).path("relay");
    drop(tokio::net::UnixListener::bind(&socket).expect("a socket that is left behind"));
    let (prober, task) = Prober::spawn(identity, meeting_in(directory));
    (prober, task, socket)
}

/// COMPAT: ejabberd would give the dead one's connection some of our answers.
#[tokio::test]
async fn after_a_death_a_component_asks_nothing_before_all_that_is_ours_comes_back() {
    let (listener, port) = listen().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (prober, task, socket) = after_a_death(port, directory.path());
    let serve = async {
        let (mut server, _) = listener.accept().await.expect("a connection");
        server.write_all(HEADER.as_bytes()).await.expect("an open connection");
        let first = read_round(&mut server, "e0-15'").await;
        let (_, first) = first.split_once("</handshake>").expect("a handshake");
        let (_, some) = first.split_once("/>").expect("several stanzas");
        server.write_all(format!("<handshake/>{some}").as_bytes()).await.expect("an open connection");
        let second = read_round(&mut server, "e1-15'").await;
        assert!(!first.contains("bob") && !second.contains("bob"), "{first}{second}");
        server.write_all(second.as_bytes()).await.expect("an open connection");
        read_until(&mut server, "xmpp:ping").await;
        server.write_all(ANSWER.replace("<handshake/>", "").as_bytes()).await.expect("an open connection");
        server
    };
    let (answer, mut server) = tokio::join!(prober.ask(bob(), within(LONG)), serve);
    assert_eq!(answer.map(|answer| answer.why), Ok(Why::Refused));
    drop(prober);
    read_until(&mut server, "</stream:stream>").await;
    task.await.expect("no panic");
    assert!(socket.exists(), "the server has not closed its side: the next one shall ask itself, too");
}

/// Nobody is called offline or said not to allow it: nothing is known.
#[tokio::test]
async fn beside_another_connection_nothing_is_asked() {
    let (listener, port) = listen().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (prober, task, socket) = after_a_death(port, directory.path());
    let serve = async {
        let (mut server, _) = listener.accept().await.expect("a connection");
        server.write_all(HEADER.as_bytes()).await.expect("an open connection");
        let round = read_round(&mut server, "e0-15'").await;
        let (_, round) = round.split_once("</handshake>").expect("a handshake");
        let (one, _) = round.split_once("/>").expect("several stanzas");
        server.write_all(format!("<handshake/>{one}/>").as_bytes()).await.expect("an open connection");
        server
    };
    let (answer, mut server) = tokio::join!(prober.ask(bob(), within(Duration::from_secs(1))), serve);
    assert_eq!(answer.map_err(|unasked| unasked.failure), Err(Failure::Conflict));
    drop(prober);
    read_until(&mut server, "</stream:stream>").await;
    drop(server);
    task.await.expect("no panic");
    assert!(socket.exists(), "the next one shall ask itself, too");
}

/// Prosody refuses a second connection, so that there is nothing to find out.
#[tokio::test]
async fn after_a_death_nothing_is_in_the_way_on_prosody() {
    let (listener, port) = listen().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = Place::new(directory.path(), &component(port).jid).path("relay");
    drop(tokio::net::UnixListener::bind(&socket).expect("a socket that is left behind"));
    let (prober, task) = Prober::spawn(component(port), meeting_in(directory.path()));
    let serve = async {
        let mut server = greet(&listener).await;
        server.write_all(ANSWER.as_bytes()).await.expect("an open connection");
        server
    };
    let (answer, server) = tokio::join!(prober.ask(bob(), within(LONG)), serve);
    assert_eq!(answer.map(|answer| answer.why), Ok(Why::Refused));
    drop((prober, server));
    task.await.expect("no panic");
    assert!(!socket.exists(), "nothing is left behind");
}

/// Somebody has the lease and answers nobody: stopped, or on another machine.
#[tokio::test]
async fn a_holder_that_does_not_answer_is_not_replaced() {
    let (listener, port) = listen().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let identity = component(port);
    let place = Place::new(directory.path(), &identity.jid);
    let _lease = place.lease().expect("files").expect("it is free");
    let (prober, _task) = Prober::spawn(identity, meeting_in(directory.path()));
    let busy = || Err(Failure::Busy);
    let ask = || async { prober.ask(bob(), within(4 * MARGIN)).await.map_err(|unasked| unasked.failure) };
    assert_eq!(ask().await, busy(), "no socket");
    let _socket = tokio::net::UnixListener::bind(place.path("relay")).expect("a socket that nobody serves");
    assert_eq!(ask().await, busy(), "nobody accepts");
    tokio::select! {
        _ = listener.accept() => panic!("a second session"),
        answer = ask() => assert_eq!(answer, busy()),
    }
}

/// The holder's time is over as soon as somebody with another configuration waits.
#[tokio::test]
async fn another_configuration_gets_a_session_of_its_own() {
    let (listener, port) = listen().await;
    let server = Server::serve(listener, refused);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let other = Identity { rule: crate::presence::Rule::HighestPriority, ..component(port) };
    let processes = [component(port), other].map(|identity| Prober::spawn(identity, meeting_in(directory.path())).0);
    for round in 0..4 {
        let answer = processes[round % 2].ask(bob(), within(LONG)).await;
        assert_eq!(answer.map(|answer| answer.why), Ok(Why::Refused), "round {round}");
    }
    assert_eq!(server.questions(), [1, 1, 1, 1]);
    server.task.abort();
}

/// Whoever holds the session shows everybody to everyone; for the other, rosters are read in it.
#[tokio::test]
async fn who_may_see_somebody_is_each_process_own_affair() {
    let (listener, port) = listen().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let [anyone, subscribers] = [Visibility::Anyone, Visibility::Subscribers].map(|visibility| {
        let mut identity = component(port);
        identity.access.visibility = visibility;
        Prober::spawn(identity, meeting_in(directory.path())).0
    });
    let refusal = ANSWER.trim_start_matches("<handshake/>");
    let serve = async {
        let mut socket = greet(&listener).await;
        socket.write_all(format!("<handshake/>{GRANT}{refusal}").as_bytes()).await.expect("an open connection");
        socket
    };
    let (answer, mut socket) = tokio::join!(anyone.ask(bob(), within(LONG)), serve);
    assert_eq!(answer.map(|answer| answer.viewers), Ok(None), "nobody has asked for them");
    let tell = async {
        let asked = read_until(&mut socket, "xmpp:ping").await;
        let roster = asked.split("<iq ").find(|iq| iq.contains("jabber:iq:roster")).expect("the roster is asked for");
        let attribute = |name: &str| {
            let value = roster.split_once(&format!("{name}='")).and_then(|(_, rest)| rest.split('\'').next());
            value.expect("an attribute").to_owned()
        };
        let (id, to) = (attribute("id"), attribute("from"));
        let item = "<item jid='carol@example.com' subscription='both'/>";
        let told = format!(
            "<iq from='bob@example.com' to='{to}' id='{id}' type='result'><query xmlns='jabber:iq:roster'>{item}\
             </query></iq>{refusal}"
        );
        socket.write_all(told.as_bytes()).await.expect("an open connection");
    };
    let (answer, ()) = tokio::join!(subscribers.ask(bob(), within(LONG)), tell);
    let carol = BareJid::new("carol@example.com").expect("a bare JID");
    let answer = answer.expect("the session is shared");
    assert_eq!((answer.why, answer.viewers), (Why::Refused, Some(Viewers::of(&[carol]))));
}

/// One that reads rosters.
fn reader(port: u16) -> Identity {
    let mut identity = component(port);
    identity.access.visibility = Visibility::Subscribers;
    identity
}

/// The reply to the IQ that asks for somebody's roster.
fn roster_of(person: &str, asked: &str, items: &str) -> String {
    let ask = asked.split("<iq ").find(|iq| iq.contains("jabber:iq:roster") && iq.contains(person));
    let id = ask.and_then(|iq| iq.split("id='").nth(1)?.split('\'').next()).expect("the roster is asked for");
    format!(
        "<iq from='{person}' to='presence.example.com' id='{id}' type='result'><query xmlns='jabber:iq:roster'>{items}\
         </query></iq>"
    )
}

/// Neither has any more to say.
fn errors(person: &str, asked: &str) -> String {
    let others = asked.split("<iq ").filter(|iq| iq.contains(person) && !iq.contains("jabber:iq:roster"));
    let ids = others.filter_map(|iq| iq.split("id='").nth(1)?.split('\'').next());
    ids.map(|id| format!("<iq from='{person}' to='presence.example.com' id='{id}' type='error'/>")).collect()
}

const BOB: &str = "bob@example.com";
const CAROL: &str = "carol@example.com";

/// Everybody may make his own roster as long as his server lets him.
#[tokio::test]
async fn a_long_roster_is_passed_over_in_time_or_late() {
    let (server, port) = listen().await;
    let (prober, _task) = Prober::spawn(reader(port), Manner::default());
    let ask = |person: &str, time| prober.ask(BareJid::new(person).expect("a bare JID"), within(time));
    let long = "<item jid='u@example.com' name='a friend' subscription='both'/>".repeat(70_000);
    let in_time = async {
        let (mut socket, _) = server.accept().await.expect("a connection");
        socket.write_all(HEADER.as_bytes()).await.expect("an open connection");
        let asked = read_until(&mut socket, "xmpp:ping").await;
        socket.write_all(format!("<handshake/>{GRANT}").as_bytes()).await.expect("an open connection");
        let roster = read_until(&mut socket, "jabber:iq:roster").await;
        let told = roster_of(BOB, &roster, &long) + &errors(BOB, &asked) + &pong(&asked);
        socket.write_all(told.as_bytes()).await.expect("an open connection");
        socket
    };
    let (answer, mut socket) = tokio::join!(ask(BOB, LONG), in_time);
    let answer = answer.expect("long as it is");
    assert_eq!((answer.viewers, answer.settled), (Some(Viewers::default()), true));

    let without = async {
        let asked = read_until(&mut socket, "xmpp:ping").await;
        let told = errors(BOB, &asked) + &pong(&asked);
        socket.write_all(told.as_bytes()).await.expect("an open connection");
        asked
    };
    let (answer, asked) = tokio::join!(ask(BOB, Duration::from_secs(1)), without);
    assert_eq!(answer.expect_err("it did not come").failure, Failure::RosterLate);
    socket.write_all(roster_of(BOB, &asked, &long).as_bytes()).await.expect("an open connection");

    let others = async {
        let asked = read_until(&mut socket, "xmpp:ping").await;
        let told = roster_of(CAROL, &asked, "") + &errors(CAROL, &asked) + &pong(&asked);
        socket.write_all(told.as_bytes()).await.expect("an open connection");
    };
    let (answer, ()) = tokio::join!(ask(CAROL, LONG), others);
    assert_eq!(answer.expect("the same session").viewers, Some(Viewers::default()));
}

/// It ends the session, and is not asked for again; whoever else is asked about has his answer in the next one.
#[tokio::test]
async fn a_roster_that_cannot_be_passed_over_costs_one_session_and_no_pause() {
    let long = format!("<item jid='u@example.com' name='{}'/>", "x".repeat(TOKEN_LIMIT * 2));
    let deep = "<item>".repeat(PASSED_DEPTH_LIMIT + 1);
    for items in [long, deep] {
        let (server, port) = listen().await;
        let (prober, _task) = Prober::spawn(reader(port), Manner::default());
        let ask = |person: &str| prober.ask(BareJid::new(person).expect("a bare JID"), within(LONG));
        let serve = async {
            let mut socket = greet(&server).await;
            socket.write_all(format!("<handshake/>{GRANT}").as_bytes()).await.expect("an open connection");
            let mut asked = String::new();
            while asked.matches("jabber:iq:roster").count() < 2 {
                asked += &read_until(&mut socket, "jabber:iq:roster").await;
            }
            socket.write_all(roster_of(BOB, &asked, &items).as_bytes()).await.expect("an open connection");
            let again = timeout_at(within(LONG / 4), server.accept()).await.expect("without a pause");
            let (mut socket, _) = again.expect("a connection");
            socket.write_all(HEADER.as_bytes()).await.expect("an open connection");
            let asked = read_until(&mut socket, "xmpp:ping").await;
            let told = format!("<handshake/>{GRANT}") + &roster_of(CAROL, &asked, "") + &errors(CAROL, &asked);
            let told = told + &errors(BOB, &asked) + &pong(&asked);
            socket.write_all(told.as_bytes()).await.expect("an open connection");
            asked
        };
        let (bob, carol, asked) = tokio::join!(ask(BOB), ask(CAROL), serve);
        for (answer, person) in [(bob, BOB), (carol, CAROL)] {
            assert_eq!(answer.map(|answer| answer.viewers), Ok(Some(Viewers::default())), "{person}");
        }
        assert_eq!(asked.matches("jabber:iq:roster").count(), 1, "{asked}");
    }
}

/// CGI: the process is done when it has its answer, but what others asked through it is answered too.
#[tokio::test]
async fn who_has_his_answer_finishes_what_others_asked_and_no_more() {
    let (listener, port) = listen().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let single = Manner { linger: Some(Duration::ZERO), ..meeting_in(directory.path()) };
    let (cgi, cgi_task) = Prober::spawn(component(port), single);
    let (other, _task) = Prober::spawn(component(port), meeting_in(directory.path()));
    let own = tokio::spawn(async move { cgi.ask(user(0), within(LONG)).await });
    let mut socket = greet(&listener).await;
    let ask = |number| {
        let other = other.clone();
        tokio::spawn(async move { other.ask(user(number), within(LONG)).await })
    };
    let first = ask(1);
    read_until(&mut socket, "user1@example.com").await;
    let refuse =
        |number| format!("<presence type='unsubscribed' from='user{number}@example.com' to='presence.example.com'/>");
    socket.write_all(format!("<handshake/>{}", refuse(0)).as_bytes()).await.expect("an open connection");
    assert!(own.await.expect("no panic").is_ok(), "its own answer does not wait for the others");
    let second = ask(2);
    tokio::time::sleep(POLL * 5).await;
    socket.write_all(refuse(1).as_bytes()).await.expect("an open connection");
    assert!(first.await.expect("no panic").is_ok());
    let farewell = read_until(&mut socket, "</stream:stream>").await;
    assert!(!farewell.contains("user2"), "{farewell}");
    drop(socket);
    let server = Server::serve(listener, refused);
    cgi_task.await.expect("it has ended");
    assert!(second.await.expect("no panic").is_ok(), "by a session of its own");
    assert_eq!(server.questions(), [1]);
    server.task.abort();
}

/// COMPAT: Prosody may take some time to see that the connection of a killed process is gone.
#[tokio::test]
async fn a_conflict_at_the_login_is_tried_again_soon_and_not_for_ever() {
    let conflict =
        "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>";
    let (listener, port) = listen().await;
    let (prober, _task) = Prober::spawn(component(port), Manner::default());
    let refuse = async {
        let mut refused = 0;
        loop {
            let mut socket = greet(&listener).await;
            socket.write_all(conflict.as_bytes()).await.expect("an open connection");
            refused += 1;
            if refused == CONFLICTS + 1 {
                return refused;
            }
        }
    };
    let (answer, _) = tokio::join!(prober.ask(bob(), within(LONG)), refuse);
    let unasked = answer.expect_err("it is taken");
    assert_eq!((unasked.failure, unasked.retry_after), (Failure::Conflict, Duration::from_secs(1)));
    let unasked = prober.ask(bob(), within(LONG)).await.expect_err("not tried at once");
    assert_eq!((unasked.failure, unasked.attempt), (Failure::Conflict, Attempt::PutOff));
}

/// Somebody else uses the identity, and takes it whenever we have it: that is no reason to take it back at once.
#[tokio::test]
async fn a_session_that_is_replaced_backs_off_ever_longer() {
    let conflict =
        "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>";
    let (listener, port) = listen().await;
    let (prober, _task) = Prober::spawn(component(port), Manner::default());
    for expected in [1, 2, 4] {
        let serve = async {
            let mut socket = greet(&listener).await;
            socket.write_all(ANSWER.as_bytes()).await.expect("an open connection");
            socket
        };
        let (answer, mut socket) = tokio::join!(prober.ask(bob(), within(LONG)), serve);
        assert_eq!(answer.map(|answer| answer.why), Ok(Why::Refused));
        socket.write_all(conflict.as_bytes()).await.expect("an open connection");
        while socket.read(&mut [0; 100]).await.is_ok_and(|read| read > 0) {}
        let unasked = prober.ask(bob(), within(LONG)).await.expect_err("it was replaced");
        assert_eq!((&unasked.failure, unasked.attempt), (&Failure::Conflict, Attempt::PutOff));
        assert_eq!(unasked.retry_after.as_millis().div_ceil(1000), expected);
        tokio::time::pause();
        tokio::time::advance(unasked.retry_after).await;
        tokio::time::resume();
    }
}

/// What went wrong is known to the next process, whether it is a visitor's or a person's.
#[tokio::test]
async fn a_restart_forgets_no_failure() {
    let refused = "<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    let (listener, port) = listen().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let web = || Prober::spawn(component(port), meeting_in(directory.path())).0;
    let person = || Prober::spawn(component(port), Manner::of_command(Some(directory.path().to_owned()))).0;
    let drop_it = async { drop(greet(&listener).await) };
    let (unasked, ()) = tokio::join!(async { web().ask(bob(), within(LONG)).await }, drop_it);
    assert_eq!(unasked.map_err(|unasked| unasked.attempt), Err(Attempt::Made));
    let unasked = web().ask(bob(), within(LONG)).await.expect_err("too soon");
    assert_eq!((unasked.attempt, unasked.retry_after.as_secs()), (Attempt::PutOff, 1));
    assert!(unasked.to_string().starts_with("next attempt in 1 s; last failure: "), "{unasked}");
    let refuse = async {
        let mut socket = greet(&listener).await;
        socket.write_all(refused.as_bytes()).await.expect("an open connection");
    };
    let (unasked, ()) = tokio::join!(async { person().ask(bob(), within(LONG)).await }, refuse);
    assert_eq!(unasked.map_err(|unasked| unasked.attempt), Err(Attempt::Made), "a person may try at once");
    for prober in [web(), person()] {
        let unasked = prober.ask(bob(), within(LONG)).await.expect_err("nobody sends that password again");
        assert_eq!(unasked.attempt, Attempt::PutOff);
        assert_eq!(unasked.failure, Failure::LoginRefused("not-authorized".into()));
        assert!(unasked.retry_after > REFUSED / 30, "{:?}", unasked.retry_after);
    }
}

/// `linger = always`: nobody asks, and it is there; it breaks, and it is there again; its holder ends, and another one
/// has it.
#[tokio::test]
async fn a_session_that_is_always_held() {
    let (listener, port) = listen().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let always = || Manner { directory: Some(directory.path().to_owned()), ..always() };
    let (first, first_task) = Prober::spawn(component(port), always());
    let header = || let_in(&listener);
    let broken = timeout_at(within(LONG), header()).await.expect("opened without a question");
    drop(broken);
    let mut again = timeout_at(within(LONG), header()).await.expect("opened again");
    let (_second, _task) = Prober::spawn(component(port), always());
    tokio::time::sleep(POLL * 10).await;
    drop(first);
    read_until(&mut again, "</stream:stream>").await;
    drop(again);
    first_task.await.expect("it has ended");
    timeout_at(within(LONG), header()).await.expect("opened by the other one");
}

/// Nothing was heard for long: the server is asked whether it is there, and where it is not, another session begins.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_always_held_notices_a_dead_connection() {
    let (listener, port) = listen().await;
    let (_prober, _task) = Prober::spawn(component_within(port, 2), always());
    for round in 0..2 {
        let mut socket = let_in(&listener).await;
        for asked in 0..2 {
            let begun = Instant::now();
            let ping = read_until(&mut socket, PING_AT_HOME).await;
            let pause = begun.elapsed().as_secs();
            assert!((59..=62).contains(&pause), "round {round}: {pause} s");
            if asked == 0 {
                socket.write_all(pong(&ping).as_bytes()).await.expect("an open connection");
            }
        }
        // Not a word; the connection is given up.
        while socket.read(&mut [0; 1000]).await.is_ok_and(|read| read > 0) {}
    }
}

/// COMPAT: ejabberd 24 with mod_privilege drops every IQ of a component.
#[tokio::test(start_paused = true)]
async fn a_server_that_answers_no_ping_is_not_given_up_again_and_again() {
    let (listener, port) = listen().await;
    let (prober, _task) = Prober::spawn(component_within(port, 2), always());
    let mut first = let_in(&listener).await;
    while first.read(&mut [0; 1000]).await.is_ok_and(|read| read > 0) {}
    let mut socket = let_in(&listener).await;
    for _ in 0..5 {
        read_until(&mut socket, PING_AT_HOME).await;
    }
    let serve = async {
        let asked = read_until(&mut socket, PING_AT_HOME).await;
        assert!(asked.contains("to='bob@example.com'"), "{asked}");
        let answer = ANSWER.strip_prefix("<handshake/>").expect("it begins so");
        socket.write_all(answer.as_bytes()).await.expect("an open connection");
    };
    let (answer, ()) = tokio::join!(prober.ask(bob(), within(LONG)), serve);
    assert_eq!(answer.map(|answer| answer.why), Ok(Why::Refused), "by the same session");
    // Once it has answered a ping after all, its silence means something again.
    let ping = read_until(&mut socket, PING_AT_HOME).await;
    socket.write_all(pong(&ping).as_bytes()).await.expect("an open connection");
    while socket.read(&mut [0; 1000]).await.is_ok_and(|read| read > 0) {}
    let_in(&listener).await;
}

/// It takes the login, and that is the last that is heard of it: somebody who waited for nothing has to be told.
#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_after_the_login_fails_the_session() {
    let (listener, port) = listen().await;
    let (prober, _task) = Prober::spawn(component_within(port, 2), Manner::default());
    let ask = || prober.ask(bob(), within(Duration::from_secs(2)));
    let (unasked, _socket) = tokio::join!(ask(), let_in(&listener));
    assert_eq!(unasked.map_err(|unasked| unasked.failure), Err(Failure::Silent));
    let unasked = ask().await.expect_err("the session has just failed");
    assert_eq!((unasked.attempt, unasked.retry_after.as_millis().div_ceil(1000)), (Attempt::PutOff, 1));
}

/// Having waited for others nearly to the end is not the server's fault.
#[tokio::test]
async fn a_session_that_began_too_late_delays_no_other() {
    let (server, port) = listen().await;
    let (prober, _task) = Prober::spawn(component(port), Manner::default());
    let (late, _socket) = tokio::join!(prober.ask(bob(), within(2 * MARGIN)), greet(&server));
    assert_eq!(late.expect_err("no login").failure, Failure::Silent);
    let serve = async {
        let mut socket = greet(&server).await;
        socket.write_all(ANSWER.as_bytes()).await.expect("an open connection");
        socket
    };
    let (answer, socket) = tokio::join!(prober.ask(bob(), within(LONG)), timeout_at(within(LONG), serve));
    assert_eq!(answer.map(|answer| answer.why), Ok(Why::Refused));
    assert!(socket.is_ok());
}

/// Nobody was asked by a request that went out with a login that was refused, so it goes out again.
#[tokio::test]
async fn a_request_is_put_again_after_a_conflict() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (listener, port) = listen().await;
    let (prober, _task) = Prober::spawn(component(port), Manner::of_command(Some(directory.path().to_owned())));
    let conflict = "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    let given = "<handshake/><presence type='subscribed' from='bob@example.com' to='presence.example.com'/>";
    let serve = async {
        for answer in [conflict, given] {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            socket.write_all(HEADER.as_bytes()).await.expect("an open connection");
            let said = read_until(&mut socket, "xmpp:ping").await;
            assert!(said.contains("type='subscribe'"), "{said}");
            socket.write_all(answer.as_bytes()).await.expect("an open connection");
        }
    };
    let (consent, ()) = tokio::join!(prober.subscribe(bob(), within(LONG)), serve);
    assert_eq!(consent, Ok(Consent::Given));
}

/// On Prosody a probe would delete the request that was sent before.
#[tokio::test]
async fn a_request_that_cannot_be_repeated_may_be_out_still() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (server, port) = listen().await;
    drop(server);
    let identity = component(port);
    let pending = Pending::new(Some(directory.path()));
    for (before, after) in [(true, true), (false, false)] {
        let asked = if before { pending.note(&identity.jid, &bob()) } else { false };
        assert_eq!(asked, before);
        let (prober, task) = Prober::spawn(identity.clone(), Manner::of_command(Some(directory.path().to_owned())));
        prober.subscribe(bob(), within(LONG)).await.expect_err("nobody listens");
        assert_eq!(pending.is_out(&identity.jid, &bob()), after);
        pending.settle(&identity.jid, &bob());
        drop(prober);
        task.await.expect("no panic");
    }
}
