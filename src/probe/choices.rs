//! How people want to be shown, as they told the identity themselves; it wins over the configuration. One small file for
//! each of them where processes share what they know, so that it outlasts every process and holds for all of them.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use jid::BareJid;

use super::guests::Order;
use super::lease::{create, file_name};
use crate::presence::{Presence, State, Texts};

const OFF: &str = "off";
const TEXT_OFF: &str = "text off";
const COARSE: &str = "coarse";
/// Bytes of a file of ours.
const LIMIT: u64 = 64;

/// What one person has asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    hidden: bool,
    without_text: bool,
    coarse: bool,
}

impl Choice {
    /// What the presence of this person is to others.
    pub fn of(self, presence: Presence) -> Presence {
        if self.hidden {
            return Presence::bare(State::Forbidden);
        }
        let mut presence = presence;
        if self.without_text {
            presence.texts = Texts::default();
        }
        if self.coarse { presence.coarse() } else { presence }
    }

    /// Who wants little told about him shows no face either.
    pub fn shows_picture(self) -> bool {
        !self.hidden && !self.coarse
    }

    fn and(self, order: Order) -> Choice {
        match order {
            Order::On => Choice::default(),
            Order::Off => Choice { hidden: true, ..self },
            Order::TextOff => Choice { without_text: true, ..self },
            Order::Coarse => Choice { coarse: true, ..self },
            Order::Help => self,
        }
    }

    fn read(text: &str) -> Choice {
        let says = |word| text.lines().any(|line| line == word);
        Choice { hidden: says(OFF), without_text: says(TEXT_OFF), coarse: says(COARSE) }
    }

    fn write(self) -> String {
        let words = [(self.hidden, OFF), (self.without_text, TEXT_OFF), (self.coarse, COARSE)];
        words.into_iter().filter(|(said, _)| *said).map(|(_, word)| format!("{word}\n")).collect()
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Choices(Option<PathBuf>);

impl Choices {
    pub fn new(directory: Option<&Path>) -> Choices {
        Choices(directory.map(Path::to_owned))
    }

    /// What this person asked for. A choice that cannot be read may be any, so nothing is shown then.
    pub fn of(&self, identity: &BareJid, person: &BareJid) -> Choice {
        let Some(path) = self.file(identity, person) else { return Choice::default() };
        let mut text = String::new();
        let read = fs::File::open(&path).and_then(|file| file.take(LIMIT).read_to_string(&mut text));
        match read {
            Ok(_) => Choice::read(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Choice::default(),
            Err(error) => {
                log::warn!("what {person} has asked for cannot be read: {}: {error}", path.display());
                Choice { hidden: true, ..Choice::default() }
            }
        }
    }

    /// Takes an order. Fails where it cannot be remembered.
    pub fn take(&self, identity: &BareJid, person: &BareJid, order: Order) -> io::Result<()> {
        let path = self.file(identity, person).ok_or(io::ErrorKind::NotFound)?;
        let choice = self.of(identity, person).and(order);
        if choice == Choice::default() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        // Whole or not at all: a process may end at any moment.
        let mut new = path.clone().into_os_string();
        new.push(".new");
        let mut file = create(Path::new(&new))?;
        file.set_len(0)?;
        file.write_all(choice.write().as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)
    }

    fn file(&self, identity: &BareJid, person: &BareJid) -> Option<PathBuf> {
        let directory = self.0.as_ref()?;
        Some(directory.join(format!("{}.choice.{}", file_name(identity), file_name(person))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> BareJid {
        BareJid::new(text).expect("a bare JID")
    }

    fn away() -> Presence {
        let mut texts = Texts::default();
        texts.insert("", "Lunch");
        Presence { priority: 5, since: Some(7), ..Presence { texts, ..Presence::bare(State::Away) } }
    }

    #[test]
    fn orders_add_up_until_everything_is_shown_again() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (us, bob) = (jid("p.example.com"), jid("bob@example.com"));
        let without_text = Presence { texts: Texts::default(), ..away() };
        let coarse = Presence::bare(State::Available);
        for (order, shown) in [
            (Order::Help, away()),
            (Order::TextOff, without_text),
            (Order::Coarse, coarse.clone()),
            (Order::Help, coarse),
            (Order::Off, Presence::bare(State::Forbidden)),
            (Order::TextOff, Presence::bare(State::Forbidden)),
            (Order::On, away()),
            (Order::On, away()),
        ] {
            // Every process asks anew.
            Choices::new(Some(directory.path())).take(&us, &bob, order).expect("a writable directory");
            let choices = Choices::new(Some(directory.path()));
            assert_eq!(choices.of(&us, &bob).of(away()), shown, "{order:?}");
            let is_pictured = shown.state == State::Away;
            assert_eq!(choices.of(&us, &bob).shows_picture(), is_pictured, "{order:?}");
            assert_eq!(choices.of(&us, &jid("eve@example.com")), Choice::default());
            assert_eq!(choices.of(&jid("q.example.com"), &bob), Choice::default());
        }
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0, "nothing is left");
    }

    #[test]
    fn coarse_tells_only_whether_somebody_is_there() {
        let coarse = Choice { coarse: true, ..Choice::default() };
        for (state, told) in [(State::Dnd, State::Available), (State::Offline, State::Offline)] {
            assert_eq!(coarse.of(Presence { state, ..away() }), Presence::bare(told));
        }
    }

    #[test]
    fn an_order_that_cannot_be_remembered_is_not_taken() {
        let (us, bob) = (jid("p.example.com"), jid("bob@example.com"));
        assert!(Choices::default().take(&us, &bob, Order::Off).is_err());
        let choices = Choices::new(Some(Path::new("/proc/nowhere")));
        assert!(choices.take(&us, &bob, Order::Off).is_err());
    }

    #[test]
    fn a_choice_that_cannot_be_read_shows_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (us, bob) = (jid("p.example.com"), jid("bob@example.com"));
        let choices = Choices::new(Some(directory.path()));
        fs::create_dir(directory.path().join("p.example.com.choice.bob@example.com")).expect("writable");
        assert_eq!(choices.of(&us, &bob).of(away()), Presence::bare(State::Forbidden));
    }
}
