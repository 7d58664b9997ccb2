//! Serves FastCGI on listening sockets: the accept loop, and the graceful stop. Each connection has a task of its own,
//! for a kept connection that says nothing must block nobody. What happens on one connection is in `conversation`.

use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::conversation::Conversation;
use self::stream::Stream;
use super::listen::{BACKLOG, Listener, SocketFile};
use crate::web::request::Request;
use crate::web::response::Response;

mod conversation;
mod stream;

/// Connections served at once; further ones wait in the backlog.
pub const MAX_CONNECTIONS: usize = 2048;

/// How long a request may take to come in, from its first byte to its last. A web server sends what it has in one go;
/// only a visitor's slow upload behind a web server that does not buffer takes time.
pub const REQUEST_TIME: Duration = Duration::from_secs(30);

/// How long a web server may take to accept an answer.
pub const WRITE_TIME: Duration = Duration::from_secs(30);

/// How long accepting rests when the process or the machine is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What [`serve`] allows. The default are this module's constants.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At least 1.
    pub connections: usize,
    pub request_time: Duration,
    pub write_time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connections: MAX_CONNECTIONS, request_time: REQUEST_TIME, write_time: WRITE_TIME }
    }
}

/// Answers requests until `stop` holds true or its sender is gone. Then nothing more is accepted, the requests whose
/// records have started to arrive are answered, and it returns. Socket files are removed as soon as it stops.
///
/// `answer` is called once for each request; its future is dropped when the web server aborts or goes away. An error
/// means that a listener could not be used at all: nothing that happens later is one.
pub async fn serve<A, F>(
    listeners: Vec<Listener>,
    limits: Limits,
    answer: A,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()>
where
    A: Fn(Request) -> F + Clone + Send + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let doors = listeners.into_iter().map(Acceptor::new).collect::<io::Result<Vec<_>>>()?;
    let slots = Arc::new(Semaphore::new(limits.connections.max(1)));
    let crowd = Arc::new(Notify::new());
    let mut connections = JoinSet::new();
    let converse = |stream, slot: OwnedSemaphorePermit, stop| {
        let conversation = Conversation::new(stream, limits, answer.clone());
        let crowd = crowd.clone();
        async move {
            conversation.run(&crowd, stop).await;
            drop(slot);
        }
    };
    let mut trouble = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&doors) => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) if concerns_one_connection(&error) => continue,
            Err(error) => {
                if !trouble {
                    log::error!("cannot accept connections at the moment: {error}");
                }
                trouble = true;
                // One that is kept and idle holds a descriptor that somebody else needs.
                crowd.notify_one();
                tokio::select! {
                    () = stopped(&mut stop) => break,
                    Some(_) = connections.join_next() => continue,
                    () = sleep(ACCEPT_PAUSE) => continue,
                }
            }
        };
        trouble = false;
        if slots.available_permits() == 0 {
            // One that is kept and idle makes room.
            crowd.notify_one();
        }
        let slot = tokio::select! {
            () = stopped(&mut stop) => break,
            slot = slots.clone().acquire_owned() => slot.expect("the semaphore is never closed"),
        };
        connections.spawn(converse(stream, slot, stop.clone()));
    }
    for stream in doors.into_iter().flat_map(Acceptor::close) {
        let Ok(slot) = slots.clone().try_acquire_owned() else { break };
        connections.spawn(converse(stream, slot, stop.clone()));
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// Waits until `stop` holds true, or for good reason may.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone: nobody could stop us later.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A listener in the hands of tokio.
enum Acceptor {
    Unix { _file: Option<SocketFile>, socket: tokio::net::UnixListener },
    Tcp(tokio::net::TcpListener),
}

impl Acceptor {
    fn new(listener: Listener) -> io::Result<Acceptor> {
        Ok(match listener {
            Listener::Unix { file, socket } => {
                Acceptor::Unix { _file: file, socket: tokio::net::UnixListener::from_std(socket)? }
            }
            Listener::Tcp(socket) => Acceptor::Tcp(tokio::net::TcpListener::from_std(socket)?),
        })
    }

    /// Other processes may share the socket and take the connection first; then this goes on waiting.
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        match self {
            Acceptor::Unix { socket, .. } => socket.poll_accept(context).map_ok(|(stream, _)| Stream::Unix(stream)),
            Acceptor::Tcp(socket) => socket.poll_accept(context).map(|accepted| Stream::tcp(accepted?.0)),
        }
    }

    /// Those who have connected and were not accepted yet: closing the socket would cut them off with their requests.
    /// The file goes first, so that nobody follows them.
    fn close(self) -> Vec<Stream> {
        match self {
            Acceptor::Unix { _file: file, socket } => {
                drop(file);
                let Ok(socket) = socket.into_std() else { return Vec::new() };
                waiting(|| socket.accept().map(|(stream, _)| stream), Stream::from_unix)
            }
            Acceptor::Tcp(socket) => {
                let Ok(socket) = socket.into_std() else { return Vec::new() };
                waiting(|| socket.accept().map(|(stream, _)| stream), Stream::from_tcp)
            }
        }
    }
}

/// Accepts until nobody is left; no more than can have been waiting, for others may go on connecting by TCP.
fn waiting<S>(accept: impl Fn() -> io::Result<S>, open: impl Fn(S) -> io::Result<Stream>) -> Vec<Stream> {
    let accepted = std::iter::from_fn(|| accept().ok()).take(BACKLOG as usize);
    accepted.filter_map(|stream| open(stream).ok()).collect()
}

/// The next connection at any of the doors.
async fn accept(doors: &[Acceptor]) -> io::Result<Stream> {
    poll_fn(|context| {
        let ready = doors.iter().map(|door| door.poll_accept(context)).find(Poll::is_ready);
        ready.unwrap_or(Poll::Pending)
    })
    .await
}

/// The client went away before it was accepted, or a signal came: the next one may be fine.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, NotConnected, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | NotConnected | WouldBlock)
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_lost_connection_is_passed_over_and_want_of_descriptors_makes_a_pause() {
        for errno in [Errno::CONNABORTED, Errno::INTR, Errno::AGAIN] {
            assert!(concerns_one_connection(&errno.into()), "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::PERM] {
            assert!(!concerns_one_connection(&errno.into()), "{errno}");
        }
    }
}
