//! People who move: several resources, consent given and taken back, connections that break, texts in languages.

use crate::cases::forbidden;
use crate::rig::prosody::LastActivity;
use crate::rig::users::{Shown, Users};
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Kind, Xmpp};
use crate::rig::{eventually, prosody};
use crate::world::{Visit, consent, next_number, visit, visit_newer};

/// Somebody who is online at "home" and has let a new component see him.
fn person(world: &Visit, user: &str, shown: Shown) -> Webpresence {
    world.server.register(user);
    world.users.login(&format!("{user}/home"), shown);
    acquainted(&world.server, &world.users, user)
}

fn acquainted(server: &Xmpp, users: &Users, user: &str) -> Webpresence {
    let identity = Identity::Component(next_number());
    let installed = Webpresence::new(server, identity);
    consent(users, &installed, identity, &[user]);
    installed
}

fn text(installed: &Webpresence, user: &str) -> String {
    installed.get(&format!("jid={user}@{DOMAIN}&type=text")).text()
}

fn two_resources(kind: Kind) {
    let world = visit(kind);
    let installed = person(&world, "twofold", Shown { show: "dnd", texts: &[("", "At work")], priority: 9 });
    world.users.login("twofold/phone", Shown { show: "away", texts: &[("", "On the road")], priority: 1 });
    world.users.login("twofold/robot", Shown { show: "", texts: &[("", "I am a robot")], priority: -1 });
    assert_eq!(text(&installed, "twofold"), "On the road\n", "the most available one of those that count");
    let by_priority = installed.configuration().replace("[xmpp]\n", "[xmpp]\nresource = highest-priority\n");
    installed.configure(&by_priority);
    assert_eq!(text(&installed, "twofold"), "At work\n", "the one with the highest priority");
    world.users.logout("twofold/home", &[("", "Home now")]);
    assert_eq!(text(&installed, "twofold"), "On the road\n", "one of several has gone");
    world.users.logout("twofold/phone", &[]);
    assert_eq!(text(&installed, "twofold"), "I am a robot\n", "a negative priority counts where there is no other");
    world.users.show("twofold/robot", Shown { show: "xa", texts: &[], priority: -1 });
    assert_eq!(text(&installed, "twofold"), "Extended away\n");
}

#[test]
fn prosody_two_resources() {
    two_resources(Kind::Prosody);
}

#[test]
fn ejabberd_two_resources() {
    two_resources(Kind::Ejabberd);
}

fn consent_is_taken_back(world: Visit) {
    let installed = person(&world, "fickle", Shown { show: "", texts: &[("", "Here")], priority: 0 });
    assert_eq!(text(&installed, "fickle"), "Here\n");
    let asker = installed.identity.jid();
    world.users.revoke("fickle/home", &asker);
    let case = forbidden("fickle@example.test");
    case.check("xml", &installed.get(&format!("jid={}&type=xml", case.jid)));
}

#[test]
fn prosody_consent_is_taken_back() {
    consent_is_taken_back(visit(Kind::Prosody));
}

#[test]
fn newer_prosody_consent_is_taken_back() {
    consent_is_taken_back(visit_newer(Kind::Prosody));
}

#[test]
fn ejabberd_consent_is_taken_back() {
    consent_is_taken_back(visit(Kind::Ejabberd));
}

#[test]
fn newer_ejabberd_consent_is_taken_back() {
    consent_is_taken_back(visit_newer(Kind::Ejabberd));
}

/// Asked, looked at on the web before he has answered, and then he says yes: on Prosody a probe in between would have
/// taken the request away from him.
fn consent_may_take_its_time(world: Visit) {
    world.server.register("slow");
    world.users.login_unasked("slow/home", Shown { show: "away", texts: &[("", "Thinking")], priority: 0 });
    let installed = Webpresence::new(&world.server, Identity::Component(next_number()));
    let output = installed.run(&["subscribe", "slow@example.test"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("asked"), "{output:?}");
    assert_eq!(text(&installed, "slow"), "Forbidden\n");
    assert_eq!(text(&installed, "slow"), "Forbidden\n", "also for the second who looks");
    world.users.approve("slow/home", &installed.identity.jid());
    assert_eq!(text(&installed, "slow"), "Thinking\n");
    world.users.revoke("slow/home", &installed.identity.jid());
    assert_eq!(text(&installed, "slow"), "Forbidden\n");
}

#[test]
fn prosody_consent_may_take_its_time() {
    consent_may_take_its_time(visit(Kind::Prosody));
}

#[test]
fn newer_prosody_consent_may_take_its_time() {
    consent_may_take_its_time(visit_newer(Kind::Prosody));
}

#[test]
fn ejabberd_consent_may_take_its_time() {
    consent_may_take_its_time(visit(Kind::Ejabberd));
}

#[test]
fn newer_ejabberd_consent_may_take_its_time() {
    consent_may_take_its_time(visit_newer(Kind::Ejabberd));
}

/// What a server writes as the last status of a broken connection is not the user's word.
fn a_broken_connection(kind: Kind) {
    let world = visit(kind);
    let installed = person(&world, "broken", Shown { show: "", texts: &[("", "Here")], priority: 0 });
    assert_eq!(text(&installed, "broken"), "Here\n");
    world.users.vanish("broken/home");
    let gone = eventually("the server sees that the connection is gone", || {
        Some(text(&installed, "broken")).filter(|text| text != "Here\n")
    });
    assert_eq!(gone, "Unavailable\n");
}

#[test]
fn prosody_a_broken_connection() {
    a_broken_connection(Kind::Prosody);
}

#[test]
fn ejabberd_a_broken_connection() {
    a_broken_connection(Kind::Ejabberd);
}

/// As Debian sets Prosody up: it knows who has gone, but not with which words.
#[test]
fn prosody_without_last_activity() {
    let server = prosody::start(LastActivity::Off);
    server.register("gone");
    let users = Users::of(&server);
    users.login("gone/home", Shown::default());
    let installed = acquainted(&server, &users, "gone");
    users.logout("gone/home", &[("", "See you tomorrow")]);
    assert_eq!(text(&installed, "gone"), "Unavailable\n");
    assert_eq!(text(&installed, "nobody"), "Forbidden\n");
}

/// Text and XML follow `lang` alone, JSON also the browser's languages.
fn languages(kind: Kind) {
    let world = visit(kind);
    let installed =
        person(&world, "polyglot", Shown { show: "away", texts: &[("", "Lunch"), ("de", "Mittag")], priority: 0 });
    let ask = |more: &str, accept: &str| {
        let query = format!("jid=polyglot@{DOMAIN}&{more}");
        let vars = [("REQUEST_METHOD", "GET"), ("QUERY_STRING", &query), ("HTTP_ACCEPT_LANGUAGE", accept)];
        installed.cgi(&vars, b"").text()
    };
    assert_eq!(ask("type=text", "de"), "Lunch\n");
    assert_eq!(ask("type=text&lang=de-AT", ""), "Mittag\n");
    assert_eq!(ask("type=text&lang=fr", "de"), "Lunch\n");
    assert!(ask("type=json", "fr;q=0.9, de;q=0.8").contains(r#""status":"Mittag""#));
    assert!(ask("type=json&lang=en", "de").contains(r#""status":"Lunch""#));
}

#[test]
fn prosody_languages() {
    languages(Kind::Prosody);
}

#[test]
fn ejabberd_languages() {
    languages(Kind::Ejabberd);
}

/// Since when somebody is away is told only where the admin wants it.
fn since_when(kind: Kind) {
    let world = visit(kind);
    let installed = person(&world, "sleeper", Shown { show: "xa", texts: &[], priority: 0 });
    let since = || {
        let answer = installed.get(&format!("jid=sleeper@{DOMAIN}&type=json")).text();
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        answer["since"].as_str().map(str::to_owned)
    };
    assert_eq!(since(), None);
    installed.configure(&format!("{}[privacy]\nshow_since = yes\n", installed.configuration()));
    let online = since().expect("a time");
    world.users.logout("sleeper/home", &[("", "Gone")]);
    let offline = since().expect("a time");
    for time in [&online, &offline] {
        assert!(time.len() == "2026-01-01T00:00:00Z".len() && time.ends_with('Z'), "{time}");
    }
    assert!(online <= offline, "{online} {offline}");
}

#[test]
fn prosody_since_when() {
    since_when(Kind::Prosody);
}

#[test]
fn ejabberd_since_when() {
    since_when(Kind::Ejabberd);
}
