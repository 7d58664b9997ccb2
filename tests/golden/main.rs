//! Whole answers, from the CGI variables to the bytes that go out. Here are the configuration the tests share, the way
//! an answer is written down, and the comparison with the files beside this one; `UPDATE_GOLDEN=1` rewrites those.

mod access;
mod answers;
mod faults;
mod links;
mod properties;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use tokio::time::Instant;
use webpresence::access::may_see;
use webpresence::cache::{Found, Sight, Want};
use webpresence::config::*;
use webpresence::presence::{Picture, Presence, State, Texts};
use webpresence::render::picture::Icons;
use webpresence::strangers::Pair;
use webpresence::web::answer::{Wanted, answer};
use webpresence::web::request::Request;
use webpresence::web::response::Response;

/// When every request comes, in seconds since 1970.
const NOW_S: u64 = 1_800_000_000;

/// Serves example.com and what lies below it to everybody.
fn open_site() -> Config {
    site("anyone")
}

/// The same, to subscribers.
fn closed_site() -> Config {
    site("subscribers")
}

fn site(visibility: &str) -> Config {
    let words = "[text]\nunavailable.de = Abwesend\navailable.de = Da\n";
    parsed(&format!("{}{words}", identity("", visibility, "example.com")))
}

/// The sections of one identity.
fn identity(name: &str, visibility: &str, domain: &str) -> String {
    let xmpp = format!("[xmpp {name}]\njid = presence.{domain}\npassword = secret\n");
    format!("{xmpp}[access {name}]\nvisibility = {visibility}\n").replace(" ]", "]")
}

fn parsed(text: &str) -> Config {
    parse(text, Path::new("test.ini")).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A request by its method and query string, then as many CGI variables as it takes.
fn request(method: &str, query: &[u8], vars: &[(&str, &[u8])]) -> Request {
    let own = [("REQUEST_METHOD", method.as_bytes()), ("QUERY_STRING", query)];
    Request { vars: own.iter().chain(vars).copied().collect(), body: vec![], excess: None, arrived: Instant::now() }
}

fn get(query: &str) -> Request {
    request("GET", query.as_bytes(), &[])
}

/// The answer, and whom it asked about.
fn ask(config: &Config, request: &Request, found: Found) -> (Response, Option<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime without I/O");
    let icons = Arc::new(Icons::default());
    let mut asked = None;
    let find = async |identity: &Identity, wanted: Wanted, deadline: Instant| {
        assert_eq!(deadline, request.arrived + identity.timeout);
        let query = str::from_utf8(request.var("QUERY_STRING").unwrap_or_default()).unwrap_or_default();
        assert_eq!(wanted.want == Want::Picture, query.contains("type=avatar"));
        let Pair { target, asker } = &wanted.pair;
        asked = Some(target.to_string());
        match found {
            Found::Known { age, .. } if !may_see(&identity.access, target, asker, None) => {
                Found::Known { sight: Sight::bare(Presence::bare(State::Forbidden)), age }
            }
            found => found,
        }
    };
    let response = runtime.block_on(answer(config, &icons, request, NOW_S, find));
    (response, asked)
}

fn told(config: &Config, request: &Request, found: Found) -> Response {
    ask(config, request, found).0
}

fn known(state: State, status: &str, priority: i8) -> Found {
    aged(state, status, priority, Duration::ZERO)
}

fn aged(state: State, status: &str, priority: i8, age: Duration) -> Found {
    let mut texts = Texts::default();
    texts.insert("", status);
    Found::Known { sight: Sight::bare(Presence { texts, priority, ..Presence::bare(state) }), age }
}

fn nothing() -> Found {
    Found::Nothing { retry_after: Duration::from_millis(9_001) }
}

/// The answer as a web server reads it; what nobody can read is a digest.
fn written(response: &Response) -> String {
    let mut text = format!("Status: {}\n", response.status);
    response.headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\n"));
    let body = match str::from_utf8(&response.body) {
        Ok(body) if body.len() <= 1024 => body.chars().map(visible).collect(),
        _ => {
            let digest: String =
                digest(&SHA256, &response.body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            format!("[{} bytes, SHA-256 {digest}]\n", response.body.len())
        }
    };
    text + "\n" + &body
}

/// Characters that would change how the file looks are written as escapes.
fn visible(c: char) -> String {
    let moves = matches!(c, '\u{200E}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    if moves || (c.is_control() && c != '\n') { c.escape_unicode().to_string() } else { c.into() }
}

/// Compares with the file of this name, or rewrites it.
fn check(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        std::fs::write(&path, found).expect("the source tree is writable where golden files are renewed");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    for (line, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "tests/golden/{name}:{}; UPDATE_GOLDEN=1 rewrites it", line + 1);
    }
    assert_eq!(found.len(), expected.len(), "tests/golden/{name} has another length; UPDATE_GOLDEN=1 rewrites it");
}
