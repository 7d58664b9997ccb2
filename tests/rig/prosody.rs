//! Debian's Prosody, stable's or the newer one of its backports, started in the foreground with `prosody.cfg.lua`. The
//! newer one has SASL2, Bind 2 and FAST switched on; stable's modules for that are broken (they send no features).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::leash::{Leash, directory};
use super::xmpp::{DOMAIN, IDLE, Identity, Kind, OTHER, Ports, Privilege, ROOMS, Release, SECRET, Xmpp};
use super::{certificate, fill, patiently, port, program, unpacked};

/// Whether the server remembers when somebody left and what he said (mod_lastactivity); Debian leaves it off.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum LastActivity {
    Off,
    On,
}

pub fn start(last_activity: LastActivity) -> Xmpp {
    start_with(Release::Stable, last_activity, &[])
}

pub fn start_with(release: Release, last_activity: LastActivity, privileges: &[Privilege]) -> Xmpp {
    start_edited(release, last_activity, privileges, &|config| config)
}

/// With its configuration file as `edit` leaves it.
pub fn start_edited(
    release: Release,
    last_activity: LastActivity,
    privileges: &[Privilege],
    edit: &dyn Fn(String) -> String,
) -> Xmpp {
    port::retrying("prosody", || try_start(release, last_activity, privileges, edit))
}

fn try_start(
    release: Release,
    last_activity: LastActivity,
    privileges: &[Privilege],
    edit: &dyn Fn(String) -> String,
) -> Result<Xmpp, String> {
    let dir = directory("prosody");
    fs::create_dir(dir.path().join("data")).expect("the directory is ours");
    let certificate = certificate::make(dir.path(), DOMAIN);
    let [client, client_tls, component, s2s] = port::free();
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
            ("PLUGINS", &plugins(release, privileges, dir.path())),
            ("MODULES", &modules(release, last_activity, privileges)),
            ("PRIVILEGES", &entities(privileges)),
            ("COMPONENTS", &components(privileges)),
        ],
    );
    let path = dir.path().join("prosody.cfg.lua");
    fs::write(&path, edit(config)).expect("the directory is ours");
    if release == Release::Newer {
        write_scripts(dir.path());
    }
    let mut command = Command::new(executable("prosody", release, dir.path()));
    command.arg("-F").arg("--config").arg(&path).env("HOME", dir.path());
    let leash = Leash::start(dir, Some("prosody"), &mut command, &["prosody.log"]);
    let ports = Ports { client, client_tls, component };
    let server = Xmpp { kind: Kind::Prosody, release, ports, authority: certificate.authority, leash };
    ready(server)
}

/// One of Prosody's scripts.
fn executable(name: &str, release: Release, dir: &Path) -> PathBuf {
    match release {
        Release::Stable => program(name, "prosody"),
        Release::Newer => dir.join(name),
    }
}

/// The newer ones are told where they have been unpacked.
fn write_scripts(dir: &Path) {
    let usr = unpacked("prosody-newer", dir).join("usr");
    let library = format!("'{}/lib/prosody", usr.display());
    for name in ["prosody", "prosodyctl"] {
        let script = fs::read_to_string(usr.join("bin").join(name)).expect("a script");
        fs::write(dir.join(name), script.replace("'/usr/lib/prosody", &library)).expect("the directory is ours");
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).expect("the directory is ours");
    }
}

/// Where stable's Prosody finds the community's modules; the newer one has them among its own.
fn plugins(release: Release, privileges: &[Privilege], dir: &Path) -> String {
    match release {
        Release::Stable if !privileges.is_empty() => {
            format!("\"{}/usr/lib/prosody/modules\"", unpacked("prosody-stable", dir).display())
        }
        _ => String::new(),
    }
}

fn modules(release: Release, last_activity: LastActivity, privileges: &[Privilege]) -> String {
    let wanted = [
        (last_activity == LastActivity::On, "\"lastactivity\";"),
        (release == Release::Newer, "\"sasl2\"; \"sasl2_bind2\"; \"sasl2_fast\"; \"admin_shell\";"),
        (!privileges.is_empty(), "\"privilege\";"),
    ];
    wanted.iter().filter(|(wanted, _)| *wanted).map(|(_, names)| *names).collect()
}

fn entities(privileges: &[Privilege]) -> String {
    let entity = |Privilege { to, roster, presence }: &Privilege| {
        format!("[\"{}\"] = {{ roster = \"{roster}\"; presence = \"{presence}\" }};", to.jid())
    };
    privileges.iter().map(entity).collect()
}

fn components(privileges: &[Privilege]) -> String {
    let external = |name: &str| {
        let is_privileged = privileges.iter().any(|privilege| privilege.to.jid() == name);
        let modules = if is_privileged { "\tmodules_enabled = { \"privilege\" }\n" } else { "" };
        format!("Component \"{name}\"\n\tcomponent_secret = \"{SECRET}\"\n{modules}")
    };
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
    control(server, &["register", user, DOMAIN, SECRET]);
}

/// As the admin does it. Stable's does not tell the running server, the newer one asks it to.
pub(super) fn remove(server: &Xmpp, user: &str) {
    control(server, &["deluser", &format!("{user}@{DOMAIN}")]);
}

fn control(server: &Xmpp, words: &[&str]) {
    let dir = server.leash.dir();
    let mut command = Command::new(executable("prosodyctl", server.release, dir));
    command.arg("--config").arg(dir.join("prosody.cfg.lua")).args(words);
    let output = command.output().expect("prosodyctl starts");
    assert!(output.status.success(), "prosodyctl {words:?}: {output:?}");
}
