//! The stand itself.

use crate::rig::component::Component;
use crate::rig::users::{Shown, Users};
use crate::rig::xmpp::{DOMAIN, Identity, SECRET, Xmpp};
use crate::rig::{ejabberd, prosody};

/// A component by hand gets the consent of a user and then his presence: the server, the client and the consent are
/// real.
fn check(server: Xmpp) {
    let asker = Identity::Component(0).jid();
    server.register("alice");
    let users = Users::of(&server);
    users.login("alice/desk", Shown { show: "away", texts: &[("", "Lunch"), ("de", "Mittag")], priority: 5 });
    let mut component = Component::connect(server.ports.component, &asker, SECRET).expect("a component");
    component.send(&format!("<presence type='subscribe' from='{asker}' to='alice@{DOMAIN}'/>")).expect("sent");
    users.granted("alice/desk", &asker);
    // Another component at the same port takes none of the answers.
    let _bystander =
        Component::connect(server.ports.component, &Identity::Component(1).jid(), SECRET).expect("another");
    for round in 0..20 {
        component.send(&format!("<presence type='probe' from='{asker}/{round}' to='alice@{DOMAIN}'/>")).expect("sent");
        component.read_until(&format!("{asker}/{round}")).expect("an answer");
        let presence = component.read_until("</presence>").expect("an answer");
        for part in ["<show>away</show>", "Lunch</status>", "Mittag</status>", "<priority>5</priority>"] {
            assert!(presence.contains(part), "{part} in {presence}");
        }
    }
}

#[test]
fn prosody_tells_a_component_by_hand() {
    check(prosody::start(prosody::LastActivity::On));
}

#[test]
fn ejabberd_tells_a_component_by_hand() {
    check(ejabberd::start());
}
