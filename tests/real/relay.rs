//! Many processes, one identity, one session: whoever has it carries the questions of all, and when he is killed the
//! others go on. What reaches the XMPP server is counted on the way there.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cases::cases;
use crate::rig::fastcgi::Connection;
use crate::rig::leash::{Leash, directory};
use crate::rig::nginx::{Conf, Nginx};
use crate::rig::tap::Tap;
use crate::rig::users::Shown;
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Kind, SECRET, Xmpp};
use crate::rig::{eventually, http, port};
use crate::world::{Visit, consent, next_number, patient, visit};

/// One installation, several processes of it, and the tap before the server.
pub struct Stand {
    pub installed: Webpresence,
    pub tap: Tap,
}

impl Stand {
    pub fn new(server: &Xmpp, identity: Identity, more: &str, cache: &str) -> Stand {
        let installed = Webpresence::tuned(server, identity, more, cache);
        let there =
            if matches!(identity, Identity::Component(_)) { server.ports.component } else { server.ports.client };
        let tap = Tap::before(there);
        let line = |port: u16| format!("\nport = {port}\n");
        let text = installed.configuration().replace(&line(there), &line(tap.port));
        // One visitor asks for two hundred people at once.
        let unlimited = "[access]\nunknown_per_minute = 0\nunknown_per_minute_all = 0\n";
        installed.configure(&text.replace("[access]\n", unlimited));
        Stand { installed, tap }
    }

    fn state(&self) -> PathBuf {
        let text = self.installed.configuration();
        let path = text.lines().find_map(|line| line.strip_prefix("directory = ")).expect("configured");
        path.into()
    }

    pub fn serve(&self) -> Daemon {
        self.serve_as(None, Path::new(env!("CARGO_BIN_EXE_webpresence")))
    }

    fn serve_as(&self, user: Option<&str>, executable: &Path) -> Daemon {
        let dir = directory("relay");
        let socket = dir.path().join("webpresence.sock");
        let mut command = Command::new(executable);
        command.arg("serve").arg("--config").arg(&self.installed.config);
        command.arg("--listen").arg(format!("unix:{},mode=0666", socket.display()));
        let mut leash = Leash::start(dir, user, &mut command, &[]);
        eventually("webpresence serve accepts", || {
            assert_eq!(leash.ended(), None, "{}", leash.log());
            UnixStream::connect(&socket).ok()
        });
        Daemon { leash, socket }
    }

    /// Which of them holds the session: the kernel knows (proc(5), locks).
    fn holder(&self, daemons: &[Daemon]) -> usize {
        let lease = self.state().join(format!("{}.lease", self.installed.identity.jid()));
        let inode = fs::metadata(lease).expect("the lease").ino();
        let locks = fs::read_to_string("/proc/locks").expect("Linux");
        let line = locks.lines().find(|line| line.contains("FLOCK") && line.contains(&format!(":{inode} ")));
        let pid = line.and_then(|line| line.split_whitespace().nth(4)).expect("somebody holds it");
        let is_his = |daemon: &Daemon| commands(pid).contains(&daemon.socket.display().to_string());
        daemons.iter().position(is_his).expect("one of them")
    }
}

fn commands(pid: &str) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).into_owned()
}

pub struct Daemon {
    pub leash: Leash,
    pub socket: PathBuf,
}

impl Daemon {
    pub fn text(&self, jid: &str) -> String {
        Connection::open(&self.socket).ask(&format!("jid={jid}&type=text")).text()
    }

    fn tells(&self, jid: &str) -> Told {
        (format!("process {}", self.leash.pid.as_raw_nonzero()), self.text(jid))
    }
}

const CROWD: usize = 25;

/// People with words of their own, so that no answer can be mistaken for another one's.
pub fn crowd(world: &Visit, identity: Identity) -> HashMap<String, String> {
    let name = |n: usize| format!("crowd{n}");
    static MET: [OnceLock<()>; 2] = [OnceLock::new(), OnceLock::new()];
    let users: Vec<String> = (0..CROWD).map(name).collect();
    MET[world.server.kind as usize].get_or_init(|| {
        for (n, user) in users.iter().enumerate() {
            world.server.register(user);
            let text = format!("Words of {n}");
            let shown = Shown { show: "away", texts: &[("", &text)], ..Shown::default() };
            world.users.login(&format!("{user}/home"), shown);
        }
    });
    let installed = patient(&world.server, identity);
    consent(&world.users, &installed, identity, &users.iter().map(String::as_str).collect::<Vec<_>>());
    users.iter().enumerate().map(|(n, user)| (format!("{user}@{DOMAIN}"), format!("Words of {n}\n"))).collect()
}

/// Two hundred people, and what is to be said about each.
fn everybody(mut known: HashMap<String, String>, strangers: &str) -> Vec<(String, String)> {
    for case in cases().into_iter().take(9) {
        known.insert(case.jid, case.text);
    }
    let strangers = (known.len()..200).map(|n| (format!("{strangers}{n}@{DOMAIN}"), "Forbidden\n".to_owned()));
    let all: Vec<_> = known.into_iter().chain(strangers).collect();
    assert_eq!(all.len(), 200);
    all
}

/// An answer, and who gave it.
type Told = (String, String);

/// Asks for all of them at once; `ask` tells how for each number.
fn at_once(people: &[(String, String)], ask: impl Fn(usize, &str) -> Told + Sync) {
    let begun = Instant::now();
    let wrong: Vec<String> = thread::scope(|scope| {
        let asked: Vec<_> = people
            .iter()
            .enumerate()
            .map(|(n, (jid, expected))| {
                let ask = &ask;
                scope.spawn(move || {
                    let from = begun.elapsed();
                    let (by, text) = ask(n, jid);
                    let to = begun.elapsed();
                    (text != *expected)
                        .then(|| format!("{jid}: {text:?} for {expected:?}, {from:?} to {to:?}, by {by}"))
                })
            })
            .collect();
        asked.into_iter().filter_map(|task| task.join().expect("no panic")).collect()
    });
    assert!(wrong.is_empty(), "{} of {} answers: {wrong:#?}", wrong.len(), people.len());
}

fn eight_processes(kind: Kind) {
    let world = visit(kind);
    let stand = Stand::new(&world.server, Identity::Component(5), "", "");
    let people = everybody(crowd(&world, stand.installed.identity), "unheard");
    let before = stand.tap.total();
    let daemons: Vec<Daemon> = (0..8).map(|_| stand.serve()).collect();
    at_once(&people, |n, jid| daemons[n % 8].tells(jid));
    assert_eq!((stand.tap.most(), stand.tap.total() - before), (1, 1), "connections at a time, and in all");
}

#[test]
fn prosody_eight_processes_share_a_session() {
    eight_processes(Kind::Prosody);
}

#[test]
fn ejabberd_eight_processes_share_a_session() {
    eight_processes(Kind::Ejabberd);
}

/// Killed while two hundred questions are in its session: half of them reached it directly from the other processes,
/// half came through nginx, also to the one that dies.
fn a_killed_holder(kind: Kind) {
    let world = visit(kind);
    let stand = Stand::new(&world.server, Identity::Component(6), "", "");
    stand.installed.configure(&format!("{}[log]\nlevel = debug\n", stand.installed.configuration()));
    let people = everybody(crowd(&world, stand.installed.identity), "unknown");
    let daemons: Vec<Daemon> = (0..8).map(|_| stand.serve()).collect();
    let nginx = nginx(&daemons);
    assert_eq!(daemons[3].text("other.example.test"), "Available\n", "the session is open");
    let (before, holder) = (stand.tap.total(), stand.holder(&daemons));
    assert_eq!(holder, 3);
    stand.tap.hold();
    let (asked, tap, probed) = (AtomicUsize::new(0), &stand.tap, stand.tap.probes());
    thread::scope(|scope| {
        scope.spawn(|| {
            eventually("everybody has asked", || (asked.load(Ordering::SeqCst) == people.len()).then_some(()));
            let most = people.len() * 9 / 10;
            eventually("the questions are on their way", || (tap.probes() - probed >= most).then_some(()));
            daemons[holder].leash.signal(Signal::KILL);
            tap.let_go();
        });
        at_once(&people, |n, jid| {
            asked.fetch_add(1, Ordering::SeqCst);
            match n % 2 {
                0 => told_by(&nginx, jid),
                _ => daemons[(holder + 1 + n / 2 % 7) % 8].tells(jid),
            }
        });
    });
    assert_ne!(stand.holder(&daemons), holder);
    let (most, new) = (stand.tap.most(), stand.tap.total() - before);
    assert_eq!(most, 1, "connections at a time");
    assert!((1..=3).contains(&new), "{new} connections for one that was killed");
}

#[test]
fn prosody_the_holder_is_killed() {
    a_killed_holder(Kind::Prosody);
}

#[test]
fn ejabberd_the_holder_is_killed() {
    a_killed_holder(Kind::Ejabberd);
}

fn told_by(nginx: &Nginx, jid: &str) -> Told {
    let answer = nginx.send(http::Request::get(&format!("/presence/?jid={jid}&type=text")));
    (format!("nginx, with status {}", answer.status), answer.text())
}

/// nginx in front of several processes; one that dies is no visitor's business.
fn nginx(daemons: &[Daemon]) -> Nginx {
    port::retrying("nginx", || {
        let dir = directory("relay-nginx");
        let [port] = port::free();
        let servers: String =
            daemons.iter().map(|daemon| format!("server unix:{} max_fails=0;\n", daemon.socket.display())).collect();
        let main = "error_log @DIR@/error.log info; events { worker_connections 2048; }";
        let http = "access_log off; upstream presence { @SERVERS@ }
            server { listen 127.0.0.1:@PORT@; location /presence/ {
            include fastcgi_params; fastcgi_pass presence; fastcgi_next_upstream error timeout;
            } }";
        Nginx::run(dir, port, Conf { main, http, words: &[("SERVERS", &servers)] })
    })
}

/// A holder that was stopped answers nobody, and keeps the lease: what was known is shown, else that nothing is known.
fn a_stopped_holder(kind: Kind) {
    let world = visit(kind);
    let stand = Stand::new(&world.server, Identity::Component(15), "timeout = 2", "ttl = 1\nrefresh = 0\nstale = 300");
    let (first, second) = (stand.serve(), stand.serve());
    assert_eq!(first.text("away@example.test"), "Lunch\n");
    assert_eq!(second.text("chat@example.test"), "Ask me anything\n", "by the other one's session");
    first.leash.stop();
    let asked = Instant::now();
    assert_eq!(second.text("gone@example.test"), "Unknown\n");
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    let log = second.leash.log();
    assert!(log.contains("another process holds the session of this identity, and does not answer"), "{log}");
    let known = Connection::open(&second.socket).ask("jid=chat@example.test&type=text");
    assert_eq!((known.status, known.text().as_str()), (200, "Ask me anything\n"), "the last that is known");
    assert!(known.header("Age").is_some_and(|age| age != "0"), "{known:?}");
    let output = stand.installed.run(&["probe", "gone@example.test"]);
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(report.contains("another process holds the session") && report.contains("may be stopped"), "{report}");
    assert_eq!(stand.tap.total(), 1, "never a second session");
    first.leash.signal(Signal::CONT);
    assert_eq!(second.text("gone@example.test"), "See you tomorrow\n");
    assert_eq!(stand.tap.total(), 1);
}

#[test]
fn prosody_the_holder_is_stopped() {
    a_stopped_holder(Kind::Prosody);
}

#[test]
fn ejabberd_the_holder_is_stopped() {
    a_stopped_holder(Kind::Ejabberd);
}

/// CGI, commands and daemons side by side: while a daemon is there it carries everything; without one, those who are
/// there carry each other.
fn side_by_side(kind: Kind, identity: Identity) {
    let world = visit(kind);
    let stand = Stand::new(&world.server, identity, "", "");
    let get = |jid: &str| {
        let query = format!("jid={jid}&type=text");
        ("CGI".to_owned(), stand.installed.cgi(&[("REQUEST_METHOD", "GET"), ("QUERY_STRING", &query)], b"").text())
    };
    let people: Vec<(String, String)> = cases().into_iter().take(9).map(|case| (case.jid, case.text)).collect();
    let many: Vec<_> = people.iter().cycle().take(27).cloned().collect();
    at_once(&many, |_, jid| get(jid));
    let alone = stand.tap.total();
    assert!(alone < many.len() && stand.tap.most() == 1, "{alone} sessions for {}", many.len());
    let daemon = stand.serve();
    assert_eq!(daemon.text("other.example.test"), "Available\n");
    at_once(&many, |n, jid| match n % 3 {
        0 => daemon.tells(jid),
        1 => ("get".to_owned(), stand.installed.get(&format!("jid={jid}&type=text")).text()),
        _ => get(jid),
    });
    let output = stand.installed.run(&["probe", "away@example.test"]);
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        report.contains("away \"Lunch\"") && report.contains("asked the process that holds the session"),
        "{report}"
    );
    assert_eq!((stand.tap.total(), stand.tap.most()), (alone + 1, 1), "the daemon's is the only session");
}

#[test]
fn prosody_component_side_by_side() {
    side_by_side(Kind::Prosody, Identity::Component(12));
}

#[test]
fn ejabberd_component_side_by_side() {
    side_by_side(Kind::Ejabberd, Identity::Component(12));
}

#[test]
fn prosody_account_side_by_side() {
    side_by_side(Kind::Prosody, Identity::Account(12));
}

#[test]
fn ejabberd_account_side_by_side() {
    side_by_side(Kind::Ejabberd, Identity::Account(12));
}

/// `linger = always`: the session is there before anybody asks, and when its holder is killed another process has it.
fn always_there(kind: Kind) {
    let world = visit(kind);
    let stand = Stand::new(&world.server, Identity::Component(14), "linger = always", "");
    let mut daemons = vec![stand.serve()];
    eventually("a session nobody has asked for", || (stand.tap.total() == 1).then_some(()));
    daemons.push(stand.serve());
    assert_eq!(daemons[1].text("other.example.test"), "Available\n");
    assert_eq!((stand.tap.total(), stand.holder(&daemons)), (1, 0));
    daemons[0].leash.signal(Signal::KILL);
    eventually("the other one has a session", || (stand.tap.total() == 2).then_some(()));
    assert_eq!(daemons[1].text("away@example.test"), "Lunch\n");
    assert_eq!((stand.tap.total(), stand.tap.most(), stand.holder(&daemons)), (2, 1, 1));
}

#[test]
fn prosody_component_is_always_there() {
    always_there(Kind::Prosody);
}

#[test]
fn ejabberd_component_is_always_there() {
    always_there(Kind::Ejabberd);
}

/// Root's commands use the session of the web server's user, and leave nothing there that he could not read.
#[test]
fn root_acts_as_the_owner_of_the_directory() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let world = visit(Kind::Prosody);
    let stand = Stand::new(&world.server, Identity::Component(next_number()), "", "");
    let executable = stand.installed.executable("webpresence");
    stand.installed.hand_over("www-data");
    let owner = fs::metadata(stand.state()).expect("a directory").uid();
    assert_ne!(owner, 0);
    let output = stand.installed.run(&["check"]);
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && report.contains(&format!("from here on as user {owner}")), "{report}");
    let daemon = stand.serve_as(Some("www-data"), &executable);
    assert_eq!(daemon.text("other.example.test"), "Available\n");
    let before = stand.tap.total();
    for command in [vec!["probe", "other.example.test"], vec!["get", "jid=other.example.test"], vec!["check"]] {
        let output = stand.installed.run(&command);
        assert!(output.status.success(), "{command:?}: {output:?}");
    }
    assert_eq!(stand.tap.total(), before, "they were served by the daemon");
    for entry in fs::read_dir(stand.state()).expect("a directory") {
        let entry = entry.expect("an entry");
        assert_eq!(entry.metadata().expect("there").uid(), owner, "{:?}", entry.file_name());
    }
}

/// COMPAT: ejabberd bans the address after twenty. Daemons, CGI and commands ask all the time, and start again
/// three times: for a few seconds, or for as many as `make soak` says.
fn wrong_password(identity: fn(usize) -> Identity) {
    let seconds = std::env::var("SOAK_SECONDS").map_or(4, |seconds| seconds.parse().expect("a number"));
    let time = Duration::from_secs(seconds);
    let pause = (time / 80).min(Duration::from_secs(1));
    let world = visit(Kind::Ejabberd);
    let identity = identity(next_number());
    if let Identity::Account(number) = identity {
        world.server.register(&format!("webstatus{number}"));
    }
    let stand = Stand::new(&world.server, identity, "", "");
    stand.installed.configure(&stand.installed.configuration().replace(SECRET, "mistaken-0815"));
    for _ in 0..4 {
        let daemons = [stand.serve(), stand.serve()];
        let ends = Instant::now() + time / 4;
        for round in 0.. {
            for daemon in &daemons {
                assert_eq!(daemon.text(&format!("a{round}@example.test")), "Unknown\n");
            }
            let query = [("REQUEST_METHOD", "GET"), ("QUERY_STRING", "jid=away@example.test&type=text")];
            assert_eq!(stand.installed.cgi(&query, b"").text(), "Unknown\n");
            if Instant::now() >= ends {
                break;
            }
            // Not to wait for anything: this is how often visitors come.
            thread::sleep(pause);
        }
        let output = stand.installed.run(&["probe", "away@example.test"]);
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(report.contains("next attempt in ") && report.contains("; last failure: "), "{report}");
    }
    let (attempts, by_server) = (stand.tap.total(), refusals(&world.server, identity));
    println!("{}: {attempts} connections, {by_server} refusals by ejabberd's log", identity.jid());
    assert!((1..=2).contains(&attempts) && (1..=2).contains(&by_server), "{attempts} attempts, {by_server} refusals");
}

/// How many logins of `identity` ejabberd has refused, by its own log and what it has put aside of it.
fn refusals(server: &Xmpp, identity: Identity) -> usize {
    let (kind, jid) = match identity {
        Identity::Account(_) => ("Failed c2s", identity.jid()),
        Identity::Component(_) => ("Failed external component", identity.jid()),
    };
    let is_log = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ejabberd.log"));
    let logs = fs::read_dir(server.leash.dir().join("logs")).expect("ejabberd's logs").flatten();
    let texts = logs.map(|log| log.path()).filter(|path| is_log(path)).map(fs::read);
    let texts = texts.map(|text| String::from_utf8_lossy(&text.expect("a log")).into_owned());
    texts.map(|text| text.lines().filter(|line| line.contains(kind) && line.contains(&jid)).count()).sum()
}

#[test]
fn ejabberd_sees_a_wrong_password_of_an_account_once() {
    wrong_password(Identity::Account);
}

#[test]
fn ejabberd_sees_a_wrong_secret_of_a_component_once() {
    wrong_password(Identity::Component);
}
