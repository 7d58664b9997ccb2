//! The faults of the original's web side, each as the test that keeps us from having it, and what must stay hidden.

use super::*;

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
}

/// Fault 1: the URL of a state was fetched by the server, files included. Here it is only ever redirected to.
#[test]
fn fault_1_a_state_url_is_only_redirected_to() {
    let response = told(&open_site(), &get("jid=a@example.com&away=http://127.0.0.1:1/a"), known(State::Away, "", 0));
    assert_eq!((response.status, header(&response, "Location")), (302, Some("http://127.0.0.1:1/a")));
    assert_eq!(&response.body[..], b"");
    let response = told(&open_site(), &get("jid=a@example.com&away=file:///etc/passwd"), known(State::Away, "", 0));
    assert_eq!((response.status, header(&response, "Location")), (400, None));
}

/// Fault 2: `images` redirected anywhere, also to a script.
#[test]
fn fault_2_images_leads_to_no_script() {
    for url in ["javascript:alert(1)", "JAVASCRIPT:alert(1)", "data:text/html,x", "%0Ajavascript:x", "/%5Cevil.example"]
    {
        for kind in ["image", "text", "xml", "json"] {
            let query = format!("jid=a@example.com&type={kind}&images={url}");
            let response = told(&open_site(), &get(&query), known(State::Away, "", 0));
            assert_eq!((response.status, header(&response, "Location")), (400, None), "{query}");
        }
    }
    let visit = request("GET", b"jid=a@example.com&images=http://evil.example/", &[("HTTP_ACCEPT", b"text/html")]);
    let response = told(&open_site(), &visit, known(State::Away, "", 0));
    assert_eq!((response.status, header(&response, "Content-Type")), (200, Some("image/png")));
}

/// Fault 3: whoever claimed the target's own local part was let in, from any domain.
#[test]
fn fault_3_the_same_local_part_is_not_the_same_person() {
    for requester in ["alice@evil.example", "alice@example.com", "alice"] {
        let query = format!("jid=alice@example.com&type=text&req_jid={requester}");
        let response = told(&closed_site(), &get(&query), known(State::Away, "", 0));
        assert_eq!(&response.body[..], b"Forbidden\n", "{requester}");
    }
}

/// Fault 4: a requester without a local part was an internal error.
#[test]
fn fault_4_a_requester_without_local_part_is_no_error() {
    for requester in ["example.com", "@example.com", "b@", "", "%20", "a/b"] {
        for (config, expected) in [(open_site(), "Away\n"), (closed_site(), "Forbidden\n")] {
            let query = format!("jid=a@example.com&type=text&req_jid={requester}");
            let response = told(&config, &get(&query), known(State::Away, "", 0));
            assert_eq!((response.status, str::from_utf8(&response.body)), (200, Ok(expected)), "{requester}");
        }
    }
}

/// Fault 5: a component that is away showed the icon of one that is there.
#[test]
fn fault_5_a_component_that_cannot_be_asked_is_not_available() {
    let icon = |found| told(&open_site(), &get("jid=rooms.example.com"), found).body;
    let available = icon(known(State::Available, "", 0));
    assert_ne!(icon(known(State::Offline, "", 0)), available);
    assert_ne!(icon(nothing()), available);
    assert_ne!(icon(nothing()), icon(known(State::Offline, "", 0)));
}

/// Fault 6: somebody offline with an empty last status was called available.
#[test]
fn fault_6_offline_with_a_blank_status_is_unavailable() {
    for status in ["", " ", "\n", "\u{1}"] {
        for (kind, expected) in [
            ("text", "Unavailable\n"),
            ("xml", "<presence type=\"unavailable\" from=\"a@example.com\"><status>Unavailable</status></presence>\n"),
        ] {
            let query = format!("jid=a@example.com&type={kind}");
            let response = told(&open_site(), &get(&query), known(State::Offline, status, 0));
            assert_eq!(str::from_utf8(&response.body), Ok(expected), "{status:?}");
        }
    }
}

/// Fault 8: text said `null`, and letters outside ISO-8859-1 became question marks.
#[test]
fn fault_8_text_is_never_null_and_keeps_its_letters() {
    for state in State::ALL {
        for status in ["", " ", "null", " null\n"] {
            let found = if state == State::Unknown { nothing() } else { known(state, status, 0) };
            let body = told(&open_site(), &get("jid=a@example.com&type=text"), found).body;
            assert!(body.len() > 1 && *body != *b"null\n", "{state:?} {status:?}");
        }
    }
    let response = told(&open_site(), &get("jid=a@example.com&type=text"), known(State::Away, "Обед 🍜", 0));
    assert_eq!(response.body, "Обед 🍜\n".as_bytes());
    assert_eq!(header(&response, "Content-Type"), Some("text/plain; charset=utf-8"));
}

/// Who is not served, who refuses and who does not exist get one answer: status, every header, every byte.
#[test]
fn a_refusal_does_not_tell_why() {
    let mixed = parsed(
        &[("", "anyone", "example.com"), ("corp", "subscribers", "corp.example"), ("org", "anyone", "example.org")]
            .map(|(name, visibility, domain)| identity(name, visibility, domain))
            .concat(),
    );
    for config in [&open_site(), &closed_site(), &mixed] {
        for form in
            ["", "&type=text", "&type=xml", "&type=json", "&format=svg", "&images=/--IMAGE--", "&type=xml&req_jid=b@c"]
        {
            let mut answers = Vec::new();
            for domain in ["example.com", "corp.example", "example.org", "nowhere.example", "rooms.corp.example"] {
                for local in ["a@", ""] {
                    let query = format!("jid={local}{domain}{form}");
                    let response = told(config, &get(&query), known(State::Forbidden, "hidden", 3));
                    assert!(!written(&response).contains("hidden"));
                    // The address that was asked about is in it; nothing else may differ. What depends on the length or
                    // the digest of the body has to go with it.
                    let text = written(&response).replace(&format!("{local}{domain}"), "JID");
                    let own = |line: &&str| !line.starts_with("ETag: ") && !line.starts_with("Content-Length: ");
                    answers.push(text.lines().filter(own).collect::<Vec<_>>().join("\n"));
                }
            }
            answers.dedup();
            assert_eq!(answers.len(), 1, "{form}: {answers:#?}");
        }
    }
}

#[test]
fn a_refused_address_and_an_unserved_one_of_equal_length_have_equal_headers() {
    for kind in ["image", "text", "json"] {
        let headers = |domain: &str| {
            let query = format!("jid=abc@{domain}&type={kind}");
            told(&open_site(), &get(&query), known(State::Forbidden, "", 0)).headers
        };
        assert_eq!(headers("example.com"), headers("another.com"));
    }
}

#[test]
fn nobody_is_asked_about_an_unserved_domain() {
    for (config, jid, expected) in [
        (open_site(), "a@example.com", Some("a@example.com")),
        (open_site(), "A@Example.COM.", Some("a@example.com")),
        (open_site(), "a@nowhere.example", None),
        (closed_site(), "a@example.com", None),
        (closed_site(), "rooms.example.com", Some("rooms.example.com")),
        (closed_site(), "nowhere.example", None),
    ] {
        let (_, asked) = ask(&config, &get(&format!("jid={jid}")), known(State::Away, "", 0));
        assert_eq!(asked.as_deref(), expected, "{jid}");
    }
}
