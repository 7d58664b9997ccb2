//! What is remembered between two logins of an account, by processes that know nothing else of each other: the second
//! says everything in one write, with a token instead of the password.

use std::fs;

use crate::rig::eventually;
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Kind};
use crate::world::{next_number, visit_newer};

fn the_second_login_shows_a_token(kind: Kind, log: &str) {
    let world = visit_newer(kind);
    let identity = Identity::Account(next_number());
    world.server.register(identity.jid().split('@').next().expect("an account"));
    let installed = Webpresence::new(&world.server, identity);
    let away = || installed.get(&format!("jid=away@{DOMAIN}&type=text")).text();
    let tokens = || {
        let log = fs::read_to_string(world.server.leash.dir().join(log)).expect("the server writes it");
        log.lines().filter(|line| line.contains("mechanism='HT-SHA-256") || line.contains("c2s HT-SHA-256")).count()
    };
    let before = tokens();
    assert_eq!(away(), "Forbidden\n");
    let facts = installed.facts();
    assert!(facts.contains("\"token\""), "{facts}");
    assert_eq!(away(), "Forbidden\n");
    eventually("the server has seen the token", || (tokens() > before).then_some(()));
    // A token that the server does not know is no harm: the password is tried in its place.
    let spoilt = facts.replace("\"secret\":\"", "\"secret\":\"AAAA");
    assert_ne!(spoilt, facts);
    installed.write_facts(&spoilt);
    assert_eq!(away(), "Forbidden\n");
    assert_ne!(installed.facts(), spoilt, "another token is in its place");
}

#[test]
fn newer_prosody_the_second_login_shows_a_token() {
    the_second_login_shows_a_token(Kind::Prosody, "prosody.log");
}

#[test]
fn newer_ejabberd_the_second_login_shows_a_token() {
    the_second_login_shows_a_token(Kind::Ejabberd, "logs/ejabberd.log");
}
