//! SCRAM (RFC 5802, RFC 7677) on ring: one client exchange, a type per step. Nothing is believed of a server that has
//! not proved that it knows the password too. Channel binding is not used; the flag is `n`.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

use super::login::LoginFault;

/// PBKDF2 rounds a server may ask for: RFC 7677 wants 4096 at least, and half a million cost under a second.
pub const ROUNDS: RangeInclusive<u32> = 4096..=500_000;

/// The hash a SCRAM mechanism is named after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    Sha1,
    Sha256,
}

impl Hash {
    fn hmac(self) -> hmac::Algorithm {
        match self {
            Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => hmac::HMAC_SHA256,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        self.hmac().digest_algorithm()
    }

    fn salted(self, password: &str, salt: &[u8], rounds: NonZeroU32) -> Vec<u8> {
        let algorithm = match self {
            Hash::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        };
        let mut key = vec![0; self.digest().output_len()];
        pbkdf2::derive(algorithm, rounds, salt, password.as_bytes(), &mut key);
        key
    }
}

/// Our first message is out; the server's first is awaited.
pub struct First {
    hash: Hash,
    password: String,
    /// The first message without its gs2 header.
    bare: String,
    nonce: String,
}

impl First {
    /// Begins an exchange; user and password are prepared already (RFC 4013). Returns what to send.
    pub fn new(hash: Hash, user: &str, password: String, nonce: &str) -> (First, Vec<u8>) {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let bare = format!("n={user},r={nonce}");
        let message = format!("n,,{bare}").into_bytes();
        (First { hash, password, bare, nonce: nonce.to_owned() }, message)
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

        let salted = self.hash.salted(&self.password, &salt, rounds);
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{server_first},{without_proof}", self.bare);
        let mac = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(self.hash.hmac(), key), text);
        let client_key = mac(&salted, b"Client Key");
        let stored_key = digest::digest(self.hash.digest(), client_key.as_ref());
        let signature = mac(stored_key.as_ref(), signed.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let server_key = mac(&salted, b"Server Key");
        let expected = hmac::Key::new(self.hash.hmac(), server_key.as_ref());
        let message = format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes();
        Ok((Last { expected, signed }, message))
    }
}

/// Our proof is out; the server's is awaited.
pub struct Last {
    expected: hmac::Key,
    signed: String,
}

impl Last {
    /// Checks the server's last message, in constant time.
    pub fn verify(self, message: &[u8]) -> Result<(), LoginFault> {
        let message = std::str::from_utf8(message).map_err(|_| LoginFault::Malformed)?;
        let signature = message.split(',').next().and_then(|f| f.strip_prefix("v=")).ok_or(LoginFault::Unproven)?;
        let signature = BASE64.decode(signature).map_err(|_| LoginFault::Malformed)?;
        hmac::verify(&self.expected, self.signed.as_bytes(), &signature).map_err(|_| LoginFault::Unproven)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchanges of RFC 5802, 5 and RFC 7677, 3: nonce, server's first, our last, server's last.
    const EXCHANGES: [(Hash, &str, &str, &str, &str); 2] = [
        (
            Hash::Sha1,
            "fyko+d2lbbFgONRv9qkxdawL",
            "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        ),
        (
            Hash::Sha256,
            "rOprNGfwEbeRWgbNEkqO",
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
    ];

    fn last(index: usize) -> (Last, Vec<u8>) {
        let (hash, nonce, challenge, _, _) = EXCHANGES[index];
        let (first, message) = First::new(hash, "user", "pencil".into(), nonce);
        assert_eq!(message, format!("n,,n=user,r={nonce}").into_bytes());
        first.answer(challenge.as_bytes()).unwrap_or_else(|fault| panic!("{fault:?}"))
    }

    #[test]
    fn the_examples_of_the_rfcs_hold() {
        for (index, (.., response, success)) in EXCHANGES.into_iter().enumerate() {
            let (exchange, message) = last(index);
            assert_eq!(String::from_utf8_lossy(&message), response);
            assert_eq!(exchange.verify(success.as_bytes()), Ok(()));
        }
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_not_believed() {
        for (message, fault) in [
            ("v=rmF9pqV8S7suAoZWja4dJRkFsKR=", LoginFault::Malformed),
            ("v=AAAAAAAAAAAAAAAAAAAAAAAAAAA=", LoginFault::Unproven),
            ("v=", LoginFault::Unproven),
            ("v=!", LoginFault::Malformed),
            ("", LoginFault::Unproven),
            ("e=other-error", LoginFault::Unproven),
            (EXCHANGES[1].4, LoginFault::Unproven),
        ] {
            assert_eq!(last(0).0.verify(message.as_bytes()), Err(fault), "{message}");
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
            let (first, _) = First::new(Hash::Sha1, "user", "pencil".into(), "abc");
            assert_eq!(first.answer(challenge.as_bytes()).err(), Some(fault), "{challenge}");
        }
    }

    #[test]
    fn a_user_name_cannot_break_out_of_its_field() {
        let (_, message) = First::new(Hash::Sha1, "a=b,c", "x".into(), "n");
        assert_eq!(message, b"n,,n=a=3Db=2Cc,r=n");
    }
}
