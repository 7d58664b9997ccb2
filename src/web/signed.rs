//! What signed links and tokens change about a request: whom it is about, and what its signature proves. What does not
//! hold is no bad request; it proves nothing, so that it is answered as everything is that somebody may not see.

use jid::BareJid;

use super::params::Params;
use crate::signature::{Keyring, Link, Proof, Signature};

/// Who is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By his address.
    Named(BareJid),
    /// By a token, whose holder is not to learn the address.
    Hidden(BareJid),
    /// Nobody who could be told, by a token that does not hold.
    Nobody,
}

impl Target {
    /// Whom to look for.
    pub fn jid(&self) -> Option<&BareJid> {
        match self {
            Target::Named(jid) | Target::Hidden(jid) => Some(jid),
            Target::Nobody => None,
        }
    }

    /// The address that an answer may name.
    pub fn shown(&self) -> Option<&BareJid> {
        match self {
            Target::Named(jid) => Some(jid),
            Target::Hidden(_) | Target::Nobody => None,
        }
    }
}

/// What came as `token`.
#[derive(Debug)]
pub enum Token {
    Absent,
    Opened(Proof),
    /// It is no token of ours, or its time is over.
    Sealed,
}

impl Token {
    /// Puts what the token holds in the place of what the request itself says about it. Beside one that does not open
    /// only the form counts: an address or a redirect is no part of what was signed.
    pub fn open(params: &mut Params, keyring: &Keyring) -> Token {
        let text = params.bytes("token");
        if text.is_empty() {
            return Token::Absent;
        }
        match keyring.open(text) {
            Some((link, proof)) => {
                params.bind(link);
                Token::Opened(proof)
            }
            None => {
                params.keep_form();
                Token::Sealed
            }
        }
    }
}

/// What the signature of a link proves. The parameters have been read: they are what was asked for.
pub fn proof(params: &Params, jid: &BareJid, req_jid: &BareJid, kind: &str, keyring: &Keyring) -> Option<Proof> {
    let signature = Signature::parse(params.bytes("exp"), params.bytes("kid"), params.bytes("sig"))?;
    let link = Link::of(|name| match name {
        "jid" => Some(jid.to_string()),
        "req_jid" => Some(req_jid.to_string()),
        "type" => Some(kind.to_owned()),
        url => params.text(url).ok().flatten().map(str::to_owned),
    });
    keyring.check(&link, &signature)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::time::Instant;

    use super::*;
    use crate::config::{self, Config, Requester, Secret, SigningKeys};
    use crate::presence::State;
    use crate::signature::{TOKEN_MAX_BYTES, seal};
    use crate::web::refusal::{Fault, Rule};
    use crate::web::request::{Kind, Proven, Query, Request};

    const NOW_S: u64 = 1_800_000_000;
    const EXP_S: u64 = NOW_S + 60;

    /// Two identities that believe signed links, each with a key of its own, and one that does not.
    fn config() -> Config {
        let sections =
            ["one", "two", "open"].map(|name| format!("[xmpp {name}]\njid = {name}.example.com\npassword = x\n"));
        let mut config =
            config::parse(&sections.concat(), Path::new("test.ini")).unwrap_or_else(|errors| panic!("{errors}"));
        for identity in &mut config.identities[..2] {
            identity.access.requester = Requester::Signed(keys(&identity.name));
        }
        config
    }

    fn keys(name: &str) -> SigningKeys {
        SigningKeys { current: Secret::new(name.repeat(32)), old: None, days: 7 }
    }

    fn jid(text: &str) -> BareJid {
        BareJid::new(text).expect("the rows hold addresses")
    }

    fn link(texts: &[(&str, &str)]) -> Link {
        Link::of(|name| texts.iter().find(|(known, _)| *known == name).map(|(_, text)| text.to_string()))
    }

    const ALICE: [(&str, &str); 3] = [("jid", "alice@example.com"), ("req_jid", "bob@example.com"), ("type", "xml")];

    /// The parameters that sign `texts` for the identity of this name.
    fn signed(name: &str, texts: &[(&str, &str)], exp_s: u64) -> String {
        let signature = Signature::new(&keys(name), &jid(&format!("{name}.example.com")), &link(texts), exp_s);
        signature.params().map(|(name, text)| format!("&{name}={text}")).concat()
    }

    fn token(name: &str, texts: &[(&str, &str)], exp_s: u64) -> String {
        let site = jid(&format!("{name}.example.com"));
        seal(&keys(name), &site, &link(texts), exp_s, [1; 12]).expect("it is short enough")
    }

    fn parse(query: &str, hosts: &[&str]) -> Result<Query, Fault> {
        let vars = [("REQUEST_METHOD", "GET"), ("QUERY_STRING", query)];
        let request = Request { vars: vars.into(), body: Vec::new(), excess: None, arrived: Instant::now() };
        let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
        Query::parse(&request, &hosts, &Keyring::of(&config(), NOW_S)).map_err(|refusal| refusal.fault)
    }

    fn get(query: &str) -> Query {
        parse(query, &[]).unwrap_or_else(|fault| panic!("{query}: {fault}"))
    }

    /// Whether it is proven to the first identity that bob asks, until the time of the link.
    fn is_proven(query: &Query) -> bool {
        let bob = jid("bob@example.com");
        let proven = query.proven(&jid("one.example.com"));
        assert!(proven.is_none_or(|proven| proven == Proven { requester: &bob, exp_s: EXP_S }), "{query:?}");
        proven.is_some()
    }

    #[test]
    fn a_link_holds_as_it_was_signed() {
        let redirects = [&ALICE[..], &[("images", "/--IMAGE--?a=b&c"), ("dnd", "/é")]].concat();
        let plain = signed("one", &ALICE, EXP_S);
        let picture = signed("one", &[&ALICE[..2], &[("type", "image")]].concat(), EXP_S);
        let redirected = signed("one", &redirects, EXP_S);
        let whole = "jid=alice@example.com&req_jid=bob@example.com&type=xml";
        let urls = "&images=/--IMAGE--%3Fa%3Db%26c&dnd=/%C3%A9";
        for (query, expected) in [
            (format!("{whole}{plain}"), true),
            (format!("{plain}&{whole}"), true),
            (format!("jid=ALICE%40Example.com.&req_jid=Bob@example.com&type=xml{plain}"), true),
            (format!("{whole}{plain}&size=64&scale=2&format=svg&lang=de&theme=x&_=1"), true),
            (format!("{whole}{plain}&type=text&req_jid=eve@example.com"), true),
            (format!("{whole}{urls}{redirected}"), true),
            (format!("jid=alice@example.com&req_jid=bob@example.com{picture}"), true),
            (format!("jid=alice@example.com&req_jid=bob@example.com&type=image{picture}"), true),
            (format!("{whole}{picture}"), false),
            (format!("jid=alice@example.com&req_jid=bob@example.com{plain}"), false),
            (format!("jid=alice@example.org&req_jid=bob@example.com&type=xml{plain}"), false),
            (format!("jid=alice@example.com&req_jid=eve@example.com&type=xml{plain}"), false),
            (format!("jid=alice@example.com&req_jid=&type=xml{plain}"), false),
            (format!("jid=alice@example.com&type=xml{plain}"), false),
            (format!("jid=alice@example.com&req_jid=bob@example.com&type=text{plain}"), false),
            (format!("{whole}{urls}{plain}"), false),
            (format!("{whole}{redirected}"), false),
            (format!("{whole}{urls}&away=/x{redirected}"), false),
            (format!("{whole}&images=/--IMAGE--%3Fa%3Db%26c&dnd=/%25C3%25A9{redirected}"), false),
            (whole.to_owned(), false),
            (format!("{whole}{}", signed("two", &ALICE, EXP_S)), false),
            (format!("{whole}{}", signed("open", &ALICE, EXP_S)), false),
            (format!("{whole}{}", signed("one", &ALICE, NOW_S - 1)), false),
            (format!("{whole}{}", signed("one", &ALICE, NOW_S + 7 * 86_400 + 1)), false),
        ] {
            assert_eq!(is_proven(&get(&query)), expected, "{query}");
        }
        for state in State::ALL.map(State::name) {
            assert!(!is_proven(&get(&format!("{whole}{plain}&{state}=/x"))), "{state}");
        }
        let query = get(&format!("{whole}{}", signed("two", &ALICE, EXP_S)));
        assert!(query.proven(&jid("two.example.com")).is_some(), "it is the other identity's");
    }

    #[test]
    fn a_malformed_signature_is_none_and_no_bad_request() {
        let whole = "jid=alice@example.com&req_jid=bob@example.com&type=xml";
        let good = signed("one", &ALICE, EXP_S);
        assert!(is_proven(&get(&format!("{whole}{good}"))));
        let long = "1".repeat(4096);
        for name in ["exp", "kid", "sig"] {
            for value in ["", "+", "%00", "%FF", "%0D%0A", "1", "-1", "é", "18446744073709551616", long.as_str()] {
                // The first of a repeated name counts.
                assert!(!is_proven(&get(&format!("{name}={value}&{whole}{good}"))), "{name}={value}");
            }
            let renamed = good.replace(&format!("&{name}="), &format!("&x{name}="));
            assert!(!is_proven(&get(&format!("{whole}{renamed}"))), "without {name}");
        }
    }

    #[test]
    fn a_token_says_all_by_itself() {
        let texts = [&ALICE[..], &[("images", "/--IMAGE--"), ("dnd", "/busy")]].concat();
        let token = token("one", &texts, EXP_S);
        let alone = get(&format!("token={token}"));
        assert!(is_proven(&alone));
        assert_eq!(alone.target, Target::Hidden(jid("alice@example.com")));
        assert_eq!((alone.target.jid(), alone.target.shown()), (Some(&jid("alice@example.com")), None));
        assert_eq!((alone.form.kind, alone.redirects.target(State::Dnd)), (Kind::Xml, Some("/busy")));
        assert_eq!(alone.proven(&jid("two.example.com")), None);
        // What it holds, and what it could but does not hold, is not to be had from beside it, good or bad.
        for beside in [
            "jid=eve@example.com",
            "jid=a@example.com&jid=b@example.com",
            "jid=%FF",
            "req_jid=eve@example.com",
            "type=json",
            "type=nonsense",
            "images=/other",
            "dnd=/other",
            "away=javascript:x",
            "unknown=/other",
            "exp=1&kid=2&sig=3",
        ] {
            assert_eq!(get(&format!("{beside}&token={token}&{beside}")), alone, "{beside}");
        }
        let shaped = get(&format!("token={token}&format=gif&size=24&scale=2&lang=de"));
        assert_eq!((shaped.form.size_px, shaped.langs.as_deref()), (48, Some(&["de".to_owned()][..])));
        let refused = |query: &str, hosts: &[&str]| parse(&format!("token={token}{query}"), hosts);
        assert_eq!(refused("&size=7", &[]), Err(Fault::new("size", Rule::Range(8, 512))));
    }

    #[test]
    fn what_is_in_a_token_is_read_as_strictly_as_anything() {
        for (texts, hosts, fault) in [
            (&[("req_jid", "bob@example.com")][..], &[][..], Fault::new("jid", Rule::Required)),
            (&[("jid", "alice@example.com/home")], &[], Fault::new("jid", Rule::BareJid)),
            (&[("jid", "alice@example.com\n")], &[], Fault::new("jid", Rule::NoControls)),
            (&[("jid", "a@example.com"), ("type", "x")], &[], Fault::new("type", Rule::OneOf(&Kind::NAMES))),
            (&[("jid", "a@example.com"), ("dnd", "data:x")], &[], Fault::new("dnd", Rule::Url)),
            (&[("jid", "a@example.com"), ("dnd", "http://a/")], &["b"], Fault::new("dnd", Rule::Host)),
        ] {
            let token = token("one", texts, EXP_S);
            assert_eq!(parse(&format!("token={token}&jid=eve@example.com"), hosts), Err(fault), "{texts:?}");
        }
        let nobody_asks = get(&format!("token={}&req_jid=bob@example.com", token("one", &ALICE[..1], EXP_S)));
        assert_eq!((is_proven(&nobody_asks), nobody_asks.form.kind), (false, Kind::Image));
    }

    #[test]
    fn a_token_that_does_not_open_is_about_nobody() {
        let good = token("one", &ALICE, EXP_S);
        let (late, foreign) = (token("one", &ALICE, NOW_S - 1), token("open", &ALICE, EXP_S));
        let texts = [&late, &foreign, &good[1..], "x", "%FF", "%00", "+", &"A".repeat(TOKEN_MAX_BYTES + 1)];
        let beside = "jid=alice@example.com&req_jid=bob@example.com&type=text&size=32&images=data:x&dnd=/x";
        let signed = signed("one", &[&ALICE[..2], &[("type", "text")]].concat(), EXP_S);
        for text in texts {
            let query = get(&format!("token={text}&{beside}{signed}&token={good}"));
            assert_eq!(
                (query.target.jid(), query.target.shown(), query.req_jid.as_ref()),
                (None, None, None),
                "{text}"
            );
            assert_eq!((query.form.kind, query.form.size_px, query.redirects.is_empty()), (Kind::Text, 32, true));
            assert!(!is_proven(&query) && query.target == Target::Nobody, "{text}");
            assert_eq!(get(&format!("token={text}")).form.kind, Kind::Image);
        }
        let mistaken = parse(&format!("token={late}&type=nonsense"), &[]);
        assert_eq!(mistaken, Err(Fault::new("type", Rule::OneOf(&Kind::NAMES))));
        assert_eq!(
            get(&format!("jid=alice@example.com&token=&token={good}")).target,
            Target::Named(jid("alice@example.com"))
        );
        assert_eq!(parse(&format!("token=&token={good}"), &[]), Err(Fault::new("jid", Rule::Required)));
    }
}
