//! The configuration as the rest of the house sees it: typed, complete and checked. Built once by the loader,
//! never changed afterwards; a reload builds a new one. `load` and `directory` touch files, everything else here is
//! text in, values out.

mod access;
pub mod directory;
mod identity;
pub mod keys;
mod lines;
mod load;
mod parse;
mod patterns;
mod permission;
mod privacy;
mod problem;
mod reader;
#[cfg(feature = "redis")]
pub mod redis;
mod reference;
mod sections;
mod values;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use jid::BareJid;
use serde::{Deserialize, Serialize};

use crate::presence::{Rule, State};

pub use access::{Access, JidPattern, Requester, SigningKeys, Visibility};
pub use load::{Environment, load};
pub use parse::parse;
pub use privacy::{Changes, Privacy, Shown};
pub use problem::{Errors, Fault, Near, Problem};
pub use reference::{example, reference};

/// What servers listen on for components: a custom, registered nowhere.
const COMPONENT_PORT: u16 = 5347;
/// `xmpp-client` (RFC 6120, 14.7).
const CLIENT_PORT: u16 = 5222;
/// The custom for direct TLS where no SRV record names another (XEP-0368).
const DIRECT_TLS_PORT: u16 = 5223;

/// Everything `webpresence.ini` says.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it comes from.
    pub file: PathBuf,
    /// The identities that ask, in the order of the file: at least one.
    pub identities: Vec<Identity>,
    pub cache: CacheSettings,
    pub web: WebSettings,
    /// Where many machines meet.
    #[cfg(feature = "redis")]
    pub redis: Option<redis::RedisAddress>,
    pub images: ImageSettings,
    pub words: Words,
    pub limits: Limits,
    pub log: LogSettings,
}

impl Config {
    /// How long a visitor waits at most for what no single identity answers for.
    pub fn patience(&self) -> Duration {
        self.identities.iter().map(|identity| identity.timeout).min().unwrap_or(Duration::from_secs(5))
    }
}

/// One XMPP address that asks (`[xmpp]`), whom it may be used for, and what it tells (`[access]`, `[privacy]` of the
/// same name).
#[derive(Clone, Debug)]
pub struct Identity {
    /// The section's name: empty for plain `[xmpp]`.
    pub name: String,
    /// A domain is an external component (XEP-0114), `user@domain` an ordinary account.
    pub jid: BareJid,
    /// Empty where there is none, which only an account with a certificate may be without.
    pub password: Secret,
    pub host: Option<Host>,
    pub port: Option<u16>,
    pub security: Security,
    pub tls: TlsLibrary,
    pub ca_file: Option<PathBuf>,
    /// What it shows of itself in TLS, for SASL EXTERNAL.
    pub client_certificate: Option<ClientCertificate>,
    pub verify: bool,
    /// Seconds for the whole answer.
    pub timeout: Duration,
    /// `None` is `always`.
    pub linger: Option<Duration>,
    /// `None` is `auto`.
    pub server: Option<ServerKind>,
    /// An account may show itself to its contacts, as one more client, where it is asked about itself.
    pub visible: bool,
    /// People who add the identity to their contacts are let in and asked back.
    pub accept_subscriptions: bool,
    pub rule: Rule,
    pub access: Access,
    pub privacy: Privacy,
}

impl Identity {
    pub fn is_component(&self) -> bool {
        self.jid.node().is_none()
    }

    /// How the header of its section is written.
    pub fn header(&self, section: keys::Section) -> String {
        let space = if self.name.is_empty() { "" } else { " " };
        format!("[{}{space}{}]", section.name(), self.name)
    }

    /// The domain of our own server: an account's own, for a component the first plain name of `domains`.
    pub fn home(&self) -> BareJid {
        let own = BareJid::from_parts(None, self.jid.domain());
        if !self.is_component() {
            return own;
        }
        let plain = self.access.domains.iter().find_map(|pattern| match pattern {
            DomainPattern::Exactly(domain) => BareJid::new(domain).ok(),
            DomainPattern::Below(_) => None,
        });
        plain.unwrap_or(own)
    }

    /// Where to connect, with the port where it is not a Unix socket; `None` where DNS SRV decides (RFC 6120, 3.2),
    /// which is for accounts without a configured host or port.
    pub fn endpoint(&self) -> Option<(Host, u16)> {
        let (host, port) = if self.is_component() {
            (Host::Name("127.0.0.1".to_owned()), COMPONENT_PORT)
        } else {
            if self.host.is_none() && self.port.is_none() {
                return None;
            }
            let port = if self.security == Security::Direct { DIRECT_TLS_PORT } else { CLIENT_PORT };
            (Host::Name(self.jid.domain().as_str().to_owned()), port)
        };
        Some((self.host.clone().unwrap_or(host), self.port.unwrap_or(port)))
    }
}

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Name(String),
    Unix(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// An account's whose file does not say: STARTTLS or TLS from the first byte, as DNS says (XEP-0368).
    AsOffered,
    StartTls,
    Direct,
    None,
}

/// Which TLS library: those of this build. At least one must be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsLibrary {
    #[cfg(feature = "rustls")]
    Rustls,
    #[cfg(feature = "native-tls")]
    Native,
}

impl TlsLibrary {
    /// Those of this build; the first is the default.
    pub const ALL: &[TlsLibrary] = &[
        #[cfg(feature = "rustls")]
        TlsLibrary::Rustls,
        #[cfg(feature = "native-tls")]
        TlsLibrary::Native,
    ];

    /// As the configuration calls it.
    pub const fn word(self) -> &'static str {
        match self {
            #[cfg(feature = "rustls")]
            TlsLibrary::Rustls => "rustls",
            #[cfg(feature = "native-tls")]
            TlsLibrary::Native => "native",
        }
    }
}

/// A certificate with its chain, and its private key: PEM files, read when a session is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Which server software answers: what its silence means differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ServerKind {
    Prosody,
    Ejabberd,
    Openfire,
    Other,
}

/// A domain, or everything below one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainPattern {
    /// `example.com`
    Exactly(String),
    /// `*.example.com`
    Below(String),
}

impl DomainPattern {
    pub fn holds(&self, domain: &str) -> bool {
        match self {
            DomainPattern::Exactly(name) => domain.eq_ignore_ascii_case(name),
            DomainPattern::Below(name) => {
                let domain = domain.to_ascii_lowercase();
                let head = domain.strip_suffix(&name.to_ascii_lowercase());
                head.is_some_and(|head| head.len() > 1 && head.ends_with('.'))
            }
        }
    }
}

#[derive(Clone, Debug)]
pub struct CacheSettings {
    pub ttl: Duration,
    pub refresh: Duration,
    pub stale: Duration,
    pub entries: usize,
    /// Where facts and the lease live; `None`: in memory only.
    pub directory: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSettings {
    /// Threads that answer.
    pub workers: usize,
    /// From the web server, at once.
    pub connections: usize,
}

#[derive(Clone, Debug)]
pub struct ImageSettings {
    /// The admin's own pictures, which win over the built-in ones.
    pub directory: Option<PathBuf>,
    pub theme: String,
    /// Hosts a redirect may lead to; empty: any.
    pub redirect_hosts: Vec<String>,
}

/// The words of `[text]`: what a state is called when its owner says nothing.
#[derive(Clone, Debug, Default)]
pub struct Words {
    /// State, language (lower case; empty for all languages), word.
    pub overrides: Vec<(State, String, String)>,
}

/// How much XMPP servers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Questions of one process that are open at once.
    pub lookups: usize,
    /// Of one session, on average.
    pub probes_per_second: u32,
}

impl Default for Limits {
    /// As the table of keys has it.
    fn default() -> Limits {
        Limits { lookups: 1024, probes_per_second: 200 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    pub level: log::LevelFilter,
    pub target: LogTarget,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    Stderr,
    Syslog,
    File(PathBuf),
}

/// A password. It prints as stars.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The password itself, for the one place that sends a proof of it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
