//! Where an `images` or per-state URL leads. Every target is read as browsers read it (WHATWG URL) and kept only in
//! its re-serialised form; nothing is ever fetched from one. The rules against misuse as an open redirector are here.

use url::{Host, Position, Url};

use super::params::Params;
use super::refusal::{Fault, Rule};
use super::request::Request;
use crate::presence::State;

/// The most a URL may have, as given and as sent.
pub const URL_MAX_BYTES: usize = 2 * 1024;

/// What `images` has in place of a state's name.
const TOKEN: &str = "--IMAGE--";

/// The targets one request named, by state.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Redirects {
    targets: Vec<(State, String)>,
}

impl Redirects {
    /// Reads and checks all of them, also those the answer will not need. `hosts` are the allowed ones; none: any.
    pub fn parse(params: &Params, hosts: &[String]) -> Result<Redirects, Fault> {
        let mut redirects = Redirects::default();
        for state in State::ALL {
            if let Some(text) = params.text(state.name())? {
                redirects.insert(state, location(state.name(), text, hosts)?);
            }
        }
        if let Some(text) = params.text("images")? {
            redirects.fill(text, hosts)?;
        }
        Ok(redirects)
    }

    /// The `Location` for a state.
    pub fn target(&self, state: State) -> Option<&str> {
        self.targets.iter().find(|(known, _)| *known == state).map(|(_, location)| location.as_str())
    }

    /// True where the request named no target at all.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Refuses targets on any host but these and our own: for answers that hold what only this visitor may know.
    pub fn stay_home(&self, own: Option<&str>, hosts: &[String]) -> Result<(), Fault> {
        let is_home = |host: &str| own == Some(host) || (!hosts.is_empty() && is_allowed(host, hosts));
        for (state, location) in &self.targets {
            // What is kept was read before.
            let host = read(location).and_then(|(_, host)| host);
            if !host.is_none_or(|host| is_home(&host)) {
                return Err(Fault::new(state.name(), Rule::Host));
            }
        }
        Ok(())
    }

    /// Gives every state without a target of its own the one that `images` makes. Its author knows only the seven
    /// names, so that `unknown` leads where `offline` does.
    fn fill(&mut self, images: &str, hosts: &[String]) -> Result<(), Fault> {
        within(images, "images")?;
        for state in State::ALL.into_iter().filter(|state| *state != State::Unknown) {
            let location = location("images", &images.replace(TOKEN, state.name()), hosts)?;
            self.insert(state, location);
        }
        let offline = self.target(State::Offline).map(str::to_owned);
        offline.into_iter().for_each(|location| self.insert(State::Unknown, location));
        Ok(())
    }

    /// The first target of a state stays.
    fn insert(&mut self, state: State, location: String) {
        if self.target(state).is_none() {
            self.targets.push((state, location));
        }
    }
}

/// True for somebody who opens the address itself instead of a page that shows the picture: he would be the one whom a
/// redirect misleads.
pub fn is_page_visit(request: &Request) -> bool {
    let is = |name: &str, value: &str| request.var(name).is_some_and(|v| v.eq_ignore_ascii_case(value.as_bytes()));
    let html = |accept: &[u8]| accept.to_ascii_lowercase().windows(9).any(|part| part == b"text/html");
    is("HTTP_SEC_FETCH_DEST", "document")
        || is("HTTP_SEC_FETCH_MODE", "navigate")
        || request.var("HTTP_ACCEPT").is_some_and(html)
}

/// The re-serialised form of an allowed target.
fn location(parameter: &'static str, text: &str, hosts: &[String]) -> Result<String, Fault> {
    let refused = |rule| Fault::new(parameter, rule);
    within(text, parameter)?;
    if text.contains('\\') {
        return Err(refused(Rule::Url));
    }
    let (location, host) = read(text).ok_or_else(|| refused(Rule::Url))?;
    if !host.is_none_or(|host| is_allowed(&host, hosts)) {
        return Err(refused(Rule::Host));
    }
    within(&location, parameter)?;
    Ok(location)
}

fn within(text: &str, parameter: &'static str) -> Result<(), Fault> {
    if text.len() > URL_MAX_BYTES {
        return Err(Fault::new(parameter, Rule::AtMostBytes(URL_MAX_BYTES)));
    }
    Ok(())
}

/// What is sent for a target, and the host it leads to, if it leaves the site.
fn read(text: &str) -> Option<(String, Option<String>)> {
    if text.starts_with("//") {
        return other_host(text);
    }
    if text.starts_with('/') {
        return same_site(text).map(|path| (path, None));
    }
    let (url, host) = web_url(text)?;
    Some((url.into(), Some(host)))
}

/// An absolute URL of the web that names nobody, with its host.
fn web_url(text: &str) -> Option<(Url, String)> {
    let url = Url::parse(text).ok()?;
    let anonymous = url.username().is_empty() && url.password().is_none();
    let host = url.host_str()?.to_owned();
    (matches!(url.scheme(), "http" | "https") && anonymous).then_some((url, host))
}

/// `//host/path`: the page's scheme, another host. Parsing under a scheme drops that scheme's default port, which may
/// not be the one the page's scheme implies; the longer of the two readings has lost none.
fn other_host(text: &str) -> Option<(String, Option<String>)> {
    let (plain, host) = web_url(&format!("http:{text}"))?;
    let (secure, _) = web_url(&format!("https:{text}"))?;
    let [plain, secure] = [&plain, &secure].map(|url| &url[Position::AfterScheme..][":".len()..]);
    let longer = if secure.len() > plain.len() { secure } else { plain };
    Some((longer.to_owned(), Some(host)))
}

/// A path of this site. Removing dot segments can leave `//` in front (`/.//evil.example`), which would be a host.
fn same_site(text: &str) -> Option<String> {
    let base = Url::parse("http://site.invalid").expect("a constant that a test parses");
    let url = base.join(text).ok()?;
    let path = &url[Position::BeforePath..];
    (url.host() == base.host() && !path.starts_with("//")).then(|| path.to_owned())
}

/// `hosts` may be written in any case and with letters outside ASCII.
fn is_allowed(host: &str, hosts: &[String]) -> bool {
    hosts.is_empty() || hosts.iter().any(|known| Host::parse(known).is_ok_and(|known| known.to_string() == host))
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use tokio::time::Instant;

    use super::*;

    fn parse(pairs: &[(&str, &str)], hosts: &[&str]) -> Result<Redirects, Fault> {
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let query: Vec<String> = pairs.iter().map(|(name, url)| format!("{name}={}", encode(url))).collect();
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        Redirects::parse(&Params::read(&[query.join("&").as_bytes()]), &hosts)
    }

    /// What `dnd=URL` sends, or the rule it breaks.
    fn check(url: &str, hosts: &[&str], expected: Result<&str, Rule>) {
        let found = parse(&[("dnd", url)], hosts);
        let found = found.as_ref().map(|redirects| redirects.target(State::Dnd).expect("it was given"));
        let expected = expected.map_err(|rule| Fault::new("dnd", rule));
        assert_eq!(found, expected.as_ref().map(|url| *url), "{url}");
    }

    #[test]
    fn targets_are_sent_as_browsers_read_them() {
        for (url, sent) in [
            ("http://www.example.com/images/away.gif", "http://www.example.com/images/away.gif"),
            ("HTTPS://Example.COM", "https://example.com/"),
            ("http://example.com:80/a/../b?x=1&y#f", "http://example.com/b?x=1&y#f"),
            ("https://example.com:8443/é \"<>", "https://example.com:8443/%C3%A9%20%22%3C%3E"),
            ("http://münchen.example/", "http://xn--mnchen-3ya.example/"),
            ("http://0x7f.1/", "http://127.0.0.1/"),
            ("http://[::1]/", "http://[::1]/"),
            ("http:evil.example", "http://evil.example/"),
            ("http:///evil.example", "http://evil.example/"),
            ("http://@example.com/", "http://example.com/"),
            ("http://example.com/%0D%0ASet-Cookie:a", "http://example.com/%0D%0ASet-Cookie:a"),
            ("/icons/away.png", "/icons/away.png"),
            ("/a/../../b?c#d", "/b?c#d"),
            ("/a b\"", "/a%20b%22"),
            ("/http://evil.example/", "/http://evil.example/"),
            ("//example.com/a", "//example.com/a"),
            ("//EXAMPLE.com:443/a", "//example.com:443/a"),
            ("//example.com:80/a", "//example.com:80/a"),
            ("//example.com:81/a", "//example.com:81/a"),
        ] {
            check(url, &[], Ok(sent));
        }
    }

    #[test]
    fn hostile_targets_are_refused() {
        for url in [
            "",
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            " javascript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "ftp://example.com/",
            "vbscript:x",
            "blob:http://example.com/x",
            "mailto:a@example.com",
            "icons/away.png",
            "?x",
            "#x",
            "/\\evil.example",
            "\\\\evil.example",
            "http:\\\\evil.example",
            "http://example.com\\@evil.example",
            "http://example.com/a?b=\\",
            "/.//evil.example",
            "/a/..//evil.example",
            "/..//evil.example/%2e%2e",
            "/%2e//evil.example",
            "http://user@evil.example/",
            "http://user:secret@evil.example/",
            "http://:secret@evil.example/",
            "//user@evil.example/",
            "http://",
            "//",
            "///evil.example\\",
            "http://exa mple.com/",
            "http://example.com:99999/",
            "http://a<b/",
            "http://[::1/",
        ] {
            check(url, &[], Err(Rule::Url));
        }
    }

    #[test]
    fn control_characters_are_refused() {
        for url in ["http://example.com/\r\nA: b", "/\t/evil.example", "java\nscript:x", "/a\0", "/a\u{7f}", "/\u{85}"]
        {
            check(url, &[], Err(Rule::NoControls));
        }
    }

    #[test]
    fn only_listed_hosts_where_there_is_a_list() {
        let hosts = &["Example.com", "münchen.example", "127.0.0.1", "not a host"];
        for url in ["http://example.com/", "https://example.com:8443/", "http://xn--mnchen-3ya.example/"] {
            check(url, hosts, Ok(url));
        }
        check("http://2130706433/", hosts, Ok("http://127.0.0.1/"));
        check("//example.com/a", hosts, Ok("//example.com/a"));
        check("/icons/away.png", hosts, Ok("/icons/away.png"));
        for url in [
            "http://evil.example/",
            "//evil.example/",
            "http://example.com.evil.example/",
            "http://www.example.com/",
            "http://example.com./",
            "http:evil.example",
        ] {
            check(url, hosts, Err(Rule::Host));
        }
    }

    #[test]
    fn what_only_one_visitor_may_know_stays_at_home() {
        let hosts = &["cdn.example.com"];
        for (url, hosts, stays) in [
            ("/icons/--IMAGE--.png", &[][..], true),
            ("https://status.example.com/--IMAGE--.png", &[], true),
            ("//status.example.com:8443/--IMAGE--.png", &[], true),
            ("https://cdn.example.com/--IMAGE--.png", hosts, true),
            ("https://cdn.example.com/--IMAGE--.png", &[], false),
            ("https://www.status.example.com/--IMAGE--.png", &[], false),
            ("https://--IMAGE--.example.com/", &[], false),
        ] {
            let redirects = parse(&[("images", url)], hosts).expect("allowed so far");
            let known: Vec<String> = hosts.iter().map(ToString::to_string).collect();
            assert_eq!(redirects.stay_home(Some("status.example.com"), &known).is_ok(), stays, "{url}");
            assert_eq!(redirects.stay_home(None, &[]).is_ok(), url.starts_with("/i"), "{url}: nobody knows our host");
        }
    }

    #[test]
    fn one_url_has_a_limit_before_and_after() {
        let url = |bytes: usize| format!("http://example.com/{}", "a".repeat(bytes - 19));
        check(&url(URL_MAX_BYTES), &[], Ok(&url(URL_MAX_BYTES)));
        check(&url(URL_MAX_BYTES + 1), &[], Err(Rule::AtMostBytes(URL_MAX_BYTES)));
        let grows = |letters: usize| format!("/{}", "é".repeat(letters));
        let sent = |letters: usize| format!("/{}", "%C3%A9".repeat(letters));
        check(&grows(341), &[], Ok(&sent(341)));
        check(&grows(342), &[], Err(Rule::AtMostBytes(URL_MAX_BYTES)));
    }

    #[test]
    fn images_fills_what_the_states_leave_open() {
        let images = ("images", "http://h.example/--IMAGE--/--IMAGE--.gif");
        let redirects = parse(&[images, ("dnd", "/busy.png")], &[]).expect("both are allowed");
        for state in State::ALL {
            let name = if state == State::Unknown { "offline" } else { state.name() };
            let expected =
                if state == State::Dnd { "/busy.png".into() } else { format!("http://h.example/{name}/{name}.gif") };
            assert_eq!(redirects.target(state), Some(expected.as_str()), "{state:?}");
        }
    }

    #[test]
    fn unknown_is_offline_only_for_an_author_of_images() {
        let images = ("images", "/--IMAGE--");
        for (pairs, expected) in [
            (&[images][..], Some("/offline")),
            (&[images, ("offline", "/gone")], Some("/gone")),
            (&[images, ("unknown", "/who")], Some("/who")),
            (&[("unknown", "/who")], Some("/who")),
            (&[("offline", "/gone")], None),
            (&[], None),
        ] {
            let redirects = parse(pairs, &[]).expect("all are allowed");
            assert_eq!(redirects.target(State::Unknown), expected, "{pairs:?}");
            assert_eq!(redirects.is_empty(), pairs.is_empty());
        }
    }

    #[test]
    fn the_token_may_stand_in_the_host_but_not_open_it() {
        let found = parse(&[("images", "http://--IMAGE--.example.com/")], &["away.example.com"]);
        assert_eq!(found, Err(Fault::new("images", Rule::Host)));
        let found = parse(&[("images", "http://--IMAGE--.example.com/")], &[]).expect("any host is allowed");
        assert_eq!(found.target(State::Xa), Some("http://xa.example.com/"));
        assert_eq!(parse(&[("images", "--IMAGE--:x")], &[]), Err(Fault::new("images", Rule::Url)));
        let plain = parse(&[("images", "/one.png")], &[]).expect("the token may be missing");
        assert_eq!(plain.target(State::Chat), Some("/one.png"));
    }

    #[test]
    fn who_opens_the_address_itself() {
        let rows: [(&[(&str, &str)], bool); 9] = [
            (&[], false),
            (&[("HTTP_ACCEPT", "*/*")], false),
            (&[("HTTP_ACCEPT", "image/avif,image/webp,*/*;q=0.8")], false),
            (&[("HTTP_SEC_FETCH_DEST", "image"), ("HTTP_SEC_FETCH_MODE", "no-cors")], false),
            (&[("HTTP_SEC_FETCH_DEST", "document")], true),
            (&[("HTTP_SEC_FETCH_MODE", "navigate"), ("HTTP_SEC_FETCH_DEST", "iframe")], true),
            (&[("HTTP_ACCEPT", "text/html,application/xhtml+xml,*/*;q=0.8")], true),
            (&[("HTTP_ACCEPT", "application/xml,TEXT/HTML;q=0.9")], true),
            (&[("HTTP_ACCEPT", "text/htm")], false),
        ];
        for (vars, expected) in rows {
            let request =
                Request { vars: vars.iter().copied().collect(), body: vec![], excess: None, arrived: Instant::now() };
            assert_eq!(is_page_visit(&request), expected, "{request:?}");
        }
    }
}
