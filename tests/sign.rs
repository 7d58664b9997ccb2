//! Signed links from the outside: what `webpresence sign` prints, and the signers in other languages of `contrib/sign`,
//! whose links have to be believed as well. No server is needed: that nothing could be learnt tells that it was tried.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use jid::BareJid;
use tempfile::TempDir;
use tokio::time::Instant;
use webpresence::config::{Environment, load};
use webpresence::presence::State;
use webpresence::signature::Keyring;
use webpresence::web::request::{Proven, Query, Request};

const SITE: &str = "presence.example.com";
const KEY: &str = "not one that anybody would guess: 0815";

/// A configuration that signs, in a directory of its own.
struct Installed {
    dir: TempDir,
}

impl Installed {
    fn new() -> Installed {
        let installed = Installed { dir: tempfile::tempdir().expect("a directory of our own") };
        installed.put("sign.key", &format!("{KEY}\n"));
        installed.configure("requester = signed\nsign_key_file = sign.key\nsign_days = 30\n");
        installed
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).expect("the directory is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the file is ours");
        path
    }

    /// With these lines in `[access]`. Nobody listens where the XMPP server should be.
    fn configure(&self, access: &str) {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let xmpp = format!("[xmpp]\njid = {SITE}\npassword = x\nport = {}\n", free.port());
        self.put("webpresence.ini", &format!("{xmpp}[access]\nvisibility = anyone\n{access}"));
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_webpresence"));
        command.env_clear().env("HOME", self.dir.path()).stdin(Stdio::null());
        command.arg("--config").arg(self.dir.path().join("webpresence.ini")).args(arguments);
        command.output().expect("built")
    }

    /// The one line that `sign` prints.
    fn sign(&self, arguments: &[&str]) -> String {
        let output = self.run(&[&["sign"], arguments].concat());
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("ASCII");
        let line = text.strip_suffix('\n').expect("a whole line");
        assert!(!line.contains('\n'), "{text}");
        line.to_owned()
    }

    /// The body of the answer to a request.
    fn get(&self, query: &str) -> String {
        let output = self.run(&["get", query]);
        let text = String::from_utf8(output.stdout).expect("text");
        text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_else(|| panic!("{text}"))
    }

    fn read(&self, query: &str) -> Query {
        let vars = [("REQUEST_METHOD", "GET"), ("QUERY_STRING", query)];
        let request = Request { vars: vars.into(), body: Vec::new(), excess: None, arrived: Instant::now() };
        let file = self.dir.path().join("webpresence.ini");
        let config = load(Some(&file), &Environment::from_process()).unwrap_or_else(|errors| panic!("{errors}"));
        Query::parse(&request, &[], &Keyring::of(&config, now_s()))
            .unwrap_or_else(|refusal| panic!("{query}: {refusal:?}"))
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs()
}

fn jid(text: &str) -> BareJid {
    BareJid::new(text).expect("a constant address")
}

/// Whom a link proves to ask, and how many days it still has, rounded.
fn proven(query: &Query) -> Option<(String, u64)> {
    let Proven { requester, exp_s } = query.proven(&jid(SITE))?;
    Some((requester.to_string(), (exp_s - now_s() + 43_200) / 86_400))
}

#[test]
fn what_sign_prints_is_believed() {
    let installed = Installed::new();
    for (arguments, asked, requester, days) in [
        (&["alice@example.com"][..], "alice@example.com", "alice@example.com", 30),
        (
            &["älice@example.com", "--for", "bob@other.example", "--days", "7"],
            "älice@example.com",
            "bob@other.example",
            7,
        ),
        (
            &["rooms.example.com", "--type", "json", "images=/--IMAGE--", "dnd=/x"],
            "rooms.example.com",
            "rooms.example.com",
            30,
        ),
        (&["alice@example.com", "--opaque", "--for", "bob@example.com"], "alice@example.com", "bob@example.com", 30),
    ] {
        let line = installed.sign(arguments);
        let query = installed.read(&line);
        assert_eq!(query.target.jid(), Some(&jid(asked)), "{line}");
        assert_eq!(proven(&query), Some((requester.to_owned(), days)), "{line}");
        assert_eq!(query.target.shown().is_none(), arguments.contains(&"--opaque"), "{line}");
        let late = line.replacen("exp=1", "exp=2", 1).replacen("token=", "token=A", 1);
        assert_eq!(proven(&installed.read(&late)), None, "{late}");
        installed.put("sign.key", &"x".repeat(32));
        assert_eq!(proven(&installed.read(&line)), None, "with another key");
        installed.put("sign.key", KEY);
    }
    let url = installed.sign(&["alice@example.com", "--url", "https://example.com/presence/"]);
    assert!(url.starts_with("https://example.com/presence/?jid=alice@example.com&req_jid="), "{url}");
}

/// The one that opens leads to a lookup, which nobody answers here.
#[test]
fn a_token_asks_and_names_nobody() {
    let installed = Installed::new();
    let sealed = || installed.sign(&["alice@example.com", "--opaque", "--type", "json"]);
    let (token, other) = (sealed(), sealed());
    assert_ne!(token, other, "each has a nonce of its own");
    let told = |show: &str, label: &str| {
        format!(
            "{{\"jid\":null,\"show\":\"{show}\",\"status\":null,\"priority\":null,\"label\":\"{label}\",\"since\":null}}\n"
        )
    };
    assert_eq!(installed.get(&token), told("unknown", "Unknown"));
    assert_eq!(installed.get(&format!("{token}A&type=json&jid=alice@example.com")), told("forbidden", "Forbidden"));
}

#[test]
fn what_cannot_be_signed_is_said() {
    let installed = Installed::new();
    let check = |arguments: &[&str], code: i32, message: &str| {
        let output = installed.run(&[&["sign"], arguments].concat());
        let message = format!("webpresence: {message}\n");
        let found = (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), output.stdout);
        assert_eq!(found, (Some(code), message, Vec::new()), "{arguments:?}");
    };
    let hint = "\nTry: webpresence --help";
    check(&[], 2, &format!("sign takes one JID{hint}"));
    check(&["alice@example.com/home"], 2, &misuse("alice@example.com/home"));
    check(&["a@example.com", "--type", "x"], 2, &format!("--type x: not one of image, text, xml, json, avatar{hint}"));
    check(&["a@example.com", "--days", "31"], 1, "--days 31: more than sign_days in [access], which is 30");
    check(&["a@example.org"], 1, "a@example.org: none of the [access] domains serves example.org");
    installed.configure("");
    let unable = format!("{SITE} believes no links: [access] needs requester = signed and sign_key_file");
    check(&["a@example.com"], 1, &unable);
}

/// What the parser of addresses says itself is its own business.
fn misuse(text: &str) -> String {
    let reason = BareJid::new(text).expect_err("it has a resource");
    format!("{text}: not a JID without a resource: {reason}\nTry: webpresence --help")
}

/// What a signer prints for a link with everything and one with nothing but people.
fn signed_elsewhere(program: &str, package: &str, arguments: &[&str]) {
    let installed = Installed::new();
    let output = Command::new(program).args(arguments).arg(KEY).arg(SITE).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}; install it with: apt-get install {package}"));
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("ASCII");
    let lines: Vec<_> = text.lines().collect();
    let [plain, full] = lines[..] else { panic!("two links: {text}") };
    assert_eq!(proven(&installed.read(plain)), Some(("bob@example.com".to_owned(), 1)), "{plain}");
    let query = installed.read(full);
    assert_eq!(proven(&query), Some(("bob@example.com".to_owned(), 7)), "{full}");
    assert_eq!(query.target.shown(), Some(&jid("älice@example.com")));
    assert_eq!(query.redirects.target(State::Xa), Some("https://h.example/xa.png?a=b&c=%C3%A9%20d"));
    assert_eq!(proven(&installed.read(&full.replace("xml", "text"))), None);
}

const IMAGES: &str = "https://h.example/--IMAGE--.png?a=b&c=é d";

#[test]
fn a_link_signed_in_python_is_believed() {
    let signer = include_str!("../contrib/sign/sign.py");
    let links = format!(
        "import sys\nkey, site = sys.argv[1].encode(), sys.argv[2]\n\
         print(sign(key, site, 1, jid='alice@example.com', req_jid='bob@example.com'))\n\
         print(sign(key, site, 7, jid='älice@example.com', req_jid='bob@example.com', type='xml', images='{IMAGES}'))\n"
    );
    signed_elsewhere("python3", "python3", &["-X", "utf8", "-c", &format!("{signer}\n{links}")]);
}

#[test]
fn a_link_signed_in_php_is_believed() {
    let signer = include_str!("../contrib/sign/sign.php").strip_prefix("<?php").expect("it is PHP");
    let links = format!(
        "[, $key, $site] = $argv;\n\
         echo sign($key, $site, 1, ['jid' => 'alice@example.com', 'req_jid' => 'bob@example.com']), \"\\n\";\n\
         echo sign($key, $site, 7, ['jid' => 'älice@example.com', 'req_jid' => 'bob@example.com', 'type' => 'xml', \
         'images' => '{IMAGES}']), \"\\n\";\n"
    );
    signed_elsewhere("php", "php-cli", &["-r", &format!("{signer}\n{links}"), "--"]);
}
