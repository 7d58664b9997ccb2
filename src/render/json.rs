//! `type=json`: one object with always the same keys in the same order, and the object that reports an error.

use jid::BareJid;
use serde_json::Value;

use super::words::Wording;
use crate::presence::Presence;

pub const CONTENT_TYPE: &str = "application/json";

/// What is hidden or not known is null.
pub fn json(jid: Option<&BareJid>, presence: &Presence, wording: Wording) -> String {
    let online = presence.state.is_online();
    object(&[
        ("jid", jid.map(|jid| jid.as_str()).into()),
        ("show", presence.state.name().into()),
        ("status", wording.status(presence).as_deref().into()),
        ("priority", online.then_some(presence.priority).into()),
        ("label", wording.word(presence.state).into()),
        ("since", presence.since.and_then(timestamp).into()),
    ]) + "\n"
}

/// RFC 3339, in UTC.
fn timestamp(epoch_s: u64) -> Option<String> {
    jiff::Timestamp::from_second(i64::try_from(epoch_s).ok()?).ok().map(|time| time.to_string())
}

/// `{"error":{"code":…,"message":…}}`
pub fn error(code: u16, message: &str) -> String {
    let inside = object(&[("code", code.into()), ("message", message.into())]);
    format!("{{\"error\":{inside}}}\n")
}

/// A map of serde_json would sort the keys.
fn object(members: &[(&str, Value)]) -> String {
    let members: Vec<String> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Words;
    use crate::presence::{State, Texts};

    fn check(state: State, status: &str, priority: i8, expected: &str) {
        let jid = BareJid::new("a@example.com").expect("a constant address");
        told(Some(&jid), state, status, priority, expected);
    }

    fn told(jid: Option<&BareJid>, state: State, status: &str, priority: i8, expected: &str) {
        let mut texts = Texts::default();
        texts.insert("", status);
        let wording = Wording { words: &Words::default(), langs: &[] };
        let found = json(jid, &Presence { state, texts, priority, since: None }, wording);
        assert_eq!(found, format!("{expected}\n"));
        serde_json::from_str::<Value>(&found).expect("it is JSON");
    }

    #[test]
    fn always_the_same_keys() {
        check(
            State::Away,
            "Lu\"nch\n</script>\u{1F642}",
            -5,
            r#"{"jid":"a@example.com","show":"away","status":"Lu\"nch\n</script>🙂","priority":-5,"label":"Away","since":null}"#,
        );
        check(
            State::Available,
            "",
            0,
            r#"{"jid":"a@example.com","show":"available","status":null,"priority":0,"label":"Available","since":null}"#,
        );
        check(
            State::Offline,
            "Gone",
            0,
            r#"{"jid":"a@example.com","show":"offline","status":"Gone","priority":null,"label":"Unavailable","since":null}"#,
        );
        check(
            State::Forbidden,
            "hidden",
            7,
            r#"{"jid":"a@example.com","show":"forbidden","status":null,"priority":null,"label":"Forbidden","since":null}"#,
        );
        told(
            None,
            State::Chat,
            "",
            1,
            r#"{"jid":null,"show":"chat","status":null,"priority":1,"label":"Free for chat","since":null}"#,
        );
        assert_eq!(error(400, "a \"b\""), "{\"error\":{\"code\":400,\"message\":\"a \\\"b\\\"\"}}\n");
    }

    #[test]
    fn times_are_those_of_rfc_3339() {
        for (epoch_s, expected) in [
            (0, Some("1970-01-01T00:00:00Z")),
            (1_800_000_000, Some("2027-01-15T08:00:00Z")),
            (u64::MAX, None),
            (i64::MAX as u64, None),
        ] {
            assert_eq!(timestamp(epoch_s).as_deref(), expected);
        }
    }
}
