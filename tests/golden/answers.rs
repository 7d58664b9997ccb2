//! What the contract says of each situation, as files: states by types and texts, refusals, redirects, headers.

use super::*;

/// Status texts, the hostile ones included, by a name for the file.
fn texts() -> Vec<(&'static str, String)> {
    let rows = [
        ("no text", ""),
        ("plain", "Out for lunch"),
        ("markup", "\"quoted\" & 'single' <script>alert(1)</script> ]]> <!-- &amp;"),
        ("emoji", "🙂 Grüße aus Zürich 👩‍💻"),
        ("right to left", "שלום \u{202e}abc\u{202c}"),
        ("control", "a\u{0}b\u{1}\u{1b}[31m\u{7f}\u{fffe}\u{ffff}c"),
        ("only control", "\u{1}\u{2}"),
        ("lines", "  first\r\n\tsecond\n\n third\u{2028}fourth  "),
        ("null", "null"),
    ];
    let mut texts = rows.map(|(name, text)| (name, text.to_owned())).to_vec();
    texts.push(("64 KiB", "long ".repeat(64 * 1024 / 5)));
    texts
}

fn found(state: State, text: &str) -> Found {
    if state == State::Unknown { nothing() } else { known(state, text, if text.is_empty() { 0 } else { 5 }) }
}

#[test]
fn every_state_as_text_xml_and_json() {
    for kind in ["text", "xml", "json"] {
        let mut all = String::new();
        for state in State::ALL {
            for (name, text) in texts() {
                let response = told(&open_site(), &get(&format!("jid=a@example.com&type={kind}")), found(state, &text));
                all += &format!("### {}, {name}\n{}\n", state.name(), written(&response));
            }
        }
        check(&format!("{kind}.txt"), &all);
    }
}

#[test]
fn every_state_as_a_picture() {
    let mut all = String::new();
    for state in State::ALL {
        for form in ["", "&format=gif", "&format=webp", "&format=svg", "&size=24&scale=2", "&format=svg&size=64"] {
            let response = told(&open_site(), &get(&format!("jid=a@example.com{form}")), found(state, "Lunch"));
            all += &format!("### {} {form}\n{}\n", state.name(), written(&response));
        }
    }
    check("image.txt", &all);
}

/// What somebody published, by a name for the file, and whether anything can be made of it.
fn published() -> [(&'static str, &'static [u8], bool); 4] {
    [
        ("PNG", include_bytes!("avatar.png"), true),
        ("JPEG", include_bytes!("avatar.jpg"), true),
        ("half a JPEG's header", b"\xff\xd8\xff\xe0", false),
        ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", false),
    ]
}

/// The picture where there is one, and else what `type=image` shows, byte for byte and header for header.
#[test]
fn every_state_as_an_avatar() {
    let ask = |kind: &str, form: &str, found: &Found| {
        told(&open_site(), &get(&format!("jid=a@example.com&type={kind}{form}")), found.clone())
    };
    let mut all = String::new();
    for state in State::ALL {
        let nobody = found(state, "Lunch");
        for form in ["", "&format=gif", "&format=webp&size=24&scale=2"] {
            let icon = ask("image", form, &nobody);
            assert_eq!(written(&ask("avatar", form, &nobody)), written(&icon), "{state:?} {form}");
            for (name, bytes, is_picture) in published() {
                let mut shown = nobody.clone();
                if let Found::Known { sight, .. } = &mut shown {
                    sight.picture = Picture::new(bytes);
                }
                let answer = ask("avatar", form, &shown);
                let is_shown = is_picture && !matches!(state, State::Forbidden | State::Unknown);
                assert_eq!(answer.body != icon.body, is_shown, "{state:?} {name} {form}");
                assert_eq!(answer.headers[0], icon.headers[0], "the type");
                let secret = answer.body.windows(6).any(|window| window == b"SECRET");
                assert!(!secret, "what the original says beside its pixels");
                if state == State::Away {
                    all += &format!("### {name} {form}\n{}\n", written(&answer));
                }
            }
        }
    }
    check("avatar.txt", &all);
}

#[test]
fn refusals() {
    let long = |name: &str, bytes: usize| format!("jid=a@example.com&type=text&{name}=/{}", "a".repeat(bytes));
    let mut all = String::new();
    for query in [
        "".to_owned(),
        "jid=".to_owned(),
        "jid=a@example.com/home".to_owned(),
        "jid=a@b@c&type=text".to_owned(),
        "jid=a@b@c&type=xml".to_owned(),
        "jid=a@b@c&type=json".to_owned(),
        "jid=a@b@c&format=svg&size=32".to_owned(),
        "jid=a@example.com,b@example.com&type=json".to_owned(),
        "jid=%FF&type=text".to_owned(),
        "jid=a%0Ab@example.com&type=text".to_owned(),
        "jid=a@example.com&type=".to_owned(),
        "jid=a@example.com&type=Image".to_owned(),
        "jid=a@example.com&type=html".to_owned(),
        "jid=a@example.com&format=jpeg".to_owned(),
        "jid=a@example.com&type=avatar&format=svg".to_owned(),
        "jid=a@example.com&type=text&size=7".to_owned(),
        "jid=a@example.com&type=text&scale=3".to_owned(),
        "jid=a@example.com&type=json&lang=%22".to_owned(),
        "jid=a@example.com&type=json&images=javascript:alert(1)".to_owned(),
        "jid=a@example.com&type=text&dnd=//user@evil.example/".to_owned(),
        long("images", 2048),
        long("x", 8192),
    ] {
        let (response, asked) = ask(&open_site(), &get(&query), known(State::Away, "", 0));
        assert_eq!(asked, None, "nothing is looked up for {query}");
        let shown: String = query.chars().take(100).collect();
        all += &format!("### {shown}\n{}\n", written(&response));
    }
    check("refusals.txt", &all);
}

#[test]
fn redirects() {
    let images = "images=http://www.example.com/images/--IMAGE--.gif";
    let mut all = String::new();
    for state in State::ALL {
        for redirect in
            [images, &format!("{images}&dnd=/busy.png&unknown=/who.png"), "dnd=/busy.png", "offline=/off.png"]
        {
            let response = told(&open_site(), &get(&format!("jid=a@example.com&{redirect}")), found(state, ""));
            all += &format!("### {} {redirect}\n{}\n", state.name(), written(&response));
        }
    }
    check("redirects.txt", &all);
}

#[test]
fn headers() {
    let (xml, image) = ("jid=a@example.com&type=xml", "jid=a@example.com&images=/--IMAGE--.png");
    let accept_language: &[(&str, &[u8])] = &[("HTTP_ACCEPT_LANGUAGE", b"de-AT, en;q=0.5")];
    let old = Duration::from_secs(45);
    let rows: Vec<(&str, Request, Found)> = vec![
        ("HEAD", request("HEAD", xml.as_bytes(), &[]), known(State::Away, "", 0)),
        ("POST", request("POST", xml.as_bytes(), &[]), known(State::Away, "", 0)),
        ("PUT", request("PUT", b"jid=a@example.com&type=json", &[]), known(State::Away, "", 0)),
        ("HEAD of a refusal", request("HEAD", b"type=text", &[]), known(State::Away, "", 0)),
        ("OPTIONS", request("OPTIONS", b"", &[]), known(State::Away, "", 0)),
        ("OPTIONS with a login", request("OPTIONS", b"", &[("REMOTE_USER", b"x")]), known(State::Away, "", 0)),
        ("12.5 seconds old", get(xml), aged(State::Away, "", 0, Duration::from_millis(12_500))),
        ("older than ttl", get(xml), aged(State::Away, "", 0, old)),
        ("older than ttl, redirect", get(image), aged(State::Away, "", 0, old)),
        ("version known", request("GET", xml.as_bytes(), &[("HTTP_IF_NONE_MATCH", b"*")]), known(State::Away, "", 0)),
        (
            "version known, POST",
            request("POST", xml.as_bytes(), &[("HTTP_IF_NONE_MATCH", b"*")]),
            known(State::Away, "", 0),
        ),
        (
            "version known, JSON, older than ttl",
            request("GET", b"jid=a@example.com&type=json", &[("HTTP_IF_NONE_MATCH", b"*")]),
            aged(State::Away, "", 0, old),
        ),
        ("REMOTE_USER", request("GET", xml.as_bytes(), &[("REMOTE_USER", b"x")]), known(State::Away, "", 0)),
        (
            "Authorization",
            request("GET", xml.as_bytes(), &[("HTTP_AUTHORIZATION", b"Basic x")]),
            known(State::Away, "", 0),
        ),
        (
            "AUTH_TYPE, redirect",
            request("GET", image.as_bytes(), &[("AUTH_TYPE", b"Basic")]),
            known(State::Away, "", 0),
        ),
        ("REMOTE_USER, not known", request("GET", xml.as_bytes(), &[("REMOTE_USER", b"x")]), nothing()),
        ("an empty REMOTE_USER", request("GET", xml.as_bytes(), &[("REMOTE_USER", b"")]), known(State::Away, "", 0)),
        (
            "page visit",
            request("GET", image.as_bytes(), &[("HTTP_SEC_FETCH_DEST", b"document")]),
            known(State::Away, "", 0),
        ),
        (
            "redirect parameter that text has no use for",
            get("jid=a@example.com&type=text&images=/x"),
            known(State::Away, "", 0),
        ),
        (
            "JSON, Accept-Language",
            request("GET", b"jid=a@example.com&type=json", accept_language),
            known(State::Offline, "", 0),
        ),
        (
            "JSON, lang",
            request("GET", b"jid=a@example.com&type=json&lang=en", accept_language),
            known(State::Offline, "", 0),
        ),
        ("XML, Accept-Language", request("GET", xml.as_bytes(), accept_language), known(State::Offline, "", 0)),
        ("XML, lang", get("jid=a@example.com&type=xml&lang=de"), known(State::Offline, "", 0)),
        ("component", get("jid=rooms.example.com&type=xml"), known(State::Available, "", 0)),
    ];
    let mut all = String::new();
    for (name, request, found) in rows {
        all += &format!("### {name}\n{}\n", written(&told(&open_site(), &request, found)));
    }
    for (name, query) in [
        ("user", "jid=a@example.com&type=xml"),
        ("user, requester", "jid=a@example.com&type=xml&req_jid=b@example.com"),
        ("user as JSON", "jid=a@example.com&type=json"),
        ("component", "jid=rooms.example.com&type=xml&req_jid=b@example.com"),
        ("refused request", "type=text"),
    ] {
        let response = told(&closed_site(), &get(query), known(State::Available, "", 0));
        all += &format!("### visible to subscribers, {name}\n{}\n", written(&response));
    }
    check("headers.txt", &all);
}

/// A picture of an odd size that is not made by the deadline is a ready one, and nobody keeps it.
#[test]
fn a_picture_that_is_not_made_in_time() {
    let late = |query: &str| Request { arrived: Instant::now() - Duration::from_secs(60), ..get(query) };
    let open = open_site();
    let odd = told(&open, &late("jid=a@example.com&size=511&scale=2&format=webp"), known(State::Away, "", 0));
    assert_eq!(odd.status, 200);
    assert!(odd.headers.contains(&("Content-Type", "image/png".into())), "{:?}", odd.headers);
    assert_eq!(
        odd.headers.iter().filter(|(name, _)| *name == "Cache-Control").collect::<Vec<_>>(),
        [&("Cache-Control", "no-store".into())]
    );
    let ready = told(&open, &get("jid=a@example.com&size=512"), known(State::Away, "", 0));
    assert_eq!(odd.body, ready.body);
}

/// The texts in several languages, and the words, follow `lang`; only for `json` also the browser's languages.
#[test]
fn languages() {
    let mut texts = Texts::default();
    texts.insert("", "Lunch");
    texts.insert("de", "Mittag");
    let presence = Presence { texts, ..Presence::bare(State::Away) };
    for (query, text) in [
        ("type=text", "Lunch\n"),
        ("type=text&lang=de-AT", "Mittag\n"),
        ("type=text&lang=fr,de", "Mittag\n"),
        ("type=xml", "<presence from=\"a@example.com\"><show>away</show><status>Lunch</status></presence>\n"),
        (
            "type=json",
            "{\"jid\":\"a@example.com\",\"show\":\"away\",\"status\":\"Mittag\",\"priority\":0,\"label\":\"Away\",\"since\":null}\n",
        ),
    ] {
        let request =
            request("GET", format!("jid=a@example.com&{query}").as_bytes(), &[("HTTP_ACCEPT_LANGUAGE", b"de")]);
        let found = Found::Known { sight: Sight::bare(presence.clone()), age: Duration::ZERO };
        assert_eq!(str::from_utf8(&told(&open_site(), &request, found).body), Ok(text), "{query}");
    }
}

/// An answer is made inside a task that any thread may go on with.
#[test]
fn answers_move_between_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime without I/O");
    let task = async {
        let (config, icons, request) = (open_site(), Arc::new(Icons::default()), get("jid=a@example.com&type=text"));
        answer(&config, &icons, &request, NOW_S, async |_: &Identity, _: Wanted, _: Instant| {
            tokio::task::yield_now().await;
            known(State::Dnd, "", 0)
        })
        .await
    };
    let response = runtime.block_on(async { tokio::spawn(task).await }).expect("it does not panic");
    assert_eq!(&response.body[..], b"Do not disturb\n");
}
