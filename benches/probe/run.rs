//! One server with people on it, and one question asked from outside: a process is started, or a running one is asked,
//! and a clock is looked at when its answer is there.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cases::{Server, Tokens, Way};
use crate::relay::{Passage, Relay};
use crate::rig::fastcgi::Connection;
use crate::rig::repository;
use crate::rig::users::{Shown, Users};
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, SECRET, Xmpp};

/// Those who are asked about. Both are away.
const PEOPLE: [&str; 2] = ["alice", "bob"];
/// Who asks: a server lets a component be connected once, and tokio-xmpp does not say goodbye.
const COMPONENT: Identity = Identity::Component(0);
const LINGERING: Identity = Identity::Component(1);
const PEER_COMPONENT: Identity = Identity::Component(2);
const ACCOUNT: Identity = Identity::Account(0);
const PEER_ACCOUNT: Identity = Identity::Account(1);

/// How long an answer took.
#[derive(Clone, Copy)]
pub struct Sample {
    /// Until the last thing came in that went into the answer.
    pub wire: Duration,
    /// Until the answer was there.
    pub answer: Duration,
}

/// A server that runs, with a slow way to each of its ports.
pub struct Stand {
    pub row: &'static Server,
    server: Xmpp,
    component: Relay,
    client: Relay,
    client_tls: Relay,
    /// Each way's installation; a first contact has a new one each time.
    installed: Vec<(Way, Webpresence)>,
    _users: Users,
}

impl Stand {
    pub fn new(row: &'static Server) -> Stand {
        let server = (row.start)();
        let users = Users::of(&server);
        for user in PEOPLE {
            server.register(user);
            users.login(&format!("{user}/home"), Shown { show: "away", ..Shown::default() });
        }
        for identity in [COMPONENT, LINGERING, PEER_COMPONENT, ACCOUNT, PEER_ACCOUNT] {
            if let Identity::Account(_) = identity {
                server.register(identity.jid().split('@').next().expect("a name"));
            }
            consent(&users, &Webpresence::new(&server, identity));
        }
        let [component, client, client_tls] =
            [server.ports.component, server.ports.client, server.ports.client_tls].map(Relay::to);
        let mut stand = Stand { row, server, component, client, client_tls, installed: Vec::new(), _users: users };
        for way in [Way::Component, Way::Direct, Way::StartTls] {
            let installed = stand.install(way);
            // From now on it knows the server.
            answered(&mut probe(&installed));
            stand.installed.push((way, installed));
        }
        stand
    }

    /// Asks once, by webpresence.
    pub fn measure(&self, way: Way) -> Sample {
        match way {
            Way::Lingering => self.measure_lingering(),
            Way::FirstContact => self.cold(way, &mut probe(&self.install(way))),
            _ => {
                let found = self.installed.iter().find(|(installed, _)| *installed == way);
                let (_, installed) = found.expect("installed at the start");
                if self.row.tokens == Tokens::Removed && way != Way::Component {
                    remove_token(installed);
                }
                self.cold(way, &mut probe(installed))
            }
        }
    }

    /// Asks once, by tokio-xmpp, where it can go that way and gets an answer. COMPAT: it cannot log in to ejabberd 23.01
    /// over TLS 1.3, which offers SCRAM-SHA-1-PLUS and then refuses it.
    pub fn measure_peer(&self, way: Way) -> Option<Sample> {
        let relay = self.relay(way);
        let answered = ask(&mut self.peer(way, relay.port)?).ok()?;
        Some(sample(relay.last().connected, answered, &relay.last()))
    }

    /// Asks once without a way between, from the start of the process to its answer: webpresence, and tokio-xmpp.
    pub fn measure_loopback(&self) -> [Duration; 2] {
        let installed = Webpresence::new(&self.server, COMPONENT);
        let peer = self.peer(Way::Component, self.server.ports.component);
        [probe(&installed), peer.expect("it can be a component")].map(|mut command| {
            let started = Instant::now();
            answered(&mut command) - started
        })
    }

    fn cold(&self, way: Way, command: &mut Command) -> Sample {
        let answered = answered(command);
        let passage = self.relay(way).last();
        sample(passage.connected, answered, &passage)
    }

    /// The first question opens the session, the second is measured.
    fn measure_lingering(&self) -> Sample {
        let installed = self.install(Way::Lingering);
        let serve = installed.serve();
        let mut connection = Connection::open(&serve.socket);
        let [mut begun, mut answered] = [Instant::now(); 2];
        for user in PEOPLE {
            begun = Instant::now();
            let answer = connection.ask(&format!("jid={user}@{DOMAIN}&type=text"));
            answered = Instant::now();
            assert_eq!(answer.text(), "Away\n");
        }
        sample(begun, answered, &self.relay(Way::Lingering).last())
    }

    fn relay(&self, way: Way) -> &Relay {
        match way {
            Way::Component | Way::Lingering => &self.component,
            Way::Direct | Way::FirstContact => &self.client_tls,
            Way::StartTls => &self.client,
        }
    }

    fn install(&self, way: Way) -> Webpresence {
        let (identity, more) = match way {
            Way::Component => (COMPONENT, ""),
            Way::Lingering => (LINGERING, "linger = 600"),
            Way::StartTls => (ACCOUNT, "security = starttls"),
            Way::Direct | Way::FirstContact => (ACCOUNT, "security = direct"),
        };
        let installed = Webpresence::tuned(&self.server, identity, more, "");
        let line = |port: u16| format!("\nport = {port}\n");
        let ports = self.server.ports;
        let direct = if let Identity::Component(_) = identity { ports.component } else { ports.client };
        let config = installed.configuration();
        assert!(config.contains(&line(direct)), "{config}");
        installed.configure(&config.replace(&line(direct), &line(self.relay(way).port)));
        installed
    }

    fn peer(&self, way: Way, port: u16) -> Option<Command> {
        let (program, security, identity) = match way {
            Way::Component => ("component", None, PEER_COMPONENT),
            Way::Direct => ("account", Some("direct"), PEER_ACCOUNT),
            Way::StartTls => ("account", Some("starttls"), PEER_ACCOUNT),
            Way::FirstContact | Way::Lingering => return None,
        };
        let program = repository("benches/peer/target/release").join(program);
        assert!(program.exists(), "{} is missing; run: make bench-probe", program.display());
        let mut command = Command::new(program);
        command.args(security).args([&identity.jid(), SECRET, &format!("127.0.0.1:{port}"), &target()]);
        command.env("SSL_CERT_FILE", &self.server.authority);
        Some(command)
    }
}

/// Takes the token away that the last login was given.
fn remove_token(installed: &Webpresence) {
    let mut facts: Value = serde_json::from_str(&installed.facts()).expect("the executable wrote it");
    let account = facts["accounts"].get_mut(installed.identity.jid()).and_then(Value::as_object_mut);
    account.expect("it has logged in").remove("token");
    installed.write_facts(&facts.to_string());
}

fn consent(users: &Users, installed: &Webpresence) {
    let jids = PEOPLE.map(|user| format!("{user}@{DOMAIN}"));
    let output = installed.run(&["subscribe", &jids[0], &jids[1]]);
    assert!(output.status.success(), "subscribe: {output:?}");
    for user in PEOPLE {
        users.granted(&format!("{user}/home"), &installed.identity.jid());
    }
}

/// The command that asks past every cache.
fn probe(installed: &Webpresence) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_webpresence")));
    command.arg("probe").arg("--config").arg(&installed.config).arg(target());
    command
}

fn target() -> String {
    format!("{}@{DOMAIN}", PEOPLE[0])
}

/// As [`ask`], of a command that must have an answer.
fn answered(command: &mut Command) -> Instant {
    ask(command).unwrap_or_else(|printed| panic!("{command:?}: {printed}"))
}

/// Runs it to its end; returns when the answer was there, which is its first line, or what it printed instead.
fn ask(command: &mut Command) -> Result<Instant, String> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it is built");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let first = lines.next().and_then(Result::ok).unwrap_or_default();
    let answered = Instant::now();
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let status = child.wait().expect("our own child");
    let is_right = status.success() && first.to_lowercase().contains("away");
    is_right.then_some(answered).ok_or_else(|| format!("{status}: {first}\n{}", rest.join("\n")))
}

fn sample(begun: Instant, answered: Instant, passage: &Passage) -> Sample {
    let last = passage.arrivals.iter().copied().filter(|arrival| *arrival <= answered).max();
    Sample { wire: last.expect("the server said something") - begun, answer: answered - begun }
}
