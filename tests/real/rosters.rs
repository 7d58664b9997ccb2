//! Somebody's own account shows its owner to those whom his roster lets see him. That a component reads the rosters of
//! others, where the server grants it, is shown beside the traces it leaves.

use crate::rig::users::Shown;
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Kind};
use crate::world::{Visit, next_number, visit, visit_newer};

fn an_account_reads_its_own(world: Visit) {
    let number = next_number();
    let identity = Identity::Account(number);
    let (us, fan, resource) = (format!("webstatus{number}"), format!("fan{number}"), "home");
    for user in [&us, &fan] {
        world.server.register(user);
        world.users.login(&format!("{user}/{resource}"), Shown { show: "away", texts: &[], priority: 0 });
    }
    world.users.add(&format!("{fan}/{resource}"), &identity.jid());
    world.users.granted(&format!("{us}/{resource}"), &format!("{fan}@{DOMAIN}"));
    // Prosody tells an account about its other clients only if it appears.
    let installed = Webpresence::tuned(&world.server, identity, "timeout = 20\nvisible = yes\n", "");
    installed.configure(&installed.configuration().replace("visibility = anyone", "visibility = subscribers"));
    for (who, may) in
        [(fan.as_str(), "may see this: has a subscription"), ("eve", "may not see this: has no subscription")]
    {
        let who = format!("{who}@{DOMAIN}");
        let output = installed.run(&["probe", "--for", &who, &identity.jid()]);
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(told.contains(": away") && told.contains(&format!("{who} {may}, by the roster")), "{told}");
    }
}

#[test]
fn prosody_an_account_reads_its_own() {
    an_account_reads_its_own(visit(Kind::Prosody));
}

#[test]
fn newer_prosody_an_account_reads_its_own() {
    an_account_reads_its_own(visit_newer(Kind::Prosody));
}

#[test]
fn ejabberd_an_account_reads_its_own() {
    an_account_reads_its_own(visit(Kind::Ejabberd));
}

#[test]
fn newer_ejabberd_an_account_reads_its_own() {
    an_account_reads_its_own(visit_newer(Kind::Ejabberd));
}
