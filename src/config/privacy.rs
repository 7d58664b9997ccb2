//! `[privacy]` as the rest of the house sees it: how much of a presence is told, for all, and for those who differ.

use jid::BareJid;

use super::JidPattern;
use crate::presence::{Presence, Texts};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Privacy {
    pub all: Shown,
    /// What differs for whom; a later one wins.
    pub rules: Vec<(JidPattern, Changes)>,
}

/// How much of a presence is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    pub text: bool,
    pub priority: bool,
    /// Since when somebody is idle, as he is, or gone.
    pub since: bool,
    pub avatar: bool,
    /// Only whether somebody is there.
    pub coarse: bool,
}

impl Default for Shown {
    fn default() -> Shown {
        Shown { text: true, priority: true, since: false, avatar: true, coarse: false }
    }
}

/// What a rule changes; `None` leaves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub text: Option<bool>,
    pub priority: Option<bool>,
    pub since: Option<bool>,
    pub avatar: Option<bool>,
    pub coarse: Option<bool>,
}

impl Privacy {
    /// What is told of one person.
    pub fn of(&self, jid: &BareJid) -> Shown {
        let rules = self.rules.iter().filter(|(people, _)| people.holds(jid));
        rules.fold(self.all, |shown, (_, changes)| shown.changed(*changes))
    }
}

impl Shown {
    /// What is told of a presence.
    pub fn of(self, presence: Presence) -> Presence {
        let mut presence = if self.coarse { presence.coarse() } else { presence };
        if !self.text {
            presence.texts = Texts::default();
        }
        if !self.priority {
            presence.priority = 0;
        }
        presence.since = presence.since.filter(|_| self.since);
        presence
    }

    fn changed(self, changes: Changes) -> Shown {
        Shown {
            text: changes.text.unwrap_or(self.text),
            priority: changes.priority.unwrap_or(self.priority),
            since: changes.since.unwrap_or(self.since),
            avatar: changes.avatar.unwrap_or(self.avatar),
            coarse: changes.coarse.unwrap_or(self.coarse),
        }
    }
}
