//! Debian's Prosody, started in the foreground with `prosody.cfg.lua`.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::leash::{Leash, directory};
use super::xmpp::{DOMAIN, IDLE, Identity, Kind, OTHER, Ports, ROOMS, SECRET, Xmpp};
use super::{certificate, fill, patiently, port, program};

/// Whether the server remembers when somebody left and what he said (mod_lastactivity); Debian leaves it off.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum LastActivity {
    Off,
    On,
}

pub fn start(last_activity: LastActivity) -> Xmpp {
    port::retrying("prosody", || try_start(last_activity))
}

fn try_start(last_activity: LastActivity) -> Result<Xmpp, String> {
    let dir = directory("prosody");
    fs::create_dir(dir.path().join("data")).expect("the directory is ours");
    let certificate = certificate::make(dir.path(), DOMAIN);
    let [client, client_tls, component, s2s] = port::free();
    let modules = if last_activity == LastActivity::On { "\"lastactivity\";" } else { "" };
    let config = fill(
        include_str!("prosody.cfg.lua"),
        &[
            ("DIR", &dir.path().display().to_string()),
            ("DOMAIN", DOMAIN),
            ("C2S", &client.to_string()),
            ("C2STLS", &client_tls.to_string()),
            ("COMPONENT", &component.to_string()),
            ("S2S", &s2s.to_string()),
            ("CERT", &certificate.chain.display().to_string()),
            ("KEY", &certificate.key.display().to_string()),
            ("MODULES", modules),
            ("COMPONENTS", &components()),
        ],
    );
    let path = dir.path().join("prosody.cfg.lua");
    fs::write(&path, config).expect("the directory is ours");
    let mut command = Command::new(program("prosody", "prosody"));
    command.arg("-F").arg("--config").arg(&path).env("HOME", dir.path());
    let leash = Leash::start(dir, Some("prosody"), &mut command, &["prosody.log"]);
    let ports = Ports { client, client_tls, component };
    let server = Xmpp { kind: Kind::Prosody, ports, authority: certificate.authority, leash };
    ready(server)
}

fn components() -> String {
    let external = |name: &str| format!("Component \"{name}\"\n\tcomponent_secret = \"{SECRET}\"\n");
    let identities = (0..Identity::COUNT).map(|number| external(&Identity::Component(number).jid()));
    let rooms = format!("Component \"{ROOMS}\" \"muc\"\n");
    identities.chain([external(OTHER), external(IDLE), rooms]).collect()
}

/// Prosody goes on without a port it cannot have; its log and a handshake show that the ports are its own.
fn ready(mut server: Xmpp) -> Result<Xmpp, String> {
    let up = patiently(|| {
        let log = fs::read_to_string(server.leash.dir().join("prosody.log")).unwrap_or_default();
        if server.leash.ended().is_some() || log.contains("Failed to open server port") {
            return Some(false);
        }
        server.answers().then_some(true)
    });
    if up == Some(true) { Ok(server) } else { Err(server.leash.log()) }
}

pub(super) fn register(server: &Xmpp, user: &str) {
    let config = server.leash.dir().join("prosody.cfg.lua");
    let output = prosodyctl(&config, &["register", user, DOMAIN, SECRET]);
    assert!(output.status.success(), "prosodyctl register {user}: {output:?}");
}

fn prosodyctl(config: &Path, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(program("prosodyctl", "prosody"));
    command.arg("--config").arg(config).args(arguments).output().expect("prosodyctl starts")
}
