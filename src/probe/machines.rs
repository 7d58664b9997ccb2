//! Which machine holds the session of an identity, by a key in the hub that runs out unless it is renewed, and how the
//! others ask it there: questions go into a list of the holder's own, answers into a list of whoever asked. Nobody's
//! clock matters but the hub's, and each machine's for how long it has heard nothing. What is asked of a holder who is
//! no more is asked again, of the next one.

use std::time::Duration;

use redis::{Cmd, Value, cmd};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::errand::{Errand, Outcome, Question};
use super::lease::{Place, file_name};
use super::memory::Fingerprint;
use super::notes::Notes;
use super::relay::{Caller, FAREWELL, LONGEST, QUESTIONS, fit};
use crate::config::Identity;
use crate::hub::{Hub, Trouble, eval, token};

/// How long a machine has the lease without renewing it.
const LEASE: Duration = Duration::from_secs(3);
const RENEWAL: Duration = Duration::from_secs(1);
/// How soon a renewal that failed is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// So long before its end a lease counts as lost: time to close the session.
const SLACK: Duration = Duration::from_millis(300);
/// How long a list stays that nobody empties.
const LIST: Duration = Duration::from_secs(60);
/// How long it is remembered that the last holder took his leave.
const LEAVE: Duration = Duration::from_secs(24 * 3600);
/// How soon somebody who waits at a list tries again after an error.
const BREATH: Duration = Duration::from_millis(200);

/// The lease where nobody has it, and whether the holder before took his leave; else who has it.
const TAKE: &str = "local holder = redis.call('get', KEYS[1])
if holder then return {0, holder} end
redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2])
return {1, redis.call('del', KEYS[2])}";

/// A lease that has run out, or that the hub has forgotten, is nobody else's.
const RENEW: &str = "local holder = redis.call('get', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2])
return 1";

const RELEASE: &str = "if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('del', KEYS[1])
if ARGV[2] ~= '0' then redis.call('set', KEYS[2], '1', 'px', ARGV[2]) end
return 1";

/// Lines for a list, as long as the lease is his whose list it is.
const ASK: &str = "if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
for line = 3, #ARGV do redis.call('rpush', KEYS[2], ARGV[line]) end
redis.call('pexpire', KEYS[2], ARGV[2])
return 1";

const TELL: &str = "redis.call('rpush', KEYS[1], ARGV[2])
redis.call('pexpire', KEYS[1], ARGV[1])
return 1";

/// Where the machines of one identity meet.
#[derive(Clone)]
pub struct Meeting {
    hub: Hub,
    /// What all its keys begin with: they have one slot.
    prefix: String,
    by: String,
}

/// Whose turn it is.
pub enum Chair {
    Ours(Tenure),
    Theirs(Envoy),
}

/// The lease is this machine's until this is dropped.
pub struct Tenure {
    meeting: Meeting,
    token: String,
    /// It ends when the lease is lost.
    keeper: JoinHandle<()>,
    /// Who hears what other machines ask, until this end of the channel is gone.
    ear: JoinHandle<()>,
    hearing: Option<oneshot::Sender<()>>,
    /// For all we know, the server may still count a connection of the holder before.
    pub follows_a_death: bool,
}

/// How a holder ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    Taken,
    /// The server may not have noticed yet.
    Untaken,
}

/// The asking end.
pub struct Envoy {
    meeting: Meeting,
    holder: String,
    token: String,
    told: mpsc::Receiver<Told>,
    _ear: Ear,
    /// The last question that was put here, by its number.
    pub asked: u64,
}

/// A task that ends with whoever wants to hear what it hears.
struct Ear(AbortHandle);

impl Drop for Ear {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A question, as it is written.
#[derive(Serialize, Deserialize)]
struct Asked {
    id: u64,
    /// The [`Fingerprint`] of whoever asks.
    by: String,
    /// Whose list the answer goes into.
    token: String,
    /// What is left of its time.
    time_ms: u64,
    question: Question,
}

/// An answer, as it is written.
#[derive(Serialize, Deserialize)]
struct Told {
    id: u64,
    outcome: Outcome,
}

impl Meeting {
    pub fn new(hub: Hub, identity: &Identity) -> Meeting {
        let prefix = format!("webpresence:{{{}}}", file_name(&identity.jid));
        Meeting { hub, prefix, by: Fingerprint::among_machines(identity).text() }
    }

    /// Takes the lease, or finds out who has it. Questions of other machines go to `door`.
    pub async fn chair(&self, door: &mpsc::Sender<Caller>) -> Result<Chair, Trouble> {
        let (token, sent) = (token(), Instant::now());
        let keys = [&*self.key("lease"), &*self.key("left")];
        let taken = self.hub.ask_calmly(&eval(TAKE, &keys, &[token.as_bytes(), &ms(LEASE)])).await?;
        match redis::from_redis_value::<(u8, Value)>(taken) {
            Ok((1, left)) => {
                let keeper = tokio::spawn(keep(self.clone(), token.clone(), sent + LEASE, door.clone()));
                let (hearing, end) = oneshot::channel();
                let ear = tokio::spawn(receive(self.clone(), token.clone(), door.clone(), end));
                let (hearing, follows_a_death) = (Some(hearing), redis::from_redis_value(left) != Ok(1));
                Ok(Chair::Ours(Tenure { meeting: self.clone(), token, keeper, ear, hearing, follows_a_death }))
            }
            Ok((_, holder)) => {
                let holder = redis::from_redis_value(holder).map_err(|_| Trouble::Foreign)?;
                let (tell, told) = mpsc::channel(QUESTIONS);
                let ear = Ear(tokio::spawn(listen(self.clone(), token.clone(), tell)).abort_handle());
                Ok(Chair::Theirs(Envoy { meeting: self.clone(), holder, token, told, _ear: ear, asked: 0 }))
            }
            Err(_) => Err(Trouble::Foreign),
        }
    }

    /// What people have told the machines of this identity, as far as this one has a place for it.
    pub fn notes(&self, place: Option<&Place>) -> Option<Notes> {
        place.map(|place| Notes::new(place.clone(), self.key("notes")))
    }

    /// Brings together what all of them were told; where the hub does not answer, each goes by its own.
    pub async fn agree(&self, notes: &mut Option<Notes>) {
        if let Some(notes) = notes {
            let _ = notes.agree(&self.hub).await;
        }
    }

    fn key(&self, kind: &str) -> String {
        format!("{}:{kind}", self.prefix)
    }

    async fn is_done(&self, command: &Cmd) -> Result<bool, Trouble> {
        let done = self.hub.ask_calmly(command).await?;
        Ok(redis::from_redis_value::<u8>(done) == Ok(1))
    }
}

impl Tenure {
    /// Waits until it is another machine's, or may be.
    pub async fn lost(&mut self) {
        // A keeper that panicked keeps nothing.
        let _ = (&mut self.keeper).await;
    }

    /// Gives it back; answers that are ready still go out.
    pub async fn release(mut self, leave: Leave) {
        drop(self.hearing.take());
        if timeout(2 * FAREWELL, &mut self.ear).await.is_err() {
            log::info!("{}: not every machine has its answers", self.meeting.prefix);
        }
        self.keeper.abort();
        let (meeting, token) = (&self.meeting, &self.token);
        let remembered = if leave == Leave::Taken { ms(LEAVE) } else { b"0".to_vec() };
        let keys = [&*meeting.key("lease"), &*meeting.key("left")];
        // What cannot be given back runs out.
        let _ = meeting.is_done(&eval(RELEASE, &keys, &[token.as_bytes(), &remembered])).await;
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        self.keeper.abort();
        self.ear.abort();
    }
}

impl Envoy {
    /// False where the lease is no longer his.
    pub async fn ask(&self, errands: impl Iterator<Item = (u64, &Errand)>, now: Instant) -> Result<bool, Trouble> {
        let line = |(id, errand): (u64, &Errand)| {
            let time = errand.deadline.saturating_duration_since(now);
            let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            let (by, token, question) = (self.meeting.by.clone(), self.token.clone(), errand.question.clone());
            let asked = Asked { id, by, token, time_ms, question };
            serde_json::to_vec(&asked).expect("strings and numbers")
        };
        let lines: Vec<Vec<u8>> = errands.map(line).collect();
        let rest = ms(LIST);
        let arguments = [self.holder.as_bytes(), &rest].into_iter().chain(lines.iter().map(Vec::as_slice));
        let asked = self.meeting.key(&format!("asked:{}", self.holder));
        let keys = [&*self.meeting.key("lease"), &*asked];
        self.meeting.is_done(&eval(ASK, &keys, &arguments.collect::<Vec<_>>())).await
    }

    /// The next answer; it never ends by itself.
    pub async fn told(&mut self) -> (u64, Outcome) {
        match self.told.recv().await {
            Some(Told { id, outcome }) => (id, outcome),
            None => std::future::pending().await,
        }
    }

    /// Whether the lease is still his.
    pub async fn is_he_there(&self) -> Result<bool, Trouble> {
        let holder = self.meeting.hub.ask_calmly(cmd("GET").arg(self.meeting.key("lease"))).await?;
        Ok(redis::from_redis_value::<Option<Vec<u8>>>(holder) == Ok(Some(self.holder.as_bytes().to_vec())))
    }
}

/// Renews the lease until it is another machine's, or may be. While the hub does not answer, what is in hand is answered
/// and nothing new begun.
async fn keep(meeting: Meeting, token: String, mut until: Instant, door: mpsc::Sender<Caller>) {
    let lease = meeting.key("lease");
    let mut pause = RENEWAL;
    loop {
        let renewed = timeout_at(until - SLACK, async {
            sleep(pause).await;
            let sent = Instant::now();
            (sent, meeting.is_done(&eval(RENEW, &[&lease], &[token.as_bytes(), &ms(LEASE)])).await)
        });
        match renewed.await {
            Ok((sent, Ok(true))) => (until, pause) = (sent + LEASE, RENEWAL),
            Ok((_, Ok(false))) | Err(_) => return,
            Ok((_, Err(_))) => {
                // Where there is no room for it, as many questions are there already.
                let _ = door.try_send(Caller::Stranger);
                pause = AGAIN;
            }
        }
    }
}

/// The holder's end: what other machines ask, until `end`; then what is answered still goes out.
async fn receive(meeting: Meeting, token: String, door: mpsc::Sender<Caller>, end: oneshot::Receiver<()>) {
    let (mut open, list) = (JoinSet::new(), meeting.key(&format!("asked:{token}")));
    tokio::select! {
        () = hear_all(&meeting, &list, &door, &mut open) => {}
        _ = end => {}
    }
    let _ = timeout(FAREWELL, async { while open.join_next().await.is_some() {} }).await;
}

async fn hear_all(meeting: &Meeting, list: &str, door: &mpsc::Sender<Caller>, open: &mut JoinSet<()>) {
    loop {
        let Ok(listener) = meeting.hub.listener().await else {
            sleep(BREATH).await;
            continue;
        };
        while let Ok(line) = listener.next(list).await {
            while open.try_join_next().is_some() {}
            let Some(asked) = line.and_then(|line| serde_json::from_slice::<Asked>(&line).ok()) else { continue };
            let caller = if asked.by != meeting.by {
                Caller::Stranger
            } else if open.len() < QUESTIONS {
                put(asked, meeting, open)
            } else {
                continue;
            };
            if door.send(caller).await.is_err() {
                return;
            }
        }
        sleep(BREATH).await;
    }
}

fn put(asked: Asked, meeting: &Meeting, open: &mut JoinSet<()>) -> Caller {
    let (reply, outcome) = oneshot::channel();
    let Asked { id, token, time_ms, question, .. } = asked;
    let meeting = meeting.clone();
    open.spawn(async move {
        // Dropped without an answer: the lease goes round, and it is asked again.
        let Ok(outcome) = outcome.await else { return };
        let told = serde_json::to_vec(&Told { id, outcome: fit(outcome) }).expect("strings and numbers");
        let list = meeting.key(&format!("told:{token}"));
        // Whoever gets no answer asks again.
        let _ = meeting.hub.ask_calmly(&eval(TELL, &[&list], &[&ms(LIST), &told])).await;
    });
    let deadline = Instant::now() + Duration::from_millis(time_ms).min(LONGEST);
    Caller::Errand(Errand::new(question, deadline, Some(reply)))
}

/// The asking end: what the holder tells.
async fn listen(meeting: Meeting, token: String, tell: mpsc::Sender<Told>) {
    let list = meeting.key(&format!("told:{token}"));
    loop {
        let Ok(listener) = meeting.hub.listener().await else {
            sleep(BREATH).await;
            continue;
        };
        while let Ok(line) = listener.next(&list).await {
            let Some(told) = line.and_then(|line| serde_json::from_slice(&line).ok()) else { continue };
            if tell.send(told).await.is_err() {
                return;
            }
        }
        // Where it may not wait, or the server ends.
        sleep(BREATH).await;
    }
}

fn ms(time: Duration) -> Vec<u8> {
    time.as_millis().to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use log::Level;
    use tokio::net::TcpListener;

    use super::*;
    use crate::config;

    /// The session is to be closed before the lease ends, however slowly the hub does not answer.
    #[tokio::test]
    async fn a_lease_that_cannot_be_renewed_is_lost_before_it_ends() {
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = silent.local_addr().expect("a socket with an address").port();
        let text = format!("[xmpp]\njid = p.example.com\npassword = x\n[cache]\nurl = redis://127.0.0.1:{port}\n");
        let config = config::parse(&text, Path::new("F")).expect("a configuration");
        let hub = Hub::new(config.redis.expect("it is written"), Level::Debug);
        let meeting = Meeting::new(hub, &config.identities[0]);
        let (door, mut callers) = mpsc::channel(1);
        tokio::time::pause();
        let (begun, late) = (Instant::now(), Duration::from_millis(5));
        keep(meeting, "token".to_owned(), begun + LEASE, door).await;
        let took = begun.elapsed();
        assert!(took > RENEWAL && took <= LEASE - SLACK + late, "{took:?}");
        assert!(matches!(callers.try_recv(), Ok(Caller::Stranger)), "nothing new is taken meanwhile");
    }
}
