//! Debian's ejabberd, stable's or the newer one of its backports, started in the foreground with `ejabberd.yml`, without
//! epmd: the node listens on a port of its own on loopback (`ERL_DIST_PORT`) and nothing of Erlang stays behind. The
//! newer one has SASL2 and Bind 2 built in; FAST is switched on.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::leash::{Leash, directory};
use super::xmpp::{DOMAIN, Kind, Ports, Privilege, Release, SECRET, Xmpp};
use super::{certificate, fill, http, patiently, port, program, unpacked};

pub fn start() -> Xmpp {
    start_with(Release::Stable, &[])
}

pub fn start_with(release: Release, privileges: &[Privilege]) -> Xmpp {
    start_edited(release, privileges, &|config| config)
}

/// With its configuration file as `edit` leaves it.
pub fn start_edited(release: Release, privileges: &[Privilege], edit: &dyn Fn(String) -> String) -> Xmpp {
    port::retrying("ejabberd", || try_start(release, privileges, edit))
}

fn try_start(release: Release, privileges: &[Privilege], edit: &dyn Fn(String) -> String) -> Result<Xmpp, String> {
    let dir = directory("ejabberd");
    let certificate = certificate::make(dir.path(), DOMAIN);
    let [client, client_tls, component, api, node] = port::free();
    let config = fill(
        include_str!("ejabberd.yml"),
        &[
            ("DOMAIN", DOMAIN),
            ("C2S", &client.to_string()),
            ("C2STLS", &client_tls.to_string()),
            ("HTTP", &api.to_string()),
            ("CERT", &certificate.chain.display().to_string()),
            ("KEY", &certificate.key.display().to_string()),
            ("COMPONENT", &component.to_string()),
            ("SECRET", SECRET),
            ("MODULES", &modules(release, privileges)),
        ],
    );
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("the directory is ours");
    write("ejabberd.yml", &edit(config));
    // No name outside this machine exists, and no resolver is asked.
    write("inetrc", "{lookup,[file]}.\n{host,{127,0,0,1},[\"localhost\"]}.\n");
    write("ejabberdctl.cfg", &format!("ERL_DIST_PORT={node}\nINET_DIST_INTERFACE=127.0.0.1\n"));
    write("api", &api.to_string());
    let mut command = Command::new(starter(release, dir.path()));
    for name in ["spool", "logs"] {
        fs::create_dir(dir.path().join(name)).expect("the directory is ours");
    }
    for (option, name) in
        [("-d", ""), ("-s", "spool"), ("-l", "logs"), ("-f", "ejabberd.yml"), ("-c", "ejabberdctl.cfg")]
    {
        command.arg(option).arg(dir.path().join(name));
    }
    command.args(["-n", "tests@localhost", "foreground"]).env("HOME", dir.path());
    let leash = Leash::start(dir, Some("ejabberd"), &mut command, &["logs/ejabberd.log"]);
    let ports = Ports { client, client_tls, component };
    ready(Xmpp { kind: Kind::Ejabberd, release, ports, authority: certificate.authority, leash })
}

/// The modules that not every ejabberd of the tests has.
fn modules(release: Release, privileges: &[Privilege]) -> String {
    let fast = if release == Release::Newer { "  mod_auth_fast: {}\n" } else { "" };
    if privileges.is_empty() {
        return fast.to_owned();
    }
    let roster = granted(privileges, |privilege| privilege.roster);
    let presence = granted(privileges, |privilege| privilege.presence);
    format!("{fast}  mod_privilege:\n    roster:\n{roster}    presence:\n{presence}")
}

/// For each kind of access a rule that allows it to its components.
fn granted(privileges: &[Privilege], access: impl Fn(&Privilege) -> &'static str) -> String {
    let kinds: BTreeSet<&str> = privileges.iter().map(&access).collect();
    let rule = |kind: &&str| {
        let theirs = privileges.iter().filter(|privilege| access(privilege) == *kind);
        let allowed = theirs.map(|privilege| format!("        - allow: {{server: \"{}\"}}\n", privilege.to.jid()));
        format!("      {kind}:\n{}", allowed.collect::<String>())
    };
    kinds.iter().map(rule).collect()
}

/// Debian's own starter, but for its wish to be root or ejabberd: the leash has seen to who we are. The newer one is
/// told where its libraries have been unpacked; Erlang looks there before it takes the installed ones.
fn starter(release: Release, dir: &Path) -> PathBuf {
    let text = match release {
        Release::Stable => fs::read_to_string(program("ejabberdctl", "ejabberd")).expect("ejabberdctl is a script"),
        Release::Newer => {
            let usr = unpacked("ejabberd-newer", dir).join("usr");
            let text = fs::read_to_string(usr.join("sbin/ejabberdctl")).expect("ejabberdctl is a script");
            let usr = usr.display();
            text.replace("ERL_LIBS='/usr/lib/", &format!("ERL_LIBS='{usr}/lib/erlang/lib:{usr}/lib/"))
        }
    };
    let text = text.replace("INSTALLUSER=ejabberd", "INSTALLUSER=");
    let path = dir.join("ejabberdctl");
    fs::write(&path, text.replace("as_current_user) \"$@\"", "as_current_user) exec \"$@\"")).expect("ours");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
    path
}

fn ready(mut server: Xmpp) -> Result<Xmpp, String> {
    let up = patiently(|| match server.leash.ended() {
        Some(_) => Some(false),
        None => (TcpStream::connect(("127.0.0.1", api(&server))).is_ok() && server.answers()).then_some(true),
    });
    if up == Some(true) { Ok(server) } else { Err(server.leash.log()) }
}

/// The port of its HTTP.
pub fn api(server: &Xmpp) -> u16 {
    let text = fs::read_to_string(server.leash.dir().join("api")).expect("written at the start");
    text.parse().expect("a port")
}

pub(super) fn register(server: &Xmpp, user: &str) {
    call(server, "register", &format!("{{\"user\":\"{user}\",\"host\":\"{DOMAIN}\",\"password\":\"{SECRET}\"}}"));
}

pub(super) fn remove(server: &Xmpp, user: &str) {
    call(server, "unregister", &format!("{{\"user\":\"{user}\",\"host\":\"{DOMAIN}\"}}"));
}

/// By ejabberd's own HTTP API: `ejabberdctl` starts a second Erlang for each call.
pub fn call(server: &Xmpp, command: &str, body: &str) {
    let answer = http::Request::post(&format!("/api/{command}"), "application/json", body).send(api(server));
    assert_eq!(answer.status, 200, "{command} {body}: {answer:?}");
}
