//! FAST (XEP-0484): a token that the server gave at an earlier login stands for the password at the next, in one round
//! trip and without its rounds. Where the channel can be bound to, the token proves nothing on any other channel.

use std::fmt;

use ring::hmac;
use serde::{Deserialize, Serialize};
use xmpp_parsers::date::DateTime;
use xmpp_parsers::minidom::Element;

use super::login::{BindingType, Bindings, LoginFault};

/// A mechanism that shows a token, by what it is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ht {
    #[serde(rename = "HT-SHA-256-EXPR")]
    Exporter,
    #[serde(rename = "HT-SHA-256-ENDP")]
    EndPoint,
    #[serde(rename = "HT-SHA-256-NONE")]
    Unbound,
}

impl Ht {
    /// The better one first.
    const ALL: [Ht; 3] = [Ht::Exporter, Ht::EndPoint, Ht::Unbound];

    pub fn named(name: &str) -> Option<Ht> {
        Ht::ALL.into_iter().find(|ht| ht.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Ht::Exporter => "HT-SHA-256-EXPR",
            Ht::EndPoint => "HT-SHA-256-ENDP",
            Ht::Unbound => "HT-SHA-256-NONE",
        }
    }

    /// The best that is offered and possible here.
    pub fn best(offered: &[Ht], bindings: &Bindings) -> Option<Ht> {
        Ht::ALL.into_iter().find(|ht| offered.contains(ht) && ht.bound_to(bindings).is_some())
    }

    fn bound_to(self, bindings: &Bindings) -> Option<&[u8]> {
        match self {
            Ht::Exporter => bindings.data(BindingType::Exporter),
            Ht::EndPoint => bindings.data(BindingType::EndPoint),
            Ht::Unbound => Some(&[]),
        }
    }
}

/// A token, good for one mechanism until its time is over.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub mechanism: Ht,
    secret: String,
    /// Seconds since 1970.
    expires_s: u64,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, ***)", self.mechanism.name())
    }
}

impl Token {
    /// Reads `<token/>`; one that does not say how long it lives is none.
    pub fn read(element: &Element, mechanism: Ht) -> Option<Token> {
        let secret = element.attr("token").filter(|secret| !secret.is_empty())?.to_owned();
        let expires: DateTime = element.attr("expiry")?.parse().ok()?;
        let expires_s = u64::try_from(expires.0.timestamp()).ok()?;
        Some(Token { mechanism, secret, expires_s })
    }

    pub fn is_over(&self, epoch_s: u64) -> bool {
        self.expires_s <= epoch_s
    }

    /// The initial response that shows it, if it can be shown on this channel.
    pub fn show(&self, user: &str, bindings: &Bindings) -> Option<(Expected, Vec<u8>)> {
        let bound_to = self.mechanism.bound_to(bindings)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        let proof = hmac::sign(&key, &[b"Initiator", bound_to].concat());
        let message = [user.as_bytes(), b"\0", proof.as_ref()].concat();
        Some((Expected { key, proof: [b"Responder", bound_to].concat() }, message))
    }
}

/// What the server has to show in return.
pub struct Expected {
    key: hmac::Key,
    proof: Vec<u8>,
}

impl Expected {
    /// Checks it, in constant time.
    pub fn verify(self, shown: &[u8]) -> Result<(), LoginFault> {
        hmac::verify(&self.key, &self.proof, shown).map_err(|_| LoginFault::Unproven)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;

    use super::*;

    fn token(mechanism: Ht, secret: &str) -> Token {
        Token { mechanism, secret: secret.to_owned(), expires_s: 1 }
    }

    /// As ejabberd 24.12 took and gave it.
    #[test]
    fn a_token_is_shown_and_the_server_shows_it_too() {
        let token = token(Ht::Unbound, "LKKDMcsPIwSbRP86gtsLJxLgSExaBRdndm6hINd+p8c=");
        let show = || token.show("webstatus0", &Bindings::default()).expect("nothing is bound to");
        assert_eq!(BASE64.encode(show().1), "d2Vic3RhdHVzMACxL7HdKW8KbSaptyOy7NEdijCtdsTbrMR3TeG8nhc80w==");
        let theirs = BASE64.decode("ZfJI1tTLu+dREBSyv/Db3IQU9RWR5l7HnWA7G/9rQfs=").expect("base64");
        assert_eq!(show().0.verify(&theirs), Ok(()));
        let ours = &show().1["webstatus0\0".len()..];
        for wrong in [&b""[..], b"\0", ours, &theirs[1..], &[&theirs[..], b"\0"].concat()] {
            assert_eq!(show().0.verify(wrong), Err(LoginFault::Unproven), "{wrong:?}");
        }
    }

    #[test]
    fn a_bound_token_proves_nothing_elsewhere() {
        let here = Bindings { exporter: Some(vec![1; 32]), end_point: None };
        let there = Bindings { exporter: Some(vec![2; 32]), end_point: Some(vec![1; 32]) };
        let bound = token(Ht::Exporter, "secret");
        let show = |bindings: &Bindings| bound.show("user", bindings);
        assert!(show(&Bindings::default()).is_none());
        let (expected, message) = show(&here).expect("an exporter");
        let (_, other) = show(&there).expect("an exporter");
        assert_ne!(message, other);
        let theirs = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"secret"), &[&b"Responder"[..], &[2; 32]].concat());
        assert_eq!(expected.verify(theirs.as_ref()), Err(LoginFault::Unproven));
    }

    #[test]
    fn the_best_of_both_sides_is_asked_for() {
        let of = |exporter: bool, end_point: bool| Bindings {
            exporter: exporter.then(|| vec![0; 32]),
            end_point: end_point.then(|| vec![0; 32]),
        };
        let all = [Ht::Unbound, Ht::EndPoint, Ht::Exporter];
        for (offered, bindings, best) in [
            (&all[..], of(true, true), Some(Ht::Exporter)),
            (&all, of(false, true), Some(Ht::EndPoint)),
            (&all, of(false, false), Some(Ht::Unbound)),
            (&[Ht::Exporter], of(false, true), None),
            (&[], of(true, true), None),
        ] {
            assert_eq!(Ht::best(offered, &bindings), best, "{offered:?} {bindings:?}");
        }
    }

    #[test]
    fn a_token_says_how_long_it_lives() {
        let read = |attributes: &str| {
            let xml = format!("<token xmlns='urn:xmpp:fast:0' {attributes}/>");
            Token::read(&xml.parse().expect("well-formed"), Ht::Unbound)
        };
        let whole = read("token='a' expiry='1970-01-01T00:01:00.809298Z'").expect("a token");
        assert_eq!(whole, Token { mechanism: Ht::Unbound, secret: "a".into(), expires_s: 60 });
        assert_eq!((whole.is_over(59), whole.is_over(60)), (false, true));
        for none in ["token='a'", "token='a' expiry='soon'", "expiry='1970-01-01T00:01:00Z'", "token='' expiry=''"] {
            assert_eq!(read(none), None, "{none}");
        }
        assert_eq!(format!("{whole:?}"), "Token(HT-SHA-256-NONE, ***)");
    }
}
