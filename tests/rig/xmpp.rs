//! What the tests need to know about an XMPP server, whichever it is.

use std::net::TcpStream;
use std::path::PathBuf;

use super::component::Component;
use super::leash::Leash;

/// The domain whose users are asked about.
pub const DOMAIN: &str = "example.test";
/// Components that are asked about: one that another program is, and one that nobody is.
pub const OTHER: &str = "other.example.test";
pub const IDLE: &str = "idle.example.test";
/// The service with rooms.
pub const ROOMS: &str = "rooms.example.test";
/// What the components prove, and every user's password.
pub const SECRET: &str = "open-sesame-4711";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Prosody,
    Ejabberd,
    Jabberd2,
}

/// Which of the two Prosodys or ejabberds: the one that Debian stable installs, or the one of its backports, which
/// `unpack.sh` has put below `target/servers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    Stable,
    Newer,
}

/// What a server grants a component by XEP-0356, in that document's words.
#[derive(Clone, Copy)]
pub struct Privilege {
    pub to: Identity,
    /// `get`, `set` or `both`.
    pub roster: &'static str,
    /// `managed_entity` or `roster`.
    pub presence: &'static str,
}

/// Who asks the server. Each has a number, since a server lets a component be connected once: installations that do not
/// share a directory have identities of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    Component(usize),
    Account(usize),
}

impl Identity {
    /// How many there are of each kind.
    pub const COUNT: usize = 200;

    pub fn jid(self) -> String {
        match self {
            Identity::Component(number) => format!("presence{number}.{DOMAIN}"),
            Identity::Account(number) => format!("webstatus{number}@{DOMAIN}"),
        }
    }
}

/// A running server.
pub struct Xmpp {
    pub kind: Kind,
    pub release: Release,
    pub ports: Ports,
    /// Verifies its certificate.
    pub authority: PathBuf,
    pub leash: Leash,
}

#[derive(Clone, Copy)]
pub struct Ports {
    /// With STARTTLS, and with TLS from the first byte.
    pub client: u16,
    pub client_tls: u16,
    pub component: u16,
}

impl Xmpp {
    /// All its ports are open, and the component's is that of the server with our secret.
    pub(super) fn answers(&self) -> bool {
        let clients = [self.ports.client, self.ports.client_tls];
        clients.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok())
            && Component::connect(self.ports.component, OTHER, SECRET).is_ok()
    }

    /// A user with the password `SECRET`.
    pub fn register(&self, user: &str) {
        match self.kind {
            Kind::Prosody => super::prosody::register(self, user),
            Kind::Ejabberd => super::ejabberd::register(self, user),
            Kind::Jabberd2 => super::jabberd2::register(self, user),
        }
    }

    /// An account is deleted.
    pub fn remove(&self, user: &str) {
        match self.kind {
            Kind::Prosody => super::prosody::remove(self, user),
            Kind::Ejabberd => super::ejabberd::remove(self, user),
            Kind::Jabberd2 => unreachable!("no test deletes anybody there"),
        }
    }
}
