//! Keeps a cache up with what a session hears by itself: that of those who serve, and that of a command, which learns for
//! them.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jid::BareJid;
use log::Level;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::access;
use crate::cache::store::Store;
use crate::cache::{Cache, Renewal, wall_clock};
use crate::config::{Config, Identity};
use crate::probe::Event;
use crate::probe::guests::Order;
#[cfg(feature = "redis")]
use crate::probe::prober::Manner;
use crate::strangers::Strangers;

/// See the module.
pub struct Follower {
    pub cache: Arc<Cache>,
    pub strangers: Option<Arc<Mutex<Strangers>>>,
    pub identity: Identity,
    pub config: Config,
    /// Who is told after that.
    pub next: Option<UnboundedSender<Event>>,
}

impl Follower {
    /// Until the session's task ends.
    pub async fn follow(self, mut news: UnboundedReceiver<Event>) {
        while let Some(event) = news.recv().await {
            self.take(event.clone()).await;
            // Whoever wanted to know may have gone.
            self.next.as_ref().map(|next| next.send(event).ok());
        }
    }

    async fn take(&self, event: Event) {
        match event {
            Event::Changed(jid, _) | Event::Consented(jid) | Event::Order(jid, _) if !self.serves(&jid) => {}
            Event::Changed(jid, presence) => self.cache.update(&jid, presence).await,
            Event::Consented(jid) | Event::Order(jid, Order::On) => {
                self.cache.forget(&jid).await;
                self.pardon(&jid);
            }
            Event::Order(jid, Order::Off | Order::TextOff | Order::Coarse) => self.cache.forget(&jid).await,
            Event::Offer(_) | Event::Order(_, Order::Help) => {}
        }
    }

    /// Another identity may speak for somebody who tells us something, and have another consent of his.
    fn serves(&self, jid: &BareJid) -> bool {
        access::serving(&self.config, jid).is_some_and(|serving| serving.name == self.identity.name)
    }

    /// A visitor who may not see him anyway would learn from it that he is there.
    fn pardon(&self, jid: &BareJid) {
        let is_for_all =
            !access::needs_asker(&self.identity.access, jid) && !access::is_excluded(&self.identity.access, jid);
        if let Some(strangers) = self.strangers.as_ref().filter(|_| is_for_all) {
            strangers.lock().unwrap_or_else(PoisonError::into_inner).pardon(jid);
        }
    }
}

/// What a command learns, for those who serve.
pub struct Lesson {
    pub cache: Arc<Cache>,
    /// For the command's session, which knows what it hears by itself.
    pub news: UnboundedSender<Event>,
    /// It ends with the session.
    pub task: JoinHandle<()>,
}

impl Lesson {
    /// `next` is told what comes, too.
    pub fn of(
        config: &Config,
        identity: &Identity,
        directory: Option<&Path>,
        next: Option<UnboundedSender<Event>>,
    ) -> Lesson {
        let store = Store::open(directory, identity, &config.cache, Level::Error);
        #[cfg(feature = "redis")]
        let store = {
            let hub = Manner::default().among_machines(config, Level::Info).hub;
            store.beneath(hub, identity, &config.cache)
        };
        let cache = Arc::new(Cache::new(config.cache.clone(), Renewal::Never, wall_clock(), store));
        let (news, heard) = unbounded_channel();
        let (config, identity) = (config.clone(), identity.clone());
        let follower = Follower { cache: cache.clone(), strangers: None, identity, config, next };
        Lesson { cache, news, task: tokio::spawn(follower.follow(heard)) }
    }
}
