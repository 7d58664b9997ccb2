//! Processes of one identity at the same time, each asked for the same few people: Prosody refuses a second session of a
//! component, ejabberd would give each some of the other's answers. They share one session, and each answer is right.

use std::thread;

use crate::cases::cases;
use crate::rig::fastcgi::Connection;
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{Identity, Kind};
use crate::world::visit;

fn check(kind: Kind, identity: Identity) {
    let world = visit(kind);
    let installed = Webpresence::new(&world.server, identity);
    for _ in 0..3 {
        thread::scope(|scope| {
            for case in cases().into_iter().take(7) {
                let installed = &installed;
                scope.spawn(move || case.check("json", &installed.get(&format!("jid={}&type=json", case.jid))));
            }
        });
    }
}

#[test]
fn prosody_component_processes_share_a_session() {
    check(Kind::Prosody, Identity::Component(10));
}

#[test]
fn ejabberd_component_processes_share_a_session() {
    check(Kind::Ejabberd, Identity::Component(10));
}

#[test]
fn prosody_account_processes_share_a_session() {
    check(Kind::Prosody, Identity::Account(10));
}

#[test]
fn ejabberd_account_processes_share_a_session() {
    check(Kind::Ejabberd, Identity::Account(10));
}

/// `webpresence serve` keeps its session open for the next question; a command uses it.
fn a_lingering_session(kind: Kind) {
    let world = visit(kind);
    let installed = Webpresence::tuned(&world.server, Identity::Component(13), "linger = 600", "");
    let serve = installed.serve();
    let mut connection = Connection::open(&serve.socket);
    for case in cases().into_iter().take(5) {
        assert_eq!(connection.ask(&format!("jid={}&type=xml", case.jid)).text(), case.xml, "by serve");
        case.check("xml", &installed.get(&format!("jid={}&type=xml", case.jid)));
    }
}

#[test]
fn prosody_a_lingering_session() {
    a_lingering_session(Kind::Prosody);
}

#[test]
fn ejabberd_a_lingering_session() {
    a_lingering_session(Kind::Ejabberd);
}
