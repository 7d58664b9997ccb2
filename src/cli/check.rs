//! `webpresence check [JID...]`: the configuration and the way to the XMPP server, step by step, with a mark and the time
//! of each. All is well unless a line has a ✗. The session is one of the command's own, opened by the password itself;
//! where another process holds it already, that one is asked.

mod permission;
mod report;
mod way;

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use jid::BareJid;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

use super::probe::{quoted, refusal};
use super::serve::icons;
use super::{Failed, Out, by_identity, configured_quietly, loaded, owner, run_on, runtime};
use crate::config::directory::{self, Unusable, Why};
use crate::config::{Config, Identity};
use crate::presence::State;
use crate::probe::Answer;
use crate::probe::lease::{Place, create};
use crate::probe::prober::{Manner, Prober, Proof, Unasked};
use crate::probe::steps::{Stage, Steps};
use report::Report;

/// How far this machine's clock may be from the server's.
const CLOCK_S: u64 = 60;
/// What is written where processes share what they know, to see whether it can be.
const DRAFT: [u8; 4096] = [b'\n'; 4096];

pub fn check(file: Option<PathBuf>, jids: &[BareJid], out: Out<'_>) -> Result<(), Failed> {
    let mut report = Report::to(out);
    let config = match configured_quietly(file) {
        Err(Failed::Config(errors)) => {
            for problem in errors.to_string().lines() {
                report.ill(&format!("configuration: {problem}"))?;
            }
            return Err(Failed::Told);
        }
        config => config?,
    };
    report.configuration(&config)?;
    if let Some(owner) = owner::act_as_owner(&config)? {
        report.owner(&config, owner.uid)?;
    }
    let shared = report.store(&config)?;
    #[cfg(feature = "redis")]
    run_on(runtime()?, report.hub(&config))?;
    for (identity, jids) in with_theirs(&config, jids) {
        run_on(runtime()?, report.identity(&config, identity, &jids, shared.clone()))?;
    }
    for (_, jids) in by_identity(&config, jids).iter().filter(|(identity, _)| identity.is_none()) {
        for jid in jids {
            report.ill(&format!("{jid}: none of the [access] domains serves {}", jid.domain()))?;
        }
    }
    if report.all_well { Ok(()) } else { Err(Failed::Told) }
}

/// Every identity, with those of the addresses that it serves.
fn with_theirs<'a>(config: &'a Config, jids: &'a [BareJid]) -> Vec<(&'a Identity, Vec<&'a BareJid>)> {
    let served = by_identity(config, jids);
    let of = |identity: &Identity| served.iter().find(|(by, _)| by.is_some_and(|by| by.name == identity.name));
    let theirs = |identity| of(identity).map(|(_, jids)| jids.clone()).unwrap_or_default();
    config.identities.iter().map(|identity| (identity, theirs(identity))).collect()
}

/// An identity whose session answers.
struct Visit<'a> {
    identity: &'a Identity,
    prober: Prober,
}

impl Report<'_> {
    fn configuration(&mut self, config: &Config) -> io::Result<()> {
        let (begun, file) = (Instant::now(), &config.file);
        let mode = file.metadata().map(|metadata| metadata.permissions().mode() & 0o7777)?;
        self.passed(&format!("configuration {}, mode {mode:04o}", file.display()), begun.elapsed())?;
        let begun = Instant::now();
        match icons(config) {
            Ok(_) => self.passed("icons", begun.elapsed()),
            Err(failed) => self.ill(&format!("icons: {failed}")),
        }
    }

    /// From here on it goes as it does for the processes of the web server.
    fn owner(&mut self, config: &Config, uid: u32) -> io::Result<()> {
        let (begun, file) = (Instant::now(), config.file.display());
        if let Err(error) = File::open(&config.file) {
            self.ill(&format!("permissions: user {uid}, who owns the directory, cannot read {file}: {error}"))?;
            return self.advice("give the file to a group of his, with mode 0640");
        }
        match loaded(Some(config.file.clone())) {
            // What is wrong now was not when root read it: he may not see the files that it names.
            Err(Failed::Config(errors)) => {
                for problem in errors.to_string().lines() {
                    self.ill(&format!("permissions: for user {uid}, who owns the directory, {problem}"))?;
                }
                self.advice("give that to a group of his, with mode 0640")
            }
            _ => {
                let line = format!("from here on as user {uid}, who owns the directory and can read the configuration");
                self.passed(&line, begun.elapsed())
            }
        }
    }

    fn store(&mut self, config: &Config) -> io::Result<Option<PathBuf>> {
        let begun = Instant::now();
        let uid = rustix::process::geteuid().as_raw();
        let directory = match directory::open(config.cache.directory.as_deref(), uid) {
            Ok(directory) => directory,
            Err(unusable) => {
                self.ill(&format!("store: {unusable}"))?;
                self.advice(&format!("processes cannot take turns: {}", remedy(&unusable)))?;
                return Ok(None);
            }
        };
        match write_there(&directory) {
            Ok(()) => self.passed(&format!("store {}", directory.display()), begun.elapsed())?,
            Err(error) => {
                self.ill(&format!("store: nothing can be written in {}: {error}", directory.display()))?;
                self.advice("is the disk full, or mounted read-only?")?;
            }
        }
        Ok(Some(directory))
    }

    /// Whether something can be written where machines meet.
    #[cfg(feature = "redis")]
    async fn hub(&mut self, config: &Config) -> io::Result<()> {
        let begun = Instant::now();
        let Some(hub) = Manner::default().among_machines(config, log::Level::Debug).hub else { return Ok(()) };
        match hub.prove().await {
            Ok(()) => self.passed(&hub.to_string(), begun.elapsed()),
            Err(reason) => {
                self.ill(&format!("{hub}: {reason}"))?;
                self.advice("until it serves, each machine goes by itself")
            }
        }
    }

    /// The way to an identity's server: a question about the server itself goes all of it.
    async fn identity(
        &mut self,
        config: &Config,
        identity: &Identity,
        jids: &[&BareJid],
        shared: Option<PathBuf>,
    ) -> io::Result<()> {
        let sort = if identity.is_component() { "component" } else { "account" };
        writeln!(self.out, "{} ({sort})", identity.jid)?;
        self.lock(identity, shared.as_deref())?;
        let (listener, steps) = unbounded_channel();
        let steps_told = Steps::told_to(listener);
        let manner = Manner {
            steps: steps_told,
            proof: Proof::Password,
            ..Manner::of_command(shared.clone()).among_machines(config, log::Level::Warn)
        };
        let (prober, task) = Prober::spawn(identity.clone(), manner);
        let begun = Instant::now();
        let sample = prober.ask(identity.home(), begun + identity.timeout).await;
        let answered = Instant::now();
        let stages = told(steps);
        let last = self.way(identity, begun, &stages, sample.as_ref().err(), shared.as_deref())?;
        if sample.is_ok() || way::is_alive(&stages, sample.as_ref().err()) {
            let visit = Visit { identity, prober };
            self.standing(&visit, jids).await?;
            if let Ok(sample) = sample {
                self.sample(identity, sample.presence.state, (last, answered))?;
            }
            for jid in jids {
                self.person(&visit, jid).await?;
            }
        } else {
            drop(prober);
            jids.iter().try_for_each(|jid| self.plain(&format!("{jid}: not asked")))?;
        }
        task.await.map_err(io::Error::other)?;
        self.requester(identity)
    }

    /// Whether processes can take turns at all.
    fn lock(&mut self, identity: &Identity, directory: Option<&Path>) -> io::Result<()> {
        let Some(path) = directory.map(|directory| Place::new(directory, &identity.jid).path("lease")) else {
            return Ok(());
        };
        match create(&path) {
            Ok(_) => Ok(()),
            Err(error) => {
                self.ill(&format!("lease: {}: {error}", path.display()))?;
                self.advice("remove this file: processes cannot take turns")
            }
        }
    }

    /// What the server tells of itself: its clock, what it grants, and whom it has shown us.
    async fn standing(&mut self, visit: &Visit<'_>, jids: &[&BareJid]) -> io::Result<()> {
        let Visit { identity, prober } = visit;
        let begun = Instant::now();
        let standing = match prober.standing(identity.home(), begun + identity.timeout).await {
            Ok(standing) => standing,
            // Nobody's answer depends on it.
            Err(unasked) => return self.plain(&format!("clock and roster access: not told: {unasked}")),
        };
        let (took, now) = (begun.elapsed(), SystemTime::now());
        match standing.time_s {
            None => self.plain("clock: the server does not tell its time (XEP-0202)")?,
            Some(theirs) => {
                let ours = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let (is_well, line) = clock(ours, theirs);
                if is_well {
                    self.passed(&line, took)?;
                } else {
                    self.ill(&line)?;
                    self.advice("set the wrong one: certificates and passwords that end at some time depend on it")?;
                }
            }
        }
        self.rosters(identity, standing)?;
        if jids.is_empty() {
            self.plain(&seen(identity, standing.seen))?;
        }
        Ok(())
    }

    fn sample(&mut self, identity: &Identity, state: State, (asked, answered): (Instant, Instant)) -> io::Result<()> {
        let home = identity.home();
        match state.is_online() {
            true => self.passed(&format!("sample answer: {home} is there"), answered - asked),
            false => {
                self.ill(&format!("sample answer: {home} is {}", state.name()))?;
                self.advice("is it the domain of the users? The first plain name of domains in [access] is asked")
            }
        }
    }

    async fn person(&mut self, visit: &Visit<'_>, jid: &BareJid) -> io::Result<()> {
        let begun = Instant::now();
        let answer = visit.prober.ask(jid.clone(), begun + visit.identity.timeout).await;
        match shown(jid, visit.identity, answer) {
            Ok(line) => self.passed(&line, begun.elapsed()),
            Err(line) => self.ill(&line),
        }
    }
}

/// What lies behind.
fn told(mut steps: UnboundedReceiver<(Instant, Stage)>) -> Vec<(Instant, Stage)> {
    std::iter::from_fn(|| steps.try_recv().ok()).collect()
}

/// Somebody who is asked about by name is to be seen.
fn shown(jid: &BareJid, identity: &Identity, answer: Result<Answer, Unasked>) -> Result<String, String> {
    match answer {
        Err(unasked) => Err(format!("{jid}: unknown: {unasked}")),
        Ok(answer) if answer.presence.state == State::Forbidden => {
            Err(format!("{jid}: forbidden: {}", refusal(jid, identity, answer.why)))
        }
        Ok(answer) => Ok(format!("{jid}: {}{}", answer.presence.state.name(), quoted(&answer.presence.texts))),
    }
}

/// A new installation is not broken because nobody has accepted yet.
fn seen(identity: &Identity, people: usize) -> String {
    let us = &identity.jid;
    match people {
        0 => format!(
            "consent: {us} has seen nobody within a day; people are asked by webpresence subscribe JID, and looked for \
             by webpresence check JID"
        ),
        1 => format!("consent: {us} has seen 1 person within a day"),
        people => format!("consent: {us} has seen {people} people within a day"),
    }
}

/// Whether two clocks agree, both in seconds since 1970, and what to say of them.
fn clock(ours_s: u64, theirs_s: u64) -> (bool, String) {
    let difference = ours_s.abs_diff(theirs_s);
    let line = match difference {
        // Servers tell whole seconds.
        0 | 1 => "clock: this machine and the server agree".to_owned(),
        _ if ours_s > theirs_s => format!("clock: this machine is {difference} s ahead of the server"),
        _ => format!("clock: this machine is {difference} s behind the server"),
    };
    (difference < CLOCK_S, line)
}

/// As processes write there: a file of their own, with something in it.
fn write_there(directory: &Path) -> io::Result<()> {
    let path = directory.join(format!("check.{}", std::process::id()));
    let written = create(&path).and_then(|mut file| file.write_all(&DRAFT).and_then(|()| file.sync_all()));
    let removed = std::fs::remove_file(&path);
    written.and(removed)
}

/// What a person can do about a directory that cannot be used.
fn remedy(unusable: &Unusable) -> &'static str {
    match unusable {
        // The web server's, as a rule, and it is only the command that the wrong user runs.
        Unusable::Because(_, Why::Foreign { .. }) => "run this command as that user, or set [cache] directory",
        Unusable::Because(_, Why::Writable { .. }) => "chmod 0700 it, or set [cache] directory",
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

    #[test]
    fn what_can_be_written_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        write_there(directory.path()).expect("it is ours");
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0);
        write_there(&directory.path().join("nowhere")).expect_err("there is no such directory");
    }

    #[test]
    fn clocks_agree_or_say_which_is_ahead() {
        for (ours, theirs, is_well, line) in [
            (1000, 1000, true, "clock: this machine and the server agree"),
            (1000, 1001, true, "clock: this machine and the server agree"),
            (1002, 1000, true, "clock: this machine is 2 s ahead of the server"),
            (1000, 1059, true, "clock: this machine is 59 s behind the server"),
            (1060, 1000, false, "clock: this machine is 60 s ahead of the server"),
            (0, u64::MAX, false, "clock: this machine is 18446744073709551615 s behind the server"),
        ] {
            assert_eq!(clock(ours, theirs), (is_well, line.to_owned()));
        }
    }
}
