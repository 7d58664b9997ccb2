//! The caches of nginx and Apache, as the shipped snippets switch them on: who gets what out of them, for how long, and
//! what never gets into them. The rest of the site around the snippets caches whatever it can.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::Signal;

use crate::cases::icon;
use crate::doors::{self, Door, Open, SHORT, STATUS};
use crate::rig::eventually;
use crate::rig::http::{Answer, Request};
use crate::rig::nginx;
use crate::rig::prosody::{self, LastActivity};
use crate::rig::users::{Shown, Users};
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Kind, SECRET, Xmpp};
use crate::world::{consent, next_number, visit};

const FORM: &str = "application/x-www-form-urlencoded";

/// A component that three of the cast let see them, behind a web server; its answers keep for longer than a test takes.
fn open(door: Door) -> Open {
    let world = visit(Kind::Prosody);
    let identity = Identity::Component(next_number());
    let installed = Webpresence::tuned(&world.server, identity, "timeout = 20\n", "ttl = 600\nrefresh = 300\n");
    consent(&world.users, &installed, identity, &["available", "away", "dnd"]);
    installed.configure(&format!("{}[text]\naway.de = Abwesend\naway.fr = Absent\n", installed.configuration()));
    door.open(installed)
}

/// Whether the web server had it.
fn is_hit(answer: &Answer) -> bool {
    answer.header("X-Cache").is_some_and(|said| said.starts_with("HIT"))
}

/// Twice: the second answer is the first one out of the cache.
fn kept(open: &Open, request: impl Fn() -> Request, what: &str) -> Answer {
    let (first, second) = (open.send(request()), open.send(request()));
    assert!(!is_hit(&first) && is_hit(&second), "{what}: {:?} {:?}", first.headers, second.headers);
    assert_eq!((first.status, &first.body), (second.status, &second.body), "{what}");
    for name in ["Content-Type", "Content-Length", "ETag", "Vary", "Access-Control-Allow-Origin"] {
        assert_eq!(first.header(name), second.header(name), "{what}: {name}");
    }
    second
}

/// Twice: neither answer is out of the cache.
fn passed(open: &Open, request: impl Fn() -> Request, what: &str) -> Answer {
    let answers = [open.send(request()), open.send(request())];
    assert!(!answers.iter().any(is_hit), "{what}: {answers:?}");
    let [_, second] = answers;
    second
}

/// `?JID=alice&jid=mallory` is about mallory. Names of parameters tell upper case from lower case, and an address is taken
/// as it stands: nobody gets another's answer, whoever asked before.
fn jid_in_upper_case(door: Door) {
    let open = &open(door);
    let rows = [
        ("?jid=away@example.test&type=text", "Lunch\n"),
        ("?JID=available@example.test&jid=away@example.test&type=text", "Lunch\n"),
        ("?JID=away@example.test&jid=available@example.test&type=text", "Available\n"),
        ("?jid=available@example.test&JID=away@example.test&type=text", "Available\n"),
        ("?jid=available@example.test&type=text", "Available\n"),
        ("?type=text&jid=available@example.test", "Available\n"),
        ("?type=text&jid=away%40example.test", "Lunch\n"),
        ("?type=text&jid=%61way@example.test", "Lunch\n"),
        ("?type=text&jid=AWAY@example.test", "Lunch\n"),
        ("?%6Aid=available@example.test&TYPE=xml&type=text", "Available\n"),
        ("?type=text&jid=available@example.test&type=xml", "Available\n"),
    ];
    for (query, expected) in rows {
        let answer = kept(open, || Request::get(&format!("{SHORT}{query}")), query);
        assert_eq!((answer.status, answer.text().as_str()), (200, expected), "{query}");
    }
    for query in ["?JID=away@example.test&type=text", "?Jid=away@example.test&type=text", "?type=text"] {
        let answer = passed(open, || Request::get(&format!("{SHORT}{query}")), query);
        assert_eq!((answer.status, answer.header("Cache-Control")), (400, Some("no-store")), "{query}");
    }
}

/// What HEAD brought has no body to tell.
fn head_comes_first(open: &Open) {
    for kind in ["image", "text", "json"] {
        let target = format!("{STATUS}?jid=dnd@example.test&type={kind}&first=head");
        let head = || open.send(Request::new("HEAD", &target));
        let before = head();
        let get = kept_or_held(open, &target);
        let after = head();
        assert_eq!((get.status, get.body.is_empty()), (200, false), "{kind}");
        let length = get.body.len().to_string();
        for (head, when) in [(before, "before"), (after, "after")] {
            assert_eq!((head.status, head.body.len()), (200, 0), "{kind}: HEAD {when} GET");
            for (name, value) in [("Content-Length", Some(length.as_str())), ("ETag", get.header("ETag"))] {
                assert_eq!(head.header(name), value, "{kind}: HEAD {when} GET: {name}");
            }
        }
    }
}

fn kept_or_held(open: &Open, target: &str) -> Answer {
    let (first, second) = (open.send(Request::get(target)), open.send(Request::get(target)));
    assert!(is_hit(&second), "{second:?}");
    assert_eq!(first.body, second.body, "{target}");
    second
}

/// The words of JSON follow the visitor's browser; icons do not, and are one for all.
fn languages(open: &Open) {
    let target = |kind: &str| format!("{SHORT}?jid=away@example.test&type={kind}&by=language");
    for _ in 0..2 {
        for (languages, label) in [
            (Some("de"), "Abwesend"),
            (Some("en"), "Away"),
            (None, "Away"),
            (Some("de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7"), "Abwesend"),
            (Some("fr-FR, fr;q=0.9"), "Absent"),
            (Some("de;q=0.1, fr"), "Absent"),
            (Some("it, fr;q=0.5, de;q=0.2"), "Absent"),
            (Some("it,de;q=0.2,fr;q=0.5"), "Absent"),
            (Some("it,de;q=0.2,fr"), "Absent"),
            (Some("it,es;q=0.9,pt;q=0.8,fr;q=0.7"), "Absent"),
            (Some("it,de;q=0,fr;q=0.7"), "Absent"),
            (Some("it-IT,fr-CA;q=0.9,fr;q=0.8,de;q=0.5"), "Absent"),
            (Some("en-GB,en-US;q=0.9,en;q=0.8,de;q=0.7"), "Away"),
            (Some("deu,de;q=0.9"), "Abwesend"),
            (Some("xx"), "Away"),
            (Some("*"), "Away"),
        ] {
            let request = || by(Request::get(&target("json")), "Accept-Language", languages);
            let answers = [open.send(request()), open.send(request())];
            for answer in &answers {
                assert!(answer.text().contains(&format!(r#""label":"{label}""#)), "{languages:?}: {}", answer.text());
                assert_eq!(answer.header("Vary"), Some("Accept-Language"), "{languages:?}");
            }
            assert!(is_hit(&answers[1]), "{languages:?}: {answers:?}");
        }
    }
    let icons = ["de", "en", "fr"].map(|tag| {
        let answer = open.send(Request::get(&target("image")).header("Accept-Language", tag));
        assert!(answer.body == icon("away"), "{tag}: {answer:?}");
        is_hit(&answer)
    });
    assert_eq!(icons, [false, true, true], "one icon for all languages");
}

/// Browsers write the same order of languages in different ways.
#[test]
fn one_copy_of_nginx_for_one_order_of_languages() {
    let open = open(Door::Nginx);
    for (number, (orders, others)) in [
        (
            &["de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7", "de-DE,en-US;q=0.7,en;q=0.3", "de-DE,de;q=0.8,en-US;q=0.5"][..],
            &["de-DE,de;q=0.9", "de,en-US;q=0.7,en;q=0.3", "en-US,de-DE;q=0.9"][..],
        ),
        (&["fr", "fr;q=0.9", "fr,fr;q=0.5"], &["fr-FR", "fr,de;q=0.5", "fr,de;q=0.5,en;q=0.9", "*"]),
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("{SHORT}?jid=away@example.test&type=json&by=order{number}");
        let is_kept = |tags: &&str| is_hit(&open.send(Request::get(&target).header("Accept-Language", tags)));
        assert_eq!(orders.iter().position(is_kept), Some(1), "{orders:?}");
        assert!(orders.iter().all(is_kept), "{orders:?}");
        let kept: Vec<_> = others.iter().filter(|tags| is_kept(tags)).collect();
        assert!(kept.is_empty(), "other orders: {kept:?}");
    }
}

/// As webpresence-http.conf says. Without the reload nginx would go on for a minute with the files it has open.
#[test]
fn the_cache_of_nginx_emptied() {
    let Open::Nginx { nginx, serve: _serve, installed: _installed } = &open(Door::Nginx) else { unreachable!("it is") };
    let target = format!("{SHORT}?jid=away@example.test&type=text&by=emptied");
    let told = || nginx.send(Request::get(&target)).header("X-Cache").map(str::to_owned);
    eventually("both workers have it open", || (0..20).all(|_| told().as_deref() == Some("HIT")).then_some(()));
    let shipped = nginx::shipped("webpresence-http.conf");
    let said = shipped.lines().find_map(|line| line.strip_prefix("#             find ")).expect("a command");
    let cache = format!("{}/cache ", nginx.dir().display());
    let (find, _reload) = said.split_once(';').expect("two commands");
    let find = format!("find {}", find.replace("/var/cache/nginx-webpresence ", &cache));
    assert!(Command::new("sh").arg("-c").arg(&find).status().is_ok_and(|status| status.success()), "{find}");
    nginx.signal(Signal::HUP);
    eventually("it is asked for again", || (told().as_deref() == Some("MISS")).then_some(()));
}

/// As webpresence-login.conf says: nginx takes both in one block, and nothing of one is told at the other.
#[test]
fn public_pages_beside_a_login_of_nginx() {
    let (_server, _users, installed) = passing("", "ttl = 600\nrefresh = 300\n");
    let open = doors::nginx(nginx::Snippet::LoginAndPublic(&["alice"]), installed);
    let ask = |path: &str| Request::get(&format!("{path}?jid=here@{DOMAIN}&type=text"));
    let public = kept(&open, || ask("/public/"), "public");
    assert_eq!((public.status, public.text().as_str()), (200, "Away\n"));
    for path in [SHORT, STATUS] {
        assert_eq!(passed(&open, || ask(path), "no login").status, 401, "{path}");
        let answer = passed(&open, || ask(path).login("alice", SECRET), "a login");
        assert_eq!((answer.status, answer.text().as_str()), (200, "Away\n"), "{path}");
    }
}

fn by(request: Request, name: &str, value: Option<&str>) -> Request {
    match value {
        Some(value) => request.header(name, value),
        None => request,
    }
}

/// What one visitor may see, what is wrong, and what is not known is for nobody else.
fn what_is_never_kept(open: &Open) {
    let away = "jid=away@example.test";
    for (query, status, control) in [
        (format!("{away}&images=/icons/--IMAGE--.png"), 302, "private"),
        (format!("{away}&away=/icons/away.png"), 302, "private"),
        (format!("{away}&im%61ges=/icons/--IMAGE--.png"), 302, "private"),
        ("jid=nobody@example.test&type=json".to_owned(), 403, "no-store"),
        ("jid=a@elsewhere.test&type=json".to_owned(), 403, "no-store"),
        ("jid=a@b@c&type=text".to_owned(), 400, "no-store"),
        ("jid=available@dead.test&type=text".to_owned(), 503, "no-store"),
        ("jid=available@dead.test".to_owned(), 200, "no-store"),
    ] {
        let answer = passed(open, || Request::get(&format!("{STATUS}?{query}")), &query);
        let said = answer.header("Cache-Control").unwrap_or_default();
        assert!(answer.status == status && said.starts_with(control), "{query}: {answer:?}");
    }
    let target = format!("{STATUS}?type=text&by=post");
    for (form, expected) in [("jid=away@example.test", "Lunch\n"), ("jid=available@example.test", "Available\n")] {
        let answer = passed(open, || Request::post(&target, FORM, form), form);
        assert_eq!((answer.text().as_str(), answer.header("Cache-Control")), (expected, Some("no-store")), "{form}");
    }
    let answer = passed(open, || Request::new("OPTIONS", &target).header("Origin", "https://blog.example"), "OPTIONS");
    assert_eq!(answer.status, 204);
}

/// The picture itself for a visit of its address, the redirect for a page: neither takes the other's place.
fn redirects_and_visits(open: &Open) {
    let target = format!("{STATUS}?jid=away@example.test&images=/icons/--IMAGE--.png&by=visit");
    for _ in 0..2 {
        let shown = open.send(Request::get(&target).header("Sec-Fetch-Dest", "image"));
        assert_eq!((shown.status, shown.header("Location")), (302, Some("/icons/away.png")));
        let visited = open.send(Request::get(&target).header("Sec-Fetch-Dest", "document"));
        assert!(visited.status == 200 && visited.body == icon("away"), "{visited:?}");
        for answer in [shown, visited] {
            let vary = answer.header("Vary").map(|vary| vary.replace(' ', ""));
            assert_eq!(vary.as_deref(), Some("Sec-Fetch-Mode,Sec-Fetch-Dest,Accept"), "{answer:?}");
            assert!(!is_hit(&answer), "{answer:?}");
        }
    }
}

/// A login that nobody has checked, and a cookie: neither changes anything. Apache does not even tell of the login.
fn logins_and_cookies(open: &Open) {
    let target = |what: &str| format!("{STATUS}?jid=away@example.test&type=text&by={what}");
    let answer = open.send(Request::get(&target("login")).login("alice", "a guess"));
    assert_eq!((answer.status, answer.text().as_str(), is_hit(&answer)), (200, "Lunch\n", false));
    if let Open::Nginx { .. } = open {
        assert_eq!(answer.header("Cache-Control"), Some("private, no-cache"));
        passed(open, || Request::get(&target("login")).login("alice", "a guess"), "a login");
        kept(open, || Request::get(&target("login")), "nobody's");
    }
    let answer = kept(open, || Request::get(&target("cookie")).header("Cookie", "user=alice"), "a cookie");
    assert_eq!(answer.header("Set-Cookie"), None);
    assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("*"), "{answer:?}");
}

/// Whoever has it already is told so, by the cache as by webpresence; a part is a part of the whole.
fn conditions_and_ranges(open: &Open) {
    let target = |which: &str| format!("{STATUS}?jid=away@example.test&type=xml&by={which}");
    let whole = open.send(Request::get(&target("whole")));
    let tag = whole.header("ETag").expect("an ETag").to_owned();
    for (condition, status) in [
        (tag.clone(), 304),
        (format!("W/{tag}"), 304),
        (format!("\"other\", {tag}"), 304),
        ("*".to_owned(), 304),
        ("\"other\"".to_owned(), 200),
    ] {
        let fresh = target(&format!("condition-{}", condition.len()));
        for when in ["cold", "kept"] {
            let answer = open.send(Request::get(&fresh).header("If-None-Match", &condition));
            assert_eq!((answer.status, answer.header("ETag")), (status, Some(tag.as_str())), "{when}: {condition}");
            let body = if status == 304 { Vec::new() } else { whole.body.clone() };
            assert_eq!(answer.body, body, "{when}: {condition}");
            let said = answer.header("Cache-Control").unwrap_or_default();
            assert!(said.starts_with("public, max-age="), "{when}: {condition}: {said}");
            assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("*"), "{when}: {condition}");
        }
        assert_eq!(open.send(Request::get(&fresh)).body, whole.body, "then the whole: {condition}");
    }
    for when in ["cold", "kept"] {
        let answer = open.send(Request::get(&target("range")).header("Range", "bytes=1-8"));
        let is_part = answer.status == 206 && answer.body == whole.body[1..9];
        assert!(is_part || (answer.status == 200 && answer.body == whole.body), "{when}: {answer:?}");
    }
    assert_eq!(open.send(Request::get(&target("range"))).body, whole.body, "the whole after a part");
}

/// What is kept is whole, and its tag is that of webpresence.
fn codings(open: &Open) {
    let target = format!("{STATUS}?jid=away@example.test&type=xml&by=coding");
    let plain = open.send(Request::get(&target));
    let answer = kept(open, || Request::get(&format!("{target}-asked")).header("Accept-Encoding", "gzip, br"), "gzip");
    assert_eq!((answer.header("Content-Encoding"), answer.header("Vary")), (None, None), "{answer:?}");
    assert_eq!((&answer.body, answer.header("ETag")), (&plain.body, plain.header("ETag")));
}

fn check(door: Door) {
    let open = open(door);
    head_comes_first(&open);
    languages(&open);
    what_is_never_kept(&open);
    redirects_and_visits(&open);
    logins_and_cookies(&open);
    conditions_and_ranges(&open);
    codings(&open);
    the_rest_of_max_age(&open);
}

#[test]
fn jid_alice_in_upper_case_beside_mallory_through_nginx() {
    jid_in_upper_case(Door::Nginx);
}

#[test]
fn jid_alice_in_upper_case_beside_mallory_through_mod_fcgid() {
    jid_in_upper_case(Door::Fcgid);
}

#[test]
fn jid_alice_in_upper_case_beside_mallory_through_mod_cgid() {
    jid_in_upper_case(Door::Cgid);
}

#[test]
fn the_cache_of_nginx() {
    check(Door::Nginx);
}

#[test]
fn the_cache_of_apache_with_mod_fcgid() {
    check(Door::Fcgid);
}

#[test]
fn the_cache_of_apache_with_mod_cgid() {
    check(Door::Cgid);
}

/// Somebody who may be seen and somebody who may not, at a server of their own. Times are short.
fn passing(xmpp: &str, cache: &str) -> (Xmpp, Users, Webpresence) {
    let server = prosody::start(LastActivity::Off);
    let users = Users::of(&server);
    for user in ["here", "aloof"] {
        server.register(user);
        users.login(&format!("{user}/home"), Shown { show: "away", ..Shown::default() });
    }
    let identity = Identity::Component(next_number());
    let installed = Webpresence::tuned(&server, identity, xmpp, cache);
    consent(&users, &installed, identity, &["here"]);
    (server, users, installed)
}

/// How long a browser keeps an answer that it has just got (RFC 9111, 4.2).
fn rest(answer: &Answer) -> Duration {
    let age = answer.header("Age").map_or(0, |age| age.parse().expect("a number"));
    max_age(answer).saturating_sub(Duration::from_secs(age.max(apparent_age_s(answer))))
}

fn max_age(answer: &Answer) -> Duration {
    let said = answer.header("Cache-Control").unwrap_or_default();
    let kept = said.split("max-age=").nth(1).and_then(|rest| rest.split(',').next()?.parse().ok());
    Duration::from_secs(kept.unwrap_or_else(|| panic!("no max-age in {:?}", answer.headers)))
}

fn apparent_age_s(answer: &Answer) -> u64 {
    let date = answer.header("Date").expect("a Date");
    let date = jiff::fmt::rfc2822::parse(date).unwrap_or_else(|error| panic!("{date}: {error}"));
    (Timestamp::now().as_second() - date.timestamp().as_second()).try_into().unwrap_or_default()
}

/// A browser does not keep for another max-age what the cache has had for some time.
fn the_rest_of_max_age(open: &Open) {
    let target = format!("{STATUS}?jid=away@example.test&type=text&by=rest");
    let began = Instant::now();
    let first = rest(&open.send(Request::get(&target)));
    eventually("a smaller rest", || {
        let answer = open.send(Request::get(&target));
        assert!(is_hit(&answer), "{answer:?}");
        let second = Duration::from_secs(1);
        let (rest, passed) = (rest(&answer), began.elapsed());
        assert!(rest + passed + second >= first && rest <= first, "{rest:?} after {passed:?}: {answer:?}");
        (rest + 3 * second <= first).then_some(())
    });
}

/// Headers and nginx count whole seconds, and a refusal is held for one.
const SLACK: Duration = Duration::from_secs(4);

/// Whoever takes his consent back is not told any longer than until the end of what the last answer about him said,
/// whichever type it is of, though the refusal of one is an error and that of another is not.
fn withdrawn(door: Door, longer: Duration) {
    let (_server, users, installed) = passing("linger = always\n", "ttl = 4\nrefresh = 2\nstale = 60\n");
    let identity = installed.identity;
    let open = door.open(installed);
    let ask = |kind: &str| open.send(Request::get(&format!("{STATUS}?jid=here@{DOMAIN}&type={kind}")));
    let kinds = ["text", "json", "image"];
    let ends = kinds.map(|kind| {
        let first = ask(kind);
        assert_eq!(first.status, 200, "{first:?}");
        Instant::now() + rest(&first)
    });
    assert!(kinds.iter().all(|kind| is_hit(&ask(kind))), "all are kept");
    users.revoke("here/home", &identity.jid());
    thread::scope(|scope| {
        for (kind, end) in kinds.into_iter().zip(ends) {
            let ask = &ask;
            scope.spawn(move || {
                let refused = |answer: &Answer| match kind {
                    "text" => answer.text() == "Forbidden\n",
                    "json" => answer.status == 403,
                    _ => answer.body == icon("forbidden"),
                };
                eventually("a refusal", || refused(&ask(kind)).then_some(()));
                let late = Instant::now().saturating_duration_since(end);
                assert!(late < longer + SLACK, "{kind}: {late:?} after max-age");
                assert!((0..20).all(|_| refused(&ask(kind))), "{kind}: it stays");
            });
        }
    });
}

#[test]
fn consent_withdrawn_behind_nginx() {
    withdrawn(Door::Nginx, Duration::ZERO);
}

/// The processes of mod_fcgid hear of it one after the other.
#[test]
fn consent_withdrawn_behind_apache() {
    withdrawn(Door::Fcgid, Duration::from_secs(2));
}

/// While webpresence does not answer at all: what is still told, for as long as an answer says, and a refusal not at all.
#[test]
fn nginx_without_webpresence() {
    let (_server, _users, installed) = passing("", "ttl = 2\nrefresh = 1\nstale = 4\n");
    let open = Door::Nginx.open(installed);
    let target = |user: &str| format!("{SHORT}?jid={user}@{DOMAIN}&type=text");
    let ask = |user: &str| open.send(Request::get(&target(user)));
    let [here, aloof] = ["here", "aloof"].map(|user| (Instant::now(), ask(user), Instant::now()));
    assert_eq!([here.1.text(), aloof.1.text()], ["Away\n", "Forbidden\n"]);
    let Open::Nginx { serve, .. } = &open else { unreachable!("it is") };
    serve.leash.signal(Signal::KILL);
    thread::scope(|scope| {
        for ((asked, answer, told), user, longer) in [(here, "here", 4), (aloof, "aloof", 0)] {
            let ask = &ask;
            scope.spawn(move || {
                let life = max_age(&answer) + Duration::from_secs(longer);
                let gone = eventually("no answer", || {
                    let before = Instant::now();
                    let now = ask(user);
                    assert!(now.status == 502 || now.body == answer.body, "{now:?}");
                    (now.status == 502).then_some(before)
                });
                // nginx counts whole seconds.
                let second = Duration::from_secs(1);
                assert!(gone + second > asked + life, "{user}: after {:?}", gone - asked);
                assert!(gone < told + life + 2 * second, "{user}: after {:?}", gone - told);
            });
        }
    });
}

/// The same behind Apache: nothing is told beyond its time, whatever the rest of the server does while something is
/// broken.
#[test]
fn apache_without_webpresence() {
    let (_server, _users, installed) = passing("", "ttl = 3\nrefresh = 1\nstale = 60\n");
    let open = Door::Cgid.open(installed);
    let ask = |user: &str| open.send(Request::get(&format!("{SHORT}?jid={user}@{DOMAIN}&type=text")));
    assert_eq!([ask("here").text(), ask("aloof").text()], ["Away\n", "Forbidden\n"]);
    let told = Instant::now();
    let Open::Apache { installed, .. } = &open else { unreachable!("it is") };
    installed.configure("[broken]\n");
    for (user, text) in [("here", "Away\n"), ("aloof", "Forbidden\n")] {
        eventually("no answer", || {
            let answer = ask(user);
            assert!(answer.status == 500 || answer.text() == text, "{answer:?}");
            (answer.status == 500).then_some(())
        });
        assert!(told.elapsed() < Duration::from_secs(3) + SLACK, "{user}: after {:?}", told.elapsed());
    }
}

/// The connections that nginx keeps end with the process; nobody notices.
#[test]
fn webpresence_starts_again_behind_nginx() {
    let Open::Nginx { nginx, serve, installed } = open(Door::Nginx) else { unreachable!("it is") };
    let post = || nginx.send(Request::post(SHORT, FORM, "jid=away@example.test&type=text")).text();
    let burst = |times: usize| {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..times).for_each(|_| assert_eq!(post(), "Lunch\n")));
            }
        });
    };
    burst(5);
    drop(serve);
    let _serve = installed.serve();
    burst(20);
}
