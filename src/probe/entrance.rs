//! The way into an account: which login is tried, what its messages mean, and what is left for the next one. It is sent
//! ahead of the server's features where they are remembered, and tried once more in the same stream where the server
//! has changed its mind or the token is refused. A password is tried once.

use jid::BareJid;
use ring::digest;
use xmpp_parsers::minidom::Element;

use super::account::{Account, Pace};
use super::fast::{Ht, Token};
use super::features::Offer;
use super::login::{Bindings, Certificate, Credentials, Exchange, LoginFault, Means, Mechanism};
use super::sasl::{self, Profile, Said, Tokens};
use super::scram::Gs2;
use super::{Failure, ns};

/// See the module.
pub struct Entrance {
    jid: BareJid,
    password: String,
    nonce: String,
    means: Means,
    account: Account,
    /// What the server offers in this session.
    seen: Option<Offer>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    Bound,
}

impl Entrance {
    pub fn new(jid: BareJid, password: String, nonce: String, account: Account) -> Entrance {
        let means = Means { bindings: Bindings::default(), proved: false, certificate: Certificate::None };
        Entrance { jid, password, nonce, means, account, seen: None }
    }

    /// The channel that the login goes over. `proved`: by TLS, the name of the server.
    pub fn channel(&mut self, bindings: Bindings, proved: bool) {
        self.means = Means { bindings, proved, certificate: Certificate::None };
    }

    pub fn pace(&self) -> Pace {
        self.account.pace
    }

    /// What the next session may build on.
    pub fn into_account(self) -> Account {
        self.account
    }

    /// A login to send ahead of the features, where those of an earlier session are known. A password is told only to
    /// a server that offered to hear it over TLS that proved its name.
    pub fn ahead(&mut self, out: &mut String) -> Option<Attempt> {
        if self.account.pace == Pace::FeaturesFirst {
            return None;
        }
        // Until this login succeeds, nothing is remembered: should it fail, the next one looks first.
        let offer = self.account.offer.take().filter(|offer| offer.proved || !self.means.proved)?;
        self.begin(&offer, Basis::Remembered, out).ok()
    }

    /// Takes the features.
    pub fn features(&mut self, element: &Element) -> Result<(), Failure> {
        let offer = Offer::read(element, self.means.proved).ok_or(Failure::Unexpected("stream features"))?;
        if self.means.proved {
            self.account.strongest = Mechanism::strongest_scram(offer.all().chain(self.account.strongest));
        }
        self.seen = Some(offer);
        Ok(())
    }

    /// A login by the features that were taken.
    pub fn seen(&mut self, out: &mut String) -> Result<Attempt, Failure> {
        let offer = self.seen.clone().unwrap_or_default();
        self.begin(&offer, Basis::Seen, out).map_err(Failure::Login)
    }

    /// Takes what the server says to the login.
    pub fn take(&mut self, attempt: Attempt, element: Element, out: &mut String) -> Result<Progress, Failure> {
        if element.is("features", ns::STREAM) {
            self.features(&element)?;
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
            Said::Success(data, element) => self.succeeded(attempt, &data, &element),
            Said::Failure(condition) => self.refused(attempt, condition, out),
        }
    }

    /// The server wants less at a time, from now on.
    pub fn slow_down(&mut self, pace: Pace) -> Failure {
        self.account.pace = self.account.pace.max(pace);
        Failure::TooHasty
    }

    fn begin(&mut self, offer: &Offer, basis: Basis, out: &mut String) -> Result<Attempt, LoginFault> {
        if basis != Basis::SecondTry
            && let Some(attempt) = self.show_token(offer, basis, out)
        {
            return Ok(attempt);
        }
        let way = self.by_password(offer)?;
        let Way::Password(profile, mechanism, gs2) = way.clone() else { return Err(LoginFault::NoMechanism) };
        // No two exchanges have the same nonce.
        let nonce = if basis == Basis::SecondTry { format!("{}.2", self.nonce) } else { self.nonce.clone() };
        let salted = self.account.salted.clone();
        let who = Credentials { jid: &self.jid, password: &self.password, salted, nonce: &nonce };
        let (exchange, data) = Exchange::start(mechanism, gs2, who)?;
        let wants = Ht::best(&offer.fast, &self.means.bindings).filter(|_| self.may_use_tokens(profile));
        match profile {
            Profile::Sasl => out.push_str(&sasl::auth(mechanism.name(), &data)),
            Profile::Sasl2 => self.authenticate(mechanism.name(), &data, Tokens { shows: false, wants }, out),
        }
        Ok(Attempt { way, basis, exchange, wants })
    }

    fn show_token(&mut self, offer: &Offer, basis: Basis, out: &mut String) -> Option<Attempt> {
        let kind = self.account.token.as_ref()?.mechanism;
        if offer.sasl2.is_empty() || !offer.fast.contains(&kind) || !self.may_use_tokens(Profile::Sasl2) {
            return None;
        }
        let user = self.jid.node()?.as_str();
        let (expected, data) = self.account.token.as_ref()?.show(user, &self.means.bindings)?;
        // Servers renew a token by themselves; a better kind is to be asked for.
        let wants = Ht::best(&offer.fast, &self.means.bindings).filter(|best| *best != kind);
        self.authenticate(kind.name(), &data, Tokens { shows: true, wants }, out);
        Some(Attempt { way: Way::Token(kind), basis, exchange: Exchange::Token(expected), wants })
    }

    /// What somebody in the middle could get hold of would open the account to him as well.
    fn may_use_tokens(&self, profile: Profile) -> bool {
        profile == Profile::Sasl2 && self.means.proved
    }

    /// SASL2 saves a round trip, unless it offers less.
    fn by_password(&self, offer: &Offer) -> Result<Way, LoginFault> {
        let choose = |profile, offered: &[Mechanism]| {
            let choice = self.means.choose(offered, &offer.bindings, self.account.strongest);
            choice.map(|(mechanism, gs2)| Way::Password(profile, mechanism, gs2))
        };
        let sasl2 = choose(Profile::Sasl2, &offer.sasl2);
        if sasl2.is_ok() { sasl2 } else { choose(Profile::Sasl, &offer.sasl) }
    }

    fn authenticate(&mut self, mechanism: &str, data: &[u8], tokens: Tokens, out: &mut String) {
        let agent = self.account.agent.get_or_insert_with(|| uuid(&self.nonce));
        out.push_str(&sasl::authenticate(mechanism, data, agent, &tokens));
    }

    /// What came with the success is looked at only once the server has proved itself.
    fn succeeded(&mut self, attempt: Attempt, data: &[u8], success: &Element) -> Result<Progress, Failure> {
        let salted = attempt.exchange.success(data).map_err(Failure::Login)?;
        self.account.salted = salted.or(self.account.salted.take());
        self.account.offer = self.seen.take();
        if attempt.way.profile() == Profile::Sasl {
            return Ok(Progress::Authenticated);
        }
        let kind = attempt.wants.or(attempt.way.token());
        let token = success.get_child("token", ns::FAST).zip(kind);
        if let Some(token) = token.and_then(|(token, kind)| Token::read(token, kind)).filter(|_| self.means.proved) {
            self.account.token = Some(token);
        }
        if success.has_child("bound", ns::BIND2) { Ok(Progress::Bound) } else { Err(Failure::Unexpected("a resource")) }
    }

    /// A refused token is no use any more, and the password is tried. What was chosen by features that are no longer
    /// true is chosen anew. Anything else is final.
    fn refused(&mut self, attempt: Attempt, condition: String, out: &mut String) -> Result<Progress, Failure> {
        // The server's own trouble (RFC 6120, 6.5.11), not the password's.
        if condition == "temporary-auth-failure" {
            return Err(Failure::StreamEnded(condition));
        }
        self.account.salted = None;
        let with_token = attempt.way.token().is_some();
        if with_token {
            self.account.token = None;
        }
        let changed = |way: Result<Way, LoginFault>| way.map_or(true, |way| way != attempt.way);
        match (attempt.basis, self.seen.clone()) {
            (Basis::Remembered | Basis::Seen, Some(offer)) if with_token || changed(self.by_password(&offer)) => {
                self.begin(&offer, Basis::SecondTry, out).map(Progress::Again).map_err(Failure::Login)
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

    /// The pace at which the server might not have ended the stream for `condition`, empty where it gave none; `asked`
    /// if questions were behind the login. `None` if haste has nothing to do with it.
    pub fn disliked(&self, asked: bool, condition: &str) -> Option<Pace> {
        match self.basis {
            // COMPAT: once it has refused a token, ejabberd ends the stream for the stanzas behind it.
            Basis::SecondTry if is_dislike(condition) || condition.is_empty() => Some(Pace::Swift),
            Basis::Remembered if is_dislike(condition) => Some(Pace::FeaturesFirst),
            Basis::Seen if is_dislike(condition) && asked => Some(Pace::BoundFirst),
            _ => None,
        }
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
