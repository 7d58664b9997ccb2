//! What many processes know together in a directory: each person is looked up once for all of them, whatever becomes of
//! one of them, of the disk, or of the clock. The XMPP server is one on which everybody is there, and which counts.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::rig::crowd::Crowd;
use crate::rig::fastcgi::Connection;
use crate::rig::webpresence::{Serve, Webpresence};
use crate::rig::xmpp::{DOMAIN, Identity, SECRET};
use crate::rig::{eventually, program};

/// How the log says that the directory is of no use.
const COMPLAINT: &str = "this process remembers people for itself";

/// An installation whose server knows everybody, with these lines in `[cache]`.
fn stand(cache: &str) -> (Crowd, Webpresence) {
    let crowd = Crowd::start("Lunch");
    let identity = Identity::Component(0);
    let (jid, port) = (identity.jid(), crowd.port);
    // It tells nobody by itself when somebody changes, as Prosody would.
    let xmpp = format!("[xmpp]\njid = {jid}\npassword = {SECRET}\nport = {port}\nserver = openfire\ntimeout = 20\n");
    let installed = Webpresence::written(identity, &xmpp, cache);
    let limits = "[access]\nunknown_per_minute = 0\nunknown_per_minute_all = 0\n";
    installed.configure(&installed.configuration().replace("[access]\n", limits));
    (crowd, installed)
}

fn executable() -> Command {
    Command::new(env!("CARGO_BIN_EXE_webpresence"))
}

fn query(user: &str) -> String {
    format!("jid={user}@{DOMAIN}&type=text")
}

fn ask(serve: &Serve, user: &str) -> String {
    Connection::open(&serve.socket).ask(&query(user)).text()
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("ours").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn eight_processes_and_a_thousand_requests_are_one_probe() {
    let (crowd, installed) = stand("");
    let serves: Vec<_> = (0..8).map(|number| installed.serve_by(&format!("{number}.sock"), executable())).collect();
    let mut asked: Vec<_> = (0..1000).map(|number: usize| Connection::open(&serves[number % 8].socket)).collect();
    let text = query("bob");
    for connection in &mut asked {
        connection.send(&[("REQUEST_METHOD", b"GET"), ("QUERY_STRING", text.as_bytes())]);
    }
    for connection in &mut asked {
        assert_eq!(connection.receive().expect("an answer").text(), "Lunch\n");
    }
    assert_eq!(crowd.probes("bob@example.test"), 1);
    drop(serves);
    let texts: Vec<_> = thread::scope(|scope| {
        let asked: Vec<_> = (0..40).map(|_| scope.spawn(|| installed.get_as_known(&query("eve")).text())).collect();
        asked.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    assert_eq!((texts, crowd.probes("eve@example.test")), (vec!["Lunch\n".to_owned(); 40], 1), "processes of CGI");
    assert_eq!(
        (installed.get_as_known(&query("bob")).text().as_str(), crowd.probes("bob@example.test")),
        ("Lunch\n", 1)
    );
}

/// Wherever it is just then: what others get is right, and what it leaves is gone after a minute.
#[test]
fn a_process_that_is_killed_leaves_nothing_behind() {
    let (crowd, installed) = stand("entries = 10\nttl = 600");
    for round in 0..60 {
        let user = format!("u{round}");
        let mut killed = executable();
        killed.arg("get").arg("--config").arg(&installed.config).arg(query(&user)).stdout(Stdio::null());
        let mut killed = killed.stderr(Stdio::null()).spawn().expect("built");
        // Half of a second is more than it takes, a fortieth of that one step.
        thread::sleep(Duration::from_micros(500) * round);
        killed.kill().expect("our own child");
        killed.wait().expect("our own child");
        let probes = crowd.probes(&format!("{user}@{DOMAIN}"));
        assert_eq!(installed.get_as_known(&query(&user)).text(), "Lunch\n", "after {probes} probes");
    }
    let is_left = |path: &&PathBuf| path.extension().is_some();
    for left in files(&installed.people()).iter().filter(is_left) {
        let file = File::options().write(true).open(left).expect("ours");
        file.set_modified(SystemTime::now() - Duration::from_secs(61)).expect("ours");
    }
    installed.get_as_known(&query("somebody"));
    let left: Vec<_> = files(&installed.people());
    assert!(left.iter().filter(is_left).count() == 0 && left.len() == 10, "{left:?}");
}

#[test]
fn people_asked_for_once_take_no_more_room_than_entries() {
    let (crowd, installed) = stand("entries = 150\nttl = 600");
    let serves = ["one", "other"].map(|name| installed.serve_by(name, executable()));
    thread::scope(|scope| {
        for (number, serve) in serves.iter().enumerate() {
            scope.spawn(move || {
                let mut connection = Connection::open(&serve.socket);
                for user in 0..300 {
                    let answer = connection.ask(&query(&format!("u{number}x{user}")));
                    assert_eq!(answer.text(), "Lunch\n");
                }
            });
        }
    });
    // The last answers may have been told a moment before they were kept.
    eventually("as many files as entries", || (140..=150).contains(&files(&installed.people()).len()).then_some(()));
    let last = format!("u1x299@{DOMAIN}");
    assert_eq!((ask(&serves[0], "u1x299").as_str(), crowd.probes(&last)), ("Lunch\n", 1), "who came last is known");
}

/// A daemon that has its directory on a small disk of its own, where it is made by `prepare`.
fn on_a_disk_of_its_own(installed: &Webpresence, prepare: &str) -> Serve {
    let mut command = Command::new(program("unshare", "util-linux"));
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let mount = "mount -t tmpfs -o size=64k,mode=700 tmpfs \"$0\"";
    let script = format!("{mount} && {prepare} exec \"$@\"");
    command.args(["--mount", "sh", "-c", &script]).arg(installed.state()).arg(env!("CARGO_BIN_EXE_webpresence"));
    installed.serve_by("disk.sock", command)
}

/// The place as the daemon sees it.
fn seen_by(serve: &Serve, path: &Path) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", serve.leash.pid.as_raw_nonzero()));
    root.join(path.strip_prefix("/").expect("a whole path"))
}

fn complaints(serve: &Serve) -> usize {
    serve.leash.log().matches(COMPLAINT).count()
}

/// Twice each, with one probe.
fn remembers(serve: &Serve, crowd: &Crowd, users: &[&str]) {
    for user in users.iter().chain(users) {
        assert_eq!(ask(serve, user), "Lunch\n");
    }
    for user in users {
        assert_eq!(crowd.probes(&format!("{user}@{DOMAIN}")), 1, "{user}");
    }
}

#[test]
fn a_full_disk_is_told_once_and_memory_goes_on() {
    let (crowd, installed) = stand("ttl = 600");
    let serve = on_a_disk_of_its_own(&installed, "{ head -c 1M /dev/zero >\"$0/full\" 2>/dev/null || true; } &&");
    remembers(&serve, &crowd, &["alice", "bob", "carol"]);
    assert_eq!(complaints(&serve), 1, "{}", serve.leash.log());
    fs::remove_file(seen_by(&serve, &installed.state().join("full"))).expect("it was full");
    let people = seen_by(&serve, &installed.people());
    let mut users = (0..).map(|number| format!("late{number}"));
    eventually("there is room again", || {
        ask(&serve, &users.next()?);
        files(&people).iter().any(|path| path.extension().is_none()).then_some(())
    });
    remembers(&serve, &crowd, &["dave"]);
    assert_eq!(complaints(&serve), 1, "{}", serve.leash.log());
}

#[test]
fn a_disk_that_is_no_longer_writable_is_told_once_and_memory_goes_on() {
    let (crowd, installed) = stand("ttl = 600");
    let serve = on_a_disk_of_its_own(&installed, "");
    remembers(&serve, &crowd, &["alice"]);
    let mut remount = Command::new(program("nsenter", "util-linux"));
    let pid = serve.leash.pid.as_raw_nonzero().to_string();
    let user: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--preserve-credentials"] };
    // The daemon has its lease open, and does not let go of it: only the way to it is closed.
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"";
    remount.args(["--target", &pid, "--mount"]).args(user).args(["sh", "-c", script]).arg(installed.state());
    assert!(remount.status().is_ok_and(|status| status.success()), "{remount:?}");
    remembers(&serve, &crowd, &["alice", "bob", "carol"]);
    assert_eq!(complaints(&serve), 1, "{}", serve.leash.log());
}

/// Two daemons whose clocks differ by an hour: neither tells anything that is older than it may be.
#[test]
fn clocks_that_are_an_hour_apart_make_nothing_wrong() {
    let (crowd, installed) = stand("ttl = 1\nrefresh = 0\nstale = 3600");
    let library = eventually("libfaketime; install it with: apt-get install libfaketime", || {
        let folders = fs::read_dir("/usr/lib").ok()?.flatten();
        folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists())
    });
    let mut ahead = executable();
    let variables: [(&str, OsString); 3] =
        [("LD_PRELOAD", library.into()), ("FAKETIME", "+1h".into()), ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into())];
    ahead.envs(variables);
    let ahead = installed.serve_by("ahead.sock", ahead);
    let right = installed.serve();
    for round in 0..6 {
        let [one, other] = if round % 2 == 0 { [&ahead, &right] } else { [&right, &ahead] };
        let text = format!("Round {round}");
        crowd.says(&text);
        eventually("what is new is told", || (ask(one, "bob") == format!("{text}\n")).then_some(()));
        // At once or after a second, by his own clock; and never anything else.
        let before = format!("Round {}\n", round - 1);
        eventually("what is new is told by the other", || {
            let told = ask(other, "bob");
            assert!(told == format!("{text}\n") || told == before, "{told}");
            (told != before).then_some(())
        });
        let answer = Connection::open(&other.socket).ask(&query("bob"));
        let age = answer.header("Age").map_or(0, |age| age.parse().expect("seconds"));
        assert!(age < 30, "{answer:?}");
    }
    let log = ahead.leash.log() + &right.leash.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

/// What a process of CGI opens for an answer that is cached: beside itself and its libraries, two files.
#[test]
fn a_cached_answer_opens_the_configuration_and_one_entry() {
    let (crowd, installed) = stand("ttl = 600");
    assert_eq!(installed.get(&query("bob")).text(), "Lunch\n");
    let trace = installed.config.with_file_name("trace");
    let mut command = Command::new(program("strace", "strace"));
    command.args(["-f", "-qq", "-e", "trace=open,openat,openat2,creat,socket,clone,clone3"]);
    command.arg("-o").arg(&trace).arg(env!("CARGO_BIN_EXE_webpresence"));
    command.env_clear().env("GATEWAY_INTERFACE", "CGI/1.1").env("WEBPRESENCE_CONFIG", &installed.config);
    // Without a home of its own it would be looked up where that is.
    let home = installed.config.parent().expect("a folder");
    command.env("REQUEST_METHOD", "GET").env("QUERY_STRING", query("bob")).env("HOME", home);
    let output = command.output().expect("strace starts");
    assert!(output.stdout.ends_with(b"\r\n\r\nLunch\n"), "{output:?}");
    let entry = files(&installed.people()).remove(0);
    let trace = fs::read_to_string(trace).expect("it is written");
    // The dynamic linker's part, before the program begins.
    let others = ["/etc/ld.so", "/lib", "/usr/lib", "/proc/self", "/sys/fs"].map(|part| format!("\"{part}"));
    let is_ours = |line: &&str| !others.iter().any(|part| line.contains(part));
    let done: Vec<_> = trace.lines().filter(is_ours).collect();
    let [config, one] = &done[..] else { panic!("{trace}") };
    assert!(
        config.contains(&*installed.config.to_string_lossy()) && one.contains(&*entry.to_string_lossy()),
        "{trace}"
    );
    assert_eq!(crowd.probes(&format!("bob@{DOMAIN}")), 1);
}
