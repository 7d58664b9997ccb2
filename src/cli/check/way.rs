//! The way to the XMPP server in lines: the steps that lie behind, the one that failed, and what an admin can do about
//! it. How far the way led tells more about a failure than the failure itself.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use tokio::time::Instant;

use super::super::advice;
use super::report::Report;
use crate::config::{Host, Identity, Security};
use crate::probe::Failure;
use crate::probe::certificate::not_after;
use crate::probe::errand::{Attempt, Unasked};
use crate::probe::steps::Stage;
use crate::probe::tls::{Beginning, TlsFault};

/// Days before its end from which on a certificate is spoken of.
const RENEWAL_DAYS: u64 = 14;
const DAY_S: u64 = 24 * 3600;

impl Report<'_> {
    /// Prints the steps, and where they ended for `unasked`; returns when the last one was done.
    pub fn way(
        &mut self,
        identity: &Identity,
        begun: Instant,
        stages: &[(Instant, Stage)],
        unasked: Option<&Unasked>,
        directory: Option<&Path>,
    ) -> io::Result<Instant> {
        let mut last = begun;
        let is_busy = unasked.is_some_and(|unasked| unasked.failure == Failure::Busy);
        for (at, stage) in stages.iter().filter(|(_, stage)| !(is_busy && *stage == Stage::Relayed)) {
            self.passed(&step(identity, stage), *at - last)?;
            self.remarks(identity, stage)?;
            last = *at;
        }
        if let Some(unasked) = unasked {
            let reached = stages.last().map(|(_, stage)| stage);
            self.ill(&format!("{}: {unasked}", broken(reached, unasked)))?;
            let hint = hint(identity, reached, &unasked.failure);
            if let Some(hint) = hint.or_else(|| advice(&unasked.failure, identity, directory)) {
                self.advice(&hint)?;
            }
        }
        Ok(last)
    }

    fn remarks(&mut self, identity: &Identity, stage: &Stage) -> io::Result<()> {
        match stage {
            Stage::Relayed => self.plain("not tried, since that process has the session: DNS, TCP, TLS and the login"),
            Stage::Secured { .. } if !identity.verify => {
                self.plain("the certificate is not checked (verify = no): anybody on the way can read the password")
            }
            Stage::Secured { certificate: Some(der), .. } => match days_left(der, SystemTime::now()) {
                Some(days) if days <= RENEWAL_DAYS => self.plain(&format!("the certificate ends within {days} days")),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// A step that lies behind.
fn step(identity: &Identity, stage: &Stage) -> String {
    match stage {
        Stage::Lease => "lease: no other process holds the session".to_owned(),
        Stage::Relayed => "lease: another process holds the session, and is asked".to_owned(),
        Stage::Resolved { host, port } => match identity.endpoint() {
            None => format!("DNS: {} leads to {host} port {port}", identity.jid.domain()),
            Some(_) if host.parse::<IpAddr>().is_ok() => format!("host {host} port {port}"),
            Some(_) => format!("DNS: {host} port {port}"),
        },
        Stage::Connected { to } => format!("connected to {to}"),
        Stage::Secured { beginning, version, certificate } => {
            let version = version.map(|version| format!(" {version}")).unwrap_or_default();
            let beginning = match beginning {
                Beginning::AtOnce => "from the first byte",
                Beginning::InStream => "by STARTTLS",
            };
            let until = certificate.as_deref().and_then(not_after).map(|date| date.0.format("%Y-%m-%d").to_string());
            let until = until.map(|until| format!(", certificate until {until}")).unwrap_or_default();
            format!("TLS{version} {beginning}, with {}{until}", identity.tls.word())
        }
        Stage::LoggedIn { by } => format!("login by {by}"),
    }
}

/// The step at which it ended.
fn broken(reached: Option<&Stage>, unasked: &Unasked) -> &'static str {
    match (&unasked.failure, reached) {
        (Failure::Busy, _) => "lease",
        (Failure::NoAddress { .. }, _) => "DNS",
        (Failure::Unreachable { .. }, Some(Stage::Lease)) => "DNS",
        (Failure::Unreachable { .. }, _) => "connection",
        (Failure::Tls { .. } | Failure::NoTls | Failure::WantsTls | Failure::Injected, _) => "TLS",
        (_, Some(Stage::LoggedIn { .. } | Stage::Relayed)) => "sample answer",
        (_, None | Some(Stage::Lease)) if unasked.attempt == Attempt::Made => "connection",
        (_, Some(Stage::Resolved { .. })) => "connection",
        _ => "login",
    }
}

/// The server has let us in, and only what was asked first stayed without an answer.
pub fn is_alive(stages: &[(Instant, Stage)], unasked: Option<&Unasked>) -> bool {
    let is_in = stages.iter().any(|(_, stage)| matches!(stage, Stage::LoggedIn { .. }));
    is_in && unasked.is_some_and(|unasked| unasked.failure == Failure::Silent)
}

/// What `failure` means that far from the goal.
fn hint(identity: &Identity, reached: Option<&Stage>, failure: &Failure) -> Option<String> {
    let is_plain = matches!(reached, Some(Stage::Connected { .. }));
    let speechless = matches!(
        failure,
        Failure::StreamEnded(_) | Failure::Stream(_) | Failure::Silent | Failure::Unexpected(_) | Failure::Reported(_)
    );
    let clients = if identity.is_component() { "components" } else { "clients" };
    match failure {
        Failure::NoAddress { host, .. } if identity.endpoint().is_none() => {
            Some(format!("{host} has neither SRV records nor an address: host and port in [xmpp] can name the server"))
        }
        Failure::NoAddress { .. } => Some("is host in [xmpp] right?".to_owned()),
        Failure::Unreachable { .. } if identity.endpoint().is_none() => {
            Some("host and port in [xmpp] can name the server".to_owned())
        }
        Failure::Unreachable { .. } => match identity.endpoint() {
            Some((Host::Unix(_), _)) => {
                Some("does the XMPP server listen there, and may this user connect?".to_owned())
            }
            _ => Some(format!("does the XMPP server run, and is this its port for {clients}?")),
        },
        Failure::Tls { fault: TlsFault::Handshake(_), .. } if identity.security == Security::Direct => {
            Some("does TLS begin with the first byte there? If not: security = starttls, or another port".to_owned())
        }
        // COMPAT: ejabberd 24.
        Failure::Silent if identity.is_component() && matches!(reached, Some(Stage::LoggedIn { .. })) => Some(
            "an ejabberd with mod_privilege may leave all questions of a component unanswered but those about people"
                .to_owned(),
        ),
        _ if speechless && is_plain && identity.security != Security::Direct => Some(format!(
            "is this the server's port for {clients}? If TLS begins there with the first byte: security = direct"
        )),
        _ => None,
    }
}

/// Days until the end of a certificate, the last one counted.
fn days_left(der: &[u8], now: SystemTime) -> Option<u64> {
    let left = SystemTime::from(not_after(der)?.0).duration_since(now).unwrap_or_default();
    Some(left.as_secs().div_ceil(DAY_S))
}
