//! Origins in a real browser: a page elsewhere learns nothing of what its visitor may see by his login, though the
//! browser sends that login along with every question. The page of the site itself learns it, and one of an origin that
//! `cors` lists. The login is a cookie of the site, which nginx asks somebody else about (`auth_request`).

use std::fs;
use std::process::Command;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::company::{Company, Source, visit};
use crate::rig::leash::{Leash, directory};
use crate::rig::nginx::{self, Conf, Nginx};
use crate::rig::webpresence::{Serve, Webpresence};
use crate::rig::xmpp::Kind;
use crate::rig::{certificate, patiently_for, port, program};

/// Three sites (none is part of another), and somebody who knows whose cookie it is.
const HTTP: &str = r#"
    types { text/html html; image/png png; }
    log_format seen escape=none '$host $cookie_user $http_sec_fetch_site $request_uri';
    access_log @DIR@/seen.log seen;
    ssl_certificate @CERT@;
    ssl_certificate_key @KEY@;
    root @DIR@/www;
    server {
        listen 127.0.0.1:@PORT@ ssl;
        server_name site.test;
        include @DIR@/webpresence.conf;
        location = /login {
            add_header Set-Cookie "user=alice; Path=/; Secure; HttpOnly; SameSite=None";
            return 302 $arg_next;
        }
        location = /login/check {
            internal;
            proxy_pass http://unix:@DIR@/login.sock;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
        }
        location = /report { return 204; }
    }
    server {
        listen unix:@DIR@/login.sock;
        access_log off;
        location / {
            if ($cookie_user = "") { return 401; }
            add_header X-User $cookie_user;
            return 204;
        }
    }
    server {
        listen 127.0.0.1:@PORT@ ssl;
        server_name evil.test friend.test;
        location = /report { return 204; }
        location /spy/ { return 204; }
    }
"#;

/// Looks at somebody in every way a page has, and reports what it could see of him.
const PAGE: &str = r#"<!doctype html>
<meta charset="utf-8">
<title>A page</title>
<script>
const about = name => `https://site.test:@PORT@/presence/?jid=${name}@example.test`;
const element = (tag, url, more) => new Promise(done => {
    const node = Object.assign(document.createElement(tag), more);
    node.onload = () => done(`loads, ${node.naturalWidth}`);
    node.onerror = () => done('fails');
    node[tag == 'link' ? 'href' : tag == 'object' ? 'data' : 'src'] = url;
    document.body.append(node);
});
const pixels = async (url, more) => {
    const image = Object.assign(new Image(), more, {src: url});
    try {
        await image.decode();
        const canvas = Object.assign(document.createElement('canvas'), {width: 16, height: 16});
        const context = canvas.getContext('2d');
        context.drawImage(image, 0, 0);
        return context.getImageData(0, 0, 16, 16).data.reduce((sum, byte) => (sum * 31 + byte) >>> 0, 7);
    } catch (error) {
        return error.name;
    }
};
const body = async (url, how) => {
    try {
        const answer = await fetch(url, how);
        return `${answer.type} ${answer.status} ${await answer.text()}`;
    } catch (error) {
        return error.name;
    }
};
const measured = url => performance.getEntriesByName(url).map(entry =>
    [entry.responseStatus, entry.transferSize, entry.encodedBodySize, entry.contentType]).join();
const look = async name => {
    const url = about(name), mine = location.origin;
    const seen = {
        image: await element('img', url),
        icon: await element('img', `${url}&images=/pictures/--IMAGE--.png`),
        one: await element('img', `${url}&away=/pictures/away.png&forbidden=/pictures/none.png`),
        spy: await element('img', `${url}&images=${mine}/spy/--IMAGE--.png`),
        spies: await element('img', `${url}&away=${mine}/spy/away.png&forbidden=${mine}/spy/forbidden.png`),
        pixels: await pixels(`${url}&size=16`),
        shared: await pixels(`${url}&scale=1`, {crossOrigin: 'use-credentials'}),
        text: await body(`${url}&type=text`, {credentials: 'include'}),
        json: await body(`${url}&type=json`, {credentials: 'include'}),
        xml: await body(`${url}&type=xml`, {mode: 'no-cors', credentials: 'include'}),
        posted: await body(`${url}&type=text`, {method: 'POST', credentials: 'include'}),
        script: await element('script', `${url}&type=json`),
        style: await element('link', `${url}&type=text`, {rel: 'stylesheet'}),
        object: await element('object', `${url}&type=json`),
        frame: await element('iframe', `${url}&type=json`),
    };
    seen.measured = measured(url) + measured(`${url}&type=json`) + measured(`${url}&type=xml`);
    return seen;
};
addEventListener('load', async () => {
    const seen = {alice: await look('alice'), ghost: await look('ghost')};
    const text = JSON.stringify(seen).replaceAll('ghost@', 'NAME@').replaceAll('alice@', 'NAME@');
    fetch(`/report?${encodeURIComponent(text)}`);
});
</script>
"#;

/// Debian's browser sends no cookies to other sites by itself; many a visitor's does.
const PREFERENCES: &str = r#"{"profile": {"cookie_controls_mode": 0, "block_third_party_cookies": false}}"#;

const LOGIN: &str = "visibility = subscribers\nrequester = remote-user\nrequester_domain = example.test\n";

/// How long a browser may take to start on a busy machine, and a page to look at two people in fifteen ways.
const BROWSING: Duration = Duration::from_secs(120);

struct Web {
    port: u16,
    nginx: Nginx,
    _serve: Serve,
    _installed: Webpresence,
}

impl Web {
    fn start(company: &Company) -> Web {
        port::retrying("nginx", || {
            let [port] = port::free();
            let installed = company.install(&format!("{LOGIN}cors = https://friend.test:{port}\n"));
            let serve = installed.serve();
            let nginx = site(port, &serve)?;
            Ok(Web { port, nginx, _serve: serve, _installed: installed })
        })
    }

    fn log(&self) -> String {
        fs::read_to_string(self.nginx.dir().join("seen.log")).unwrap_or_default()
    }

    /// Somebody who is logged in at the site visits a page of `host`: what that page reports.
    fn visit(&self, host: &str) -> Value {
        let port = self.port;
        let mut command = Command::new(program("chromium", "chromium"));
        let dir = directory("chromium");
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-breakpad"]);
        // No name outside this machine exists.
        command.arg("--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND");
        command.arg("--ignore-certificate-errors").arg(format!("--user-data-dir={}", dir.path().display()));
        command.arg(format!("https://site.test:{port}/login?next=https://{host}:{port}/page.html"));
        command.env("HOME", dir.path());
        fs::create_dir(dir.path().join("Default")).expect("the directory is ours");
        fs::write(dir.path().join("Default/Preferences"), PREFERENCES).expect("the directory is ours");
        let mut browser = Leash::start(dir, None, &mut command, &[]);
        let report = patiently_for(BROWSING, || {
            assert_eq!(browser.ended(), None, "{}", browser.log());
            let log = self.log();
            let mark = format!("{host} ");
            let line = log.lines().find(|line| line.starts_with(&mark) && line.contains("/report?"))?;
            let report = percent_decode_str(line.split_once("/report?")?.1).decode_utf8().ok()?;
            serde_json::from_str(&report).ok()
        });
        report.unwrap_or_else(|| panic!("a page of {host} does not report:\n{}{}", browser.log(), self.log()))
    }

    /// What came from pages of other sites with the login.
    fn cross_site(&self) -> Vec<String> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| line.strip_prefix("site.test alice cross-site "));
        lines.filter(|uri| uri.starts_with("/presence/?jid=alice@")).map(str::to_owned).collect()
    }
}

fn site(port: u16, serve: &Serve) -> Result<Nginx, String> {
    let dir = directory("nginx");
    let certificate = certificate::make(dir.path(), "site.test");
    let words = [
        ("CERT", certificate.chain.to_str().expect("made by us")),
        ("KEY", certificate.key.to_str().expect("made by us")),
    ];
    let write = |name: &str, text: &[u8]| fs::write(dir.path().join(name), text).expect("the directory is ours");
    fs::create_dir_all(dir.path().join("www/pictures")).expect("the directory is ours");
    write("webpresence.conf", nginx::asking_snippet(&serve.socket).as_bytes());
    write("www/page.html", PAGE.replace("@PORT@", &port.to_string()).as_bytes());
    // Whether it loads tells the state.
    write("www/pictures/away.png", &crate::cases::icon("away"));
    Nginx::run(dir, port, Conf { main: nginx::TALKATIVE, http: HTTP, words: &words })
}

#[test]
fn a_page_elsewhere_learns_nothing_by_the_login_of_its_visitor() {
    let company = visit(Kind::Prosody, Source::Listed);
    let web = Web::start(&company);

    let own = web.visit("site.test");
    assert_eq!(own["alice"]["text"], "basic 200 Lunch\n", "{own:#}");
    assert_eq!([&own["alice"]["icon"], &own["ghost"]["icon"]], ["loads, 16", "fails"], "{own:#}");
    assert_ne!(own["alice"]["pixels"], own["ghost"]["pixels"], "{own:#}");

    // An origin on the list reads what he may see.
    let friend = web.visit("friend.test");
    assert_eq!(friend["alice"]["text"], "cors 200 Lunch\n", "{friend:#}");
    assert_eq!(friend["ghost"]["text"], "cors 200 Forbidden\n", "{friend:#}");
    assert_eq!(friend["alice"]["shared"], own["alice"]["shared"], "{friend:#}");

    let before = web.cross_site().len();
    let evil = web.visit("evil.test");
    assert_eq!(evil["alice"], evil["ghost"], "{evil:#}");
    for way in ["text", "json", "shared", "posted"] {
        assert!(evil["alice"][way].as_str().is_some_and(|seen| seen.ends_with("Error")), "{way}: {evil:#}");
    }
    let spied: Vec<String> = web
        .log()
        .lines()
        .filter(|line| line.starts_with("evil.test ") && line.contains(" /spy/"))
        .map(str::to_owned)
        .collect();
    assert!(!spied.iter().any(|line| line.contains("away")), "{spied:?}");
    // Otherwise nothing of this would mean anything: the login came with all of it.
    let asked = &web.cross_site()[before..];
    for way in ["&images=/pictures/", "&away=/pictures/", "&type=text", "&type=json", "&type=xml", "&scale=1"] {
        assert!(asked.iter().any(|uri| uri.contains(way)), "{way} in {asked:?}");
    }
}
