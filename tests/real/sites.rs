//! One nginx with several sites: what one of them keeps is told at none of the others, under whatever name, port or
//! scheme it is asked for; who asks at the same time is one; and a reload forgets nothing.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;

use rustix::process::Signal;

use crate::doors::{SHORT, STATUS};
use crate::rig::http::{Answer, Request};
use crate::rig::leash::directory;
use crate::rig::nginx::{self, Conf, Nginx};
use crate::rig::webpresence::{Serve, Webpresence};
use crate::rig::xmpp::{Identity, Kind};
use crate::rig::{certificate, eventually, port, program};
use crate::world::{consent, next_number, visit};

/// Two services, and the same name for sites that are not the same.
const HTTP: &str = r#"
    log_format passed '$request_uri passed on to "$upstream_addr"';
    access_log @DIR@/passed.log passed;
    include @DIR@/webpresence-http.conf;
    upstream intern { server unix:@INTERN@; }
    ssl_certificate @CERT@;
    ssl_certificate_key @KEY@;
    add_header X-Cache $upstream_cache_status always;
    server {
        listen 127.0.0.1:@PORT@;
        listen 127.0.0.1:@TLS@ ssl;
        server_name first.test;
        include @DIR@/webpresence.conf;
    }
    server {
        listen 127.0.0.1:@PORT@;
        server_name second.test;
        include @DIR@/intern.conf;
    }
    server {
        listen 127.0.0.1:@OTHER@;
        server_name first.test;
        include @DIR@/intern.conf;
    }
"#;

struct Sites {
    nginx: Nginx,
    tls: u16,
    other: u16,
    _services: [(Serve, Webpresence); 2],
}

impl Sites {
    /// The second service is one that knows nobody.
    fn start(installed: Webpresence) -> Sites {
        let nowhere = "[xmpp]\njid = presence.example.test\npassword = x\nport = 1\n";
        let intern = Webpresence::written(Identity::Component(0), nowhere, "");
        for (installed, word) in [(&installed, "first"), (&intern, "second")] {
            installed.configure(&format!("{}[text]\nforbidden = The {word} service\n", installed.configuration()));
        }
        let services = [installed, intern].map(|installed| (installed.serve(), installed));
        let (nginx, [tls, other]) = port::retrying("nginx", || {
            let [port, tls, other] = port::free();
            Ok((front(&services, port, [tls, other])?, [tls, other]))
        });
        Sites { nginx, tls, other, _services: services }
    }

    fn ask(&self, port: u16, host: &str) -> Answer {
        Request::get(&format!("http://{host}{REFUSED}")).send(port)
    }

    /// How many requests for this have got as far as webpresence.
    fn passed(&self, target: &str) -> (usize, usize) {
        let log = fs::read_to_string(self.nginx.dir().join("passed.log")).expect("it is there");
        let lines: Vec<&str> = log.lines().filter(|line| line.starts_with(&format!("{target} "))).collect();
        (lines.len(), lines.iter().filter(|line| line.contains("unix:")).count())
    }
}

/// Nobody has to be asked about it.
const REFUSED: &str = "/presence/?jid=a@elsewhere.test&type=text";

fn front(services: &[(Serve, Webpresence); 2], port: u16, [tls, other]: [u16; 2]) -> Result<Nginx, String> {
    let dir = directory("nginx");
    let certificate = certificate::make(dir.path(), "first.test");
    let text = |path: &std::path::Path| path.to_str().expect("made by us").to_owned();
    let words = [
        ("TLS", tls.to_string()),
        ("OTHER", other.to_string()),
        ("INTERN", text(&services[1].0.socket)),
        ("CERT", text(&certificate.chain)),
        ("KEY", text(&certificate.key)),
    ];
    let words = words.each_ref().map(|(name, value)| (*name, value.as_str()));
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("the directory is ours");
    write("webpresence-http.conf", &nginx::http(&services[0].0.socket, dir.path()));
    write("webpresence.conf", &nginx::shipped("webpresence.conf"));
    write("intern.conf", &nginx::of_service("intern"));
    Nginx::run(dir, port, Conf { main: nginx::TALKATIVE, http: HTTP, words: &words })
}

/// As `curl -k` would.
fn ask_by_tls(port: u16, host: &str, target: &str) -> Answer {
    let mut command = Command::new(program("openssl", "openssl"));
    command.args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{port}"), "-servername", host]);
    let mut client =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("openssl starts");
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    client.stdin.as_mut().expect("piped").write_all(request.as_bytes()).expect("openssl reads");
    Answer::from_http(&client.wait_with_output().expect("it ends with the connection").stdout, false)
}

#[test]
fn sites_of_nginx_keep_their_answers_apart() {
    let sites = Sites::start(Webpresence::new(&visit(Kind::Prosody).server, Identity::Component(next_number())));
    let port = sites.nginx.port;
    for round in ["MISS", "HIT"] {
        for (port, host, word) in [
            (port, "first.test", "first"),
            (port, "second.test", "second"),
            (port, "FIRST.test.", "first"),
            (sites.other, "first.test", "second"),
            (sites.other, "second.test", "second"),
        ] {
            let answer = sites.ask(port, host);
            assert_eq!(answer.text(), format!("The {word} service\n"), "{round} {port} {host}");
        }
        let answer = ask_by_tls(sites.tls, "first.test", REFUSED);
        assert_eq!((answer.text().as_str(), answer.header("X-Cache")), ("The first service\n", Some(round)));
    }
    // A name that no site has is the first's, as nginx says, and stays there.
    assert_eq!(sites.ask(port, "nobody.test").text(), "The first service\n");
    assert_eq!(sites.ask(sites.other, "nobody.test").text(), "The second service\n");
}

#[test]
fn many_who_ask_nginx_at_once_are_one() {
    const VISITORS: usize = 50;
    let world = visit(Kind::Prosody);
    let identity = Identity::Component(next_number());
    let installed = Webpresence::tuned(&world.server, identity, "timeout = 20\n", "ttl = 600\n");
    consent(&world.users, &installed, identity, &["away"]);
    let sites = Sites::start(installed);
    let passed_on = |round: usize| {
        let target = format!("{SHORT}?jid=away@example.test&type=text&round={round}");
        let together = Barrier::new(VISITORS);
        thread::scope(|scope| {
            for _ in 0..VISITORS {
                scope.spawn(|| {
                    together.wait();
                    let answer = Request::get(&format!("http://first.test{target}")).send(sites.nginx.port);
                    assert_eq!((answer.status, answer.text().as_str()), (200, "Lunch\n"));
                });
            }
        });
        // nginx writes a line when it has told the answer.
        eventually("all are in the log", || (sites.passed(&target).0 == VISITORS).then(|| sites.passed(&target).1))
    };
    // A machine that is busy elsewhere for longer than the lock holds lets more than one through.
    let rounds: Vec<usize> = (0..5).map(passed_on).collect();
    assert!(rounds.contains(&1), "requests that got as far as webpresence: {rounds:?}");
}

#[test]
fn a_reload_of_nginx_forgets_nothing() {
    let world = visit(Kind::Prosody);
    let identity = Identity::Component(next_number());
    let installed = Webpresence::tuned(&world.server, identity, "timeout = 20\n", "ttl = 600\n");
    consent(&world.users, &installed, identity, &["away"]);
    let sites = Sites::start(installed);
    let target = format!("{STATUS}?jid=away@example.test&type=text");
    let ask = || Request::get(&format!("http://first.test{target}")).send(sites.nginx.port);
    assert_eq!(ask().header("X-Cache"), Some("MISS"));
    let log = || fs::read_to_string(sites.nginx.dir().join("error.log")).expect("it is there");
    let workers = |log: String| log.matches("start worker process").count();
    let before = workers(log());
    sites.nginx.signal(Signal::HUP);
    eventually("new workers", || {
        let answer = ask();
        assert_eq!((answer.text().as_str(), answer.header("X-Cache")), ("Lunch\n", Some("HIT")));
        (workers(log()) >= before + 2).then_some(())
    });
    for _ in 0..10 {
        assert_eq!(ask().header("X-Cache"), Some("HIT"));
    }
}
