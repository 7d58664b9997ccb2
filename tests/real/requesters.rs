//! How somebody proves who he is: by the web server's own login, through nginx and Apache with the shipped snippets, and
//! by a signed link, which is made here a second time, by the description and with no code of the project.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use ring::{digest, hmac};

use crate::cases::{TYPES, away, forbidden, forbidden_to, icon};
use crate::company::{Company, Source, jid, visit};
use crate::doors::{self, Open, SHORT, STATUS};
use crate::rig::http::{Answer, Request};
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Kind, SECRET};
use crate::rig::{apache, nginx};

const LOGIN: &str = "visibility = subscribers\nrequester = remote-user\nrequester_domain = example.test\n";

const USERS: [&str; 7] =
    ["alice", "bob", "frank", "bob@example.test", "alice@evil.example", "bob@evil.example", "frank/bob"];

/// Who logs in, what the request claims beside it, and whether he sees alice; who he is then.
const LOGINS: [(&str, &str, bool, Option<&str>); 11] = [
    ("alice", "", true, None),
    ("bob", "", true, None),
    ("bob@example.test", "", true, None),
    ("bob", "&req_jid=frank@example.test", true, None),
    ("frank", "", false, Some("frank@example.test")),
    ("frank", "&req_jid=bob@example.test", false, Some("frank@example.test")),
    ("frank", "&req_jid=alice@example.test", false, Some("frank@example.test")),
    ("alice@evil.example", "", false, None),
    ("bob@evil.example", "", false, None),
    ("bob@evil.example", "&req_jid=bob@example.test", false, None),
    ("frank/bob", "", false, None),
];

fn logins(open: &Open) {
    let target = format!("{STATUS}?jid=alice@{DOMAIN}&type=text");
    for request in [Request::get(&target), Request::get(&target).login("alice", "a guess")] {
        assert_eq!(open.send(request).status, 401);
    }
    thread::scope(|scope| {
        for (user, claim, sees, believed) in LOGINS {
            scope.spawn(move || {
                let case = match (sees, believed) {
                    (true, _) => away(&jid("alice")),
                    (false, Some(to)) => forbidden_to(&jid("alice"), to),
                    (false, None) => forbidden(&jid("alice")),
                };
                for (kind, path) in TYPES.iter().zip([STATUS, SHORT].iter().cycle()) {
                    let target = format!("{path}?jid=alice@{DOMAIN}&type={kind}{claim}");
                    let answer = open.send(Request::get(&target).login(user, SECRET));
                    case.check_body(kind, &answer, &format!("{user}{claim}"));
                    is_private(&answer);
                }
            });
        }
    });
    // Himself only where he has agreed to be seen.
    let answer = open.send(Request::get(&format!("{STATUS}?jid=frank@{DOMAIN}&type=text")).login("frank", SECRET));
    assert_eq!(answer.text(), "Forbidden\n");
}

/// No page elsewhere reads it, and no cache keeps it.
fn is_private(answer: &Answer) {
    let kept = if answer.status == 403 { "no-store" } else { "private, no-cache" };
    assert_eq!(answer.header("Cache-Control"), Some(kept), "{answer:?}");
    assert_eq!(answer.header("Cross-Origin-Resource-Policy"), Some("same-site"), "{answer:?}");
    assert_eq!(answer.header("Access-Control-Allow-Origin"), None, "{answer:?}");
}

/// At a public address a name is what a header says, whatever the configuration believes elsewhere.
fn forged(open: &Open) {
    for user in ["alice", "bob", "bob@example.test"] {
        for header in ["Webpresence-Auth: 1", "Auth-Type: Basic", "Remote-User: bob", "X-Nothing: 1"] {
            let target = format!("{STATUS}?jid=alice@{DOMAIN}&type=xml&req_jid=bob@example.test");
            let request = Request::get(&target).login(user, SECRET).raw_header(header.as_bytes());
            forbidden(&jid("alice")).check_body("xml", &open.send(request), &format!("{user}, {header}"));
        }
    }
}

#[test]
fn logins_through_nginx() {
    let company = visit(Kind::Prosody, Source::Listed);
    logins(&doors::nginx(nginx::Snippet::Login(&USERS), company.install(LOGIN)));
    forged(&doors::nginx(nginx::Snippet::Public, company.install(LOGIN)));
}

#[test]
fn logins_through_apache() {
    let company = visit(Kind::Ejabberd, Source::Roster);
    logins(&doors::apache(apache::Snippet::Login(&USERS), company.install(LOGIN)));
    forged(&doors::apache(apache::Snippet::Fcgid, company.install(LOGIN)));
    forged(&doors::apache(apache::Snippet::Cgid, company.install(LOGIN)));
}

const KEY: &str = "0123456789abcdef0123456789abcdef-new";
const OLD_KEY: &str = "0123456789abcdef0123456789abcdef-old";

/// What a link binds, in its order; all the rest is absent here.
struct Link<'a> {
    jid: &'a str,
    req_jid: &'a str,
    kind: &'a str,
    images: Option<&'a str>,
}

impl Link<'_> {
    /// The parameters of the link, signed with `key` until `exp`.
    fn query(&self, key: &str, exp: u64) -> String {
        let images = self.images.map(|images| format!("&images={images}")).unwrap_or_default();
        let kid = digest::digest(&digest::SHA256, format!("webpresence-kid-1{key}").as_bytes());
        let kid: String = kid.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), &self.fields(exp));
        let sig = BASE64URL.encode(tag);
        let Link { jid, req_jid, kind, .. } = self;
        format!("jid={jid}&req_jid={req_jid}&type={kind}{images}&exp={exp}&kid={kid}&sig={sig}")
    }

    fn fields(&self, exp: u64) -> Vec<u8> {
        let exp = exp.to_string();
        let named = [Some("webpresence-link-1"), Some("presence0.example.test"), Some(exp.as_str())];
        let bound = [Some(self.jid), Some(self.req_jid), Some(self.kind), self.images];
        let fields = named.into_iter().chain(bound).chain([None; 8]);
        fields
            .flat_map(|field| match field {
                Some(text) => [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat(),
                None => u32::MAX.to_be_bytes().to_vec(),
            })
            .collect()
    }
}

fn signing(company: &Company) -> Webpresence {
    let installed = company.install("visibility = subscribers\nrequester = signed\n");
    let folder = installed.config.parent().expect("a file").to_owned();
    for (name, key) in [("sign.key", KEY), ("old.key", OLD_KEY)] {
        fs::write(folder.join(name), format!("{key}\n")).expect("the directory is ours");
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o600)).expect("the file is ours");
    }
    let keys = "requester = signed\nsign_key_file = sign.key\nsign_key_file_old = old.key\nsign_days = 2\n";
    installed.configure(&installed.configuration().replace("requester = signed\n", keys));
    installed
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970").as_secs()
}

/// What works, and what differs from it by a little: that is refused as a link with no signature at all is.
fn signed_links(kind: Kind, source: Source) {
    let company = visit(kind, source);
    let installed = signing(&company);
    // Whoever holds the link sees what the person himself may see.
    let sign = |options: &[&str]| {
        let printed = installed.run(&[&["sign"], options, &["--type", "text", &jid("alice")]].concat());
        assert!(printed.status.success(), "{printed:?}");
        String::from_utf8_lossy(&printed.stdout).trim().to_owned()
    };
    let (by_command, for_bob, opaque) = (sign(&[]), sign(&["--for", &jid("bob")]), sign(&["--opaque"]));
    assert!(!opaque.contains("alice"), "{opaque}");
    let open = doors::nginx(nginx::Snippet::Public, installed);
    let (alice, bob, soon) = (jid("alice"), jid("bob"), now_s() + 3600);
    let link = |req_jid, kind, images| Link { jid: &alice, req_jid, kind, images };
    let good = link(&bob, "text", None).query(KEY, soon);
    let images = link(&bob, "image", Some("/icons/--IMAGE--.png")).query(KEY, soon);
    for query in [
        &good,
        &by_command,
        &for_bob,
        &opaque,
        &link(&alice, "text", None).query(KEY, soon),
        &link(&bob, "text", None).query(OLD_KEY, soon),
        &format!("{good}&lang=de&anything=1"),
    ] {
        let answer = open.ask(STATUS, query);
        away(&alice).check_body("text", &answer, query);
        assert!(answer.header("Cache-Control").is_some_and(|kept| kept.starts_with("private, max-age=")), "{answer:?}");
    }
    assert_eq!(open.ask(STATUS, &images).header("Location"), Some("/icons/away.png"));
    changed_links(&open, &good, soon, &opaque);
    links_of_others(&open, &good, &images);
}

fn changed_links(open: &Open, good: &str, soon: u64, opaque: &str) {
    let (alice, bob, frank) = (jid("alice"), jid("bob"), jid("frank"));
    let link = |req_jid, key, exp| Link { jid: &alice, req_jid, kind: "text", images: None }.query(key, exp);
    let bare = format!("jid={alice}&type=text");
    let sig = good.rfind('=').expect("it ends with its signature") + 1;
    let changed = if good[sig..].starts_with('A') { "B" } else { "A" };
    let other_key = "0123456789abcdef0123456789abcdef-her";
    let refused = [
        bare.clone(),
        format!("{bare}&req_jid={bob}"),
        format!("{}{changed}{}", &good[..sig], &good[sig + 1..]),
        good[..good.len() - 1].to_owned(),
        format!("{good}A"),
        good.replace("sig=", "sog="),
        good.replace("exp=", "exp=9"),
        good.replace(&soon.to_string(), &(soon + 1).to_string()),
        good.replace(&format!("req_jid={bob}"), &format!("req_jid={alice}")),
        good.replace(&format!("req_jid={bob}&"), ""),
        link(&bob, KEY, now_s() - 1),
        link(&bob, KEY, now_s() + 3 * 24 * 3600),
        link(&bob, other_key, soon),
        link(&frank, KEY, soon),
        link("alice@evil.example", KEY, soon),
        format!("{opaque}A&type=text"),
    ];
    refused_alike(open, "text", &refused);
}

/// Of another person, whom the requester might see; of another type; to another place.
fn links_of_others(open: &Open, good: &str, images: &str) {
    let other = good.replace(&jid("alice"), &jid("gonny"));
    forbidden(&jid("gonny")).check_body("text", &open.ask(STATUS, &other), &other);
    let as_json = good.replace("type=text", "type=json");
    assert_eq!(open.ask(STATUS, &as_json).status, 403);
    let elsewhere = images.replace("/icons/", "/pictures/");
    assert_eq!(open.ask(STATUS, &elsewhere).header("Location"), Some("/pictures/forbidden.png"));
    let plain = images.replace("&images=/icons/--IMAGE--.png", "");
    assert!(open.ask(STATUS, &plain).body == icon("forbidden"));
}

/// Whatever is wrong with a link, the same bytes and headers come back.
fn refused_alike(open: &Open, kind: &str, queries: &[String]) {
    let answers: Vec<Answer> = thread::scope(|scope| {
        let asked: Vec<_> = queries.iter().map(|query| scope.spawn(|| open.ask(STATUS, query))).collect();
        asked.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    let first = lasting(&answers[0]);
    for (query, answer) in queries.iter().zip(&answers) {
        forbidden(&jid("alice")).check_body(kind, answer, query);
        assert_eq!(lasting(answer), first, "{query}");
    }
}

/// The headers but the time of day, and whether the web server's cache was looked at.
fn lasting(answer: &Answer) -> Vec<(String, String)> {
    answer.headers.iter().filter(|(name, _)| !["Date", "X-Cache"].contains(&name.as_str())).cloned().collect()
}

#[test]
fn prosody_signed_links() {
    signed_links(Kind::Prosody, Source::Listed);
}

#[test]
fn ejabberd_signed_links() {
    signed_links(Kind::Ejabberd, Source::Roster);
}
