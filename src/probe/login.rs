//! SASL (RFC 6120, 6): which mechanism, and the exchange it means. Pure; the nonce is an argument.

use std::fmt;

use jid::BareJid;
use serde::{Deserialize, Serialize};

use super::fast;
use super::scram::{self, Gs2, Hash, Salted};

/// Why a login cannot go on, as far as we can tell on our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFault {
    /// The server offers nothing that we do: PLAIN wants TLS that proves who it is, and EXTERNAL a certificate.
    NoMechanism,
    /// Only PLAIN is offered, where this was before: somebody in the middle would do that to get the password.
    Downgrade(Mechanism),
    /// User name or password have characters that SASLprep (RFC 4013) forbids.
    Unpreparable,
    /// A message that is not SASL or SCRAM.
    Malformed,
    /// The server's nonce does not extend ours.
    WrongNonce,
    /// PBKDF2 rounds outside [`scram::ROUNDS`].
    Rounds(u32),
    /// The server did not prove that it knows the password, or the token.
    Unproven,
}

impl fmt::Display for LoginFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (scram::ROUNDS.start(), scram::ROUNDS.end());
        match self {
            LoginFault::NoMechanism => f.write_str(
                "the server offers no login that can be used: SCRAM-SHA-1, -256 or -512, PLAIN over verified TLS, or \
                 EXTERNAL with a certificate",
            ),
            LoginFault::Downgrade(before) => write!(
                f,
                "the server offers only PLAIN now, and offered {} before: somebody may be in the middle; if the server \
                 was changed on purpose, remove this identity's file .facts from the state directory and start anew",
                before.name()
            ),
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

impl Bindings {
    pub fn data(&self, kind: BindingType) -> Option<&[u8]> {
        match kind {
            BindingType::Exporter => self.exporter.as_deref(),
            BindingType::EndPoint => self.end_point.as_deref(),
        }
    }

    /// The best type that the server lists too, with what it means on this channel.
    fn shared(&self, listed: &[BindingType]) -> Option<Gs2> {
        let data = |kind| Some(Gs2::Bound(kind, self.data(kind)?.to_vec()));
        BindingType::ALL.into_iter().filter(|kind| listed.contains(kind)).find_map(data)
    }

    fn is_empty(&self) -> bool {
        *self == Bindings::default()
    }
}

/// A type of channel binding, as XEP-0440 lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BindingType {
    #[serde(rename = "tls-exporter")]
    Exporter,
    #[serde(rename = "tls-server-end-point")]
    EndPoint,
}

impl BindingType {
    /// The better one first.
    pub const ALL: [BindingType; 2] = [BindingType::Exporter, BindingType::EndPoint];

    pub fn name(self) -> &'static str {
        match self {
            BindingType::Exporter => "tls-exporter",
            BindingType::EndPoint => "tls-server-end-point",
        }
    }
}

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum Mechanism {
    External,
    ScramPlus(Hash),
    Scram(Hash),
    Plain,
}

/// All that we do, strongest first.
const MECHANISMS: [(&str, Mechanism); 8] = [
    ("EXTERNAL", Mechanism::External),
    ("SCRAM-SHA-512-PLUS", Mechanism::ScramPlus(Hash::Sha512)),
    ("SCRAM-SHA-256-PLUS", Mechanism::ScramPlus(Hash::Sha256)),
    ("SCRAM-SHA-1-PLUS", Mechanism::ScramPlus(Hash::Sha1)),
    ("SCRAM-SHA-512", Mechanism::Scram(Hash::Sha512)),
    ("SCRAM-SHA-256", Mechanism::Scram(Hash::Sha256)),
    ("SCRAM-SHA-1", Mechanism::Scram(Hash::Sha1)),
    ("PLAIN", Mechanism::Plain),
];

impl Mechanism {
    pub fn named(name: &str) -> Option<Mechanism> {
        MECHANISMS.iter().find(|(known, _)| *known == name).map(|(_, mechanism)| *mechanism)
    }

    pub fn name(self) -> &'static str {
        MECHANISMS.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    /// The strongest of `offered` that proves the password without telling it.
    pub fn strongest_scram(offered: impl Iterator<Item = Mechanism>) -> Option<Mechanism> {
        let place = |mechanism: &Mechanism| MECHANISMS.iter().position(|(_, known)| known == mechanism);
        let scram = |mechanism: &Mechanism| matches!(mechanism, Mechanism::ScramPlus(_) | Mechanism::Scram(_));
        offered.filter(scram).min_by_key(place)
    }
}

impl From<Mechanism> for &'static str {
    fn from(mechanism: Mechanism) -> &'static str {
        mechanism.name()
    }
}

impl TryFrom<String> for Mechanism {
    type Error = LoginFault;

    fn try_from(name: String) -> Result<Mechanism, LoginFault> {
        Mechanism::named(&name).ok_or(LoginFault::NoMechanism)
    }
}

/// What can prove who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proofs {
    Password,
    /// The certificate that TLS shows to the server, and no password.
    Certificate,
    Both,
}

/// What this side brings to a login.
#[derive(Clone, Debug)]
pub struct Means {
    pub bindings: Bindings,
    /// The server's name was proved by TLS, so that it may be told the password.
    pub proved: bool,
    pub proofs: Proofs,
}

impl Means {
    /// The strongest of what is offered. `listed` are the server's types of channel binding, `before` the strongest
    /// SCRAM it ever offered. PLAIN hands the password over, so it wants a server that TLS has proved, and that has
    /// never known better.
    pub fn choose(
        &self,
        offered: &[Mechanism],
        listed: &[BindingType],
        before: Option<Mechanism>,
    ) -> Result<(Mechanism, Gs2), LoginFault> {
        let shared = self.bindings.shared(listed);
        let usable = |mechanism: Mechanism| match mechanism {
            Mechanism::External => self.proofs != Proofs::Password,
            _ if self.proofs == Proofs::Certificate => false,
            Mechanism::ScramPlus(_) => shared.is_some(),
            Mechanism::Scram(_) => true,
            Mechanism::Plain => self.proved,
        };
        let best = MECHANISMS.iter().map(|(_, mechanism)| *mechanism).find(|m| usable(*m) && offered.contains(m));
        let mechanism = best.ok_or(LoginFault::NoMechanism)?;
        match (mechanism, before, shared) {
            (Mechanism::Plain, Some(before), _) => Err(LoginFault::Downgrade(before)),
            (Mechanism::ScramPlus(_), _, Some(bound)) => Ok((mechanism, bound)),
            _ => Ok((mechanism, self.unbound(offered))),
        }
    }

    /// COMPAT: Prosody 13 and ejabberd 24 refuse `y` wherever they offer any -PLUS, as RFC 5802, 6 has it.
    fn unbound(&self, offered: &[Mechanism]) -> Gs2 {
        let plus = offered.iter().any(|mechanism| matches!(mechanism, Mechanism::ScramPlus(_)));
        if plus || self.bindings.is_empty() { Gs2::Unbound } else { Gs2::NotOffered }
    }
}

/// Who logs in, and what proves it.
pub struct Credentials<'a> {
    pub jid: &'a BareJid,
    pub password: &'a str,
    /// Of the last exchange, with the same password.
    pub salted: Option<Salted>,
    pub nonce: &'a str,
}

/// One exchange under way.
pub enum Exchange {
    /// PLAIN or EXTERNAL: nothing more is expected than the verdict.
    Told,
    First(scram::First),
    Last(scram::Last),
    /// The server's proof came as a challenge; only the verdict is missing.
    Proved(Salted),
    /// A token is shown (XEP-0484); the server has to show that it has it too.
    Token(fast::Expected),
}

impl Exchange {
    /// Begins an exchange. Returns the initial response.
    pub fn start(mechanism: Mechanism, gs2: Gs2, who: Credentials<'_>) -> Result<(Exchange, Vec<u8>), LoginFault> {
        if mechanism == Mechanism::External {
            // XEP-0178, 3: a certificate may hold several addresses, or none.
            return Ok((Exchange::Told, who.jid.as_str().into()));
        }
        let user = who.jid.node().map(|node| node.as_str()).unwrap_or_default();
        let user = stringprep::saslprep(user).map_err(|_| LoginFault::Unpreparable)?;
        let password = stringprep::saslprep(who.password).map_err(|_| LoginFault::Unpreparable)?;
        match mechanism {
            Mechanism::External | Mechanism::Plain => {
                Ok((Exchange::Told, format!("\0{user}\0{password}").into_bytes()))
            }
            Mechanism::ScramPlus(hash) | Mechanism::Scram(hash) => {
                let (first, message) =
                    scram::First::new(hash, gs2, &user, password.into_owned(), who.salted, who.nonce);
                Ok((Exchange::First(first), message))
            }
        }
    }

    /// Nothing more is ours to say: what follows in the same write waits for the verdict only.
    pub fn is_said(&self) -> bool {
        !matches!(self, Exchange::First(_))
    }

    /// Takes a `<challenge/>`. Returns the response.
    pub fn challenge(self, data: &[u8]) -> Result<(Exchange, Vec<u8>), LoginFault> {
        match self {
            Exchange::First(first) => {
                let (last, message) = first.answer(data)?;
                Ok((Exchange::Last(last), message))
            }
            Exchange::Last(last) => Ok((Exchange::Proved(last.verify(data)?), Vec::new())),
            Exchange::Told | Exchange::Proved(_) | Exchange::Token(_) => Err(LoginFault::Malformed),
        }
    }

    /// Takes the data of `<success/>`. Returns what spares the next SCRAM its rounds.
    pub fn success(self, data: &[u8]) -> Result<Option<Salted>, LoginFault> {
        match self {
            Exchange::Told => Ok(None),
            Exchange::Proved(salted) => Ok(Some(salted)),
            Exchange::Last(last) => last.verify(data).map(Some),
            Exchange::First(_) => Err(LoginFault::Unproven),
            Exchange::Token(expected) => expected.verify(data).map(|()| None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(exporter: bool, end_point: bool, proved: bool, proofs: Proofs) -> Means {
        let bindings =
            Bindings { exporter: exporter.then(|| b"exporter".into()), end_point: end_point.then(|| b"end".into()) };
        Means { bindings, proved, proofs }
    }

    fn named(names: &str) -> Vec<Mechanism> {
        names.split(' ').filter_map(Mechanism::named).collect()
    }

    #[test]
    fn the_strongest_mechanism_is_chosen() {
        let (proved, unproved) =
            (means(false, false, true, Proofs::Password), means(false, false, false, Proofs::Password));
        let alone = means(false, false, true, Proofs::Certificate);
        let shown = means(false, false, true, Proofs::Both);
        let scram = |hash| Ok(Mechanism::Scram(hash));
        for (offered, means, chosen) in [
            ("PLAIN SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-512", &proved, scram(Hash::Sha512)),
            ("PLAIN SCRAM-SHA-1 SCRAM-SHA-256", &proved, scram(Hash::Sha256)),
            ("SCRAM-SHA-1-PLUS SCRAM-SHA-1 PLAIN", &proved, scram(Hash::Sha1)),
            ("PLAIN", &proved, Ok(Mechanism::Plain)),
            ("PLAIN", &unproved, Err(LoginFault::NoMechanism)),
            ("PLAIN SCRAM-SHA-1", &unproved, scram(Hash::Sha1)),
            ("PLAIN EXTERNAL SCRAM-SHA-1", &shown, Ok(Mechanism::External)),
            ("PLAIN EXTERNAL", &proved, Ok(Mechanism::Plain)),
            ("SCRAM-SHA-1", &shown, scram(Hash::Sha1)),
            ("SCRAM-SHA-1 EXTERNAL", &alone, Ok(Mechanism::External)),
            ("SCRAM-SHA-1 PLAIN", &alone, Err(LoginFault::NoMechanism)),
            ("DIGEST-MD5 CRAM-MD5 ANONYMOUS scram-sha-1", &proved, Err(LoginFault::NoMechanism)),
            ("", &proved, Err(LoginFault::NoMechanism)),
        ] {
            let choice = means.choose(&named(offered), &[], None).map(|(mechanism, _)| mechanism);
            assert_eq!(choice, chosen, "{offered} {means:?}");
        }
    }

    /// RFC 5802, 6 and what servers make of it.
    #[test]
    fn what_a_login_is_bound_to() {
        let exporter = || Gs2::Bound(BindingType::Exporter, b"exporter".into());
        let end_point = || Gs2::Bound(BindingType::EndPoint, b"end".into());
        let both = [BindingType::EndPoint, BindingType::Exporter];
        let (plus, plain) = ("SCRAM-SHA-1 SCRAM-SHA-1-PLUS SCRAM-SHA-256 PLAIN", "SCRAM-SHA-256 PLAIN");
        for (offered, listed, ours, chosen, gs2) in [
            (plus, &both[..], (true, true), "SCRAM-SHA-1-PLUS", exporter()),
            (plus, &both, (false, true), "SCRAM-SHA-1-PLUS", end_point()),
            (plus, &both[..1], (true, true), "SCRAM-SHA-1-PLUS", end_point()),
            // COMPAT: ejabberd 23.01 offers -PLUS with types that nobody has.
            (plus, &[], (true, true), "SCRAM-SHA-256", Gs2::Unbound),
            (plus, &both[..1], (true, false), "SCRAM-SHA-256", Gs2::Unbound),
            (plus, &both, (false, false), "SCRAM-SHA-256", Gs2::Unbound),
            (plain, &both, (true, true), "SCRAM-SHA-256", Gs2::NotOffered),
            (plain, &[], (false, true), "SCRAM-SHA-256", Gs2::NotOffered),
            (plain, &[], (false, false), "SCRAM-SHA-256", Gs2::Unbound),
        ] {
            let means = means(ours.0, ours.1, true, Proofs::Password);
            let choice = means.choose(&named(offered), listed, None).map(|(mechanism, gs2)| (mechanism.name(), gs2));
            assert_eq!(choice, Ok((chosen, gs2)), "{offered} {listed:?} {ours:?}");
        }
    }

    #[test]
    fn a_server_that_knew_better_is_not_told_the_password() {
        let means = means(false, false, true, Proofs::Password);
        let before = Mechanism::strongest_scram(named("PLAIN SCRAM-SHA-1 EXTERNAL SCRAM-SHA-256").into_iter());
        assert_eq!(before, Mechanism::named("SCRAM-SHA-256"));
        let downgrade = LoginFault::Downgrade(Mechanism::Scram(Hash::Sha256));
        assert_eq!(means.choose(&named("PLAIN"), &[], before), Err(downgrade));
        assert!(downgrade.to_string().contains("only PLAIN now, and offered SCRAM-SHA-256 before"), "{downgrade}");
        assert!(means.choose(&named("PLAIN SCRAM-SHA-1"), &[], before).is_ok());
        assert_eq!(Mechanism::strongest_scram(named("PLAIN EXTERNAL").into_iter()), None);
    }

    const NONCE: &str = "fyko+d2lbbFgONRv9qkxdawL";
    const CHALLENGE: &[u8] = b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096";
    const PROOF: &[u8] = b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=";

    fn start(mechanism: Mechanism, password: &str) -> Result<(Exchange, Vec<u8>), LoginFault> {
        let jid = BareJid::new("user@example.com").expect("a bare JID");
        let who = Credentials { jid: &jid, password, salted: None, nonce: NONCE };
        Exchange::start(mechanism, Gs2::Unbound, who)
    }

    fn scram() -> Exchange {
        start(Mechanism::Scram(Hash::Sha1), "pencil").expect("preparable").0
    }

    #[test]
    fn plain_says_nothing_but_the_password_and_external_nothing_but_the_name() {
        for (mechanism, said) in [(Mechanism::Plain, &b"\0user\0r0m30"[..]), (Mechanism::External, b"user@example.com")]
        {
            let (exchange, message) = start(mechanism, "r0m30").expect("preparable");
            assert_eq!(message, said);
            assert!(exchange.is_said());
            assert!(matches!(exchange.success(b""), Ok(None)));
            let (exchange, _) = start(mechanism, "r0m30").expect("preparable");
            assert_eq!(exchange.challenge(b"").err(), Some(LoginFault::Malformed));
        }
    }

    #[test]
    fn success_before_the_proof_is_not_believed() {
        assert_eq!(scram().success(PROOF).err(), Some(LoginFault::Unproven));
        let (exchange, _) = scram().challenge(CHALLENGE).expect("a valid challenge");
        assert_eq!(exchange.success(b"").err(), Some(LoginFault::Unproven));
    }

    #[test]
    fn the_proof_may_come_as_a_challenge() {
        let (exchange, _) = scram().challenge(CHALLENGE).expect("a valid challenge");
        let (exchange, message) = exchange.challenge(PROOF).expect("the server's proof");
        assert_eq!(message, b"");
        assert!(matches!(exchange.success(b""), Ok(Some(_))));
    }

    #[test]
    fn passwords_are_prepared_or_refused() {
        let plain = |password: &str| start(Mechanism::Plain, password).map(|(_, message)| message);
        assert_eq!(plain("\u{2168}\u{AD}"), Ok(b"\0user\0IX".to_vec()));
        assert_eq!(plain("a\u{7}b"), Err(LoginFault::Unpreparable));
    }
}
