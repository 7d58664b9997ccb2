//! From an identity to bytes on a socket: DNS, TCP or a Unix socket, TLS. What the bytes mean is the session's.

use std::os::fd::{AsFd, OwnedFd};

use domain::resolv::stub::conf::ResolvConf;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::login::Bindings;
use super::steps::{Stage, Steps};
use super::{Failure, dns, tls};
use crate::config::{Host, Identity, Security};

/// What an XMPP stream runs over.
trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

/// An open connection.
pub struct Channel {
    socket: Box<dyn Socket>,
    /// The TCP socket beneath, for its options.
    tcp: Option<OwnedFd>,
    /// Of its TLS, where it has one.
    bindings: Option<Bindings>,
}

impl Channel {
    /// Connects as `identity` is configured to, with TLS where it is direct.
    pub async fn open(identity: &Identity, deadline: Instant, steps: &Steps) -> Result<Channel, Failure> {
        let direct = identity.security == Security::Direct;
        let (channel, name) = match identity.endpoint() {
            Some((Host::Unix(path), _)) => {
                let unreachable = |error: std::io::Error| unreachable(&path.display().to_string(), &error.to_string());
                let socket = timeout_at(deadline, UnixStream::connect(&path)).await;
                let socket = socket.map_err(|_| Failure::Silent)?.map_err(unreachable)?;
                (Channel { socket: Box::new(socket), tcp: None, bindings: None }, String::new())
            }
            _ => Channel::open_tcp(identity, deadline, steps).await?,
        };
        steps.passed(Stage::Connected);
        if direct { channel.secure(identity, &name, deadline, steps).await } else { Ok(channel) }
    }

    /// Returns the host too: the name a component's server proves by TLS.
    async fn open_tcp(identity: &Identity, deadline: Instant, steps: &Steps) -> Result<(Channel, String), Failure> {
        let targets = targets(identity, deadline).await?;
        let (socket, host) = reach(targets, deadline, steps).await?;
        Ok((Channel::over_tcp(socket), host))
    }

    fn over_tcp(socket: TcpStream) -> Channel {
        // Every write is a whole turn of the conversation: waiting for more of it only costs time.
        if let Err(error) = socket.set_nodelay(true) {
            log::debug!("TCP_NODELAY: {error}");
        }
        Channel { tcp: socket.as_fd().try_clone_to_owned().ok(), socket: Box::new(socket), bindings: None }
    }

    /// Goes on over TLS. `host` is the name that counts for a component; an account's server proves the domain.
    pub async fn secure(
        self,
        identity: &Identity,
        host: &str,
        deadline: Instant,
        steps: &Steps,
    ) -> Result<Channel, Failure> {
        let name = if identity.is_component() { host.to_owned() } else { domain(identity) };
        let direct = identity.security == Security::Direct;
        let secured = timeout_at(deadline, tls::secure(identity, &name, direct, self.socket)).await;
        let stream = secured.map_err(|_| Failure::Silent)??;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        steps.passed(Stage::Secured { certificate: certificate.map(|der| der.to_vec()) });
        Ok(Channel { socket: Box::new(stream), tcp: self.tcp, bindings: Some(Bindings::default()) })
    }

    /// What a login can be bound to; `None` without TLS.
    pub fn bindings(&self) -> Option<Bindings> {
        self.bindings.clone()
    }

    /// Reads what is there, at least a byte; 0 at the end. Safe to drop half-way.
    pub async fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
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
    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(bytes).await?;
        self.socket.flush().await
    }

    /// Ends our side.
    pub async fn shutdown(&mut self) -> std::io::Result<()> {
        self.socket.shutdown().await
    }
}

async fn targets(identity: &Identity, deadline: Instant) -> Result<Vec<dns::Target>, Failure> {
    if let Some((Host::Name(name), port)) = identity.endpoint() {
        return Ok(vec![(ascii(&name), port)]);
    }
    let domain = domain(identity);
    let direct = identity.security == Security::Direct;
    let (service, port) = if direct { ("_xmpps-client._tcp", 5223) } else { ("_xmpp-client._tcp", 5222) };
    let found = dns::targets(ResolvConf::default(), service, &domain, port);
    // A name server that says nothing leaves half of the time: the system may know the host without it.
    let now = Instant::now();
    match timeout_at(now + deadline.saturating_duration_since(now) / 2, found).await {
        Err(_) => Ok(vec![(domain, port)]),
        Ok(Some(targets)) => Ok(targets),
        Ok(None) => Err(unreachable(&domain, "its DNS says that there is no XMPP service for clients")),
    }
}

/// The account's domain, as DNS and certificates spell it.
fn domain(identity: &Identity) -> String {
    ascii(identity.jid.domain().as_str())
}

/// An international name in its ASCII form (RFC 5890), which is what DNS knows.
fn ascii(name: &str) -> String {
    url::Host::parse(name).map_or_else(|_| name.to_owned(), |host| host.to_string())
}

/// Connects to the first host that answers; returns its name too.
async fn reach(targets: Vec<dns::Target>, deadline: Instant, steps: &Steps) -> Result<(TcpStream, String), Failure> {
    let mut failure = unreachable("the server", "no host to try");
    let mut left = targets.len();
    for (host, port) in targets {
        left -= 1;
        let addresses = match timeout_at(deadline, lookup_host((host.as_str(), port))).await {
            Err(_) => return Err(Failure::Silent),
            Ok(Err(error)) => {
                failure = unreachable(&host, &error.to_string());
                continue;
            }
            Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
        };
        steps.passed(Stage::Resolved { host: host.clone(), port });
        for (tried, address) in addresses.iter().enumerate() {
            // Each address and each further host its share of the time, so that a dead one leaves some for the next.
            let now = Instant::now();
            let share = deadline.saturating_duration_since(now) / (addresses.len() - tried + left) as u32;
            match timeout_at(now + share, TcpStream::connect(address)).await {
                Ok(Ok(socket)) => return Ok((socket, host)),
                Ok(Err(error)) => failure = unreachable(&address.to_string(), &error.to_string()),
                Err(_) => failure = unreachable(&address.to_string(), "no answer"),
            }
        }
    }
    Err(failure)
}

fn unreachable(to: &str, reason: &str) -> Failure {
    Failure::Unreachable { to: to.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
    use tokio::net::TcpListener;

    use super::*;

    /// A port behind which packets are dropped: its queue is full and nobody empties it.
    async fn dead() -> (OwnedFd, Vec<TcpStream>, u16) {
        let listener = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        listen(&listener, 0).expect("a listening socket");
        let address = SocketAddr::try_from(getsockname(&listener).expect("bound")).expect("an IP address");
        let mut queue = Vec::new();
        let full = Duration::from_millis(100);
        while let Ok(socket) = timeout_at(Instant::now() + full, TcpStream::connect(address)).await {
            queue.push(socket.expect("room in the queue"));
        }
        (listener, queue, address.port())
    }

    #[tokio::test]
    async fn a_dead_host_leaves_time_for_the_next() {
        let (_listener, _queue, dead) = dead().await;
        let alive = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = alive.local_addr().expect("bound").port();
        let targets = [dead, port].map(|port| ("127.0.0.1".to_owned(), port));
        let deadline = Instant::now() + Duration::from_secs(1);
        let reached = reach(targets.into(), deadline, &Steps::default()).await.map(|(socket, _)| socket.peer_addr());
        let reached = reached.unwrap_or_else(|failure| panic!("{failure}")).expect("connected");
        assert_eq!(reached.port(), port);
        assert!(Instant::now() < deadline);
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
