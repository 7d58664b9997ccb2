//! What holds for every request, whatever a stranger puts into it.

use proptest::prelude::*;
use rxml::{Event, Parse, Parser};

use super::*;

/// What all header lines of one answer may have together: a web server reads them into one small buffer.
const HEADERS_MAX_BYTES: usize = 4000;

/// Header values are visible ASCII; together they have a limit.
fn check_headers(response: &Response) -> Result<(), TestCaseError> {
    let mut bytes = "Status: 200\r\n\r\n".len();
    for (name, value) in &response.headers {
        prop_assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{name}: {value:?}");
        bytes += name.len() + value.len() + ": \r\n".len();
    }
    prop_assert!(bytes < HEADERS_MAX_BYTES, "{bytes} bytes");
    Ok(())
}

fn found() -> impl Strategy<Value = Found> {
    let known = (0..7usize, any::<String>(), any::<i8>(), 0..400u64);
    let known = known
        .prop_map(|(state, text, priority, age)| aged(State::ALL[state], &text, priority, Duration::from_secs(age)));
    prop_oneof![4 => known, 1 => Just(nothing())]
}

fn name() -> impl Strategy<Value = &'static str> {
    let names = [
        "jid",
        "req_jid",
        "type",
        "images",
        "available",
        "away",
        "dnd",
        "unknown",
        "format",
        "size",
        "scale",
        "lang",
        "exp",
        "kid",
        "sig",
        "token",
        "x",
    ];
    prop::sample::select(names.to_vec())
}

/// Values that reach far into the code, and any bytes at all.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let likely = [
        "a@example.com",
        "rooms.example.com",
        "text",
        "xml",
        "json",
        "image",
        "svg",
        "webp",
        "16",
        "9",
        "2",
        "de,en",
        "/--IMAGE--",
        "http://h.example/--IMAGE--?a=%0d%0a",
        "//h.example:443/é",
        "https://münchen.example/\u{202e}",
    ];
    let likely = prop::sample::select(likely.to_vec()).prop_map(|text| text.as_bytes().to_vec());
    prop_oneof![3 => likely, 1 => any::<Vec<u8>>(), 1 => any::<String>().prop_map(String::into_bytes)]
}

fn var() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let names = [
        "HTTP_ACCEPT",
        "HTTP_ACCEPT_LANGUAGE",
        "HTTP_IF_NONE_MATCH",
        "HTTP_SEC_FETCH_DEST",
        "CONTENT_TYPE",
        "REMOTE_USER",
    ];
    (prop::sample::select(names.to_vec()), any::<Vec<u8>>())
}

fn encoded(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let encode = |value| percent_encoding::percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string();
    pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&").into_bytes()
}

proptest! {
    #[test]
    fn random_bytes_are_answered(query: Vec<u8>, body: Vec<u8>, method in "GET|HEAD|POST|OPTIONS|[ -~]{0,9}", found in found()) {
        let form = b"application/x-www-form-urlencoded".as_slice();
        let mut request = request(&method, &query, &[("CONTENT_TYPE", form)]);
        request.body = body;
        check_headers(&told(&open_site(), &request, found))?;
    }

    #[test]
    fn random_parameters_are_answered(
        pairs in prop::collection::vec((name(), value()), 0..8),
        vars in prop::collection::vec(var(), 0..3),
        found in found(),
    ) {
        let pairs = [vec![("jid", b"a@example.com".to_vec())], pairs].concat();
        let vars: Vec<(&str, &[u8])> = vars.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        let response = told(&open_site(), &request("GET", &encoded(&pairs), &vars), found);
        check_headers(&response)?;
        prop_assert!([200, 302, 304, 400, 403, 503].contains(&response.status));
        prop_assert_eq!(response.status == 302, response.headers.iter().any(|(name, _)| *name == "Location"));
    }

    /// A strict parser reads every `xml`, and finds the status text that `text` shows.
    #[test]
    fn xml_is_well_formed_and_one_line(found in found()) {
        let body = |kind| told(&open_site(), &get(&format!("jid=a@example.com&type={kind}")), found.clone()).body;
        let (xml, text) = (body("xml"), String::from_utf8(body("text").into()).expect("it is UTF-8"));
        prop_assert_eq!(xml.iter().position(|byte| *byte == b'\n'), Some(xml.len() - 1));
        let (mut parser, mut rest, mut texts) = (Parser::new(), xml.trim_ascii_end(), Vec::new());
        while let Some(event) = parser.parse(&mut rest, true).expect("it is well-formed") {
            if let Event::Text(_, text) = event {
                texts.push(text);
            }
        }
        let says = !matches!(text.as_str(), "Forbidden\n" | "Unknown\n") && xml.windows(8).any(|part| part == b"<status>");
        prop_assert!(!says || texts.concat().contains(text.trim_end_matches('\n')), "{texts:?} {text:?}");
    }

    #[test]
    fn json_is_json(found in found()) {
        let response = told(&open_site(), &get("jid=a@example.com&type=json"), found);
        let value: serde_json::Value = serde_json::from_slice(&response.body).expect("it is JSON");
        prop_assert_eq!(value.as_object().map(|object| object.len()), Some(6));
    }
}

#[test]
fn the_longest_redirect_leaves_room_in_the_headers() {
    let query = format!("jid=a@example.com&images=/{}", "a".repeat(2047));
    let response = told(&open_site(), &get(&query), known(State::Away, "", 0));
    assert_eq!(response.status, 302);
    check_headers(&response).expect("they fit");
}
