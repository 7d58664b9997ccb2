//! A thousand people of each kind on a server: who has agreed to be seen but not by whoever asks here, who has been
//! asked for his consent and has not answered, and who is not there. All names are equally long.

use std::fs;
use std::process::Command;
use std::thread;

use crate::rig::users::{Shown, Users};
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Kind, Xmpp};
use crate::rig::{ejabberd, eventually};

pub const COUNT: usize = 1000;
const PROCESSES: usize = 10;

/// The three kinds, and what begins their names.
pub const KINDS: [(&str, &str); 3] =
    [("exists, not allowed", "known"), ("request pending", "asked"), ("does not exist", "ghost")];

pub fn name(kind: usize, number: usize) -> String {
    format!("{}{number:04}", KINDS[kind].1)
}

/// Makes them; the requests for consent come from the installation that is asked later, which remembers them.
pub fn make(server: &Xmpp, installed: &Webpresence, identity: Identity) {
    match server.kind {
        Kind::Prosody => copy(server, installed, identity),
        Kind::Ejabberd => {
            for number in 0..COUNT {
                server.register(&name(0, number));
                agree(server, &name(0, number), identity);
                server.register(&name(1, number));
            }
        }
        Kind::Jabberd2 => unreachable!("it has no XEP-0356"),
    }
    let asked: Vec<String> = (0..COUNT).map(|number| format!("{}@{DOMAIN}", name(1, number))).collect();
    // One process holds the session; in it each of the others waits for its own people.
    let listening = installed.listen();
    eventually("the session is held", || listening.log().contains("people can add it").then_some(()));
    thread::scope(|scope| {
        for some in asked.chunks(COUNT.div_ceil(PROCESSES)) {
            scope.spawn(|| some.chunks(20).for_each(|few| ask_for_consent(installed, few)));
        }
    });
}

fn ask_for_consent(installed: &Webpresence, people: &[String]) {
    let arguments: Vec<&str> = ["subscribe"].into_iter().chain(people.iter().map(String::as_str)).collect();
    let output = installed.run(&arguments);
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(told.matches("asked; has to accept").count(), people.len(), "{output:?}");
}

/// As an admin who lets the identity see somebody without asking him.
fn agree(server: &Xmpp, user: &str, identity: Identity) {
    let local = format!(r#""localuser":"{user}","localhost":"{DOMAIN}""#);
    let item = format!(r#""user":"","host":"{}","nick":"Web","group":"Web","subs":"from""#, identity.jid());
    ejabberd::call(server, "add_rosteritem", &format!("{{{local},{item}}}"));
}

/// `prosodyctl` takes half a second for each: one who has really agreed, and one who has not heard of it, become many.
fn copy(server: &Xmpp, installed: &Webpresence, identity: Identity) {
    let users = Users::of(server);
    server.register("model0");
    server.register("model1");
    users.login("model0/home", Shown::default());
    let output = installed.run(&["subscribe", &format!("model0@{DOMAIN}")]);
    assert!(output.status.success(), "{output:?}");
    users.granted("model0/home", &identity.jid());
    users.logout("model0/home", &[]);
    drop(users);
    let data = server.leash.dir().join("data").join(DOMAIN.replace('.', "%2e"));
    let (accounts, rosters) = (data.join("accounts"), data.join("roster"));
    for (folder, kinds) in [(&accounts, &[0, 1][..]), (&rosters, &[0])] {
        for kind in kinds {
            let model = folder.join(format!("model{kind}.dat"));
            let copies: Vec<_> = (0..COUNT).map(|number| folder.join(format!("{}.dat", name(*kind, number)))).collect();
            for copy in &copies {
                fs::copy(&model, copy).expect("Prosody has written it");
            }
            let owned = Command::new("chown").arg("--reference").arg(&model).args(&copies).status();
            assert!(owned.is_ok_and(|status| status.success()), "chown");
        }
    }
}
