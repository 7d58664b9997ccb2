//! What HTTP promises, through nginx and through Apache with mod_fcgid and mod_cgid: 304, HEAD, POST, refusals, headers nobody
//! expects, and redirects.

use std::thread;

use crate::cases::{Case, cases, icon};
use crate::doors::{self, Door, Open, SHORT, STATUS};
use crate::rig::http::Request;
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{Identity, Kind};
use crate::rig::{apache, nginx};
use crate::world::{patient, visit};

const FORM: &str = "application/x-www-form-urlencoded";

/// Everything here is about one component at Prosody, behind each web server.
fn open(door: Door, number: usize) -> Open {
    door.open(Webpresence::new(&visit(Kind::Prosody).server, Identity::Component(number)))
}

fn conditional_requests(open: &Open) {
    let target = format!("{STATUS}?jid=away@example.test&type=xml");
    let whole = open.send(Request::get(&target));
    let tag = whole.header("ETag").expect("an ETag").to_owned();
    for (condition, expected) in [
        (tag.clone(), 304),
        (format!("W/{tag}"), 304),
        (format!("\"other\", {tag}"), 304),
        ("*".to_owned(), 304),
        ("\"other\"".to_owned(), 200),
    ] {
        let answer = open.send(Request::get(&target).header("If-None-Match", &condition));
        assert_eq!(
            (answer.status, answer.header("ETag")),
            (expected, Some(tag.as_str())),
            "If-None-Match: {condition}"
        );
        let body = if expected == 304 { Vec::new() } else { whole.body.clone() };
        assert_eq!(answer.body, body, "If-None-Match: {condition}");
        let kept = answer.header("Cache-Control").unwrap_or_default();
        assert!(kept.starts_with("public, max-age=") || kept == "max-age=0", "If-None-Match: {condition}: {kept}");
    }
}

/// COMPAT: Apache's filters put a coding into the tag, where the snippet does not forbid it. The caches take that for
/// another tag.
fn a_coding_in_the_tag(open: &Open) {
    let target = format!("{STATUS}?jid=away@example.test&type=xml");
    let tag = open.send(Request::get(&target)).header("ETag").expect("an ETag").to_owned();
    let coded = format!("{}-gzip\"", tag.trim_end_matches('"'));
    let answer = open.send(Request::get(&target).header("If-None-Match", &coded));
    assert_eq!((answer.status, answer.header("ETag"), answer.body.len()), (304, Some(tag.as_str()), 0), "{coded}");
}

fn head_is_get_without_the_body(open: &Open) {
    for kind in ["image", "text", "xml", "json"] {
        let target = format!("{SHORT}?jid=dnd@example.test&type={kind}");
        let (get, head) = (open.send(Request::get(&target)), open.send(Request::new("HEAD", &target)));
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{kind}");
        for name in ["Content-Type", "Content-Length", "ETag"] {
            assert_eq!(head.header(name), get.header(name), "{kind}: {name}");
        }
    }
}

fn a_form_may_ask(open: &Open) {
    let answer = open.send(Request::post(STATUS, FORM, "jid=away%40example.test&type=text"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "Lunch\n"));
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    let target = format!("{STATUS}?jid=gone@example.test");
    let answer = open.send(Request::post(&target, FORM, "jid=away%40example.test&type=text"));
    assert_eq!(answer.text(), "See you tomorrow\n", "the query string wins, the body adds");
}

fn other_methods(open: &Open) {
    let target = format!("{STATUS}?jid=away@example.test");
    let options = open.send(Request::new("OPTIONS", &target).header("Origin", "https://blog.example"));
    assert_eq!((options.status, options.body.len()), (204, 0));
    assert_eq!(options.header("Access-Control-Allow-Origin"), Some("*"));
    for method in ["PUT", "DELETE", "PATCH"] {
        let answer = open.send(Request::new(method, &target));
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.header("Allow").is_some_and(|allow| allow.contains("GET")), "{method}: {:?}", answer.headers);
    }
}

fn bad_requests(open: &Open) {
    for (query, names) in [
        ("type=text", "jid"),
        ("jid=&type=text", "jid"),
        ("jid=a@b@c&type=text", "jid"),
        ("jid=away@example.test/desk&type=text", "jid"),
        ("jid=%FF@example.test&type=text", "jid"),
        ("jid=away@example.test&type=TEXT", "type"),
        ("jid=away@example.test&type=text&images=javascript:alert(1)", "images"),
        ("jid=away@example.test&type=text&images=http://a%0d%0aSet-Cookie:x/--IMAGE--", "images"),
    ] {
        let answer = open.send(Request::get(&format!("{STATUS}?{query}")));
        assert_eq!((answer.status, answer.header("Cache-Control")), (400, Some("no-store")), "{query}");
        let line = answer.text();
        assert!(line.contains(names) && line.ends_with('\n') && line.lines().count() == 1, "{query}: {line:?}");
        assert_eq!(answer.header("Set-Cookie"), None);
    }
    let long = "jid=away@example.test&type=text&".to_owned() + &"a=1&".repeat(25_000);
    let answer = open.send(Request::post(STATUS, FORM, &long));
    assert_eq!((answer.status, answer.header("Cache-Control")), (400, Some("no-store")), "a form over the limit");
    let answer = open.send(Request::get(&format!("{STATUS}?jid=")));
    assert_eq!((answer.status, answer.header("Content-Type")), (400, Some("image/png")));
    assert!(answer.body == icon("unknown"), "a picture shows that something is wrong");
    let answer = open.send(Request::get(&format!("{STATUS}?type=json")));
    assert_eq!((answer.status, answer.header("Content-Type")), (400, Some("application/json")));
    assert!(answer.text().starts_with(r#"{"error":{"code":400,"message":"#), "{}", answer.text());
}

/// Bytes that are not text, names that nobody gave, a proxy of the visitor's choice: nothing of it matters.
fn odd_headers_change_nothing(open: &Open) {
    let target = format!("{STATUS}?jid=away@example.test&type=text");
    for line in [&b"X-Odd: \xff\xfe\xfd"[..], b"User-Agent: \xc3\x28", b"Proxy: http://127.0.0.1:9", b"X-Empty:"] {
        let answer = open.send(Request::get(&target).raw_header(line));
        let line = String::from_utf8_lossy(line);
        assert_eq!((answer.status, answer.text().as_str()), (200, "Lunch\n"), "{line}");
        assert!(answer.header("Cache-Control").is_some_and(|kept| kept.contains("max-age")), "{line}");
    }
    let answer = open.send(Request::get(&target).header("Authorization", "Basic YWxpY2U6eA=="));
    assert_eq!((answer.status, answer.text().as_str()), (200, "Lunch\n"));
}

/// Where `images` and a state's own address lead: the seven states, and the eighth that the page's author does not know.
fn redirects(open: &Open) {
    let images = "images=http://www.example.com/images/--IMAGE--.gif&dnd=https://www.example.com/busy.png";
    let people = cases().into_iter().filter(|case| case.jid.contains('@'));
    for Case { jid, state, .. } in people {
        let expected = match state {
            "dnd" => "https://www.example.com/busy.png".to_owned(),
            "unknown" => "http://www.example.com/images/offline.gif".to_owned(),
            state => format!("http://www.example.com/images/{state}.gif"),
        };
        let answer = open.send(Request::get(&format!("{STATUS}?jid={jid}&{images}")));
        assert_eq!((answer.status, answer.header("Location")), (302, Some(expected.as_str())), "{jid}");
        let kept = answer.header("Cache-Control").unwrap_or_default();
        assert!(kept.starts_with("private, max-age=") || kept == "no-store", "{jid}: {kept}");
    }
    let own = format!("{STATUS}?jid=away@example.test&images=/icons/--IMAGE--.png");
    assert_eq!(open.send(Request::get(&own)).header("Location"), Some("/icons/away.png"));
    let visit = Request::get(&own).header("Accept", "text/html,*/*").header("Sec-Fetch-Mode", "navigate");
    let answer = open.send(visit);
    assert_eq!((answer.status, answer.header("Location")), (200, None), "a page visit gets the picture itself");
    assert!(answer.body == icon("away"));
}

fn check(open: &Open) {
    conditional_requests(open);
    head_is_get_without_the_body(open);
    a_form_may_ask(open);
    other_methods(open);
    bad_requests(open);
    odd_headers_change_nothing(open);
    redirects(open);
}

/// Without nginx's cache every answer is that of webpresence itself.
#[test]
fn http_through_nginx() {
    check(&open(Door::Nginx, 5));
    let installed = Webpresence::new(&visit(Kind::Prosody).server, Identity::Component(5));
    let open = doors::nginx(nginx::Snippet::Uncached, installed);
    check(&open);
    a_coding_in_the_tag(&open);
}

/// With Apache's cache, and without it.
#[test]
fn http_through_mod_cgid() {
    check(&open(Door::Cgid, 12));
    let installed = Webpresence::new(&visit(Kind::Prosody).server, Identity::Component(12));
    let open = doors::apache(apache::Snippet::Uncached, installed);
    check(&open);
    a_coding_in_the_tag(&open);
}

#[test]
fn http_through_mod_fcgid() {
    check(&open(Door::Fcgid, 6));
}

/// The web server's own way against pages of others, as the snippets show it: whose referer is missing may be anybody.
fn only_own_pages(open: &Open, own: &str) {
    let target = format!("{STATUS}?jid=away@example.test&type=text");
    for (referer, status) in [
        (None, 200),
        (Some("https://www.example.com/team.html"), 200),
        (Some("https://blog.example.org:8443/"), 200),
        (Some(own), 200),
        (Some("https://elsewhere.example/"), 403),
        (Some("https://www.example.com.elsewhere.example/"), 403),
        (Some("https://elsewhere.example/www.example.com/"), 403),
    ] {
        let request = Request::get(&target);
        let request = match referer {
            Some(referer) => request.header("Referer", referer),
            None => request,
        };
        let answer = open.send(request);
        assert_eq!((answer.status, answer.text() == "Lunch\n"), (status, status == 200), "{referer:?}: {answer:?}");
    }
}

#[test]
fn only_own_pages_through_nginx() {
    let installed = patient(&visit(Kind::Prosody).server, Identity::Component(16));
    only_own_pages(&doors::nginx(nginx::Snippet::OwnPages, installed), "http://localhost/");
}

#[test]
fn only_own_pages_through_apache() {
    let installed = patient(&visit(Kind::Prosody).server, Identity::Component(17));
    only_own_pages(&doors::apache(apache::Snippet::OwnPages, installed), "https://example.org/");
}

/// One executable, two sites, two rules.
#[test]
fn two_sites_of_apache_have_two_configurations() {
    let nowhere = "[xmpp]\njid = presence.example.test\npassword = x\nport = 1\n";
    let [installed, second] = ["first", "second"].map(|word| {
        let installed = Webpresence::written(Identity::Component(0), nowhere, "");
        installed.configure(&format!("{}[text]\nforbidden = The {word} site\n", installed.configuration()));
        installed
    });
    if let Some(user) = apache::web_user() {
        second.hand_over(user);
    }
    let open = doors::apache(apache::Snippet::TwoSites(&second.config), installed);
    // Nobody has to be asked about a domain that is not served.
    let text = |host: &str| {
        let target = format!("http://{host}{STATUS}?jid=a@elsewhere.test&type=text");
        open.send(Request::get(&target)).text()
    };
    // Whoever asks the second address for the first site by its name gets the second's answer, and leaves none behind.
    let Open::Apache { apache, .. } = &open else { unreachable!("it is") };
    let misled = |host: &str| {
        let request = Request::get(&format!("http://{host}{STATUS}?jid=a@elsewhere.test&type=text"));
        request.send_to(apache::SECOND, apache.port).text()
    };
    for _ in 0..3 {
        for host in ["localhost", "second.test", "intern.example.com"] {
            assert_eq!(misled(host), "The second site\n", "{host}");
        }
        assert_eq!([text("localhost"), text("second.test")], ["The first site\n", "The second site\n"]);
        assert_eq!(text("intern.example.com"), "The first site\n");
    }
}

/// The original loses answers when several ask about a component at once, and never finds one that is spelled in upper
/// case.
#[test]
fn fault_7_components_asked_at_once_and_in_upper_case() {
    let open = open(Door::Nginx, 14);
    let spellings = ["other.example.test", "OTHER.example.test", "Other.Example.Test"].repeat(8);
    thread::scope(|scope| {
        for jid in spellings {
            let open = &open;
            scope.spawn(move || {
                let answer = open.send(Request::get(&format!("{STATUS}?jid={jid}&type=xml")));
                let expected = "<presence from=\"other.example.test\"/>\n";
                assert_eq!((answer.status, answer.text().as_str()), (200, expected), "{jid}");
            });
        }
    });
}
