//! TLS toward the XMPP server, by the library that the identity names, and what can be wrong with it, told alike for
//! all of them. The name that the certificate must prove is the XMPP domain, whatever host DNS led to (RFC 6120,
//! 13.7.2.1); for a component, the host. Certificates are loaded only when a session is really opened: it costs
//! milliseconds.

#[cfg(feature = "native-tls")]
mod native;
#[cfg(feature = "rustls")]
mod rustls;

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use xmpp_parsers::date::DateTime;

use super::login::Bindings;
use super::{Failure, certificate};
use crate::config::{Identity, TlsLibrary};

/// What an XMPP stream runs over.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

/// How TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// With the connection, where ALPN says that XMPP follows (XEP-0368).
    AtOnce,
    /// In the stream, by STARTTLS (RFC 6120, 5).
    InStream,
}

/// The protocol's name in ALPN (XEP-0368, 3).
const ALPN: &str = "xmpp-client";

/// A connection behind TLS.
pub struct Secured {
    pub socket: Box<dyn Socket>,
    pub bindings: Bindings,
    /// Of TLS, where the library tells it.
    pub version: Option<&'static str>,
    /// The server's, in DER.
    pub certificate: Option<Vec<u8>>,
}

/// Begins TLS on `socket` as a client of `name`.
pub async fn secure(
    identity: &Identity,
    name: &str,
    beginning: Beginning,
    socket: Box<dyn Socket>,
) -> Result<Secured, Failure> {
    let secured = match identity.tls {
        #[cfg(feature = "rustls")]
        TlsLibrary::Rustls => rustls::secure(identity, name, beginning, socket).await,
        #[cfg(feature = "native-tls")]
        TlsLibrary::Native => native::secure(identity, name, beginning, socket).await,
    };
    secured.map_err(|fault| Failure::Tls { host: name.to_owned(), fault })
}

impl Secured {
    fn new(socket: impl Socket + 'static, certificate: Option<Vec<u8>>, exporter: Option<Vec<u8>>) -> Secured {
        let end_point = certificate.as_deref().and_then(certificate::end_point);
        Secured { socket: Box::new(socket), bindings: Bindings { exporter, end_point }, version: None, certificate }
    }
}

/// Why TLS could not be agreed on. Not every library tells the details.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsFault {
    /// The certificate is somebody else's: the names it offers.
    WrongName { expected: String, offered: Vec<String> },
    /// It was valid until then, and this machine thinks it is now.
    Expired { until: Option<SystemTime>, now: SystemTime },
    /// It will be valid from then.
    NotYetValid { from: Option<SystemTime>, now: SystemTime },
    /// Nobody who is trusted vouches for it.
    UnknownIssuer,
    /// It is made for issuing others.
    Issuer,
    /// What the identity brings for it: `ca_file`, `cert`, `key`, or the system's certificates.
    Own(String),
    /// Anything else, in the library's words.
    Handshake(String),
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |now: &SystemTime| format!("this machine's date is {}: is its clock right?", day(now));
        match self {
            TlsFault::WrongName { expected, offered } if offered.is_empty() => {
                write!(f, "expected {expected}; the certificate is not for this name")
            }
            TlsFault::WrongName { expected, offered } => {
                write!(f, "expected {expected}; the certificate is for {}", offered.join(", "))
            }
            TlsFault::Expired { until: Some(until), now } => {
                write!(f, "the certificate was valid until {}; {}", day(until), clock(now))
            }
            TlsFault::Expired { until: None, now } => write!(f, "the certificate is no longer valid; {}", clock(now)),
            TlsFault::NotYetValid { from: Some(from), now } => {
                write!(f, "the certificate is valid only from {}; {}", day(from), clock(now))
            }
            TlsFault::NotYetValid { from: None, now } => write!(f, "the certificate is not valid yet; {}", clock(now)),
            TlsFault::UnknownIssuer => f.write_str(
                "nobody who is trusted here vouches for the certificate; ca_file can name who does, or the certificate",
            ),
            TlsFault::Issuer => {
                f.write_str("the server shows a certificate that is made for issuing others; it needs one of its own")
            }
            TlsFault::Own(reason) | TlsFault::Handshake(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for TlsFault {}

/// A file that the identity names.
fn read(key: &str, file: &Path) -> Result<Vec<u8>, TlsFault> {
    std::fs::read(file).map_err(|error| of_file(key, file, &error))
}

fn of_file(key: &str, file: &Path, error: &dyn fmt::Display) -> TlsFault {
    TlsFault::Own(format!("{key} {}: {error}", file.display()))
}

/// The date, in UTC.
fn day(time: &SystemTime) -> String {
    let epoch: DateTime = "1970-01-01T00:00:00Z".parse().expect("a date");
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (epoch.0 + since).format("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_says_what_to_look_at() {
        let date = |text: &str| SystemTime::from(text.parse::<DateTime>().expect("a date").0);
        let (then, now) = (date("2026-01-31T23:59:59Z"), date("1970-01-02T00:00:00Z"));
        let expected = "example.com".to_owned();
        let offered = ["www.example.com", "mail.example.com"].map(str::to_owned).to_vec();
        let clock = "this machine's date is 1970-01-02: is its clock right?";
        for (fault, said) in [
            (
                TlsFault::WrongName { expected: expected.clone(), offered },
                "expected example.com; the certificate is for www.example.com, mail.example.com".to_owned(),
            ),
            (
                TlsFault::WrongName { expected, offered: Vec::new() },
                "expected example.com; the certificate is not for this name".to_owned(),
            ),
            (
                TlsFault::Expired { until: Some(then), now },
                format!("the certificate was valid until 2026-01-31; {clock}"),
            ),
            (TlsFault::Expired { until: None, now }, format!("the certificate is no longer valid; {clock}")),
            (
                TlsFault::NotYetValid { from: Some(then), now },
                format!("the certificate is valid only from 2026-01-31; {clock}"),
            ),
            (TlsFault::NotYetValid { from: None, now }, format!("the certificate is not valid yet; {clock}")),
        ] {
            assert_eq!(fault.to_string(), said);
        }
    }
}
