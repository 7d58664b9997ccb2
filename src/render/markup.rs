//! `type=xml`: the stanza of the original in one line, without declaration and namespace, in double quotes. Programs
//! that were written for the original look for its very text, so every byte of the frame counts.

use std::fmt::Write;

use jid::BareJid;

use super::words::Wording;
use crate::presence::{Presence, State};

pub const CONTENT_TYPE: &str = "text/xml; charset=utf-8";

const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";

/// The presence of `from`. `to` is the requester that was believed; it is named where he was refused, as the original
/// does. Where `from` is hidden both are: people often ask about themselves.
pub fn xml(from: Option<&BareJid>, to: Option<&BareJid>, presence: &Presence, wording: Wording) -> String {
    let to = to.filter(|_| from.is_some());
    let [from, to] = [("from", from), ("to", to)].map(|(name, jid)| attribute(name, jid));
    let line = match presence.state {
        State::Forbidden => error(&(from + &to), 403, "auth", "forbidden"),
        State::Unknown => error(&from, 503, "wait", "service-unavailable"),
        State::Offline => {
            let status = wording.line(presence).unwrap_or_else(|| wording.word(State::Offline).to_owned());
            let status = escape(&status);
            format!(r#"<presence type="unavailable"{from}><status>{status}</status></presence>"#)
        }
        State::Available | State::Chat | State::Away | State::Xa | State::Dnd => online(&from, presence, wording),
    };
    line + "\n"
}

/// With the space before it.
fn attribute(name: &str, jid: Option<&BareJid>) -> String {
    jid.map(|jid| format!(r#" {name}="{}""#, escape(jid.as_str()))).unwrap_or_default()
}

fn online(from: &str, presence: &Presence, wording: Wording) -> String {
    let mut inside = String::new();
    if presence.state != State::Available {
        write!(inside, "<show>{}</show>", presence.state.name()).expect("a String takes everything");
    }
    if let Some(status) = wording.line(presence) {
        write!(inside, "<status>{}</status>", escape(&status)).expect("a String takes everything");
    }
    if presence.priority != 0 {
        write!(inside, "<priority>{}</priority>", presence.priority).expect("a String takes everything");
    }
    match inside.as_str() {
        "" => format!("<presence{from}/>"),
        inside => format!("<presence{from}>{inside}</presence>"),
    }
}

fn error(addresses: &str, code: u16, kind: &str, condition: &str) -> String {
    format!(
        r#"<presence type="error"{addresses}><error code="{code}" type="{kind}"><{condition} xmlns="{STANZAS}"/></error></presence>"#
    )
}

/// Text for an element or for an attribute in double quotes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Words;
    use crate::presence::Texts;

    fn check(to: Option<&str>, state: State, status: &str, priority: i8, expected: &str) {
        told(Some("a@example.com"), to, state, status, priority, expected);
    }

    fn told(from: Option<&str>, to: Option<&str>, state: State, status: &str, priority: i8, expected: &str) {
        let jid = |text| BareJid::new(text).expect("the rows hold addresses");
        let mut texts = Texts::default();
        texts.insert("", status);
        let presence = Presence { state, texts, priority, since: None };
        let wording = Wording { words: &Words::default(), langs: &[] };
        let found = xml(from.map(jid).as_ref(), to.map(jid).as_ref(), &presence, wording);
        assert_eq!(found, format!("{expected}\n"));
    }

    #[test]
    fn every_case_of_the_contract() {
        check(None, State::Available, "", 0, r#"<presence from="a@example.com"/>"#);
        check(
            None,
            State::Away,
            "Lunch",
            5,
            r#"<presence from="a@example.com"><show>away</show><status>Lunch</status><priority>5</priority></presence>"#,
        );
        check(None, State::Available, "", -5, r#"<presence from="a@example.com"><priority>-5</priority></presence>"#);
        check(
            None,
            State::Offline,
            "",
            0,
            r#"<presence type="unavailable" from="a@example.com"><status>Unavailable</status></presence>"#,
        );
        check(
            Some("b@example.com"),
            State::Forbidden,
            "hidden",
            3,
            r#"<presence type="error" from="a@example.com" to="b@example.com"><error code="403" type="auth"><forbidden xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></presence>"#,
        );
        check(
            None,
            State::Forbidden,
            "",
            0,
            r#"<presence type="error" from="a@example.com"><error code="403" type="auth"><forbidden xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></presence>"#,
        );
        check(
            None,
            State::Unknown,
            "",
            0,
            r#"<presence type="error" from="a@example.com"><error code="503" type="wait"><service-unavailable xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></presence>"#,
        );
        check(
            None,
            State::Dnd,
            "<b a=\"1\">\n]]>&amp;",
            0,
            r#"<presence from="a@example.com"><show>dnd</show><status>&lt;b a=&quot;1&quot;&gt; ]]&gt;&amp;amp;</status></presence>"#,
        );
    }
    #[test]
    fn whoever_is_hidden_has_no_address() {
        for (state, expected) in [
            (State::Available, "<presence/>"),
            (State::Dnd, "<presence><show>dnd</show></presence>"),
            (State::Offline, r#"<presence type="unavailable"><status>Unavailable</status></presence>"#),
            (
                State::Forbidden,
                r#"<presence type="error"><error code="403" type="auth"><forbidden xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></presence>"#,
            ),
            (
                State::Unknown,
                r#"<presence type="error"><error code="503" type="wait"><service-unavailable xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></presence>"#,
            ),
        ] {
            told(None, Some("b@example.com"), state, "", 0, expected);
        }
    }
}
