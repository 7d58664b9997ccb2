//! Who asks, and who may read the answer: logins, links, claims, and the pages and scripts of other sites, as whole
//! answers in a file.

use jid::BareJid;
use webpresence::signature::{Link, Signature};

use super::*;

/// People of example.com, whom [access] treats like this; bob may see a.
fn closed(access: &str) -> Config {
    let xmpp = "[xmpp]\njid = presence.example.com\npassword = secret\n";
    parsed(&format!("{xmpp}[access]\n{access}\n[viewers]\na@example.com = bob@example.com\n"))
}

fn keys() -> SigningKeys {
    SigningKeys { current: Secret::new("k".repeat(32)), old: None, days: 7 }
}

fn signed() -> Config {
    let mut config = closed("visibility = subscribers");
    config.identities[0].access.requester = Requester::Signed(keys());
    config
}

/// The query of a link that ends in so many seconds.
fn link(parameters: &[(&'static str, &str)], seconds: u64) -> String {
    let site = BareJid::new("presence.example.com").expect("a constant address");
    let given = |name: &str| parameters.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned());
    let link = Link::of(|name| given(name).or((name == "type").then(|| "image".to_owned())));
    let signature = Signature::new(&keys(), &site, &link, NOW_S + seconds);
    let all = parameters.iter().map(|(name, text)| (*name, (*text).to_owned())).chain(signature.params());
    all.map(|(name, text)| format!("{name}={text}")).collect::<Vec<_>>().join("&")
}

type Vars<'a> = Vec<(&'a str, &'a str)>;

fn check_all(name: &str, config: &Config, rows: &[(&str, String, Vars)]) {
    let mut all = String::new();
    for (row, query, vars) in rows {
        let vars: Vec<_> = vars.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let method = if row.starts_with("OPTIONS") { "OPTIONS" } else { "GET" };
        let response = told(config, &request(method, query.as_bytes(), &vars), known(State::Away, "Lunch", 0));
        all += &format!("### {row}\n{}\n", written(&response));
    }
    check(name, &all);
}

#[test]
fn logins() {
    let config = closed(
        "visibility = subscribers\nrequester = remote-user\nrequester_domain = example.com\n\
         cors = https://intra.example.com",
    );
    let text = || "jid=a@example.com&type=text".to_owned();
    let image = |url: &str| format!("jid=a@example.com&images={url}/--IMAGE--.png");
    let login = |name: &'static str| vec![("REMOTE_USER", name), ("WEBPRESENCE_AUTH", "1")];
    let with = |vars: &[(&'static str, &'static str)]| [&login("bob"), vars].concat();
    let cross = ("HTTP_SEC_FETCH_SITE", "cross-site");
    let rows = [
        ("a viewer", text(), login("bob")),
        ("a viewer, by Apache", text(), vec![("REMOTE_USER", "bob"), ("AUTH_TYPE", "Basic")]),
        ("himself", text(), login("a")),
        ("somebody else", text(), login("carol")),
        ("a viewer's name in another domain", text(), login("bob@evil.example")),
        ("nobody", text(), vec![]),
        ("a name without a login", text(), vec![("REMOTE_USER", "bob")]),
        ("a claim", text() + "&req_jid=bob@example.com", vec![]),
        ("a claim beside a login", text() + "&req_jid=bob@example.com", login("carol")),
        (
            "a claim beside a login, XML",
            "jid=a@example.com&type=xml&req_jid=bob@example.com".to_owned(),
            login("carol"),
        ),
        ("a page of another site", text(), with(&[cross])),
        ("a script of another site", text(), with(&[cross, ("HTTP_ORIGIN", "https://evil.example")])),
        ("a script of a listed site", text(), with(&[cross, ("HTTP_ORIGIN", "https://intra.example.com")])),
        ("a page of a listed site", text(), with(&[cross, ("HTTP_REFERER", "https://intra.example.com/a")])),
        ("a page of the same site", text(), with(&[("HTTP_SEC_FETCH_SITE", "same-site")])),
        ("redirect at home", image(""), login("bob")),
        ("redirect to the own host", image("https://www.example.com"), with(&[("HTTP_HOST", "www.example.com:8443")])),
        ("redirect elsewhere", image("https://evil.example"), with(&[("HTTP_HOST", "www.example.com")])),
        ("redirect elsewhere, nobody", image("https://evil.example"), vec![("HTTP_HOST", "www.example.com")]),
        ("OPTIONS of a listed site", text(), vec![("HTTP_ORIGIN", "https://intra.example.com")]),
        ("OPTIONS of another site", text(), vec![("HTTP_ORIGIN", "https://evil.example")]),
        ("a component", "jid=rooms.example.com&type=text".to_owned(), vec![]),
        ("not served", "jid=a@nowhere.example&type=text".to_owned(), login("bob")),
    ];
    check_all("logins.txt", &config, &rows);
}

#[test]
fn links() {
    let (a, bob) = (("jid", "a@example.com"), ("req_jid", "bob@example.com"));
    let text = [a, bob, ("type", "text")];
    let rows = [
        ("a viewer", link(&text, 86_400), vec![]),
        ("himself", link(&[a, ("req_jid", "a@example.com"), ("type", "text")], 86_400), vec![]),
        ("somebody else", link(&[a, ("req_jid", "carol@example.com"), ("type", "text")], 86_400), vec![]),
        ("ends before the answer is old", link(&text, 7), vec![]),
        ("has ended", link(&text, 0).replace(&format!("exp={NOW_S}"), &format!("exp={}", NOW_S - 1)), vec![]),
        ("of another type", link(&text, 86_400).replace("type=text", "type=json"), vec![]),
        ("about somebody else", link(&text, 86_400).replace("jid=a@", "jid=b@"), vec![]),
        ("without a signature", "jid=a@example.com&type=text&req_jid=bob@example.com".to_owned(), vec![]),
        ("beside a login", link(&text, 86_400), vec![("REMOTE_USER", "x")]),
        ("with a size", link(&[a, bob], 86_400) + "&size=32", vec![]),
    ];
    check_all("links.txt", &signed(), &rows);
}

#[test]
fn pages_and_scripts_of_other_sites() {
    let config = closed("visibility = anyone\nreferers = www.example.com\ncors = https://www.example.com");
    let json = || "jid=a@example.com&type=json&lang=en".to_owned();
    let image = || "jid=a@example.com&images=/--IMAGE--.png".to_owned();
    let rows = [
        ("nothing is told", json(), vec![]),
        ("a page that may", json(), vec![("HTTP_REFERER", "https://www.example.com/team")]),
        ("a page that may not", json(), vec![("HTTP_REFERER", "https://evil.example/")]),
        ("a page that may not, picture", image(), vec![("HTTP_REFERER", "https://evil.example/")]),
        ("a page of ours", json(), vec![("HTTP_REFERER", "http://s.example/"), ("HTTP_HOST", "s.example")]),
        ("a script that may", json(), vec![("HTTP_ORIGIN", "https://www.example.com")]),
        ("a script that may not", json(), vec![("HTTP_ORIGIN", "https://evil.example")]),
        ("OPTIONS of a script that may", json(), vec![("HTTP_ORIGIN", "https://www.example.com")]),
        ("OPTIONS of a script that may not", json(), vec![("HTTP_ORIGIN", "https://evil.example")]),
        ("redirect", image(), vec![]),
    ];
    check_all("origins.txt", &config, &rows);
}
