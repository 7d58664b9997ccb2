//! TLS by every library of this build: which certificates are believed and what is told of the others, what a login is
//! bound to, and the way to real servers.

use std::path::Path;
use std::time::Duration;

use ring::digest::{Algorithm, SHA256, SHA384, digest};
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use tempfile::TempDir;
use tokio::time::Instant;
use webpresence::config::{self, Identity as Asking, TlsLibrary};
use webpresence::probe::connect::Channel;
use webpresence::probe::login::Bindings;
use webpresence::probe::steps::Steps;

use crate::cases::{Case, cases};
use crate::rig::certificate::{self, Certificate};
use crate::rig::leash::directory;
use crate::rig::tls::{TlsEnd, read};
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Kind, SECRET};
use crate::world::visit;

/// An authority, and what it and others have signed for [`DOMAIN`].
struct Drawer {
    dir: TempDir,
    right: Certificate,
}

impl Drawer {
    fn new() -> Drawer {
        let dir = directory("certificates");
        let right = certificate::make(dir.path(), DOMAIN);
        Drawer { dir, right }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

fn is_rustls(library: TlsLibrary) -> bool {
    library.word() == "rustls"
}

/// An account whose server is at this port.
fn account(library: TlsLibrary, port: u16, ca_file: &Path, more: &str) -> Asking {
    let text = format!(
        "[xmpp]\njid = bot@{DOMAIN}\npassword = x\nhost = 127.0.0.1\nport = {port}\ntls = {}\nca_file = {}\n{more}\n",
        library.word(),
        ca_file.display()
    );
    let config = config::parse(&text, Path::new("/etc/webpresence.ini")).unwrap_or_else(|e| panic!("{text}\n{e}"));
    config.identities.into_iter().next().expect("an identity")
}

/// The bindings of a connection, once TLS is up; else what is told.
fn connect(identity: &Asking) -> Result<Bindings, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (deadline, steps) = (Instant::now() + Duration::from_secs(20), Steps::default());
        let mut channel = Channel::open(identity, deadline, &steps).await.map_err(|failure| failure.to_string())?;
        if channel.bindings().is_none() {
            channel = channel.secure(identity, deadline, &steps).await.map_err(|failure| failure.to_string())?;
        }
        Ok(channel.bindings().expect("TLS is up"))
    })
}

const CLOCK: &str = "this machine's date is ";

/// What is told, without the day on which the test runs.
fn told(outcome: Result<Bindings, String>) -> String {
    let Err(told) = outcome else { return "connected".to_owned() };
    match told.split_once(CLOCK) {
        Some((front, rest)) => format!("{front}{CLOCK}{}", &rest["2026-01-01".len()..]),
        None => told,
    }
}

#[test]
fn what_a_certificate_lacks_is_told() {
    let drawer = Drawer::new();
    let dir = drawer.path();
    let other = directory("certificates");
    let stranger = certificate::make(other.path(), DOMAIN);
    let names = ["www.example.test", "mail.example.test"];
    let wrong = certificate::signed(dir, "wrong", &names, "");
    let expired = certificate::expired(dir, "expired", &[DOMAIN]);
    let early = certificate::early(dir, "early", &[DOMAIN]);
    let own = certificate::own(dir, "own", &[DOMAIN]);
    let own_wrong = certificate::own(dir, "own-wrong", &names);
    let named = "expected example.test; the certificate is for www.example.test, mail.example.test";
    let not_named = "expected example.test; the certificate is not for this name";
    let clock = format!("{CLOCK}: is its clock right?");
    let nobody =
        "nobody who is trusted here vouches for the certificate; ca_file can name who does, or the certificate";
    let issuer = "the server shows a certificate that is made for issuing others; it needs one of its own";
    let right = &drawer.right;
    for (shown, authority, by_rustls, by_native) in [
        (right, &right.authority, "", ""),
        (right, &stranger.authority, nobody, nobody),
        (&stranger, &right.authority, nobody, nobody),
        (&wrong, &right.authority, named, not_named),
        (
            &expired,
            &right.authority,
            &*format!("the certificate was valid until 2020-02-01; {clock}"),
            &*format!("the certificate is no longer valid; {clock}"),
        ),
        (
            &early,
            &right.authority,
            &*format!("the certificate is valid only from 2048-01-01; {clock}"),
            &*format!("the certificate is not valid yet; {clock}"),
        ),
        // It is the very certificate that the admin has named.
        (&own, &own.authority, "", ""),
        (&own, &right.authority, issuer, nobody),
        (&own_wrong, &own_wrong.authority, named, not_named),
    ] {
        let end = TlsEnd::start(shown, &TLS13, None);
        for library in TlsLibrary::ALL {
            let expected = match if is_rustls(*library) { by_rustls } else { by_native } {
                "" => "connected".to_owned(),
                reason => format!("TLS with example.test failed: {reason}"),
            };
            for more in ["security = direct", "security = starttls"] {
                let outcome = connect(&account(*library, end.port, authority, more));
                assert_eq!(told(outcome), expected, "{library:?}, {more}: {}", shown.chain.display());
            }
            let careless = account(*library, end.port, authority, "security = direct\nverify = no");
            assert_eq!(told(connect(&careless)), "connected", "{library:?}: {}", shown.chain.display());
        }
    }
}

#[test]
fn files_that_are_none_are_named() {
    let drawer = Drawer::new();
    let end = TlsEnd::start(&drawer.right, &TLS13, None);
    let empty = drawer.path().join("empty.pem");
    std::fs::write(&empty, "").expect("the directory is ours");
    for library in TlsLibrary::ALL {
        let outcome = connect(&account(*library, end.port, &empty, "security = direct"));
        let expected = format!("TLS with example.test failed: ca_file {}: no certificate in it", empty.display());
        assert_eq!(told(outcome), expected, "{library:?}");
        let lines = format!("security = direct\ncert = {0}\nkey = {0}", drawer.right.chain.display());
        let outcome = told(connect(&account(*library, end.port, &drawer.right.authority, &lines)));
        let expected = format!("TLS with example.test failed: key {}: ", drawer.right.chain.display());
        assert!(outcome.starts_with(&expected), "{library:?}: {outcome}");
    }
}

/// Both ends of a connection have the same to bind a login to.
fn check_bindings(certificate: &Certificate, version: &'static SupportedProtocolVersion, hash: &'static Algorithm) {
    let end = TlsEnd::start(certificate, version, None);
    let end_point = digest(hash, &read(&certificate.chain)[0]).as_ref().to_vec();
    for library in TlsLibrary::ALL {
        for (more, alpn) in [("security = direct", Some("xmpp-client")), ("security = starttls", None)] {
            let outcome = connect(&account(*library, end.port, &certificate.authority, more));
            let seen = end.seen();
            let has_exporter = is_rustls(*library) && version == &TLS13;
            let exporter = has_exporter.then_some(seen.exporter);
            let expected = Bindings { exporter, end_point: Some(end_point.clone()) };
            assert_eq!(outcome, Ok(expected), "{library:?}, {more}");
            assert_eq!(seen.alpn.as_deref(), alpn, "{library:?}, {more}");
            assert_eq!(seen.certificate, None, "nothing was asked for but this: {library:?}, {more}");
        }
    }
}

#[test]
fn a_login_can_be_bound_to_its_tls() {
    let drawer = Drawer::new();
    check_bindings(&drawer.right, &TLS13, &SHA256);
    check_bindings(&drawer.right, &TLS12, &SHA256);
    let longer = certificate::signed(drawer.path(), "longer", &[DOMAIN], "-sha384");
    check_bindings(&longer, &TLS13, &SHA384);
}

#[test]
fn an_account_shows_its_own_certificate() {
    let drawer = Drawer::new();
    let end = TlsEnd::start(&drawer.right, &TLS13, None);
    let ours = certificate::signed(drawer.path(), "ours", &[DOMAIN], "");
    for library in TlsLibrary::ALL {
        for security in ["direct", "starttls"] {
            let (cert, key) = (ours.chain.display(), ours.key.display());
            let lines = format!("security = {security}\ncert = {cert}\nkey = {key}");
            let outcome = connect(&account(*library, end.port, &drawer.right.authority, &lines));
            assert!(outcome.is_ok(), "{library:?}: {outcome:?}");
            let shown = read(&ours.chain)[0].to_vec();
            assert_eq!(end.seen().certificate, Some(shown), "{library:?}, {security}");
        }
    }
}

fn away() -> Case {
    cases().into_iter().find(|case| case.state == "away").expect("somebody is away")
}

fn rewrite(installed: &Webpresence, from: &str, to: &str) {
    let before = installed.configuration();
    assert!(before.contains(from), "{from} in {before}");
    installed.configure(&before.replace(from, to));
}

/// What is logged where nothing is known.
fn failure(installed: &Webpresence) -> String {
    let output = installed.run(&["get", &format!("jid={}&type=text", away().jid)]);
    assert!(output.stdout.ends_with(b"\r\n\r\nUnknown\n"), "{output:?}");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!log.contains(SECRET), "{log}");
    log
}

/// An account by STARTTLS and by direct TLS, at a server that proves its name and at one that does not.
fn check_account(kind: Kind) {
    let world = visit(kind);
    let (case, ports, another) = (away(), world.server.ports, Drawer::new());
    for library in TlsLibrary::ALL {
        for (number, security, port) in [(12, "starttls", ports.client), (13, "direct", ports.client_tls)] {
            let more = format!("security = {security}\ntls = {}", library.word());
            let installed = || {
                let installed = Webpresence::tuned(&world.server, Identity::Account(number), &more, "");
                rewrite(&installed, &format!("\nport = {}\n", ports.client), &format!("\nport = {port}\n"));
                installed
            };
            case.check("json", &installed().get(&format!("jid={}&type=json", case.jid)));

            let misled = installed();
            let file = |path: &Path| path.display().to_string();
            rewrite(&misled, &file(&world.server.authority), &file(&another.right.authority));
            let log = failure(&misled);
            let expected = "TLS with example.test failed: nobody who is trusted here vouches for the certificate";
            assert!(log.contains(expected), "{library:?}, {security}: {log}");
        }
    }
}

#[test]
fn prosody_accounts() {
    check_account(Kind::Prosody);
}

#[test]
fn ejabberd_accounts() {
    check_account(Kind::Ejabberd);
}

/// A component whose server has TLS in front of it, which proves the host's name.
fn check_component(kind: Kind) {
    let (world, drawer, case) = (visit(kind), Drawer::new(), away());
    let names = |name: &str, names: &[&str]| certificate::signed(drawer.path(), name, names, "");
    let port = world.server.ports.component;
    let right = TlsEnd::start(&names("host", &["localhost"]), &TLS13, Some(port));
    let wrong = TlsEnd::start(&names("elsewhere", &["elsewhere.test"]), &TLS13, Some(port));
    for library in TlsLibrary::ALL {
        let ca_file = drawer.right.authority.display();
        let more = format!("security = direct\ntls = {}\nca_file = {ca_file}", library.word());
        let installed = Webpresence::tuned(&world.server, Identity::Component(12), &more, "");
        let plain = format!("host = 127.0.0.1\nport = {port}\n");
        rewrite(&installed, &plain, &format!("host = localhost\nport = {}\n", right.port));
        case.check("json", &installed.get(&format!("jid={}&type=json", case.jid)));
        assert_eq!(right.seen().alpn, Some("xmpp-client".to_owned()), "{library:?}");

        let misled = Webpresence::tuned(&world.server, Identity::Component(12), &more, "");
        rewrite(&misled, &plain, &format!("host = localhost\nport = {}\n", wrong.port));
        let log = failure(&misled);
        let expected = "TLS with localhost failed: expected localhost; the certificate is";
        assert!(log.contains(expected), "{library:?}: {log}");
    }
}

#[test]
fn prosody_component() {
    check_component(Kind::Prosody);
}

#[test]
fn ejabberd_component() {
    check_component(Kind::Ejabberd);
}
