//! The opaque form of a signed link: one parameter that holds everything, and tells it to nobody without the key.
//!
//! `token` is base64url without padding of: the 4 bytes of `kid`; a nonce of 12 bytes, never used twice; the fields,
//! encrypted by AES-256-GCM (RFC 5116), with the tag of 16 bytes behind them. The fields are those of a signed link;
//! but the first two (version and identity, here `webpresence-token-1`) are the associated data, and zeros behind the
//! last make the length a multiple of 64, so that it says little about the length of an address. The key is 32 bytes
//! of HKDF-SHA-256 (RFC 5869) from the signing key, without salt, with `webpresence-token-1` as info.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jid::BareJid;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;

use super::{ABSENT, BOUND, Link, bytes, head, kid, put_body, seconds};
use crate::config::SigningKeys;

/// The most a token has, as text.
pub const TOKEN_MAX_BYTES: usize = 2 * 1024;

pub const NONCE_BYTES: usize = NONCE_LEN;

const VERSION: &str = "webpresence-token-1";
const KID_BYTES: usize = 4;
const BLOCK_BYTES: usize = 64;

/// A token by the current key, for the identity `site`; `None` where it would be too long. `nonce` has to be random.
pub fn seal(keys: &SigningKeys, site: &BareJid, link: &Link, exp_s: u64, nonce: [u8; NONCE_BYTES]) -> Option<String> {
    let key = bytes(&keys.current);
    let mut fields = Vec::new();
    put_body(&mut fields, exp_s, link);
    fields.resize(fields.len().next_multiple_of(BLOCK_BYTES), 0);
    let aad = Aad::from(head(VERSION, site));
    let sealed = cipher(key).seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut fields);
    sealed.expect("a few KiB are within the limit of the cipher");
    let text = BASE64URL.encode([&kid_bytes(key)[..], &nonce, &fields].concat());
    (text.len() <= TOKEN_MAX_BYTES).then_some(text)
}

/// When the token ends and what it holds, if `key` sealed it for `site`.
pub fn open(key: &[u8], site: &BareJid, text: &[u8]) -> Option<(u64, Link)> {
    if text.len() > TOKEN_MAX_BYTES {
        return None;
    }
    let token = BASE64URL.decode(text).ok()?;
    let (named, rest) = token.split_first_chunk::<KID_BYTES>()?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>()?;
    if *named != kid_bytes(key) {
        return None;
    }
    let (nonce, aad) = (Nonce::assume_unique_for_key(*nonce), Aad::from(head(VERSION, site)));
    let mut sealed = sealed.to_vec();
    let opened = cipher(key).open_in_place(nonce, aad, &mut sealed).ok()?;
    read(opened)
}

/// The fields and what fills them up.
fn read(mut rest: &[u8]) -> Option<(u64, Link)> {
    let exp_s = seconds(take(&mut rest)?.as_deref()?.as_bytes())?;
    let mut texts = [const { None }; BOUND.len()];
    for text in &mut texts {
        *text = take(&mut rest)?;
    }
    rest.iter().all(|byte| *byte == 0).then_some((exp_s, Link(texts)))
}

/// The next field, and whether it is there.
fn take(rest: &mut &[u8]) -> Option<Option<String>> {
    let (length, after) = rest.split_first_chunk()?;
    let length = u32::from_be_bytes(*length);
    if length == ABSENT {
        *rest = after;
        return Some(None);
    }
    let (text, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    String::from_utf8(text.to_vec()).ok().map(Some)
}

fn kid_bytes(key: &[u8]) -> [u8; KID_BYTES] {
    u32::from_str_radix(&kid(key), 16).expect("eight hexadecimal digits").to_be_bytes()
}

/// A key of its own: what is signed and what is encrypted never meet under one.
fn cipher(key: &[u8]) -> LessSafeKey {
    let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(key);
    let info = [VERSION.as_bytes()];
    let derived = secret.expand(&info, &AES_256_GCM).expect("32 bytes are within the limit of HKDF");
    LessSafeKey::new(UnboundKey::from(derived))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{EXP_S, KEY, NOW_S, OTHER, alice, keys, link, site};
    use super::super::{Keyring, Proof};
    use super::*;

    const NONCE: [u8; NONCE_BYTES] = [7; NONCE_BYTES];

    fn sealed(link: &Link, exp_s: u64) -> String {
        seal(&keys(KEY, None), &site(), link, exp_s, NONCE).expect("it is short enough")
    }

    fn opened(keys: &SigningKeys, site: &BareJid, token: &str) -> Option<(Link, Proof)> {
        Keyring { sites: vec![(site, keys)], now_s: NOW_S }.open(token.as_bytes())
    }

    /// Made with Python's hmac and hashlib and, for AES alone, its package `cryptography`.
    #[test]
    fn a_vector_of_another_language() {
        assert_eq!(
            sealed(&alice(), EXP_S),
            "3SfdGQcHBwcHBwcHBwcHB7UNmwQFffBgA-HkIjkSrQDDIw4ybp-eyMCEHdVJHpqwc56rTiV2o7TMXEIE_-GiaaMQi3hnTll5ncyUnUfQht7X6ipDlOvfrii1Yca9Ctg_20Jo4jdAqnselVykwNRjcHS6L6foRibbUEYil0Oft6ZcwMSKuozPGJvA4AtQCO-7eLGIKk1lHIgKG41cIQYqTg"
        );
    }

    #[test]
    fn a_token_comes_back_whole() {
        let full = BOUND.map(|name| (name, "/é --IMAGE--"));
        for link in [alice(), link(&[]), link(&full), link(&[("jid", "")])] {
            let proof = Proof { site: site(), exp_s: EXP_S };
            let found = opened(&keys(OTHER, Some(KEY)), &site(), &sealed(&link, EXP_S));
            assert_eq!(found, Some((link, proof)));
        }
    }

    #[test]
    fn who_has_another_key_or_comes_at_another_time_opens_nothing() {
        let other = BareJid::new("presence.example.org").expect("a constant address");
        for (keys, site, exp_s) in [
            (keys(OTHER, None), site(), EXP_S),
            (keys(KEY, None), other, EXP_S),
            (keys(KEY, None), site(), NOW_S - 1),
            (keys(KEY, None), site(), NOW_S + 31 * 24 * 60 * 60),
        ] {
            assert_eq!(opened(&keys, &site, &sealed(&alice(), exp_s)), None, "{site} {exp_s}");
        }
    }

    #[test]
    fn a_changed_or_cut_token_opens_nothing() {
        let (keys, token) = (keys(KEY, None), sealed(&alice(), EXP_S));
        let bytes = BASE64URL.decode(&token).expect("it is base64url");
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opened(&keys, &site(), &BASE64URL.encode(&changed)), None, "bit {bit}");
        }
        for end in 0..token.len() {
            assert_eq!(opened(&keys, &site(), &token[..end]), None, "{end}");
        }
        for text in [format!("{token}="), format!("{token}AAAA"), format!(" {token}"), token.replace(['-', '_'], "+")] {
            assert_eq!(opened(&keys, &site(), &text).is_some(), text == token, "{text}");
        }
    }

    /// What is inside is by a holder of the key, but he may be no friend of strict forms.
    #[test]
    fn fields_cut_at_every_byte() {
        let mut whole = Vec::new();
        put_body(&mut whole, EXP_S, &alice());
        assert_eq!(read(&whole), Some((EXP_S, alice())));
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]), None, "{end}");
        }
        for (rest, good) in [(&[0; 200][..], true), (&[0, 0, 1], false), (b"x", false)] {
            assert_eq!(read(&[&whole[..], rest].concat()).is_some(), good, "{rest:?}");
        }
        let latin = whole.iter().map(|byte| if *byte == b'@' { 0xe4 } else { *byte }).collect::<Vec<_>>();
        assert_eq!(read(&latin), None);
        // The first field is the time, behind the four bytes of its length.
        let early = [&whole[..4], b"0800000000", &whole[14..]].concat();
        assert_eq!((early.len(), read(&early)), (whole.len(), None));
    }

    #[test]
    fn its_length_says_little_and_has_a_limit() {
        let length = |name: &str| sealed(&link(&[("jid", name), ("req_jid", name), ("type", "image")]), EXP_S).len();
        assert_eq!(length("al@example.com"), length("alexandra.longname@example.com"));
        let images = |bytes: usize| link(&[("images", &"a".repeat(bytes))]);
        let made = |bytes| seal(&keys(KEY, None), &site(), &images(bytes), EXP_S, NONCE);
        let longest = (0..TOKEN_MAX_BYTES).rev().find_map(made).expect("a short one fits");
        assert!(longest.len() > TOKEN_MAX_BYTES - 2 * BLOCK_BYTES && longest.len() <= TOKEN_MAX_BYTES);
        assert!(opened(&keys(KEY, None), &site(), &longest).is_some());
        assert_eq!(made(TOKEN_MAX_BYTES), None);
        assert_eq!(open(KEY.as_bytes(), &site(), "A".repeat(TOKEN_MAX_BYTES + 1).as_bytes()), None);
    }
}
