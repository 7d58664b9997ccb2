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
            self.ill(&format!("{}: {unasked}", broken(identity, reached, unasked)))?;
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
fn broken(identity: &Identity, reached: Option<&Stage>, unasked: &Unasked) -> &'static str {
    match (&unasked.failure, reached) {
        (Failure::Busy, _) => "lease",
        (Failure::NoAddress { .. }, _) => "DNS",
        (Failure::Unreachable { .. }, Some(Stage::Lease)) if identity.endpoint().is_none() => "DNS",
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config;

    fn identity(lines: &str) -> Identity {
        let text = format!("[xmpp]\npassword = x\n{lines}\n");
        let config = config::parse(&text, Path::new("test.ini")).unwrap_or_else(|errors| panic!("{errors}"));
        config.identities.into_iter().next().expect("an identity")
    }

    /// What a report says of this failure.
    fn told(identity: &Identity, stages: &[Stage], failure: Failure) -> String {
        let (now, mut text) = (Instant::now(), Vec::new());
        let stages: Vec<_> = stages.iter().map(|stage| (now, stage.clone())).collect();
        let (unasked, directory) = (Unasked::now(failure), Path::new("/state"));
        let mut report = Report::to(&mut text);
        report.way(identity, now, &stages, Some(&unasked), Some(directory)).expect("memory");
        assert!(!report.all_well);
        let text = String::from_utf8(text).expect("text");
        text.split_once('✗').map(|(_, told)| format!("✗{told}")).expect("a failure")
    }

    #[test]
    fn how_far_the_way_led_tells_what_is_wrong() {
        let (account, component) = (identity("jid = bot@example.com"), identity("jid = web.example.com"));
        let resolved = Stage::Resolved { host: "xmpp.example.com".into(), port: 5222 };
        let connected = Stage::Connected { to: "192.0.2.1:5222".into() };
        let logged_in = Stage::LoggedIn { by: "SCRAM-SHA-1".into() };
        let nothing = "its DNS says that there is no XMPP service for clients".to_owned();
        let no_service = Failure::Unreachable { to: "example.com".into(), reason: nothing };
        let closed = || Failure::Unreachable { to: "192.0.2.1:5222".into(), reason: "refused".into() };
        let unix = identity("jid = web.example.com\nhost = unix:/run/xmpp");
        for (identity, stages, failure, expected) in [
            (
                &account,
                &[Stage::Lease][..],
                no_service,
                "✗ DNS: cannot connect to example.com: its DNS says that there is no XMPP service for clients\n  host and \
                 port in [xmpp] can name the server\n",
            ),
            (
                &account,
                &[Stage::Lease, resolved.clone()],
                closed(),
                "✗ connection: cannot connect to 192.0.2.1:5222: refused\n  host and port in [xmpp] can name the server\n",
            ),
            (
                &unix,
                &[Stage::Lease],
                Failure::Unreachable { to: "/run/xmpp".into(), reason: "permission denied".into() },
                "✗ connection: cannot connect to /run/xmpp: permission denied\n  does the XMPP server listen there, and \
                 may this user connect?\n",
            ),
            (
                &component,
                &[Stage::Lease, resolved.clone(), connected.clone()],
                Failure::Silent,
                "✗ login: the server did not answer in time\n  is this the server's port for components? If TLS begins \
                 there with the first byte: security = direct\n",
            ),
            (&account, &[Stage::Lease, resolved, connected], Failure::NoTls, "✗ TLS: the server does not offer TLS\n"),
            (&account, &[logged_in], Failure::Silent, "✗ sample answer: the server did not answer in time\n"),
            (&account, &[Stage::Relayed], Failure::Silent, "✗ sample answer: the server did not answer in time\n"),
            (
                &component,
                &[Stage::Relayed],
                Failure::Busy,
                "✗ lease: another process holds the session of this identity, and does not answer\n  it may be stopped, \
                 or run on another machine that shares the directory: end it (fuser /state/web.example.com.lease tells \
                 which it is), or give each machine an identity or a directory of its own\n",
            ),
        ] {
            assert_eq!(told(identity, stages, failure), expected);
        }
    }

    #[test]
    fn what_was_put_off_was_not_tried() {
        let (unix, account) = (identity("jid = web.example.com\nhost = unix:/x"), identity("jid = bot@example.com"));
        let refused = Failure::LoginRefused("not-authorized".into());
        let put_off = |failure| Unasked { failure, retry_after: Duration::from_secs(9), attempt: Attempt::PutOff };
        assert_eq!(broken(&account, None, &put_off(refused.clone())), "login");
        assert_eq!(hint(&unix, None, &refused), None);
        assert_eq!(hint(&account, None, &refused), None);
    }
}
