//! Text → `Config`, or everything that is wrong with it. Pure: files that the text names are written down as claims,
//! which the loader checks. Names are checked by `sections`, values by `reader`, the identities by `identity`.

use std::path::Path;
use std::time::Duration;

use log::LevelFilter;

use super::keys::{Key, Section, key};
use super::problem::{Errors, Fault, Report};
#[cfg(not(feature = "redis"))]
use super::reader::Given;
use super::reader::{Claim, Claimed, Reader, check};
#[cfg(feature = "redis")]
use super::redis::{self, RedisAddress};
use super::sections::{Block, Spot, sections};
use super::values;
use super::{CacheSettings, Config, ImageSettings, Limits, LogSettings, WebSettings, Words};
use crate::presence::State;

pub(super) const TEMPORARY: &str = "is in a folder for temporary files, where anybody may write";
pub(super) const OWN_FOLDER: &str = "a directory of its own outside /tmp, /var/tmp and /dev/shm";

/// Reads a configuration without touching any file: whether the files it names are there is not asked, defaults that
/// depend on the machine stay `None`, and files with a password or a key are refused.
///
/// # Errors
/// All problems at once, in the order of the lines. `file` is what they call the text, and where relative paths start.
pub fn parse(text: &str, file: &Path) -> Result<Config, Errors> {
    let mut draft = draft(text, file);
    for claim in draft.claims.iter().filter(|claim| claim.what.is_secret()) {
        draft.report.add(claim.line, &claim.section, claim.key, Fault::NeedsFile);
    }
    draft.report.finish(draft.config)
}

/// A configuration whose files nobody has looked at yet.
pub(super) struct Draft {
    /// Complete but for passwords in files; sound only if the report is empty.
    pub config: Config,
    pub report: Report,
    pub claims: Vec<Claim>,
    /// The first password in the text itself.
    pub password: Option<Spot>,
}

pub(super) fn draft(text: &str, file: &Path) -> Draft {
    let mut report = Report::new(file);
    let mut read = sections(text, &mut report);
    let mut reader = Reader {
        report,
        claims: Vec::new(),
        #[cfg(feature = "redis")]
        password: None,
    };
    let block = read.take(Section::Cache, "");
    let cache = reader.cache(&block);
    #[cfg(feature = "redis")]
    let redis = reader.redis(&block);
    #[cfg(not(feature = "redis"))]
    reader.refuse_redis(&block);
    let identities = reader.identities(&mut read, &cache);
    let config = Config {
        file: file.to_owned(),
        identities,
        cache,
        #[cfg(feature = "redis")]
        redis,
        web: reader.web(&read.take(Section::Web, "")),
        images: reader.images(&read.take(Section::Images, "")),
        words: reader.words(&read.take(Section::Text, "")),
        limits: reader.limits(&read.take(Section::Limits, "")),
        log: reader.log(&read.take(Section::Log, "")),
    };
    #[cfg(feature = "redis")]
    let password = read.password.or(reader.password);
    #[cfg(not(feature = "redis"))]
    let password = read.password;
    Draft { config, report: reader.report, claims: reader.claims, password }
}

impl Reader {
    fn cache(&mut self, block: &Block) -> CacheSettings {
        const DIRECTORY: &Key = key(Section::Cache, "directory");
        let directory = self.path(block, DIRECTORY).ok().flatten();
        match &directory {
            Some(path) if values::is_temporary(path) => self.refuse(block, DIRECTORY, TEMPORARY, OWN_FOLDER),
            Some(path) => self.claim(block, DIRECTORY, path, Claimed::Cache),
            None => {}
        }
        let entries = self.number_or_default(block, const { key(Section::Cache, "entries") });
        CacheSettings {
            ttl: Duration::from_secs(self.number_or_default(block, const { key(Section::Cache, "ttl") })),
            refresh: Duration::from_secs(self.number_or_default(block, const { key(Section::Cache, "refresh") })),
            stale: Duration::from_secs(self.number_or_default(block, const { key(Section::Cache, "stale") })),
            entries: usize::try_from(entries).unwrap_or(usize::MAX),
            directory,
        }
    }

    /// Its password stands in this file, as that of an identity may.
    #[cfg(feature = "redis")]
    fn redis(&mut self, block: &Block) -> Option<RedisAddress> {
        const URL: &Key = key(Section::Cache, "url");
        let address = self.value(block, URL, redis::address).ok().flatten()?;
        if let (Some(_), Some(entry)) = (&address.password, block.entry(URL)) {
            self.password = Some(Spot { line: entry.line, section: block.header(), key: URL.name });
        }
        Some(address)
    }

    #[cfg(not(feature = "redis"))]
    fn refuse_redis(&mut self, block: &Block) {
        const WHY: &str = "is not in this build of webpresence, which has not the feature redis";
        let _: Given<()> = self.value(block, const { key(Section::Cache, "url") }, |_| Err(WHY));
    }

    fn web(&mut self, block: &Block) -> WebSettings {
        let mut number = |key| usize::try_from(self.number_or_default(block, key)).unwrap_or(usize::MAX);
        WebSettings {
            workers: number(const { key(Section::Web, "workers") }),
            connections: number(const { key(Section::Web, "connections") }),
        }
    }

    fn images(&mut self, block: &Block) -> ImageSettings {
        let hosts = self.value(block, const { key(Section::Images, "redirect_hosts") }, values::hosts);
        ImageSettings {
            directory: self.claimed_path(block, const { key(Section::Images, "directory") }, Claimed::Folder),
            theme: self.choice_or_default(block, const { key(Section::Images, "theme") }).to_owned(),
            redirect_hosts: hosts.ok().flatten().unwrap_or_default(),
        }
    }

    fn words(&mut self, block: &Block) -> Words {
        let mut overrides = Vec::new();
        for entry in block.entries() {
            let named = |state: &State| state.name() == entry.key.name;
            // The original calls this word `unavailable`; every other word has its state's name.
            let state = State::ALL.into_iter().find(named).unwrap_or(State::Offline);
            let key = match entry.own.as_str() {
                "" => entry.key.name.to_owned(),
                language => format!("{}.{language}", entry.key.name),
            };
            match check(&entry.value, &entry.key.kind, values::word) {
                Ok(word) => overrides.push((state, entry.own.clone(), word)),
                Err(fault) => self.report.add(Some(entry.line), &block.header(), &key, fault),
            }
        }
        Words { overrides }
    }

    fn limits(&mut self, block: &Block) -> Limits {
        let lookups = self.number_or_default(block, const { key(Section::Limits, "lookups") });
        let probes = self.number_or_default(block, const { key(Section::Limits, "probes_per_second") });
        Limits {
            lookups: usize::try_from(lookups).unwrap_or(usize::MAX),
            probes_per_second: u32::try_from(probes).unwrap_or(u32::MAX),
        }
    }

    fn log(&mut self, block: &Block) -> LogSettings {
        let level = self.choice_or_default(block, const { key(Section::Log, "level") });
        LogSettings {
            // The words of the table are those of `log`.
            level: level.parse().unwrap_or(LevelFilter::Warn),
            target: self.or_default(block, const { key(Section::Log, "target") }, values::log_target),
        }
    }
}
