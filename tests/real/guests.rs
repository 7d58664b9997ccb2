//! People who opt in from their own clients: they add the identity to their contacts, accept it, write to it, block it
//! and remove it; and somebody's own account, which shows its owner.

use crate::rig::eventually;
use crate::rig::fastcgi::Connection;
use crate::rig::users::Shown;
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Kind};
use crate::world::{Visit, next_number, visit};

const HERE: Shown = Shown { show: "away", texts: &[("", "Lunch")], priority: 0 };

/// Nothing is older than a second.
const CACHE: &str = "ttl = 1\nrefresh = 0\nstale = 0";

pub fn somebody(world: &Visit, user: &str) {
    world.server.register(user);
    world.users.login(&format!("{user}/home"), HERE);
}

/// Adds the identity, and accepts its request in return.
pub fn opt_in(world: &Visit, user: &str, identity: Identity) {
    world.users.add(&format!("{user}/home"), &identity.jid());
    world.users.granted(&format!("{user}/home"), &identity.jid());
}

/// A component that holds its session: what people do is seen by the next request, whatever is in the cache.
fn a_component_that_holds_its_session(kind: Kind) {
    let world = visit(kind);
    somebody(&world, "guest");
    let identity = Identity::Component(next_number());
    let installed = Webpresence::tuned(&world.server, identity, "linger = always", "ttl = 3600");
    let serve = installed.serve();
    let mut connection = Connection::open(&serve.socket);
    let mut text = || connection.ask(&format!("jid=guest@{DOMAIN}&type=text")).text();
    // A push comes by itself; how soon is the server's affair.
    let mut becomes = |word: &str| eventually(word, || (text() == format!("{word}\n")).then_some(()));

    becomes("Forbidden");
    opt_in(&world, "guest", identity);
    becomes("Lunch");
    world.users.show("guest/home", Shown { show: "dnd", texts: &[("", "Writing")], priority: 0 });
    becomes("Writing");

    let asker = identity.jid();
    let say = |text: &str| world.users.say("guest/home", &asker, text);
    assert_eq!(say("text off"), "Your status text is no longer shown, until you write: on");
    becomes("Do not disturb");
    assert_eq!(say("coarse"), "Only whether you are there is shown, until you write: on");
    becomes("Available");
    assert_eq!(say("off"), "You are no longer shown, until you write: on");
    becomes("Forbidden");
    assert!(say("what can I say?").starts_with("I tell a web site whether you are there."));
    assert_eq!(say("on"), "You are shown again, as this site is set up.");
    becomes("Writing");

    world.users.remove("guest/home", &asker);
    becomes("Forbidden");
    opt_in(&world, "guest", identity);
    becomes("Writing");
}

#[test]
fn prosody_a_component_that_holds_its_session() {
    a_component_that_holds_its_session(Kind::Prosody);
}

#[test]
fn ejabberd_a_component_that_holds_its_session() {
    a_component_that_holds_its_session(Kind::Ejabberd);
}

/// What somebody told one process holds for every other, whatever becomes of that process.
#[test]
fn a_choice_outlasts_the_process_that_heard_it() {
    let world = visit(Kind::Prosody);
    somebody(&world, "chooser");
    let identity = Identity::Component(next_number());
    let installed = Webpresence::tuned(&world.server, identity, "linger = always", CACHE);
    let serve = installed.serve();
    // With this answer the component is connected: Prosody would return what goes to one that is not.
    let asked = Connection::open(&serve.socket).ask(&format!("jid=chooser@{DOMAIN}&type=text"));
    assert_eq!(asked.text(), "Forbidden\n");
    opt_in(&world, "chooser", identity);
    world.users.say("chooser/home", &identity.jid(), "coarse");
    drop(serve);
    let text = installed.get(&format!("jid=chooser@{DOMAIN}&type=text")).text();
    assert_eq!(text, "Available\n");
    let probe = installed.run(&["probe", &format!("chooser@{DOMAIN}")]);
    assert!(!String::from_utf8_lossy(&probe.stdout).contains("Lunch"), "{probe:?}");
}

/// An account is asked by CGI, without anything that runs: its session collects what waited for it.
fn an_account(kind: Kind) {
    let world = visit(kind);
    somebody(&world, "visitor");
    let identity = Identity::Account(next_number());
    world.server.register(identity.jid().split('@').next().expect("an account"));
    let installed = Webpresence::tuned(&world.server, identity, "accept_subscriptions = yes", CACHE);
    let text = || installed.get(&format!("jid=visitor@{DOMAIN}&type=text")).text();
    world.users.add("visitor/home", &identity.jid());
    // He is asked back by the session of this request, and may be quick to accept.
    assert!(["Forbidden\n", "Lunch\n"].contains(&text().as_str()));
    world.users.granted("visitor/home", &identity.jid());
    assert_eq!(text(), "Lunch\n");
    world.users.remove("visitor/home", &identity.jid());
    assert_eq!(text(), "Forbidden\n");
}

#[test]
fn prosody_an_account() {
    an_account(Kind::Prosody);
}

#[test]
fn ejabberd_an_account() {
    an_account(Kind::Ejabberd);
}

/// Somebody who blocks the identity (XEP-0191) is not offline, he is not to be seen.
fn blocked(kind: Kind) {
    let world = visit(kind);
    for identity in [Identity::Component(next_number()), Identity::Account(next_number())] {
        let user = match identity {
            Identity::Component(_) => "blocker",
            Identity::Account(_) => "shutter",
        };
        somebody(&world, user);
        if let Identity::Account(number) = identity {
            world.server.register(&format!("webstatus{number}"));
        }
        let installed = Webpresence::tuned(&world.server, identity, "", CACHE);
        crate::world::consent(&world.users, &installed, identity, &[user]);
        let text = || installed.get(&format!("jid={user}@{DOMAIN}&type=text")).text();
        assert_eq!(text(), "Lunch\n");
        world.users.block(&format!("{user}/home"), &identity.jid());
        assert_eq!(text(), "Forbidden\n", "{identity:?}");
    }
}

#[test]
fn prosody_blocked() {
    blocked(Kind::Prosody);
}

#[test]
fn ejabberd_blocked() {
    blocked(Kind::Ejabberd);
}

/// The account that asks is the person: without being seen where the server allows it, else only on purpose.
fn own_account(kind: Kind, unseen: &str) {
    let world = visit(kind);
    let identity = Identity::Account(next_number());
    let jid = identity.jid();
    let user = jid.split('@').next().expect("an account");
    world.server.register(user);
    world.users.login(&format!("{user}/home"), HERE);
    let installed = Webpresence::tuned(&world.server, identity, "", CACHE);
    let text = |installed: &Webpresence| installed.get(&format!("jid={jid}&type=text")).text();
    assert_eq!(text(&installed), unseen);
    let visible = installed.configuration().replace("[xmpp]\n", "[xmpp]\nvisible = yes\n");
    installed.configure(&visible);
    assert_eq!(text(&installed), "Lunch\n");
    world.users.logout(&format!("{user}/home"), &[]);
    assert_eq!(text(&installed), "Unavailable\n");
}

#[test]
fn prosody_own_account() {
    own_account(Kind::Prosody, "Unknown\n");
}

#[test]
fn ejabberd_own_account() {
    own_account(Kind::Ejabberd, "Lunch\n");
}

/// `listen` holds a session as long as somebody wants to watch people opt in; `unsubscribe` gives it all back.
#[test]
fn listen_and_unsubscribe() {
    let world = visit(Kind::Ejabberd);
    somebody(&world, "attendee");
    let identity = Identity::Account(next_number());
    world.server.register(identity.jid().split('@').next().expect("an account"));
    let installed = Webpresence::tuned(&world.server, identity, "accept_subscriptions = yes", CACHE);
    let listening = installed.listen();
    eventually("the session is held", || listening.log().contains("people can add it").then_some(()));
    opt_in(&world, "attendee", identity);
    eventually("it is told", || listening.log().contains(&format!("attendee@{DOMAIN}: has accepted")).then_some(()));
    let reply = world.users.say("attendee/home", &identity.jid(), "help");
    assert!(reply.starts_with("I tell a web site whether you are there."), "{reply}");
    drop(listening);
    let text = || installed.get(&format!("jid=attendee@{DOMAIN}&type=text")).text();
    assert_eq!(text(), "Lunch\n");
    let output = installed.run(&["unsubscribe", &format!("attendee@{DOMAIN}")]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(told, format!("attendee@{DOMAIN}: is no longer seen by {}\n", identity.jid()));
    assert_eq!(text(), "Forbidden\n");
}
