//! Where the web server's login is believed, no TCP port is listened on: whoever reaches one could send any name. It is
//! refused however the socket came, and whenever the configuration changes to it.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::rig::eventually;
use crate::rig::fastcgi::Connection;
use crate::rig::leash::{Leash, directory};
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::Identity;

const BELIEVES: &str = "[access]\nrequester = remote-user\n";
/// Needs no XMPP server.
const QUERY: &str = "jid=a@elsewhere.test&type=text";

/// Its XMPP server is nowhere, and nobody needs it.
fn installed() -> Webpresence {
    let xmpp = "[xmpp]\njid = presence.example.test\npassword = x\nport = 1\n";
    Webpresence::written(Identity::Component(0), xmpp, "")
}

fn refused(port: &str, section: &str) -> String {
    needs_a_file(&format!("{port} is a TCP socket"), section)
}

fn needs_a_file(what: &str, section: &str) -> String {
    format!(
        "{what}, where anybody can say that he has logged in: requester = remote-user in [{section}] needs a Unix \
         socket for its owner and group alone (mode=0660)"
    )
}

#[test]
fn no_port_is_taken_whoever_opened_it() {
    let installed = installed();
    installed.configure(&installed.configuration().replace("[access]\n", BELIEVES));
    let output = installed.run(&["serve", "--listen", "127.0.0.1:0"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let port = told.strip_prefix("webpresence: ").and_then(|told| told.split_once(" is ")).map(|(port, _)| port);
    let expected = refused(port.expect("it names the port"), "access");
    assert_eq!((output.status.code(), told), (Some(1), format!("webpresence: {expected}\n")));

    let executable = env!("CARGO_BIN_EXE_webpresence");
    let passed = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\" 3<&0 </dev/null";
    for (way, begin) in [
        ("on fd 0", vec![executable]),
        ("by serve on fd 0", vec![executable, "serve"]),
        ("as systemd does", vec!["sh", "-c", passed, "sh", executable]),
        ("by serve as systemd does", vec!["sh", "-c", passed, "sh", executable, "serve"]),
    ] {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("bound").to_string();
        let mut command = Command::new(begin[0]);
        command.args(&begin[1..]).arg("--config").arg(&installed.config).stdin(Stdio::from(OwnedFd::from(socket)));
        let output = command.output().expect("it starts");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let expected = format!("webpresence: {}\n", refused(&port, "access"));
        assert_eq!((output.status.code(), told), (Some(1), expected), "{way}");
    }
}

#[test]
fn a_port_keeps_the_old_configuration() {
    let installed = installed();
    let old = installed.configuration();
    let dir = directory("ports");
    let socket = dir.path().join("webpresence.sock");
    let mut command = Command::new(env!("CARGO_BIN_EXE_webpresence"));
    command.arg("serve").arg("--config").arg(&installed.config);
    command.arg("--listen").arg(format!("unix:{}", socket.display())).arg("--listen").arg("127.0.0.1:0");
    let serve = Leash::start(dir, None, &mut command, &[]);
    eventually("it accepts", || UnixStream::connect(&socket).ok());
    let ask = || Connection::open(&socket).ask(QUERY).text();
    assert_eq!(ask(), "Forbidden\n");

    let further = "[xmpp two]\njid = two.example.test\npassword = x\n[access two]\nrequester = remote-user\n";
    installed.configure(&format!("{old}{further}[text]\nforbidden = Not you\n"));
    serve.signal(Signal::HUP);
    let log = eventually("the new configuration is refused", || {
        Some(serve.log()).filter(|log| log.contains("the old configuration stays: 127.0.0.1:"))
    });
    assert!(log.contains(&refused("", "access two")), "{log}");
    assert_eq!(ask(), "Forbidden\n", "the old one is kept");

    installed.configure(&format!("{old}[text]\nforbidden = Not you\n"));
    serve.signal(Signal::HUP);
    eventually("a sound one is taken", || (ask() == "Not you\n").then_some(()));
}

#[test]
fn a_file_is_as_good_as_its_mode() {
    let installed = installed();
    installed.configure(&installed.configuration().replace("[access]\n", BELIEVES));
    let serve = installed.serve();
    assert_eq!(Connection::open(&serve.socket).ask(QUERY).text(), "Forbidden\n");

    let dir = directory("ports");
    let socket = format!("unix:{}", dir.path().join("webpresence.sock").display());
    let output = installed.run(&["serve", "--listen", &format!("{socket},mode=0666")]);
    let expected = needs_a_file(&format!("{socket} is open to every user of this machine"), "access");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), told), (Some(1), format!("webpresence: {expected}\n")));
}
