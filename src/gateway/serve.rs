//! Serves FastCGI on listening sockets: the accept loop, and the graceful stop. Each connection has a task of its own,
//! for a kept connection that says nothing must block nobody. What happens on one connection is in `conversation`.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::SocketFlags;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;

use self::conversation::Conversation;
use self::parting::Partings;
use self::stream::{Stream, Watched, watched};
use self::trial::Trial;
use super::listen::{BACKLOG, Listener, SocketFile};
use crate::web::request::Request;
use crate::web::response::Response;

mod conversation;
mod parting;
mod stream;
mod trial;

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
    let mut partings = Partings::new();
    let mut trial = Trial::new();
    // With others to do it, one thread would do for all what they are there for.
    let is_alone = Handle::current().metrics().num_workers() == 1;
    let for_each = stop.clone();
    let converse = |stream, slot: OwnedSemaphorePermit| {
        let conversation = Conversation::new(stream, limits, answer.clone());
        let (crowd, stop) = (crowd.clone(), for_each.clone());
        async move { conversation.run(&crowd, stop).await.map(|stream| (stream, slot)) }
    };
    let mut stopped = pin!(stopped(&mut stop));
    let mut trouble = false;
    'serving: loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stopped => break,
            Some(done) = connections.join_next() => { part(done, &mut partings); continue }
            () = partings.sweep() => continue,
            accepted = next_of(&doors) => accepted,
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
                if !partings.close_those_that_may() {
                    crowd.notify_one();
                }
                tokio::select! {
                    () = &mut stopped => break,
                    Some(done) = connections.join_next() => part(done, &mut partings),
                    () = partings.close_one() => {}
                    () = sleep(ACCEPT_PAUSE) => {}
                }
                continue;
            }
        };
        trouble = false;
        partings.close_some();
        if slots.available_permits() == 0 && !partings.close_those_that_may() {
            // One that is kept and idle makes room.
            crowd.notify_one();
        }
        let slot = loop {
            tokio::select! {
                biased;
                () = &mut stopped => break 'serving,
                slot = slots.clone().acquire_owned() => break slot.expect("the semaphore is never closed"),
                Some(done) = connections.join_next() => part(done, &mut partings),
                () = partings.close_one() => {}
            }
        };
        let conversation = converse(stream, slot);
        if !is_alone {
            connections.spawn(conversation);
            continue;
        }
        // Most are done with at once, and need no task of their own.
        match trial.of(conversation).await {
            Ok(done) => part(Ok(done), &mut partings),
            Err(rest) => drop(connections.spawn(rest)),
        }
    }
    partings.close_those_that_may();
    for stream in doors.into_iter().flat_map(Acceptor::close) {
        let Ok(slot) = slots.clone().try_acquire_owned() else { break };
        connections.spawn(converse(stream, slot));
    }
    while let Some(done) = connections.join_next().await {
        part(done, &mut partings);
    }
    partings.close_all().await;
    Ok(())
}

/// What is left of a connection whose last answer is out.
fn part(done: Result<Option<(Stream, OwnedSemaphorePermit)>, JoinError>, partings: &mut Partings) {
    if let Ok(Some((stream, slot))) = done {
        partings.add(stream, slot);
    }
}

/// Waits until `stop` holds true, or for good reason may.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone: nobody could stop us later.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A listener that is watched. tokio's own ones would watch each connection, too.
struct Acceptor {
    file: Option<SocketFile>,
    family: Family,
    socket: Watched,
}

enum Family {
    Unix,
    Tcp,
}

impl Acceptor {
    fn new(listener: Listener) -> io::Result<Acceptor> {
        let (file, family, socket) = match listener {
            Listener::Unix { file, socket } => (file, Family::Unix, OwnedFd::from(socket)),
            Listener::Tcp(socket) => (None, Family::Tcp, socket.into()),
        };
        Ok(Acceptor { file, family, socket: watched(socket)? })
    }

    /// Other processes may share the socket and take the connection first; then this goes on waiting.
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        loop {
            ready!(self.socket.poll_read_ready(context))?;
            match self.socket.try_io(|| self.accept()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                accepted => return Poll::Ready(accepted),
            }
        }
    }

    fn accept(&self) -> io::Result<Stream> {
        let accepted = rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC)?;
        match self.family {
            Family::Unix => Ok(Stream::unix(accepted)),
            Family::Tcp => Stream::tcp(accepted),
        }
    }

    /// Those who have connected and were not accepted yet: closing the socket would cut them off with their requests.
    /// The file goes first, so that nobody follows them.
    fn close(mut self) -> Vec<Stream> {
        self.file = None;
        // No more than can have been waiting, for others may go on connecting by TCP.
        std::iter::repeat_with(|| self.accept()).take(BACKLOG as usize).map_while(Result::ok).collect()
    }
}

/// The next connection at any of the doors.
async fn next_of(doors: &[Acceptor]) -> io::Result<Stream> {
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
