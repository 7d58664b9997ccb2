//! Servers that mean harm, or are broken in a way that looks like it: the executable asks them about somebody, says in
//! time that it does not know, tells the admin why, and neither tells them a secret nor lets them fill its memory.

mod cases;
#[path = "../rig/mod.rs"]
#[expect(dead_code, reason = "the real servers of the rig are not asked here")]
mod rig;
mod rosters;
mod server;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cases::{Case, Told, Way};
use rig::eventually;
use rig::fastcgi::Connection;
use rig::leash::Leash;
use rig::webpresence::Webpresence;
use rig::xmpp::{Identity, SECRET};
use server::Server;

const PERSON: &str = "alice@example.test";
/// Whom a first connection is asked about.
const OTHER: &str = "bob@example.test";
/// What a busy machine may need beside the timeout.
const SLACK: Duration = Duration::from_secs(1);
/// What one lookup may cost. The floods have no end; a whole session's bytes, taken apart, are about 7 MiB in a debug
/// build, and allocators differ.
const MEMORY_KIB: u64 = 16 * 1024;
/// Cases that run side by side: most of their time they wait.
const WORKERS: usize = 8;

#[test]
fn no_server_gets_more_than_its_time() {
    let (cases, next, failed) = (cases::all(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    assert!(cases.len() > 50, "there are more than {}", cases.len());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if catch_unwind(AssertUnwindSafe(|| check(case))).is_err() {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push(case.name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(failed.is_empty(), "failed: {}", failed.join("; "));
}

fn check(case: &Case) {
    let name = case.name;
    let server = Server::start(case.first.clone(), case.acts.clone());
    let installed = installed(case, server.port);
    let serve = installed.serve();
    let memory = memory_kib(&serve.leash);
    let mut connection = Connection::open(&serve.socket);

    if !case.first.is_empty() {
        connection.ask(&format!("jid={OTHER}&type=text"));
        eventually(name, || server.is_left().then_some(()));
    }
    // The first connection may have failed, and then there is a pause before the second.
    eventually(name, || {
        let begun = Instant::now();
        let answer = connection.ask(&format!("jid={PERSON}&type=text"));
        let took = begun.elapsed();
        assert_eq!((answer.status, answer.text().as_str()), (503, "Unknown\n"), "{name}");
        assert!(took < case.timeout + SLACK, "{name}: {took:?}");
        (case.first.is_empty() || server.visits() > 1).then_some(())
    });
    if case.linger != "always" {
        eventually(name, || server.is_left().then_some(()));
    }
    let more = memory_kib(&serve.leash) - memory;
    assert!(more < MEMORY_KIB, "{name}: {more} KiB more memory");

    let (who, words) = match case.told {
        Told::Admin(words) => (installed.identity.jid(), words),
        Told::Asker(words) => (PERSON.to_owned(), words),
    };
    let log = serve.leash.log();
    let is_it = |line: &str| line.contains(&format!(": {who}: ")) && words.iter().all(|word| line.contains(word));
    assert!(log.lines().any(is_it), "{name}: {who}: {words:?} is not in\n{log}");
    let heard = server.heard();
    let (what, most) = case.at_most;
    let times = heard.matches(what).count();
    assert!(times <= most, "{name}: {what} was said {times} times, not {most}");
    for secret in [&[SECRET], case.unsaid].concat() {
        assert!(!heard.contains(secret), "{name}: the server was told {secret}: {heard}");
    }
}

fn memory_kib(leash: &Leash) -> u64 {
    most_memory_kib(leash).unwrap_or_else(|| panic!("the program is gone:\n{}", leash.log()))
}

/// The most memory a program ever had, as long as it is there: `VmHWM` of proc(5).
fn most_memory_kib(leash: &Leash) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", leash.pid.as_raw_nonzero())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok())
}

fn installed(case: &Case, port: u16) -> Webpresence {
    let identity = if case.way == Way::Component { Identity::Component(0) } else { Identity::Account(0) };
    let trust = case.shown.authority().map(|file| format!("\nca_file = {}", file.display())).unwrap_or_default();
    let security = match case.way {
        Way::Component => "security = none".to_owned(),
        Way::StartTls => format!("security = starttls{trust}"),
        Way::Direct => format!("security = direct{trust}"),
        Way::Unverified => "security = direct\nverify = no".to_owned(),
    };
    let jid = identity.jid();
    let settings = format!("timeout = {}\nlinger = {}", case.timeout.as_secs(), case.linger);
    let server = format!("[xmpp]\njid = {jid}\npassword = {SECRET}\nhost = 127.0.0.1\nport = {port}\n");
    let installed = Webpresence::written(identity, &format!("{server}{security}\n{settings}\n"), "");
    installed.configure(&format!("{}[log]\nlevel = info\n", installed.configuration()));
    installed
}
