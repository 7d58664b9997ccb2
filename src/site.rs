//! One configuration and everything that lives as long as it: the icons, the cache, and a prober for each identity. Here
//! all that decides what one visitor learns about one person meets: what is known, what the person wants, and what was
//! refused before. A reload opens a new one beside the old, which goes when its last request is answered.

mod follower;
mod sieve;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jid::BareJid;
use log::Level;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::access;
use crate::cache::store::Store;
use crate::cache::{Cache, Clock, Found, Lookup, Renewal, Sight, Want, wall_clock};
use crate::config::{Access, CacheSettings, Config, Identity};
use crate::presence::{Presence, State};
use crate::probe::Answer;
use crate::probe::choices::Choices;
use crate::probe::prober::{Lookups, Manner, Opening, Prober, before};
use crate::render::picture::Icons;
use crate::strangers::Strangers;
use crate::strangers::ledger::Ledger;
use crate::strangers::rate::Rate;
use crate::turns::Turns;
use crate::web;
use crate::web::answer::Wanted;
use crate::web::request::Request;
use crate::web::response::Response;
use follower::Follower;
pub use follower::Lesson;
use sieve::Sieve;

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
    directory: Option<PathBuf>,
    /// How all its probers behave.
    shared: Manner,
    life: Life,
    clock: Clock,
    posts: Vec<Post>,
    sessions: Sessions,
    /// How loudly it is told what every request of a process of its own would tell again.
    complaint: Level,
}

/// What belongs to one identity.
struct Post {
    name: String,
    cache: Arc<Cache>,
    /// Made for the first question: where all answers are remembered nobody needs it.
    prober: Mutex<Option<Prober>>,
    strangers: Arc<Mutex<Strangers>>,
    rate: Turns<Rate>,
}

/// A refusal is told at a whole second after its lookup began, so that nobody learns from the time what it rests on.
const PACE: Duration = Duration::from_secs(1);
/// A lookup that ends so shortly before one has the next: what servers are waited for ends at whole seconds, too.
const LATE: Duration = Duration::from_millis(200);
/// What it takes to make an answer of it.
const MARGIN: Duration = Duration::from_millis(100);

/// The tasks of a site: they end by themselves once it is dropped.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Mutex<Vec<JoinHandle<()>>>>);

impl Site {
    /// `directory` is where processes take turns; within a tokio runtime.
    pub fn open(config: Config, icons: Icons, directory: Option<PathBuf>, life: Life) -> (Site, Sessions) {
        let complaint = if life == Life::Single { Level::Info } else { Level::Warn };
        let (lookups, limits) = (Lookups::new(config.limits), config.limits);
        let ttl = Some(config.cache.ttl);
        let shared = Manner { lookups, limits, ttl, ..Manner::default() }.among_machines(&config, complaint);
        let renewal = if life == Life::Single { Renewal::Never } else { Renewal::Behind };
        let post = |identity: &Identity| {
            let store = Store::open(directory.as_deref(), identity, &config.cache, complaint);
            #[cfg(feature = "redis")]
            let store = store.beneath(shared.hub.clone(), identity, &config.cache);
            Post {
                name: identity.name.clone(),
                cache: Arc::new(Cache::new(config.cache.clone(), renewal, wall_clock(), store)),
                prober: Mutex::default(),
                strangers: Arc::new(Mutex::new(strangers(&config.cache))),
                rate: Turns::new(rate(identity, directory.as_deref(), complaint)),
            }
        };
        let posts = config.identities.iter().map(post).collect();
        let sessions = Sessions::default();
        let site = Site {
            icons: Arc::new(icons),
            directory,
            shared,
            life,
            clock: wall_clock(),
            posts,
            sessions: sessions.clone(),
            complaint,
            config,
        };
        if life != Life::Single {
            site.posts
                .iter()
                .zip(&site.config.identities)
                .for_each(|(post, identity)| drop(site.prober(post, identity)));
        }
        (site, sessions)
    }

    /// The answer to one request.
    pub async fn answer(&self, request: &Request) -> Response {
        let find = async |identity: &Identity, wanted, deadline| self.find(identity, wanted, deadline).await;
        web::answer::answer(&self.config, &self.icons, request, (self.clock)() / 1000, find).await
    }

    /// Ends. What was found for the last answer is still being kept: its sessions are closed after that.
    pub fn close(self) {
        self.posts.iter().flat_map(|post| post.cache.tasks()).for_each(|task| self.sessions.add(task));
    }

    /// What one visitor may know. To be refused takes the same time and leaves the same traces whatever it rests on: from
    /// memory it comes only for those who were told before, and not at all for who asks for too many people.
    async fn find(&self, identity: &Identity, wanted: Wanted, deadline: Instant) -> Found {
        let Some(post) = self.posts.iter().find(|post| post.name == identity.name) else {
            return Found::Nothing { retry_after: PACE };
        };
        let (begun, Wanted { pair, client, .. }) = (Instant::now(), &wanted);
        if let Some(age) = post.strangers(|strangers| strangers.refused(pair, *client, begun)) {
            return Found::Known { sight: Sight::bare(Presence::bare(State::Forbidden)), age };
        }
        let sieve = Sieve::new(identity, pair);
        if wanted.want == Want::Presence
            && let Some((sight, age)) = post.cache.fresh(&pair.target).await
            && sieve.passes(&sight)
        {
            return Found::Known { sight: sieve.told(sight), age };
        }
        let is_known = post.cache.remembers(&pair.target, |sight| sieve.passes(sight)).await;
        let admitted = if is_known { Ok(()) } else { post.admit(&wanted, (self.clock)(), deadline).await };
        if let Err(retry_after) = admitted {
            let is_news = post.strangers(|strangers| strangers.is_news(begun));
            let level = if is_news { self.complaint } else { Level::Info };
            let who = client.map_or("a visitor".to_owned(), |client| client.to_string());
            let pause = retry_after.as_secs();
            log::log!(level, "{who} asks for too many unknown people (unknown_per_minute); again in {pause} s");
            return Found::Nothing { retry_after };
        }
        match self.look(post, identity, &sieve, &wanted, deadline).await {
            Found::Known { sight, age } if sieve.passes(&sight) => {
                if !is_known {
                    post.forgive(&wanted, (self.clock)(), deadline).await;
                }
                Found::Known { sight: sieve.told(sight), age }
            }
            // About somebody who does not exist nothing would be known when the time is over.
            Found::Known { sight, .. } if !sight.is_settled => {
                sleep_until(before(deadline)).await;
                post.forgive(&wanted, (self.clock)(), deadline).await;
                Found::Nothing { retry_after: PACE }
            }
            Found::Known { .. } => {
                sleep_until(moment(begun, Instant::now(), deadline)).await;
                post.strangers(|strangers| strangers.refuse(pair, *client, Instant::now()));
                let sight = Sight::bare(Presence::bare(State::Forbidden));
                Found::Known { sight, age: Duration::ZERO }
            }
            // Nobody has learned anything: that was no guess either.
            nothing => {
                if !is_known {
                    post.forgive(&wanted, (self.clock)(), deadline).await;
                }
                nothing
            }
        }
    }

    /// What there is to know, whoever asks. The picture is fetched for nobody who may not see it.
    async fn look(
        &self,
        post: &Post,
        identity: &Identity,
        sieve: &Sieve<'_>,
        wanted: &Wanted,
        deadline: Instant,
    ) -> Found {
        let target = &wanted.pair.target;
        let find = async |want| {
            let lookup = |want| look_up(self.prober(post, identity), target.clone(), want, deadline);
            post.cache.find(target, want, deadline, |sight| sieve.passes(sight), lookup).await
        };
        // A picture outlives what is known beside it, so that its owner is asked here: he may have said otherwise where
        // nobody could remove it.
        let is_chosen = || Choices::new(self.directory.as_deref()).of(&identity.jid, target).shows_picture();
        if wanted.want == Want::Presence || !sieve.shows_picture() || sieve.is_excluded || !is_chosen() {
            return find(Want::Presence).await;
        }
        if access::needs_asker(&identity.access, target) {
            match find(Want::Presence).await {
                Found::Known { sight, .. } if sieve.passes(&sight) => {}
                nothing => return nothing,
            }
        }
        find(Want::Picture).await
    }

    /// The identity's prober, with the task that keeps the cache up with what its session hears.
    fn prober(&self, post: &Post, identity: &Identity) -> Prober {
        let mut prober = post.prober.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prober) = &*prober {
            return prober.clone();
        }
        let linger = if self.life == Life::Single { Some(Duration::ZERO) } else { identity.linger };
        let always = self.life == Life::Resident && linger.is_none();
        let opening = if always { Opening::Always } else { Opening::Asked };
        let (news, heard) = unbounded_channel();
        let follower = Follower {
            cache: post.cache.clone(),
            strangers: Some(post.strangers.clone()),
            identity: identity.clone(),
            config: self.config.clone(),
            next: None,
        };
        let (directory, news) = (self.directory.clone(), Some(news));
        let manner = Manner { directory, linger, opening, news, ..self.shared.clone() };
        let (made, task) = Prober::spawn(identity.clone(), manner);
        self.sessions.add(task);
        self.sessions.add(tokio::spawn(follower.follow(heard)));
        prober.insert(made).clone()
    }
}

impl Post {
    /// Held for a map access; no code that could panic runs under it. Not a guard, which would live on through the body of
    /// an `if`.
    fn strangers<T>(&self, turn: impl FnOnce(&mut Strangers) -> T) -> T {
        turn(&mut self.strangers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether one more person may be looked up that this visitor is not known to see; if not, when to try again.
    async fn admit(&self, wanted: &Wanted, now_ms: u64, deadline: Instant) -> Result<(), Duration> {
        let Wanted { pair, client, .. } = wanted.clone();
        let turn = self.rate.take(move |rate| rate.admit(client, &pair, now_ms));
        match timeout_at(before(deadline), turn).await {
            Ok(admitted) => admitted.unwrap_or(Ok(())),
            Err(_late) => Err(PACE),
        }
    }

    /// He does see him, or nobody has learned anything: that was no guess.
    async fn forgive(&self, wanted: &Wanted, now_ms: u64, deadline: Instant) {
        let Wanted { pair, client, .. } = wanted.clone();
        // Late or not, it is done.
        let _ = timeout_at(deadline, self.rate.take(move |rate| rate.forgive(client, &pair, now_ms))).await;
    }
}

/// When a refusal is told whose lookup began then and is over now.
fn moment(begun: Instant, now: Instant, deadline: Instant) -> Instant {
    let seconds = (now - begun + LATE).as_secs() + PACE.as_secs();
    (begun + Duration::from_secs(seconds)).min(deadline.checked_sub(MARGIN).unwrap_or(deadline))
}

async fn look_up(prober: Prober, jid: BareJid, want: Want, deadline: Instant) -> Lookup {
    let seen = |(Answer { presence, viewers, settled, .. }, picture)| Sight {
        presence,
        picture,
        viewers,
        is_settled: settled,
    };
    let answer = match want {
        Want::Presence => prober.ask(jid.clone(), deadline).await.map(|answer| (answer, None)),
        Want::Picture => prober.ask_with_picture(jid.clone(), deadline).await,
    };
    answer.map(seen).map_err(|unasked| {
        log::info!("{jid}: {unasked}");
        unasked.retry_after
    })
}

/// Refusals have a tenth of the room that people have.
fn strangers(cache: &CacheSettings) -> Strangers {
    Strangers::new(cache.entries / 10, cache.ttl)
}

fn rate(identity: &Identity, directory: Option<&Path>, complaint: Level) -> Rate {
    let Access { unknown_per_minute, unknown_per_minute_all, .. } = identity.access;
    Rate::new(unknown_per_minute, unknown_per_minute_all, Ledger::new(directory, &identity.jid, complaint))
}

impl Sessions {
    fn add(&self, task: JoinHandle<()>) {
        self.lock().push(task);
    }

    pub fn are_closed(&self) -> bool {
        self.lock().iter().all(JoinHandle::is_finished)
    }

    /// Waits until every session is closed; their [`Site`] is to be dropped before.
    pub async fn closed(self) {
        let tasks = std::mem::take(&mut *self.lock());
        for task in tasks {
            if let Err(error) = task.await {
                log::error!("a session's task: {error}");
            }
        }
    }

    /// Held for a look; no code that could panic runs under it.
    fn lock(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::Picture;
    use crate::probe::guests::Order;
    use crate::strangers::Pair;

    /// Also where nobody could remove the picture that is known.
    #[tokio::test]
    async fn who_wants_little_told_shows_no_face_any_more() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let text = "[xmpp]\njid = p.example.com\npassword = x\n[access]\nvisibility = anyone\n";
        let config = crate::config::parse(text, Path::new("test.ini")).expect("a configuration");
        let place = Some(directory.path().to_owned());
        let (site, _sessions) = Site::open(config, Icons::default(), place, Life::Single);
        let (post, identity, bob) = (&site.posts[0], &site.config.identities[0], BareJid::new("bob@example.com"));
        let (bob, picture) = (bob.expect("a bare JID"), Picture::new(&[1]));
        let deadline = Instant::now() + Duration::from_secs(5);
        let seen = Sight { picture: picture.clone(), ..Sight::bare(Presence::bare(State::Available)) };
        post.cache.find(&bob, Want::Picture, deadline, |_| true, |_| std::future::ready(Ok(seen.clone()))).await;
        let shown = async || {
            let pair = Pair { target: bob.clone(), asker: access::Asker::Nobody };
            let wanted = Wanted { pair, want: Want::Picture, client: None };
            match site.find(identity, wanted, deadline).await {
                Found::Known { sight, .. } => sight.picture,
                Found::Nothing { .. } => panic!("he is known"),
            }
        };
        assert_eq!(shown().await, picture);
        let choices = Choices::new(Some(directory.path()));
        choices.take(&identity.jid, &bob, Order::Coarse).expect("a writable directory");
        assert_eq!(shown().await, None);
    }

    #[test]
    fn refusals_come_at_whole_seconds() {
        let begun = Instant::now();
        let after = |ms: u64| begun + Duration::from_millis(ms);
        for (over_ms, timeout_ms, told_ms) in [
            (0, 5000, 1000),
            (3, 5000, 1000),
            (799, 5000, 1000),
            (800, 5000, 2000),
            (1000, 5000, 2000),
            (1799, 5000, 2000),
            (4700, 5000, 4900),
            (4950, 5000, 4900),
            (3, 1000, 900),
        ] {
            let told = moment(begun, after(over_ms), after(timeout_ms));
            assert_eq!(told - begun, Duration::from_millis(told_ms), "over after {over_ms} ms of {timeout_ms}");
        }
    }
}
