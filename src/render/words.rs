//! What is said about a state in words: the owner's own status text, else the state's word, in the language a visitor
//! wants. Status texts come from strangers; they leave here without a character that XML 1.0 forbids.

use std::borrow::Cow;

use crate::config::Words;
use crate::presence::{Presence, State, lookup};

/// The words of one answer.
#[derive(Clone, Copy, Debug)]
pub struct Wording<'a> {
    pub words: &'a Words,
    /// The languages wanted, best first.
    pub langs: &'a [String],
}

impl<'a> Wording<'a> {
    /// What a state is called. The words the product comes with are English.
    pub fn word(&self, state: State) -> &'a str {
        let exact = |lang: &str| {
            let own = self.words.overrides.iter().find(|(s, l, word)| (*s, l.as_str()) == (state, lang) && says(word));
            own.map(|(_, _, word)| word.as_str())
        };
        let fallback = || exact("").unwrap_or(english(state));
        let known = |lang: &str| exact(lang).or_else(|| (lang == "en").then(fallback));
        self.langs.iter().find_map(|tag| lookup(tag, known)).unwrap_or_else(fallback)
    }

    /// What the owner says about it, if anything. Of a refusal and of an unknown state there is nothing to say.
    pub fn status<'p>(&self, presence: &'p Presence) -> Option<Cow<'p, str>> {
        if matches!(presence.state, State::Forbidden | State::Unknown) {
            return None;
        }
        let text = presence.texts.choose(self.langs)?;
        let clean = match text.chars().all(is_xml) {
            true => Cow::Borrowed(text.trim()),
            false => Cow::Owned(text.chars().filter(|c| is_xml(*c)).collect::<String>().trim().to_owned()),
        };
        says(&clean).then_some(clean)
    }

    /// The status in one line, each run of white space one space.
    pub fn line(&self, presence: &Presence) -> Option<String> {
        self.status(presence).map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

/// The words of the original, so that pages that compare them go on working.
fn english(state: State) -> &'static str {
    match state {
        State::Available => "Available",
        State::Chat => "Free for chat",
        State::Away => "Away",
        State::Xa => "Extended away",
        State::Dnd => "Do not disturb",
        State::Offline => "Unavailable",
        State::Forbidden => "Forbidden",
        State::Unknown => "Unknown",
    }
}

fn says(text: &str) -> bool {
    !text.trim().is_empty()
}

/// The characters of XML 1.0, 2.2.
fn is_xml(c: char) -> bool {
    !matches!(c, '\0'..='\u{8}' | '\u{B}' | '\u{C}' | '\u{E}'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::Texts;

    fn word(overrides: &[(State, &str, &str)], langs: &[&str], state: State) -> String {
        let overrides = overrides.iter().map(|(state, lang, word)| (*state, lang.to_string(), word.to_string()));
        let words = Words { overrides: overrides.collect() };
        let langs: Vec<String> = langs.iter().map(ToString::to_string).collect();
        Wording { words: &words, langs: &langs }.word(state).to_owned()
    }

    #[test]
    fn words_by_language() {
        let overrides = [
            (State::Offline, "", "Weg"),
            (State::Offline, "de", "Abwesend"),
            (State::Offline, "de-at", "Nicht da"),
            (State::Away, "de", "Pause"),
            (State::Away, "en-gb", "Out"),
            (State::Dnd, "", " "),
        ];
        let rows: [(State, &[&str], &str); 14] = [
            (State::Offline, &[], "Weg"),
            (State::Offline, &["fr"], "Weg"),
            (State::Offline, &["en"], "Weg"),
            (State::Offline, &["de"], "Abwesend"),
            (State::Offline, &["DE-CH"], "Abwesend"),
            (State::Offline, &["de-AT-1996"], "Nicht da"),
            (State::Offline, &["fr", "de"], "Abwesend"),
            (State::Away, &[], "Away"),
            (State::Away, &["de"], "Pause"),
            (State::Away, &["en", "de"], "Away"),
            (State::Away, &["en-GB", "de"], "Out"),
            (State::Away, &["en-US", "de"], "Away"),
            (State::Dnd, &["de"], "Do not disturb"),
            (State::Chat, &["de"], "Free for chat"),
        ];
        for (state, langs, expected) in rows {
            assert_eq!(word(&overrides, langs, state), expected, "{state:?} in {langs:?}");
        }
    }

    #[test]
    fn the_words_the_product_comes_with() {
        let words = State::ALL.map(|state| word(&[], &[], state));
        let expected = [
            "Available",
            "Free for chat",
            "Away",
            "Extended away",
            "Do not disturb",
            "Unavailable",
            "Forbidden",
            "Unknown",
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn a_status_is_trimmed_and_holds_no_forbidden_character() {
        for (text, status, line) in [
            ("Lunch", Some("Lunch"), Some("Lunch")),
            ("  a \t b\r\n\u{a0}c\n", Some("a \t b\r\n\u{a0}c"), Some("a b c")),
            ("\u{1}a\u{0}\u{1b}[31mb\u{fffe}\u{ffff}", Some("a[31mb"), Some("a[31mb")),
            ("\u{1}\u{2}", None, None),
            (" \u{b} \u{ffff}\n", None, None),
            ("\u{202e}abc 🙂", Some("\u{202e}abc 🙂"), Some("\u{202e}abc 🙂")),
        ] {
            let mut texts = Texts::default();
            texts.insert("", text);
            let wording = Wording { words: &Words::default(), langs: &[] };
            let mut presence = Presence::offline(texts);
            assert_eq!(wording.status(&presence).as_deref(), status, "{text:?}");
            assert_eq!(wording.line(&presence).as_deref(), line, "{text:?}");
            presence.state = State::Forbidden;
            assert_eq!(wording.status(&presence), None, "a refusal tells nothing");
        }
    }
}
