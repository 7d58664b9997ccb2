//! One value of one section: found, checked against its row of the table, or reported with its line. The rules between
//! values are for `parse` and `identity`.

use std::path::{Path, PathBuf};

use super::keys::{Absent, Key, Kind};
use super::problem::{Fault, Report};
use super::sections::{Block, Entry};
use super::values;

/// Reads values and collects what is wrong with them.
pub(super) struct Reader {
    pub report: Report,
    pub claims: Vec<Claim>,
    /// One that is part of another value.
    #[cfg(feature = "redis")]
    pub password: Option<super::sections::Spot>,
}

/// What is wrong has been reported; there is no value to go on with.
pub(super) struct Reported;

/// A key's value: `Ok(None)` where the key is not there.
pub(super) type Given<T> = Result<Option<T>, Reported>;

/// A file or folder that the text names, and what it must be.
pub(super) struct Claim {
    pub line: Option<usize>,
    /// The header of the section, which is also how the identity is found that a password is for.
    pub section: String,
    pub key: &'static str,
    pub path: PathBuf,
    pub what: Claimed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claimed {
    Password,
    /// What signed links are signed with.
    SigningKey,
    OldSigningKey,
    PrivateKey,
    Readable,
    Folder,
    Cache,
}

impl Claimed {
    /// A file that holds a secret, which is fetched from it.
    pub fn is_secret(self) -> bool {
        matches!(self, Claimed::Password | Claimed::SigningKey | Claimed::OldSigningKey)
    }
}

impl Reader {
    pub fn number(&mut self, block: &Block, key: &'static Key) -> Given<u64> {
        self.value(block, key, number_within(key))
    }

    pub fn number_or_default(&mut self, block: &Block, key: &'static Key) -> u64 {
        self.or_default(block, key, number_within(key))
    }

    pub fn choice(&mut self, block: &Block, key: &'static Key) -> Given<&'static str> {
        self.value(block, key, word_among(key))
    }

    pub fn choice_or_default(&mut self, block: &Block, key: &'static Key) -> &'static str {
        self.or_default(block, key, word_among(key))
    }

    /// A path, which starts at the file's folder where it is relative.
    pub fn path(&mut self, block: &Block, key: &'static Key) -> Given<PathBuf> {
        let folder = self.report.file.parent().map(Path::to_owned).unwrap_or_default();
        self.value(block, key, |text| Ok(folder.join(text)))
    }

    /// A path, and the claim that this is there.
    pub fn claimed_path(&mut self, block: &Block, key: &'static Key, what: Claimed) -> Option<PathBuf> {
        let path = self.path(block, key).ok().flatten()?;
        self.claim(block, key, &path, what);
        Some(path)
    }

    pub fn claim(&mut self, block: &Block, key: &'static Key, path: &Path, what: Claimed) {
        let line = block.entry(key).map(|entry| entry.line).or(block.line);
        self.claims.push(Claim { line, section: block.header(), key: key.name, path: path.to_owned(), what });
    }

    /// The key's value, else the table's default.
    pub fn or_default<T>(
        &mut self,
        block: &Block,
        key: &'static Key,
        read: impl Fn(&str) -> Result<T, &'static str>,
    ) -> T {
        if let Ok(Some(value)) = self.value(block, key, &read) {
            return value;
        }
        let Absent::Value(default) = key.absent else {
            unreachable!("{} has a default in the table", key.name);
        };
        read(default).expect("a default of the table is an allowed value")
    }

    pub fn value<T>(
        &mut self,
        block: &Block,
        key: &'static Key,
        read: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Given<T> {
        let Some(entry) = block.entry(key) else {
            return Ok(None);
        };
        match check(&entry.value, &key.kind, read) {
            Ok(value) => Ok(Some(value)),
            Err(fault) => {
                self.problem(block, key, fault);
                Err(Reported)
            }
        }
    }

    pub fn refuse(&mut self, block: &Block, key: &Key, why: &'static str, allowed: &str) {
        self.problem(block, key, Fault::Value { why, allowed: allowed.to_owned() });
    }

    /// One of the lines whose left side is the admin's own.
    pub fn line<T>(
        &mut self,
        block: &Block,
        entry: &Entry,
        read: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Result<T, Reported> {
        check(&entry.value, &entry.key.kind, read).map_err(|fault| {
            self.report.add(Some(entry.line), &block.header(), &entry.own, fault);
            Reported
        })
    }

    /// Reports at the key's line; where it is not written, at its section's.
    pub fn problem(&mut self, block: &Block, key: &Key, fault: Fault) {
        let line = block.entry(key).map(|entry| entry.line).or(block.line);
        self.report.add(line, &block.header(), key.name, fault);
    }
}

pub(super) fn check<T>(text: &str, kind: &Kind, read: impl Fn(&str) -> Result<T, &'static str>) -> Result<T, Fault> {
    if text.is_empty() {
        return Err(Fault::Empty { allowed: kind.to_string() });
    }
    read(text).map_err(|why| Fault::Value { why, allowed: kind.to_string() })
}

fn number_within(key: &'static Key) -> impl Fn(&str) -> Result<u64, &'static str> {
    let Kind::Number { min, max, .. } = key.kind else {
        unreachable!("{} is a number in the table", key.name);
    };
    move |text| values::number(text, min, max)
}

fn word_among(key: &'static Key) -> impl Fn(&str) -> Result<&'static str, &'static str> {
    let Kind::Choice(words) = key.kind else {
        unreachable!("{} is a choice in the table", key.name);
    };
    move |text| values::choice(text, words)
}
