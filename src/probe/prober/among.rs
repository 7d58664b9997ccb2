//! The holder of this machine's lease among the holders of other machines: he has a session of his own while theirs is
//! his, else he asks whoever has it, for himself and for the processes behind him. Where the hub is lost each machine
//! goes by itself: it opens a session for what is asked and closes it at once, so that all get their turn at a server
//! that takes one at a time.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, sleep_until};

use super::hold::{House, next};
use super::{Opening, Task, WATCH, late};
use crate::hub::Trouble;
use crate::probe::machines::{Chair, Envoy, Leave, Meeting, Tenure};
use crate::probe::notes::Notes;
use crate::probe::relay::{Caller, Relay};
use crate::probe::steps::Stage;
use crate::probe::{Failure, memory::Memory};

/// How often somebody who waits for another machine's answer looks whether it is still the holder.
const LOOK: Duration = Duration::from_millis(100);
/// How long this machine goes on asking another one without a question of its own.
const IDLE: Duration = Duration::from_secs(60);
/// How long, by itself, it takes new questions into one session.
const TURN: Duration = Duration::from_millis(500);

/// How soon other machines are told what people have told the holder, and how often he looks what they were told.
const AGREE: Duration = Duration::from_secs(1);
const AGREE_ANEW: Duration = Duration::from_secs(15);

/// How it ended.
enum Parting {
    /// Nobody asks any more.
    Done,
    /// Nobody answers any more, or cannot be heard.
    Gone,
}

impl Task {
    /// As [`sessions`](Task::sessions), of which no other machine has one at the same time.
    pub(super) async fn sessions_among_machines(&mut self, house: &mut House) -> Result<(), Failure> {
        let Some(meeting) = self.meeting.clone() else { return self.sessions(house).await };
        loop {
            let relay = house.relay.get_or_insert_with(Relay::without_socket);
            match meeting.chair(&relay.door).await {
                Ok(Chair::Ours(tenure)) => match self.reign(tenure, &meeting, house).await {
                    Some(outcome) => return outcome,
                    None => log::warn!("{}: another machine may hold the session now", self.identity.jid),
                },
                Ok(Chair::Theirs(envoy)) => {
                    meeting.agree(&mut meeting.notes(self.place.as_ref())).await;
                    if let Ok(Parting::Done) = self.visit_machine(envoy, house).await {
                        return Ok(());
                    }
                }
                Err(_) => return self.go_alone(house).await,
            }
            if !self.has_reason() {
                return Ok(());
            }
        }
    }

    /// While the lease is ours; nothing where it was lost.
    async fn reign(&mut self, mut tenure: Tenure, meeting: &Meeting, house: &mut House) -> Option<Result<(), Failure>> {
        house.is_haunted |= tenure.follows_a_death;
        let mut notes = meeting.notes(self.place.as_ref());
        // First: who was asked for consent is not to be probed, and who wants to be hidden not shown.
        meeting.agree(&mut notes).await;
        let outcome = tokio::select! {
            outcome = self.sessions(house) => Some(outcome),
            () = tenure.lost() => None,
            () = keep_agreeing(meeting, &mut notes) => None,
        };
        if notes.as_ref().is_some_and(Notes::may_differ) {
            meeting.agree(&mut notes).await;
        }
        if outcome.is_none() {
            // With the session went what it had learned since it was written down last.
            self.memory = Memory::new(self.place.clone(), self.us.clone());
            self.memory.recall_facts(&mut self.facts, Instant::now(), SystemTime::now());
            house.is_haunted = true;
        }
        let is_left = !house.is_haunted && outcome.is_some();
        tenure.release(if is_left { Leave::Taken } else { Leave::Untaken }).await;
        if house.is_sought {
            // Another machine may be the one that wants it.
            sleep(2 * LOOK).await;
        }
        outcome
    }

    /// Until nobody asks any more, or the holder ends.
    async fn visit_machine(&mut self, mut envoy: Envoy, house: &mut House) -> Result<Parting, Trouble> {
        let (mut idle_since, mut look) = (Instant::now(), Instant::now() + LOOK);
        loop {
            self.take_more(house);
            self.waiting.retain(|_, errand| !errand.is_forgotten());
            self.fail_late();
            let asked = envoy.asked;
            if self.waiting.keys().any(|id| *id > asked) {
                let fresh = self.waiting.iter().filter(|(id, _)| **id > asked).map(|(id, errand)| (*id, errand));
                if !envoy.ask(fresh, Instant::now()).await? {
                    return Ok(Parting::Gone);
                }
                envoy.asked = self.counter;
            }
            let now = Instant::now();
            let is_idle = self.waiting.is_empty();
            if !is_idle {
                idle_since = now;
            }
            let linger = self.manner.linger.map_or(IDLE, |linger| linger.min(IDLE));
            let is_over = !self.is_wanted || house.is_sought || !self.is_held_always() && idle_since + linger <= now;
            if is_idle && is_over {
                return Ok(Parting::Done);
            }
            if look <= now {
                if !envoy.is_he_there().await? {
                    return Ok(Parting::Gone);
                }
                look = now + if is_idle { WATCH } else { LOOK };
            }
            let until = self.waiting.values().map(late).min().unwrap_or(idle_since + linger.max(LOOK));
            let until = until.min(if is_idle { look.max(now + LOOK) } else { look.min(now + LOOK) });
            let room = self.may_take() && !house.is_sought;
            tokio::select! {
                (id, outcome) = envoy.told() => {
                    self.manner.steps.passed(Stage::Relayed);
                    if let Some(errand) = self.waiting.remove(&id) {
                        errand.answer(outcome);
                    }
                }
                errand = self.inbox.recv(), if room => self.arrived(errand),
                caller = next(&mut house.relay), if room => self.called(caller, house),
                () = sleep_until(until) => {}
            }
        }
    }

    /// Without the hub. Another machine may have a session at the same time: nothing follows from silence before the
    /// server has shown that it sends us all that is ours.
    async fn go_alone(&mut self, house: &mut House) -> Result<(), Failure> {
        self.take_more(house);
        if self.waiting.is_empty() {
            return Ok(());
        }
        house.is_haunted = true;
        let manner = (self.manner.linger, self.manner.opening);
        (self.manner.linger, self.manner.opening) = (Some(Duration::ZERO), Opening::Asked);
        let door = house.relay.as_ref().map(|relay| relay.door.clone());
        let ends = tokio::spawn(async move {
            sleep(TURN).await;
            if let Some(door) = door {
                let _ = door.send(Caller::Stranger).await;
            }
        });
        let outcome = self.sessions(house).await;
        ends.abort();
        (self.manner.linger, self.manner.opening) = manner;
        if outcome == Err(Failure::Conflict) {
            // That was no stranger's doing, and it ends when the hub is back.
            self.backoff.lasted();
        }
        outcome
    }
}

/// What people tell the holder, all machines know a moment later. It never ends by itself.
async fn keep_agreeing(meeting: &Meeting, notes: &mut Option<Notes>) {
    let mut agreed = Instant::now();
    loop {
        sleep(AGREE).await;
        if notes.as_ref().is_some_and(Notes::may_differ) || agreed + AGREE_ANEW <= Instant::now() {
            meeting.agree(notes).await;
            agreed = Instant::now();
        }
    }
}
