//! What is measured: servers, ways to log in, and how many round trips each should cost. A server more is a row more.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::rig::component::Component;
use crate::rig::leash::{Leash, directory};
use crate::rig::xmpp::{OTHER, SECRET, Xmpp};
use crate::rig::{ejabberd, eventually, program, prosody};

pub struct Server {
    pub name: &'static str,
    pub start: fn() -> Xmpp,
    /// Round trips of an account over direct TLS, from the connection to the answer, when this machine knows the
    /// server: SASL2 with PLAIN or FAST 3, with SCRAM 4; SASL1 with PLAIN 4, with SCRAM 5.
    pub account: u32,
    /// Answers wait so long for more, since the server does not keep the order (`inquiry::GRACE`).
    pub grace: Duration,
}

const NONE: Duration = Duration::ZERO;
const GRACE: Duration = Duration::from_millis(200);

pub const SERVERS: &[Server] = &[
    Server { name: "Prosody, SCRAM", start: debian_prosody, account: 5, grace: NONE },
    Server { name: "Prosody, PLAIN", start: prosody_with_plain, account: 4, grace: NONE },
    Server { name: "ejabberd, SCRAM", start: ejabberd::start, account: 5, grace: GRACE },
];

fn debian_prosody() -> Xmpp {
    prosody::start(prosody::LastActivity::Off)
}

/// The same one, started again to offer nothing but PLAIN over TLS.
fn prosody_with_plain() -> Xmpp {
    let scram = debian_prosody();
    let dir = directory("prosody-plain");
    let copied = Command::new("cp").arg("-r").arg(scram.leash.dir().join(".")).arg(dir.path()).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp of a server's directory");
    let old = scram.leash.dir().display().to_string();
    let config = dir.path().join("prosody.cfg.lua");
    let text = fs::read_to_string(&config).expect("the rig wrote it").replace(&old, &dir.path().display().to_string());
    let plain = "disable_sasl_mechanisms = { \"SCRAM-SHA-1\", \"SCRAM-SHA-1-PLUS\" }\n";
    fs::write(&config, format!("{plain}{text}")).expect("the directory is ours");
    let authority = dir.path().join(scram.authority.file_name().expect("a file"));
    drop(scram.leash);
    let mut command = Command::new(program("prosody", "prosody"));
    command.arg("-F").arg("--config").arg(&config).env("HOME", dir.path());
    let leash = Leash::start(dir, Some("prosody"), &mut command, &["prosody.log"]);
    let server = Xmpp { authority, leash, ..scram };
    eventually("Prosody with PLAIN answers", || Component::connect(server.ports.component, OTHER, SECRET).ok());
    server
}

/// How the presence is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A cold component.
    Component,
    /// A cold account of a server that this machine has seen before.
    Direct,
    StartTls,
    /// An account of a server that this machine sees for the first time, over direct TLS.
    FirstContact,
    /// A question to a session that is open already.
    Lingering,
}

pub const WAYS: [Way; 5] = [Way::Component, Way::Direct, Way::StartTls, Way::FirstContact, Way::Lingering];

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Way::Component => "component",
            Way::Direct => "account, direct TLS",
            Way::StartTls => "account, STARTTLS",
            Way::FirstContact => "account, direct TLS, first contact",
            Way::Lingering => "component, session open",
        }
    }

    pub fn expected(self, server: &Server) -> u32 {
        match self {
            Way::Component => 3,
            Way::Direct => server.account,
            Way::StartTls | Way::FirstContact => server.account + 1,
            Way::Lingering => 1,
        }
    }
}
