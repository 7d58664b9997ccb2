//! An accepted connection, Unix or TCP.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// How long a connection that we close may take to be closed from the other side too.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// A stream of bytes. It is waited on without a buffer: idle connections cost next to nothing.
#[derive(Debug)]
pub enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    /// Without Nagle's delay, which costs an answer 40 ms.
    pub fn tcp(stream: TcpStream) -> io::Result<Stream> {
        stream.set_nodelay(true)?;
        Ok(Stream::Tcp(stream))
    }

    pub fn from_unix(stream: std::os::unix::net::UnixStream) -> io::Result<Stream> {
        stream.set_nonblocking(true)?;
        Ok(Stream::Unix(UnixStream::from_std(stream)?))
    }

    pub fn from_tcp(stream: std::net::TcpStream) -> io::Result<Stream> {
        stream.set_nonblocking(true)?;
        Stream::tcp(TcpStream::from_std(stream)?)
    }

    /// Reads what has come. A read that does not fill the buffer is known to be the last for now: no second one asks.
    pub fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }

    /// Writes as much as goes without waiting.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.try_write(bytes),
            Stream::Tcp(stream) => stream.try_write(bytes),
        }
    }

    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.write_all(bytes).await,
            Stream::Tcp(stream) => stream.write_all(bytes).await,
        }
    }

    /// Closes so that the last answer arrives: a socket closed while something lies unread in it (an empty FCGI_STDIN
    /// sent twice) resets the connection, and TCP then throws away what was under way.
    pub async fn close(mut self) {
        let shut = match &mut self {
            Stream::Unix(stream) => stream.shutdown().await,
            Stream::Tcp(stream) => stream.shutdown().await,
        };
        if shut.is_ok() {
            // Closed in time or not, now it is over.
            let _ = timeout(CLOSE_TIME, self.drain()).await;
        }
    }

    async fn drain(&mut self) -> io::Result<()> {
        let mut read = async || {
            poll_fn(|context| {
                let mut buffer = [0; 1024];
                let mut buffer = ReadBuf::new(&mut buffer);
                self.poll_read(context, &mut buffer).map_ok(|()| buffer.filled().len())
            })
            .await
        };
        while read().await? > 0 {}
        Ok(())
    }
}
