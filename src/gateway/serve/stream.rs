//! An accepted connection, Unix or TCP. Most requests are there when it is first looked at: tokio gets to know a
//! connection only when it has to be waited for.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::sockopt::set_tcp_nodelay;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
pub use tokio::net::unix::pipe::Receiver as Watched;

/// Read at once. A request of a browser is 1-4 KiB.
const READ_BYTES: usize = 16 * 1024;

/// How often a connection that is closing is read at a time: who has not closed by then is looked at again.
const LAST_READS: usize = 4;

/// A stream of bytes. It is waited on without a buffer: idle connections cost next to nothing.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    /// Nobody has read yet.
    is_new: bool,
}

#[derive(Debug)]
enum Socket {
    Ours(OwnedFd),
    Watched(Watched),
    /// It could not be watched.
    Lost,
}

impl Stream {
    pub fn unix(socket: OwnedFd) -> Stream {
        Stream { socket: Socket::Ours(socket), is_new: true }
    }

    /// Without Nagle's delay, which costs an answer 40 ms.
    pub fn tcp(socket: OwnedFd) -> io::Result<Stream> {
        set_tcp_nodelay(&socket, true)?;
        Ok(Stream { socket: Socket::Ours(socket), is_new: true })
    }

    /// Hands what has come to `take`; nothing where the other side has closed.
    pub fn poll_read<T>(&mut self, context: &mut Context<'_>, take: impl FnOnce(&[u8]) -> T) -> Poll<io::Result<T>> {
        // No part of a waiting task. Nor is it cleared.
        let mut room = [MaybeUninit::uninit(); READ_BYTES];
        if mem::take(&mut self.is_new)
            && let Some(bytes) = receive(self.socket()?, &mut room)?
        {
            return Poll::Ready(Ok(take(bytes)));
        }
        let mut buffer = ReadBuf::uninit(&mut room);
        // A read that does not fill the buffer is known to be the last for now: no second one asks.
        ready!(Pin::new(self.watching()?).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(take(buffer.filled())))
    }

    /// Writes as much as goes without waiting.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.socket()?, bytes, SendFlags::DONTWAIT)?)
    }

    /// Takes no descriptor more: there may be none left.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let socket = match mem::replace(&mut self.socket, Socket::Lost) {
            Socket::Ours(socket) => socket,
            Socket::Watched(socket) => socket.into_nonblocking_fd()?,
            Socket::Lost => return Err(io::ErrorKind::NotConnected.into()),
        };
        ioctl_fionbio(&socket, true)?;
        let mut stream = tokio::net::UnixStream::from_std(socket.into())?;
        let written = stream.write_all(bytes).await;
        self.socket = Socket::Ours(OwnedFd::from(stream.into_std()?));
        written
    }

    /// Nothing more is written, and the other side may close.
    pub fn shut(&self) -> io::Result<()> {
        Ok(shutdown(self.socket()?, Shutdown::Write)?)
    }

    /// The other side has closed too. What else has come is dropped.
    pub fn is_over(&self) -> bool {
        let mut room = [MaybeUninit::uninit(); READ_BYTES];
        let mut read = || Ok::<_, io::Error>(receive(self.socket()?, &mut room)?.map(<[u8]>::len));
        for _ in 0..LAST_READS {
            match read() {
                Ok(Some(0)) | Err(_) => return true,
                Ok(Some(_)) => {}
                Ok(None) => return false,
            }
        }
        false
    }

    /// Ready when the other side has closed too. What else comes is dropped.
    pub fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Ok(1..) = ready!(self.poll_read(context, <[u8]>::len)) {}
        Poll::Ready(())
    }

    fn socket(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.socket {
            Socket::Ours(socket) => Ok(socket.as_fd()),
            Socket::Watched(socket) => Ok(socket.as_fd()),
            Socket::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn watching(&mut self) -> io::Result<&mut Watched> {
        self.socket = match mem::replace(&mut self.socket, Socket::Lost) {
            Socket::Ours(socket) => Socket::Watched(watched(socket)?),
            watched => watched,
        };
        match &mut self.socket {
            Socket::Watched(socket) => Ok(socket),
            Socket::Ours(_) | Socket::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// Waits until something comes at a socket, listening or connected, of either family. tokio's own sockets wait for room
/// to write as well, and the process would wake up for each answer that is taken; the end of a pipe does not, and makes
/// no call that a socket does not know.
pub fn watched(socket: OwnedFd) -> io::Result<Watched> {
    ioctl_fionbio(&socket, true)?;
    Watched::from_owned_fd_unchecked(socket)
}

/// What has come, if anything: nothing at all is the end.
fn receive<'a>(socket: BorrowedFd<'_>, room: &'a mut [MaybeUninit<u8>]) -> io::Result<Option<&'a [u8]>> {
    match recv(socket, room, RecvFlags::DONTWAIT) {
        Ok(((bytes, _), _)) => Ok(Some(bytes)),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
