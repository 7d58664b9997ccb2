//! What can be wrong with a configuration, and how an admin is told: file, line, section, key, what is wrong and what
//! is allowed. No value of the file is ever repeated, since any of them may be a password in the wrong place.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// How many problems are told at once; the rest is counted.
const PROBLEMS: usize = 100;
/// How much of an unknown name is repeated.
const NAME_CHARS: usize = 80;

/// Everything that is wrong with one configuration, in the order of its lines. Prints one problem per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors {
    problems: Vec<Problem>,
    left_out: usize,
}

impl Errors {
    fn new(mut problems: Vec<Problem>) -> Errors {
        problems.sort_by_key(|problem| problem.line);
        let left_out = problems.len().saturating_sub(PROBLEMS);
        problems.truncate(PROBLEMS);
        Errors { problems, left_out }
    }

    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            let line_end = if i == 0 { "" } else { "\n" };
            write!(f, "{line_end}{problem}")?;
        }
        match self.left_out {
            0 => Ok(()),
            n => write!(f, "\nand {n} more"),
        }
    }
}

impl std::error::Error for Errors {}

/// Collects the problems of one file.
pub(super) struct Report {
    pub file: PathBuf,
    problems: Vec<Problem>,
}

impl Report {
    pub fn new(file: &Path) -> Report {
        Report { file: file.to_owned(), problems: Vec::new() }
    }

    pub fn add(&mut self, line: Option<usize>, section: &str, key: &str, fault: Fault) {
        let short = |name: &str| name.chars().take(NAME_CHARS).collect();
        let (section, key) = (short(section), short(key));
        self.problems.push(Problem { file: self.file.clone(), line, section, key, fault });
    }

    pub fn into_errors(self) -> Errors {
        Errors::new(self.problems)
    }

    /// The value, if there was no problem.
    pub fn finish<T>(self, value: T) -> Result<T, Errors> {
        if self.problems.is_empty() { Ok(value) } else { Err(self.into_errors()) }
    }
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: PathBuf,
    /// Counted from 1; `None` where it concerns the whole file.
    pub line: Option<usize>,
    /// As between the brackets; empty where it concerns none.
    pub section: String,
    /// Empty where it concerns none.
    pub key: String,
    pub fault: Fault,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.section.is_empty() {
            write!(f, " [{}]", self.section)?;
        }
        if !self.key.is_empty() {
            write!(f, " {}", self.key)?;
        }
        if !self.section.is_empty() || !self.key.is_empty() {
            f.write_str(":")?;
        }
        write!(f, " {}", self.fault)
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No configuration in any of the places where one may be, and what was met there.
    Nowhere(Vec<(PathBuf, io::ErrorKind)>),
    Unreadable(io::ErrorKind),
    NotAFile,
    NotADirectory,
    TooLarge {
        max_bytes: u64,
    },
    NotUtf8,
    /// It holds a password or a private key, and these mode bits let everybody read it.
    WorldReadable {
        mode: u32,
    },
    /// A file that should hold one password or key holds something else.
    NotASecret(&'static str),
    /// Files are not read here.
    NeedsFile,

    /// Neither section, nor key and value, nor comment.
    Syntax,
    ControlCharacter,
    BeforeFirstSection,
    UnknownSection {
        near: Option<&'static str>,
    },
    SectionName,
    DoubledSection {
        first: usize,
    },
    /// A section for an identity that is not there.
    NoSuchIdentity,
    NoIdentity,
    UnknownKey {
        near: Near,
        known: Vec<&'static str>,
    },
    Language,
    DoubledKey {
        first: usize,
    },

    Empty {
        allowed: String,
    },
    Missing {
        allowed: String,
    },
    Value {
        why: &'static str,
        allowed: String,
    },
    /// `linger` against `ttl` and `refresh`, in seconds.
    LingerTooShort {
        ttl: u64,
        refresh: u64,
    },
}

/// What an unknown key may have been meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Near {
    Nothing,
    /// A key of the same section with nearly this name.
    Key(&'static str),
    /// A key of this name in another section.
    Section(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Nowhere(looked) => {
                f.write_str("there is no configuration; looked for")?;
                looked.iter().enumerate().try_for_each(|(i, (path, met))| {
                    let comma = if i == 0 { "" } else { "," };
                    write!(f, "{comma} {}", path.display())?;
                    if *met == io::ErrorKind::NotFound { Ok(()) } else { write!(f, " ({met})") }
                })
            }
            Fault::Unreadable(io::ErrorKind::NotFound) => f.write_str("there is no such file"),
            Fault::Unreadable(kind) => write!(f, "cannot be read: {kind}"),
            Fault::NotAFile => f.write_str("is not a regular file"),
            Fault::NotADirectory => f.write_str("is not a directory"),
            Fault::TooLarge { max_bytes } => write!(f, "is too large; allowed: up to {max_bytes} bytes"),
            Fault::NotUtf8 => f.write_str("is not UTF-8"),
            Fault::WorldReadable { mode } => write!(
                f,
                "everybody may read the file with this secret (mode {mode:04o}); allowed: 0600, or 0640 with the \
                 group of the web server"
            ),
            Fault::NotASecret(why) => write!(f, "{why}; allowed: one line of text"),
            Fault::NeedsFile => f.write_str("is read only where the configuration is a file"),
            Fault::Syntax => f.write_str("not understood; allowed: [section], key = value, ; comment"),
            Fault::ControlCharacter => f.write_str("there is a control character in this line"),
            Fault::BeforeFirstSection => f.write_str("stands before the first [section]"),
            Fault::UnknownSection { near } => write!(f, "unknown section{}; allowed: {}", Meant(*near), sections()),
            Fault::SectionName => {
                f.write_str("the section's name is not allowed; allowed: up to 64 letters, digits, - _ and inner dots")
            }
            Fault::DoubledSection { first } => write!(f, "the section stands already on line {first}"),
            Fault::NoSuchIdentity => f.write_str("belongs to no identity: there is no [xmpp] of the same name"),
            Fault::NoIdentity => f.write_str("there is no section [xmpp] with the identity that asks"),
            Fault::UnknownKey { near, known } => {
                f.write_str("unknown key")?;
                match near {
                    Near::Nothing => Ok(()),
                    Near::Key(name) => write!(f, "{}", Meant(Some(name))),
                    Near::Section(name) => write!(f, ", it belongs to [{name}]"),
                }?;
                write!(f, "; allowed: {}", known.join(", "))
            }
            Fault::Language => f.write_str("no language tag after the dot; allowed: such as de or pt-BR (RFC 5646)"),
            Fault::DoubledKey { first } => write!(f, "the key stands already on line {first}"),
            Fault::Empty { allowed } => write!(f, "has no value; allowed: {allowed}"),
            Fault::Missing { allowed } => write!(f, "is missing; allowed: {allowed}"),
            Fault::Value { why, allowed } => write!(f, "{why}; allowed: {allowed}"),
            Fault::LingerTooShort { ttl, refresh } => write!(
                f,
                "is not longer than ttl + refresh of [cache] ({ttl} + {refresh} seconds); allowed: 0, or more than {}",
                ttl + refresh
            ),
        }
    }
}

/// Prints what was probably meant, or nothing.
struct Meant(Option<&'static str>);

impl fmt::Display for Meant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |name| write!(f, ", perhaps {name}"))
    }
}

fn sections() -> String {
    super::keys::Section::ALL.map(|section| section.name()).join(", ")
}
