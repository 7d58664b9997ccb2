//! What need not be asked: what the watch knows is told from there, at most after a ping that shows that the server is
//! still there; who is asked about already is not asked about again; and what is more than the budget waits for its turn.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jid::BareJid;
use tokio::time::Instant;

use super::{Errands, QUESTION_BYTES, Topic, domain_of};
use crate::probe::budget::Budget;
use crate::probe::stanza::{Condition, Query};
use crate::probe::watch::Recollection;
use crate::probe::{Answer, Failure};

/// How long the answer to a ping is waited for before the question itself is put.
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
        let Some(domain) = self.inquiries.get(&id).map(|inquiry| domain_of(&inquiry.jid)) else { return };
        self.spare.waiting.insert(id, Wait::Knock(now + KNOCKING));
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

    /// Questions whose server has left a ping unanswered: they are put to it after all.
    fn in_vain(&mut self, now: Instant) -> Vec<u64> {
        let waiting = self.spare.waiting.iter();
        let over = waiting.filter(|(_, wait)| matches!(wait, Wait::Knock(until) if *until <= now)).map(|(id, _)| *id);
        let mut over: Vec<u64> = over.collect();
        over.sort_unstable();
        for id in &over {
            let Some(inquiry) = self.inquiries.get_mut(id) else { continue };
            inquiry.begin_again();
            let domain = domain_of(&inquiry.jid);
            self.sent.retain(|_, sent| !(sent.to == domain && matches!(sent.topic, Topic::Knock)));
            self.spare.forget(*id);
        }
        over
    }

    /// A question about the same person that is out already.
    pub(super) fn leader(&self, id: u64) -> Option<u64> {
        let inquiry = self.inquiries.get(&id)?;
        if self.is_pending(id, &inquiry.jid) {
            return None;
        }
        self.inquiries.iter().find(|(other, leader)| **other != id && leader.leads(inquiry)).map(|(other, _)| *other)
    }

    /// Takes part in what has come for the leader, and in what will.
    pub(super) fn follow(&mut self, id: u64, leader: u64) {
        self.spare.waiting.remove(&id);
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

    /// Whether this question can be paid; if not it is the first to be when the time comes.
    pub(super) fn pays(&mut self, id: u64, now: Instant) -> bool {
        let is_paid = self.spare.budget.as_mut().is_none_or(|budget| budget.pay(now));
        if !is_paid {
            self.spare.waiting.insert(id, Wait::Turn);
            self.fresh.push(id);
        } else if self.spare.waiting.remove(&id).is_some() {
            self.inquiries.entry(id).and_modify(|inquiry| inquiry.begin_again());
        }
        is_paid
    }
}
