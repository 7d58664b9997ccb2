//! What is asked of an identity's session, and what became of it: by this process or, over the relay, by another one
//! of this machine. A further sort of question is a variant here, and an arm where the holder of the session puts it.

use std::fmt;
use std::time::Duration;

use jid::BareJid;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::standing::Standing;
use super::{Answer, Consent, Failure};
use crate::presence::Picture;

/// Whatever is asked can be asked again: a question may be put twice where a session ended under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    Presence(BareJid, Roster),
    /// That of somebody whom everybody may see, as whoever asks has it: what his server has told by itself will do. Of
    /// all others nobody may learn from the time that they are watched.
    Watched(BareJid),
    Consent(BareJid),
    /// Consent is given back.
    Return(BareJid),
    /// How we stand with our own server, which this is.
    Standing(BareJid),
    /// The presence, and the picture of a person who may be shown.
    Avatar(BareJid, Roster),
}

/// Whether an answer is to tell who may see the person by his roster. Whoever asks decides: processes that let different
/// people see him share one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Roster {
    Wanted,
    Unwanted,
}

/// What the question of the same name brought; to those about somebody's presence, that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    Presence(Answer),
    /// Of both sorts of questions about consent.
    Consent(Consent),
    Standing(Standing),
    /// Without a picture where there is none, none may be shown, or none came in time.
    Avatar(Answer, Option<Picture>),
}

/// Nothing was learned, and when it is worth asking again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unasked {
    pub failure: Failure,
    pub retry_after: Duration,
    pub attempt: Attempt,
}

/// Whose failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attempt {
    /// That of an attempt made for this question.
    Made,
    /// That of an earlier one; for its sake none was made.
    PutOff,
}

pub type Outcome = Result<Finding, Unasked>;

/// A question on its way.
pub struct Errand {
    pub question: Question,
    pub deadline: Instant,
    /// Nobody, where the session only wants to know whether it is alive.
    pub reply: Option<oneshot::Sender<Outcome>>,
    /// When the present session took it.
    pub put_at: Option<Instant>,
    /// What is known already while the picture is being fetched.
    pub seen: Option<Answer>,
    /// That this person was asked is remembered only because of this errand, and so far it may not be true.
    pub noted: bool,
}

impl Question {
    pub fn jid(&self) -> &BareJid {
        match self {
            Question::Presence(jid, _) | Question::Avatar(jid, _) => jid,
            Question::Watched(jid) | Question::Consent(jid) | Question::Return(jid) | Question::Standing(jid) => jid,
        }
    }
}

impl Unasked {
    pub fn now(failure: Failure) -> Unasked {
        Unasked { failure, retry_after: Duration::from_secs(1), attempt: Attempt::Made }
    }
}

impl fmt::Display for Unasked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attempt {
            Attempt::Made => write!(f, "{}", self.failure),
            Attempt::PutOff => {
                write!(f, "next attempt in {} s; last failure: {}", self.retry_after.as_secs(), self.failure)
            }
        }
    }
}

impl Errand {
    pub fn new(question: Question, deadline: Instant, reply: Option<oneshot::Sender<Outcome>>) -> Errand {
        Errand { question, deadline, reply, put_at: None, seen: None, noted: false }
    }

    /// Whoever asked waits no more.
    pub fn is_forgotten(&self) -> bool {
        self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    pub fn answer(self, outcome: Outcome) {
        let outcome = match (outcome, self.seen) {
            // The session broke while the picture was fetched; the presence had come.
            (Err(_), Some(seen)) => Ok(Finding::Avatar(seen, None)),
            (outcome, _) => outcome,
        };
        // Whoever asked may have gone; then nobody needs the answer.
        self.reply.map(|reply| reply.send(outcome).ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_can_be_told_to_another_process() {
        use crate::probe::login::LoginFault;
        use crate::probe::stream::Fault;
        let rows = [
            Failure::Unreachable { to: "a:1".into(), reason: "refused".into() },
            Failure::LoginRefused("not-authorized".into()),
            Failure::Login(LoginFault::NoMechanism),
            Failure::Stream(Fault::NotAStream),
            Failure::Unexpected("a resource"),
            Failure::Conflict,
            Failure::Silent,
        ];
        for failure in rows {
            let unasked = Unasked::now(failure.clone().portable());
            let text = serde_json::to_string(&unasked).expect("portable");
            let read: Unasked = serde_json::from_str(&text).expect("what was written");
            assert_eq!((read.to_string(), &read), (failure.to_string(), &unasked));
        }
    }

    /// A picture that cannot be had takes no presence with it.
    #[test]
    fn a_presence_that_came_outlives_the_fetching_of_the_picture() {
        let presence = crate::presence::Presence::bare(crate::presence::State::Away);
        let seen =
            Answer { presence, why: crate::probe::Why::Present, resources: Vec::new(), viewers: None, settled: true };
        let jid = BareJid::new("bob@example.com").expect("a bare JID");
        let failed = Err(Unasked::now(Failure::StreamEnded(String::new())));
        for (known, expected) in [(Some(seen.clone()), Ok(Finding::Avatar(seen, None))), (None, failed.clone())] {
            let (reply, mut answer) = oneshot::channel();
            let errand = Errand::new(Question::Avatar(jid.clone(), Roster::Unwanted), Instant::now(), Some(reply));
            Errand { seen: known, ..errand }.answer(failed.clone());
            assert_eq!(answer.try_recv(), Ok(expected));
        }
    }
}
