//! What a held session brings without a question: people who offer to be shown are let in and asked back, what they say
//! about how is remembered, and whoever keeps answers is told what has changed.

use std::time::{Duration, SystemTime};

use jid::BareJid;

use super::Task;
use crate::presence::State;
use crate::probe::guests::{CANNOT_REMEMBER, Order};
use crate::probe::session::Session;
use crate::probe::{Answer, Event, Why};

/// How long somebody who was asked for consent is not asked again.
pub(super) const PATIENCE_WITH_PEOPLE: Duration = Duration::from_secs(6 * 3600);

impl Task {
    /// Deals with what has happened since the last call. What is to be said about it goes out with the next write.
    pub(super) fn attend(&mut self, session: &mut Session) {
        for event in session.errands().events() {
            let event = match event {
                Event::Offer(jid) => {
                    self.welcome(session, &jid);
                    Event::Offer(jid)
                }
                Event::Order(jid, order) => {
                    let reply = self.obey(&jid, order);
                    session.errands().say(&jid, reply);
                    Event::Order(jid, order)
                }
                Event::Consented(jid) => {
                    self.pending.settle(&self.identity.jid, &jid);
                    Event::Consented(jid)
                }
                Event::Changed(jid, presence) => {
                    if presence.state == State::Forbidden {
                        self.pending.settle(&self.identity.jid, &jid);
                    }
                    let presence = self.choices.of(&self.identity.jid, &jid).of(presence);
                    Event::Changed(jid, presence)
                }
            };
            // Whoever wanted to know may have gone.
            self.manner.news.as_ref().map(|news| news.send(event).ok());
        }
    }

    fn welcome(&self, session: &mut Session, jid: &BareJid) {
        let us = &self.identity.jid;
        log::info!("{us}: {jid} offers to be shown");
        session.errands().welcome(jid);
        if !self.pending.was_asked_within(us, jid, PATIENCE_WITH_PEOPLE, SystemTime::now()) {
            // Before it is out: from then on nobody may be probed, even if this process is no more.
            self.pending.note(us, jid);
            session.errands().ask_back(jid);
        }
    }

    fn obey(&self, jid: &BareJid, order: Order) -> &'static str {
        if order == Order::Help {
            return order.reply();
        }
        match self.choices.take(&self.identity.jid, jid, order) {
            Ok(()) => order.reply(),
            Err(error) => {
                log::warn!("{}: what {jid} has asked for cannot be remembered: {error}", self.identity.jid);
                CANNOT_REMEMBER
            }
        }
    }

    /// What this person lets others know of an answer.
    pub(super) fn chosen(&self, jid: &BareJid, answer: Answer) -> Answer {
        let presence = self.choices.of(&self.identity.jid, jid).of(answer.presence.clone());
        if presence == answer.presence {
            return answer;
        }
        let why = if presence.state == State::Forbidden { Why::Chosen } else { answer.why };
        Answer { presence, why, resources: Vec::new(), ..answer }
    }
}
