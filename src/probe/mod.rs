//! The XMPP side.

pub mod account;
pub mod avatar;
pub mod backoff;
pub mod budget;
pub mod certificate;
pub mod choices;
pub mod connect;
pub mod dns;
mod entrance;
pub mod errand;
pub mod errands;
pub mod facts;
pub mod fast;
pub mod features;
pub mod guests;
pub mod inquiry;
pub mod lease;
mod lines;
pub mod login;
#[cfg(feature = "redis")]
mod machines;
pub mod memory;
#[cfg(feature = "redis")]
pub mod notes;
pub mod own;
pub mod pending;
pub mod prober;
mod race;
mod relay;
pub mod requests;
pub mod roster;
mod sasl;
pub mod scram;
pub mod session;
pub mod standing;
pub mod stanza;
pub mod steps;
pub mod stream;
mod talk;
pub mod tls;
pub mod watch;

use std::fmt;

use jid::BareJid;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::config::ServerKind;
use crate::presence::{Presence, Resource};
use crate::viewers::Viewers;
use guests::Order;
use login::LoginFault;
use stream::Fault;
use tls::TlsFault;

/// What was learned about one JID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// `forbidden` where we may not know; never `unknown`.
    pub presence: Presence,
    pub why: Why,
    /// Every resource that answered, for the admin: the web shows one presence and no resource's name.
    pub resources: Vec<Resource>,
    /// Who may see a person by his roster; `None` only where that was not wanted, or nobody lets us read it.
    pub viewers: Option<Viewers>,
    /// The server has said so much that there would be an answer by now about somebody who does not exist, too. Where
    /// not, whoever may not see the person learns from any answer that he is there.
    pub settled: bool,
}

/// What an answer rests on. Only the admin is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// Presences came.
    Present,
    /// The server said that nobody is there.
    SaidOffline,
    /// Nobody is there, by XEP-0012.
    LastActivity,
    /// Nothing came, which means different things on different servers.
    Silence(ServerKind),
    /// The server said that we may not see this person.
    Refused,
    /// He told us that he does not want to be shown.
    Chosen,
    /// Our request for consent is out, and nobody has answered it.
    Pending,
    /// XEP-0012, XEP-0030 or his roster said that we may not see this person, and no presence came.
    NoConsent(ServerKind),
    /// There is no such address.
    NotFound,
    /// A component, server or room that answered.
    Service,
    /// A component or server of ours that is not running.
    NotRunning,
    /// The account that asks is the person, and no other client of it is connected.
    NoOtherClient,
}

/// What became of a request for consent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consent {
    /// Given, now or before.
    Given,
    /// The request is out; the person has not answered yet.
    Asked,
    /// The request was out before and is not repeated yet; the person has not answered.
    StillAsked,
    /// The person does not want it.
    Refused,
    /// Given back: we no longer see this person.
    Returned,
}

/// What time of day it was at some instant, so that what is pure can tell the time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub at: Instant,
    /// Seconds since 1970.
    pub epoch_s: u64,
}

impl Clock {
    pub fn epoch_s(self, now: Instant) -> u64 {
        self.epoch_s.saturating_add(now.saturating_duration_since(self.at).as_secs())
    }
}

/// What somebody did without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// He added us to his contacts, which is an offer to be shown.
    Offer(BareJid),
    /// He told us how he wants to be shown.
    Order(BareJid, Order),
    /// He lets us see him.
    Consented(BareJid),
    /// He is something else than he was; forbidden, if he no longer lets us see him.
    Changed(BareJid, Presence),
}

/// Why nothing could be learned, by whose fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// No connection: the name or address that was tried, and what the system said.
    Unreachable { to: String, reason: String },
    /// TLS could not be agreed on, or the certificate is not the server's.
    Tls { host: String, fault: TlsFault },
    /// The name has no address, or nobody told it: what the system said.
    NoAddress { host: String, reason: String },
    /// The server does not offer TLS where it was wanted.
    NoTls,
    /// The server lets nobody log in without TLS, which is not wanted here.
    WantsTls,
    /// Bytes came in between `<proceed/>` and TLS: somebody is in the middle (RFC 6120, 5.4.3.3).
    Injected,
    /// The server refused our name or password: its condition.
    LoginRefused(String),
    /// The server does not serve our name, or not yet: its condition. Nothing was said about the password.
    NameUnknown(String),
    /// Our side broke the login off.
    #[serde(skip)]
    Login(LoginFault),
    /// Another session of this identity stands in the way (RFC 6120, 4.9.3.3).
    Conflict,
    /// The server ended the stream: its condition, empty where it gave none.
    StreamEnded(String),
    /// What came in is not XMPP.
    #[serde(skip)]
    Stream(Fault),
    /// The server did not do what the protocol wants next: what was awaited.
    #[serde(skip)]
    Unexpected(#[serde(skip)] &'static str),
    /// More came in than one session may cost.
    Flood,
    /// Nothing came until the deadline.
    Silent,
    /// The server answers no probes of an account that shows itself to nobody.
    NotHeeded,
    /// The server tells an account about its own clients only if it appears as one of them.
    Hidden,
    /// Another process holds the session of this identity, and does not answer.
    Busy,
    /// More is asked than may be at once.
    Crowded,
    /// The server of the person asked about cannot be reached from ours.
    RemoteUnreachable,
    /// Rosters tell who may see this person, and his did not come in time, or there was no room for it.
    RosterLate,
    /// A roster came that cannot even be passed over. That is remembered: it is not asked for again.
    RosterEndless,
    /// The server did not like what was sent before it had asked for it. That is remembered: the next attempt waits.
    TooHasty,
    /// What happened to another process, or to an earlier one, in words.
    Reported(String),
}

impl Failure {
    /// Fit to be told to another process: what only this one can take apart becomes words.
    pub fn portable(self) -> Failure {
        match self {
            Failure::Login(_) | Failure::Stream(_) | Failure::Unexpected(_) => Failure::Reported(self.to_string()),
            other => other,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unreachable { to, reason } => write!(f, "cannot connect to {to}: {reason}"),
            Failure::Tls { host, fault } => write!(f, "TLS with {host} failed: {fault}"),
            Failure::NoAddress { host, reason } => write!(f, "no address of {host} is found: {reason}"),
            Failure::NoTls => f.write_str("the server does not offer TLS"),
            Failure::WantsTls => f.write_str("the server lets nobody log in without TLS: security = starttls"),
            Failure::Injected => f.write_str("bytes were injected before TLS began: somebody is in the middle"),
            Failure::LoginRefused(condition) => write!(f, "the server refused the login: {condition}"),
            Failure::NameUnknown(condition) => {
                write!(f, "the server does not know this name; is it configured there? ({condition})")
            }
            Failure::Login(fault) => write!(f, "the login was broken off: {fault}"),
            Failure::Conflict => f.write_str("another session of this identity is open"),
            Failure::StreamEnded(reason) if reason.is_empty() => f.write_str("the server closed the connection"),
            Failure::StreamEnded(reason) => write!(f, "the server ended the session: {reason}"),
            Failure::Stream(fault) => write!(f, "the server does not speak XMPP: {fault}"),
            Failure::Unexpected(awaited) => write!(f, "the server did not send {awaited} where it had to"),
            Failure::Flood => f.write_str("the server sent more than a session may cost"),
            Failure::Silent => f.write_str("the server did not answer in time"),
            Failure::NotHeeded => {
                f.write_str("this server tells an account nothing unless it shows itself; use a component instead")
            }
            Failure::Hidden => {
                f.write_str("the server shows an account its own clients only if it appears as one: visible = yes")
            }
            Failure::Busy => f.write_str("another process holds the session of this identity, and does not answer"),
            Failure::Crowded => f.write_str("more is asked than [limits] allows"),
            Failure::RemoteUnreachable => f.write_str("the server of this address cannot be reached from ours"),
            Failure::RosterLate => f.write_str("the roster could not be read in time"),
            Failure::RosterEndless => f.write_str("a roster was longer than any may be"),
            Failure::TooHasty => f.write_str("the server did not take what was sent before it had asked"),
            Failure::Reported(words) => f.write_str(words),
        }
    }
}

fn unreachable(to: &str, reason: &str) -> Failure {
    Failure::Unreachable { to: to.to_owned(), reason: reason.to_owned() }
}

/// XML namespaces that more than one file here names.
pub(crate) mod ns {
    pub const CLIENT: &str = "jabber:client";
    pub const COMPONENT: &str = "jabber:component:accept";
    pub const STREAM: &str = "http://etherx.jabber.org/streams";
    pub const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
    pub const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
    pub const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
    pub const SASL2: &str = "urn:xmpp:sasl:2";
    pub const SASL_CB: &str = "urn:xmpp:sasl-cb:0";
    pub const BIND2: &str = "urn:xmpp:bind:0";
    pub const FAST: &str = "urn:xmpp:fast:0";
    pub const XML: &str = "http://www.w3.org/XML/1998/namespace";
    pub const LAST: &str = "jabber:iq:last";
    pub const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
    pub const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";
    pub const ROSTER: &str = "jabber:iq:roster";
    /// XEP-0356: Prosody speaks the newer version, ejabberd 23 the older.
    pub const PRIVILEGES: [&str; 2] = ["urn:xmpp:privilege:2", "urn:xmpp:privilege:1"];
    pub const DELAY: &str = "urn:xmpp:delay";
    pub const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
    pub const VCARD: &str = "vcard-temp";
    /// XEP-0084; each is also the name of a node.
    pub const AVATAR_METADATA: &str = "urn:xmpp:avatar:metadata";
    pub const AVATAR_DATA: &str = "urn:xmpp:avatar:data";
    pub const IDLE: &str = "urn:xmpp:idle:1";
    pub const OLD_DELAY: &str = "jabber:x:delay";
}
