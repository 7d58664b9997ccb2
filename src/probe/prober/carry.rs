//! What a session carries: questions into it, those together that may go together, and answers out of it to those who
//! wait.

use std::time::{Duration, SystemTime};

use jid::BareJid;
use tokio::time::Instant;

use super::attend::PATIENCE_WITH_PEOPLE;
use super::{MARGIN, Task, before};
use crate::presence::State;
use crate::probe::avatar;
use crate::probe::errand::{Errand, Finding, Question, Roster, Unasked};
use crate::probe::session::Session;
use crate::probe::talk::Talk;
use crate::probe::{Answer, Consent, Failure, Why};

/// How long a question may wait for others to go with it, while answers are awaited anyway.
const COMPANY: Duration = Duration::from_millis(2);

impl Task {
    /// Until when what was not put yet waits for company: behind a question that was put just now more may follow, and
    /// nobody waits for one that goes alone.
    pub(super) fn together(&self, now: Instant) -> Option<Instant> {
        let until = self.written.map(|written| written + COMPANY).filter(|until| now < *until)?;
        let is_put = |errand: &Errand| errand.put_at.is_some();
        let (mut put, mut fresh) = (false, false);
        for errand in self.waiting.values() {
            if is_put(errand) { put = true } else { fresh = true }
        }
        (put && fresh).then_some(until)
    }

    /// Puts what this session has not been asked yet, in its order.
    pub(super) fn put_fresh(&mut self, session: &mut Session) {
        self.waiting.retain(|_, errand| errand.put_at.is_some() || !errand.is_forgotten());
        let (us, wall) = (&self.identity.jid, SystemTime::now());
        let (is_fresh, now) = (|errand: &&mut Errand| errand.put_at.is_none(), Instant::now());
        let mut fresh: Vec<_> = self.waiting.iter_mut().filter(|(_, errand)| is_fresh(errand)).collect();
        if fresh.is_empty() {
            return;
        }
        session.errands().collect(now);
        self.written = Some(now);
        fresh.sort_unstable_by_key(|(id, _)| **id);
        for (id, errand) in fresh {
            errand.put_at = Some(now);
            let until = before(errand.deadline);
            match errand.question.clone() {
                Question::Presence(jid, roster) | Question::Avatar(jid, roster) if self.pending.is_out(us, &jid) => {
                    session.ask_pending(*id, jid, roster, until);
                }
                Question::Watched(jid) if self.pending.is_out(us, &jid) => {
                    session.ask_pending(*id, jid, Roster::Unwanted, until);
                }
                Question::Watched(jid) if !self.choices.of(us, &jid).hides() => {
                    session.errands().ask_watched(*id, jid, until);
                }
                Question::Watched(jid) => session.ask(*id, jid, Roster::Unwanted, until),
                Question::Presence(jid, roster) | Question::Avatar(jid, roster) => {
                    session.ask(*id, jid, roster, until);
                }
                // His answer to the request that is out is the check.
                Question::Consent(jid) if self.pending.was_asked_within(us, &jid, PATIENCE_WITH_PEOPLE, wall) => {
                    session.ask_pending(*id, jid, Roster::Unwanted, until);
                }
                Question::Return(jid) => session.unsubscribe(*id, jid, until),
                Question::Standing(_) => session.errands().ask_standing(*id, until),
                Question::Consent(jid) => {
                    // Before it is out: from then on nobody may be probed, even if this process is no more.
                    errand.noted |= self.pending.note(us, &jid);
                    session.subscribe(*id, jid, until);
                }
            }
        }
    }

    /// Hands out what is ready; true if anything was.
    pub(super) fn deliver(&mut self, talk: &mut Talk<'_>, now: Instant) -> Result<bool, Failure> {
        let (mut is_unheard, mut any) = (false, false);
        for (id, answer) in talk.session.answers(now) {
            self.answered += usize::from(talk.logged_in);
            any = true;
            let Some(mut errand) = self.waiting.remove(&id) else { continue };
            // Our own server would have answered its ping: this connection may be dead, and the next question wants a
            // new one. Not if anything came in since, or if there was little time to answer.
            let unheard = |put_at: &Instant| talk.heard.is_none_or(|heard| heard < *put_at);
            let put_at = errand.put_at.filter(|put_at| unheard(put_at) && answer == Err(Failure::Silent));
            is_unheard |= put_at.is_some_and(|put_at| now - put_at + 2 * MARGIN >= self.identity.timeout);
            let is_his_word = |answer: &Answer| answer.presence.state != State::Forbidden || answer.why == Why::Refused;
            if answer.as_ref().is_ok_and(is_his_word) {
                self.pending.settle(&self.identity.jid, errand.question.jid());
            }
            let finding = match errand.question {
                Question::Presence(..) | Question::Watched(_) => {
                    answer.map(|answer| self.chosen(errand.question.jid(), answer)).map(Finding::Presence)
                }
                Question::Consent(_) | Question::Return(_) | Question::Standing(_) => {
                    answer.map(|answer| Finding::Consent(consent_by(&answer)))
                }
                Question::Avatar(ref jid, _) => match answer.map(|answer| self.chosen(jid, answer)) {
                    Ok(answer) if self.may_fetch_picture(jid, &answer) => {
                        talk.session.fetch_picture(id, jid.clone(), before(errand.deadline));
                        errand.seen = Some(answer);
                        self.waiting.insert(id, errand);
                        continue;
                    }
                    answer => answer.map(|answer| Finding::Avatar(answer, None)),
                },
            };
            errand.answer(finding.map_err(Unasked::now));
        }
        for (id, picture) in talk.session.pictures(now) {
            any = true;
            let Some(mut errand) = self.waiting.remove(&id) else { continue };
            if let Some(seen) = errand.seen.take() {
                errand.answer(Ok(Finding::Avatar(seen, picture)));
            }
        }
        for (id, consent) in talk.session.consents(now) {
            any = true;
            let Some(errand) = self.waiting.remove(&id) else { continue };
            match consent {
                Ok(Consent::Asked) | Err(Failure::Silent) => {}
                // An older request may be out still.
                Err(_) if !errand.noted => {}
                _ => self.pending.settle(&self.identity.jid, errand.question.jid()),
            }
            errand.answer(consent.map(Finding::Consent).map_err(Unasked::now));
        }
        for (id, standing) in talk.session.errands().standings(now) {
            if let Some(errand) = self.waiting.remove(&id) {
                errand.answer(Ok(Finding::Standing(standing)));
            }
        }
        let is_dead = is_unheard && talk.session.is_open() && talk.session.errands().is_dead_by_silence();
        if is_dead { Err(Failure::Silent) } else { Ok(any) }
    }

    fn may_fetch_picture(&self, jid: &BareJid, answer: &Answer) -> bool {
        avatar::is_allowed(answer) && self.choices.of(&self.identity.jid, jid).shows_picture()
    }
}

/// What an answer says about a request for consent that was out before.
fn consent_by(answer: &Answer) -> Consent {
    match (answer.presence.state, answer.why) {
        (State::Forbidden, Why::Refused) => Consent::Refused,
        (State::Forbidden, _) => Consent::StillAsked,
        _ => Consent::Given,
    }
}
