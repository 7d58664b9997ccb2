//! Listening sockets: our own, bound to an [`Address`], and those that systemd, spawn-fcgi or a web server hand over.
//! A socket file appears with its final permissions already narrowed, replaces a stale one but never a live one, and
//! is removed with its listener. Accepting is the business of `serve`.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

pub use self::address::{Address, AddressError};
pub use self::socket_file::{Fault, SocketFile};

mod address;
mod socket_file;

/// Connections that may wait to be accepted; a full backlog is an instant 502 from nginx. The kernel caps it by
/// net.core.somaxconn.
pub const BACKLOG: i32 = 1024;

/// A listening socket, not blocking.
#[derive(Debug)]
pub enum Listener {
    /// The file goes first: removed while the socket still lives, so that its inode cannot have become another's.
    Unix {
        file: Option<SocketFile>,
        socket: UnixListener,
    },
    Tcp(TcpListener),
}

/// Why there is no socket: the address, and what was wrong there.
#[derive(Debug)]
pub struct ListenError {
    pub address: Address,
    pub fault: Fault,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.fault)
    }
}

impl std::error::Error for ListenError {}

impl Listener {
    /// Binds sockets of our own: one for a path, one for each address that a host name has.
    pub fn bind(address: &Address) -> Result<Vec<Listener>, ListenError> {
        let listeners = match address {
            Address::Unix { path, mode, group } => socket_file::bind(path, *mode, group.as_deref())
                .map(|(socket, file)| vec![Listener::Unix { file: Some(file), socket }]),
            Address::Tcp { host, port } => bind_tcp(host, *port).map_err(Fault::Io),
        };
        listeners.map_err(|fault| ListenError { address: address.clone(), fault })
    }

    /// The listener behind a descriptor, as a duplicate of it. None if it is not a listening Unix or TCP socket: a file,
    /// /dev/null, or the connected socket that Apache's mod_cgid puts on fd 0.
    ///
    /// The descriptor becomes non-blocking for all processes that share it.
    pub fn inherited(fd: impl AsFd) -> Option<Listener> {
        if !listens(&fd) {
            return None;
        }
        let family = rustix::net::getsockname(&fd).ok()?.address_family();
        let fd = fd.as_fd().try_clone_to_owned().ok()?;
        Listener::of_family(family, fd).ok()?
    }

    /// In words, where its other end may be anybody: no file says who may connect, or ours says that all may. What others
    /// hand over they keep in a folder of their own, so that its mode says nothing.
    pub fn open_to_all(&self) -> Option<String> {
        match self {
            Listener::Tcp(_) => Some(format!("{self} is a TCP socket")),
            Listener::Unix { file: Some(file), .. } if file.is_open_to_all() => {
                Some(format!("{self} is open to every user of this machine"))
            }
            Listener::Unix { .. } => None,
        }
    }

    /// The first `count` sockets that systemd passed, those of them that listen. To be called once, before there are
    /// threads: it takes LISTEN_PID and LISTEN_FDS out of the environment, so that no child inherits them.
    pub fn handed_over(count: usize) -> Vec<Listener> {
        let mut given = ListenFd::from_env();
        (0..count.min(given.len())).filter_map(|index| take(&mut given, index)).collect()
    }

    fn of_family(family: AddressFamily, fd: OwnedFd) -> io::Result<Option<Listener>> {
        Ok(match family {
            AddressFamily::UNIX => Some(Listener::of_unix(fd.into())?),
            AddressFamily::INET | AddressFamily::INET6 => Some(Listener::of_tcp(fd.into())?),
            _ => None,
        })
    }

    fn of_unix(socket: UnixListener) -> io::Result<Listener> {
        socket.set_nonblocking(true)?;
        Ok(Listener::Unix { file: None, socket })
    }

    fn of_tcp(socket: TcpListener) -> io::Result<Listener> {
        socket.set_nonblocking(true)?;
        Ok(Listener::Tcp(socket))
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listener::Unix { socket, .. } => match socket.local_addr().ok().as_ref().and_then(|at| at.as_pathname()) {
                Some(path) => write!(f, "unix:{}", path.display()),
                None => f.write_str("a Unix socket without a name"),
            },
            Listener::Tcp(socket) => match socket.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("a TCP socket"),
            },
        }
    }
}

/// Anything but a listening socket is an error (ENOTSOCK, EBADF) or false.
fn listens(fd: impl AsFd) -> bool {
    rustix::net::sockopt::socket_acceptconn(fd).unwrap_or(false)
}

fn take(given: &mut ListenFd, index: usize) -> Option<Listener> {
    let unix = given.take_unix_listener(index).ok().flatten();
    if let Some(socket) = unix {
        return listens(&socket).then(|| Listener::of_unix(socket).ok())?;
    }
    let socket = given.take_tcp_listener(index).ok().flatten()?;
    listens(&socket).then(|| Listener::of_tcp(socket).ok())?
}

/// Binds every address of the host: nginx tries all that `localhost` has. One that this machine does not have is no
/// fault as long as another can be bound.
fn bind_tcp(host: &str, port: u16) -> io::Result<Vec<Listener>> {
    let (mut listeners, mut missing) = (Vec::new(), None);
    for address in (host, port).to_socket_addrs()? {
        match bind_tcp_address(address) {
            Ok(socket) => listeners.push(Listener::Tcp(socket)),
            Err(error @ (Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT)) => {
                missing = Some(error);
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        if !address.ip().is_loopback() {
            log::warn!("{address} believes whoever connects to it; a Unix socket or 127.0.0.1 is safer");
        }
    }
    match missing {
        Some(error) if listeners.is_empty() => Err(error.into()),
        _ => Ok(listeners),
    }
}

fn bind_tcp_address(address: SocketAddr) -> Result<TcpListener, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = stream_socket(family)?;
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// std and tokio would choose the backlog themselves.
fn stream_socket(family: AddressFamily) -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_is_told_from_everything_else() {
        let directory = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(directory.path().join("socket")).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(matches!(Listener::inherited(&unix), Some(Listener::Unix { file: None, .. })));
        assert!(matches!(Listener::inherited(&tcp), Some(Listener::Tcp(_))));

        let (connected, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let client = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let datagram = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let (pipe, _writer) = std::io::pipe().unwrap();
        assert!(Listener::inherited(&connected).is_none(), "mod_cgid");
        assert!(Listener::inherited(&client).is_none(), "mini_httpd");
        assert!(Listener::inherited(&datagram).is_none());
        assert!(Listener::inherited(&null).is_none(), "lighttpd's mod_cgi");
        assert!(Listener::inherited(&pipe).is_none(), "mod_cgi");
    }

    #[test]
    fn tcp_addresses_are_bound_and_a_used_one_is_an_error() {
        let any_port = "127.0.0.1:0".parse().unwrap();
        let bound = Listener::bind(&any_port).unwrap();
        let [listener @ Listener::Tcp(socket)] = &bound[..] else { panic!("{bound:?}") };
        let address: Address = listener.to_string().parse().unwrap();
        std::net::TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        assert!(listener.open_to_all().is_some_and(|told| told.ends_with(" is a TCP socket")));
        let error = Listener::bind(&address).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {address}: ")), "{error}");
    }
}
