//! Lines of JSON on a socket between two processes of this machine, each of bounded length. Whatever the peer sends or
//! fails to read, memory stays bounded, and nothing is lost when waiting is broken off.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Bytes that a peer may leave unread before it counts as gone.
const UNREAD: usize = 8 * 1024 * 1024;
const CHUNK: usize = 16 * 1024;

/// See the module.
pub struct Lines {
    stream: UnixStream,
    /// Read, and not yet a whole line.
    heard: Vec<u8>,
    /// How much of it holds no end of a line.
    searched: usize,
    /// Said, and not yet written.
    unsent: Vec<u8>,
    /// The longest line that is taken.
    limit: usize,
}

impl Lines {
    pub fn over(stream: UnixStream, limit: usize) -> Lines {
        Lines { stream, heard: Vec::new(), searched: 0, unsent: Vec::new(), limit }
    }

    /// Says one line, as soon as [`Lines::hear`] or [`Lines::flush`] waits.
    pub fn say(&mut self, line: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.unsent, line)?;
        self.unsent.push(b'\n');
        if self.unsent.len() > UNREAD { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
    }

    /// The next line; what was said goes out meanwhile. What the peer meant otherwise is an error.
    pub async fn hear<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        loop {
            if let Some(end) = self.heard[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=self.searched + end).collect();
                self.searched = 0;
                return Ok(serde_json::from_slice(&line)?);
            }
            self.searched = self.heard.len();
            if self.heard.len() > self.limit {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let both =
                if self.unsent.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
            let ready = self.stream.ready(both).await?;
            if ready.is_writable() {
                self.write()?;
            }
            if ready.is_readable() {
                self.read()?;
            }
        }
    }

    /// Until everything that was said is written.
    pub async fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            self.stream.writable().await?;
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        match self.stream.try_write(&self.unsent) {
            Ok(written) => drop(self.unsent.drain(..written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        match self.stream.try_read(&mut chunk) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                self.heard.extend_from_slice(&chunk[..length]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair(limit: usize) -> (Lines, UnixStream) {
        let (one, other) = UnixStream::pair().expect("two sockets");
        (Lines::over(one, limit), other)
    }

    #[tokio::test]
    async fn lines_come_whole_however_they_are_cut() {
        let sent = b"\"one\"\n\"two\"\n";
        for cut in 0..sent.len() {
            let (mut lines, mut peer) = pair(100);
            let hear = async { (lines.hear::<String>().await, lines.hear::<String>().await) };
            let send = async {
                peer.write_all(&sent[..cut]).await.expect("open");
                tokio::task::yield_now().await;
                peer.write_all(&sent[cut..]).await.expect("open");
            };
            let ((one, two), ()) = tokio::join!(hear, send);
            assert_eq!((one.expect("a line").as_str(), two.expect("a line").as_str()), ("one", "two"), "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn what_is_no_line_is_an_error() {
        let rows: [(&[u8], io::ErrorKind); 5] = [
            (b"", io::ErrorKind::UnexpectedEof),
            (b"\"cut", io::ErrorKind::UnexpectedEof),
            (b"nonsense\n", io::ErrorKind::InvalidData),
            (b"\xff\xfe\n", io::ErrorKind::InvalidData),
            (&[b' '; 101], io::ErrorKind::InvalidData),
        ];
        for (sent, expected) in rows {
            let (mut lines, mut peer) = pair(100);
            peer.write_all(sent).await.expect("open");
            drop(peer);
            let heard = lines.hear::<String>().await;
            assert_eq!(heard.expect_err("no line").kind(), expected, "{}", sent.escape_ascii());
        }
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_given_up() {
        let (mut lines, mut peer) = pair(100);
        let line = "x".repeat(1024 * 1024);
        assert_eq!((0..8).filter(|_| lines.say(&line).is_ok()).count(), 7);
        let (mut lines, mut reader) = (pair(100), Vec::new());
        lines.0.say(&line).expect("room for one");
        let (flushed, read) =
            tokio::join!(async { lines.0.flush().await.map(|()| drop(lines.0)) }, lines.1.read_to_end(&mut reader));
        flushed.expect("written");
        assert_eq!(read.expect("read"), line.len() + 3);
        peer.shutdown().await.expect("open");
    }
}
