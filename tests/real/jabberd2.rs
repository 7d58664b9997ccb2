//! jabberd2 (2.7), of which facts are known that no other server shares: it ends a stream on which a question comes
//! before the resource is bound, does not answer a login that comes in one piece with the header, and leaves the
//! probes of an account that shows itself to nobody unanswered. Whoever asks gets the right answer all the same.

use std::fs;

use crate::cases::{Case, TYPES, cases, offline};
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Kind, OTHER};
use crate::world::{Visit, visit};

/// The people, the server itself and a component. Nobody's last words are kept here, there are no rooms, and no other
/// server can be reached.
fn cases_here() -> impl Iterator<Item = Case> {
    let hosts = |case: &Case| case.jid.ends_with("@example.test") || [DOMAIN, OTHER].contains(&case.jid.as_str());
    let forgets = |case: Case| if case.jid == "gone@example.test" { offline("gone@example.test") } else { case };
    cases().into_iter().filter(hosts).map(forgets)
}

fn check(installed: &Webpresence) {
    for case in cases_here() {
        for kind in TYPES {
            case.check(kind, &installed.get(&format!("jid={}&type={kind}", case.jid)));
        }
    }
}

#[test]
fn jabberd2_component_by_command() {
    check(&Webpresence::new(&visit(Kind::Jabberd2).server, Identity::Component(0)));
}

/// The first answer takes a login more, and the second neither that nor anything else that the first has taught.
#[test]
fn jabberd2_account_by_command() {
    let world = visit(Kind::Jabberd2);
    let installed = Webpresence::new(&world.server, Identity::Account(0));
    let text = |user: &str| installed.get(&format!("jid={user}@{DOMAIN}&type=text")).text();
    let account = installed.identity.jid();
    let before = logins(&world, &account);
    assert_eq!(text("away"), "Lunch\n");
    // Not two: it may still be busy with the first when the second comes in, and refuse that.
    let taught = logins(&world, &account);
    assert!(taught - before >= 2, "the first login had questions behind it");
    let facts = fs::read_to_string(installed.state().join(format!("{account}.facts"))).expect("written");
    for learned in [r#""pace":"FeaturesFirst""#, r#""wants_presence":true"#] {
        assert!(facts.contains(learned), "{learned} in {facts}");
    }
    assert_eq!(text("chat"), "Ask me anything\n");
    assert_eq!(logins(&world, &account) - taught, 1);
    check(&installed);
}

/// How often jabberd2 has let the account in.
fn logins(world: &Visit, account: &str) -> usize {
    let log = fs::read_to_string(world.server.leash.dir().join("c2s.log")).expect("jabberd2 writes it");
    log.matches(&format!("authentication succeeded: {account} ")).count()
}
