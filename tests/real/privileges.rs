//! What the servers of the tests grant a component by XEP-0356, shown by a component by hand. All four can; they differ
//! in the version of the protocol they speak.

use crate::rig::component::Component;
use crate::rig::prosody::LastActivity;
use crate::rig::users::{Shown, Users};
use crate::rig::xmpp::{DOMAIN, Identity, Privilege, Release, SECRET, Xmpp};
use crate::rig::{ejabberd, prosody};

const GRANTED: Privilege = Privilege { to: Identity::Component(0), roster: "get", presence: "roster" };

/// The component is told at once, reads the roster of a user, and finds itself in it after his consent.
fn check(server: Xmpp, namespace: &str) {
    let asker = GRANTED.to.jid();
    server.register("alice");
    let users = Users::of(&server);
    users.login("alice/desk", Shown::default());
    let mut component = Component::connect(server.ports.component, &asker, SECRET).expect("a component");
    let told = component.read_until("</privilege>").expect("a message").replace('"', "'");
    for part in [namespace, "access='roster'", "type='get'", "access='presence'", "type='roster'"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    component.send(&format!("<presence type='subscribe' from='{asker}' to='alice@{DOMAIN}'/>")).expect("sent");
    users.granted("alice/desk", &asker);
    component.send(&roster(&asker)).expect("sent");
    component.read_until("jabber:iq:roster").expect("an answer");
    let items = component.read_until("</query>").expect("an answer").replace('"', "'");
    assert!(items.contains(&format!("jid='{asker}'")) && items.contains("subscription='from'"), "{items}");
}

fn roster(asker: &str) -> String {
    format!("<iq type='get' id='r' from='{asker}' to='alice@{DOMAIN}'><query xmlns='jabber:iq:roster'/></iq>")
}

#[test]
fn prosody_grants() {
    check(prosody::start_with(Release::Stable, LastActivity::On, &[GRANTED]), "urn:xmpp:privilege:2");
}

#[test]
fn newer_prosody_grants() {
    check(prosody::start_with(Release::Newer, LastActivity::On, &[GRANTED]), "urn:xmpp:privilege:2");
}

#[test]
fn ejabberd_grants() {
    check(ejabberd::start_with(Release::Stable, &[GRANTED]), "urn:xmpp:privilege:1");
}

#[test]
fn newer_ejabberd_grants() {
    check(ejabberd::start_with(Release::Newer, &[GRANTED]), "urn:xmpp:privilege:2");
}
