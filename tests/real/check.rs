//! What `webpresence check` says: every step of a set-up that is well, at every server, and for each way in which one
//! can be broken a line of its own. Whole lines are compared; times, ports and paths are what they happen to be.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use rustls::version::TLS13;
use xmpp_parsers::date::DateTime;

use crate::rig::certificate::{self, Certificate};
use crate::rig::fastcgi::Connection;
use crate::rig::leash::directory;
use crate::rig::prosody::LastActivity;
use crate::rig::tls::TlsEnd;
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Kind, Privilege, Release, SECRET, Xmpp};
use crate::rig::{ejabberd, port, prosody};
use crate::world::{Visit, next_number, patient, visit, visit_newer};

const WELL: Option<i32> = Some(0);
const BROKEN: Option<i32> = Some(1);
const MISTAKEN: &str = "mistaken-0815";

/// The exit code, and what is printed with words for what differs from run to run.
fn check(installed: &Webpresence, jids: &[&str]) -> (Option<i32>, String) {
    let arguments: Vec<&str> = ["check"].into_iter().chain(jids.iter().copied()).collect();
    told(installed, &installed.run(&arguments))
}

fn told(installed: &Webpresence, output: &Output) -> (Option<i32>, String) {
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "nothing goes to stderr");
    let (text, configuration) = (String::from_utf8_lossy(&output.stdout), installed.configuration());
    assert!(!text.contains(SECRET) && !text.contains(MISTAKEN), "a password is told: {text}");
    let value = |key: &str| configuration.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("none").to_owned();
    let (file, state, jid) = (installed.config.display().to_string(), value("directory = "), installed.identity.jid());
    let port = value("port = ");
    let text = text.replace(&file, "FILE").replace(&state, "STATE").replace(&jid, "US");
    let text = text.replace(&format!(":{port}"), ":PORT").replace(&format!("port {port}"), "port PORT");
    let lines = text.lines().map(|line| match line.rsplit_once(", ") {
        Some((line, time)) if time.ends_with(" ms") => format!("{line}, TIME\n"),
        _ => format!("{line}\n"),
    });
    (output.status.code(), hashless(&dateless(&lines.collect::<String>())))
}

/// Without what tells one configuration's file of failures from another's.
fn hashless(text: &str) -> String {
    const FILE: &str = ".failed.";
    let mut parts = text.split(FILE);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |whole, part| format!("{whole}{FILE}HASH{}", &part["00000000".len()..]))
}

/// Without the days on which the test runs.
fn dateless(text: &str) -> String {
    ["certificate until ", "this machine's date is "].into_iter().fold(text.to_owned(), |text, before| {
        let mut parts = text.split(before);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |whole, part| format!("{whole}{before}DATE{}", &part["2026-01-01".len()..]))
    })
}

/// Only the lines with a ✗, and what to do about each.
fn crosses(installed: &Webpresence, jids: &[&str]) -> String {
    crosses_of(check(installed, jids))
}

fn crosses_of((code, text): (Option<i32>, String)) -> String {
    assert_eq!(code, BROKEN, "{text}");
    let (mut is_cross, mut lines) = (false, String::new());
    for line in text.lines() {
        is_cross = line.starts_with('✗') || is_cross && line.starts_with("  ");
        if is_cross {
            lines.push_str(&format!("{line}\n"));
        }
    }
    lines
}

/// Somebody whom the server knows, and nobody else has met.
fn newcomer(server: &Xmpp, kind: fn(usize) -> Identity) -> Identity {
    let number = next_number();
    if matches!(kind(number), Identity::Account(_)) {
        server.register(&format!("webstatus{number}"));
    }
    kind(number)
}

fn rewrite(installed: &Webpresence, from: &str, to: &str) {
    let before = installed.configuration();
    assert!(before.contains(from), "{from} in {before}");
    installed.configure(&before.replace(from, to));
}

fn line(port: u16) -> String {
    format!("\nport = {port}\n")
}

/// A component, an account by STARTTLS and one by direct TLS: every step, in its order.
fn well(world: &Visit, mechanism: &str, clock: &str) {
    let end = "· consent: US has seen nobody within a day; people are asked by webpresence subscribe JID, and looked \
               for by webpresence check JID\n✓ sample answer: example.test is there, TIME\n";
    let begin = |sort: &str| {
        format!(
            "✓ configuration FILE, mode 0600, TIME\n✓ icons, TIME\n✓ store STATE, TIME\nUS ({sort})\n\
             ✓ lease: no other process holds the session, TIME\n✓ host 127.0.0.1 port PORT, TIME\n\
             ✓ connected to 127.0.0.1:PORT, TIME\n"
        )
    };
    let installed = Webpresence::new(&world.server, newcomer(&world.server, Identity::Component));
    let expected = format!(
        "{}✓ login by a component's handshake, TIME\n{clock}\
         · roster access: not granted (only needed for visibility = subscribers)\n{end}",
        begin("component")
    );
    assert_eq!(check(&installed, &[]), (WELL, expected));

    let (identity, ports) = (newcomer(&world.server, Identity::Account), world.server.ports);
    for (security, port, beginning) in
        [("starttls", ports.client, "by STARTTLS"), ("direct", ports.client_tls, "from the first byte")]
    {
        let installed = Webpresence::tuned(&world.server, identity, &format!("security = {security}"), "");
        rewrite(&installed, &line(ports.client), &line(port));
        let expected = format!(
            "{}✓ TLS 1.3 {beginning}, with rustls, certificate until DATE, TIME\n\
             · the certificate ends within 2 days\n✓ login by {mechanism}, TIME\n{clock}\
             · roster access: an account has that to its own alone\n{end}",
            begin("account")
        );
        assert_eq!(check(&installed, &[]), (WELL, expected), "{security}");
    }
}

const AGREES: &str = "✓ clock: this machine and the server agree, TIME\n";
/// Debian's ejabberd comes without mod_time.
const NO_CLOCK: &str = "· clock: the server does not tell its time (XEP-0202)\n";

#[test]
fn prosody_is_well() {
    well(&visit(Kind::Prosody), "SCRAM-SHA-1", AGREES);
}

#[test]
fn newer_prosody_is_well() {
    well(&visit_newer(Kind::Prosody), "SCRAM-SHA-1-PLUS in SASL2", AGREES);
}

#[test]
fn ejabberd_is_well() {
    well(&visit(Kind::Ejabberd), "SCRAM-SHA-1", NO_CLOCK);
}

#[test]
fn newer_ejabberd_is_well() {
    well(&visit_newer(Kind::Ejabberd), "SCRAM-SHA-1-PLUS in SASL2", NO_CLOCK);
}

/// A wrong secret or password, and an identity that the server does not know.
fn refused(world: &Visit, is_name_told: bool) {
    let server = &world.server;
    let component = Webpresence::new(server, newcomer(server, Identity::Component));
    rewrite(&component, SECRET, MISTAKEN);
    assert_eq!(
        crosses(&component, &[]),
        "✗ login: the server refused the login: not-authorized\n  the password here is not the one that the server has \
         for this component; where the server's was corrected, remove STATE/US.failed.HASH\n"
    );
    let account = Webpresence::new(server, newcomer(server, Identity::Account));
    // A token may be there then, which would open the account.
    assert_eq!(check(&account, &[]).0, WELL);
    let output = account.run(&["probe", DOMAIN]);
    assert!(output.status.success(), "{output:?}");
    rewrite(&account, SECRET, MISTAKEN);
    assert_eq!(
        crosses(&account, &[]),
        "✗ login: the server refused the login: not-authorized\n  the password is not sent again for two hours, unless \
         the configuration changes; where the server's was corrected, remove STATE/US.failed.HASH\n"
    );

    let unknown = "the server does not know this name; is it configured there? (host-unknown)";
    let name_it =
        |name: &str| format!("  it does not know {name} yet: name it in its configuration, then restart it\n");
    let elsewhere = Webpresence::new(server, newcomer(server, Identity::Account));
    rewrite(&elsewhere, &elsewhere.identity.jid(), "bot@elsewhere.test");
    let expected = format!("✗ login: {unknown}\n{}", name_it("bot@elsewhere.test"));
    assert_eq!(crosses(&elsewhere, &[]), expected);
    // An ejabberd without a list of its components takes every name.
    if is_name_told {
        rewrite(&component, MISTAKEN, SECRET);
        rewrite(&component, &component.identity.jid(), "presence999.example.test");
        let expected = format!("✗ login: {unknown}\n{}", name_it("presence999.example.test"));
        assert_eq!(crosses(&component, &[]), expected);
    }
}

#[test]
fn prosody_refuses() {
    refused(&visit(Kind::Prosody), true);
}

#[test]
fn newer_prosody_refuses() {
    refused(&visit_newer(Kind::Prosody), true);
}

#[test]
fn ejabberd_refuses() {
    refused(&visit(Kind::Ejabberd), false);
}

#[test]
fn newer_ejabberd_refuses() {
    refused(&visit_newer(Kind::Ejabberd), false);
}

#[test]
fn a_password_is_tried_although_a_token_is_there() {
    let world = visit_newer(Kind::Prosody);
    let installed = Webpresence::new(&world.server, newcomer(&world.server, Identity::Account));
    let facts = || {
        let state = installed.configuration();
        let state = state.lines().find_map(|line| line.strip_prefix("directory = ")).expect("configured").to_owned();
        fs::read_to_string(format!("{state}/{}.facts", installed.identity.jid())).unwrap_or_default()
    };
    assert_eq!(check(&installed, &[]).0, WELL);
    assert!(!facts().contains("\"secret\""), "none is asked for: {}", facts());
    assert!(installed.run(&["probe", DOMAIN]).status.success());
    assert!(facts().contains("\"secret\""), "{}", facts());
    rewrite(&installed, SECRET, MISTAKEN);
    assert!(crosses(&installed, &[]).starts_with("✗ login: the server refused the login: not-authorized\n"));
    assert!(facts().contains("\"secret\""), "it is not the token's fault: {}", facts());
}

/// An account whose server shows this certificate from the first byte.
fn shown(shown: &Certificate) -> String {
    let world = visit(Kind::Prosody);
    let end = TlsEnd::start(shown, &TLS13, None);
    let installed = Webpresence::tuned(&world.server, Identity::Account(next_number()), "security = direct", "");
    rewrite(&installed, &line(world.server.ports.client), &line(end.port));
    rewrite(&installed, &world.server.authority.display().to_string(), &shown.authority.display().to_string());
    crosses(&installed, &[])
}

#[test]
fn certificates_that_are_not_believed() {
    let drawer = directory("certificates");
    certificate::make(drawer.path(), DOMAIN);
    let expired = certificate::expired(drawer.path(), "expired", &[DOMAIN]);
    let early = certificate::early(drawer.path(), "early", &[DOMAIN]);
    let wrong = certificate::signed(drawer.path(), "wrong", &["www.example.test"], "");
    let clock = "this machine's date is DATE: is its clock right?";
    let tls = "✗ TLS: TLS with example.test failed:";
    assert_eq!(shown(&expired), format!("{tls} the certificate was valid until 2020-02-01; {clock}\n"));
    assert_eq!(shown(&early), format!("{tls} the certificate is valid only from 2048-01-01; {clock}\n"));
    assert_eq!(shown(&wrong), format!("{tls} expected example.test; the certificate is for www.example.test\n"));
}

#[test]
fn dns_knows_nothing() {
    let written = format!("[xmpp]\njid = bot@nowhere.test\npassword = {SECRET}\ntimeout = 2\n");
    let installed = Webpresence::written(Identity::Account(0), &written, "");
    let report = crosses(&installed, &[]);
    let (first, hint) = report.split_once('\n').expect("two lines");
    // Why is the resolver's to say, and this machine may have none.
    assert!(first.starts_with("✗ DNS: no address of nowhere.test is found: "), "{report}");
    assert_eq!(
        hint,
        "  nowhere.test has neither SRV records nor an address: host and port in [xmpp] can name the server\n"
    );
}

#[test]
fn nobody_listens() {
    let world = visit(Kind::Prosody);
    let rows = [
        (Identity::Component as fn(usize) -> Identity, world.server.ports.component, "components"),
        (Identity::Account, world.server.ports.client, "clients"),
    ];
    for (kind, there, whom) in rows {
        let installed = Webpresence::new(&world.server, kind(next_number()));
        let [nobody] = port::free();
        rewrite(&installed, &line(there), &line(nobody));
        let expected = format!(
            "✗ connection: cannot connect to 127.0.0.1:PORT: Connection refused (os error 111)\n  does the XMPP server \
             run, and is this its port for {whom}?\n"
        );
        assert_eq!(crosses(&installed, &[]), expected);
    }
}

/// TLS where it is not expected, and none where it is.
fn tls_required(world: &Visit) {
    let (server, ports) = (&world.server, world.server.ports);
    let report = |security: &str, port: u16| {
        let more = format!("security = {security}\ntimeout = 2");
        let installed = Webpresence::tuned(server, Identity::Account(next_number()), &more, "");
        rewrite(&installed, &line(ports.client), &line(port));
        crosses(&installed, &[])
    };
    let told = |line: &str| line.to_owned();
    assert_eq!(
        report("none", ports.client),
        told("✗ TLS: the server lets nobody log in without TLS: security = starttls\n")
    );
    let begins =
        "  is this the server's port for clients? If TLS begins there with the first byte: security = direct\n";
    let starttls = report("starttls", ports.client_tls);
    assert!(starttls.starts_with("✗ login: the server ") && starttls.ends_with(&format!("\n{begins}")), "{starttls}");
    let component = Webpresence::tuned(server, Identity::Component(next_number()), "timeout = 2", "");
    rewrite(&component, &line(ports.component), &line(ports.client_tls));
    let component = crosses(&component, &[]);
    let begins = begins.replace("clients", "components");
    assert!(
        component.starts_with("✗ login: the server ") && component.ends_with(&format!("\n{begins}")),
        "{component}"
    );
    let ends = "  does TLS begin with the first byte there? If not: security = starttls, or another port\n";
    let direct = report("direct", ports.client);
    assert!(direct.starts_with("✗ TLS: TLS with example.test failed: "), "{direct}");
    assert!(direct.ends_with(&format!("\n{ends}")), "{direct}");
}

#[test]
fn prosody_requires_tls() {
    tls_required(&visit(Kind::Prosody));
}

#[test]
fn ejabberd_requires_tls() {
    tls_required(&visit(Kind::Ejabberd));
}

/// Two people: one who has accepted, one who has not.
fn consent(world: &Visit, number: usize, shortcut: &str) {
    let installed = Webpresence::new(&world.server, Identity::Component(number));
    let (code, report) = check(&installed, &["away@example.test"]);
    assert_eq!(code, WELL, "{report}");
    assert!(report.ends_with("✓ away@example.test: away \"Lunch\", TIME\n"), "{report}");
    assert!(!report.contains("consent"), "{report}");
    assert!(check(&installed, &[]).1.contains("· consent: US has seen 1 person within a day\n"));
    let expected = format!(
        "✗ stranger@example.test: forbidden: stranger@example.test has not accepted US; run: webpresence subscribe \
         stranger@example.test (or there is no such user: the server does not tell)\n  or as its admin: {shortcut}\n\
         ✗ bob@elsewhere.test: none of the [access] domains serves elsewhere.test\n"
    );
    assert_eq!(crosses(&installed, &["bob@elsewhere.test", "stranger@example.test", "away@example.test"]), expected);
}

#[test]
fn prosody_knows_of_no_consent() {
    let groups = "mod_groups, with US and stranger@example.test in one group of its groups_file, then a restart";
    consent(&visit(Kind::Prosody), 15, groups);
}

#[test]
fn ejabberd_knows_of_no_consent() {
    let item = "ejabberdctl add_rosteritem stranger example.test \"\" US Web Web from";
    consent(&visit(Kind::Ejabberd), 15, item);
}

const CLAIM: &str = "· requester = query: req_jid is a claim that anybody can make; remote-user and signed are believed \
                     for a reason\n";

const GRANTS: &str = "\n✓ roster access: example.test grants it (XEP-0356)\n";

fn without_roster_access(server: &Xmpp) {
    let other = patient(server, Identity::Component(2));
    rewrite(&other, "visibility = anyone\n", "");
    let expected = "✗ roster access: example.test does not grant it, and [viewers] is empty: nobody can prove a \
                    subscription, and all people are forbidden\n  mod_privilege of Prosody and of ejabberd grants it: \
                    roster, get, for US; or [viewers] can say who may see whom, or visibility = anyone in [access] that \
                    every visitor may\n";
    assert_eq!(crosses(&other, &[]), expected);
    other.configure(&format!("{}[viewers]\n*@{DOMAIN} = *@{DOMAIN}\n", other.configuration()));
    let (code, report) = check(&other, &[]);
    assert_eq!(code, WELL, "{report}");
    let lines = "\n· roster access: example.test does not grant it; the line of [viewers] says who may see whom\n";
    assert!(report.contains(lines) && report.ends_with(CLAIM), "{report}");
}

const GRANTED: Privilege = Privilege { to: Identity::Component(0), roster: "get", presence: "roster" };

#[test]
fn roster_access_is_granted_or_not() {
    let server = prosody::start_with(Release::Stable, LastActivity::On, &[GRANTED]);
    let granted = patient(&server, GRANTED.to);
    let (code, report) = check(&granted, &[]);
    assert_eq!(code, WELL, "{report}");
    assert!(report.contains(GRANTS), "{report}");
    rewrite(&granted, "visibility = anyone\n", "");
    let (code, report) = check(&granted, &[]);
    assert_eq!(code, WELL, "{report}");
    assert!(report.contains(GRANTS) && report.ends_with(CLAIM), "{report}");
    without_roster_access(&server);
}

/// COMPAT: it answers no question of a component, whether it grants it anything or not.
#[test]
fn an_ejabberd_that_drops_questions() {
    let server = ejabberd::start_with(Release::Newer, &[GRANTED]);
    let granted = Webpresence::tuned(&server, GRANTED.to, "timeout = 8", "");
    let (code, report) = check(&granted, &[]);
    assert_eq!(code, BROKEN, "{report}");
    assert!(report.contains(GRANTS), "{report}");
    assert_eq!(
        crosses_of((code, report)),
        "✗ sample answer: the server did not answer in time\n  an ejabberd with mod_privilege may leave all questions of \
         a component unanswered but those about people\n"
    );
}

/// Between a component and its server: the server's clock goes wrong by so many seconds. Ends with the process.
fn other_clock(server: u16, offset_s: i64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("a connection");
            let server = TcpStream::connect(("127.0.0.1", server)).expect("the server is up");
            let (from, to) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
            thread::spawn(move || copy(from, to, |bytes| bytes));
            thread::spawn(move || copy(server, client, |bytes| retimed(bytes, offset_s)));
        }
    });
    port
}

fn copy(mut from: TcpStream, mut to: TcpStream, change: impl Fn(Vec<u8>) -> Vec<u8>) {
    let mut buffer = vec![0; 65536];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&change(buffer[..length].to_vec())).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// What the server says, with another time in it (it writes each stanza at once).
fn retimed(bytes: Vec<u8>, offset_s: i64) -> Vec<u8> {
    let text = String::from_utf8(bytes).expect("what Prosody writes");
    let Some((before, rest)) = text.split_once("<utc>") else { return text.into_bytes() };
    let (time, after) = rest.split_once("</utc>").expect("whole");
    let time: DateTime = time.parse().expect("a date");
    let wrong_s = time.0.timestamp().saturating_add(offset_s);
    let wrong = UNIX_EPOCH + Duration::from_secs(u64::try_from(wrong_s).expect("after 1970"));
    format!("{before}<utc>{}</utc>{after}", utc(wrong)).into_bytes()
}

fn utc(time: SystemTime) -> String {
    let epoch: DateTime = "1970-01-01T00:00:00Z".parse().expect("a date");
    let since = time.duration_since(UNIX_EPOCH).expect("after 1970");
    (epoch.0 + since).format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[test]
fn clocks_that_differ() {
    let world = visit(Kind::Prosody);
    let there = world.server.ports.component;
    let advice = "  set the wrong one: certificates and passwords that end at some time depend on it\n";
    for (offset_s, side) in [(3600, "behind"), (-3600, "ahead of")] {
        let installed = Webpresence::new(&world.server, newcomer(&world.server, Identity::Component));
        rewrite(&installed, &line(there), &line(other_clock(there, offset_s)));
        let report = crosses(&installed, &[]);
        let expected = |seconds: u32| format!("✗ clock: this machine is {seconds} s {side} the server\n{advice}");
        assert!((3599..=3601).any(|seconds| report == expected(seconds)), "{report}");
    }
    let installed = Webpresence::new(&world.server, newcomer(&world.server, Identity::Component));
    rewrite(&installed, &line(there), &line(other_clock(there, 30)));
    let (code, report) = check(&installed, &[]);
    assert_eq!(code, WELL, "{report}");
    assert!(
        report.contains("✓ clock: this machine is ") && report.contains(" s behind the server, TIME\n"),
        "{report}"
    );
}

/// Another process has the session: it is asked; stopped, it is named.
#[test]
fn the_lease_is_held() {
    let world = visit(Kind::Prosody);
    let identity = newcomer(&world.server, Identity::Component);
    let installed = Webpresence::tuned(&world.server, identity, "linger = 600\ntimeout = 2", "");
    let serve = installed.serve();
    assert_eq!(Connection::open(&serve.socket).ask(&format!("jid={DOMAIN}&type=text")).text(), "Available\n");
    let expected = format!(
        "✓ configuration FILE, mode 0600, TIME\n✓ icons, TIME\n✓ store STATE, TIME\nUS (component)\n\
         ✓ lease: another process holds the session, and is asked, TIME\n\
         · not tried, since that process has the session: DNS, TCP, TLS and the login\n{AGREES}\
         · roster access: not granted (only needed for visibility = subscribers)\n\
         · consent: US has seen nobody within a day; people are asked by webpresence subscribe JID, and looked for by \
         webpresence check JID\n✓ sample answer: example.test is there, TIME\n"
    );
    assert_eq!(check(&installed, &[]), (WELL, expected));
    serve.leash.signal(Signal::STOP);
    let report = crosses(&installed, &[]);
    serve.leash.signal(Signal::CONT);
    assert_eq!(
        report,
        "✗ lease: another process holds the session of this identity, and does not answer\n  it may be stopped, or run on \
         another machine that shares the directory: end it (fuser STATE/US.lease tells which it is), or give each machine \
         an identity or a directory of its own\n"
    );
}

#[test]
fn the_store_cannot_be_written() {
    let world = visit(Kind::Prosody);
    let installed = Webpresence::new(&world.server, newcomer(&world.server, Identity::Component));
    let before = installed.configuration();
    let state = before.lines().find_map(|line| line.strip_prefix("directory = ")).expect("configured").to_owned();
    let lock = format!("{state}/{}.lease", installed.identity.jid());
    fs::create_dir(&lock).expect("the directory is ours");
    let broken = "STATE/US.lease: Is a directory (os error 21)";
    let expected = format!(
        "✗ lease: {broken}\n  remove this file: processes cannot take turns\n\
         ✗ connection: whose session it is cannot be told: {broken}\n"
    );
    assert_eq!(crosses(&installed, &[]), expected);
    fs::remove_dir(&lock).expect("it is empty");
    fs::write(format!("{state}/file"), "").expect("the directory is ours");
    fs::create_dir(format!("{state}/open")).expect("the directory is ours");
    fs::set_permissions(format!("{state}/open"), fs::Permissions::from_mode(0o777)).expect("it is ours");
    let set = "processes cannot take turns: set [cache] directory";
    for (directory, told) in [
        ("/proc/nowhere".to_owned(), format!("STATE cannot be made: entity not found\n  {set}")),
        (format!("{state}/file"), format!("STATE cannot be made: entity already exists\n  {set}")),
        (
            format!("{state}/open"),
            "others may write in STATE (mode 0777)\n  processes cannot take turns: chmod 0700 it, or set [cache] directory"
                .to_owned(),
        ),
    ] {
        installed.configure(&before.replace(&format!("directory = {state}\n"), &format!("directory = {directory}\n")));
        assert_eq!(crosses(&installed, &[]), format!("✗ store: {told}\n"));
    }
}

/// Root's commands go on as the web server's user, who may see less than root.
#[test]
fn the_configuration_is_closed_to_the_owner_of_the_directory() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let world = visit(Kind::Prosody);
    let installed = Webpresence::new(&world.server, newcomer(&world.server, Identity::Component));
    chown(installed.state(), Some(4242), Some(4242)).expect("we are root");
    assert_eq!(
        crosses(&installed, &[]),
        "✗ permissions: user 4242, who owns the directory, cannot read FILE: Permission denied (os error 13)\n  give the \
         file to a group of his, with mode 0640\n"
    );
    chown(&installed.config, Some(4242), Some(4242)).expect("we are root");
    let key = installed.config.with_file_name("sign.key");
    fs::write(&key, "k".repeat(32)).expect("the directory is ours");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("it is ours");
    rewrite(&installed, "[access]\n", "[access]\nrequester = signed\nsign_key_file = sign.key\n");
    assert_eq!(
        crosses(&installed, &[]),
        "✗ permissions: for user 4242, who owns the directory, FILE:10: [access] sign_key_file: cannot be read: permission \
         denied\n  give that to a group of his, with mode 0640\n"
    );
}

/// An account reads its own roster alone, which is no mistake: it may be there for nobody else.
#[test]
fn how_people_say_who_they_are() {
    let world = visit(Kind::Prosody);
    let installed = patient(&world.server, newcomer(&world.server, Identity::Account));
    let open = installed.configuration();
    let written = |access: &str| installed.configure(&open.replace("visibility = anyone\n", access));
    let key = installed.config.with_file_name("sign.key");
    fs::write(&key, "k".repeat(32)).expect("the directory is ours");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let rosters = "\n· roster access: an account has that to its own alone, for US itself; everybody else is forbidden, \
                   since [viewers] is empty\n";
    for (access, told) in [
        ("", CLAIM),
        (
            "requester = remote-user\n",
            "· requester = remote-user: who has logged in to the web server is NAME@example.test; it counts only behind \
             the snippets with a login\n",
        ),
        (
            "requester = signed\nsign_key_file = sign.key\nsign_days = 30\n",
            "✓ requester = signed: the key is read; a link lives 30 days at most\n",
        ),
    ] {
        written(access);
        let (code, report) = check(&installed, &[]);
        assert_eq!(code, WELL, "{report}");
        assert!(report.contains(rosters) && report.ends_with(told), "{report}");
    }
}

/// As on a full disk, but that the system says something else about it.
#[test]
fn nothing_can_be_written() {
    let world = visit(Kind::Prosody);
    let installed = Webpresence::new(&world.server, newcomer(&world.server, Identity::Component));
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_webpresence"), "check"]);
    let output = command.arg("--config").arg(&installed.config).output().expect("a shell");
    assert_eq!(
        crosses_of(told(&installed, &output)),
        "✗ store: nothing can be written in STATE: File too large (os error 27)\n  is the disk full, or mounted \
         read-only?\n"
    );
}

/// What is wrong with the configuration is told line by line.
#[test]
fn the_configuration_is_wrong() {
    let world = visit(Kind::Prosody);
    let installed = Webpresence::new(&world.server, Identity::Component(next_number()));
    rewrite(&installed, "[xmpp]\n", "[xmpp]\ncolour = blue\nvisible = perhaps\n");
    let report = crosses(&installed, &[]);
    let crosses = report.lines().filter(|line| line.starts_with("✗ configuration: FILE:")).count();
    assert_eq!((crosses, report.lines().count()), (2, 2), "{report}");
}
