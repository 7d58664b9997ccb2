//! `webpresence check`: the configuration and the way to the XMPP server, step by step, with a ✓ or a ✗ each. All is
//! well only if every line has a ✓.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

use super::probe::ms;
use super::serve::icons;
use super::{Failed, configured, runtime};
use crate::config::{Config, Identity, Visibility, directory};
use crate::probe::certificate::not_after;
use crate::probe::prober::{Manner, Prober};
use crate::probe::steps::{Stage, Steps};

pub fn check(file: Option<PathBuf>) -> Result<(), Failed> {
    let config = configured(file)?;
    let mut report = Report { all_well: true };
    report.well(&format!("configuration {}", config.file.display()));
    match icons(&config) {
        Ok(_) => report.well("icons"),
        Err(failed) => report.ill(&format!("icons: {failed}")),
    }
    let uid = rustix::process::geteuid().as_raw();
    let shared = match directory::open(config.cache.directory.as_deref(), uid) {
        Ok(directory) => {
            report.well(&format!("directory {}", directory.display()));
            Some(directory)
        }
        Err(unusable) => {
            report.ill(&format!("directory: {unusable}; processes cannot take turns: set [cache] directory"));
            None
        }
    };
    runtime()?.block_on(async {
        for identity in &config.identities {
            report.identity(identity, shared.clone()).await;
        }
    });
    report.visibility(&config);
    if report.all_well { Ok(()) } else { Err(Failed::Told) }
}

struct Report {
    all_well: bool,
}

impl Report {
    fn well(&self, line: &str) {
        println!("✓ {line}");
    }

    fn ill(&mut self, line: &str) {
        println!("✗ {line}");
        self.all_well = false;
    }

    /// The way to an identity's server: a question about the server itself goes all of it.
    async fn identity(&mut self, identity: &Identity, directory: Option<PathBuf>) {
        let sort = if identity.is_component() { "component" } else { "account" };
        println!("{} ({sort})", identity.jid);
        let (listener, steps) = unbounded_channel();
        let manner = Manner { directory, linger: Some(Duration::ZERO), steps: Steps::told_to(listener) };
        let (prober, task) = Prober::spawn(identity.clone(), manner);
        let begun = Instant::now();
        let answer = prober.ask(identity.home(), begun + identity.timeout).await;
        let answered = Instant::now();
        let last = self.stages(begun, steps);
        match answer {
            Ok(answer) if answer.presence.state.is_online() => {
                self.well(&format!("sample: {} is there, {}", identity.home(), ms(answered - last)));
            }
            Ok(answer) => {
                let state = answer.presence.state.name();
                self.ill(&format!("sample: {} is {state}: is it the domain of the users?", identity.home()));
            }
            Err(unasked) => self.ill(&unasked.failure.to_string()),
        }
        drop(prober);
        if let Err(error) = task.await {
            self.ill(&format!("the session's task: {error}"));
        }
    }

    /// Prints what lies behind; returns when the last part was done.
    fn stages(&mut self, begun: Instant, mut steps: UnboundedReceiver<(Instant, Stage)>) -> Instant {
        let mut last = begun;
        while let Ok((at, stage)) = steps.try_recv() {
            self.well(&format!("{stage}, {}", ms(at - last)));
            if let Stage::Secured { certificate: Some(der) } = &stage
                && let Some(date) = not_after(der)
            {
                println!("  the certificate is valid until {}", date.0.format("%Y-%m-%d"));
            }
            last = at;
        }
        last
    }

    fn visibility(&mut self, config: &Config) {
        for identity in &config.identities {
            if identity.visibility == Visibility::Subscribers {
                self.ill(&format!(
                    "{}: visibility = subscribers answers forbidden for every person: \
                     set visibility = anyone in [access] to show those who accepted it",
                    identity.jid
                ));
            }
        }
    }
}
