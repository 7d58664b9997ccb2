//! Our own requests about consent in one session: to be let in, and to give the consent back. Each is written with a
//! ping behind it, since a server that says nothing has done what it was asked; what became of it is decided here.

use jid::BareJid;
use tokio::time::Instant;

use super::inquiry::GRACE;
use super::{Consent, Failure};

/// What is asked of a person's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To see him.
    See,
    /// To see him no longer.
    Leave,
}

/// One request under way.
struct Request {
    id: u64,
    jid: BareJid,
    wish: Wish,
    until: Instant,
    given: bool,
    refused: bool,
    /// It cannot be delivered.
    lost: bool,
    pong: Option<Instant>,
}

/// See the module.
#[derive(Default)]
pub struct Requests(Vec<Request>);

impl Requests {
    pub fn put(&mut self, id: u64, jid: BareJid, wish: Wish, until: Instant) {
        self.0.push(Request { id, jid, wish, until, given: false, refused: false, lost: false, pong: None });
    }

    /// A request to see this person is out and not answered.
    pub fn is_out(&self, jid: &BareJid) -> bool {
        self.0.iter().any(|request| request.jid == *jid && request.wish == Wish::See && !request.given)
    }

    pub fn given(&mut self, jid: &BareJid) {
        self.about(jid).for_each(|request| request.given = true);
    }

    pub fn refused(&mut self, jid: &BareJid) {
        self.about(jid).for_each(|request| request.refused = true);
    }

    pub fn lost(&mut self, jid: &BareJid) {
        self.about(jid).for_each(|request| request.lost = true);
    }

    /// The ping behind a request came back.
    pub fn pong(&mut self, id: u64, unreachable: bool, now: Instant) {
        for request in self.0.iter_mut().filter(|request| request.id == id) {
            request.pong = Some(now);
            request.lost |= unreachable;
        }
    }

    /// When the next one may be settled.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.0.iter().map(|request| request.settles(now)).min()
    }

    /// What became of those that are settled.
    pub fn settled(&mut self, now: Instant) -> Vec<(u64, Result<Consent, Failure>)> {
        let settled = self.0.extract_if(.., |request| request.settles(now) <= now);
        settled.map(|request| (request.id, request.outcome())).collect()
    }

    fn about(&mut self, jid: &BareJid) -> impl Iterator<Item = &mut Request> {
        self.0.iter_mut().filter(move |request| request.jid == *jid)
    }
}

impl Request {
    /// When the outcome is known: an approval may follow the pong where the order is not kept.
    fn settles(&self, now: Instant) -> Instant {
        match self.pong {
            _ if self.given || self.refused || self.lost => now,
            Some(pong) if self.wish == Wish::Leave => pong.min(self.until),
            Some(pong) => (pong + GRACE).min(self.until),
            None => self.until,
        }
    }

    fn outcome(&self) -> Result<Consent, Failure> {
        match self.pong {
            _ if self.lost => Err(Failure::RemoteUnreachable),
            _ if self.wish == Wish::Leave && (self.refused || self.pong.is_some()) => Ok(Consent::Returned),
            _ if self.given => Ok(Consent::Given),
            _ if self.refused => Ok(Consent::Refused),
            Some(_) => Ok(Consent::Asked),
            None => Err(Failure::Silent),
        }
    }
}
