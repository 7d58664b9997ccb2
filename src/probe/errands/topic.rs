//! IQs of ours that are out: to whom each went and what its answer is for, until that comes or nobody wants it any more.

use jid::BareJid;

use crate::probe::avatar::{AVATAR_STANZA_LIMIT, Part};
use crate::probe::inquiry::Slot;
use crate::probe::stream::STANZA_LIMIT;

/// Bytes of a stanza while a roster is awaited. What is longer is passed over.
const ROSTER_STANZA_LIMIT: usize = 2 * 1024 * 1024;

/// An IQ of ours that is out.
pub struct Sent {
    pub to: BareJid,
    pub topic: Topic,
}

/// What its answer is for.
pub enum Topic {
    /// Part of these inquiries.
    Slot(Slot, Vec<u64>),
    /// Which software the domain runs.
    Version,
    /// The end of this request for consent.
    Request(u64),
    /// Which clients of our own account are connected.
    Items(u64),
    /// Who may see our own account.
    OwnRoster(u64),
    /// The end of the question about ourselves.
    Own(u64),
    /// An account's own contacts.
    Contacts,
    /// The time of our own server.
    Time(u64),
    /// Of a picture that is fetched.
    Picture(Part, u64),
    /// Whether the server of people who are watched is there.
    Knock,
}

impl Topic {
    /// Drops an inquiry that is over; true if nobody is left who wants the reply, or has to know it.
    pub fn forget(&mut self, id: u64) -> bool {
        match self {
            Topic::Slot(slot, ids) => {
                ids.retain(|other| *other != id);
                ids.is_empty() && *slot != Slot::Roster
            }
            Topic::Picture(_, other) => *other == id,
            Topic::Version | Topic::Request(_) | Topic::Time(_) | Topic::Knock => false,
            Topic::Items(_) | Topic::OwnRoster(_) | Topic::Own(_) | Topic::Contacts => false,
        }
    }

    pub fn is_roster(&self) -> bool {
        matches!(self, Topic::Contacts | Topic::OwnRoster(_) | Topic::Slot(Slot::Roster, _))
    }

    /// Nobody wants it any more.
    pub fn is_late_roster(&self) -> bool {
        matches!(self, Topic::Slot(Slot::Roster, ids) if ids.is_empty())
    }

    /// The most bytes of the answer that are kept.
    pub fn limit(&self) -> usize {
        match self {
            Topic::Picture(..) => AVATAR_STANZA_LIMIT,
            late if late.is_late_roster() => STANZA_LIMIT,
            Topic::Contacts | Topic::OwnRoster(_) | Topic::Slot(Slot::Roster, _) => ROSTER_STANZA_LIMIT,
            Topic::Slot(..) | Topic::Version | Topic::Time(_) => STANZA_LIMIT,
            Topic::Request(_) | Topic::Items(_) | Topic::Own(_) | Topic::Knock => STANZA_LIMIT,
        }
    }
}
