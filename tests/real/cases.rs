//! Whom the tests ask about, and every answer the contract gives about him.

use crate::rig::http::Answer;
use crate::rig::repository;

/// Somebody, and his answers in whole.
pub struct Case {
    pub jid: String,
    pub state: &'static str,
    pub text: String,
    pub xml: String,
    pub json: String,
}

/// The four types of answer.
pub const TYPES: [&str; 4] = ["image", "text", "xml", "json"];

/// The cast of the world, those who are not in it, and what is not a person.
pub fn cases() -> Vec<Case> {
    vec![
        case(
            "available@example.test",
            "available",
            "Available",
            r#"<presence from="available@example.test"/>"#,
            r#""status":null,"priority":0,"label":"Available""#,
        ),
        case(
            "chat@example.test",
            "chat",
            "Ask me anything",
            r#"<presence from="chat@example.test"><show>chat</show><status>Ask me anything</status><priority>1</priority></presence>"#,
            r#""status":"Ask me  anything","priority":1,"label":"Free for chat""#,
        ),
        case(
            "away@example.test",
            "away",
            "Lunch",
            r#"<presence from="away@example.test"><show>away</show><status>Lunch</status><priority>5</priority></presence>"#,
            r#""status":"Lunch","priority":5,"label":"Away""#,
        ),
        case(
            "xa@example.test",
            "xa",
            "Extended away",
            r#"<presence from="xa@example.test"><show>xa</show></presence>"#,
            r#""status":null,"priority":0,"label":"Extended away""#,
        ),
        case(
            "dnd@example.test",
            "dnd",
            r#"R&D <"1">"#,
            r#"<presence from="dnd@example.test"><show>dnd</show><status>R&amp;D &lt;&quot;1&quot;&gt;</status><priority>-1</priority></presence>"#,
            r#""status":"R&D <\"1\">","priority":-1,"label":"Do not disturb""#,
        ),
        case(
            "gone@example.test",
            "offline",
            "See you tomorrow",
            r#"<presence type="unavailable" from="gone@example.test"><status>See you tomorrow</status></presence>"#,
            r#""status":"See you tomorrow","priority":null,"label":"Unavailable""#,
        ),
        offline("silent@example.test"),
        forbidden("stranger@example.test"),
        forbidden("nobody@example.test"),
        // A domain that is not served: nobody is asked.
        forbidden("available@elsewhere.test"),
        // One that is served, but whose server cannot be reached.
        unknown("available@dead.test"),
        // The server itself, its service with rooms, a room, one that is not there, a connected component, another.
        available("example.test"),
        available("rooms.example.test"),
        available("lounge@rooms.example.test"),
        forbidden("nowhere@rooms.example.test"),
        available("other.example.test"),
        offline("idle.example.test"),
    ]
}

pub fn away(jid: &str) -> Case {
    let xml = format!(r#"<presence from="{jid}"><show>away</show><status>Lunch</status></presence>"#);
    case(jid, "away", "Lunch", &xml, r#""status":"Lunch","priority":0,"label":"Away""#)
}

fn case(jid: &str, state: &'static str, text: &str, xml: &str, json: &str) -> Case {
    Case {
        jid: jid.to_owned(),
        state,
        text: format!("{text}\n"),
        xml: format!("{xml}\n"),
        json: format!(r#"{{"jid":"{jid}","show":"{state}",{json},"since":null}}"#) + "\n",
    }
}

fn available(jid: &str) -> Case {
    let xml = format!(r#"<presence from="{jid}"/>"#);
    case(jid, "available", "Available", &xml, r#""status":null,"priority":0,"label":"Available""#)
}

pub fn offline(jid: &str) -> Case {
    let xml = format!(r#"<presence type="unavailable" from="{jid}"><status>Unavailable</status></presence>"#);
    case(jid, "offline", "Unavailable", &xml, r#""status":null,"priority":null,"label":"Unavailable""#)
}

pub fn forbidden(jid: &str) -> Case {
    let error = error(jid, 403, "auth", "forbidden");
    case(jid, "forbidden", "Forbidden", &error, r#""status":null,"priority":null,"label":"Forbidden""#)
}

/// As it is told to somebody who was believed to be `to`.
pub fn forbidden_to(jid: &str, to: &str) -> Case {
    let case = forbidden(jid);
    let (from, named) = (format!(r#"from="{jid}""#), format!(r#"from="{jid}" to="{to}""#));
    Case { xml: case.xml.replace(&from, &named), ..case }
}

pub fn unknown(jid: &str) -> Case {
    let error = error(jid, 503, "wait", "service-unavailable");
    case(jid, "unknown", "Unknown", &error, r#""status":null,"priority":null,"label":"Unknown""#)
}

fn error(jid: &str, code: u16, kind: &str, condition: &str) -> String {
    let namespace = "urn:ietf:params:xml:ns:xmpp-stanzas";
    let inside = format!(r#"<error code="{code}" type="{kind}"><{condition} xmlns="{namespace}"/></error>"#);
    format!(r#"<presence type="error" from="{jid}">{inside}</presence>"#)
}

impl Case {
    /// Compares a whole answer: status, type, body, and how long it may be kept.
    pub fn check(&self, kind: &str, answer: &Answer) {
        self.check_body(kind, answer, &self.jid);
        self.check_headers(kind, answer);
    }

    /// Compares status, type and body; `what` is said where they differ.
    pub fn check_body(&self, kind: &str, answer: &Answer, what: &str) {
        let (content_type, body) = match kind {
            "image" => ("image/png", icon(self.state)),
            "text" => ("text/plain; charset=utf-8", self.text.clone().into_bytes()),
            "xml" => ("text/xml; charset=utf-8", self.xml.clone().into_bytes()),
            "json" => ("application/json", self.json.clone().into_bytes()),
            other => panic!("no such type: {other}"),
        };
        let found = (answer.status, answer.header("Content-Type"), legible(&answer.body));
        assert_eq!(found, (self.status(kind), Some(content_type), legible(&body)), "{what} as {kind}");
    }

    fn status(&self, kind: &str) -> u16 {
        match (self.state, kind) {
            ("forbidden", "json") => 403,
            ("unknown", "text" | "xml" | "json") => 503,
            _ => 200,
        }
    }

    fn check_headers(&self, kind: &str, answer: &Answer) {
        let what = || format!("{} as {kind}: {:?}", self.jid, answer.headers);
        for (name, value) in [
            ("X-Content-Type-Options", "nosniff"),
            ("X-Robots-Tag", "noindex"),
            ("Cross-Origin-Resource-Policy", "cross-origin"),
            ("Access-Control-Allow-Origin", "*"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{}", what());
        }
        let length = answer.body.len().to_string();
        assert_eq!(answer.header("Content-Length"), Some(length.as_str()), "{}", what());
        let kept = answer.header("Cache-Control").unwrap_or_default();
        match self.status(kind) {
            _ if self.state == "unknown" => {
                assert!(answer.header("Retry-After").is_some() && kept == "no-store", "{}", what())
            }
            403 => assert_eq!(kept, "no-store", "{}", what()),
            _ => assert!(kept.starts_with("public, max-age=") || kept == "max-age=0", "{}", what()),
        }
        assert_eq!(answer.header("ETag").is_some(), answer.status == 200, "{}", what());
    }
}

/// Bytes for people: a picture by the name of the shipped one that it is.
fn legible(body: &[u8]) -> String {
    let states = ["available", "chat", "away", "xa", "dnd", "offline", "forbidden", "unknown"];
    match states.iter().find(|state| icon(state) == body) {
        Some(state) => format!("the picture of {state}"),
        None => body.escape_ascii().to_string(),
    }
}

/// The shipped picture of a state at its default size.
pub fn icon(state: &str) -> Vec<u8> {
    let path = repository(&format!("images/default/{state}-16.png"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
