//! How much of what visitors ask reaches the XMPP server, counted on the way there: many people at once, one person by
//! everybody at once, and the same people again and again.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use jid::BareJid;
use tokio::runtime::Builder;
use webpresence::config::{self, Environment};
use webpresence::presence::State;
use webpresence::probe::prober::{Manner, Prober};

use crate::relay::{Daemon, Stand, crowd};
use crate::rig::fastcgi::Connection;
use crate::rig::xmpp::{DOMAIN, Identity, Kind};
use crate::world::{next_number, visit};

/// For so long pages are viewed, and what is known counts for the second.
const VIEWING: Duration = Duration::from_secs(9);
const TTL: u64 = 2;

/// Everybody is asked for again and again; returns how often at least.
fn views(daemon: &Daemon, people: &[(String, String)]) -> usize {
    let (mut connection, begun) = (Connection::open(&daemon.socket), Instant::now());
    for round in 0.. {
        if begun.elapsed() >= VIEWING {
            return round;
        }
        for (jid, text) in people {
            assert_eq!(&connection.ask(&format!("jid={jid}&type=text")).text(), text, "{jid}, round {round}");
        }
    }
    unreachable!("time passes")
}

fn steady_views(kind: Kind) {
    let world = visit(kind);
    let cache = format!("ttl = {TTL}\nrefresh = 1");
    for (more, rounds_of_probes) in [("linger = 0", VIEWING.as_secs().div_ceil(TTL) as usize), ("linger = always", 0)] {
        let identity = Identity::Component(next_number());
        let stand = Stand::new(&world.server, identity, more, &cache);
        let people: Vec<_> = crowd(&world, identity).into_iter().collect();
        let daemon = stand.serve();
        for (jid, text) in &people {
            assert_eq!(&daemon.text(jid), text);
        }
        let before = stand.tap.probes();
        assert!(
            (people.len()..=people.len() + 1).contains(&before),
            "{before} probes, one may be of the server itself"
        );
        let rounds = views(&daemon, &people);
        let probes = stand.tap.probes() - before;
        println!("{kind:?}, {more}: {} people, {rounds} rounds, {probes} probes", people.len());
        assert!(rounds > 0 && (rounds > 2 * TTL as usize || rounds_of_probes > 0), "{rounds} rounds");
        assert!(probes <= people.len() * rounds_of_probes, "{more}: {probes} probes");
        assert_eq!(stand.tap.most(), 1, "sessions at a time");
    }
}

#[test]
fn prosody_is_not_asked_again_for_every_view() {
    steady_views(Kind::Prosody);
}

#[test]
fn ejabberd_is_not_asked_again_for_every_view() {
    steady_views(Kind::Ejabberd);
}

/// A thousand requests at once for one person nobody has asked for, to eight processes.
fn one_person(kind: Kind) {
    const REQUESTS: usize = 1000;
    const SENDERS: usize = 40;
    let world = visit(kind);
    let identity = Identity::Component(next_number());
    let stand = Stand::new(&world.server, identity, "", "");
    let (jid, text) = crowd(&world, identity).into_iter().next().expect("it is a crowd");
    let query = format!("jid={jid}&type=text");
    let daemons: Vec<Daemon> = (0..8).map(|_| stand.serve()).collect();
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (socket, query, text) = (&daemons[sender % daemons.len()].socket, &query, &text);
            scope.spawn(move || {
                let mut connections: Vec<_> = (0..REQUESTS / SENDERS).map(|_| Connection::open(socket)).collect();
                let vars = [("REQUEST_METHOD", &b"GET"[..]), ("QUERY_STRING", query.as_bytes())];
                connections.iter_mut().for_each(|connection| connection.send(&vars));
                for connection in &mut connections {
                    assert_eq!(&connection.receive().expect("an answer").text(), text);
                }
            });
        }
    });
    assert_eq!((stand.tap.probes(), stand.tap.total()), (1, 1), "probes and sessions");
}

#[test]
fn prosody_is_asked_once_for_a_thousand() {
    one_person(Kind::Prosody);
}

#[test]
fn ejabberd_is_asked_once_for_a_thousand() {
    one_person(Kind::Ejabberd);
}

/// Five hundred people whom nobody has asked for, at once: one session, opened for them.
fn many_people(kind: Kind) {
    const MANY: usize = 500;
    let world = visit(kind);
    let stand = Stand::new(&world.server, Identity::Component(next_number()), "", "");
    let config = config::load(Some(&stand.installed.config), &Environment::from_process()).expect("ours");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let prober = runtime.block_on(async { Prober::spawn(config.identities[0].clone(), Manner::default()).0 });
    let begun = Instant::now();
    let (states, last) = runtime.block_on(async {
        let tasks: Vec<_> = (0..MANY)
            .map(|number| {
                let (prober, jid) = (prober.clone(), BareJid::new(&format!("cold{number}@{DOMAIN}")));
                let deadline = tokio::time::Instant::now() + config.identities[0].timeout;
                tokio::spawn(async move { prober.ask(jid.expect("an address"), deadline).await })
            })
            .collect();
        let mut states = Vec::new();
        for task in tasks {
            states.push(task.await.expect("no panic").expect("an answer").presence.state);
        }
        (states, begun.elapsed())
    });
    println!("{kind:?}: {MANY} people within {last:?}, {} writes", stand.tap.pieces());
    assert!(states.iter().all(|state| *state == State::Forbidden), "{states:?}");
    assert_eq!((stand.tap.probes(), stand.tap.total()), (MANY, 1), "probes and sessions");
    assert!(stand.tap.pieces() < MANY / 10, "{} pieces", stand.tap.pieces());
}

#[test]
fn prosody_is_asked_about_many_in_one_session() {
    many_people(Kind::Prosody);
}

#[test]
fn ejabberd_is_asked_about_many_in_one_session() {
    many_people(Kind::Ejabberd);
}

/// As many questions as a process may have open are open: one more is told so at once, and when to come again.
#[test]
fn more_than_there_is_room_for() {
    let world = visit(Kind::Prosody);
    let stand = Stand::new(&world.server, Identity::Component(next_number()), "", "");
    stand.installed.configure(&format!("{}[limits]\nlookups = 3\n", stand.installed.configuration()));
    let daemon = stand.serve();
    stand.tap.hold();
    let (answered, answers) = mpsc::channel();
    thread::scope(|scope| {
        for number in 0..4 {
            let (answered, socket) = (answered.clone(), &daemon.socket);
            scope.spawn(move || {
                let answer = Connection::open(socket).ask(&format!("jid=crowded{number}@{DOMAIN}&type=text"));
                answered.send(answer).expect("somebody listens");
            });
        }
        let crowded = answers.recv().expect("an answer");
        assert_eq!((crowded.status, crowded.text().as_str()), (503, "Unknown\n"));
        assert_eq!(crowded.header("Retry-After"), Some("1"), "{crowded:?}");
        stand.tap.let_go();
        for _ in 0..3 {
            assert_eq!(answers.recv().expect("an answer").text(), "Forbidden\n");
        }
    });
}
