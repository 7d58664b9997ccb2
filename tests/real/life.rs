//! The life of `webpresence serve`: it stops without losing a request, reads its configuration again, and lets no idle
//! connection block another.

use std::fs;
use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use crate::rig::eventually;
use crate::rig::fastcgi::Connection;
use crate::rig::prosody::{self, LastActivity};
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{Identity, Kind};
use crate::world::{next_number, visit};

fn finishes_what_it_has(signal: Signal) {
    let server = prosody::start(LastActivity::Off);
    let installed = Webpresence::tuned(&server, Identity::Component(next_number()), "timeout = 3", "");
    let mut serve = installed.serve();
    server.leash.stop();
    let mut waiting = Connection::open(&serve.socket);
    waiting.send(&[("REQUEST_METHOD", b"GET"), ("QUERY_STRING", b"jid=away@example.test&type=text")]);
    // Answers that need no XMPP server go out meanwhile; after some of them the first request has been read.
    let mut other = Connection::open(&serve.socket);
    for _ in 0..20 {
        assert_eq!(other.ask("type=text").status, 400);
    }
    serve.leash.signal(signal);
    eventually("it accepts no more", || UnixStream::connect(&serve.socket).err());
    let answer = waiting.receive().expect("the request in hand is finished");
    assert_eq!((answer.status, answer.text().as_str()), (503, "Unknown\n"));
    assert_eq!(eventually("it ends", || serve.leash.ended()), 0, "{}", serve.leash.log());
    server.leash.signal(Signal::CONT);
}

#[test]
fn sigterm_finishes_the_request_in_hand() {
    finishes_what_it_has(Signal::TERM);
}

#[test]
fn sigusr1_finishes_the_request_in_hand() {
    finishes_what_it_has(Signal::USR1);
}

#[test]
fn sighup_reads_the_configuration_again() {
    let world = visit(Kind::Prosody);
    let installed = Webpresence::new(&world.server, Identity::Component(7));
    let serve = installed.serve();
    let mut connection = Connection::open(&serve.socket);
    let mut ask = || connection.ask("jid=silent@example.test&type=text").text();
    assert_eq!(ask(), "Unavailable\n");
    let good = installed.configuration() + "[text]\nunavailable = Gone fishing\n";
    installed.configure(&good);
    serve.leash.signal(Signal::HUP);
    eventually("the new word is used", || (ask() == "Gone fishing\n").then_some(()));
    installed.configure(&good.replace("[cache]", "[cache]\nttl = soon\nnonsense = 1"));
    serve.leash.signal(Signal::HUP);
    eventually("the mistakes are reported", || {
        let log = serve.leash.log();
        (log.contains("nonsense") && log.contains("ttl")).then_some(())
    });
    assert_eq!(ask(), "Gone fishing\n", "the old configuration is kept");
}

#[test]
fn three_hundred_idle_connections_block_nobody() {
    let world = visit(Kind::Prosody);
    let installed = Webpresence::new(&world.server, Identity::Component(8));
    let serve = installed.serve();
    let query = "jid=away@example.test&type=text";
    let mut idle: Vec<Connection> = (0..300).map(|_| Connection::open(&serve.socket)).collect();
    for connection in &mut idle {
        assert_eq!(connection.ask(query).text(), "Lunch\n");
    }
    assert_eq!(Connection::open(&serve.socket).ask(query).text(), "Lunch\n");
    for connection in &mut idle {
        assert_eq!(connection.ask(query).text(), "Lunch\n", "a kept connection goes on");
    }
}

/// Bytes that are not text reach us through FastCGI as they are; the other variables are there all the same.
/// One by default; with more, connections are distributed over them.
#[test]
fn as_many_threads_answer_as_there_are_workers() {
    for (web, threads) in [("", 1), ("[web]\nworkers = 3\n", 4)] {
        let nobody = "[xmpp]\njid = presence.dead.test\npassword = x\nport = 1\n";
        let installed = Webpresence::written(Identity::Component(1), nobody, web);
        let serve = installed.serve();
        let mut connections = [(); 6].map(|()| Connection::open(&serve.socket));
        for connection in &mut connections {
            assert_eq!(connection.ask("type=text").status, 400);
        }
        let tasks = format!("/proc/{}/task", serve.leash.pid.as_raw_nonzero());
        assert_eq!(fs::read_dir(tasks).expect("it runs").count(), threads, "{web}");
    }
}

#[test]
fn a_variable_that_is_not_text() {
    let world = visit(Kind::Prosody);
    let installed = Webpresence::new(&world.server, Identity::Component(9));
    let serve = installed.serve();
    let mut connection = Connection::open(&serve.socket);
    let query = b"jid=away@example.test&type=text";
    connection.send(&[("HTTP_X_ODD", b"\xff\xfe"), ("REQUEST_METHOD", b"GET"), ("QUERY_STRING", query)]);
    assert_eq!(connection.receive().expect("an answer").text(), "Lunch\n");
}
