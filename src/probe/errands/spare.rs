//! What need not be asked: what the watch knows is told from there, at most after a ping that shows that the server is
//! still there; who is asked about already is not asked about again; and what is more than the budget waits for its turn.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jid::BareJid;
use tokio::time::Instant;

use super::{Errands, QUESTION_BYTES, Topic, domain_of};
use crate::probe::budget::Budget;
use crate::probe::inquiry::Inquiry;
use crate::probe::stanza::{Condition, Query};
use crate::probe::watch::Recollection;
use crate::probe::{Answer, Failure};

/// How long the answer to a ping is waited for before the question itself is put; never longer than half of its time.
const KNOCKING: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub struct Spare {
    /// Questions to which the watch may give the answer.
    recallable: HashSet<u64>,
    /// Answers that it has given.
    recalled: Vec<(u64, Answer)>,
    /// Questions that are not put, or not yet.
    waiting: HashMap<u64, Wait>,
    budget: Option<Budget>,
}

/// What a question waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// For a pong, until then.
    Knock(Instant),
    Turn,
}

/// How a question is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// By itself.
    Own,
    /// It takes part in one that is put with it.
    With(u64),
    /// It takes part in one that is out.
    Behind(u64),
}

impl Spare {
    pub fn may_recall(&mut self, id: u64) {
        self.recallable.insert(id);
    }

    /// What the watch has answered since the last call.
    pub fn recalled(&mut self) -> Vec<(u64, Answer)> {
        std::mem::take(&mut self.recalled)
    }

    /// What becomes of a question that is not put when its time is over.
    pub fn failure(&self, id: u64) -> Option<Failure> {
        self.waiting.get(&id).map(|wait| match wait {
            Wait::Knock(_) => Failure::Silent,
            Wait::Turn => Failure::Crowded,
        })
    }

    /// When there is something to do, without anything coming in.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let turn = self.budget.map_or(now, |budget| budget.next(now));
        self.waiting.values().map(|wait| if let Wait::Knock(until) = wait { *until } else { turn }).min()
    }

    pub fn forget(&mut self, id: u64) {
        self.recallable.remove(&id);
        self.waiting.remove(&id);
    }
}

impl Errands {
    /// What the sessions of this identity may ask.
    pub fn allow(&mut self, budget: Budget) {
        self.spare.budget = Some(budget);
    }

    /// What is left of it.
    pub fn budget(&self) -> Option<Budget> {
        self.spare.budget
    }

    /// Those of these questions that are to be put now, if they can be paid.
    pub(super) fn not_to_be_spared(&mut self, mut fresh: Vec<u64>, now: Instant) -> Vec<u64> {
        fresh.extend(self.in_vain(now));
        let mut rest = Vec::new();
        for id in fresh {
            match self.recollection(id, now) {
                Recollection::Known(answer) => self.answer_from_memory(id, answer),
                Recollection::Silent => self.knock(id, now),
                Recollection::Nothing => rest.push(id),
            }
        }
        rest
    }

    fn recollection(&self, id: u64, now: Instant) -> Recollection {
        match self.inquiries.get(&id) {
            Some(inquiry) if self.spare.recallable.contains(&id) && !self.is_asked(&inquiry.jid) => {
                self.watch.recall(&inquiry.jid, now)
            }
            _ => Recollection::Nothing,
        }
    }

    fn answer_from_memory(&mut self, id: u64, answer: Answer) {
        self.inquiries.remove(&id);
        self.spare.forget(id);
        self.allowance = self.allowance.saturating_sub(QUESTION_BYTES);
        self.spare.recalled.push((id, answer));
    }

    /// One ping for all who are asked about there.
    fn knock(&mut self, id: u64, now: Instant) {
        let Some(inquiry) = self.inquiries.get(&id) else { return };
        let (domain, left) = (domain_of(&inquiry.jid), inquiry.until().saturating_duration_since(now));
        self.spare.waiting.insert(id, Wait::Knock(now + KNOCKING.min(left / 2)));
        let is_out = self.sent.values().any(|sent| sent.to == domain && matches!(sent.topic, Topic::Knock));
        if !is_out {
            self.send(domain, Query::Ping, Topic::Knock);
        }
    }

    /// Somebody answers there, or nobody will.
    pub(super) fn opened(&mut self, domain: &BareJid, outcome: Result<(), Condition>) {
        for id in self.knocking(domain) {
            self.spare.waiting.remove(&id);
            if outcome.is_err() {
                self.spare.recallable.remove(&id);
            }
            if let Some(inquiry) = self.inquiries.get_mut(&id) {
                inquiry.begin_again();
                self.fresh.push(id);
            }
        }
    }

    /// Who waits for a pong of this server, in the order of the questions.
    fn knocking(&self, domain: &BareJid) -> Vec<u64> {
        let is_there = |id: &u64| self.inquiries.get(id).is_some_and(|inquiry| inquiry.jid.domain() == domain.domain());
        let waiting = self.spare.waiting.iter().filter(|(_, wait)| matches!(wait, Wait::Knock(_)));
        let mut ids: Vec<u64> = waiting.map(|(id, _)| *id).filter(is_there).collect();
        ids.sort_unstable();
        ids
    }

    /// Questions whose server has left a ping unanswered: they are put to it after all. Those that came later with them,
    /// since there is one ping for all.
    fn in_vain(&mut self, now: Instant) -> Vec<u64> {
        let mut all = Vec::new();
        while let Some(domain) = self.unopened(now) {
            self.sent.retain(|_, sent| !(sent.to == domain && matches!(sent.topic, Topic::Knock)));
            for id in self.knocking(&domain) {
                self.inquiries.entry(id).and_modify(Inquiry::begin_again);
                self.spare.forget(id);
                all.push(id);
            }
        }
        all
    }

    /// A server whose pong somebody has waited for long enough.
    fn unopened(&self, now: Instant) -> Option<BareJid> {
        let is_over = |wait: &Wait| matches!(wait, Wait::Knock(until) if *until <= now);
        let mut over = self.spare.waiting.iter().filter(|(_, wait)| is_over(wait));
        over.find_map(|(id, _)| self.inquiries.get(id)).map(|inquiry| domain_of(&inquiry.jid))
    }

    /// Questions about somebody who has refused by himself have their answer, whatever they wait for: put anew, they might
    /// have none, and nobody else is told of it.
    pub(super) fn need_not_ask(&mut self, jid: &BareJid) {
        let is_answered = |inquiry: &Inquiry| inquiry.jid == *jid && inquiry.is_refused();
        let answered = |id: &u64| self.inquiries.get(id).is_some_and(is_answered);
        self.spare.waiting.retain(|id, _| !answered(id));
        self.fresh.retain(|id| !answered(id));
    }

    /// How each of these questions is put, in their order; those that cannot be paid are the first to be when the time
    /// comes. There may be a thousand of those, every few milliseconds.
    pub(super) fn turns(&mut self, batch: Vec<u64>, now: Instant) -> Vec<(u64, Turn)> {
        let out = self.inquiries.iter().filter(|(_, inquiry)| inquiry.is_out());
        let mut leaders: HashMap<_, _> = out.map(|(id, inquiry)| (inquiry.subject(), Turn::Behind(*id))).collect();
        let (mut turns, mut unpaid) = (Vec::new(), Vec::new());
        for id in batch {
            let Some(inquiry) = self.inquiries.get(&id) else { continue };
            let is_pending = self.is_pending(id, &inquiry.jid);
            let leader = leaders.get(&inquiry.subject()).copied().filter(|_| !is_pending);
            let may_pay = leader.is_some() || self.spare.budget.as_mut().is_none_or(|budget| budget.pay(now));
            match leader {
                Some(turn) => turns.push((id, turn)),
                None if !may_pay => unpaid.push(id),
                None => {
                    if !is_pending {
                        leaders.insert(inquiry.subject(), Turn::With(id));
                    }
                    turns.push((id, Turn::Own));
                }
            }
        }
        for (id, _) in &turns {
            if self.spare.waiting.remove(id).is_some() {
                self.inquiries.entry(*id).and_modify(Inquiry::begin_again);
            }
        }
        self.spare.waiting.extend(unpaid.iter().map(|id| (*id, Wait::Turn)));
        self.fresh.extend(unpaid);
        turns
    }

    /// Takes part in what has come for the leader, and in what will.
    pub(super) fn follow(&mut self, id: u64, leader: u64) {
        if let Some(inquiry) = self.inquiries.get(&leader).cloned() {
            self.inquiries.entry(id).and_modify(|follower| follower.follow(&inquiry));
        }
        for sent in self.sent.values_mut() {
            if let Topic::Slot(_, ids) = &mut sent.topic
                && ids.contains(&leader)
            {
                ids.push(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{errands, jid, written};
    use super::*;
    use crate::presence::{Presence, State};
    use crate::probe::Why;
    use crate::probe::errand::Roster;
    use crate::probe::watch::Changes;

    /// Where an answer may take a second only, a server that is gone leaves time to be asked in earnest.
    #[test]
    fn a_ping_takes_half_of_the_time_at_the_most() {
        let seen = Instant::now();
        let mut errands = errands(seen);
        let presence = Presence { since: Some(7), ..Presence::bare(State::Offline) };
        let answer = Answer { presence, why: Why::LastActivity, resources: Vec::new(), viewers: None, settled: true };
        errands.watch.begin(&jid("bob@example.com"), &answer, Changes::Told, seen);
        errands.watch.answers("example.com");
        let now = seen + Duration::from_secs(60);
        for (time_ms, knocking_ms) in [(900, 450), (2000, 1000), (9000, 1000)] {
            let half = now + Duration::from_millis(knocking_ms);
            errands.ask_watched(time_ms, jid("bob@example.com"), now + Duration::from_millis(time_ms));
            let said = written(&mut errands, now);
            assert!(said.contains("urn:xmpp:ping") && !said.contains("probe"), "{said}");
            assert_eq!(errands.next_judgement(now), Some(half), "{time_ms} ms");
            assert!(written(&mut errands, half).contains("probe"), "{time_ms} ms");
            assert_eq!(errands.answers(now + Duration::from_secs(9)).len(), 1);
        }
    }

    /// Of the same person, of others, and of him again when somebody else is out: each is put once, in its order.
    #[test]
    fn who_asks_the_same_waits_for_one_answer() {
        let now = Instant::now();
        let mut errands = errands(now);
        errands.allow(Budget::new(1));
        let ask = |errands: &mut Errands, id: u64, name: &str, roster| {
            errands.ask(id, jid(&format!("{name}@example.com")), roster, now + Duration::from_secs(9));
        };
        for (id, name) in [(1, "a"), (2, "b"), (3, "a"), (4, "c"), (5, "d")] {
            ask(&mut errands, id, name, Roster::Unwanted);
        }
        ask(&mut errands, 6, "a", Roster::Wanted);
        ask(&mut errands, 7, "e", Roster::Unwanted);
        let turns = |errands: &mut Errands, now| {
            let fresh = std::mem::take(&mut errands.fresh);
            errands.turns(fresh, now)
        };
        let own = |id| (id, Turn::Own);
        assert_eq!(turns(&mut errands, now), [own(1), own(2), (3, Turn::With(1)), own(4), own(5), own(6)]);
        assert_eq!(errands.fresh, [7], "it cannot be paid");
        errands.inquiries.get_mut(&2).expect("it is put").put();
        for (id, name) in [(8, "e"), (9, "b")] {
            ask(&mut errands, id, name, Roster::Unwanted);
        }
        assert_eq!(turns(&mut errands, now), [(9, Turn::Behind(2))]);
        assert_eq!(errands.fresh, [7, 8]);
        assert_eq!(turns(&mut errands, now + Duration::from_secs(1)), [own(7), (8, Turn::With(7))]);
        assert_eq!((errands.fresh.len(), errands.spare.waiting.len()), (0, 0));
    }
}
