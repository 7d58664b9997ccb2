//! What a server offers to those who log in: the mechanisms of SASL (RFC 6120, 6) and SASL2 (XEP-0388), tokens
//! (XEP-0484) and channel bindings (XEP-0440). Remembered, it makes the next login one round trip shorter. What we
//! would not use is not kept.

use serde::{Deserialize, Serialize};
use xmpp_parsers::minidom::Element;

use super::fast::Ht;
use super::login::{BindingType, Mechanism};
use super::ns;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Offer {
    pub sasl: Vec<Mechanism>,
    /// Empty without Bind 2 (XEP-0386) inside, which makes SASL2 worth it.
    pub sasl2: Vec<Mechanism>,
    pub fast: Vec<Ht>,
    pub bindings: Vec<BindingType>,
    /// TLS had proved the server's name.
    pub proved: bool,
}

impl Offer {
    /// Reads `<stream:features/>`; `None` for anything else.
    pub fn read(features: &Element, proved: bool) -> Option<Offer> {
        if !features.is("features", ns::STREAM) {
            return None;
        }
        let sasl2 = features.get_child("authentication", ns::SASL2);
        let inline = sasl2.and_then(|sasl2| sasl2.get_child("inline", ns::SASL2));
        let binds = inline.is_some_and(|inline| inline.has_child("bind", ns::BIND2));
        let sasl2 = sasl2.filter(|_| binds);
        let fast = inline.filter(|_| binds).and_then(|inline| inline.get_child("fast", ns::FAST));
        let bindings = features.get_child("sasl-channel-binding", ns::SASL_CB);
        let types = || bindings.into_iter().flat_map(Element::children).filter_map(|child| child.attr("type"));
        Some(Offer {
            sasl: mechanisms(features.get_child("mechanisms", ns::SASL), Mechanism::named),
            sasl2: mechanisms(sasl2, Mechanism::named),
            fast: mechanisms(fast, Ht::named),
            bindings: BindingType::ALL.into_iter().filter(|kind| types().any(|name| name == kind.name())).collect(),
            proved,
        })
    }

    /// What SASL and SASL2 offer together.
    pub fn all(&self) -> impl Iterator<Item = Mechanism> {
        self.sasl.iter().chain(&self.sasl2).copied()
    }
}

/// The mechanisms listed in `parent` that we know, each once.
fn mechanisms<T: PartialEq>(parent: Option<&Element>, named: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let mut known = Vec::new();
    for child in parent.into_iter().flat_map(Element::children).filter(|child| child.name() == "mechanism") {
        known.extend(named(child.text().trim()).filter(|mechanism| !known.contains(mechanism)));
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(inside: &str) -> Offer {
        let xml = format!("<features xmlns='{}'>{inside}</features>", ns::STREAM);
        Offer::read(&xml.parse().expect("well-formed"), true).expect("features")
    }

    #[test]
    fn what_we_use_is_read_and_the_rest_passed_over() {
        let whole = read(
            "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>OAUTHBEARER</mechanism>\
             <mechanism> SCRAM-SHA-1-PLUS </mechanism><mechanism>PLAIN</mechanism><mechanism>PLAIN</mechanism>\
             <inline><bind xmlns='urn:xmpp:bind:0'/><fast xmlns='urn:xmpp:fast:0'>\
             <mechanism>HT-SHA-256-NONE</mechanism><mechanism>HT-SHA-256-UNIQ</mechanism></fast></inline>\
             </authentication><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-512</mechanism>\
             </mechanisms><sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'><channel-binding type='tls-unique'/>\
             <channel-binding type='tls-server-end-point'/></sasl-channel-binding><sm xmlns='urn:xmpp:sm:3'/>",
        );
        let expected = r#"{"sasl":["SCRAM-SHA-512"],"sasl2":["SCRAM-SHA-1-PLUS","PLAIN"],"fast":["HT-SHA-256-NONE"],"bindings":["tls-server-end-point"],"proved":true}"#;
        assert_eq!(serde_json::to_string(&whole).expect("JSON"), expected);
        assert_eq!(serde_json::from_str::<Offer>(expected).expect("an offer"), whole);
        assert_eq!(read(""), Offer { proved: true, ..Offer::default() });
        assert_eq!(Offer::read(&"<features xmlns='jabber:client'/>".parse().expect("well-formed"), true), None);
    }

    #[test]
    fn sasl2_without_bind_2_is_not_worth_it() {
        let offer = read(
            "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>PLAIN</mechanism><inline>\
             <fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-NONE</mechanism></fast></inline></authentication>",
        );
        assert_eq!(offer, Offer { proved: true, ..Offer::default() });
    }
}
