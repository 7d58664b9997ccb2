//! The way into an account: which login is tried, what its messages mean, and what is left for the next one. It is sent
//! ahead of the server's features where they are remembered, and tried once more in the same stream where the server
//! has changed its mind or the token is refused, and never a third time. What it knows and learns is the account's.

use std::fmt;

use jid::{BareJid, FullJid};
use ring::digest;
use xmpp_parsers::minidom::Element;

use super::account::{Account, Pace};
use super::fast::{Ht, Token};
use super::features::Offer;
use super::login::{Bindings, Credentials, Exchange, LoginFault, Means, Mechanism, Proofs};
use super::sasl::{self, Profile, Said, Tokens};
use super::scram::Gs2;
use super::{Failure, ns};

/// See the module.
pub struct Entrance {
    jid: BareJid,
    password: String,
    nonce: String,
    means: Means,
    /// What the server offers in this session.
    seen: Option<Offer>,
    leaves_tokens_alone: bool,
    /// The mechanism that the server took, and its profile; empty before.
    pub entered_by: String,
}

/// One login under way.
pub struct Attempt {
    way: Way,
    basis: Basis,
    exchange: Exchange,
    /// The kind of the token that was asked for.
    wants: Option<Ht>,
}

/// How to get in.
enum Way {
    Token(Ht),
    Password(Profile, Mechanism, Gs2),
}

/// What an attempt rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Basis {
    /// An earlier session: it was sent ahead of the features.
    Remembered,
    Seen,
    /// What was seen, after another attempt was refused.
    SecondTry,
}

/// Where an attempt has led.
pub enum Progress {
    Going(Attempt),
    /// What was sent behind the first attempt is lost, and goes behind this one again.
    Again(Attempt),
    /// A new stream begins, with binding (RFC 6120, 6.4.6).
    Authenticated,
    /// Everything is done.
    Bound(Option<FullJid>),
}

impl Entrance {
    pub fn new(jid: BareJid, proofs: Proofs, password: String, nonce: String) -> Entrance {
        let means = Means { bindings: Bindings::default(), proved: false, proofs };
        let (leaves_tokens_alone, entered_by) = (false, String::new());
        Entrance { jid, password, nonce, means, seen: None, leaves_tokens_alone, entered_by }
    }

    /// Tokens are neither shown nor asked for; one that is remembered stays.
    pub fn leave_tokens_alone(&mut self) {
        self.leaves_tokens_alone = true;
    }

    /// The channel that the login goes over. `proved`: by TLS, the name of the server.
    pub fn channel(&mut self, bindings: Bindings, proved: bool) {
        self.means = Means { bindings, proved, proofs: self.means.proofs };
    }

    /// A login to send ahead of the features, where those of an earlier session are known. A password is told only to
    /// a server that offered to hear it over TLS that proved its name.
    pub fn ahead(&self, account: &mut Account, out: &mut String) -> Option<Attempt> {
        if account.pace == Pace::FeaturesFirst {
            return None;
        }
        // Until this login succeeds, nothing is remembered: should it fail, the next one looks first.
        let offer = account.offer.take().filter(|offer| offer.proved || !self.means.proved)?;
        self.begin(account, &offer, Basis::Remembered, out).ok()
    }

    /// Takes the features.
    pub fn features(&mut self, account: &mut Account, element: &Element) -> Result<(), Failure> {
        let offer = Offer::read(element, self.means.proved).ok_or(Failure::Unexpected("stream features"))?;
        if self.means.proved {
            account.strongest = Mechanism::strongest_scram(offer.all().chain(account.strongest));
        }
        self.seen = Some(offer);
        Ok(())
    }

    /// A login by the features that were taken.
    pub fn seen(&self, account: &mut Account, out: &mut String) -> Result<Attempt, Failure> {
        let offer = self.seen.clone().unwrap_or_default();
        self.begin(account, &offer, Basis::Seen, out).map_err(Failure::Login)
    }

    /// Takes what the server says to the login.
    pub fn take(
        &mut self,
        account: &mut Account,
        attempt: Attempt,
        element: Element,
        out: &mut String,
    ) -> Result<Progress, Failure> {
        if element.is("features", ns::STREAM) {
            self.features(account, &element)?;
            return Ok(Progress::Going(attempt));
        }
        // Nobody has proved anything yet: neither answers nor what came back of the questions mean anything.
        if element.has_ns(ns::CLIENT) {
            return Ok(Progress::Going(attempt));
        }
        let profile = attempt.way.profile();
        match sasl::read(profile, element).ok_or(Failure::Unexpected("a SASL message"))? {
            Said::Challenge(data) => {
                let (exchange, data) = attempt.exchange.challenge(&data).map_err(Failure::Login)?;
                out.push_str(&sasl::response(profile, &data));
                Ok(Progress::Going(Attempt { exchange, ..attempt }))
            }
            Said::Success(data, element) => self.succeeded(account, attempt, &data, &element),
            Said::Failure(condition) => self.refused(account, attempt, condition, out),
        }
    }

    /// The pace at which the server might not have ended the stream for `condition`, empty where it gave none; `asked`
    /// if questions were behind the login. `None` if haste has nothing to do with it.
    pub fn disliked(&self, account: &Account, attempt: &Attempt, asked: bool, condition: &str) -> Option<Pace> {
        let disliked = is_dislike(condition);
        match attempt.basis {
            // COMPAT: once it has refused a token, ejabberd ends the stream for the stanzas behind it.
            Basis::SecondTry if disliked || condition.is_empty() => Some(Pace::Swift),
            // The next one will be chosen by what is offered now.
            Basis::Remembered if disliked && self.has_changed(account, attempt) => Some(Pace::Swift),
            Basis::Remembered if disliked => Some(Pace::FeaturesFirst),
            Basis::Seen if disliked && asked => Some(Pace::BoundFirst),
            _ => None,
        }
    }

    /// The features that came do not offer any more what was remembered.
    fn has_changed(&self, account: &Account, attempt: &Attempt) -> bool {
        self.seen.as_ref().is_some_and(|offer| match &attempt.way {
            Way::Token(kind) => !offer.fast.contains(kind),
            Way::Password(profile, mechanism, gs2) => {
                self.by_password(account, offer) != Ok((*profile, *mechanism, gs2.clone()))
            }
        })
    }

    fn begin(
        &self,
        account: &mut Account,
        offer: &Offer,
        basis: Basis,
        out: &mut String,
    ) -> Result<Attempt, LoginFault> {
        if basis != Basis::SecondTry
            && let Some(attempt) = self.show_token(account, offer, basis, out)
        {
            return Ok(attempt);
        }
        let (profile, mechanism, gs2) = self.by_password(account, offer)?;
        // No two exchanges have the same nonce.
        let nonce = if basis == Basis::SecondTry { format!("{}.2", self.nonce) } else { self.nonce.clone() };
        let salted = account.salted.clone();
        let who = Credentials { jid: &self.jid, password: &self.password, salted, nonce: &nonce };
        let (exchange, data) = Exchange::start(mechanism, gs2.clone(), who)?;
        let wants = Ht::best(&offer.fast, &self.means.bindings).filter(|_| self.may_use_tokens(profile));
        match profile {
            Profile::Sasl => out.push_str(&sasl::auth(mechanism.name(), &data)),
            Profile::Sasl2 => self.authenticate(account, mechanism.name(), &data, Tokens { shows: false, wants }, out),
        }
        Ok(Attempt { way: Way::Password(profile, mechanism, gs2), basis, exchange, wants })
    }

    fn show_token(&self, account: &mut Account, offer: &Offer, basis: Basis, out: &mut String) -> Option<Attempt> {
        let kind = account.token.as_ref()?.mechanism;
        if offer.sasl2.is_empty() || !offer.fast.contains(&kind) || !self.may_use_tokens(Profile::Sasl2) {
            return None;
        }
        let user = self.jid.node()?.as_str();
        let (expected, data) = account.token.as_ref()?.show(user, &self.means.bindings)?;
        // Servers renew a token by themselves; a better kind is to be asked for.
        let wants = Ht::best(&offer.fast, &self.means.bindings).filter(|best| *best != kind);
        self.authenticate(account, kind.name(), &data, Tokens { shows: true, wants }, out);
        Some(Attempt { way: Way::Token(kind), basis, exchange: Exchange::Token(expected), wants })
    }

    /// What somebody in the middle could get hold of would open the account to him as well.
    fn may_use_tokens(&self, profile: Profile) -> bool {
        profile == Profile::Sasl2 && self.means.proved && !self.leaves_tokens_alone
    }

    /// SASL2 saves a round trip, unless it offers less.
    fn by_password(&self, account: &Account, offer: &Offer) -> Result<(Profile, Mechanism, Gs2), LoginFault> {
        let choose = |profile, offered: &[Mechanism]| {
            let choice = self.means.choose(offered, &offer.bindings, account.strongest);
            choice.map(|(mechanism, gs2)| (profile, mechanism, gs2))
        };
        choose(Profile::Sasl2, &offer.sasl2).or_else(|fault| match choose(Profile::Sasl, &offer.sasl) {
            Err(LoginFault::NoMechanism) => Err(fault),
            choice => choice,
        })
    }

    fn authenticate(&self, account: &mut Account, mechanism: &str, data: &[u8], tokens: Tokens, out: &mut String) {
        let agent = account.agent.get_or_insert_with(|| uuid(&self.nonce));
        out.push_str(&sasl::authenticate(mechanism, data, agent, &tokens));
    }

    /// What came with the success is looked at only once the server has proved itself.
    fn succeeded(
        &mut self,
        account: &mut Account,
        attempt: Attempt,
        data: &[u8],
        success: &Element,
    ) -> Result<Progress, Failure> {
        let salted = attempt.exchange.success(data).map_err(|fault| {
            // Whatever this server makes of tokens, the next login does without.
            account.token = account.token.take().filter(|_| attempt.way.token().is_none());
            Failure::Login(fault)
        })?;
        account.salted = salted.or(account.salted.take());
        self.entered_by = attempt.way.to_string();
        account.offer = self.seen.take();
        if attempt.way.profile() == Profile::Sasl {
            return Ok(Progress::Authenticated);
        }
        let kind = attempt.wants.or(attempt.way.token());
        let token = success.get_child("token", ns::FAST).zip(kind);
        if let Some(token) = token.and_then(|(token, kind)| Token::read(token, kind)).filter(|_| self.means.proved) {
            account.token = Some(token);
        }
        if !success.has_child("bound", ns::BIND2) {
            return Err(Failure::Unexpected("a resource"));
        }
        let jid = success.get_child("authorization-identifier", ns::SASL2).map(Element::text);
        Ok(Progress::Bound(jid.and_then(|jid| FullJid::new(&jid).ok())))
    }

    /// A refused token is no use any more, and the password is tried. What was chosen by features that are no longer
    /// true is chosen anew: COMPAT: ejabberd calls `y` not-authorized once it has -PLUS. Anything else is final.
    fn refused(
        &self,
        account: &mut Account,
        attempt: Attempt,
        condition: String,
        out: &mut String,
    ) -> Result<Progress, Failure> {
        // The server's own trouble (RFC 6120, 6.5.11), not the password's.
        if condition == "temporary-auth-failure" {
            return Err(Failure::StreamEnded(condition));
        }
        account.salted = None;
        let with_token = attempt.way.token().is_some();
        if with_token {
            account.token = None;
        }
        match (attempt.basis, &self.seen) {
            (Basis::Remembered | Basis::Seen, Some(offer)) if with_token || self.has_changed(account, &attempt) => {
                self.begin(account, offer, Basis::SecondTry, out).map(Progress::Again).map_err(Failure::Login)
            }
            _ if with_token => Err(Failure::TooHasty),
            _ => Err(Failure::LoginRefused(condition)),
        }
    }
}

impl Attempt {
    /// Nothing more is to be said but what goes behind the login, and the resource comes with its success.
    pub fn may_be_followed(&self) -> bool {
        self.way.profile() == Profile::Sasl2 && self.exchange.is_said()
    }
}

/// Whether a stream error may mean that something came too early. COMPAT: no two servers call it the same.
pub fn is_dislike(condition: &str) -> bool {
    const DISLIKED: [&str; 8] = [
        "not-authorized",
        "bad-format",
        "invalid-xml",
        "not-well-formed",
        "xml-not-well-formed",
        "unsupported-feature",
        "unsupported-stanza-type",
        "undefined-condition",
    ];
    DISLIKED.contains(&condition)
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Token(kind) => write!(f, "a token ({}) in SASL2", kind.name()),
            Way::Password(Profile::Sasl2, mechanism, _) => write!(f, "{} in SASL2", mechanism.name()),
            Way::Password(Profile::Sasl, mechanism, _) => f.write_str(mechanism.name()),
        }
    }
}

impl Way {
    fn profile(&self) -> Profile {
        match self {
            Way::Token(_) => Profile::Sasl2,
            Way::Password(profile, ..) => *profile,
        }
    }

    fn token(&self) -> Option<Ht> {
        match self {
            Way::Token(kind) => Some(*kind),
            Way::Password(..) => None,
        }
    }
}

/// A random UUID (RFC 9562, 5.4) out of what is random already.
fn uuid(nonce: &str) -> String {
    let hash = digest::digest(&digest::SHA256, nonce.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
