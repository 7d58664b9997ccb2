//! From an identity to bytes on a socket: DNS, TCP or a Unix socket, TLS. What the bytes mean is the session's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use domain::resolv::stub::conf::ResolvConf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use super::dns::{self, Target};
use super::login::Bindings;
use super::race::reach;
use super::steps::{Stage, Steps};
use super::tls::{self, Beginning, Socket};
use super::{Failure, unreachable};
use crate::config::{Host, Identity, Security};

/// An open connection.
pub struct Channel {
    socket: Box<dyn Socket>,
    /// The TCP socket beneath, for its options.
    tcp: Option<OwnedFd>,
    /// Of its TLS, where it has one.
    bindings: Option<Bindings>,
}

impl Channel {
    /// Connects as `identity` is configured to, with TLS where that begins at once.
    pub async fn open(identity: &Identity, deadline: Instant, steps: &Steps) -> Result<Channel, Failure> {
        let targets = match identity.endpoint() {
            Some((Host::Unix(path), _)) => return Channel::open_unix(&path, deadline, steps).await,
            Some((Host::Name(name), port)) => {
                let beginning = match identity.security {
                    Security::Direct => Beginning::AtOnce,
                    Security::AsOffered | Security::StartTls | Security::None => Beginning::InStream,
                };
                vec![Target { host: ascii(&name), port, beginning }]
            }
            None => found(identity, deadline).await?,
        };
        let (socket, target) = reach(targets, deadline, steps).await?;
        steps.passed(Stage::Connected);
        let channel = Channel::over_tcp(socket);
        match target.beginning {
            Beginning::InStream => Ok(channel),
            Beginning::AtOnce => {
                let name = if identity.is_component() { target.host } else { domain(identity) };
                channel.encrypt(identity, &name, Beginning::AtOnce, deadline, steps).await
            }
        }
    }

    async fn open_unix(path: &Path, deadline: Instant, steps: &Steps) -> Result<Channel, Failure> {
        let failed = |error: io::Error| unreachable(&path.display().to_string(), &error.to_string());
        let socket = timeout_at(deadline, UnixStream::connect(path)).await;
        let socket = socket.map_err(|_| Failure::Silent)?.map_err(failed)?;
        steps.passed(Stage::Connected);
        Ok(Channel { socket: Box::new(socket), tcp: None, bindings: None })
    }

    fn over_tcp(socket: TcpStream) -> Channel {
        // Every write is a whole turn of the conversation: waiting for more of it only costs time.
        if let Err(error) = socket.set_nodelay(true) {
            log::debug!("TCP_NODELAY: {error}");
        }
        Channel { tcp: socket.as_fd().try_clone_to_owned().ok(), socket: Box::new(socket), bindings: None }
    }

    /// Goes on over TLS, as STARTTLS has agreed on: an account's server proves its domain.
    pub async fn secure(self, identity: &Identity, deadline: Instant, steps: &Steps) -> Result<Channel, Failure> {
        self.encrypt(identity, &domain(identity), Beginning::InStream, deadline, steps).await
    }

    async fn encrypt(
        self,
        identity: &Identity,
        name: &str,
        beginning: Beginning,
        deadline: Instant,
        steps: &Steps,
    ) -> Result<Channel, Failure> {
        let secured = timeout_at(deadline, tls::secure(identity, name, beginning, self.socket)).await;
        let secured = secured.map_err(|_| Failure::Silent)??;
        steps.passed(Stage::Secured { certificate: secured.certificate });
        Ok(Channel { socket: secured.socket, tcp: self.tcp, bindings: Some(secured.bindings) })
    }

    /// What a login can be bound to; `None` without TLS.
    pub fn bindings(&self) -> Option<Bindings> {
        self.bindings.clone()
    }

    /// Reads what is there, at least a byte; 0 at the end. Safe to drop half-way.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // COMPAT: Prosody's TLS writes meet Nagle and our delayed ACK, which costs 40 ms a turn; the kernel forgets
        // the option after a while.
        if let Some(tcp) = &self.tcp
            && let Err(error) = rustix::net::sockopt::set_tcp_quickack(tcp, true)
        {
            log::trace!("TCP_QUICKACK: {error}");
        }
        self.socket.read(buffer).await
    }

    /// Writes all of it.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await?;
        self.socket.flush().await
    }

    /// Ends our side.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.socket.shutdown().await
    }
}

/// What DNS says about an account's domain. A name server that says nothing leaves half of the time: the system may
/// know the host without it.
async fn found(identity: &Identity, deadline: Instant) -> Result<Vec<Target>, Failure> {
    let (domain, now) = (domain(identity), Instant::now());
    let until = now + deadline.saturating_duration_since(now) / 2;
    let targets = dns::targets(ResolvConf::default(), identity.security, &domain, until).await;
    targets.ok_or_else(|| unreachable(&domain, "its DNS says that there is no XMPP service for clients"))
}

/// The account's domain, as DNS and certificates spell it.
fn domain(identity: &Identity) -> String {
    ascii(identity.jid.domain().as_str())
}

/// An international name in its ASCII form (RFC 5890), which is what DNS knows.
fn ascii(name: &str) -> String {
    url::Host::parse(name).map_or_else(|_| name.to_owned(), |host| host.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_as_dns_does() {
        for (name, expected) in [
            ("example.com", "example.com"),
            ("b\u{fc}cher.example", "xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("no host", "no host"),
        ] {
            assert_eq!(ascii(name), expected);
        }
    }
}
