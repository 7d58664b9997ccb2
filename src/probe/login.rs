//! SASL (RFC 6120, 6): which mechanism, and the exchange it means. Pure; the nonce is an argument.

use std::fmt;

use super::scram::{self, Hash};

/// Why a login cannot go on, as far as we can tell on our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFault {
    /// The server offers nothing that we do, or PLAIN alone without TLS that proves who it is.
    NoMechanism,
    /// User name or password have characters that SASLprep (RFC 4013) forbids.
    Unpreparable,
    /// A message that is not SASL or SCRAM.
    Malformed,
    /// The server's nonce does not extend ours.
    WrongNonce,
    /// PBKDF2 rounds outside [`scram::ROUNDS`].
    Rounds(u32),
    /// The server did not prove that it knows the password.
    Unproven,
}

impl fmt::Display for LoginFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (scram::ROUNDS.start(), scram::ROUNDS.end());
        match self {
            LoginFault::NoMechanism => {
                f.write_str("the server offers neither SCRAM-SHA-256 nor SCRAM-SHA-1, nor PLAIN over verified TLS")
            }
            LoginFault::Unpreparable => f.write_str("user name or password hold characters that SASLprep forbids"),
            LoginFault::Malformed => f.write_str("the server sent a SASL message that is none"),
            LoginFault::WrongNonce => f.write_str("the server's nonce does not extend ours"),
            LoginFault::Rounds(asked) => {
                write!(f, "the server wants {asked} rounds of SCRAM; {least} to {most} are done")
            }
            LoginFault::Unproven => f.write_str("the server did not prove that it knows the password"),
        }
    }
}

/// What a TLS channel gives to bind a login to it, as far as its back end tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    /// `tls-exporter` (RFC 9266), 32 bytes.
    pub exporter: Option<Vec<u8>>,
    /// `tls-server-end-point` (RFC 5929, 4): the hash of the server's certificate.
    pub end_point: Option<Vec<u8>>,
}

/// A SASL mechanism, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Scram(Hash),
    Plain,
}

const MECHANISMS: [(&str, Mechanism); 3] = [
    ("SCRAM-SHA-256", Mechanism::Scram(Hash::Sha256)),
    ("SCRAM-SHA-1", Mechanism::Scram(Hash::Sha1)),
    ("PLAIN", Mechanism::Plain),
];

impl Mechanism {
    /// The strongest of what is offered. PLAIN hands the password over, so it wants a server that TLS has proved.
    pub fn choose<'a>(offered: impl Iterator<Item = &'a str> + Clone, proved: bool) -> Result<Mechanism, LoginFault> {
        let usable = |mechanism: Mechanism| proved || mechanism != Mechanism::Plain;
        MECHANISMS
            .into_iter()
            .find(|(name, mechanism)| usable(*mechanism) && offered.clone().any(|o| o == *name))
            .map(|(_, mechanism)| mechanism)
            .ok_or(LoginFault::NoMechanism)
    }

    pub fn name(self) -> &'static str {
        MECHANISMS.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

/// One exchange under way.
pub enum Exchange {
    /// PLAIN: nothing more is expected than the verdict.
    Plain,
    First(scram::First),
    Last(scram::Last),
    /// The server's proof came as a challenge; only the verdict is missing.
    Proved,
}

impl Exchange {
    /// Begins an exchange. Returns the initial response.
    pub fn start(
        mechanism: Mechanism,
        user: &str,
        password: &str,
        nonce: &str,
    ) -> Result<(Exchange, Vec<u8>), LoginFault> {
        let user = stringprep::saslprep(user).map_err(|_| LoginFault::Unpreparable)?;
        let password = stringprep::saslprep(password).map_err(|_| LoginFault::Unpreparable)?;
        match mechanism {
            Mechanism::Plain => Ok((Exchange::Plain, format!("\0{user}\0{password}").into_bytes())),
            Mechanism::Scram(hash) => {
                let (first, message) = scram::First::new(hash, &user, password.into_owned(), nonce);
                Ok((Exchange::First(first), message))
            }
        }
    }

    /// Takes a `<challenge/>`. Returns the response.
    pub fn challenge(self, data: &[u8]) -> Result<(Exchange, Vec<u8>), LoginFault> {
        match self {
            Exchange::First(first) => {
                let (last, message) = first.answer(data)?;
                Ok((Exchange::Last(last), message))
            }
            Exchange::Last(last) => {
                last.verify(data)?;
                Ok((Exchange::Proved, Vec::new()))
            }
            Exchange::Plain | Exchange::Proved => Err(LoginFault::Malformed),
        }
    }

    /// Takes the data of `<success/>`.
    pub fn success(self, data: &[u8]) -> Result<(), LoginFault> {
        match self {
            Exchange::Plain | Exchange::Proved => Ok(()),
            Exchange::Last(last) => last.verify(data),
            Exchange::First(_) => Err(LoginFault::Unproven),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_mechanism_is_chosen() {
        let scram = |hash| Ok(Mechanism::Scram(hash));
        for (offered, proved, chosen) in [
            ("PLAIN SCRAM-SHA-1 SCRAM-SHA-256", true, scram(Hash::Sha256)),
            ("SCRAM-SHA-1-PLUS SCRAM-SHA-1 PLAIN", true, scram(Hash::Sha1)),
            ("PLAIN", true, Ok(Mechanism::Plain)),
            ("PLAIN", false, Err(LoginFault::NoMechanism)),
            ("PLAIN SCRAM-SHA-1", false, scram(Hash::Sha1)),
            ("DIGEST-MD5 CRAM-MD5 ANONYMOUS scram-sha-1", true, Err(LoginFault::NoMechanism)),
            ("", true, Err(LoginFault::NoMechanism)),
        ] {
            assert_eq!(Mechanism::choose(offered.split(' '), proved), chosen, "{offered}");
        }
    }

    #[test]
    fn plain_says_nothing_but_the_password() {
        let (exchange, message) = Exchange::start(Mechanism::Plain, "juliet", "r0m30", "").expect("preparable");
        assert_eq!(message, b"\0juliet\0r0m30");
        assert_eq!(exchange.success(b""), Ok(()));
        let (exchange, _) = Exchange::start(Mechanism::Plain, "juliet", "r0m30", "").expect("preparable");
        assert_eq!(exchange.challenge(b"").err(), Some(LoginFault::Malformed));
    }

    #[test]
    fn success_before_the_proof_is_not_believed() {
        let scram = Mechanism::Scram(Hash::Sha1);
        let (exchange, _) = Exchange::start(scram, "user", "pencil", "abc").expect("preparable");
        assert_eq!(exchange.success(b""), Err(LoginFault::Unproven));
        let (exchange, _) = Exchange::start(scram, "user", "pencil", "abc").expect("preparable");
        let (exchange, _) = exchange.challenge(b"r=abcX,s=QSXC,i=4096").expect("a valid challenge");
        assert_eq!(exchange.success(b""), Err(LoginFault::Unproven));
    }

    #[test]
    fn the_proof_may_come_as_a_challenge() {
        let nonce = "fyko+d2lbbFgONRv9qkxdawL";
        let (exchange, _) = Exchange::start(Mechanism::Scram(Hash::Sha1), "user", "pencil", nonce).expect("preparable");
        let first = b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096";
        let (exchange, _) = exchange.challenge(first).expect("a valid challenge");
        let (exchange, message) = exchange.challenge(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=").expect("the server's proof");
        assert_eq!((message.as_slice(), exchange.success(b"")), (&b""[..], Ok(())));
    }

    #[test]
    fn names_are_prepared_or_refused() {
        let plain = |user: &str, password: &str| Exchange::start(Mechanism::Plain, user, password, "").map(|(_, m)| m);
        assert_eq!(plain("I\u{AD}X", "\u{2168}"), Ok(b"\0IX\0IX".to_vec()));
        assert_eq!(plain("user", "a\u{7}b"), Err(LoginFault::Unpreparable));
    }
}
