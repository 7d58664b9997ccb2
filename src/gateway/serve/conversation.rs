//! One connection from a web server: reads, lets several requests be answered at once, writes each answer in one
//! write. The meaning of the bytes is the record layer's.

use std::collections::HashMap;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::stream::Stream;
use super::trial::Trial;
use super::{Limits, stopped};
use crate::gateway::cgi;
use crate::gateway::records::{Connection, Event, Received};
use crate::web::request::Request;
use crate::web::response::Response;

/// How long a stop waits for the request for which a new connection was opened.
const FIRST_TIME: Duration = Duration::from_secs(1);

/// How long a stop waits for a request on a kept connection: a busy web server has sent one already.
const KEPT_TIME: Duration = Duration::from_millis(50);

/// A connection and the answers that are being made for it.
pub struct Conversation<A, F> {
    stream: Stream,
    limits: Limits,
    answer: A,
    trial: Trial<F>,
    records: Connection,
    /// Answers in the making: the request's id and the bytes for FCGI_STDOUT. Dropped with the connection.
    answers: JoinSet<(u16, Vec<u8>)>,
    /// Which of `answers` is still wanted for a request. After an abort the same id may already mean another request.
    wanted: HashMap<u16, AbortHandle>,
    opened: Instant,
    /// A request has ended: if nothing follows, the connection is kept for later.
    served: bool,
}

/// Nothing of ours is under way on this connection that could get lost, or nobody is there to get it.
struct Gone;

impl<A, F> Conversation<A, F>
where
    A: Fn(Request) -> F,
    F: Future<Output = Response> + Send + 'static,
{
    pub fn new(stream: Stream, limits: Limits, answer: A) -> Conversation<A, F> {
        let opened = Instant::now();
        let records = Connection::new(limits.connections, opened);
        let (answers, wanted) = (JoinSet::new(), HashMap::new());
        Conversation { stream, limits, answer, trial: Trial::new(), records, answers, wanted, opened, served: false }
    }

    /// Until either side is done. What is to be closed after the last answer is handed back. `crowd` asks one connection
    /// that is kept and idle to make room.
    pub async fn run(mut self, crowd: &Notify, stop: watch::Receiver<bool>) -> Option<Stream> {
        let ended = self.converse(crowd, stop).await;
        // What nobody will read is dropped before the connection's place is given to another.
        self.answers.shutdown().await;
        ended.is_ok().then_some(self.stream)
    }

    /// Ok when the last answer has just been sent.
    async fn converse(&mut self, crowd: &Notify, mut stop: watch::Receiver<bool>) -> Result<(), Gone> {
        let mut stop = pin!(stopped(&mut stop));
        let mut stopping = false;
        while !self.records.is_finished() {
            // Never one that is new: its request may be under way.
            let can_make_room = self.served && self.records.is_idle();
            let begun = self.records.incomplete_since();
            let silent = (!self.served && self.records.is_idle()).then_some(self.opened);
            tokio::select! {
                biased;
                () = &mut stop, if !stopping => {
                    stopping = true;
                    // What is on its way counts as in hand.
                    let last_chance = match (self.records.is_idle(), self.served) {
                        (false, _) => Duration::ZERO,
                        (true, true) => KEPT_TIME,
                        (true, false) => FIRST_TIME,
                    };
                    let receive = receive(&mut self.stream, &mut self.records);
                    if let Ok(received) = timeout(last_chance, receive).await {
                        self.act(received?).await?;
                    }
                    if self.records.is_idle() {
                        return Err(Gone);
                    }
                    self.records.finish();
                }
                Some(done) = self.answers.join_next_with_id() => self.send_answer(done).await?,
                begun = overdue(begun, self.limits.request_time) => {
                    let given_up = self.records.expire(begun);
                    self.served = true;
                    self.act(given_up).await?;
                }
                received = receive(&mut self.stream, &mut self.records) => self.act(received?).await?,
                // Opened for a request that never came.
                _ = overdue(silent, self.limits.request_time) => return Err(Gone),
                () = crowd.notified(), if can_make_room => return Err(Gone),
            }
        }
        Ok(())
    }

    async fn act(&mut self, received: Received) -> Result<(), Gone> {
        let mut broken = false;
        // What comes behind a request in the same breath may abort it and take its id for another; what the records
        // themselves answer was asked before it.
        let is_alone = received.events.len() == 1 && received.send.is_empty();
        for event in received.events {
            match event {
                Event::Request { id, request } if is_alone => self.answer_now(id, request).await?,
                Event::Request { id, request } => self.start_answer(id, (self.answer)(request)),
                Event::Aborted { id } => self.drop_answer(id),
                Event::Broken(violation) => {
                    log::info!("closing a connection that does not speak FastCGI properly: {violation:?}");
                    broken = true;
                }
            }
        }
        self.send(&received.send).await?;
        if broken { Err(Gone) } else { Ok(()) }
    }

    /// Most answers need nothing that is not here, and are sent from this task; all others get one of their own.
    async fn answer_now(&mut self, id: u16, request: Request) -> Result<(), Gone> {
        match self.trial.of((self.answer)(request)).await {
            Ok(response) => self.respond(id, &cgi::serialise(&response)).await,
            Err(rest) => {
                self.start_answer(id, rest);
                Ok(())
            }
        }
    }

    fn start_answer(&mut self, id: u16, answer: impl Future<Output = Response> + Send + 'static) {
        let task = self.answers.spawn(async move { (id, cgi::serialise(&answer.await)) });
        self.wanted.insert(id, task);
    }

    fn drop_answer(&mut self, id: u16) {
        if let Some(task) = self.wanted.remove(&id) {
            task.abort();
        }
    }

    async fn send_answer(&mut self, done: Result<(Id, (u16, Vec<u8>)), JoinError>) -> Result<(), Gone> {
        let (task, (id, stdout)) = match done {
            Ok(done) => done,
            Err(error) if error.is_cancelled() => return Ok(()),
            Err(error) => {
                log::error!("an answer failed: {error}");
                return Err(Gone);
            }
        };
        if self.wanted.get(&id).is_none_or(|wanted| wanted.id() != task) {
            return Ok(());
        }
        self.wanted.remove(&id);
        self.respond(id, &stdout).await
    }

    async fn respond(&mut self, id: u16, stdout: &[u8]) -> Result<(), Gone> {
        self.served = true;
        match self.records.respond(id, stdout) {
            Some(bytes) => self.send(&bytes).await,
            None => Ok(()),
        }
    }

    /// One write. While it waits nothing is read: a web server that sends without taking what it is sent is held back.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        if bytes.is_empty() {
            return Ok(());
        }
        let written = match self.stream.try_write(bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Err(Gone),
        };
        if written == bytes.len() {
            return Ok(());
        }
        match timeout(self.limits.write_time, self.stream.write_all(&bytes[written..])).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }
}

/// Waits until something comes, and takes it in.
async fn receive(stream: &mut Stream, records: &mut Connection) -> Result<Received, Gone> {
    poll_fn(|context| {
        let received = ready!(stream.poll_read(context, |bytes| match bytes {
            [] => Err(Gone),
            bytes => Ok(records.receive(bytes, Instant::now())),
        }));
        Poll::Ready(received.unwrap_or(Err(Gone)))
    })
    .await
}

/// Waits until what began at `begun` has taken too long and says when it began; for ever if nothing has begun.
async fn overdue(begun: Option<Instant>, allowed: Duration) -> Instant {
    let Some(begun) = begun else { return pending().await };
    sleep_until(begun + allowed).await;
    begun
}
