//! SCRAM (RFC 5802, RFC 7677) on ring: one client exchange, a type per step. Nothing is believed of a server that has
//! not proved that it knows the password too. Which mechanism, and what binds it to TLS, is decided elsewhere.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

use super::login::{BindingType, LoginFault};

/// PBKDF2 rounds a server may ask for: RFC 7677 wants 4096 at least, and half a million cost under a second.
pub const ROUNDS: RangeInclusive<u32> = 4096..=500_000;

/// The hash a SCRAM mechanism is named after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    Sha1,
    Sha256,
    Sha512,
}

impl Hash {
    fn hmac(self) -> hmac::Algorithm {
        match self {
            Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => hmac::HMAC_SHA256,
            Hash::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        self.hmac().digest_algorithm()
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Hash::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Hash::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }
}

/// What the exchange says of the TLS channel it runs over (RFC 5802, 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gs2 {
    /// `n`: we have nothing to bind to that the server takes.
    Unbound,
    /// `y`: we could, but the server seems not to. One that does takes this for the sign of somebody in the middle.
    NotOffered,
    /// `p`: the exchange holds for this channel only.
    Bound(BindingType, Vec<u8>),
}

impl Gs2 {
    fn header(&self) -> String {
        match self {
            Gs2::Unbound => "n,,".to_owned(),
            Gs2::NotOffered => "y,,".to_owned(),
            Gs2::Bound(kind, _) => format!("p={},,", kind.name()),
        }
    }

    /// The header again with what it promises, for the proof to cover.
    fn input(&self) -> String {
        let data = if let Gs2::Bound(_, data) = self { data.as_slice() } else { &[] };
        BASE64.encode([self.header().as_bytes(), data].concat())
    }
}

/// PBKDF2's costly result, for a server that asks with the same salt and rounds again. It is as good as the password
/// at that server, and lives no longer than the process.
#[derive(Clone, Debug)]
pub struct Salted {
    hash: Hash,
    salt: Vec<u8>,
    rounds: NonZeroU32,
    key: hmac::Key,
}

impl Salted {
    fn new(hash: Hash, salt: Vec<u8>, rounds: NonZeroU32, password: &str) -> Salted {
        let mut key = vec![0; hash.digest().output_len()];
        pbkdf2::derive(hash.pbkdf2(), rounds, &salt, password.as_bytes(), &mut key);
        Salted { hash, salt, rounds, key: hmac::Key::new(hash.hmac(), &key) }
    }

    fn is_for(&self, hash: Hash, salt: &[u8], rounds: NonZeroU32) -> bool {
        (self.hash, self.salt.as_slice(), self.rounds) == (hash, salt, rounds)
    }
}

/// Our first message is out; the server's first is awaited.
pub struct First {
    hash: Hash,
    gs2: Gs2,
    password: String,
    salted: Option<Salted>,
    /// The first message without its gs2 header.
    bare: String,
    nonce: String,
}

impl First {
    /// Begins an exchange; user and password are prepared already (RFC 4013), and `salted` was made of that password.
    /// Returns what to send.
    pub fn new(
        hash: Hash,
        gs2: Gs2,
        user: &str,
        password: String,
        salted: Option<Salted>,
        nonce: &str,
    ) -> (First, Vec<u8>) {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let bare = format!("n={user},r={nonce}");
        let message = format!("{}{bare}", gs2.header()).into_bytes();
        (First { hash, gs2, password, salted, bare, nonce: nonce.to_owned() }, message)
    }

    /// Takes the server's first message and proves the password.
    pub fn answer(self, challenge: &[u8]) -> Result<(Last, Vec<u8>), LoginFault> {
        let server_first = std::str::from_utf8(challenge).map_err(|_| LoginFault::Malformed)?;
        let mut fields = server_first.split(',');
        let mut field = |name: &str| fields.next().and_then(|f| f.strip_prefix(name)).ok_or(LoginFault::Malformed);
        // An `m=` in front would be an extension that must be understood: it is refused as out of place.
        let nonce = field("r=")?;
        let salt = BASE64.decode(field("s=")?).map_err(|_| LoginFault::Malformed)?;
        let rounds: u32 = field("i=")?.parse().map_err(|_| LoginFault::Malformed)?;
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(LoginFault::WrongNonce);
        }
        let rounds = NonZeroU32::new(rounds).filter(|r| ROUNDS.contains(&r.get())).ok_or(LoginFault::Rounds(rounds))?;

        let known = self.salted.filter(|salted| salted.is_for(self.hash, &salt, rounds));
        let salted = known.unwrap_or_else(|| Salted::new(self.hash, salt, rounds, &self.password));
        let without_proof = format!("c={},r={nonce}", self.gs2.input());
        let signed = format!("{},{server_first},{without_proof}", self.bare);
        let key = |bytes: &[u8]| hmac::Key::new(self.hash.hmac(), bytes);
        let client_key = hmac::sign(&salted.key, b"Client Key");
        let stored_key = digest::digest(self.hash.digest(), client_key.as_ref());
        let signature = hmac::sign(&key(stored_key.as_ref()), signed.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let expected = key(hmac::sign(&salted.key, b"Server Key").as_ref());
        let message = format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes();
        Ok((Last { expected, signed, salted }, message))
    }
}

/// Our proof is out; the server's is awaited.
pub struct Last {
    expected: hmac::Key,
    signed: String,
    salted: Salted,
}

impl Last {
    /// Checks the server's last message, in constant time. Returns what spares the next exchange its rounds.
    pub fn verify(self, message: &[u8]) -> Result<Salted, LoginFault> {
        let message = std::str::from_utf8(message).map_err(|_| LoginFault::Malformed)?;
        let signature = message.split(',').next().and_then(|f| f.strip_prefix("v=")).ok_or(LoginFault::Unproven)?;
        let signature = BASE64.decode(signature).map_err(|_| LoginFault::Malformed)?;
        let verified = hmac::verify(&self.expected, self.signed.as_bytes(), &signature);
        verified.map(|()| self.salted).map_err(|_| LoginFault::Unproven)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hash, what it is bound to, nonce, server's first, our last, server's last.
    type Script = (Hash, Gs2, &'static str, &'static str, &'static str, &'static str);

    /// The exchanges of RFC 5802, 5 and RFC 7677, 3, and others that were worked out with Python's hashlib.
    fn exchanges() -> [Script; 5] {
        const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
        const CHALLENGE: &str =
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=c2FsdFNBTFRzYWx0U0FMVA==,i=4096";
        [
            (
                Hash::Sha1,
                Gs2::Unbound,
                "fyko+d2lbbFgONRv9qkxdawL",
                "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
                "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
                "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
            ),
            (
                Hash::Sha256,
                Gs2::Unbound,
                NONCE,
                "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
                "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ),
            (
                Hash::Sha512,
                Gs2::Unbound,
                NONCE,
                CHALLENGE,
                "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=BgqMpNsLX8+JgnaXMNO1XMVKBq/aqerYIzuCcXP1EaYPv0mkLihrU6r3Jtp6IC0Iq8iafFX1zZ7uArIfptqw+A==",
                "v=Qnb25OBZk9V3i4xNswJaPsMSYRO0oGaN6fG1RgUTsQ5NYUKHkCKqkhVBVAkUaeyGii85ZnR0LHdaMz3lAJWWjA==",
            ),
            (
                Hash::Sha256,
                Gs2::Bound(BindingType::Exporter, (0..32).collect()),
                NONCE,
                CHALLENGE,
                "c=cD10bHMtZXhwb3J0ZXIsLAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=bwrBLev3DRLMtidgnHbCtmDdZp8okzUPrd76kKTHuCY=",
                "v=zcY9DZPEg2/bbWqqT2Y0xypacuauJH8p/ZGrYIafKdk=",
            ),
            (
                Hash::Sha256,
                Gs2::NotOffered,
                NONCE,
                CHALLENGE,
                "c=eSws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=WC62pAhFei/bU3QcWEWbYo946XmXFy+tDlrazMZ4Q5o=",
                "v=CtSpQZPLeysdEalaauAey0gBjd4KZJvXCassipLfNTo=",
            ),
        ]
    }

    fn last((hash, gs2, nonce, challenge, ..): &Script, salted: Option<Salted>) -> (Last, Vec<u8>) {
        let (first, message) = First::new(*hash, gs2.clone(), "user", "pencil".into(), salted, nonce);
        assert_eq!(message, format!("{}n=user,r={nonce}", gs2.header()).into_bytes());
        first.answer(challenge.as_bytes()).unwrap_or_else(|fault| panic!("{fault:?}"))
    }

    #[test]
    fn the_examples_hold_with_salted_keys_and_without() {
        let mut salted = None;
        for script in exchanges().into_iter().flat_map(|script| [script.clone(), script]) {
            let (exchange, message) = last(&script, salted.take());
            assert_eq!(String::from_utf8_lossy(&message), script.4);
            salted = Some(exchange.verify(script.5.as_bytes()).unwrap_or_else(|fault| panic!("{fault:?}")));
        }
    }

    #[test]
    fn salted_keys_spare_the_password_its_rounds_and_no_other() {
        let [script, other, ..] = exchanges();
        let salted = last(&script, None).0.verify(script.5.as_bytes()).expect("proved");
        let response = |script: &Script, password: &str, salted: Salted| {
            let first = First::new(script.0, script.1.clone(), "user", password.into(), Some(salted), script.2).0;
            first.answer(script.3.as_bytes()).map(|(_, message)| String::from_utf8_lossy(&message).into_owned())
        };
        assert_eq!(response(&script, "not looked at", salted.clone()).as_deref(), Ok(script.4));
        assert_eq!(response(&other, "pencil", salted.clone()).as_deref(), Ok(other.4));
        assert!(!format!("{salted:?}").contains("pencil"), "{salted:?}");
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_not_believed() {
        let [script, other, ..] = exchanges();
        for (message, fault) in [
            ("v=rmF9pqV8S7suAoZWja4dJRkFsKR=", LoginFault::Malformed),
            ("v=AAAAAAAAAAAAAAAAAAAAAAAAAAA=", LoginFault::Unproven),
            ("v=", LoginFault::Unproven),
            ("v=!", LoginFault::Malformed),
            ("", LoginFault::Unproven),
            ("e=other-error", LoginFault::Unproven),
            (other.5, LoginFault::Unproven),
        ] {
            assert_eq!(last(&script, None).0.verify(message.as_bytes()).err(), Some(fault), "{message}");
        }
    }

    #[test]
    fn a_challenge_that_breaks_the_rules_is_refused() {
        for (challenge, fault) in [
            ("", LoginFault::Malformed),
            ("m=ext,r=abcd,s=QSXC,i=4096", LoginFault::Malformed),
            ("r=abcX,i=4096,s=QSXC", LoginFault::Malformed),
            ("r=abcX,s=***,i=4096", LoginFault::Malformed),
            ("r=abcX,s=QSXC,i=many", LoginFault::Malformed),
            ("r=abc,s=QSXC,i=4096", LoginFault::WrongNonce),
            ("r=xyz1,s=QSXC,i=4096", LoginFault::WrongNonce),
            ("r=abcX,s=QSXC,i=0", LoginFault::Rounds(0)),
            ("r=abcX,s=QSXC,i=4095", LoginFault::Rounds(4095)),
            ("r=abcX,s=QSXC,i=500001", LoginFault::Rounds(500_001)),
        ] {
            let (first, _) = First::new(Hash::Sha1, Gs2::Unbound, "user", "pencil".into(), None, "abc");
            assert_eq!(first.answer(challenge.as_bytes()).err(), Some(fault), "{challenge}");
        }
    }

    #[test]
    fn a_user_name_cannot_break_out_of_its_field() {
        let (_, message) = First::new(Hash::Sha1, Gs2::Unbound, "a=b,c", "x".into(), None, "n");
        assert_eq!(message, b"n,,n=a=3Db=2Cc,r=n");
    }
}
