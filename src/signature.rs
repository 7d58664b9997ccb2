//! Signed links: somebody who holds a key lets the holder of a link see a person, until a certain second. Pure: the
//! keys, the time and what is random are arguments. What the parameters mean is decided by `web`.
//!
//! A link has the parameters `exp`, `kid` and `sig`, and every language that has HMAC can make them:
//!
//! - `exp` is when it ends, in seconds since 1970: decimal digits, the first of them no 0.
//! - `sig` is the HMAC-SHA-256 (RFC 2104) of the fields below, in base64url without padding (RFC 4648, 5). The key is
//!   the content of `sign_key_file` without the one end of line at its end.
//! - `kid` tells the key: the first 8 digits, in lower case, of the hexadecimal SHA-256 of `webpresence-kid-1` and the
//!   key right behind it.
//!
//! The fields, each of them its length in bytes as 32 bits, most significant first, and then its UTF-8:
//! `webpresence-link-1`, the identity's own address (`jid` in `[xmpp]`), `exp`, and then what [`BOUND`] lists: `jid`
//! and `req_jid` as bare addresses in their normal form (for ASCII: in lower case), `type` (`image` where the link has
//! none), and `images` and each state's URL as they are before they are encoded for the link. What the link has not is
//! the length ff ff ff ff and nothing behind it, so that absent is not empty. Everything else (`size`, `format`,
//! `lang`) is free.
//!
//! A link holds from now until `exp`, if that is at most the configured number of days away. The opaque form, one
//! parameter that hides the address, is described in `token`.

mod token;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jid::BareJid;
use ring::{digest, hmac};

use crate::config::{Config, Requester, Secret, SigningKeys};

pub use token::{NONCE_BYTES, TOKEN_MAX_BYTES, seal};

/// What a link binds, in the order of its fields.
pub const BOUND: [&str; 12] =
    ["jid", "req_jid", "type", "images", "available", "chat", "away", "xa", "dnd", "offline", "forbidden", "unknown"];

/// Another version of the fields gets another word.
const VERSION: &str = "webpresence-link-1";
const KID_PREFIX: &str = "webpresence-kid-1";
const KID_DIGITS: usize = 8;
const SIG_BYTES: usize = 32;
/// Until the year 33658.
const EXP_DIGITS: usize = 12;
const DAY_S: u64 = 24 * 60 * 60;
/// The length of a field that is not there.
const ABSENT: u32 = u32::MAX;

/// Everything a signature speaks for, but when it ends: the texts of [`BOUND`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link([Option<String>; BOUND.len()]);

impl Link {
    pub fn of(text: impl Fn(&'static str) -> Option<String>) -> Link {
        Link(BOUND.map(text))
    }

    /// What it has, by name.
    pub fn into_texts(self) -> impl Iterator<Item = (&'static str, String)> {
        BOUND.into_iter().zip(self.0).filter_map(|(name, text)| Some((name, text?)))
    }
}

/// The parameters that sign a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    exp_s: u64,
    kid: String,
    sig: [u8; SIG_BYTES],
}

impl Signature {
    /// Signs with the current key, for the identity `site`.
    pub fn new(keys: &SigningKeys, site: &BareJid, link: &Link, exp_s: u64) -> Signature {
        let key = bytes(&keys.current);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &signed(site, exp_s, link));
        let sig = tag.as_ref().try_into().expect("SHA-256 has 32 bytes");
        Signature { exp_s, kid: kid(key), sig }
    }

    /// `None` where one of them is none.
    pub fn parse(exp: &[u8], kid: &[u8], sig: &[u8]) -> Option<Signature> {
        let exp_s = seconds(exp)?;
        let is_kid = kid.len() == KID_DIGITS && kid.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let kid = is_kid.then(|| String::from_utf8_lossy(kid).into_owned())?;
        let mut bytes = [0; SIG_BYTES];
        let length = BASE64URL.decode_slice(sig, &mut bytes).ok()?;
        (length == SIG_BYTES).then_some(Signature { exp_s, kid, sig: bytes })
    }

    /// As a link has them.
    pub fn params(&self) -> [(&'static str, String); 3] {
        [("exp", self.exp_s.to_string()), ("kid", self.kid.clone()), ("sig", BASE64URL.encode(self.sig))]
    }

    fn is_by(&self, key: &[u8], fields: &[u8]) -> bool {
        // It compares in constant time.
        kid(key) == self.kid && hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), fields, &self.sig).is_ok()
    }
}

/// The keys of all identities, at one moment.
#[derive(Debug, Default)]
pub struct Keyring<'a> {
    sites: Vec<(&'a BareJid, &'a SigningKeys)>,
    now_s: u64,
}

/// A signature holds: for this identity, and until then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    pub site: BareJid,
    pub exp_s: u64,
}

impl<'a> Keyring<'a> {
    /// The keys of those who believe signed links. `now_s`: seconds since 1970.
    pub fn of(config: &'a Config, now_s: u64) -> Keyring<'a> {
        let keys = config.identities.iter().filter_map(|identity| match &identity.access.requester {
            Requester::Signed(keys) => Some((&identity.jid, keys)),
            Requester::Query | Requester::RemoteUser { .. } => None,
        });
        Keyring { sites: keys.collect(), now_s }
    }

    /// Whether one of our keys signed this, and it is its time.
    pub fn check(&self, link: &Link, signature: &Signature) -> Option<Proof> {
        let exp_s = signature.exp_s;
        self.keys().find_map(|(site, keys, key)| {
            let holds = self.is_time(keys, exp_s) && signature.is_by(key, &signed(site, exp_s, link));
            holds.then(|| Proof { site: site.clone(), exp_s })
        })
    }

    /// What a token holds, if one of our keys sealed it, and it is its time.
    pub fn open(&self, text: &[u8]) -> Option<(Link, Proof)> {
        self.keys().find_map(|(site, keys, key)| {
            let (exp_s, link) = token::open(key, site, text)?;
            self.is_time(keys, exp_s).then(|| (link, Proof { site: site.clone(), exp_s }))
        })
    }

    /// Each key, the current ones of a site first.
    fn keys(&self) -> impl Iterator<Item = (&'a BareJid, &'a SigningKeys, &'a [u8])> {
        let both = |keys: &'a SigningKeys| std::iter::once(&keys.current).chain(keys.old.as_ref());
        self.sites.iter().flat_map(move |(site, keys)| both(keys).map(|secret| (*site, *keys, bytes(secret))))
    }

    /// A link that is good for longer than the configuration allows is not good for that long either.
    fn is_time(&self, keys: &SigningKeys, exp_s: u64) -> bool {
        exp_s.checked_sub(self.now_s).is_some_and(|rest_s| rest_s <= u64::from(keys.days) * DAY_S)
    }
}

fn bytes(secret: &Secret) -> &[u8] {
    secret.reveal().as_bytes()
}

/// Which key it is, without saying what it is.
fn kid(key: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, &[KID_PREFIX.as_bytes(), key].concat());
    digest.as_ref()[..KID_DIGITS / 2].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Decimal digits and nothing else: one moment has one text.
fn seconds(text: &[u8]) -> Option<u64> {
    let plain = (1..=EXP_DIGITS).contains(&text.len()) && text[0] != b'0' && text.iter().all(u8::is_ascii_digit);
    plain.then_some(())?;
    str::from_utf8(text).ok()?.parse().ok()
}

/// What is signed.
fn signed(site: &BareJid, exp_s: u64, link: &Link) -> Vec<u8> {
    let mut fields = head(VERSION, site);
    put_body(&mut fields, exp_s, link);
    fields
}

fn head(version: &str, site: &BareJid) -> Vec<u8> {
    let mut fields = Vec::new();
    put(&mut fields, Some(version));
    put(&mut fields, Some(site.as_str()));
    fields
}

fn put_body(fields: &mut Vec<u8>, exp_s: u64, link: &Link) {
    put(fields, Some(&exp_s.to_string()));
    link.0.iter().for_each(|text| put(fields, text.as_deref()));
}

/// One field. Its length stands before it, so that no two lists of fields are the same bytes.
fn put(fields: &mut Vec<u8>, text: Option<&str>) {
    let length = text.map_or(ABSENT, |text| u32::try_from(text.len()).expect("a request has at most 64 KiB"));
    fields.extend(length.to_be_bytes());
    fields.extend(text.unwrap_or_default().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::State;

    pub const NOW_S: u64 = 1_800_000_000;
    pub const EXP_S: u64 = NOW_S + DAY_S;

    pub fn site() -> BareJid {
        BareJid::new("presence.example.com").expect("a constant address")
    }

    pub fn keys(current: &str, old: Option<&str>) -> SigningKeys {
        let secret = |text: &str| Secret::new(text.to_owned());
        SigningKeys { current: secret(current), old: old.map(secret), days: 30 }
    }

    pub const KEY: &str = "0123456789abcdef0123456789abcdef";
    pub const OTHER: &str = "another key of thirty-two bytes.";

    /// A link by the texts it has.
    pub fn link(texts: &[(&str, &str)]) -> Link {
        assert!(texts.iter().all(|(name, _)| BOUND.contains(name)), "{texts:?}");
        Link::of(|name| texts.iter().find(|(known, _)| *known == name).map(|(_, text)| text.to_string()))
    }

    pub fn alice() -> Link {
        link(&[("jid", "alice@example.com"), ("req_jid", "bob@example.com"), ("type", "image")])
    }

    #[test]
    fn what_is_bound_are_the_people_the_type_and_every_redirect() {
        let states = State::ALL.map(State::name);
        assert_eq!(BOUND, [&["jid", "req_jid", "type", "images"][..], &states].concat()[..]);
    }

    /// Made with Python's hmac and hashlib, by the words of this module's description.
    #[test]
    fn vectors_of_another_language() {
        let redirected = link(&[
            ("jid", "älice@münchen.example"),
            ("req_jid", "example.com"),
            ("type", "json"),
            ("images", "https://h.example/--IMAGE--.png?a=b&c=d e"),
            ("dnd", ""),
            ("unknown", "/who.png"),
        ]);
        for (key, link, exp_s, kid, sig) in [
            (KEY, alice(), EXP_S, "dd27dd19", "4eTOM4COw5bq6u8WEQIILT1vUtTvyWqEaXtNMsuno-8"),
            (OTHER, alice(), EXP_S, "4b3d402c", "1O98pBSnfg9uTb9WDhbvkg6OYTr6OGqEDwhiNx2KySQ"),
            (KEY, redirected, 1, "dd27dd19", "YSTD_PSl34viReo0ttROBtdGT0kDOEuEfXUHy2iGy3Q"),
        ] {
            let found = Signature::new(&keys(key, None), &site(), &link, exp_s);
            let expected = [("exp", exp_s.to_string()), ("kid", kid.to_owned()), ("sig", sig.to_owned())];
            assert_eq!(found.params(), expected);
            assert_eq!(Signature::parse(exp_s.to_string().as_bytes(), kid.as_bytes(), sig.as_bytes()), Some(found));
        }
    }

    /// What `keys` say at `now_s` about alice's link, signed with `KEY` until `exp_s`.
    fn holds(keys: &SigningKeys, now_s: u64, exp_s: u64) -> bool {
        let signature = Signature::new(&self::keys(KEY, None), &site(), &alice(), exp_s);
        let proof = Keyring { sites: vec![(&site(), keys)], now_s }.check(&alice(), &signature);
        assert!(proof.as_ref().is_none_or(|proof| *proof == Proof { site: site(), exp_s }));
        proof.is_some()
    }

    #[test]
    fn a_link_has_its_time() {
        let last = NOW_S + 30 * DAY_S;
        for (now_s, exp_s, good) in [
            (NOW_S, NOW_S, true),
            (NOW_S, NOW_S - 1, false),
            (NOW_S, NOW_S + 1, true),
            (NOW_S, last, true),
            (NOW_S, last + 1, false),
            (NOW_S, 999_999_999_999, false),
            (NOW_S, u64::MAX, false),
            (u64::MAX, u64::MAX, true),
            (0, 1, true),
        ] {
            assert_eq!(holds(&keys(KEY, None), now_s, exp_s), good, "{now_s} {exp_s}");
        }
        let forever = SigningKeys { days: u32::MAX, ..keys(KEY, None) };
        assert!(
            holds(&forever, 0, u64::from(u32::MAX) * DAY_S) && !holds(&forever, 0, u64::from(u32::MAX) * DAY_S + 1)
        );
    }

    #[test]
    fn keys_are_changed_without_breaking_links() {
        for (current, old, good) in [
            (KEY, None, true),
            (KEY, Some(OTHER), true),
            (OTHER, Some(KEY), true),
            (OTHER, None, false),
            (OTHER, Some(OTHER), false),
            ("0123456789abcdef0123456789abcdef\n", None, false),
        ] {
            assert_eq!(holds(&keys(current, old), NOW_S, EXP_S), good, "{current:?} {old:?}");
        }
        let made = Signature::new(&keys(OTHER, Some(KEY)), &site(), &alice(), EXP_S);
        assert_eq!(made, Signature::new(&keys(OTHER, None), &site(), &alice(), EXP_S), "the current one signs");
        let renamed = Signature { kid: kid(KEY.as_bytes()), ..made };
        let both = keys(OTHER, Some(KEY));
        assert_eq!(Keyring { sites: vec![(&site(), &both)], now_s: NOW_S }.check(&alice(), &renamed), None);
    }

    #[test]
    fn whose_key_it_is_counts() {
        let (ours, theirs, other) = (keys(KEY, None), keys(OTHER, None), BareJid::new("bot@example.com").expect("one"));
        let signature = Signature::new(&ours, &other, &alice(), EXP_S);
        for (sites, found) in [
            (vec![(&site(), &ours)], None),
            (vec![(&site(), &ours), (&other, &theirs)], None),
            (vec![(&site(), &ours), (&other, &ours)], Some(&other)),
            (vec![], None),
        ] {
            let proof = Keyring { sites, now_s: NOW_S }.check(&alice(), &signature);
            assert_eq!(proof.map(|proof| proof.site).as_ref(), found);
        }
    }

    /// Each change of what is bound, each bit of the signature.
    #[test]
    fn a_changed_link_does_not_hold() {
        let keys = keys(KEY, None);
        let given = [("jid", "a@example.com"), ("req_jid", "b@example.com"), ("type", "xml"), ("images", "/--IMAGE--")];
        let signature = Signature::new(&keys, &site(), &link(&given), EXP_S);
        let site = site();
        let check = |link: &Link, signature: &Signature| {
            Keyring { sites: vec![(&site, &keys)], now_s: NOW_S }.check(link, signature).is_some()
        };
        assert!(check(&link(&given), &signature));
        for (i, name) in BOUND.into_iter().enumerate() {
            for text in [None, Some(""), Some("x"), Some("b@example.com/"), Some("/--IMAGE--\0")] {
                let mut changed = link(&given);
                changed.0[i] = text.map(str::to_owned);
                assert_eq!(check(&changed, &signature), changed == link(&given), "{name} {text:?}");
            }
        }
        for bit in 0..SIG_BYTES * 8 {
            let mut sig = signature.sig;
            sig[bit / 8] ^= 1 << (bit % 8);
            assert!(!check(&link(&given), &Signature { sig, ..signature.clone() }), "bit {bit}");
        }
        assert!(!check(&link(&given), &Signature { exp_s: EXP_S + 1, ..signature.clone() }));
    }

    #[test]
    fn no_two_links_are_the_same_bytes() {
        let mut rows = vec![link(&[])];
        for (i, name) in BOUND.into_iter().enumerate() {
            let next = BOUND[(i + 1) % BOUND.len()];
            for texts in [
                vec![(name, "")],
                vec![(name, "ab")],
                vec![(name, "ab"), (next, "")],
                vec![(name, "a"), (next, "b")],
                vec![(name, "a\0\0\0\x01b")],
                vec![(name, "\0\0\0\0")],
            ] {
                rows.push(link(&texts));
            }
        }
        let mut seen: Vec<_> = rows.iter().map(|link| signed(&site(), EXP_S, link)).collect();
        // What stands before the link is no part of it.
        seen.push(signed(&BareJid::new("presence.example.co").expect("one"), EXP_S, &rows[0]));
        seen.push(signed(&site(), EXP_S / 10, &rows[0]));
        seen.push(head(VERSION, &site()));
        let all = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), all);
    }

    #[test]
    fn parameters_that_are_no_signature() {
        let [(_, exp), (_, kid), (_, sig)] = Signature::new(&keys(KEY, None), &site(), &alice(), EXP_S).params();
        assert!(Signature::parse(exp.as_bytes(), kid.as_bytes(), sig.as_bytes()).is_some());
        assert!(Signature::parse(b"999999999999", kid.as_bytes(), sig.as_bytes()).is_some());
        for exp in [
            "",
            "0",
            "01800000000",
            "+1800000000",
            "-1",
            " 1800000000",
            "1800000000 ",
            "1_8",
            "1e9",
            "0x10",
            "1.5",
            "1000000000000",
            "18446744073709551617",
            "１８",
            "1\0",
        ] {
            assert_eq!(Signature::parse(exp.as_bytes(), kid.as_bytes(), sig.as_bytes()), None, "{exp:?}");
        }
        for wrong in [&kid[1..], &format!("{kid}0"), &kid.to_uppercase(), "+1234567", "", "é23456"] {
            let is_same = wrong == kid;
            assert_eq!(
                Signature::parse(exp.as_bytes(), wrong.as_bytes(), sig.as_bytes()).is_some(),
                is_same,
                "{wrong:?}"
            );
        }
        // The last character has four bits to spare: one value has one text.
        let last = sig.chars().last().expect("43 of them");
        let spare = char::from(last as u8 + 1);
        for sig in [
            sig[..42].to_owned(),
            format!("{sig}A"),
            format!("{sig}="),
            format!("{}{spare}", &sig[..42]),
            format!("{}+", &sig[..42]),
            format!(" {}", &sig[..42]),
            String::new(),
        ] {
            assert_eq!(Signature::parse(exp.as_bytes(), kid.as_bytes(), sig.as_bytes()), None, "{sig:?}");
        }
    }
}
