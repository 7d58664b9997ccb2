//! The product on one page: a request becomes a response. Who may be asked about is decided by `access`, the one fact
//! from outside is handed in by `find`, the body is made by `render`; here is what is told to whom, under which status
//! and headers.

use std::sync::Arc;
use std::time::Duration;

use jid::BareJid;
use tokio::time::{Instant, timeout_at};

use super::caching::{self, Scope};
use super::languages;
use super::redirect::is_page_visit;
use super::refusal::Refusal;
use super::request::{Form, Kind, METHODS, Method, Query, Request};
use super::response::{FETCH_VARY, Response};
use crate::access::{self, Decision};
use crate::cache::{Found, Want};
use crate::config::{Config, Identity, Visibility};
use crate::presence::{Picture, Presence, State};
use crate::render::picture::{Format, Icons};
use crate::render::words::Wording;
use crate::render::{json, markup, text};
use crate::signature::Keyring;

/// Answers one request. `find` tells what is known about an address through an identity; it is asked at most once and
/// is back by the deadline it gets. `now_s`: seconds since 1970.
pub async fn answer(
    config: &Config,
    icons: &Arc<Icons>,
    request: &Request,
    now_s: u64,
    find: impl AsyncFnOnce(&Identity, BareJid, Want, Instant) -> Found,
) -> Response {
    let site = Site { config, icons, request };
    if request.method() == Some(Method::Options) {
        return Response::preflight(site.is_shared(access::is_open(config))).seal(request);
    }
    let query = match Query::parse(request, &config.images.redirect_hosts, &Keyring::of(config, now_s)) {
        Ok(query) => query,
        Err(refusal) => return site.refuse(&refusal).await.seal(request),
    };
    let decided = query.target.jid().map(|jid| (jid, access::decide(config, jid)));
    let (found, is_open) = match decided {
        Some((jid, Decision::Ask(identity))) => {
            let deadline = request.arrived + identity.timeout;
            let want = if query.form.kind == Kind::Avatar { Want::Picture } else { Want::Presence };
            let found = find(identity, jid.clone(), want, deadline).await;
            (found, identity.access.visibility == Visibility::Anyone)
        }
        None | Some((_, Decision::Forbidden)) => {
            let presence = Presence::bare(State::Forbidden);
            (Found::Known { presence, picture: None, age: Duration::ZERO }, false)
        }
    };
    site.tell(&query, &found, is_open).await.seal(request)
}

/// What every answer to one request is made from.
struct Site<'a> {
    config: &'a Config,
    icons: &'a Arc<Icons>,
    request: &'a Request,
}

impl Site<'_> {
    /// The answer about somebody. `is_open`: it depends on no requester.
    async fn tell(&self, query: &Query, found: &Found, is_open: bool) -> Response {
        let unknown = Presence::bare(State::Unknown);
        let (presence, picture, age, retry_after) = match found {
            Found::Known { presence, picture, age } => (presence, picture.as_ref(), *age, None),
            Found::Nothing { retry_after } => (&unknown, None, Duration::ZERO, Some(*retry_after)),
        };
        // All refusals look alike, whichever identity they come from and whether it serves the domain at all.
        let is_open = if presence.state == State::Forbidden { access::is_open(self.config) } else { is_open };
        let mut response = self.body(query, presence, picture, is_open).await;
        let scope = self.scope(query, &response, presence.state, is_open);
        if !response.has("Cache-Control") {
            response.headers.extend(caching::headers(scope, &self.config.cache, presence.state, age));
        }
        // Beside a redirect it would ask the browser to wait before it follows (RFC 9110, 10.2.3).
        if let Some(pause) = retry_after.filter(|_| response.status != 302) {
            response = response.with("Retry-After", pause.as_millis().div_ceil(1000).max(1).to_string());
        }
        if let Some(vary) = vary(query) {
            response = response.with("Vary", vary);
        }
        if self.is_shared(is_open) { response.shared() } else { response }
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
        if self.is_shared(access::is_open(self.config)) { response.shared() } else { response }
    }

    async fn body(&self, query: &Query, presence: &Presence, picture: Option<&Picture>, is_open: bool) -> Response {
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
                Some(location) => Response::new(302, text::CONTENT_TYPE, "").with("Location", location),
                None => self.picture(status, state, &query.form).await,
            },
            Kind::Text => Response::new(status, text::CONTENT_TYPE, text::text(presence, wording)),
            Kind::Xml => {
                let believed = query.req_jid.as_ref().filter(|_| !is_open);
                let line = markup::xml(query.target.shown(), believed, presence, wording);
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
        let deadline = self.request.arrived + self.config.patience();
        let in_turn = self.icons.avatars.in_turn(picture, form.format, form.size_px);
        match timeout_at(deadline, in_turn).await {
            Ok(Some(file)) => Response::new(status, form.format.content_type(), file),
            Ok(None) | Err(_) => self.picture(status, state, form).await,
        }
    }

    async fn picture(&self, status: u16, state: State, form: &Form) -> Response {
        let deadline = self.request.arrived + self.config.patience();
        let in_turn = self.icons.in_turn(state, form.format, form.size_px);
        let Ok(file) = timeout_at(deadline, in_turn).await else {
            // Better than none, but not what was asked for: nobody is to keep it.
            let file = Icons::ready_png(state, form.size_px);
            return Response::new(status, Format::Png.content_type(), file).with("Cache-Control", "no-store");
        };
        let response = Response::new(status, form.format.content_type(), file);
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

    fn scope(&self, query: &Query, response: &Response, state: State, is_open: bool) -> Scope {
        let is_refused = state == State::Forbidden && !is_open;
        if self.request.method() == Some(Method::Post) || response.status >= 400 || state == State::Unknown {
            Scope::Nobody
        } else if self.request.has_login() {
            Scope::Login
        } else if is_refused || may_redirect(query) {
            Scope::Private
        } else {
            Scope::Public
        }
    }

    /// May scripts of any other site read it? Not where a login may have had a say.
    fn is_shared(&self, is_open: bool) -> bool {
        is_open && !self.request.has_login()
    }
}

/// True where a redirect parameter has a say in the answer; other types only check them.
fn may_redirect(query: &Query) -> bool {
    query.form.kind == Kind::Image && !query.redirects.is_empty()
}

fn vary(query: &Query) -> Option<&'static str> {
    match query.form.kind {
        Kind::Json if query.langs.is_none() => Some("Accept-Language"),
        Kind::Image if may_redirect(query) => Some(FETCH_VARY),
        _ => None,
    }
}
