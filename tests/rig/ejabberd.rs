//! Debian's ejabberd, started in the foreground with `ejabberd.yml`, without epmd: the node listens on a port of its
//! own on loopback (`ERL_DIST_PORT`) and nothing of Erlang stays behind.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::leash::{Leash, directory};
use super::xmpp::{DOMAIN, Kind, Ports, SECRET, Xmpp};
use super::{certificate, fill, http, patiently, port, program};

pub fn start() -> Xmpp {
    port::retrying("ejabberd", try_start)
}

fn try_start() -> Result<Xmpp, String> {
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
        ],
    );
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("the directory is ours");
    write("ejabberd.yml", &config);
    // No name outside this machine exists, and no resolver is asked.
    write("inetrc", "{lookup,[file]}.\n{host,{127,0,0,1},[\"localhost\"]}.\n");
    write("ejabberdctl.cfg", &format!("ERL_DIST_PORT={node}\nINET_DIST_INTERFACE=127.0.0.1\n"));
    write("api", &api.to_string());
    let mut command = Command::new(starter(dir.path()));
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
    ready(Xmpp { kind: Kind::Ejabberd, ports, authority: certificate.authority, leash })
}

/// Debian's own starter, but for its wish to be root or ejabberd: the leash has seen to who we are.
fn starter(dir: &Path) -> PathBuf {
    let text = fs::read_to_string(program("ejabberdctl", "ejabberd")).expect("ejabberdctl is a script");
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

fn api(server: &Xmpp) -> u16 {
    let text = fs::read_to_string(server.leash.dir().join("api")).expect("written at the start");
    text.parse().expect("a port")
}

/// By ejabberd's own HTTP API: `ejabberdctl` starts a second Erlang for each call.
pub(super) fn register(server: &Xmpp, user: &str) {
    let body = format!("{{\"user\":\"{user}\",\"host\":\"{DOMAIN}\",\"password\":\"{SECRET}\"}}");
    let answer = http::Request::post("/api/register", "application/json", &body).send(api(server));
    assert_eq!(answer.status, 200, "register {user}: {answer:?}");
}
