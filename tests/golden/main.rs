//! Whole answers, from the CGI variables to the bytes that go out. Here are the configuration the tests share, the way
//! an answer is written down, and the comparison with the files beside this one; `UPDATE_GOLDEN=1` rewrites those.

mod answers;
mod faults;
mod properties;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jid::BareJid;
use ring::digest::{SHA256, digest};
use tokio::time::Instant;
use webpresence::cache::Found;
use webpresence::config::*;
use webpresence::presence::{Presence, Rule, State, Texts};
use webpresence::render::picture::Icons;
use webpresence::web::answer::answer;
use webpresence::web::request::Request;
use webpresence::web::response::Response;

/// Serves example.com and what lies below it to everybody.
fn open_site() -> Config {
    Config {
        file: std::path::PathBuf::new(),
        identities: vec![identity(Visibility::Anyone, "example.com")],
        cache: CacheSettings {
            ttl: Duration::from_secs(30),
            refresh: Duration::from_secs(10),
            stale: Duration::from_secs(300),
            entries: 100,
            directory: None,
        },
        images: ImageSettings { directory: None, theme: "default".into(), redirect_hosts: vec![] },
        words: Words {
            overrides: vec![
                (State::Offline, "de".into(), "Abwesend".into()),
                (State::Available, "de".into(), "Da".into()),
            ],
        },
        log: LogSettings { level: log::LevelFilter::Off, target: LogTarget::Stderr },
    }
}

/// The same, to subscribers.
fn closed_site() -> Config {
    Config { identities: vec![identity(Visibility::Subscribers, "example.com")], ..open_site() }
}

fn identity(visibility: Visibility, domain: &str) -> Identity {
    Identity {
        name: String::new(),
        jid: BareJid::new(&format!("presence.{domain}")).expect("a domain is an address"),
        password: Secret::new("secret".into()),
        host: None,
        port: None,
        security: Security::None,
        ca_file: None,
        verify: true,
        timeout: Duration::from_secs(5),
        linger: None,
        server: None,
        rule: Rule::MostAvailable,
        visibility,
        domains: vec![DomainPattern::Exactly(domain.into()), DomainPattern::Below(domain.into())],
    }
}

/// A request by its method and query string, then as many CGI variables as it takes.
fn request(method: &str, query: &[u8], vars: &[(&str, &[u8])]) -> Request {
    let own = [("REQUEST_METHOD", method.as_bytes()), ("QUERY_STRING", query)];
    let vars = own.iter().chain(vars).map(|(name, value)| (name.to_string(), value.to_vec()));
    Request { vars: vars.collect(), body: vec![], excess: None, arrived: Instant::now() }
}

fn get(query: &str) -> Request {
    request("GET", query.as_bytes(), &[])
}

/// The answer, and whom it asked about.
fn ask(config: &Config, request: &Request, found: Found) -> (Response, Option<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime without I/O");
    let icons = Arc::new(Icons::default());
    let mut asked = None;
    let find = async |identity: &Identity, jid: BareJid, deadline: Instant| {
        assert_eq!(deadline, request.arrived + identity.timeout);
        asked = Some(jid.to_string());
        found
    };
    let response = runtime.block_on(answer(config, &icons, request, find));
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
    Found::Known { presence: Presence { state, texts, priority }, age }
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
