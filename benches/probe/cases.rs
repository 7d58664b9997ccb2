//! What is measured: servers, ways to log in, and how many round trips each should cost. A server more is a row more.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::rig::component::Component;
use crate::rig::leash::{Leash, directory};
use crate::rig::xmpp::{OTHER, Release, SECRET, Xmpp};
use crate::rig::{ejabberd, eventually, program, prosody};

pub struct Server {
    pub name: &'static str,
    pub start: fn() -> Xmpp,
    /// Round trips of an account over direct TLS, from the connection to the answer, when this machine knows the
    /// server: SASL2 with PLAIN or FAST 3, with SCRAM 4; SASL1 with PLAIN 4, with SCRAM 5.
    pub account: u32,
    /// The same at the first contact: without a token, and with a look at the features first.
    pub first: u32,
    pub tokens: Tokens,
    /// Answers wait so long for more, since the server does not keep the order (`inquiry::GRACE`).
    pub grace: Duration,
}

/// What becomes of the tokens that a server gives for the next login (FAST).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {
    Kept,
    /// So that the password is proved each time.
    Removed,
}

const NONE: Duration = Duration::ZERO;
const GRACE: Duration = Duration::from_millis(200);

pub const SERVERS: &[Server] = &[
    Server { account: 5, first: 6, ..row("Prosody 0.12, SCRAM", debian_prosody) },
    Server { account: 4, first: 5, ..row("Prosody 0.12, PLAIN", || with_plain(debian_prosody())) },
    Server { account: 3, first: 5, ..row("Prosody 13, SASL2, FAST", newer_prosody) },
    Server { account: 4, first: 5, tokens: Tokens::Removed, ..row("Prosody 13, SASL2, SCRAM", newer_prosody) },
    Server {
        account: 3,
        first: 4,
        tokens: Tokens::Removed,
        ..row("Prosody 13, SASL2, PLAIN", || with_plain(newer_prosody()))
    },
    Server { account: 5, first: 6, grace: GRACE, ..row("ejabberd 23, SCRAM", ejabberd::start) },
    Server { account: 3, first: 5, grace: GRACE, ..row("ejabberd 24, SASL2, FAST", newer_ejabberd) },
];

const fn row(name: &'static str, start: fn() -> Xmpp) -> Server {
    Server { name, start, account: 0, first: 0, tokens: Tokens::Kept, grace: NONE }
}

fn debian_prosody() -> Xmpp {
    prosody::start(prosody::LastActivity::Off)
}

fn newer_prosody() -> Xmpp {
    prosody::start_with(Release::Newer, prosody::LastActivity::Off, &[])
}

fn newer_ejabberd() -> Xmpp {
    ejabberd::start_with(Release::Newer, &[])
}

/// The same Prosody, started again to offer nothing but PLAIN over TLS.
fn with_plain(scram: Xmpp) -> Xmpp {
    let dir = directory("prosody-plain");
    let copied = Command::new("cp").arg("-r").arg(scram.leash.dir().join(".")).arg(dir.path()).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp of a server's directory");
    let old = scram.leash.dir().display().to_string();
    let moved = |name: &str| {
        let text = fs::read_to_string(dir.path().join(name)).expect("the rig wrote it");
        text.replace(&old, &dir.path().display().to_string())
    };
    let config = dir.path().join("prosody.cfg.lua");
    let plain = "disable_sasl_mechanisms = { \"SCRAM-SHA-1\", \"SCRAM-SHA-1-PLUS\" }\n";
    fs::write(&config, format!("{plain}{}", moved("prosody.cfg.lua"))).expect("the directory is ours");
    let prosody = match scram.release {
        Release::Stable => program("prosody", "prosody"),
        Release::Newer => {
            for script in ["prosody", "prosodyctl"] {
                fs::write(dir.path().join(script), moved(script)).expect("the directory is ours");
            }
            dir.path().join("prosody")
        }
    };
    let authority = dir.path().join(scram.authority.file_name().expect("a file"));
    drop(scram.leash);
    let mut command = Command::new(prosody);
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
            Way::StartTls => server.account + 1,
            Way::FirstContact => server.first,
            Way::Lingering => 1,
        }
    }
}
