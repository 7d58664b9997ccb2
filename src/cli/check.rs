//! `webpresence check`: the configuration and the way to the XMPP server, step by step, with a ✓ or a ✗ each. All is
//! well only if every line has a ✓.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

use super::probe::ms;
use super::serve::icons;
use super::{Failed, Out, advice, configured_quietly, run_on, runtime};
use crate::config::directory::{self, Unusable, Why};
use crate::config::{Config, Identity, Visibility};
use crate::presence::State;
use crate::probe::certificate::not_after;
use crate::probe::prober::{Manner, Prober};
use crate::probe::steps::{Stage, Steps};

pub fn check(file: Option<PathBuf>, out: Out<'_>) -> Result<(), Failed> {
    let config = configured_quietly(file)?;
    let mut report = Report { out, all_well: true };
    report.well(&format!("configuration {}", config.file.display()))?;
    match icons(&config) {
        Ok(_) => report.well("icons")?,
        Err(failed) => report.ill(&format!("icons: {failed}"))?,
    }
    if let Some(owner) = super::owner::act_as_owner(&config)? {
        report.well(&format!("from here on as user {}, who owns the directory", owner.uid))?;
    }
    let shared = report.directory(&config)?;
    for identity in &config.identities {
        run_on(runtime()?, report.identity(identity, shared.clone()))?;
    }
    if report.all_well { Ok(()) } else { Err(Failed::Told) }
}

struct Report<'a> {
    out: Out<'a>,
    all_well: bool,
}

impl Report<'_> {
    fn well(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "✓ {line}")
    }

    fn ill(&mut self, line: &str) -> io::Result<()> {
        self.all_well = false;
        writeln!(self.out, "✗ {line}")
    }

    fn directory(&mut self, config: &Config) -> io::Result<Option<PathBuf>> {
        let uid = rustix::process::geteuid().as_raw();
        match directory::open(config.cache.directory.as_deref(), uid) {
            Ok(directory) => {
                self.well(&format!("directory {}", directory.display()))?;
                Ok(Some(directory))
            }
            Err(unusable) => {
                self.ill(&format!("directory: {unusable}; processes cannot take turns: {}", remedy(&unusable)))?;
                Ok(None)
            }
        }
    }

    /// The way to an identity's server: a question about the server itself goes all of it.
    async fn identity(&mut self, identity: &Identity, directory: Option<PathBuf>) -> io::Result<()> {
        let sort = if identity.is_component() { "component" } else { "account" };
        writeln!(self.out, "{} ({sort})", identity.jid)?;
        let (listener, steps) = unbounded_channel();
        let manner = Manner { steps: Steps::told_to(listener), ..Manner::of_command(directory.clone()) };
        let (prober, task) = Prober::spawn(identity.clone(), manner);
        let begun = Instant::now();
        let answer = prober.ask(identity.home(), begun + identity.timeout).await;
        let answered = Instant::now();
        let last = self.stages(begun, steps)?;
        if let Err(unasked) = &answer {
            self.ill(&unasked.to_string())?;
            if let Some(advice) = advice(&unasked.failure, identity, directory.as_deref()) {
                writeln!(self.out, "  {advice}")?;
            }
        }
        if let Ok(answer) = answer {
            self.sample(identity, answer.presence.state, answered - last)?;
        }
        drop(prober);
        task.await.map_err(io::Error::other)?;
        if identity.visibility == Visibility::Subscribers {
            self.ill(
                "visibility = subscribers answers forbidden for every person; \
                 visibility = anyone in [access] shows those who have accepted this identity",
            )?;
        }
        Ok(())
    }

    /// Prints what lies behind; returns when the last part was done.
    fn stages(&mut self, begun: Instant, mut steps: UnboundedReceiver<(Instant, Stage)>) -> io::Result<Instant> {
        let mut last = begun;
        while let Ok((at, stage)) = steps.try_recv() {
            self.well(&format!("{stage}, {}", ms(at - last)))?;
            if let Stage::Secured { certificate: Some(der) } = &stage
                && let Some(date) = not_after(der)
            {
                writeln!(self.out, "  the certificate is valid until {}", date.0.format("%Y-%m-%d"))?;
            }
            last = at;
        }
        Ok(last)
    }

    fn sample(&mut self, identity: &Identity, state: State, took: Duration) -> io::Result<()> {
        let home = identity.home();
        match state.is_online() {
            true => self.well(&format!("sample answer: {home} is there, {}", ms(took))),
            false => self.ill(&format!("sample answer: {home} is {}; is it the domain of the users?", state.name())),
        }
    }
}

/// What a person can do about a directory that cannot be used.
fn remedy(unusable: &Unusable) -> &'static str {
    match unusable {
        // The web server's, as a rule, and it is only the command that the wrong user runs.
        Unusable::Because(_, Why::Foreign { .. }) => "run this command as that user, or set [cache] directory",
        Unusable::Because(..) | Unusable::Nowhere => "set [cache] directory",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_somebody_else_is_his_to_use() {
        let own = tempfile::tempdir().expect("a directory");
        let another = rustix::process::geteuid().as_raw() + 1;
        let foreign = directory::open(Some(own.path()), another).expect_err("it is ours");
        assert_eq!(remedy(&foreign), "run this command as that user, or set [cache] directory");
        let file = own.path().join("file");
        std::fs::write(&file, "").expect("ours");
        let unusable = directory::open(Some(&file), another).expect_err("it is a file");
        assert_eq!(remedy(&unusable), "set [cache] directory");
        assert_eq!(remedy(&Unusable::Nowhere), "set [cache] directory");
    }
}
