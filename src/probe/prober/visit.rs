//! Asking the process that holds the session: every question goes to its socket, and what is still without an answer
//! when that process ends is asked again.

use tokio::time::{Instant, sleep_until};

use super::{Task, WATCH, late};
use crate::probe::relay::Guest;
use crate::probe::steps::Stage;

impl Task {
    /// Until the holder ends or nobody asks any more; true if it had an answer for us, or we had no question.
    pub(super) async fn visit(&mut self, mut guest: Guest) -> bool {
        if self.ask_all(&mut guest).is_err() {
            return false;
        }
        let mut in_vain = !self.waiting.is_empty();
        loop {
            self.fail_late();
            if !self.has_reason() {
                return true;
            }
            let until = self.waiting.values().map(late).min().unwrap_or_else(|| Instant::now() + WATCH);
            tokio::select! {
                told = guest.told() => match told {
                    Ok((id, outcome)) => {
                        in_vain = false;
                        self.manner.steps.passed(Stage::Relayed);
                        if let Some(errand) = self.waiting.remove(&id) {
                            errand.answer(outcome);
                        }
                    }
                    Err(error) => {
                        log::debug!("{}: the holder of the session is gone: {error}", self.identity.jid);
                        return !in_vain;
                    }
                },
                errand = self.inbox.recv(), if self.may_take() => {
                    self.arrived(errand);
                    while self.may_take() && let Ok(errand) = self.inbox.try_recv() {
                        self.take(errand);
                    }
                    if self.ask_all(&mut guest).is_err() {
                        return !in_vain;
                    }
                }
                () = sleep_until(until) => {}
            }
        }
    }

    /// Asks what this holder was not asked yet. Only one's own socket can fail here: too much was left unread.
    fn ask_all(&mut self, guest: &mut Guest) -> std::io::Result<()> {
        let (now, asked) = (Instant::now(), guest.asked);
        for (id, errand) in self.waiting.iter().filter(|(id, _)| **id > asked) {
            guest.ask(*id, errand, now)?;
        }
        guest.asked = self.counter;
        Ok(())
    }
}
