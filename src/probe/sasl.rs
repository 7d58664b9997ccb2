//! The elements that carry a login: those of RFC 6120, 6, and those of SASL2 (XEP-0388), which binds the resource and
//! hands out tokens in the same breath. What is inside the messages is not read here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use xmpp_parsers::minidom::Element;

use super::fast::Ht;
use super::ns;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// RFC 6120.
    Sasl,
    /// XEP-0388.
    Sasl2,
}

impl Profile {
    fn namespace(self) -> &'static str {
        match self {
            Profile::Sasl => ns::SASL,
            Profile::Sasl2 => ns::SASL2,
        }
    }
}

/// RFC 6120, 6.4.2.
pub fn auth(mechanism: &str, data: &[u8]) -> String {
    format!("<auth xmlns='{}' mechanism='{mechanism}'>{}</auth>", ns::SASL, BASE64.encode(data))
}

/// XEP-0388, 2.3, with Bind 2 inside; `tokens` is about FAST. The `agent` is ours and the rest constant: none of it
/// wants escaping.
pub fn authenticate(mechanism: &str, data: &[u8], agent: &str, tokens: &Tokens) -> String {
    format!(
        "<authenticate xmlns='{}' mechanism='{mechanism}'><initial-response>{}</initial-response>\
         <user-agent id='{agent}'><software>webpresence</software></user-agent>\
         <bind xmlns='{}'><tag>webpresence</tag></bind>{}{}</authenticate>",
        ns::SASL2,
        BASE64.encode(data),
        ns::BIND2,
        // XEP-0484, 3.4: the count is for replays of early data, which we send none of.
        if tokens.shows { format!("<fast xmlns='{}'/>", ns::FAST) } else { String::new() },
        tokens.wants.map(request_token).unwrap_or_default(),
    )
}

fn request_token(mechanism: Ht) -> String {
    format!("<request-token xmlns='{}' mechanism='{}'/>", ns::FAST, mechanism.name())
}

/// What a login has to do with tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tokens {
    /// It shows one.
    pub shows: bool,
    /// It asks for a new one.
    pub wants: Option<Ht>,
}

/// The answer to a challenge.
pub fn response(profile: Profile, data: &[u8]) -> String {
    format!("<response xmlns='{}'>{}</response>", profile.namespace(), BASE64.encode(data))
}

/// What the server says to a login.
#[derive(Debug, PartialEq)]
pub enum Said {
    Challenge(Vec<u8>),
    /// The mechanism's data, empty where there was none, and the whole element with what comes inside of it.
    Success(Vec<u8>, Element),
    /// The condition.
    Failure(String),
}

/// Reads it; `None` for what is no such message, or an unreadable one. A server that wants more than a password
/// (`<continue/>`, XEP-0388, 2.6.3) wants what we do not have.
pub fn read(profile: Profile, element: Element) -> Option<Said> {
    if element.ns() != profile.namespace() {
        return None;
    }
    match element.name() {
        "challenge" => Some(Said::Challenge(decode(&element.text())?)),
        "success" => {
            let data = match profile {
                Profile::Sasl => element.text(),
                Profile::Sasl2 => {
                    element.get_child("additional-data", ns::SASL2).map(Element::text).unwrap_or_default()
                }
            };
            Some(Said::Success(decode(&data)?, element))
        }
        "failure" => Some(Said::Failure(condition(&element))),
        _ => None,
    }
}

/// RFC 6120, 6.4.2: `=` is a message of no bytes.
fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    if text == "=" { Some(Vec::new()) } else { BASE64.decode(text).ok() }
}

/// The name of an error's condition: its first child that is not the text. Shortened, since a stranger wrote it.
pub fn condition(error: &Element) -> String {
    let name = error.children().map(Element::name).find(|name| *name != "text").unwrap_or("without a reason");
    name.chars().take(64).collect()
}
