//! The parameters a request brings, as bytes: which of several counts, and what makes one unreadable. What they mean
//! is decided where each is used.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use super::refusal::{Fault, Rule};
use crate::presence::State;
use crate::signature::{BOUND, Link};

/// The names that are parameters beside the states' own. Anything else is ignored, whatever it holds.
const NAMES: [&str; 12] =
    ["jid", "req_jid", "type", "images", "format", "size", "scale", "lang", "exp", "kid", "sig", "token"];

/// The known parameters of one request, undecoded values gone: each name once, but `jid` as often as it came.
#[derive(Debug, Default)]
pub struct Params {
    values: Vec<(&'static str, Vec<u8>)>,
}

impl Params {
    /// Reads the sources in the order of their rank: a name in an earlier one hides it in the later ones, and the
    /// first of a repeated name counts.
    pub fn read(sources: &[&[u8]]) -> Params {
        let mut params = Params::default();
        for source in sources {
            let outranked = params.values.len();
            for pair in source.split(|byte| *byte == b'&') {
                params.insert(pair, outranked);
            }
        }
        params
    }

    /// A parameter's text, if it was given.
    pub fn text(&self, name: &'static str) -> Result<Option<&str>, Fault> {
        let Some((_, value)) = self.values.iter().find(|(known, _)| *known == name) else { return Ok(None) };
        let text = str::from_utf8(value).map_err(|_| Fault::new(name, Rule::Utf8))?;
        if text.contains(char::is_control) {
            return Err(Fault::new(name, Rule::NoControls));
        }
        Ok(Some(text))
    }

    /// A parameter's bytes; none where it was not given.
    pub fn bytes(&self, name: &str) -> &[u8] {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_slice()).unwrap_or_default()
    }

    /// Takes what a token holds in place of what the request says: what the token leaves out is left out.
    pub fn bind(&mut self, link: Link) {
        self.values.retain(|(name, _)| !BOUND.contains(name));
        self.values.extend(link.into_texts().map(|(name, text)| (name, text.into_bytes())));
    }

    /// Leaves of what a token could hold only the type of the answer.
    pub fn keep_form(&mut self) {
        self.values.retain(|(name, _)| *name == "type" || !BOUND.contains(name));
    }

    /// True where the name came more than once in the source that counts.
    pub fn is_repeated(&self, name: &str) -> bool {
        self.values.iter().filter(|(known, _)| *known == name).count() > 1
    }

    /// Names before `outranked` came from an earlier source.
    fn insert(&mut self, pair: &[u8], outranked: usize) {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let (name, value) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
        let Some(name) = known(&decode(name)) else { return };
        let hidden = if name == "jid" { &self.values[..outranked] } else { &self.values };
        if !hidden.iter().any(|(known, _)| *known == name) {
            self.values.push((name, decode(value).into_owned()));
        }
    }
}

fn known(name: &[u8]) -> Option<&'static str> {
    let mut names = NAMES.into_iter().chain(State::ALL.map(State::name));
    names.find(|known| known.as_bytes() == name)
}

/// `application/x-www-form-urlencoded` (WHATWG URL, 5.1) as bytes.
fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'+') {
        return percent_decode(text).into();
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sources, a name, and what it comes to.
    fn check(sources: &[&str], name: &'static str, expected: Result<Option<&str>, Rule>) {
        let bytes: Vec<&[u8]> = sources.iter().map(|source| source.as_bytes()).collect();
        let found = Params::read(&bytes);
        let expected = expected.map_err(|rule| Fault::new(name, rule));
        assert_eq!(found.text(name), expected, "{name} in {sources:?}");
    }

    #[test]
    fn which_value_counts() {
        check(&["type=xml"], "type", Ok(Some("xml")));
        check(&["type=xml&type=text"], "type", Ok(Some("xml")));
        check(&["type=&type=text"], "type", Ok(Some("")));
        check(&["type"], "type", Ok(Some("")));
        check(&["type=xml", "type=text"], "type", Ok(Some("xml")));
        check(&["jid=a", "type=text"], "type", Ok(Some("text")));
        check(&["TYPE=xml"], "type", Ok(None));
        check(&["&&=&=x&type=xml&"], "type", Ok(Some("xml")));
        check(&["images=http://h/?a=b"], "images", Ok(Some("http://h/?a=b")));
        check(&[""], "type", Ok(None));
    }

    #[test]
    fn values_are_decoded_as_bytes() {
        check(&["t%79pe=x%6Dl"], "type", Ok(Some("xml")));
        check(&["type=a+b%2Bc"], "type", Ok(Some("a b+c")));
        check(&["type=%"], "type", Ok(Some("%")));
        check(&["type=%4"], "type", Ok(Some("%4")));
        check(&["type=%zz"], "type", Ok(Some("%zz")));
        check(&["type=%C3%A9"], "type", Ok(Some("é")));
        check(&["type=é"], "type", Ok(Some("é")));
    }

    #[test]
    fn what_makes_a_known_parameter_unreadable() {
        check(&["type=%FF"], "type", Err(Rule::Utf8));
        check(&["type=%C3"], "type", Err(Rule::Utf8));
        for control in ["%00", "%0A", "%0d", "%1F", "%7F", "%C2%85", "\u{1}"] {
            check(&[&format!("type=xml{control}")], "type", Err(Rule::NoControls));
        }
        check(&["other=%FF%00&type=xml"], "type", Ok(Some("xml")));
        check(&["%FF=x&type=xml"], "type", Ok(Some("xml")));
        check(&["type=xml&type=%FF"], "type", Ok(Some("xml")));
    }

    #[test]
    fn only_the_source_that_counts_can_repeat() {
        for (sources, repeated) in [
            (&[&b"jid=a&jid=b"[..]][..], true),
            (&[b"jid=a", b"jid=b"], false),
            (&[b"type=xml", b"jid=a&jid=b"], true),
            (&[b"jid=a&type=xml"], false),
        ] {
            assert_eq!(Params::read(sources).is_repeated("jid"), repeated, "{sources:?}");
        }
    }

    #[test]
    fn what_a_token_holds_takes_the_place_of_the_rest() {
        let query = b"type=xml&jid=a&size=8&jid=b&dnd=/x&req_jid=c&token=t";
        let mut params = Params::read(&[query]);
        params.bind(Link::of(|name| matches!(name, "jid" | "images").then(|| name.to_owned())));
        let expected = [("size", "8"), ("token", "t"), ("jid", "jid"), ("images", "images")];
        assert_eq!(params.values, expected.map(|(name, text)| (name, text.as_bytes().to_vec())));
        let mut params = Params::read(&[query]);
        params.keep_form();
        let expected = [("type", "xml"), ("size", "8"), ("token", "t")];
        assert_eq!(params.values, expected.map(|(name, text)| (name, text.as_bytes().to_vec())));
    }
}
