//! Who may see whom: the original's matrix of target, requester and visibility through nginx, each cell checked in
//! every type of answer, where the server shows the component the rosters and where `[viewers]` has to do; and that
//! nobody learns from a refusal whom there is.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use crate::cases::{Case, TYPES, away, forbidden, forbidden_to, offline, unknown};
use crate::company::{ASKER, Company, HERE, Source, TARGETS, Visit, guard, home, jid, visit};
use crate::doors::{self, Door, Open, SHORT, STATUS};
use crate::rig::eventually;
use crate::rig::fastcgi::Connection;
use crate::rig::http::Answer;
use crate::rig::nginx::Snippet;
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Kind};
use crate::strangers::within_a_minute;

/// What the rosters, and their consent, let somebody who may see everybody see.
fn seen(user: &str) -> Case {
    match user {
        "alice" => away(&jid(user)),
        "gonny" => offline(&jid(user)),
        _ => forbidden(&jid(user)),
    }
}

/// Who asks, as a page writes it; who that is, if anybody; and whom of the targets he may see.
type Asker = (Option<&'static str>, Option<&'static str>, &'static [&'static str]);

const NOBODY: &[&str] = &[];

const ASKERS: &[Asker] = &[
    (Some("bob@example.test"), Some("bob@example.test"), &TARGETS),
    (Some("BOB@Example.TEST"), Some("bob@example.test"), &TARGETS),
    (Some("carol@example.test"), Some("carol@example.test"), &["alice"]),
    // To whom alice has a subscription, who has asked for one, and who has none.
    (Some("dave@example.test"), Some("dave@example.test"), NOBODY),
    (Some("erin@example.test"), Some("erin@example.test"), NOBODY),
    (Some("frank@example.test"), Some("frank@example.test"), NOBODY),
    // Anybody can say that he is alice.
    (Some("alice@example.test"), Some("alice@example.test"), NOBODY),
    // The original compares the part before the @ alone.
    (Some("alice@evil.example"), Some("alice@evil.example"), NOBODY),
    (Some("gonny@evil.example"), Some("gonny@evil.example"), NOBODY),
    (Some("bob@evil.example"), Some("bob@evil.example"), NOBODY),
    (Some("bob@example.test.evil.example"), Some("bob@example.test.evil.example"), NOBODY),
    (Some("bob@sub.example.test"), Some("bob@sub.example.test"), NOBODY),
    (Some("nobody@example.test"), Some("nobody@example.test"), NOBODY),
    (Some("presence0.example.test"), Some("presence0.example.test"), NOBODY),
    (Some("example.test"), Some("example.test"), NOBODY),
    // The original fails with a 500 where there is no local part.
    (Some("@example.test"), None, NOBODY),
    (Some("bob@@example.test"), None, NOBODY),
    (Some("bob@example.test/desk"), None, NOBODY),
    (Some("bob%20smith@example.test"), None, NOBODY),
    (Some(""), None, NOBODY),
    (None, None, NOBODY),
];

/// In a domain of friends, which only a list can name.
const FRIEND: Asker = (Some("zoe@friends.test"), Some("zoe@friends.test"), &["alice"]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visibility {
    Subscribers,
    Anyone,
}

/// The whole table, all who ask at the same time: a refusal is held for a second.
fn matrix(kind: Kind, source: Source) {
    let company = visit(kind, source);
    let friend = if source == Source::Listed { FRIEND } else { (FRIEND.0, FRIEND.1, NOBODY) };
    for visibility in [Visibility::Subscribers, Visibility::Anyone] {
        let access = format!("visibility = {}\n", format!("{visibility:?}").to_lowercase());
        let open = doors::nginx(Snippet::Public, company.install(&access));
        thread::scope(|scope| {
            for asker in ASKERS.iter().chain([&friend]) {
                let open = &open;
                scope.spawn(move || TARGETS.iter().for_each(|target| cell(open, visibility, target, *asker)));
            }
            scope.spawn(|| without_requester(&open));
        });
    }
}

/// One target and one requester, in every type of answer.
fn cell(open: &Open, visibility: Visibility, target: &str, (written, asker, sees): Asker) {
    let jid = jid(target);
    let may_see = visibility == Visibility::Anyone || sees.contains(&target);
    let case = match (visibility, asker) {
        _ if may_see && seen(target).state != "forbidden" => seen(target),
        (Visibility::Subscribers, Some(asker)) => forbidden_to(&jid, asker),
        _ => forbidden(&jid),
    };
    let claim = written.map(|written| format!("&req_jid={written}")).unwrap_or_default();
    let what = format!("{visibility:?}: {jid}{claim}");
    for (kind, path) in TYPES.iter().zip([STATUS, SHORT].iter().cycle()) {
        let answer = open.ask(path, &format!("jid={jid}&type={kind}{claim}"));
        case.check_body(kind, &answer, &what);
        check_scope(visibility, &answer, &what);
    }
    let answer = open.ask(STATUS, &format!("jid={jid}{claim}&images=/icons/--IMAGE--.png"));
    let expected = format!("/icons/{}.png", case.state);
    assert_eq!((answer.status, answer.header("Location")), (302, Some(expected.as_str())), "{what}: {answer:?}");
}

/// What a requester has decided is for his browser alone.
fn check_scope(visibility: Visibility, answer: &Answer, what: &str) {
    let shared = answer.header("Access-Control-Allow-Origin");
    let kept = answer.header("Cache-Control").unwrap_or_default();
    let (origin, scope) = match visibility {
        Visibility::Subscribers => (None, "private, max-age="),
        Visibility::Anyone => (Some("*"), "public, max-age="),
    };
    assert_eq!(shared, origin, "{what}: {answer:?}");
    let is_scoped = kept.starts_with(scope) || kept == scope.replace("public, ", "") + "0";
    assert!(if answer.status == 403 { kept == "no-store" } else { is_scoped }, "{what}: {kept}");
}

/// A component or a room has no roster: anybody may ask, under either visibility. What is not served is not asked about.
fn without_requester(open: &Open) {
    for claim in ["", "&req_jid=frank@example.test", "&req_jid=@"] {
        let text = |jid: &str| open.ask(STATUS, &format!("jid={jid}&type=text{claim}")).text();
        assert_eq!(text("example.test"), "Available\n", "{claim}");
        assert_eq!(text("alice@elsewhere.test"), "Forbidden\n", "{claim}");
    }
}

#[test]
fn prosody_with_rosters() {
    matrix(Kind::Prosody, Source::Roster);
}

#[test]
fn prosody_with_a_list() {
    matrix(Kind::Prosody, Source::Listed);
}

#[test]
fn ejabberd_with_rosters() {
    matrix(Kind::Ejabberd, Source::Roster);
}

#[test]
fn ejabberd_with_a_list() {
    matrix(Kind::Ejabberd, Source::Listed);
}

/// Somebody who is no longer subscribed sees nothing any more, and nobody has to be told.
fn a_friendship_ends(kind: Kind) {
    // Others rely on who sees whom.
    let company = Company::meet(kind, Source::Roster);
    let installed = company.install("visibility = subscribers\n");
    installed.configure(&installed.configuration().replace("[cache]\n", "[cache]\nttl = 1\nrefresh = 0\nstale = 0\n"));
    let serve = installed.serve();
    let mut connection = Connection::open(&serve.socket);
    let mut text = |asker: &str| connection.ask(&format!("jid=alice@{DOMAIN}&req_jid={asker}&type=text")).text();
    assert_eq!([text(&jid("carol")), text(&jid("erin"))], ["Lunch\n", "Forbidden\n"]);
    company.users.revoke(&home("alice"), &jid("carol"));
    company.users.approve(&home("alice"), &jid("erin"));
    eventually("carol sees nothing", || (text(&jid("carol")) == "Forbidden\n").then_some(()));
    eventually("erin sees alice", || (text(&jid("erin")) == "Lunch\n").then_some(()));
    assert_eq!(text(&jid("bob")), "Lunch\n");
}

#[test]
fn prosody_a_friendship_ends() {
    a_friendship_ends(Kind::Prosody);
}

#[test]
fn ejabberd_a_friendship_ends() {
    a_friendship_ends(Kind::Ejabberd);
}

/// Somebody's own account reads its own roster: his contacts see him, nobody else does.
fn own_roster(kind: Kind, more: &str) {
    let company = visit(kind, Source::Listed);
    let identity = Identity::Account(0);
    let (own, user) = (identity.jid(), "webstatus0");
    company.server.register(user);
    company.users.login(&home(user), HERE);
    company.users.add(&home("bob"), &own);
    company.users.granted(&home(user), &jid("bob"));
    let installed = Webpresence::tuned(&company.server, identity, &format!("timeout = 20\n{more}"), "");
    guard(&installed, "visibility = subscribers\nunknown_per_minute = 0\n");
    let text = |asker: &str| installed.get(&format!("jid={own}&req_jid={asker}&type=text")).text();
    assert_eq!(text(&jid("bob")), "Lunch\n");
    for asker in [&jid("carol"), "bob@evil.example", &own, ""] {
        assert_eq!(text(asker), "Forbidden\n", "{asker}");
    }
}

#[test]
fn prosody_own_roster() {
    own_roster(Kind::Prosody, "visible = yes");
}

#[test]
fn ejabberd_own_roster() {
    own_roster(Kind::Ejabberd, "");
}

/// Who is refused for which reason; every name is as long as the others. Denny and outer would be seen otherwise.
const REFUSED: [(&str, &str); 6] = [
    ("alice", "sees not this requester"),
    ("ghost", "is not there"),
    ("aloof", "has not consented"),
    ("later", "has been asked"),
    ("denny", "is denied"),
    ("outer", "is not allowed"),
];

/// A refusal tells nothing: the same bytes, the same headers, after the same second.
fn nobody_is_enumerated(kind: Kind, source: Source) {
    let company = visit(kind, source);
    let installed = crate::world::patient(&company.server, ASKER);
    for user in ["denny", "outer"] {
        company.server.register(user);
        company.users.login(&home(user), HERE);
    }
    crate::world::consent(&company.users, &installed, ASKER, &["denny", "outer"]);
    let list = REFUSED.iter().filter(|(user, _)| *user != "outer").map(|(user, _)| jid(user));
    let (allow, deny) = (list.collect::<Vec<_>>().join(", "), jid("denny"));
    let open = |visibility: &str| {
        let access = format!("visibility = {visibility}\nallow = {allow}\ndeny = {deny}\n");
        doors::nginx(Snippet::Public, company.install(&access))
    };
    let restricted = open("subscribers");
    for (asker, kind) in
        ["frank@example.test", "bob12@example.test", "chuck@example.test", "david@example.test"].iter().zip(TYPES)
    {
        let took = refused_alike(&restricted, &REFUSED, asker, kind);
        assert!(took.iter().all(|took| *took >= HOLD), "{asker}, {kind}: {took:?}");
    }
    for (asker, kind) in NOBODY_ASKS {
        refused_alike(&restricted, &REFUSED, asker, kind);
    }
    drop(restricted);
    for kind in TYPES {
        // Alice may be seen by anybody.
        let took = refused_alike(&open("anyone"), &REFUSED[1..], "", kind);
        assert!(took.iter().all(|took| *took >= HOLD), "{kind}: {took:?}");
    }
    let access = format!("visibility = subscribers\nallow = {allow}\ndeny = {deny}\n");
    clear_from_the_request(company.install(&access), company.server.ports.component);
}

/// How long a refusal is held that nobody was told before.
const HOLD: Duration = Duration::from_secs(1);

/// No JID, and none that could be one.
const NOBODY_ASKS: [(&str, &str); 2] = [("", "xml"), ("@", "image")];

/// Where nobody asks it is clear from the request alone: in the place of the XMPP server is one that only listens, and
/// it hears of nobody. Each process is a new one; the quickest shows that none is held.
fn clear_from_the_request(installed: Webpresence, port: u16) {
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    silent.set_nonblocking(true).expect("a socket");
    let elsewhere = format!("port = {}\n", silent.local_addr().expect("it is bound").port());
    installed.configure(&installed.configuration().replace(&format!("port = {port}\n"), &elsewhere));
    let open = Door::Cgi.open(installed);
    for (asker, kind) in NOBODY_ASKS {
        let took: Vec<_> = REFUSED.iter().flat_map(|row| refused_alike(&open, &[*row], asker, kind)).collect();
        assert!(took.iter().any(|took| *took < HOLD), "{asker:?}, {kind}: {took:?}");
    }
    assert_eq!(silent.accept().map_err(|error| error.kind()).err(), Some(ErrorKind::WouldBlock), "nobody was asked");
}

/// All at the same time; how long each took.
fn refused_alike(open: &Open, rows: &[(&str, &str)], asker: &str, kind: &str) -> Vec<Duration> {
    let answers = thread::scope(|scope| {
        let ask = |user: &str| timed(|| open.ask(STATUS, &format!("jid={}&type={kind}&req_jid={asker}", jid(user))));
        let asked: Vec<_> = rows.iter().map(|(user, _)| scope.spawn(move || ask(user))).collect();
        asked.into_iter().map(|thread| thread.join().expect("an answer")).collect::<Vec<_>>()
    });
    let first = told(rows[0].0, &answers[0].0);
    assert!(first.to_lowercase().contains("forbidden"), "{first}");
    for ((user, why), (answer, took)) in rows.iter().zip(&answers) {
        assert_eq!(told(user, answer), first, "{asker:?}, {kind}: somebody who {why}: {took:?}");
    }
    answers.into_iter().map(|(_, took)| took).collect()
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    (work(), started.elapsed())
}

/// All of an answer but the name asked for, what follows from it, and the time of day.
fn told(user: &str, answer: &Answer) -> String {
    let named = answer.text().contains(user);
    let varies = |name: &str| ["Date", "X-Cache"].contains(&name) || (named && name == "ETag");
    let headers = answer.headers.iter().filter(|(name, _)| !varies(name));
    let lines: String = headers.map(|(name, value)| format!("{name}: {value}\n")).collect();
    let body = String::from_utf8_lossy(&answer.body).replace(user, "somebody");
    let body =
        if answer.body == crate::cases::icon("forbidden") { "the picture of forbidden".to_owned() } else { body };
    format!("{}\n{lines}\n{body}", answer.status)
}

#[test]
fn prosody_nobody_is_enumerated() {
    nobody_is_enumerated(Kind::Prosody, Source::Roster);
}

#[test]
fn ejabberd_nobody_is_enumerated() {
    nobody_is_enumerated(Kind::Ejabberd, Source::Roster);
}

#[test]
fn ejabberd_nobody_is_enumerated_without_rosters() {
    nobody_is_enumerated(Kind::Ejabberd, Source::Listed);
}

/// Over the rate nobody unknown is looked up, known or not; whoever is visible to somebody stays so.
fn scanning_is_useless(kind: Kind, source: Source) {
    let company = visit(kind, source);
    within_a_minute(|| scan(&company));
}

fn scan(company: &Visit) {
    let installed = company.install("visibility = subscribers\n");
    let limited = installed.configuration().replace("unknown_per_minute = 0", "unknown_per_minute = 5");
    installed.configure(&limited);
    let serve = installed.serve();
    let ask = |from: &str, target: &str, asker: &str| {
        let query = format!("jid={target}@{DOMAIN}&req_jid={asker}@{DOMAIN}&type=json");
        let mut connection = Connection::open(&serve.socket);
        let params = [("REQUEST_METHOD", "GET"), ("QUERY_STRING", &query), ("REMOTE_ADDR", from)];
        connection.send(&params.map(|(name, value)| (name, value.as_bytes())));
        connection.receive().expect("an answer")
    };
    let here = "192.0.2.1";
    away(&jid("alice")).check_body("json", &ask(here, "alice", "bob"), "before");
    let guesses: Vec<String> = (0..8).map(|n| format!("guess{n}")).collect();
    let answers: Vec<Answer> = thread::scope(|scope| {
        let asked: Vec<_> = guesses.iter().map(|guess| scope.spawn(|| ask(here, guess, "bob"))).collect();
        asked.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    let mut refused = 0;
    for (guess, answer) in guesses.iter().zip(&answers) {
        match answer.status {
            403 => refused += 1,
            _ => over_the_rate(&jid(guess), answer),
        }
    }
    // The first question counted until its answer, or for its minute.
    assert!([4, 5].contains(&refused), "{refused} of {answers:?}");
    over_the_rate(&jid("alice"), &ask(here, "alice", "frank"));
    over_the_rate(&jid("gonny"), &ask(here, "gonny", "bob"));
    away(&jid("alice")).check_body("json", &ask(here, "alice", "bob"), "somebody who is visible already");
    // Another client, and the networks of IPv6.
    offline(&jid("gonny")).check_body("json", &ask("198.51.100.7", "gonny", "bob"), "another client");
    let guesses = (0..6).map(|n| (format!("2001:db8::{n}"), format!("other{n}")));
    let answers: Vec<u16> = thread::scope(|scope| {
        let asked = guesses.map(|(from, guess)| scope.spawn(move || ask(&from, &guess, "bob").status));
        let asked: Vec<_> = asked.collect();
        asked.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    assert_eq!(answers.iter().filter(|status| **status == 503).count(), 1, "{answers:?}");
}

/// The answer is that nothing is known, and nobody keeps it.
fn over_the_rate(jid: &str, answer: &Answer) {
    unknown(jid).check_body("json", answer, "over the rate");
    assert_eq!(answer.header("Cache-Control"), Some("no-store"), "{answer:?}");
    assert!(answer.header("Retry-After").is_some(), "{answer:?}");
}

#[test]
fn prosody_scanning_is_useless() {
    scanning_is_useless(Kind::Prosody, Source::Listed);
}

#[test]
fn ejabberd_scanning_is_useless() {
    scanning_is_useless(Kind::Ejabberd, Source::Roster);
}
