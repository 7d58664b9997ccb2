//! Whoever tries many names soon gets no answer at all, also where each question is a process of its own: the processes
//! of CGI and `webpresence serve` count together, in the directory they share.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::fastcgi::Connection;
use crate::rig::http::Answer;
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Kind, Xmpp};
use crate::world::{consent, next_number, patient, visit};

const FIRST: &str = "192.0.2.1";
const SECOND: &str = "2001:db8::1";
const THIRD: &str = "2001:db8:0:1::1";

/// What a visitor is told: status, text, and when to try again, where it is not to be kept.
#[derive(Debug, PartialEq)]
struct Told(u16, String, bool);

fn told(answer: &Answer) -> Told {
    let is_later = answer.header("Cache-Control") == Some("no-store") && answer.header("Retry-After").is_some();
    Told(answer.status, answer.text(), is_later)
}

fn refused() -> Told {
    Told(200, "Forbidden\n".to_owned(), false)
}

fn unknown() -> Told {
    Told(503, "Unknown\n".to_owned(), true)
}

fn lunch() -> Told {
    Told(200, "Lunch\n".to_owned(), false)
}

fn query(user: &str) -> String {
    format!("jid={user}@{DOMAIN}&type=text")
}

/// By a process of its own.
fn ask(installed: &Webpresence, from: &str, user: &str) -> Told {
    ask_with_log(installed, from, user).0
}

fn ask_with_log(installed: &Webpresence, from: &str, user: &str) -> (Told, String) {
    let query = query(user);
    let vars = [("REQUEST_METHOD", "GET"), ("QUERY_STRING", &query), ("REMOTE_ADDR", from)];
    let (answer, log) = installed.cgi_with_log(&vars, b"");
    (told(&answer), log)
}

/// By `webpresence serve`.
fn ask_serve(connection: &mut Connection, from: &str, user: &str) -> Told {
    let query = query(user);
    let vars = [("REQUEST_METHOD", "GET"), ("QUERY_STRING", &query), ("REMOTE_ADDR", from)];
    connection.send(&vars.map(|(name, value)| (name, value.as_bytes())));
    told(&connection.receive().expect("webpresence answers"))
}

/// All at the same time, where there is room for so many: those who were refused, and all others are unknown. A process
/// that could not have the file in time, on a busy machine, says so, and its question is one that no other counts.
fn ask_for_all(installed: &Webpresence, questions: &[(&str, String)], room: usize) -> Vec<String> {
    let answers: Vec<(Told, String)> = thread::scope(|scope| {
        let asked: Vec<_> =
            questions.iter().map(|(from, user)| scope.spawn(move || ask_with_log(installed, from, user))).collect();
        asked.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    let counted =
        || answers.iter().zip(questions).filter(|((_, log), _)| !log.contains("counts unknown people for itself"));
    let (is_refused, others): (Vec<_>, Vec<_>) = counted().partition(|((told, _), _)| *told == refused());
    assert!(others.iter().all(|((told, _), _)| *told == unknown()), "{answers:?}");
    assert_eq!(is_refused.len(), room.min(counted().count()), "{answers:?}");
    is_refused.into_iter().map(|(_, (_, user))| user.clone()).collect()
}

/// A question counts for a minute: a failure of what took longer, on a busy machine, says nothing, and it is tried again.
pub fn within_a_minute(attempt: impl Fn()) {
    for _ in 0..3 {
        let begun = Instant::now();
        match catch_unwind(AssertUnwindSafe(&attempt)) {
            Ok(()) => return,
            Err(failure) if begun.elapsed() < Duration::from_secs(60) => resume_unwind(failure),
            Err(_) => {}
        }
    }
    panic!("three times it took more than a minute");
}

#[test]
fn processes_count_together() {
    let world = visit(Kind::Prosody);
    let identity = Identity::Component(next_number());
    consent(&world.users, &patient(&world.server, identity), identity, &["away"]);
    within_a_minute(|| count_together(&world.server, identity));
}

fn count_together(server: &Xmpp, identity: Identity) {
    let installed = Webpresence::tuned(server, identity, "timeout = 20\n", "ttl = 600");
    let limits = "[log]\nlevel = info\n[access]\nunknown_per_minute = 5\nunknown_per_minute_all = 8\n";
    installed.configure(&installed.configuration().replace("[access]\n", limits));
    let serve = installed.serve();
    let mut connection = Connection::open(&serve.socket);
    assert_eq!(ask_serve(&mut connection, FIRST, "away"), lunch());
    assert_eq!(ask(&installed, FIRST, "away"), lunch());

    let nobody = |number: u32| format!("nobody{number}");
    // Who is seen takes no place.
    let questions: Vec<_> = (0..12).map(|number| (FIRST, nobody(number))).collect();
    let refused_ones = ask_for_all(&installed, &questions, 5);
    assert_eq!(ask(&installed, FIRST, &refused_ones[0]), refused(), "the same question is not another one");
    assert_eq!(ask_serve(&mut connection, FIRST, "nobody12"), unknown(), "it counts for everybody");
    assert_eq!(ask_serve(&mut connection, FIRST, "away"), lunch(), "who is known to be visible is not touched");
    assert_eq!(ask(&installed, FIRST, "away"), lunch(), "nor is he to a process that starts now");
    assert_eq!(ask(&installed, FIRST, "chat"), unknown(), "of him nobody knows");
    assert_eq!(ask(&installed, SECOND, "away"), lunch(), "another visitor");

    let questions = [(SECOND, nobody(20)), (THIRD, nobody(21)), (SECOND, nobody(22)), (THIRD, nobody(23))];
    // Until there are too many in all.
    ask_for_all(&installed, &questions, 3);
    drop(serve);
    over_the_limit_nobody_is_asked(&installed, server.ports.component);
}

/// In the place of the XMPP server is one that only listens.
fn over_the_limit_nobody_is_asked(installed: &Webpresence, port: u16) {
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    silent.set_nonblocking(true).expect("a socket");
    let address = silent.local_addr().expect("it is bound");
    let text = installed.configuration().replace(&format!("port = {port}\n"), &format!("port = {}\n", address.port()));
    installed.configure(&text);
    assert_eq!(ask(installed, THIRD, "nobody24"), unknown());
    assert_eq!(silent.accept().map_err(|error| error.kind()).err(), Some(ErrorKind::WouldBlock), "nobody was asked");
    installed.configure(&text.replace("_all = 8", "_all = 9").replace("timeout = 20", "timeout = 1"));
    assert_eq!(ask(installed, THIRD, "nobody24"), unknown());
    silent.accept().expect("now it was");
}
