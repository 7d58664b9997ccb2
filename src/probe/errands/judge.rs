//! When the questions of a session are answered, what is learned from the answers, and what is to be put once more.

use tokio::time::Instant;

use super::{Echo, Errands, Topic, domain_of};
use crate::config::ServerKind;
use crate::presence::{Picture, State};
use crate::probe::inquiry::{Circumstances, Inquiry};
use crate::probe::own::Own;
use crate::probe::stanza::INITIAL_PRESENCE;
use crate::probe::{Answer, Consent, Failure, Why};
use crate::viewers::Viewers;

impl Errands {
    /// When the next answer may be ready without anything coming in.
    pub fn next_judgement(&self, now: Instant) -> Option<Instant> {
        let inquiries = self.inquiries.iter().map(|(id, inquiry)| match self.verdict(*id, inquiry, now) {
            Ok(_) => now,
            Err(later) => later,
        });
        let own = self.own.values().map(|own| own.verdict(&self.clients, self.rule, now).err().unwrap_or(now));
        let echo = self.echo.as_ref().and_then(Echo::next);
        let rest = [self.requests.next(now), self.times.next(now), self.avatars.next(now), echo, self.granting_until];
        inquiries.chain(own).chain(rest.into_iter().flatten()).chain(self.spare.next(now)).min()
    }

    /// The answer to a question, or when to judge it again. One that was not put is not judged before its time is over.
    fn verdict(&self, id: u64, inquiry: &Inquiry, now: Instant) -> Result<Result<Answer, Failure>, Instant> {
        match self.spare.failure(id) {
            Some(failure) if inquiry.is_overdue(now) => Ok(Err(failure)),
            Some(_) => Err(inquiry.until()),
            None => inquiry.verdict(self.circumstances(inquiry, now)),
        }
    }

    pub fn answers(&mut self, now: Instant) -> Vec<(u64, Result<Answer, Failure>)> {
        let judged = |(id, inquiry): (&u64, &Inquiry)| {
            let verdict = self.verdict(*id, inquiry, now);
            // With the next write the account appears, and asks again.
            let again = verdict == Ok(Err(Failure::NotHeeded)) && !self.appeared;
            let answer = verdict.ok().filter(|_| !again)?;
            let answer = answer.and_then(|answer| self.with_roster(inquiry, answer));
            Some((*id, answer.map_err(|failure| self.blamed(failure))))
        };
        let mut ready: Vec<_> = self.inquiries.iter().filter_map(judged).collect();
        for (id, answer) in &ready {
            let Some(inquiry) = self.inquiries.remove(id) else { continue };
            self.pending.remove(id);
            self.spare.forget(*id);
            self.sent.retain(|_, sent| !sent.topic.forget(*id));
            // A server that has not said in time what it is will be asked again.
            let domain = domain_of(&inquiry.jid);
            let is_last = self.inquiries.values().all(|other| other.jid.domain() != domain.domain());
            let in_vain = inquiry.is_overdue(now) || is_last && inquiry.is_given_up(now);
            self.sent.retain(|_, sent| !(in_vain && sent.to == domain && matches!(sent.topic, Topic::Version)));
            if inquiry.roster.is_awaited() {
                self.may_not_read_rosters(domain.as_str());
            }
            match answer {
                Ok(answer) if answer.presence.state == State::Forbidden => {
                    self.facts.forget_consent(&inquiry.jid);
                    self.watch.end(&inquiry.jid);
                }
                Ok(answer) if inquiry.shows_consent(self.circumstances(&inquiry, now)) => {
                    self.begin_watching(&inquiry, answer, now);
                }
                Err(Failure::RemoteUnreachable) => {
                    self.facts.learn_unreachable(inquiry.jid.domain().as_str(), now);
                }
                _ => {}
            }
        }
        ready.extend(self.spare.recalled().into_iter().map(|(id, answer)| (id, Ok(answer))));
        let verdict = |own: &Own| own.verdict(&self.clients, self.rule, now).ok();
        let own: Vec<_> = self.own.iter().filter_map(|(id, own)| Some((*id, verdict(own)?))).collect();
        for (id, answer) in own {
            self.own.remove(&id);
            ready.push((id, answer));
        }
        ready
    }

    fn begin_watching(&mut self, inquiry: &Inquiry, answer: &Answer, now: Instant) {
        if inquiry.proves_consent() {
            self.facts.learn_consent(&inquiry.jid, now);
        }
        let domain = inquiry.jid.domain().as_str();
        self.watch.begin(&inquiry.jid, answer, self.changes(domain), now);
        if inquiry.ping.is_result() {
            self.watch.answers(domain);
        }
    }

    /// Where rosters tell who may see whom, nothing else may decide it because this one did not come. Nobody sees him who
    /// has refused us, so that this is told all the same.
    fn with_roster(&self, inquiry: &Inquiry, answer: Answer) -> Result<Answer, Failure> {
        let is_granted = self.granted.contains(inquiry.jid.domain().as_str());
        match answer.why {
            _ if !is_granted || !inquiry.lacks_viewers() => Ok(answer),
            Why::Refused => Ok(Answer { viewers: Some(Viewers::default()), ..answer }),
            _ => Err(Failure::RosterLate),
        }
    }

    /// Nothing was asked because of another connection in our name: it is to blame, not the server.
    fn blamed(&self, failure: Failure) -> Failure {
        let is_shared = self.echo.as_ref().is_some_and(Echo::is_answered);
        if is_shared && failure == Failure::Silent { Failure::Conflict } else { failure }
    }

    pub fn consents(&mut self, now: Instant) -> Vec<(u64, Result<Consent, Failure>)> {
        self.requests.settled(now)
    }

    /// Our own server has left a ping unanswered and said nothing else: true if the connection is dead. COMPAT:
    /// ejabberd 24 with mod_privilege drops every IQ of a component. Whoever answers no ping in the next session either
    /// is such a server; a connection to it is left to TCP.
    pub fn is_dead_by_silence(&mut self) -> bool {
        !std::mem::replace(&mut self.facts.server_mut(self.home.as_str()).mute, true)
    }

    /// An IQ of ours came back from our own server.
    pub(super) fn home_spoke(&mut self) {
        if self.facts.server(self.home.as_str()).mute {
            self.facts.server_mut(self.home.as_str()).mute = false;
        }
    }

    /// The pictures that were fetched, or not.
    pub fn pictures(&mut self, now: Instant) -> Vec<(u64, Option<Picture>)> {
        let ready = self.avatars.ready(now);
        for (id, _) in &ready {
            self.sent.retain(|_, sent| !matches!(&sent.topic, Topic::Picture(_, other) if other == id));
        }
        ready
    }

    fn circumstances(&self, inquiry: &Inquiry, now: Instant) -> Circumstances {
        // A host's silence means the same on every server.
        let kind = if inquiry.is_person() { self.kind(inquiry.jid.domain().as_str()) } else { Some(ServerKind::Other) };
        // An account's own server passes its questions on, or does not: without knowing which, nothing is known.
        let home = self.kind(self.home.as_str());
        let kind = kind.filter(|_| self.spared.is_none() || home.is_some());
        // COMPAT: Openfire and jabberd2 leave the probes of an account that shows itself to nobody unanswered.
        let heeds = matches!(home, Some(ServerKind::Prosody | ServerKind::Ejabberd));
        let heeded = self.spared.is_none() || heeds || self.appeared;
        let listed = self.contacts.as_ref().map(|contacts| contacts.contains(&inquiry.jid));
        let consented = listed.unwrap_or_else(|| self.facts.consented(&inquiry.jid, now));
        Circumstances { kind, heeded, consented, rule: self.rule, now, epoch_s: self.clock.epoch_s(now) }
    }

    /// COMPAT: Openfire and jabberd2 ignore the probes of an account that shows itself to nobody. Once one is seen to,
    /// the account appears, here and in every later session, and the questions are put again.
    pub(super) fn appear_where_nobody_heeds(&mut self, now: Instant) {
        let unheeded = |(_, inquiry): &(&u64, &Inquiry)| {
            inquiry.verdict(self.circumstances(inquiry, now)) == Ok(Err(Failure::NotHeeded))
        };
        let unheeded: Vec<u64> = self.inquiries.iter().filter(unheeded).map(|(id, _)| *id).collect();
        if unheeded.is_empty() || self.appeared {
            return;
        }
        self.facts.server_mut(self.home.as_str()).wants_presence = true;
        self.collect(now);
        self.appear(INITIAL_PRESENCE);
        for id in unheeded {
            self.sent.retain(|_, sent| !sent.topic.forget(id));
            self.inquiries.entry(id).and_modify(Inquiry::begin_again);
            self.fresh.push(id);
        }
    }
}
