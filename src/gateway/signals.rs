//! What signals mean: SIGTERM (mod_fcgid, lighttpd, systemd), SIGUSR1 (libfcgi's "finish and go") and SIGINT (Ctrl-C)
//! stop gracefully, SIGHUP reads the configuration again. SIGPIPE needs nothing here: Rust's runtime ignores it before
//! `main`, so writing to a web server that has gone is an error and no death.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// The signals this process listens to from now on.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    user1: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Stop,
    Reload,
}

impl Signals {
    /// Takes the signals over; within a tokio runtime. To be called before requests are accepted, or an early SIGTERM
    /// kills.
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            user1: signal(SignalKind::user_defined1())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Calls `reload` at each SIGHUP; returns at the first signal that stops, after it has set `stop`.
    pub async fn run(mut self, stop: watch::Sender<bool>, mut reload: impl FnMut()) {
        while self.next().await == Wanted::Reload {
            reload();
        }
        stop.send_replace(true);
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.terminate.recv() => Wanted::Stop,
            _ = self.user1.recv() => Wanted::Stop,
            _ = self.interrupt.recv() => Wanted::Stop,
            _ = self.hangup.recv() => Wanted::Reload,
        }
    }
}
