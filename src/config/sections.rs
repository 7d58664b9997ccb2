//! Lines → sections with known keys. Everything that is wrong with names is found here: unknown, doubled or orphaned
//! sections, unknown or doubled keys. What the values mean is for `parse`.

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};

use super::keys::{KEYS, Key, Kind, Section};
use super::lines::{Line, lines};
use super::patterns;
use super::problem::{Fault, Near, Report};
use super::values::is_language;

/// The longest name of an identity, in characters.
const NAME_CHARS: usize = 64;

/// One section of the file, or what stands for one that is not there.
pub(super) struct Block {
    pub section: Section,
    /// What follows the section's word: an identity's name, else empty.
    pub name: String,
    /// Of its header; `None` for a section that is not there.
    pub line: Option<usize>,
    entries: Vec<Entry>,
    seen: HashMap<(&'static str, String), usize>,
}

/// One key and its value as written.
pub(super) struct Entry {
    pub line: usize,
    pub key: &'static Key,
    /// What the admin has chosen of the left side: a language (lower case), a pattern, a group; else empty.
    pub own: String,
    pub value: String,
}

impl Block {
    fn absent(section: Section, name: &str) -> Block {
        Block { section, name: name.to_owned(), line: None, entries: Vec::new(), seen: HashMap::new() }
    }

    /// As between the brackets.
    pub fn header(&self) -> String {
        let space = if self.name.is_empty() { "" } else { " " };
        format!("{}{space}{}", self.section.name(), self.name)
    }

    pub fn entry(&self, key: &Key) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key.name == key.name)
    }

    /// True where at least one of these keys is written.
    pub fn names(&self, keys: &[&str]) -> bool {
        self.entries.iter().any(|entry| keys.contains(&entry.key.name))
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// All lines of a key whose left side is the admin's own, in their order.
    pub fn lines(&self, key: &'static Key) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.key.name == key.name)
    }

    fn insert(&mut self, line: usize, key: &str, value: String) -> Result<(), Fault> {
        let (key, own) = resolve(self.section, key)?;
        match self.seen.entry((key.name, own.to_lowercase())) {
            Occupied(first) => return Err(Fault::DoubledKey { first: *first.get() }),
            Vacant(place) => place.insert(line),
        };
        self.entries.push(Entry { line, key, own, value });
        Ok(())
    }
}

/// What the text holds.
pub(super) struct Sections {
    pub blocks: Vec<Block>,
    /// The first password in the text itself, even where it stands in a wrong place.
    pub password: Option<Spot>,
}

/// A place in the text.
pub(super) struct Spot {
    pub line: usize,
    pub section: String,
    pub key: &'static str,
}

impl Sections {
    /// The one section of this kind and name, or an empty one.
    pub fn take(&mut self, section: Section, name: &str) -> Block {
        let found = self.blocks.iter().position(|block| block.section == section && block.name == name);
        found.map_or_else(|| Block::absent(section, name), |i| self.blocks.swap_remove(i))
    }
}

/// Reads the whole text; what is wrong goes into the report.
pub(super) fn sections(text: &str, report: &mut Report) -> Sections {
    let mut read = Sections { blocks: Vec::new(), password: None };
    // The current header as written, and its block where the section is known.
    let mut current: Option<(String, Option<usize>)> = None;
    for (n, line) in lines(text) {
        let header = current.as_ref().map_or("", |(header, _)| header);
        match line {
            Err(fault) => report.add(Some(n), header, "", fault),
            Ok(Line::Section(header)) => {
                let block = open(&mut read.blocks, n, &header, report);
                current = Some((header, block));
            }
            Ok(Line::Pair(key, value)) => {
                if key == "password" && read.password.is_none() {
                    read.password = Some(Spot { line: n, section: header.to_owned(), key: "password" });
                }
                let inserted = match &current {
                    None => Err(Fault::BeforeFirstSection),
                    Some((_, None)) => Ok(()),
                    Some((_, Some(block))) => read.blocks[*block].insert(n, &key, value),
                };
                if let Err(fault) = inserted {
                    report.add(Some(n), header, &key, fault);
                }
            }
        }
    }
    read
}

/// The block that the lines below this header belong to.
fn open(blocks: &mut Vec<Block>, line: usize, header: &str, report: &mut Report) -> Option<usize> {
    let (word, name) = header.split_once(char::is_whitespace).unwrap_or((header, ""));
    let name = name.trim_start();
    let known = Section::ALL.into_iter().find(|section| section.name() == word);
    let Some(section) = known.filter(|section| name.is_empty() || section.is_per_identity()) else {
        let near = nearest(word, Section::ALL.map(Section::name));
        report.add(Some(line), header, "", Fault::UnknownSection { near });
        return None;
    };
    if !name.is_empty() && !is_identity_name(name) {
        report.add(Some(line), header, "", Fault::SectionName);
    }
    if let Some(i) = blocks.iter().position(|block| block.section == section && block.name == name) {
        let first = blocks[i].line.unwrap_or(line);
        report.add(Some(line), header, "", Fault::DoubledSection { first });
        return Some(i);
    }
    blocks.push(Block { line: Some(line), ..Block::absent(section, name) });
    Some(blocks.len() - 1)
}

/// Names become parts of file names, so they hold nothing that means something there.
fn is_identity_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    name.len() <= NAME_CHARS && name.chars().all(plain) && !name.starts_with('.') && !name.ends_with('.')
}

/// The row of a key, and what of it is the admin's own: its language in lower case, or all of it.
fn resolve(section: Section, written: &str) -> Result<(&'static Key, String), Fault> {
    let row = |name: &str| section.keys().find(|key| key.name == name && key.left().is_none());
    if let Some(key) = row(written) {
        return Ok((key, String::new()));
    }
    if let Some((name, language)) = written.split_once('.')
        && let Some(key) = row(name).filter(|key| key.takes_language())
    {
        return if is_language(language) { Ok((key, language.to_ascii_lowercase())) } else { Err(Fault::Language) };
    }
    if let Some(key) = own_line(section, written)? {
        return Ok((key, written.to_owned()));
    }
    let named = |key: &&Key| key.left().is_none();
    let elsewhere =
        KEYS.iter().filter(named).find(|key| key.name == written).map(|key| Near::Section(key.section.name()));
    let near = || nearest(written, section.keys().filter(named).map(|key| key.name)).map(Near::Key);
    let known = section.keys().map(Key::allowed_left).collect();
    Err(Fault::UnknownKey { near: elsewhere.or_else(near).unwrap_or(Near::Nothing), known })
}

/// The row of a line whose left side is the admin's own. What has none of the characters of a pattern is a mistyped key.
fn own_line(section: Section, written: &str) -> Result<Option<&'static Key>, Fault> {
    let is_group = written.starts_with('@');
    let mut rows = section.keys().filter(|key| key.left().is_some());
    let Some(key) = rows.find(|key| is_group == (key.kind == Kind::Members)) else { return Ok(None) };
    if !written.contains(['@', '*', '.']) {
        return Ok(None);
    }
    let (right, why) = match key.kind {
        Kind::Members => (written.len() > 1 && is_identity_name(&written[1..]), "is not the name of a group"),
        Kind::Viewers => (patterns::people(written).is_ok(), "is not a pattern of people"),
        _ => (patterns::pattern(written).is_ok(), "is not a pattern"),
    };
    let allowed = || section.keys().map(Key::allowed_left).collect::<Vec<_>>().join(", ");
    if right { Ok(Some(key)) } else { Err(Fault::Value { why, allowed: allowed() }) }
}

/// The known name that a typing mistake may have stood for: at most a third of its letters differ.
fn nearest(written: &str, known: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    let written: Vec<char> = written.chars().take(NAME_CHARS).map(|c| c.to_ascii_lowercase()).collect();
    let distances = known.into_iter().map(|name| (distance(&written, name), name));
    let (distance, name) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= (name.len() / 3).max(1)).then_some(name)
}

/// How many letters must be added, left out, replaced or exchanged with their neighbour (optimal string alignment).
fn distance(a: &[char], b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_finds_its_nearest() {
        let names = ["timeout", "ttl", "redirect_hosts", "jid"];
        let table = [
            ("timout", Some("timeout")),
            ("TIMEOUT", Some("timeout")),
            ("tiemout", Some("timeout")),
            ("redirecthosts", Some("redirect_hosts")),
            ("redirect-hosts", Some("redirect_hosts")),
            ("tl", Some("ttl")),
            ("jdi", Some("jid")),
            ("ijd2", None),
            ("", None),
            ("colour", None),
        ];
        for (written, expected) in table {
            assert_eq!(nearest(written, names), expected, "{written}");
        }
    }
}
