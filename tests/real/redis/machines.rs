//! Installations with directories of their own, as on several machines, before one XMPP server: what reaches it is counted
//! on the way.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cases::cases;
use crate::guests::{opt_in, somebody};
use crate::rig::eventually;
use crate::rig::fastcgi::Connection;
use crate::rig::leash::{Leash, directory};
use crate::rig::redis::{Cluster, Redis};
use crate::rig::tap::Tap;
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Kind, Xmpp};
use crate::world::{Visit, next_number, visit};

/// What one call takes at the most beside what it waits for, on a busy machine.
const SLACK: Duration = Duration::from_secs(2);

struct Machine {
    installed: Webpresence,
}

/// `count` machines with one identity, and the tap before the server.
fn machines(server: &Xmpp, number: usize, count: usize, url: &str, more: (&str, &str)) -> (Vec<Machine>, Tap) {
    let there = server.ports.component;
    let tap = Tap::before(there);
    let machine = |_| {
        let cache = format!("url = {url}\n{}", more.1);
        let installed = Webpresence::tuned(server, Identity::Component(number), more.0, &cache);
        let line = |port: u16| format!("\nport = {port}\n");
        let text = installed.configuration().replace(&line(there), &line(tap.port));
        let unlimited = "[access]\nunknown_per_minute = 0\nunknown_per_minute_all = 0\n";
        installed.configure(&text.replace("[access]\n", unlimited));
        Machine { installed }
    };
    ((0..count).map(machine).collect(), tap)
}

impl Machine {
    fn serve(&self) -> Daemon {
        self.serve_by(&[])
    }

    /// With a program in front that changes how it sees the world.
    fn serve_by(&self, front: &[&str]) -> Daemon {
        let dir = directory("machine");
        let socket = dir.path().join("webpresence.sock");
        let words: Vec<&str> = front.iter().copied().chain([env!("CARGO_BIN_EXE_webpresence")]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("serve").arg("--config").arg(&self.installed.config);
        command.arg("--listen").arg(format!("unix:{},mode=0666", socket.display()));
        let mut leash = Leash::start(dir, None, &mut command, &[]);
        eventually("webpresence serve accepts", || {
            assert_eq!(leash.ended(), None, "{}", leash.log());
            UnixStream::connect(&socket).ok()
        });
        Daemon { leash, socket }
    }

    fn cgi(&self, jid: &str) -> String {
        let query = format!("jid={jid}&type=text");
        self.installed.cgi(&[("REQUEST_METHOD", "GET"), ("QUERY_STRING", &query)], b"").text()
    }
}

struct Daemon {
    leash: Leash,
    socket: std::path::PathBuf,
}

impl Daemon {
    fn text(&self, jid: &str) -> String {
        Connection::open(&self.socket).ask(&format!("jid={jid}&type=text")).text()
    }

    /// The lines of its log that speak of Redis.
    fn said_of_redis(&self) -> usize {
        self.leash.log().lines().filter(|line| line.contains("redis at ")).count()
    }
}

/// The cast, each with his words, and strangers.
fn people(count: usize) -> Vec<(String, String)> {
    let known = cases().into_iter().take(9).map(|case| (case.jid, case.text));
    let strangers = (0..).map(|n| (format!("nobody{n}@{DOMAIN}"), "Forbidden\n".to_owned()));
    known.chain(strangers).take(count).collect()
}

/// Asks for all of them at once.
fn at_once(people: &[(String, String)], ask: impl Fn(usize, &str) -> String + Sync) {
    let wrong: Vec<String> = thread::scope(|scope| {
        let ask = |(n, (jid, expected)): (usize, &(String, String))| {
            let text = ask(n, jid);
            (text != *expected).then(|| format!("{jid}: {text:?} for {expected:?}"))
        };
        let asked: Vec<_> = people.iter().enumerate().map(|row| scope.spawn(move || ask(row))).collect();
        asked.into_iter().filter_map(|task| task.join().expect("no panic")).collect()
    });
    assert!(wrong.is_empty(), "{} of {} answers: {wrong:#?}", wrong.len(), people.len());
}

fn share_a_session(world: &Visit, number: usize, url: &str) {
    let (machines, tap) = machines(&world.server, number, 3, url, ("", ""));
    let daemons: Vec<Daemon> = machines.iter().flat_map(|machine| [machine.serve(), machine.serve()]).collect();
    let people = people(60);
    at_once(&people, |n, jid| daemons[n % daemons.len()].text(jid));
    assert_eq!((tap.most(), tap.total()), (1, 1), "connections at a time, and in all");
    let probes = tap.probes();
    // What one machine knows, all know.
    let known: Vec<_> = people.into_iter().filter(|(_, text)| text != "Forbidden\n").collect();
    for daemon in &daemons {
        at_once(&known, |_, jid| daemon.text(jid));
    }
    at_once(&known, |_, jid| machines[2].cgi(jid));
    assert_eq!((tap.probes(), tap.total()), (probes, 1));
    for daemon in &daemons {
        assert_eq!(daemon.said_of_redis(), 0, "{}", daemon.leash.log());
    }
}

#[test]
fn prosody_machines_share_a_session() {
    share_a_session(&visit(Kind::Prosody), 18, &Redis::start().url());
}

#[test]
fn ejabberd_machines_share_a_session() {
    share_a_session(&visit(Kind::Ejabberd), 18, &Redis::start().url());
}

#[test]
fn prosody_machines_of_a_cluster_share_a_session() {
    share_a_session(&visit(Kind::Prosody), 19, &Cluster::start().url());
}

/// One cold person, asked for on all machines at once: one probe.
#[test]
fn one_person_is_looked_up_by_one_machine() {
    let (world, redis) = (visit(Kind::Prosody), Redis::start());
    let (machines, tap) = machines(&world.server, 20, 4, &redis.url(), ("", ""));
    let daemons: Vec<Daemon> = machines.iter().map(Machine::serve).collect();
    assert_eq!(daemons[0].text("other.example.test"), "Available\n");
    for (name, text) in [("away", "Lunch\n"), ("gone", "See you tomorrow\n")] {
        let before = tap.probes();
        let all = vec![(format!("{name}@{DOMAIN}"), text.to_owned()); 100];
        at_once(&all, |n, jid| daemons[n % 4].text(jid));
        assert_eq!(tap.probes() - before, 1, "{name}");
    }
}

/// CGI on two machines, where each process comes and goes.
#[test]
fn cgi_on_two_machines() {
    let (world, redis) = (visit(Kind::Prosody), Redis::start());
    let (machines, tap) = machines(&world.server, 21, 2, &redis.url(), ("", ""));
    at_once(&people(24), |n, jid| machines[n % 2].cgi(jid));
    assert_eq!(tap.most(), 1, "connections at a time");
}

/// Killed while questions are in its session: another machine's turn comes with the end of the lease.
fn a_killed_holder(kind: Kind, number: usize) {
    let (world, redis) = (visit(kind), Redis::start());
    let (machines, tap) = machines(&world.server, number, 2, &redis.url(), ("", "ttl = 1\nrefresh = 0"));
    let daemons: Vec<Daemon> = machines.iter().map(Machine::serve).collect();
    assert_eq!(daemons[0].text("other.example.test"), "Available\n");
    assert_eq!(daemons[1].text(&format!("away@{DOMAIN}")), "Lunch\n");
    assert_eq!(tap.total(), 1, "the first one's session serves both");
    daemons[0].leash.signal(Signal::KILL);
    let begun = Instant::now();
    at_once(&people(20), |_, jid| daemons[1].text(jid));
    assert!(begun.elapsed() < Duration::from_secs(5) + SLACK, "{:?}", begun.elapsed());
    assert_eq!(tap.most(), 1, "connections at a time");
    // Who takes his leave makes room at once.
    let third = machines[0].serve();
    assert_eq!(third.text(&format!("chat@{DOMAIN}")), "Ask me anything\n");
    let before = tap.total();
    daemons[1].leash.signal(Signal::TERM);
    let begun = Instant::now();
    assert_eq!(third.text(&format!("nobody@{DOMAIN}")), "Forbidden\n");
    assert!(begun.elapsed() < SLACK, "{:?}", begun.elapsed());
    assert_eq!((tap.most(), tap.total() - before), (1, 1));
}

#[test]
fn prosody_the_holding_machine_is_killed() {
    a_killed_holder(Kind::Prosody, 22);
}

#[test]
fn ejabberd_the_holding_machine_is_killed() {
    a_killed_holder(Kind::Ejabberd, 19);
}

/// Redis is killed under two machines: each goes by itself, and later both are one again.
fn a_killed_redis(kind: Kind, number: usize) {
    let (world, mut redis) = (visit(kind), Redis::start());
    let (machines, tap) = machines(&world.server, number, 2, &redis.url(), ("", "ttl = 2\nrefresh = 0\nstale = 300"));
    let daemons: Vec<Daemon> = machines.iter().map(Machine::serve).collect();
    for daemon in &daemons {
        assert_eq!(daemon.text("other.example.test"), "Available\n");
    }
    redis.kill();
    let people = people(20);
    for _ in 0..2 {
        at_once(&people, |n, jid| daemons[n % 2].text(jid));
    }
    for daemon in &daemons {
        assert_eq!(daemon.said_of_redis(), 1, "{}", daemon.leash.log());
    }
    let redis = redis.start_again();
    let mut rounds = 0;
    eventually("both are one again", || {
        rounds += 1;
        let nobody = |who: usize| format!("back{rounds}-{who}@{DOMAIN}");
        assert_eq!([0, 1].map(|n| daemons[n].text(&nobody(n))), ["Forbidden\n"; 2]);
        let is_back = daemons.iter().all(|daemon| daemon.said_of_redis() == 2);
        (is_back && !redis.ask(&["KEYS", "*:lease"]).is_empty()).then_some(())
    });
    let before = tap.total();
    at_once(&people, |n, jid| daemons[n % 2].text(jid));
    at_once(&people, |n, jid| daemons[1 - n % 2].text(jid));
    assert!(tap.total() - before <= 1, "{} new sessions", tap.total() - before);
}

#[test]
fn prosody_redis_is_killed() {
    a_killed_redis(Kind::Prosody, 23);
}

#[test]
fn ejabberd_redis_is_killed() {
    a_killed_redis(Kind::Ejabberd, 20);
}

/// It was stopped: nobody is answered later for it than by a blink.
#[test]
fn redis_is_stopped() {
    let (world, redis) = (visit(Kind::Ejabberd), Redis::start());
    let (machines, _tap) = machines(&world.server, 21, 1, &redis.url(), ("timeout = 5", "ttl = 1\nrefresh = 0"));
    let daemon = machines[0].serve();
    assert_eq!(daemon.text("other.example.test"), "Available\n");
    redis.stop();
    for _ in 0..2 {
        for (jid, text) in people(8) {
            let begun = Instant::now();
            assert_eq!(daemon.text(&jid), text);
            assert!(begun.elapsed() < SLACK, "{jid}: {:?}", begun.elapsed());
        }
    }
    assert_eq!(daemon.said_of_redis(), 1, "{}", daemon.leash.log());
    redis.go_on();
    let mut n = 0;
    eventually("it is used again", || {
        n += 1;
        daemon.text(&format!("u{n}@{DOMAIN}"));
        (daemon.said_of_redis() == 2).then_some(())
    });
}

/// A machine that was stopped keeps its place at the XMPP server: nobody learns anything wrong from that.
#[test]
fn the_holding_machine_is_stopped() {
    let (world, redis) = (visit(Kind::Prosody), Redis::start());
    let (machines, tap) =
        machines(&world.server, 24, 2, &redis.url(), ("timeout = 5", "ttl = 1\nrefresh = 0\nstale = 300"));
    let (first, second) = (machines[0].serve(), machines[1].serve());
    assert_eq!(first.text(&format!("away@{DOMAIN}")), "Lunch\n");
    assert_eq!(second.text(&format!("chat@{DOMAIN}")), "Ask me anything\n");
    assert_eq!(tap.total(), 1);
    first.leash.stop();
    let begun = Instant::now();
    assert_eq!(second.text(&format!("gone@{DOMAIN}")), "Unknown\n");
    assert!(begun.elapsed() < Duration::from_secs(5) + SLACK, "{:?}", begun.elapsed());
    assert_eq!(second.text(&format!("chat@{DOMAIN}")), "Ask me anything\n", "the last that is known");
    first.leash.signal(Signal::CONT);
    eventually("all is well", || (second.text(&format!("gone@{DOMAIN}")) == "See you tomorrow\n").then_some(()));
    assert_eq!(first.text(&format!("dnd@{DOMAIN}")), "R&D <\"1\">\n");
}

/// Two clocks an hour apart: ages go by that of Redis.
#[test]
fn clocks_are_an_hour_apart() {
    let (world, redis) = (visit(Kind::Prosody), Redis::start());
    // One that is not known to tell changes, so that every new answer is a probe.
    let lines = ("server = other", "ttl = 3\nrefresh = 0\nstale = 300");
    let (machines, tap) = machines(&world.server, 25, 2, &redis.url(), lines);
    let folders = fs::read_dir("/usr/lib").expect("a folder").flatten();
    let mut libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let library = libraries.find(|path| path.exists()).expect("install it with: apt-get install libfaketime");
    let preload = format!("LD_PRELOAD={}", library.display());
    let front = ["/usr/bin/env", &preload, "FAKETIME=+1h", "FAKETIME_DONT_FAKE_MONOTONIC=1"];
    let daemons = [machines[0].serve(), machines[1].serve_by(&front)];
    let person = format!("away@{DOMAIN}");
    for (n, other) in [(0, 1), (1, 0)] {
        eventually("it is too old", || {
            redis.ask(&["KEYS", "*:presence"]).lines().all(|_| tap.probes() > 0).then_some(())
        });
        let ask = |daemon: &Daemon| Connection::open(&daemon.socket).ask(&format!("jid={person}&type=text"));
        let fresh = eventually("a new answer", || {
            let before = tap.probes();
            let answer = ask(&daemons[n]);
            (tap.probes() > before).then_some(answer)
        });
        assert_eq!(fresh.text(), "Lunch\n");
        let before = tap.probes();
        let told = ask(&daemons[other]);
        assert_eq!((told.text().as_str(), tap.probes()), ("Lunch\n", before), "what one has learned, both know");
        let rest = told.header("Cache-Control").and_then(|line| line.split("max-age=").nth(1)).expect("fresh");
        let rest: u64 = rest.split(',').next().and_then(|number| number.parse().ok()).expect("a number");
        assert!((1..=3).contains(&rest), "{told:?}");
    }
    assert_eq!((tap.most(), tap.total()), (1, 1), "and they have one session");
}

/// `linger = always`: one machine has the session, and when it is killed the other one.
#[test]
fn one_machine_always_has_the_session() {
    let (world, redis) = (visit(Kind::Prosody), Redis::start());
    let (machines, tap) = machines(&world.server, 26, 2, &redis.url(), ("linger = always", ""));
    let first = machines[0].serve();
    eventually("a session nobody has asked for", || (tap.total() == 1).then_some(()));
    let second = machines[1].serve();
    assert_eq!(second.text("other.example.test"), "Available\n");
    assert_eq!(tap.total(), 1);
    first.leash.signal(Signal::KILL);
    eventually("the other one has it", || (tap.total() == 2).then_some(()));
    assert_eq!(second.text(&format!("away@{DOMAIN}")), "Lunch\n");
    assert_eq!((tap.most(), tap.total()), (1, 2));
}

/// What somebody has told the machine that is killed then holds on the others.
#[test]
fn a_choice_outlasts_the_machine_that_heard_it() {
    let (world, redis) = (visit(Kind::Prosody), Redis::start());
    somebody(&world, "roamer");
    let identity = Identity::Component(next_number());
    let Identity::Component(number) = identity else { unreachable!("it is one") };
    let (machines, _tap) =
        machines(&world.server, number, 2, &redis.url(), ("linger = always", "ttl = 1\nrefresh = 0"));
    let first = machines[0].serve();
    let person = format!("roamer@{DOMAIN}");
    // With this answer the component is connected: Prosody would return what goes to one that is not.
    assert_eq!(first.text(&person), "Forbidden\n");
    opt_in(&world, "roamer", identity);
    let second = machines[1].serve();
    eventually("he is shown", || (second.text(&person) == "Lunch\n").then_some(()));
    world.users.say("roamer/home", &identity.jid(), "off");
    let notes = format!("webpresence:{{{}}}:notes", identity.jid());
    eventually("the machines agree", || {
        let note = redis.ask(&["HGET", &notes, &format!("choice.{person}")]);
        (note.trim_start_matches('+') == "off").then_some(())
    });
    first.leash.signal(Signal::KILL);
    eventually("the second one is asked", || (second.text(&person) == "Forbidden\n").then_some(()));
    eventually("it has a session of its own", || {
        let lease = redis.ask(&["GET", &format!("webpresence:{{{}}}:left", identity.jid())]);
        assert_eq!(lease, "", "nobody has taken his leave");
        assert_ne!(second.text(&person), "Lunch\n");
        let state = machines[1].installed.state();
        state.join(format!("{}.choice.{person}", identity.jid())).exists().then_some(())
    });
    assert_eq!(machines[1].cgi(&person), "Forbidden\n");
}

/// Another one took the lease for a moment: what the broken session had learned is known to the next one.
#[test]
fn a_lost_lease_costs_nothing_that_was_learned() {
    let (world, redis) = (visit(Kind::Prosody), Redis::start());
    let (machines, tap) = machines(&world.server, 28, 1, &redis.url(), ("linger = always", ""));
    let daemon = machines[0].serve();
    assert_eq!(daemon.text(&format!("away@{DOMAIN}")), "Lunch\n");
    let us = Identity::Component(28).jid();
    let facts = machines[0].installed.state().join(format!("{us}.facts"));
    let knows = |name: &str| fs::read_to_string(&facts).is_ok_and(|text| text.contains(&format!("{name}@{DOMAIN}")));
    eventually("it is written down", || knows("away").then_some(()));
    let before = tap.total();
    redis.ask(&["SET", &format!("webpresence:{{{us}}}:lease"), "another", "PX", "1500"]);
    eventually("another session", || (tap.total() > before).then_some(()));
    assert_eq!(daemon.text(&format!("chat@{DOMAIN}")), "Ask me anything\n");
    daemon.leash.signal(Signal::TERM);
    eventually("that is written down as well", || knows("chat").then_some(()));
    assert!(knows("away"), "{:?}", fs::read_to_string(&facts));
}

/// A user of Redis who may not wait there: it is asked now and then, and not all the time.
#[test]
fn who_may_not_wait_at_redis_does_not_run_in_circles() {
    let (world, redis) = (visit(Kind::Prosody), Redis::start());
    redis.ask(&["ACL", "SETUSER", "default", "-@blocking"]);
    let (machines, _tap) = machines(&world.server, 29, 1, &redis.url(), ("linger = always", ""));
    let daemon = machines[0].serve();
    assert_eq!(daemon.text(&format!("away@{DOMAIN}")), "Lunch\n");
    let connections = || {
        let stats = redis.ask(&["INFO", "stats"]);
        let count = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        count.and_then(|count| count.trim().parse::<u32>().ok()).expect("a number")
    };
    let (begun, before) = (Instant::now(), connections());
    eventually("a second has passed", || (begun.elapsed() > Duration::from_secs(1)).then_some(()));
    let (more, took) = (connections() - before, begun.elapsed());
    assert!(more < 20 * (took.as_secs() as u32 + 1), "{more} connections in {took:?}");
}

/// Another password of Redis: the answers are right, and it is nowhere to be read.
#[test]
fn a_wrong_password_is_told_without_it() {
    let (world, redis) = (visit(Kind::Prosody), Redis::with(&["--requirepass", "right"]));
    let url = format!("redis://:hunter2@127.0.0.1:{}", redis.port);
    let (machines, _tap) = machines(&world.server, 27, 1, &url, ("", ""));
    let daemon = machines[0].serve();
    assert_eq!(daemon.text(&format!("away@{DOMAIN}")), "Lunch\n");
    let log = daemon.leash.log();
    assert_eq!(daemon.said_of_redis(), 1, "{log}");
    let check = |installed: &Webpresence| String::from_utf8_lossy(&installed.run(&["check"]).stdout).into_owned();
    let report = check(&machines[0].installed);
    assert!(
        report.contains(&format!("✗ redis at 127.0.0.1:{}: ", redis.port)) && !report.contains("hunter2"),
        "{report}"
    );
    machines[0].installed.configure(&machines[0].installed.configuration().replace("hunter2", "right"));
    let report = check(&machines[0].installed);
    assert!(report.contains(&format!("✓ redis at 127.0.0.1:{}, ", redis.port)), "{report}");
    assert!(!log.contains("hunter2") && log.contains("authentication failed"), "{log}");
}
