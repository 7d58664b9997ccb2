//! An XMPP server that is down, silent, or does not want us: an answer is out in time, the log says why, and no secret
//! is in it.

use std::time::{Duration, Instant};

use crate::cases::{TYPES, unknown};
use crate::rig::fastcgi::Connection;
use crate::rig::prosody::LastActivity;
use crate::rig::users::{Shown, Users};
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{Identity, Kind, SECRET, Xmpp};
use crate::rig::{ejabberd, eventually, port, prosody};
use crate::world::{consent, next_number, visit};
use rustix::process::Signal;

const KINDS: [fn(usize) -> Identity; 2] = [Identity::Component, Identity::Account];

/// Every type says that nothing is known, within the time that is set and what a process needs to start.
fn check_unknown(installed: &Webpresence, timeout: Duration) {
    let case = unknown("away@example.test");
    for kind in TYPES {
        let started = Instant::now();
        let answer = installed.get(&format!("jid={}&type={kind}", case.jid));
        assert!(started.elapsed() < timeout + Duration::from_secs(2), "{kind} after {:?}", started.elapsed());
        case.check(kind, &answer);
    }
}

/// Changes lines of the configuration.
fn rewrite(installed: &Webpresence, from: &str, to: &str) {
    let before = installed.configuration();
    assert!(before.contains(from), "{from} in {before}");
    installed.configure(&before.replace(from, to));
}

#[test]
fn a_server_that_is_down() {
    let world = visit(Kind::Prosody);
    for identity in KINDS.map(|kind| kind(next_number())) {
        let installed = Webpresence::tuned(&world.server, identity, "timeout = 2", "");
        let [nobody] = port::free();
        let line = |port: u16| format!("port = {port}\n");
        let Xmpp { ports, .. } = &world.server;
        let there = if matches!(identity, Identity::Component(_)) { ports.component } else { ports.client };
        rewrite(&installed, &line(there), &line(nobody));
        check_unknown(&installed, Duration::from_secs(2));
    }
}

/// The kernel takes the connection, nobody says a word.
fn silence(server: Xmpp) {
    server.leash.stop();
    for identity in KINDS.map(|kind| kind(next_number())) {
        let installed = Webpresence::tuned(&server, identity, "timeout = 1", "");
        check_unknown(&installed, Duration::from_secs(1));
    }
    server.leash.signal(Signal::CONT);
}

#[test]
fn prosody_is_silent() {
    silence(prosody::start(LastActivity::Off));
}

#[test]
fn ejabberd_is_silent() {
    silence(ejabberd::start());
}

/// The server comes back: so do the answers, without anybody's help.
#[test]
fn a_server_that_comes_back() {
    let (server, installed, _users) = somebody_online("timeout = 1", "ttl = 1\nrefresh = 0\nstale = 0");
    let serve = installed.serve();
    let mut connection = Connection::open(&serve.socket);
    let mut ask = || connection.ask("jid=here@example.test&type=text").text();
    assert_eq!(ask(), "Here\n");
    server.leash.stop();
    eventually("what was known is too old", || (ask() == "Unknown\n").then_some(()));
    server.leash.signal(Signal::CONT);
    eventually("the server is asked again", || (ask() == "Here\n").then_some(()));
}

/// While nobody can be asked, the last known answer stands, and says how old it is.
#[test]
fn the_last_known_answer() {
    let (server, installed, _users) = somebody_online("timeout = 1", "ttl = 1\nrefresh = 0\nstale = 300");
    let serve = installed.serve();
    let mut connection = Connection::open(&serve.socket);
    let query = "jid=here@example.test&type=text";
    assert_eq!(connection.ask(query).text(), "Here\n");
    // Not by its own will: then it would say first that everybody has gone.
    server.leash.signal(Signal::KILL);
    let old = eventually("an answer older than its time", || {
        let answer = connection.ask(query);
        assert_eq!((answer.status, answer.text().as_str()), (200, "Here\n"));
        answer.header("Age").is_some().then_some(answer)
    });
    assert_eq!(old.header("Cache-Control"), Some("max-age=0"));
}

/// A Prosody of its own, and a user who has let a component see him.
fn somebody_online(xmpp: &str, cache: &str) -> (Xmpp, Webpresence, Users) {
    let server = prosody::start(LastActivity::Off);
    server.register("here");
    let users = Users::of(&server);
    users.login("here/home", Shown { texts: &[("", "Here")], ..Shown::default() });
    let identity = Identity::Component(next_number());
    let installed = Webpresence::tuned(&server, identity, xmpp, cache);
    consent(&users, &installed, identity, &["here"]);
    (server, installed, users)
}

fn wrong_password(kind: Kind) {
    let world = visit(kind);
    for identity in KINDS.map(|kind| kind(next_number())) {
        if let Identity::Account(number) = identity {
            world.server.register(&format!("webstatus{number}"));
        }
        let installed = Webpresence::new(&world.server, identity);
        rewrite(&installed, SECRET, "mistaken-0815");
        let output = installed.run(&["get", "jid=away@example.test&type=text"]);
        let (printed, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(printed.ends_with("\r\n\r\nUnknown\n"), "{identity:?}: {printed}");
        let log = log.to_lowercase();
        assert!(log.contains(&identity.jid()), "the log names who was refused: {log}");
        assert!(log.contains("password") || log.contains("not-authorized"), "the log names the reason: {log}");
        for secret in [SECRET, "mistaken-0815"] {
            assert!(!log.contains(secret) && !printed.contains(secret), "{secret} is told");
        }
    }
}

#[test]
fn prosody_refuses_the_password() {
    wrong_password(Kind::Prosody);
}

#[test]
fn ejabberd_refuses_the_password() {
    wrong_password(Kind::Ejabberd);
}

/// A certificate nobody vouches for: nothing is sent to that server.
#[test]
fn an_untrusted_certificate() {
    let world = visit(Kind::Prosody);
    let number = next_number();
    world.server.register(&format!("webstatus{number}"));
    let installed = Webpresence::new(&world.server, Identity::Account(number));
    rewrite(&installed, &format!("ca_file = {}\n", world.server.authority.display()), "");
    let output = installed.run(&["get", "jid=away@example.test&type=text"]);
    assert!(output.stdout.ends_with(b"\r\n\r\nUnknown\n"), "{output:?}");
    let log = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(log.contains("certificate"), "{log}");
}
