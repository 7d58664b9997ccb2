//! Connections whose last answer is out. A socket closed while something lies unread in it (an empty FCGI_STDIN sent
//! twice) resets the connection, and TCP then throws away what was under way: so the other side closes first, or has had
//! its time. Most have closed when the next connection comes; nobody is woken for it.

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::stream::Stream;

/// How long a connection that we close may take to be closed from the other side too.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// See the module; the oldest is the first.
pub struct Partings {
    waiting: VecDeque<Parting>,
    /// Goes off when the time of one of them may be over.
    alarm: Pin<Box<Sleep>>,
}

struct Parting {
    stream: Stream,
    until: Instant,
    _slot: OwnedSemaphorePermit,
}

impl Partings {
    pub fn new() -> Partings {
        Partings { waiting: VecDeque::new(), alarm: Box::pin(sleep_until(Instant::now())) }
    }

    pub fn add(&mut self, stream: Stream, slot: OwnedSemaphorePermit) {
        if stream.shut().is_err() {
            return;
        }
        let until = Instant::now() + CLOSE_TIME;
        if self.waiting.is_empty() {
            self.alarm.as_mut().reset(until);
        }
        self.waiting.push_back(Parting { stream, until, _slot: slot });
    }

    /// Closes those in front that may be closed.
    pub fn close_some(&mut self) {
        while self.waiting.front().is_some_and(|first| first.stream.is_over()) {
            self.waiting.pop_front();
        }
    }

    /// Closes all that may be closed; false where there was none.
    pub fn close_those_that_may(&mut self) -> bool {
        let (before, now) = (self.waiting.len(), Instant::now());
        self.waiting.retain(|parting| now < parting.until && !parting.stream.is_over());
        self.waiting.len() < before
    }

    /// Waits until the time of one may be over, and closes all that may be closed.
    pub async fn sweep(&mut self) {
        if self.waiting.is_empty() {
            return pending().await;
        }
        self.alarm.as_mut().await;
        self.close_those_that_may();
        if let Some(first) = self.waiting.front() {
            self.alarm.as_mut().reset(first.until);
        }
    }

    /// Waits until one of them is closed.
    pub async fn close_one(&mut self) {
        let Some(until) = self.waiting.front().map(|first| first.until) else { return pending().await };
        let closed = poll_fn(|context| {
            let before = self.waiting.len();
            self.waiting.retain_mut(|parting| parting.stream.poll_over(context).is_pending());
            if self.waiting.len() < before { Poll::Ready(()) } else { Poll::Pending }
        });
        if timeout_at(until, closed).await.is_err() {
            self.waiting.pop_front();
        }
    }

    /// Waits until all are closed.
    pub async fn close_all(mut self) {
        while !self.waiting.is_empty() {
            self.close_one().await;
        }
    }
}
