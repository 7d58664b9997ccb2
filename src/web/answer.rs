//! The product on one page: a request becomes a response. Who asks, and may he; the one fact from outside is handed in by
//! `find`, the body is made by `render`; here is what is told to whom, under which status and headers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jid::BareJid;
use tokio::time::{Instant, timeout_at};

use super::caching::{self, Scope};
use super::origins;
use super::redirect::is_page_visit;
use super::refusal::Refusal;
use super::request::{Form, Kind, METHODS, Method, Query, Request};
use super::response::{FETCH_VARY, Readers, Response};
use super::{languages, requester};
use crate::access::{self, Asker};
use crate::cache::{Found, Sight, Want};
use crate::config::{Config, Identity, Requester, Visibility};
use crate::presence::{Picture, Presence, State};
use crate::render::picture::{Format, Icons};
use crate::render::words::Wording;
use crate::render::{json, markup, text};
use crate::signature::Keyring;
use crate::strangers::Pair;

/// What is to be found out for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub pair: Pair,
    pub want: Want,
    /// Where the request comes from, as far as the web server tells.
    pub client: Option<IpAddr>,
}

/// Answers one request. `find` tells what this visitor may know about an address through an identity, `forbidden` where
/// it is nothing; it is asked at most once and is back by the deadline it gets. `now_s`: seconds since 1970.
pub async fn answer(
    config: &Config,
    icons: &Arc<Icons>,
    request: &Request,
    now_s: u64,
    find: impl AsyncFnOnce(&Identity, Wanted, Instant) -> Found,
) -> Response {
    let (has_login, deadline) = (request.has_login(), request.arrived + config.patience());
    let mut site = Site { config, icons, request, has_login, now_s, deadline };
    if request.method() == Some(Method::Options) {
        return Response::preflight(site.readers(None, site.strictest())).seal(request);
    }
    let query = match Query::parse(request, &config.images.redirect_hosts, &Keyring::of(config, now_s)) {
        Ok(query) => query,
        Err(refusal) => return site.refuse(&refusal).await.seal(request),
    };
    let served = query.target.jid().and_then(|jid| Some((jid, access::serving(config, jid)?)));
    let Some((jid, identity)) = served else {
        return site.forbid(&query, &Audience::of_nobody(site.strictest())).await.seal(request);
    };
    site.deadline = request.arrived + identity.timeout;
    let asker = requester::asker(request, &query, identity);
    let audience = Audience::of(identity, jid, &query, now_s);
    if audience.scope == Scope::Login
        && let Err(fault) =
            query.redirects.stay_home(origins::own_host(request).as_deref(), &config.images.redirect_hosts)
    {
        return site.refuse(&Refusal { fault, form: query.form }).await.seal(request);
    }
    if !origins::is_welcome(request, &identity.access.referers) {
        return site.forbid(&query, &Audience { scope: Scope::Nobody, ..audience }).await.seal(request);
    }
    // Where it does not matter who asks, nobody is as good as anybody.
    let asker = match (access::needs_asker(&identity.access, jid), asker) {
        (true, Asker::Nobody) => return site.forbid(&query, &audience).await.seal(request),
        (true, asker) => asker,
        (false, _) => Asker::Nobody,
    };
    let want = if query.form.kind == Kind::Avatar { Want::Picture } else { Want::Presence };
    let pair = Pair { target: jid.clone(), asker };
    let wanted = Wanted { pair, want, client: requester::client(request) };
    let found = find(identity, wanted, site.deadline).await;
    site.tell(&query, found, &audience).await.seal(request)
}

/// Who gets to know an answer.
#[derive(Clone, Copy)]
struct Audience<'a> {
    /// Which speaks for the target, if one does.
    identity: Option<&'a Identity>,
    /// Who may keep it, where nothing else forbids it.
    scope: Scope,
    /// How much longer the link holds that the request came by.
    life: Option<Duration>,
}

impl<'a> Audience<'a> {
    fn of_nobody(scope: Scope) -> Audience<'a> {
        Audience { identity: None, scope, life: None }
    }

    /// Who may keep what an identity tells of a target.
    fn of(identity: &'a Identity, target: &BareJid, query: &Query, now_s: u64) -> Audience<'a> {
        let needs_asker = access::needs_asker(&identity.access, target);
        let scope = if needs_asker { scope_of_people(identity) } else { scope_of_hosts(identity) };
        let proven = query.proven(&identity.jid);
        let life = proven.map(|proven| Duration::from_secs(proven.exp_s.saturating_sub(now_s)));
        Audience { identity: Some(identity), scope, life }
    }
}

fn scope_of_people(identity: &Identity) -> Scope {
    match (identity.access.visibility, &identity.access.requester) {
        (Visibility::Anyone, _) => scope_of_hosts(identity),
        (Visibility::Subscribers, Requester::RemoteUser { .. }) => Scope::Login,
        (Visibility::Subscribers, Requester::Query | Requester::Signed(_)) => Scope::Private,
    }
}

/// A cache that many visitors share would not look at the page that shows the answer.
fn scope_of_hosts(identity: &Identity) -> Scope {
    if identity.access.referers.is_empty() { Scope::Public } else { Scope::Private }
}

/// What every answer to one request is made from.
struct Site<'a> {
    config: &'a Config,
    icons: &'a Arc<Icons>,
    request: &'a Request,
    has_login: bool,
    now_s: u64,
    deadline: Instant,
}

impl Site<'_> {
    /// What is refused before anything is looked up, whoever it is about.
    async fn forbid(&self, query: &Query, audience: &Audience<'_>) -> Response {
        let sight = Sight::bare(Presence::bare(State::Forbidden));
        self.tell(query, Found::Known { sight, age: Duration::ZERO }, audience).await
    }

    /// The answer about somebody.
    async fn tell(&self, query: &Query, found: Found, audience: &Audience<'_>) -> Response {
        let unknown = Sight::bare(Presence::bare(State::Unknown));
        let (Sight { presence, picture, .. }, age, retry_after) = match found {
            Found::Known { sight, age } => (sight, age, None),
            Found::Nothing { retry_after } => (unknown, Duration::ZERO, Some(retry_after)),
        };
        let mut response = self.body(query, &presence, picture.as_ref()).await;
        // All refusals look alike, whichever identity they come from and whether it serves the domain at all.
        let (widest, life) = match (presence.state, audience.life) {
            (State::Forbidden, _) => (audience.scope.max(self.strictest()), Duration::MAX),
            // A link ends, and its answer with it.
            (_, Some(life)) => (audience.scope.max(Scope::Private), life),
            (_, None) => (audience.scope, Duration::MAX),
        };
        let scope = self.scope(query, &response, presence.state, widest);
        if !response.has("Cache-Control") {
            let settings = &self.config.cache;
            let headers = caching::headers(scope, settings, presence.state, age, life, self.now_s);
            response.headers.extend(headers.into_iter().flatten());
        }
        // Beside a redirect it would ask the browser to wait before it follows (RFC 9110, 10.2.3).
        if let Some(pause) = retry_after.filter(|_| response.status != 302) {
            response = response.with("Retry-After", pause.as_millis().div_ceil(1000).max(1).to_string());
        }
        let is_trusted = |identity: &Identity| origins::is_trusted(self.request, &identity.access.cors);
        if widest == Scope::Login && !audience.identity.is_some_and(is_trusted) {
            response = response.for_own_site();
        }
        if let Some(vary) = self.vary(query, audience.identity) {
            response = response.with("Vary", vary);
        }
        response.shared(self.readers(audience.identity, widest))
    }

    /// The answer to a request that cannot be read: one line that names the parameter and the rule, or the picture
    /// that says nothing is known.
    async fn refuse(&self, refusal: &Refusal) -> Response {
        let status = refusal.fault.status();
        let line = refusal.fault.to_string();
        let mut response = match refusal.form.kind {
            Kind::Image | Kind::Avatar => self.picture(status, State::Unknown, &refusal.form).await,
            Kind::Json => Response::new(status, json::CONTENT_TYPE, json::error(status, &line)),
            Kind::Text | Kind::Xml => Response::new(status, text::CONTENT_TYPE, line + "\n"),
        };
        if !response.has("Cache-Control") {
            response = response.with("Cache-Control", "no-store");
        }
        if status == 405 {
            response = response.with("Allow", METHODS);
        }
        response.shared(self.readers(None, self.strictest()))
    }

    async fn body(&self, query: &Query, presence: &Presence, picture: Option<&Picture>) -> Response {
        let state = presence.state;
        let langs = self.langs(query);
        let wording = Wording { words: &self.config.words, langs: &langs };
        // Pictures are 200 whatever they show: proxies and image caches replace the body of an error.
        let status = match (query.form.kind, state) {
            (Kind::Json, State::Forbidden) => 403,
            (Kind::Text | Kind::Xml | Kind::Json, State::Unknown) => 503,
            _ => 200,
        };
        match query.form.kind {
            Kind::Image => match query.redirects.target(state).filter(|_| !is_page_visit(self.request)) {
                Some(location) => Response::new(302, text::CONTENT_TYPE, "").with("Location", location.to_owned()),
                None => self.picture(status, state, &query.form).await,
            },
            Kind::Text => Response::new(status, text::CONTENT_TYPE, text::text(presence, wording)),
            Kind::Xml => {
                let refused = if state == State::Forbidden { self.believed(query) } else { Asker::Nobody };
                let line = markup::xml(query.target.shown(), refused.jid(), presence, wording);
                Response::new(status, markup::CONTENT_TYPE, line)
            }
            Kind::Json => {
                Response::new(status, json::CONTENT_TYPE, json::json(query.target.shown(), presence, wording))
            }
            // Whoever has no picture, or may not be seen, is shown as by `image`.
            Kind::Avatar => match picture.filter(|_| state != State::Forbidden) {
                Some(picture) => self.avatar(status, picture, state, &query.form).await,
                None => self.picture(status, state, &query.form).await,
            },
        }
    }

    /// The picture drawn anew: its own bytes stay here. The icon stands for what is no picture.
    async fn avatar(&self, status: u16, picture: &Picture, state: State, form: &Form) -> Response {
        let in_turn = self.icons.avatars.in_turn(picture, form.format, form.size_px);
        match timeout_at(self.deadline, in_turn).await {
            Ok(Some(file)) => Response::of(file, status, form.format.content_type()),
            Ok(None) | Err(_) => self.picture(status, state, form).await,
        }
    }

    async fn picture(&self, status: u16, state: State, form: &Form) -> Response {
        let in_turn = self.icons.in_turn(state, form.format, form.size_px);
        let Ok(file) = timeout_at(self.deadline, in_turn).await else {
            // Better than none, but not what was asked for: nobody is to keep it.
            let file = Icons::ready_png(state, form.size_px);
            return Response::new(status, Format::Png.content_type(), file).with("Cache-Control", "no-store");
        };
        let response = Response::of(file, status, form.format.content_type());
        if form.format == Format::Svg { response.confined() } else { response }
    }

    /// Programs compare the words of `text` and `xml`: there only the parameter counts.
    fn langs(&self, query: &Query) -> Vec<String> {
        let header = || languages::accepted(self.request.var("HTTP_ACCEPT_LANGUAGE").unwrap_or_default());
        match (&query.langs, query.form.kind) {
            (Some(langs), _) => langs.clone(),
            (None, Kind::Json) => header(),
            (None, Kind::Image | Kind::Text | Kind::Xml | Kind::Avatar) => Vec::new(),
        }
    }

    fn scope(&self, query: &Query, response: &Response, state: State, widest: Scope) -> Scope {
        let own = if self.request.method() == Some(Method::Post) || response.status >= 400 || state == State::Unknown {
            Scope::Nobody
        } else if self.has_login {
            Scope::Login
        } else if may_redirect(query) {
            Scope::Private
        } else {
            Scope::Public
        };
        own.max(widest)
    }

    /// Who asks, as far as an identity believes it for which that matters.
    fn believed(&self, query: &Query) -> Asker {
        let closed =
            self.config.identities.iter().find(|identity| identity.access.visibility == Visibility::Subscribers);
        closed.map_or(Asker::Nobody, |identity| requester::asker(self.request, query, identity))
    }

    /// Who may keep what is said about people, whichever identity speaks for them.
    fn strictest(&self) -> Scope {
        self.config.identities.iter().map(scope_of_people).max().unwrap_or(Scope::Nobody)
    }

    /// Whose scripts may read it: those the configuration lists for this identity (for any, where none is meant), else
    /// everybody's, but not where the visitor or a login has a say.
    fn readers(&self, identity: Option<&Identity>, widest: Scope) -> Readers<'_> {
        let origins = self.origins(identity);
        match origins.iter().find_map(|origins| origins::listed(self.request, origins)) {
            Some(origin) => Readers::Origin(origin),
            None if origins.is_empty() && widest == Scope::Public && !self.has_login => Readers::Everybody,
            None => Readers::OwnSite,
        }
    }

    /// The lists of origins that count: of one identity, or of all.
    fn origins(&self, identity: Option<&Identity>) -> Vec<&[String]> {
        let counts = |known: &&Identity| identity.is_none_or(|one| one.name == known.name);
        let lists = self.config.identities.iter().filter(counts).map(|known| known.access.cors.as_slice());
        lists.filter(|list| !list.is_empty()).collect()
    }

    fn vary(&self, query: &Query, identity: Option<&Identity>) -> Option<String> {
        let of_form = match query.form.kind {
            Kind::Json if query.langs.is_none() => Some("Accept-Language"),
            Kind::Image if may_redirect(query) => Some(FETCH_VARY),
            _ => None,
        };
        let of_readers = (!self.origins(identity).is_empty()).then_some("Origin");
        let parts: Vec<_> = of_form.into_iter().chain(of_readers).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// True where a redirect parameter has a say in the answer; other types only check them.
fn may_redirect(query: &Query) -> bool {
    query.form.kind == Kind::Image && !query.redirects.is_empty()
}
