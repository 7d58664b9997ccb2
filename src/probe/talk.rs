//! A session and the connection it runs over: what the session wants sent is sent, what comes in is handed to it. What
//! is asked, and when it ends, is the prober's.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Failure;
use super::connect::Channel;
use super::session::{Session, Step};
use super::steps::{Stage, Steps};
use crate::config::Identity;

/// How long the server may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(500);
/// How long the server may take to accept a question, once it has taken the login.
const WRITE_TIME: Duration = Duration::from_millis(500);

/// A session and the connection it runs over.
pub struct Talk<'a> {
    identity: Arc<Identity>,
    steps: Steps,
    /// Taken out only while TLS is being put around it.
    channel: Option<Channel>,
    pub session: &'a mut Session,
    /// Until when the login must be done.
    pub deadline: Instant,
    pub logged_in: bool,
    /// When anything last came in, if anything did beside the login.
    pub heard: Option<Instant>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The server has closed it, too.
    Mutual,
    /// What the server thinks of it is not known.
    OneSided,
}

impl<'a> Talk<'a> {
    /// Connects; `deadline` is for the login too.
    pub async fn open(
        identity: Arc<Identity>,
        session: &'a mut Session,
        steps: Steps,
        deadline: Instant,
    ) -> Result<Talk<'a>, Failure> {
        let channel = Channel::open(&identity, deadline, &steps).await?;
        session.connected(channel.bindings());
        Ok(Talk { identity, steps, channel: Some(channel), session, deadline, logged_in: false, heard: None })
    }

    /// Does what the session wants done, until it waits.
    pub async fn advance(&mut self) -> Result<Option<Instant>, Failure> {
        loop {
            if self.session.is_open() && !self.logged_in {
                self.logged_in = true;
                self.steps.passed(Stage::LoggedIn { by: self.session.entered_by() });
            }
            match self.session.step(Instant::now()) {
                Step::Send(bytes) => {
                    let deadline = self.deadline.max(Instant::now() + WRITE_TIME);
                    let sent = timeout_at(deadline, self.channel()?.write(&bytes)).await;
                    sent.map_err(|_| Failure::Silent)?.map_err(lost)?;
                }
                Step::StartTls => {
                    let channel = self.channel.take().ok_or(Failure::Unexpected("a connection"))?;
                    let secured = channel.secure(&self.identity, self.deadline, &self.steps).await?;
                    self.session.secured(secured.bindings().unwrap_or_default());
                    self.channel = Some(secured);
                }
                Step::Wait(until) => return Ok(until),
            }
        }
    }

    fn channel(&mut self) -> Result<&mut Channel, Failure> {
        self.channel.as_mut().ok_or(Failure::Unexpected("a connection"))
    }

    /// Takes what the server sends next.
    pub async fn receive(&mut self) -> Result<(), Failure> {
        let mut buffer = [0; 8192];
        match self.channel()?.read(&mut buffer).await.map_err(lost)? {
            0 => Err(Failure::StreamEnded(String::new())),
            length => {
                let (now, was_open) = (Instant::now(), self.session.is_open());
                let taken = self.session.receive(&buffer[..length], now);
                self.heard = if was_open || self.session.has_heard() { Some(now) } else { None };
                taken
            }
        }
    }

    /// Closes the stream and waits a moment for the server to do the same, so that the next session of this identity,
    /// whoever opens it, does not meet this one.
    pub async fn goodbye(&mut self) -> Farewell {
        let deadline = Instant::now() + GOODBYE;
        let farewell = self.session.close();
        let Some(channel) = &mut self.channel else { return Farewell::Mutual };
        let leave = async {
            channel.write(farewell).await?;
            let mut buffer = [0; 8192];
            while channel.read(&mut buffer).await? > 0 {}
            channel.shutdown().await
        };
        match timeout_at(deadline, leave).await {
            Ok(Ok(())) => return Farewell::Mutual,
            Ok(Err(error)) => log::debug!("{}: closing: {error}", self.identity.jid),
            Err(_) => log::debug!("{}: closing: the server takes its time", self.identity.jid),
        }
        Farewell::OneSided
    }
}

fn lost(error: io::Error) -> Failure {
    Failure::StreamEnded(error.to_string())
}
