//! What people have told one machine about how they want to be shown, and who was asked for consent: small files where
//! the processes of that machine remember it, brought together with those of the others by way of the hub. Whatever has
//! changed here since all agreed last goes there; else what stands there holds. So nothing is lost that a machine has
//! heard while it was by itself, and nothing that the hub has forgotten.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use redis::cmd;
use serde::{Deserialize, Serialize};

use super::lease::{Place, create};
use crate::hub::{Hub, Trouble, eval, token};

/// The kinds of files that are shared: `choices` and `pending` write them.
const KINDS: [&str; 2] = ["choice", "asked"];
/// What stands for a file that is there, in front of what is in it; one that is gone is nothing at all.
const THERE: char = '+';
/// The longest file, and the longest name behind its kind (`file_name`).
const NOTE_BYTES: usize = 64;
const NAME_BYTES: usize = 96;
/// Which edition the others have agreed on: the one name that no file has.
const EDITION: &str = "";
const AGREED: &str = "agreed";

/// How often they are brought together anew where another machine was faster.
const ATTEMPTS: usize = 5;
/// How long the hub keeps what nobody adds to; each machine has its files still.
const LIFE_S: &str = "31536000";

/// Each note after the editions, the last one and a new one; unless that is no longer the last.
const TELL: &str = "if (redis.call('hget', KEYS[1], '') or '') ~= ARGV[1] then return 0 end
for note = 4, #ARGV, 2 do redis.call('hset', KEYS[1], ARGV[note], ARGV[note + 1]) end
redis.call('hset', KEYS[1], '', ARGV[2])
redis.call('expire', KEYS[1], ARGV[3])
return 1";

type Known = BTreeMap<String, String>;

/// See the module.
pub struct Notes {
    place: Place,
    key: String,
    seen: Option<SystemTime>,
}

/// What this machine and the hub had in common last.
#[derive(Default, Serialize, Deserialize)]
struct Agreed {
    edition: String,
    notes: Known,
}

/// What has to be done for all to know the same.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    here: Known,
    there: Known,
}

impl Notes {
    pub fn new(place: Place, key: String) -> Notes {
        Notes { place, key, seen: None }
    }

    /// Brings together what is known here and there.
    pub async fn agree(&mut self, hub: &Hub) -> Result<(), Trouble> {
        // Before they are read: what changes meanwhile is seen the next time.
        let seen = fs::metadata(&self.place.directory).and_then(|folder| folder.modified()).ok();
        let (known, agreed) = (self.known(), self.agreed());
        let edition = hub.ask_calmly(cmd("HGET").arg(&self.key).arg(EDITION)).await?;
        let edition: Option<String> = redis::from_redis_value(edition).map_err(|_| Trouble::Foreign)?;
        if edition.as_ref() != Some(&agreed.edition) || known != agreed.notes {
            let Some((edition, here)) = self.tell(hub, &known, &agreed.notes).await? else { return Ok(()) };
            let notes = self.take(known, here);
            self.keep(&Agreed { edition, notes });
        }
        self.seen = seen;
        Ok(())
    }

    /// Tells the others what has changed here; the edition that all have then, and what has changed there. Nothing where
    /// others are always faster.
    async fn tell(&self, hub: &Hub, known: &Known, agreed: &Known) -> Result<Option<(String, Known)>, Trouble> {
        for _ in 0..ATTEMPTS {
            let there = hub.ask_calmly(cmd("HGETALL").arg(&self.key)).await?;
            let told: Known = redis::from_redis_value(there).map_err(|_| Trouble::Foreign)?;
            let edition = told.get(EDITION).cloned().unwrap_or_default();
            let Changes { here, there } = changes(known, agreed, &told);
            if there.is_empty() && !edition.is_empty() {
                return Ok(Some((edition, here)));
            }
            let new = token();
            let head = [edition.as_bytes(), new.as_bytes(), LIFE_S.as_bytes()];
            let pairs = there.iter().flat_map(|(name, note)| [name.as_bytes(), note.as_bytes()]);
            let words: Vec<&[u8]> = head.into_iter().chain(pairs).collect();
            let is_told = hub.ask_calmly(&eval(TELL, &[&self.key], &words)).await?;
            if redis::from_redis_value::<u8>(is_told) == Ok(1) {
                return Ok(Some((new, here)));
            }
        }
        Ok(None)
    }

    /// Takes over what has changed there; what all have in common then, with what was `known` here. Whatever somebody has
    /// said here meanwhile stays, and is told the next time.
    fn take(&self, mut known: Known, here: Known) -> Known {
        let now = self.known();
        for (name, note) in here.into_iter().filter(|(name, _)| now.get(name) == known.get(name)).collect::<Known>() {
            match self.put(&name, &note) {
                Ok(()) if note.is_empty() => drop(known.remove(&name)),
                Ok(()) => drop(known.insert(name, note)),
                Err(error) => log::warn!("what another machine was told cannot be remembered: {name}: {error}"),
            }
        }
        known
    }

    /// Something here may have changed since all agreed.
    pub fn may_differ(&self) -> bool {
        let now = fs::metadata(&self.place.directory).and_then(|folder| folder.modified()).ok();
        self.seen.is_none() || now != self.seen
    }

    fn known(&self) -> Known {
        let prefixes = KINDS.map(|kind| format!("{}.", self.place.name(kind)));
        let mut known = Known::new();
        for entry in fs::read_dir(&self.place.directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            for (kind, prefix) in KINDS.iter().zip(&prefixes) {
                let Some(person) = name.strip_prefix(prefix.as_str()).filter(|person| !person.ends_with(".new")) else {
                    continue;
                };
                if let Ok(text) = fs::read_to_string(entry.path())
                    && text.len() <= NOTE_BYTES
                {
                    known.insert(format!("{kind}.{person}"), format!("{THERE}{text}"));
                }
            }
        }
        known
    }

    fn put(&self, name: &str, note: &str) -> io::Result<()> {
        let Some(path) = self.path(name) else { return Err(io::ErrorKind::InvalidInput.into()) };
        match note.strip_prefix(THERE) {
            Some(text) if text.len() > NOTE_BYTES => Err(io::ErrorKind::InvalidInput.into()),
            Some(text) => replace(&path, text),
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }

    /// Only names of files as we write them: others write into the hub, too.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let (kind, person) = name.split_once('.')?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "%.-_@~".contains(c);
        let is_ours = KINDS.contains(&kind) && person.len() <= NAME_BYTES && person.chars().all(is_plain);
        is_ours.then(|| self.place.path(name))
    }

    fn agreed(&self) -> Agreed {
        let read = fs::read_to_string(self.place.path(AGREED)).ok();
        read.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    fn keep(&self, agreed: &Agreed) {
        let text = serde_json::to_string(agreed).expect("strings");
        let path = self.place.path(AGREED);
        if let Err(error) = replace(&path, &text) {
            log::debug!("what machines have agreed on is not remembered: {}: {error}", path.display());
        }
    }
}

/// Whole or not at all.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut new = path.to_owned().into_os_string();
    new.push(".new");
    let mut file = create(Path::new(&new))?;
    file.set_len(0)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&new, path)
}

/// What is `known` here, what all had `agreed` on, and what is `there`.
fn changes(known: &Known, agreed: &Known, there: &Known) -> Changes {
    let mut changes = Changes::default();
    let names = known.keys().chain(agreed.keys()).chain(there.keys()).filter(|name| *name != EDITION);
    for name in names {
        let at = |notes: &Known| notes.get(name).cloned().unwrap_or_default();
        let (ours, theirs) = (at(known), at(there));
        if ours == theirs && there.contains_key(name) {
            continue;
        }
        // What the hub has never heard of, it has forgotten.
        if ours != at(agreed) || !there.contains_key(name) {
            changes.there.insert(name.clone(), ours);
        } else {
            changes.here.insert(name.clone(), theirs);
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use jid::BareJid;

    use super::*;
    use crate::presence::{Presence, State};

    fn notes(rows: &[(&str, &str)]) -> Known {
        rows.iter().map(|(name, note)| (name.to_string(), note.to_string())).collect()
    }

    #[test]
    fn what_has_changed_here_is_told_and_what_has_changed_there_is_taken() {
        let (off, on) = ("+off\n", "");
        // Here, agreed, there; what is done here, and there.
        let table = [
            ([None, None, None], [None, None]),
            ([Some(off), None, None], [None, Some(off)]),
            ([None, None, Some(off)], [Some(off), None]),
            ([Some(off), Some(off), Some(off)], [None, None]),
            ([Some(off), Some(off), Some(on)], [Some(on), None]),
            ([None, Some(off), Some(off)], [None, Some(on)]),
            ([Some(off), None, Some(on)], [None, Some(off)]),
            ([Some("+coarse\n"), Some(off), Some(on)], [None, Some("+coarse\n")]),
            // The hub has forgotten everything.
            ([Some(off), Some(off), None], [None, Some(off)]),
        ];
        let one = |note: Option<&str>| note.map(|note| notes(&[("choice.bob", note)])).unwrap_or_default();
        for ([known, agreed, there], [here, told]) in table {
            let expected = Changes { here: one(here), there: one(told) };
            let mut there = one(there);
            there.insert(EDITION.to_owned(), "7".to_owned());
            assert_eq!(changes(&one(known), &one(agreed), &there), expected, "{known:?} {agreed:?} {there:?}");
        }
    }

    #[test]
    fn only_files_of_ours_are_written() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let us = BareJid::new("p.example.com").expect("a bare JID");
        let notes = Notes::new(Place::new(directory.path(), &us), String::new());
        for name in [
            "choice.a/../../b",
            "choice",
            "lease.bob",
            "choice.a b",
            "",
            "facts",
            &format!("choice.{}", "x".repeat(97)),
        ] {
            assert!(notes.put(name, "+off\n").is_err(), "{name}");
        }
        assert_eq!(fs::read_dir(directory.path()).expect("ours").count(), 0);
        notes.put("choice.bob@example.com", "+off\n").expect("a file");
        notes.put("asked.bob@example.com", "+").expect("a file");
        let known = [("asked.bob@example.com", "+"), ("choice.bob@example.com", "+off\n")];
        assert_eq!(notes.known(), self::notes(&known));
        let choices = crate::probe::choices::Choices::new(Some(directory.path()));
        let choice = choices.of(&us, &BareJid::new("bob@example.com").expect("a bare JID"));
        assert_eq!(choice.of(Presence::bare(State::Away)), Presence::bare(State::Forbidden));
        notes.put("choice.bob@example.com", "").expect("a file");
        notes.put("choice.bob@example.com", "").expect("no file");
        assert_eq!(notes.known(), self::notes(&known[..1]));
    }
    /// Orders that were obeyed here while the hub was asked have not been told, whatever it says about them.
    #[test]
    fn what_is_said_here_meanwhile_stays_and_counts_as_untold() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let us = BareJid::new("p.example.com").expect("a bare JID");
        let notes = Notes::new(Place::new(directory.path(), &us), String::new());
        let before = [("choice.bob", "+coarse\n"), ("choice.dave", "+off\n"), ("choice.eve", "+off\n")];
        before.iter().for_each(|(name, note)| notes.put(name, note).expect("a file"));
        let known = notes.known();
        notes.put("choice.bob", "+off\n").expect("a file");
        notes.put("choice.carol", "+off\n").expect("a file");
        let long = format!("+{}", "x".repeat(NOTE_BYTES + 1));
        let here = [("choice.bob", ""), ("choice.dave", ""), ("choice.fred", "+off\n"), ("choice.greg", &long)];
        let agreed = notes.take(known, self::notes(&here));
        assert_eq!(
            agreed,
            self::notes(&[("choice.bob", "+coarse\n"), ("choice.eve", "+off\n"), ("choice.fred", "+off\n")])
        );
        let names = ["bob", "carol", "eve", "fred"].map(|name| format!("choice.{name}"));
        let files = self::notes(&names.each_ref().map(|name| (name.as_str(), "+off\n")));
        assert_eq!(notes.known(), files);
    }
}
