//! One configuration and everything that lives as long as it: the icons, the cache, and a prober for each identity.
//! A reload opens a new one beside the old, which goes when its last request is answered.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jid::BareJid;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::access;
use crate::cache::{Cache, Clock, Found, Renewal, Sight, Want, wall_clock};
use crate::config::{Config, Identity};
use crate::presence::{Presence, State};
use crate::probe::choices::Choices;
use crate::probe::guests::Order;
use crate::probe::prober::{Manner, Opening, Prober};
use crate::probe::{Answer, Event};
use crate::render::picture::Icons;
use crate::web;
use crate::web::request::Request;
use crate::web::response::Response;

/// How long this process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// A daemon of its own: it may hold a session without being asked.
    Resident,
    /// One of many that a web server starts and stops. Its session lingers, and serves the others.
    Pooled,
    /// CGI: one answer.
    Single,
}

/// See the module.
pub struct Site {
    config: Config,
    icons: Arc<Icons>,
    cache: Arc<Cache>,
    clock: Clock,
    choices: Choices,
    probers: Vec<(String, Prober)>,
}

/// The tasks of a site: they end by themselves once it is dropped.
pub struct Sessions(Vec<JoinHandle<()>>);

impl Site {
    /// `directory` is where processes take turns; within a tokio runtime.
    pub fn open(config: Config, icons: Icons, directory: Option<PathBuf>, life: Life) -> (Site, Sessions) {
        let renewal = if life == Life::Single { Renewal::Never } else { Renewal::Behind };
        let cache = Arc::new(Cache::new(config.cache.clone(), renewal, wall_clock()));
        let choices = Choices::new(directory.as_deref());
        let (mut probers, mut tasks) = (Vec::new(), Vec::new());
        for identity in &config.identities {
            let linger = if life == Life::Single { Some(Duration::ZERO) } else { identity.linger };
            let always = life == Life::Resident && linger.is_none();
            let opening = if always { Opening::Always } else { Opening::Asked };
            let (news, heard) = unbounded_channel();
            tokio::spawn(follow(heard, cache.clone(), identity.clone(), config.clone()));
            let news = Some(news);
            let manner = Manner { directory: directory.clone(), linger, opening, news, ..Manner::default() };
            let (prober, task) = Prober::spawn(identity.clone(), manner);
            probers.push((identity.name.clone(), prober));
            tasks.push(task);
        }
        (Site { config, icons: Arc::new(icons), cache, clock: wall_clock(), choices, probers }, Sessions(tasks))
    }

    /// The answer to one request.
    pub async fn answer(&self, request: &Request) -> Response {
        let find = async |identity: &Identity, jid, want, deadline| self.find(identity, jid, want, deadline).await;
        web::answer::answer(&self.config, &self.icons, request, (self.clock)() / 1000, find).await
    }

    async fn find(&self, identity: &Identity, jid: BareJid, want: Want, deadline: Instant) -> Found {
        let prober = self.probers.iter().find(|(name, _)| *name == identity.name).map(|(_, prober)| prober.clone());
        let is_hidden = want == Want::Picture && !self.may_be_pictured(identity, &jid);
        let want = if is_hidden { Want::Presence } else { want };
        let (asked, us) = (jid.clone(), identity.jid.clone());
        let identity = identity.clone();
        let lookup = |want| async move {
            let prober = prober.ok_or(Duration::from_secs(1))?;
            let seen = |(Answer { presence, .. }, picture)| Sight { presence: told(&identity, presence), picture };
            let answer = match want {
                Want::Presence => prober.ask(asked.clone(), deadline).await.map(|answer| (answer, None)),
                Want::Picture => prober.ask_with_picture(asked.clone(), deadline).await,
            };
            answer.map(seen).map_err(|unasked| {
                log::info!("{asked}: {unasked}");
                unasked.retry_after
            })
        };
        match self.cache.find(&jid, want, deadline, lookup).await {
            // Whatever was known before he said so, and whichever process heard him.
            Found::Known { presence, age, picture } => {
                Found::Known { presence: self.choices.of(&us, &jid).of(presence), age, picture }
            }
            nothing => nothing,
        }
    }

    /// What people say about themselves holds at once, whichever process has heard it and whatever this one remembers.
    fn may_be_pictured(&self, identity: &Identity, jid: &BareJid) -> bool {
        identity.privacy.of(jid).avatar && self.choices.of(&identity.jid, jid).shows_picture()
    }
}

/// Keeps the cache up with what a session hears by itself; it ends with the session's task.
async fn follow(mut news: UnboundedReceiver<Event>, cache: Arc<Cache>, identity: Identity, config: Config) {
    // Another identity may speak for somebody who tells us something, and have another consent of his.
    let is_ours = |jid: &BareJid| access::serving(&config, jid).is_some_and(|serving| serving.name == identity.name);
    while let Some(event) = news.recv().await {
        match event {
            Event::Changed(jid, _) | Event::Consented(jid) | Event::Order(jid, _) if !is_ours(&jid) => {}
            Event::Changed(jid, presence) => cache.update(&jid, told(&identity, presence)),
            Event::Order(jid, Order::Off) => cache.update(&jid, Presence::bare(State::Forbidden)),
            Event::Consented(jid) | Event::Order(jid, Order::On | Order::TextOff | Order::Coarse) => cache.forget(&jid),
            Event::Offer(_) | Event::Order(_, Order::Help) => {}
        }
    }
}

/// What the configuration lets others know.
fn told(identity: &Identity, presence: Presence) -> Presence {
    let since = presence.since.filter(|_| identity.privacy.all.since);
    Presence { since, ..presence }
}

impl Sessions {
    pub fn are_closed(&self) -> bool {
        self.0.iter().all(JoinHandle::is_finished)
    }

    /// Waits until every session is closed; their [`Site`] is to be dropped before.
    pub async fn closed(self) {
        for task in self.0 {
            if let Err(error) = task.await {
                log::error!("a session's task: {error}");
            }
        }
    }
}
