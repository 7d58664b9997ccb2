//! The ways to the same icon, each behind the web server that offers it, and what each is measured against.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::load::{Load, Sample};
use crate::peers::{Peers, Responder};
use crate::rig::apache::Apache;
use crate::rig::eventually;
use crate::rig::http::{Answer, Request};
use crate::rig::leash::Leash;
use crate::rig::nginx::Nginx;
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::DOMAIN;
use crate::rounds::Rounds;
use crate::rows::{Findings, Row, Section, Target, Unit, row};
use crate::stand::{ALICE, Stand, serve_on, sockets};
use crate::web::{self, Place, Room};
use crate::{Plan, crowd, spawn};

/// A way to the icon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Static,
    Ceiling,
    Hello,
    Direct,
    Unchanged,
    Kept,
    Prosody,
    Ejabberd,
    Fcgid,
    FcgidHello,
    Cgi,
    CgiHello,
}

pub const WAYS: [Way; 12] = [
    Way::Static,
    Way::Ceiling,
    Way::Hello,
    Way::Direct,
    Way::Unchanged,
    Way::Kept,
    Way::Prosody,
    Way::Ejabberd,
    Way::Fcgid,
    Way::FcgidHello,
    Way::Cgi,
    Way::CgiHello,
];

/// What is to be reached: the first way's figure, of the second's in the same round.
pub struct Ratio {
    pub ours: Way,
    pub peer: Way,
    pub target: Target,
}

const fn ratio(ours: Way, peer: Way, target: Target) -> Ratio {
    Ratio { ours, peer, target }
}

pub const RATIOS: [Ratio; 8] = [
    ratio(Way::Direct, Way::Ceiling, Target::AtLeast(0.9)),
    ratio(Way::Direct, Way::Hello, Target::AtLeast(1.2)),
    ratio(Way::Direct, Way::Static, Target::AtLeast(0.7)),
    ratio(Way::Direct, Way::Prosody, Target::AtLeast(4.0)),
    ratio(Way::Direct, Way::Ejabberd, Target::AtLeast(2.0)),
    ratio(Way::Kept, Way::Static, Target::AtLeast(0.95)),
    ratio(Way::Fcgid, Way::FcgidHello, Target::AtLeast(0.95)),
    ratio(Way::Unchanged, Way::Direct, Target::Above(1.0)),
];

/// No target: a new process for each visitor, by the same Apache.
pub const CGI: Ratio = ratio(Way::Cgi, Way::CgiHello, Target::None);

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Way::Static => "nginx static file",
            Way::Ceiling => "nginx → the ceiling",
            Way::Hello => "nginx → libfcgi hello",
            Way::Direct => "nginx → webpresence",
            Way::Unchanged => "nginx → webpresence, 304",
            Way::Kept => "nginx fastcgi_cache hit",
            Way::Prosody => "Prosody's mod_webpresence",
            Way::Ejabberd => "ejabberd's mod_webpresence",
            Way::Fcgid => "Apache mod_fcgid → webpresence",
            Way::FcgidHello => "Apache mod_fcgid → libfcgi hello",
            Way::Cgi => "Apache mod_cgid → webpresence",
            Way::CgiHello => "Apache mod_cgid → C hello",
        }
    }

    /// nginx's, or Apache's, folder for it.
    fn folder(self) -> &'static str {
        match self {
            Way::Static => "static",
            Way::Ceiling => "ceiling",
            Way::Hello => "hello",
            Way::Direct | Way::Unchanged => "direct",
            Way::Kept | Way::Ejabberd => "presence",
            Way::Prosody => "status",
            Way::Fcgid => "fcgid",
            Way::FcgidHello => "fcgid-hello",
            Way::Cgi => "cgi",
            Way::CgiHello => "cgi-hello",
        }
    }
}

impl Ratio {
    /// The words of its row, after `before`.
    pub fn what(&self, before: &str) -> String {
        format!("{before}{}, of {}", self.ours.name(), self.peer.name())
    }

    pub fn row(&self, before: &str) -> Row {
        row(self.what(before), self.target, Unit::Ratio)
    }
}

/// What mod_fcgid may take, with its row's words after `before`.
pub fn p99(before: &str) -> String {
    format!("{before}Apache mod_fcgid → webpresence, 99 of 100 answers within")
}

pub fn p99_row(before: &str, target: Target) -> Row {
    row(p99(before), target, Unit::Ms)
}

/// Its target.
pub const FCGID_MS: f64 = 20.0;

pub fn section(plan: Plan) -> Section {
    let mut rows: Vec<Row> = RATIOS.iter().chain([&CGI]).map(|ratio| ratio.row("")).collect();
    rows.insert(RATIOS.len() - 1, p99_row("", Target::AtMost(FCGID_MS)));
    rows.extend(spawn::rows(""));
    rows.extend(WAYS.map(|way| row(way.name(), Target::None, Unit::PerSecond)));
    rows.extend(WAYS.map(|way| row(slow(way), Target::None, Unit::Ms)));
    rows.extend(spawn::TIMES_ROWS.map(|what| row(what, Target::None, Unit::Ms)));
    let about = format!(
        "`wrk -t1 -c16 -d{}` for one person's icon, the same bytes everywhere (the modules have icons of their own), one \
         nginx with two workers, kept connections to what is behind it, logs off. The cache is that of the shipped \
         `nginx/webpresence-http.conf` and `nginx/webpresence.conf`. *The ceiling* is a C program that parses \
         nothing and writes one prebuilt answer per read; *libfcgi hello* and *C hello* print the same answer. *304* is \
         the same request with `If-None-Match`. mod_fcgid has `FcgidSpawnScore 0` and `FcgidTerminationScore 0` for \
         both programs, and has started as many processes of each before as three times the connections want. Prosody and ejabberd serve alice's status over their own HTTP, with their modules as Debian packages them. \
         The whole CGI process is timed from its start to its end, beside `/bin/true`; the answer was looked up before, \
         by another process.",
        plan.seconds,
    );
    Section { title: "Paths", about, rows }
}

fn slow(way: Way) -> String {
    format!("{}, 99 of 100 within", way.name())
}

pub fn measure(stand: &Stand, plan: Plan, findings: &mut Findings) {
    let field = Field::new(stand, 0, &Server::real(stand), 16);
    if spawn::musl().is_none() {
        findings.troubles.push(spawn::MUSL_MISSING.to_owned());
    }
    WAYS.iter().for_each(|way| field.warm(*way, 16));
    let also = || {
        let medians = spawn::round(&field.installed, |_| query());
        spawn::add(findings, "", &medians);
        spawn::TIMES_ROWS.iter().zip(medians).for_each(|(what, ms)| findings.add(*what, ms));
    };
    let rounds = Rounds::run(plan.rounds, &WAYS, |way| field.run(way, 16, plan.seconds), also);
    findings.troubles.extend(rounds.troubles());
    RATIOS.iter().chain([&CGI]).for_each(|ratio| rounds.compare(ratio, "", findings));
    findings.add_all(&p99(""), rounds.of(Way::Fcgid).iter().map(|sample| sample.p99_ms));
    for way in WAYS {
        findings.add_all(way.name(), rounds.of(way).iter().map(|sample| sample.per_second));
        findings.add_all(&slow(way), rounds.of(way).iter().map(|sample| sample.p99_ms));
    }
}

/// Whom the installations ask.
pub struct Server {
    pub port: u16,
    /// Lines for `[xmpp]`.
    pub xmpp: &'static str,
    /// How many people are remembered, and lines for `[limits]`.
    pub entries: usize,
    pub limits: &'static str,
    /// In nginx's cache.
    pub room: Room,
}

impl Server {
    pub fn real(stand: &Stand) -> Server {
        Server { port: stand.component_port(), xmpp: "", entries: 10_000, limits: "", room: Room::Shipped }
    }
}

/// All web servers and what is behind them.
pub struct Field {
    nginx: Nginx,
    /// Where nginx tells whether it had the answer.
    look: u16,
    apache: Apache,
    modules: [u16; 2],
    tag: String,
    /// The identity behind nginx; its owner is who measures.
    pub installed: Webpresence,
    /// Apache starts two of them.
    _peers: Peers,
    _apaches: Webpresence,
    _behind: (Vec<Responder>, Leash, TempDir),
}

/// Processes of a program that mod_fcgid starts (`FcgidMaxProcessesPerClass`).
pub const FCGID_MOST: usize = 100;
/// How long an answer is fresh while its way is measured.
const KEPT: &str = "ttl = 86400\nrefresh = 10\nstale = 86400\n";

impl Field {
    /// The processes of libfcgi's hello are as many as nginx may keep connections to. Installations have the numbers
    /// `number` and the next.
    pub fn new(stand: &Stand, number: usize, server: &Server, connections: usize) -> Field {
        let cache = format!("{KEPT}entries = {}\n{}", server.entries, server.limits);
        let [installed, apaches] = [0, 1].map(|more| stand.install(number + more, server.xmpp, &cache, server.port));
        let answer = installed.run(&["get", &query()]);
        let peers = Peers::build(&answer.stdout);
        let icon = Answer::from_cgi(&answer.stdout);
        assert_eq!((icon.status, icon.header("Content-Type")), (200, Some("image/png")));
        let dir = sockets();
        let socket: PathBuf = dir.path().join("webpresence");
        let daemon = serve_on(&installed, &socket);
        let [ceiling, hello] = [peers.ceiling(), peers.hello(2 * connections + 8)];
        let places = [Place("ceiling", ceiling.socket()), Place("hello", hello.socket()), Place("direct", &socket)];
        let (nginx, look) = web::nginx(&icon.body, &socket, server.room, &places);
        let executable = apaches.executable("webpresence.fcgi");
        apaches.hand_over(crate::rig::apache::web_user().unwrap_or("root"));
        let apache = web::apache(&executable, &apaches.config, &peers.path("hello"), &peers.path("cgi"));
        let tag = icon.header("ETag").expect("a strong one").to_owned();
        let modules = [stand.prosody_http, stand.ejabberd_http];
        let _behind = (vec![ceiling, hello], daemon, dir);
        let field = Field { nginx, look, apache, modules, tag, installed, _peers: peers, _apaches: apaches, _behind };
        WAYS.iter().for_each(|way| field.look(*way, &icon.body));
        spawn::look(&field.installed, &query(), &icon.body);
        field
    }

    /// That everybody gives the same picture, but for the modules, which have icons of their own.
    fn look(&self, way: Way, icon: &[u8]) {
        let mut request = Request::get(&self.path(way));
        if way == Way::Unchanged {
            request = request.header("If-None-Match", &self.tag);
        }
        let mut port = self.port(way);
        if way == Way::Kept {
            Request::get(&self.path(way)).send(port);
            port = self.look;
        }
        let answer = request.send(port);
        let expected = if way == Way::Unchanged { 304 } else { 200 };
        assert_eq!(answer.status, expected, "{way:?}: {answer:?}");
        match way {
            Way::Unchanged => assert_eq!(answer.body, b""),
            Way::Kept => assert_eq!((&answer.body[..], answer.header("X-Cache")), (icon, Some("HIT"))),
            Way::Prosody | Way::Ejabberd => assert!(answer.body.starts_with(b"\x89PNG"), "{way:?}: {answer:?}"),
            _ => assert_eq!(answer.body, icon, "{way:?}"),
        }
    }

    fn port(&self, way: Way) -> u16 {
        match way {
            Way::Prosody => self.modules[0],
            Way::Ejabberd => self.modules[1],
            Way::Fcgid | Way::FcgidHello | Way::Cgi | Way::CgiHello => self.apache.port,
            _ => self.nginx.port,
        }
    }

    fn path(&self, way: Way) -> String {
        let folder = way.folder();
        match way {
            Way::Static => format!("/{folder}/icon.png"),
            Way::Prosody => format!("/{folder}/{ALICE}@{DOMAIN}"),
            Way::Ejabberd => format!("/{folder}/jid/{ALICE}/{DOMAIN}/image/"),
            _ => format!("/{folder}/?{}", query()),
        }
    }

    /// For alice.
    pub fn run(&self, way: Way, connections: usize, seconds: usize) -> Sample {
        let sample = self.load(way).run(connections, seconds);
        self.settle(way);
        sample
    }

    fn load(&self, way: Way) -> Load<'static> {
        let url = format!("http://127.0.0.1:{}{}", self.port(way), self.path(way));
        let headers = if way == Way::Unchanged { vec![format!("If-None-Match: {}", self.tag)] } else { Vec::new() };
        Load { headers, ..Load::of(&url) }
    }

    /// So that everybody has as many processes and connections as he wants. mod_fcgid lets a visitor wait a second whenever
    /// it has to start one more process, which it does for some time yet when it has as many as there are connections:
    /// measured, 99 of 100 answers then come within 900 ms, and within 10 to 25 ms when there are more than enough.
    pub fn warm(&self, way: Way, connections: usize) {
        let connections = match way {
            Way::Fcgid | Way::FcgidHello => (3 * connections).min(3 * FCGID_MOST),
            _ => connections,
        };
        self.load(way).warm(connections, 2);
    }

    /// Apache's CGI programs that nobody waits for any more run on to their end; whoever is measured next is not to feel it.
    fn settle(&self, way: Way) {
        if matches!(way, Way::Cgi | Way::CgiHello) {
            eventually("the CGI programs have ended", || {
                let begun = Instant::now();
                Request::get(&self.path(Way::CgiHello)).send(self.port(Way::CgiHello));
                (begun.elapsed() < Duration::from_millis(20)).then_some(())
            });
        }
    }

    /// Asks for people from `offset` on; returns for how many.
    pub fn fill(&self, way: Way, people: usize, offset: usize, connections: usize, seconds: usize) -> usize {
        let place = self.place(way);
        self.load_people(way, (people, offset, &place)).warm(connections, seconds)
    }

    /// For so many people, one after the other.
    pub fn run_people(&self, way: Way, people: usize, connections: usize, seconds: usize) -> Sample {
        let place = self.place(way);
        self.load_people(way, (people, 0, &place)).run(connections, seconds)
    }

    fn load_people<'a>(&self, way: Way, people: (usize, usize, &'a str)) -> Load<'a> {
        Load { people: Some(people), ..self.load(way) }
    }

    /// The path with the place of a person's number.
    fn place(&self, way: Way) -> String {
        let (folder, name) = (way.folder(), crowd::NAME);
        match way {
            Way::Static => format!("/{folder}/icon.png?{name}"),
            Way::Prosody => format!("/{folder}/{name}@{DOMAIN}"),
            Way::Ejabberd => format!("/{folder}/jid/{name}/{DOMAIN}/image/"),
            _ => format!("/{folder}/?jid={name}@{DOMAIN}"),
        }
    }
}

fn query() -> String {
    format!("jid={}@{DOMAIN}", ALICE)
}
