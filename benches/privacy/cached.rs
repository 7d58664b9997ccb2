//! What an HTTP cache in front adds when somebody takes his consent back: nginx's own, which believes what an answer
//! says about itself. The daemon hears of it at once, since it holds its session.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use crate::rig::fastcgi::Connection;
use crate::rig::http::Request;
use crate::rig::leash::directory;
use crate::rig::nginx::{self, Conf, Nginx};
use crate::rig::users::{Shown, Users};
use crate::rig::webpresence::{Serve, Webpresence};
use crate::rig::xmpp::{DOMAIN, Identity};
use crate::rig::{eventually, port, prosody};

const ROUNDS: usize = 3;
const TTL: Duration = Duration::from_secs(5);
/// The daemon holds its first refusal for a second, and what the server needs for its push comes before.
const DAEMON: Duration = Duration::from_millis(1500);
/// Seconds are whole in a header, and rounded up by whoever reads them.
const SLACK: Duration = Duration::from_secs(1);

const HTTP: &str = r#"
    access_log off;
    include @DIR@/webpresence-http.conf;
    server {
        listen 127.0.0.1:@PORT@;
        add_header X-Cache $upstream_cache_status;
        include @DIR@/webpresence.conf;
    }
"#;

/// How long somebody was still shown after he had taken his consent back: by the daemon, and by the cache, and what was
/// left of max-age then.
pub struct Cached {
    rounds: Vec<[Duration; 3]>,
}

pub fn measure() -> Cached {
    let server = prosody::start(prosody::LastActivity::On);
    let users = Users::of(&server);
    let rounds = (0..ROUNDS).map(|round| {
        let (user, identity) = (format!("cached{round}"), Identity::Component(round));
        server.register(&user);
        users.login(&format!("{user}/home"), Shown { show: "away", ..Shown::default() });
        let times = format!("ttl = {}\nrefresh = 2\nstale = 10", TTL.as_secs());
        let installed = Webpresence::tuned(&server, identity, "linger = always", &times);
        let output = installed.run(&["subscribe", &format!("{user}@{DOMAIN}")]);
        assert!(output.status.success(), "{output:?}");
        users.granted(&format!("{user}/home"), &identity.jid());
        let serve = installed.serve();
        withdraw(&serve, &in_front(&serve), &users, &user, &identity.jid())
    });
    Cached { rounds: rounds.collect() }
}

fn in_front(serve: &Serve) -> Nginx {
    port::retrying("nginx", || {
        let dir = directory("nginx");
        let [port] = port::free();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("the directory is ours");
        write("webpresence-http.conf", &nginx::http(&serve.socket, dir.path()));
        write("webpresence.conf", &nginx::shipped("webpresence.conf"));
        let main = "error_log @DIR@/error.log; events { }";
        Nginx::run(dir, port, Conf { main, http: HTTP, words: &[] })
    })
}

fn withdraw(serve: &Serve, nginx: &Nginx, users: &Users, user: &str, asker: &str) -> [Duration; 3] {
    let query = format!("jid={user}@{DOMAIN}&type=text");
    let behind = || Connection::open(&serve.socket).ask(&query).text();
    let in_front = || nginx.send(Request::get(&format!("/presence/?{query}")));
    let first = in_front();
    let stored = Instant::now();
    assert_eq!(first.text(), "Away\n");
    let control = first.header("Cache-Control").expect("it may be kept").to_owned();
    let age = control.split("max-age=").nth(1).and_then(|rest| rest.split(',').next()?.parse().ok());
    let kept = Duration::from_secs(age.unwrap_or_else(|| panic!("no max-age in {control}")));
    assert_eq!(in_front().header("X-Cache"), Some("HIT"));
    users.revoke(&format!("{user}/home"), asker);
    let begun = Instant::now();
    eventually("the daemon refuses", || (behind() == "Forbidden\n").then_some(()));
    let daemon = begun.elapsed();
    eventually("the cache refuses", || (in_front().text() == "Forbidden\n").then_some(()));
    [daemon, begun.elapsed(), kept.saturating_sub(begun - stored)]
}

impl Cached {
    pub fn is_well(&self) -> bool {
        self.rounds.iter().all(|[daemon, cache, rest]| *daemon < DAEMON && *cache <= *rest + SLACK)
    }
}

impl fmt::Display for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = |which: usize| self.rounds.iter().map(|round| round[which].as_secs_f64()).fold(0.0, f64::max);
        let verdict = if self.is_well() { "" } else { "\n✗ One of them is longer than it should be.\n" };
        write!(
            f,
            "Consent withdrawn while an answer was kept by nginx (`fastcgi_cache`, as the answer says): how long it was\n\
             still told, the longest of {ROUNDS} times, with `ttl = {}` and a session that is held. The daemon's first\n\
             refusal takes a second, as each does.\n\n\
             | by the daemon | by the cache in front | the rest of max-age |\n| --- | --- | --- |\n\
             | {:.2} s | {:.2} s | {:.2} s |\n{verdict}",
            TTL.as_secs(),
            longest(0),
            longest(1),
            longest(2),
        )
    }
}
