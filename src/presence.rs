//! The domain: the states a visitor can see, one resource of a person, and the one presence that several
//! resources make together. It knows neither XMPP stanzas nor the web; both sides meet here.

use std::cmp::Reverse;
use std::fmt;
use std::iter;
use std::mem;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

/// What a visitor is told. The first seven names are those of Openfire's presence plugin; `Unknown` means that
/// the XMPP server could not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Available,
    Chat,
    Away,
    Xa,
    Dnd,
    Offline,
    Forbidden,
    Unknown,
}

impl State {
    pub const ALL: [State; 8] = [
        State::Available,
        State::Chat,
        State::Away,
        State::Xa,
        State::Dnd,
        State::Offline,
        State::Forbidden,
        State::Unknown,
    ];

    /// The name used in parameters, `--IMAGE--`, file names and JSON.
    pub fn name(self) -> &'static str {
        match self {
            State::Available => "available",
            State::Chat => "chat",
            State::Away => "away",
            State::Xa => "xa",
            State::Dnd => "dnd",
            State::Offline => "offline",
            State::Forbidden => "forbidden",
            State::Unknown => "unknown",
        }
    }

    /// True for the five states of somebody who is there.
    pub fn is_online(self) -> bool {
        self.rank() > 0
    }

    /// How available somebody is, as Openfire orders it: none > chat > away > xa > dnd.
    fn rank(self) -> u8 {
        match self {
            State::Available => 5,
            State::Chat => 4,
            State::Away => 3,
            State::Xa => 2,
            State::Dnd => 1,
            State::Offline | State::Forbidden | State::Unknown => 0,
        }
    }
}

/// A status text in the languages its author gave; the language is empty where he named none. Thousands are remembered,
/// so that all is in one piece: language and text by turns, each with [`END`] behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(String, String)>", into = "Vec<(String, String)>")]
pub struct Texts(Box<str>);

/// More than anybody writes in.
const LANGUAGES: usize = 32;

/// XML has no such character (XML 1.0, 2.2).
const END: char = '\0';

impl Texts {
    /// Adds one text. Blank texts say nothing and are left out, and so is what comes behind [`LANGUAGES`]; the first of a
    /// repeated language counts.
    pub fn insert(&mut self, lang: &str, text: &str) {
        let lang = lang.to_ascii_lowercase();
        let is_new = self.iter().all(|(known, _)| known != lang);
        if !text.trim().is_empty() && is_new && self.iter().count() < LANGUAGES {
            let mut all = String::from(mem::take(&mut self.0));
            for part in [&lang, text] {
                all.extend(part.chars().filter(|c| *c != END));
                all.push(END);
            }
            self.0 = all.into();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text for the first wanted language that is there, looked up as RFC 4647, 3.4 says (`de-AT`, then `de`);
    /// else the one without a language, else the first.
    pub fn choose(&self, wanted: &[String]) -> Option<&str> {
        let exact = |lang: &str| self.iter().find(|(known, _)| *known == lang);
        let fallback = || exact("").or_else(|| self.iter().next());
        let found = wanted.iter().find_map(|tag| lookup(tag, exact));
        found.or_else(fallback).map(|(_, text)| text)
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut parts = self.0.split(END);
        iter::from_fn(move || Some((parts.next()?, parts.next()?)))
    }
}

impl From<Vec<(String, String)>> for Texts {
    fn from(all: Vec<(String, String)>) -> Texts {
        let mut texts = Texts::default();
        all.iter().for_each(|(lang, text)| texts.insert(lang, text));
        texts
    }
}

impl From<Texts> for Vec<(String, String)> {
    fn from(texts: Texts) -> Vec<(String, String)> {
        texts.iter().map(|(lang, text)| (lang.to_owned(), text.to_owned())).collect()
    }
}

/// Shortens a language tag from its end until `find` knows it (RFC 4647, 3.4).
pub fn lookup<T>(tag: &str, find: impl Fn(&str) -> Option<T>) -> Option<T> {
    let tag = tag.to_ascii_lowercase();
    let mut rest = tag.as_str();
    while !rest.is_empty() {
        if let Some(found) = find(rest) {
            return Some(found);
        }
        rest = rest.rsplit_once('-').map_or("", |(head, _)| head);
    }
    None
}

/// One connected client of a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    pub name: String,
    pub state: State,
    pub priority: i8,
    pub texts: Texts,
    /// When this presence was set, from its delay stamp, in seconds since 1970.
    pub stamp: Option<u64>,
    /// Since when nobody has touched this client (XEP-0319), in seconds since 1970.
    pub idle: Option<u64>,
}

/// Which of several resources speaks for the person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// As Openfire: none > chat > away > xa > dnd.
    MostAvailable,
    /// As RFC 6121, 8.1.2.
    HighestPriority,
}

/// What is known about one person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    pub state: State,
    pub texts: Texts,
    pub priority: i8,
    /// Since when it is so, in seconds since 1970: idle, in this state, or gone.
    pub since: Option<u64>,
}

/// The largest picture that is taken, as it was published.
pub const PICTURE_BYTES: usize = 256 * 1024;

/// What a person published as his picture: bytes that nobody has looked at, and that nobody gets to see as they are.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Picture(Arc<[u8]>);

impl Picture {
    /// `None` for more than [`PICTURE_BYTES`], and for nothing.
    pub fn new(bytes: &[u8]) -> Option<Picture> {
        (1..=PICTURE_BYTES).contains(&bytes.len()).then(|| Picture(bytes.into()))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture of {} bytes", self.0.len())
    }
}

impl From<Picture> for String {
    fn from(picture: Picture) -> String {
        BASE64.encode(picture.bytes())
    }
}

impl TryFrom<String> for Picture {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Picture, Self::Error> {
        BASE64.decode(text).ok().and_then(|bytes| Picture::new(&bytes)).ok_or("a picture in base64")
    }
}

impl Presence {
    /// A state without a text.
    pub fn bare(state: State) -> Presence {
        Presence { state, texts: Texts::default(), priority: 0, since: None }
    }

    /// Nobody is there; the last status text where one is known.
    pub fn offline(texts: Texts) -> Presence {
        Presence { texts, ..Presence::bare(State::Offline) }
    }

    /// Whether somebody is there, and no more.
    pub fn coarse(self) -> Presence {
        Presence::bare(if self.state.is_online() { State::Available } else { self.state })
    }

    /// The one presence several resources make: negative priorities count only where there is no other, then the
    /// rule, then the other rule, then the newer stamp, then the smaller resource name.
    pub fn best(resources: &[Resource], rule: Rule) -> Option<Presence> {
        let order = |r: &&Resource| {
            let (rank, priority) = (i16::from(r.state.rank()), i16::from(r.priority));
            let (first, second) = match rule {
                Rule::MostAvailable => (rank, priority),
                Rule::HighestPriority => (priority, rank),
            };
            (r.priority >= 0, first, second, r.stamp, Reverse(r.name.clone()))
        };
        let best = resources.iter().max_by_key(order)?;
        Some(Presence {
            state: best.state,
            texts: best.texts.clone(),
            priority: best.priority,
            since: best.idle.or(best.stamp),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, state: State, priority: i8, stamp: Option<u64>) -> Resource {
        let mut texts = Texts::default();
        texts.insert("", name);
        Resource { name: name.into(), state, priority, texts, stamp, idle: None }
    }

    /// The name of the resource that wins under each rule.
    fn check(resources: &[Resource], most_available: &str, highest_priority: &str) {
        for (rule, expected) in [(Rule::MostAvailable, most_available), (Rule::HighestPriority, highest_priority)] {
            let best = Presence::best(resources, rule).expect("there are resources");
            assert_eq!(best.texts.choose(&[]), Some(expected), "{rule:?} of {resources:?}");
        }
    }

    #[test]
    fn the_rules_order_resources() {
        use State::*;
        check(&[resource("dnd", Dnd, 9, None), resource("away", Away, 1, None)], "away", "dnd");
        check(&[resource("chat", Chat, 0, None), resource("none", Available, 0, None)], "none", "none");
        check(&[resource("low", Away, 1, None), resource("high", Away, 2, None)], "high", "high");
        check(&[resource("old", Xa, 0, Some(1)), resource("new", Xa, 0, Some(2))], "new", "new");
        check(&[resource("b", Xa, 0, None), resource("a", Xa, 0, None)], "a", "a");
    }

    #[test]
    fn a_negative_priority_counts_only_alone() {
        use State::*;
        check(&[resource("bot", Available, -1, None), resource("me", Dnd, 0, None)], "me", "me");
        check(&[resource("bot", Available, -1, None)], "bot", "bot");
        assert_eq!(Presence::best(&[], Rule::MostAvailable), None);
    }

    #[test]
    fn idle_tells_more_than_when_the_presence_was_set() {
        let since = |stamp, idle| {
            let resource = Resource { idle, ..resource("home", State::Away, 0, stamp) };
            Presence::best(&[resource], Rule::MostAvailable).expect("there is one").since
        };
        assert_eq!([since(Some(5), Some(3)), since(Some(5), None), since(None, None)], [Some(3), Some(5), None]);
    }

    #[test]
    fn texts_are_kept_in_one_piece_and_written_by_language() {
        let mut texts = Texts::default();
        for (lang, text) in [("de", "Da"), ("", "Here\n"), ("DE", "Hier"), ("fr", " \t"), ("x\0y", "a\0b")] {
            texts.insert(lang, text);
        }
        let written = r#"[["de","Da"],["","Here\n"],["xy","ab"]]"#;
        assert_eq!(serde_json::to_string(&texts).expect("strings"), written);
        assert_eq!(serde_json::from_str::<Texts>(written).expect("it was written here"), texts);
        assert_eq!(serde_json::from_str::<Texts>("[]").expect("it may be"), Texts::default());
        (0..2 * LANGUAGES).for_each(|number| texts.insert(&format!("x-{number}"), "Here"));
        assert_eq!(texts.iter().count(), LANGUAGES);
    }

    #[test]
    fn texts_are_chosen_by_language() {
        let mut texts = Texts::default();
        texts.insert("de", "Mittag");
        texts.insert("", "Lunch");
        texts.insert("de", "doppelt");
        texts.insert("fr", "  ");
        let choose = |tags: &[&str]| texts.choose(&tags.iter().map(|t| t.to_string()).collect::<Vec<_>>());
        assert_eq!(choose(&[]), Some("Lunch"));
        assert_eq!(choose(&["de-AT"]), Some("Mittag"));
        assert_eq!(choose(&["DE"]), Some("Mittag"));
        assert_eq!(choose(&["fr", "de"]), Some("Mittag"));
        assert_eq!(choose(&["fr"]), Some("Lunch"));
        assert_eq!(Texts::default().choose(&["de".into()]), None);
    }
}
