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
        Channel::open_tcp(identity, targets, deadline, steps).await
    }

    /// The first target that is reached, and that agrees on TLS where that begins at once; one that does not leaves the
    /// others half of the time.
    async fn open_tcp(
        identity: &Identity,
        mut targets: Vec<Target>,
        deadline: Instant,
        steps: &Steps,
    ) -> Result<Channel, Failure> {
        let mut first = None;
        loop {
            let reached = reach(targets.clone(), deadline, steps).await;
            let (socket, target) = reached.map_err(|failure| first.take().unwrap_or(failure))?;
            let to = socket.peer_addr().map(|address| address.to_string()).unwrap_or_default();
            steps.passed(Stage::Connected { to });
            let channel = Channel::over_tcp(socket);
            if target.beginning == Beginning::InStream {
                return Ok(channel);
            }
            targets = targets.into_iter().skip_while(|other| *other != target).skip(1).collect();
            let now = Instant::now();
            let share = deadline.saturating_duration_since(now) / if targets.is_empty() { 1 } else { 2 };
            let name = if identity.is_component() { target.host } else { domain(identity) };
            match channel.encrypt(identity, &name, Beginning::AtOnce, now + share, steps).await {
                Err(failure) if targets.is_empty() => return Err(first.unwrap_or(failure)),
                Err(failure) => {
                    log::debug!("{}: {failure}; there are other servers to try", identity.jid);
                    first.get_or_insert(failure);
                }
                Ok(channel) => return Ok(channel),
            }
        }
    }

    async fn open_unix(path: &Path, deadline: Instant, steps: &Steps) -> Result<Channel, Failure> {
        let failed = |error: io::Error| unreachable(&path.display().to_string(), &error.to_string());
        let socket = timeout_at(deadline, UnixStream::connect(path)).await;
        let socket = socket.map_err(|_| Failure::Silent)?.map_err(failed)?;
        steps.passed(Stage::Connected { to: path.display().to_string() });
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
        let (certificate, version) = (secured.certificate, secured.version);
        steps.passed(Stage::Secured { beginning, version, certificate });
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
    use std::path::Path;
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;
    use crate::config;

    /// Over the ports of servers that close or keep silent where TLS is to begin, then perhaps that of one with STARTTLS.
    async fn check(speechless: &[&TcpListener], plain: Option<&TcpListener>, expected: Result<Option<Bindings>, &str>) {
        let text = "[xmpp]\njid = bot@example.com\npassword = x\nverify = no\n";
        let config = config::parse(text, Path::new("test.ini")).expect("a configuration");
        let target = |listener: &TcpListener, beginning| Target {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().expect("bound").port(),
            beginning,
        };
        let direct = speechless.iter().map(|listener| target(listener, Beginning::AtOnce));
        let targets = direct.chain(plain.map(|listener| target(listener, Beginning::InStream))).collect();
        let deadline = Instant::now() + Duration::from_secs(1);
        let outcome = Channel::open_tcp(&config.identities[0], targets, deadline, &Steps::default()).await;
        let outcome = outcome.map(|channel| channel.bindings()).map_err(|failure| failure.to_string());
        assert_eq!(outcome, expected.map_err(str::to_owned));
    }

    #[tokio::test]
    async fn a_server_without_the_tls_that_dns_promises_leaves_time_for_the_next() {
        let listen = || async { TcpListener::bind("127.0.0.1:0").await.expect("a free port") };
        let (closing, silent, plain) = (listen().await, listen().await, listen().await);
        let hang_up = async {
            while let Ok((socket, _)) = closing.accept().await {
                drop(socket);
            }
        };
        let checks = async {
            check(&[&closing], Some(&plain), Ok(None)).await;
            check(&[&silent], Some(&plain), Ok(None)).await;
            check(&[&closing, &silent], Some(&plain), Ok(None)).await;
            check(&[&silent, &silent], None, Err("the server did not answer in time")).await;
        };
        tokio::select! {
            () = hang_up => {}
            () = checks => {}
        }
    }

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
