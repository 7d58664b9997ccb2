//! Debian's jabberd2, which `unpack.sh` has put below `target/servers`, with the configuration it comes with but for
//! ports, paths, the domain and TLS. Components connect to its router, with the router's own secret. Whoever is
//! registered becomes a user with his first login.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::leash::{Leash, directory};
use super::xmpp::{DOMAIN, Kind, Ports, Release, SECRET, Xmpp};
use super::{certificate, patiently, port, program, repository, unpacked};

pub fn start() -> Xmpp {
    port::retrying("jabberd2", try_start)
}

fn try_start() -> Result<Xmpp, String> {
    let dir = directory("jabberd2");
    let certificate = certificate::make(dir.path(), DOMAIN);
    let both = [&certificate.chain, &certificate.key].map(|file| fs::read_to_string(file).expect("just made"));
    fs::write(dir.path().join("server.pem"), both.concat()).expect("the directory is ours");
    let [client, client_tls, component] = port::free();
    let ports = Ports { client, client_tls, component };
    let root = unpacked("jabberd2", dir.path());
    let libraries = libraries(&root);
    configure(dir.path(), &root, &libraries, ports);
    let mut command = python();
    command.args(["run".as_ref(), root.join("usr/sbin").as_os_str()]);
    command.arg(root.join("usr/share/doc/jabberd2/db-setup.sqlite.gz")).arg(component.to_string());
    let modules = libraries.join("jabberd2");
    command.env("LD_LIBRARY_PATH", format!("{}:{}", libraries.display(), modules.display()));
    let leash = Leash::start(dir, Some("nobody"), &mut command, &["router.log", "sm.log", "c2s.log"]);
    let authority = certificate.authority;
    ready(Xmpp { kind: Kind::Jabberd2, release: Release::Stable, ports, authority, leash })
}

fn python() -> Command {
    let mut command = Command::new(program("python3", "python3"));
    command.arg(repository("tests/rig/jabberd2.py"));
    command
}

/// The folder with the libraries of this machine's architecture.
fn libraries(root: &Path) -> PathBuf {
    let mut folders = fs::read_dir(root.join("usr/lib")).expect("unpacked").flatten().map(|entry| entry.path());
    folders.find(|folder| folder.join("jabberd2").is_dir()).expect("jabberd2's modules")
}

/// Debian's own files with what is true here.
fn configure(dir: &Path, root: &Path, libraries: &Path, ports: Ports) {
    let here = dir.display().to_string();
    let Ports { client, client_tls, component } = ports;
    let clients = format!("<port>{client}</port><ssl-port>{client_tls}</ssl-port><pemfile>{here}/server.pem</pemfile>");
    let machine = libraries.file_name().expect("a folder").display();
    let words = [
        ("/var/run/jabberd2", here.as_str()),
        ("/var/log/jabberd2", &here),
        ("/var/lib/jabberd2", &here),
        ("/etc/jabberd2", &here),
        (&format!("/usr/lib/{machine}"), &libraries.display().to_string()),
        ("0.0.0.0", "127.0.0.1"),
        ("<port>5347</port>", &format!("<port>{component}</port>")),
        ("<port>5222</port>", &clients),
        ("<secret>secret</secret>", &format!("<secret>{SECRET}</secret>")),
        ("<pass>secret</pass>", &format!("<pass>{SECRET}</pass>")),
        ("localhost.localdomain", DOMAIN),
        ("<id register-enable='mu'>", &format!("<id require-starttls='mu' pemfile='{here}/server.pem'>")),
        ("<!--\n    <auto-create/>\n    -->", "<auto-create/>"),
    ];
    for name in ["router", "router-users", "router-filter", "sm", "c2s"] {
        let file = format!("{name}.xml");
        let original = fs::read_to_string(root.join("etc/jabberd2").join(&file)).expect("Debian's configuration");
        let text = words.iter().fold(original, |text, (theirs, ours)| text.replace(theirs, ours));
        fs::write(dir.join(&file), text).expect("the directory is ours");
    }
}

/// All of its parts have found each other.
fn ready(mut server: Xmpp) -> Result<Xmpp, String> {
    let up = patiently(|| {
        let log = fs::read_to_string(server.leash.dir().join("sm.log")).unwrap_or_default();
        match server.leash.ended() {
            Some(_) => Some(false),
            None => (log.contains("ready for sessions") && server.answers()).then_some(true),
        }
    });
    if up == Some(true) { Ok(server) } else { Err(server.leash.log()) }
}

pub(super) fn register(server: &Xmpp, user: &str) {
    let mut command = python();
    command.args(["register", user, DOMAIN, SECRET]).current_dir(server.leash.dir());
    let output = command.output().expect("python3 starts");
    assert!(output.status.success(), "register {user}: {output:?}");
}
