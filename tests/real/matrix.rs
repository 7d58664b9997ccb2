//! Everybody, in every type of answer, asked for by every identity, at every XMPP server, through every door.

use crate::cases::{TYPES, cases};
use crate::doors::{Door, SHORT, STATUS};
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{Identity, Kind};
use crate::world::{Visit, visit, visit_newer};

fn check(world: &Visit, identity: Identity, door: Door) {
    let open = door.open(Webpresence::new(&world.server, identity));
    for case in cases() {
        for (kind, path) in TYPES.iter().zip([STATUS, SHORT].iter().cycle()) {
            case.check(kind, &open.ask(path, &format!("jid={}&type={kind}", case.jid)));
        }
    }
}

/// One test for each line: its name, the server, the identity, the door. Each has an identity of its own.
macro_rules! matrix {
    ($visit:ident: $($name:ident: $server:ident, $identity:ident, $door:ident;)*) => {
        $(#[test]
        fn $name() {
            check(&$visit(Kind::$server), Identity::$identity(Door::$door as usize), Door::$door);
        })*
    };
}

matrix! { visit:
    prosody_component_by_command: Prosody, Component, Get;
    prosody_component_by_cgi: Prosody, Component, Cgi;
    prosody_component_through_nginx: Prosody, Component, Nginx;
    prosody_component_through_mod_fcgid: Prosody, Component, Fcgid;
    prosody_component_through_mod_cgid: Prosody, Component, Cgid;
    prosody_account_by_command: Prosody, Account, Get;
    prosody_account_by_cgi: Prosody, Account, Cgi;
    prosody_account_through_nginx: Prosody, Account, Nginx;
    prosody_account_through_mod_fcgid: Prosody, Account, Fcgid;
    prosody_account_through_mod_cgid: Prosody, Account, Cgid;
    ejabberd_component_by_command: Ejabberd, Component, Get;
    ejabberd_component_by_cgi: Ejabberd, Component, Cgi;
    ejabberd_component_through_nginx: Ejabberd, Component, Nginx;
    ejabberd_component_through_mod_fcgid: Ejabberd, Component, Fcgid;
    ejabberd_component_through_mod_cgid: Ejabberd, Component, Cgid;
    ejabberd_account_by_command: Ejabberd, Account, Get;
    ejabberd_account_by_cgi: Ejabberd, Account, Cgi;
    ejabberd_account_through_nginx: Ejabberd, Account, Nginx;
    ejabberd_account_through_mod_fcgid: Ejabberd, Account, Fcgid;
    ejabberd_account_through_mod_cgid: Ejabberd, Account, Cgid;
}

// What is behind the doors does not know them apart: one is enough for the newer servers.
matrix! { visit_newer:
    newer_prosody_component_by_command: Prosody, Component, Get;
    newer_prosody_account_by_command: Prosody, Account, Get;
    newer_ejabberd_component_by_command: Ejabberd, Component, Get;
    newer_ejabberd_account_by_command: Ejabberd, Account, Get;
}

/// The cast by an account whose connection is TLS from the first byte.
fn direct_tls(world: &Visit, number: usize) {
    let installed = Webpresence::tuned(&world.server, Identity::Account(number), "security = direct", "");
    let line = |port: u16| format!("\nport = {port}\n");
    let ports = world.server.ports;
    installed.configure(&installed.configuration().replace(&line(ports.client), &line(ports.client_tls)));
    for case in cases() {
        case.check("json", &installed.get(&format!("jid={}&type=json", case.jid)));
    }
}

#[test]
fn prosody_account_by_direct_tls() {
    direct_tls(&visit(Kind::Prosody), 14);
}

#[test]
fn newer_prosody_account_by_direct_tls() {
    direct_tls(&visit_newer(Kind::Prosody), 1);
}

#[test]
fn ejabberd_account_by_direct_tls() {
    direct_tls(&visit(Kind::Ejabberd), 14);
}

#[test]
fn newer_ejabberd_account_by_direct_tls() {
    direct_tls(&visit_newer(Kind::Ejabberd), 1);
}
