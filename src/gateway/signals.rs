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
        loop {
            tokio::select! {
                _ = self.terminate.recv() => break,
                _ = self.user1.recv() => break,
                _ = self.interrupt.recv() => break,
                _ = self.hangup.recv() => reload(),
            }
        }
        stop.send_replace(true);
    }
}
