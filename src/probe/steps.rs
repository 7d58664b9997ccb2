//! The way of a session, told while it happens, for the commands that show it to a person. Elsewhere nobody listens
//! and nothing is recorded.

use std::fmt;

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::tls::Beginning;

/// A part of the way that lies behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is this process's turn.
    Lease,
    /// Another process holds the session, and carries the question.
    Relayed,
    Resolved {
        host: String,
        port: u16,
    },
    Connected {
        to: String,
    },
    /// TLS is up; the server's certificate in DER.
    Secured {
        beginning: Beginning,
        /// Where the library tells it.
        version: Option<&'static str>,
        certificate: Option<Vec<u8>>,
    },
    LoggedIn {
        by: String,
    },
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Lease => f.write_str("its turn"),
            Stage::Relayed => f.write_str("asked the process that holds the session"),
            Stage::Resolved { host, port } => write!(f, "found {host} port {port}"),
            Stage::Connected { .. } => f.write_str("connected"),
            Stage::Secured { .. } => f.write_str("TLS"),
            Stage::LoggedIn { .. } => f.write_str("logged in"),
        }
    }
}

/// Who listens.
#[derive(Clone, Debug, Default)]
pub struct Steps(Option<UnboundedSender<(Instant, Stage)>>);

impl Steps {
    pub fn told_to(listener: UnboundedSender<(Instant, Stage)>) -> Steps {
        Steps(Some(listener))
    }

    pub fn passed(&self, stage: Stage) {
        if let Some(listener) = &self.0 {
            // A listener that is gone no longer wants to know.
            let _ = listener.send((Instant::now(), stage));
        }
    }
}
