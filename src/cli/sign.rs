//! `webpresence sign JID` makes a signed link: its holder sees what the person himself may see, or another requester
//! (`--for`), until it ends. The link is read again as a request would be before it is told, so that none is given
//! away that would not be believed.

use std::ffi::OsString;
use std::time::{SystemTime, UNIX_EPOCH};

use jid::BareJid;
use lexopt::ValueExt as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::time::Instant;
use url::Url;

use super::{Failed, Misuse, Out, jid};
use crate::access;
use crate::config::keys::Section;
use crate::config::{Config, Identity, Requester, SigningKeys};
use crate::signature::{BOUND, Keyring, Link, NONCE_BYTES, Signature, TOKEN_MAX_BYTES, seal};
use crate::web::request::{Kind, Query, Request};

const DAY_S: u64 = 24 * 60 * 60;

/// What a query holds as it is; nothing else, so that a link may stand in quotes of any kind.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@').remove(b'/').remove(b':');

/// What is asked for beside the JID.
#[derive(Debug, Default, PartialEq)]
pub struct Options {
    requester: Option<BareJid>,
    days: Option<u32>,
    kind: Option<Kind>,
    shape: Shape,
    base: Option<Url>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Shape {
    #[default]
    Parameters,
    Token,
}

impl Options {
    pub const NAMES: [&str; 5] = ["for", "days", "type", "url", "opaque"];

    /// Takes one of `NAMES`.
    pub fn take(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<(), Misuse> {
        if name == "opaque" {
            self.shape = Shape::Token;
            return Ok(());
        }
        let value = parser.value()?;
        let text = || value.clone().string();
        match name {
            "for" => self.requester = Some(jid(value)?),
            "days" => self.days = Some(days(&text()?)?),
            "type" => self.kind = Some(kind(&text()?)?),
            _ => self.base = Some(base(&text()?)?),
        }
        Ok(())
    }

    /// With the arguments: a JID, then redirects.
    pub fn about(self, arguments: Vec<OsString>) -> Result<Order, Misuse> {
        let mut arguments = arguments.into_iter();
        let target = arguments.next().ok_or_else(|| Misuse("sign takes one JID".to_owned()))?;
        let mut order = Order { target: jid(target)?, redirects: Vec::new(), options: self };
        for argument in arguments {
            let redirect = redirect(&argument.string()?)?;
            if order.redirects.iter().any(|(name, _)| *name == redirect.0) {
                return Err(Misuse(format!("{} twice", redirect.0)));
            }
            order.redirects.push(redirect);
        }
        Ok(order)
    }
}

fn days(text: &str) -> Result<u32, Misuse> {
    let days = text.parse().ok().filter(|days| *days > 0);
    days.ok_or_else(|| Misuse(format!("--days {text}: not a number of days")))
}

fn kind(text: &str) -> Result<Kind, Misuse> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == text);
    kind.ok_or_else(|| Misuse(format!("--type {text}: not one of {}", Kind::NAMES.join(", "))))
}

fn base(text: &str) -> Result<Url, Misuse> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| Misuse(format!("--url {text}: not an http or https URL")))
}

/// `NAME=URL`, as in a link.
fn redirect(text: &str) -> Result<(&'static str, String), Misuse> {
    let names = &BOUND[3..];
    let (name, url) = text.split_once('=').unwrap_or((text, ""));
    let name = names.iter().find(|known| **known == name && !url.is_empty());
    let misuse = || Misuse(format!("{text}: not NAME=URL with NAME one of {}", names.join(", ")));
    Ok((name.ok_or_else(misuse)?, url.to_owned()))
}

/// One link to make.
#[derive(Debug, PartialEq)]
pub struct Order {
    target: BareJid,
    redirects: Vec<(&'static str, String)>,
    options: Options,
}

pub fn sign(config: &Config, order: &Order, out: Out<'_>) -> Result<(), Failed> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut nonce = [0; NONCE_BYTES];
    let no_nonce = |_| Failed::Because("the system has no random numbers".to_owned());
    SystemRandom::new().fill(&mut nonce).map_err(no_nonce)?;
    let line = order.line(config, now.as_secs(), nonce).map_err(Failed::Because)?;
    Ok(writeln!(out, "{line}")?)
}

impl Order {
    /// The link, or why there is none.
    fn line(&self, config: &Config, now_s: u64, nonce: [u8; NONCE_BYTES]) -> Result<String, String> {
        let (identity, keys) = self.signer(config)?;
        let days = self.options.days.unwrap_or(keys.days);
        if days > keys.days {
            return Err(format!(
                "--days {days}: more than sign_days in {}, which is {}",
                identity.header(Section::Access),
                keys.days
            ));
        }
        let exp_s = now_s + u64::from(days) * DAY_S;
        let params = match self.options.shape {
            Shape::Parameters => self.params(keys, identity, exp_s),
            Shape::Token => {
                let token = seal(keys, &identity.jid, &self.link(), exp_s, nonce);
                let long = || format!("the token would be longer than {TOKEN_MAX_BYTES} bytes: leave --opaque out");
                vec![("token", token.ok_or_else(long)?)]
            }
        };
        let encode = |text: &str| utf8_percent_encode(text, PLAIN).to_string();
        let params: Vec<_> = params.iter().map(|(name, text)| format!("{name}={}", encode(text))).collect();
        let (line, query) = self.at_its_place(params.join("&"));
        self.try_it(config, identity, now_s, exp_s, &query)?;
        Ok(line)
    }

    /// Who signs: the identity that will be asked.
    fn signer<'a>(&self, config: &'a Config) -> Result<(&'a Identity, &'a SigningKeys), String> {
        let nobody = || format!("{}: none of the [access] domains serves {}", self.target, self.target.domain());
        let identity = access::serving(config, &self.target).ok_or_else(nobody)?;
        match &identity.access.requester {
            Requester::Signed(keys) => Ok((identity, keys)),
            Requester::Query | Requester::RemoteUser { .. } => Err(format!(
                "{} believes no links: {} needs requester = signed and sign_key_file",
                identity.jid,
                identity.header(Section::Access)
            )),
        }
    }

    fn requester(&self) -> &BareJid {
        self.options.requester.as_ref().unwrap_or(&self.target)
    }

    fn link(&self) -> Link {
        Link::of(|name| match name {
            "jid" => Some(self.target.to_string()),
            "req_jid" => Some(self.requester().to_string()),
            "type" => Some(self.options.kind.unwrap_or(Kind::Image).name().to_owned()),
            name => self.redirects.iter().find(|(known, _)| *known == name).map(|(_, url)| url.clone()),
        })
    }

    /// Everything a signature binds stands in the link, but the type where it is the usual one.
    fn params(&self, keys: &SigningKeys, identity: &Identity, exp_s: u64) -> Vec<(&'static str, String)> {
        let link = self.link();
        let signature = Signature::new(keys, &identity.jid, &link, exp_s);
        let texts = link.into_texts().filter(|(name, _)| *name != "type" || self.options.kind.is_some());
        texts.chain(signature.params()).collect()
    }

    /// The whole link, and its query.
    fn at_its_place(&self, params: String) -> (String, String) {
        let Some(base) = &self.options.base else { return (params.clone(), params) };
        let mut url = base.clone();
        let query = match base.query().filter(|query| !query.is_empty()) {
            Some(own) => format!("{own}&{params}"),
            None => params,
        };
        url.set_query(Some(&query));
        (url.to_string(), query)
    }

    /// Reads the link as a request would be read.
    fn try_it(&self, config: &Config, us: &Identity, now_s: u64, exp_s: u64, query: &str) -> Result<(), String> {
        let vars = [("REQUEST_METHOD", "GET"), ("QUERY_STRING", query)];
        let request = Request { vars: vars.into(), body: Vec::new(), excess: None, arrived: Instant::now() };
        let keyring = Keyring::of(config, now_s);
        let read = Query::parse(&request, &config.images.redirect_hosts, &keyring);
        let read = read.map_err(|refusal| refusal.fault.to_string())?;
        let is_proven = read.proven(&us.jid).is_some_and(|proven| {
            (proven.requester, proven.exp_s, read.target.jid()) == (self.requester(), exp_s, Some(&self.target))
        });
        let failure = "nobody would believe this link: --for is no address that a request can have, \
                       or --url has parameters of its own that stand before those of the link";
        if is_proven { Ok(()) } else { Err(failure.to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Command, parse};
    use super::*;
    use crate::config::{self, Secret};

    const NOW_S: u64 = 1_800_000_000;

    /// An identity that signs, with the key of the vectors in `signature`, and one that does not.
    fn config() -> Config {
        let plain = "[xmpp]\njid = presence.example.com\npassword = x\n[access]\ndomains = example.com\n";
        let other = "[xmpp b]\njid = b.example.net\npassword = x\n[images]\nredirect_hosts = h.example\n";
        let config = config::parse(&format!("{plain}{other}"), Path::new("test.ini"));
        let mut config = config.unwrap_or_else(|errors| panic!("{errors}"));
        let current = Secret::new("0123456789abcdef0123456789abcdef".to_owned());
        config.identities[0].access.requester = Requester::Signed(SigningKeys { current, old: None, days: 30 });
        config
    }

    fn order(line: &str) -> Result<Order, String> {
        let args = ["webpresence", "sign"].into_iter().chain(line.split_whitespace());
        match parse(args.map(OsString::from)) {
            Ok((None, Command::Sign(order))) => Ok(order),
            Ok(other) => panic!("{line}: {other:?}"),
            Err(Misuse(reason)) => Err(reason),
        }
    }

    fn line(text: &str) -> Result<String, String> {
        order(text).expect("the command line is sound").line(&config(), NOW_S, [7; NONCE_BYTES])
    }

    #[test]
    fn links() {
        // Signed by another language: see `signature`.
        let alice = "jid=alice@example.com&req_jid=bob@example.com&exp=1800086400&kid=dd27dd19\
                     &sig=4eTOM4COw5bq6u8WEQIILT1vUtTvyWqEaXtNMsuno-8";
        let signed = |text: &str| line(text).unwrap_or_else(|reason| panic!("{text}: {reason}"));
        let bob = "Alice@Example.com --for bob@example.com --days 1";
        assert_eq!(signed(bob), alice);
        let typed = alice.replace("&exp=", "&type=image&exp=");
        assert_eq!(signed(&format!("--type image {bob}")), typed);
        for (url, begins, ends) in [
            ("https://example.com", "https://example.com/?", ""),
            ("http://example.com/presence/", "http://example.com/presence/?", ""),
            ("https://example.com/p?size=64#top", "https://example.com/p?size=64&", "#top"),
            ("https://example.com/p?", "https://example.com/p?", ""),
        ] {
            assert_eq!(signed(&format!("{bob} --url {url}")), format!("{begins}{alice}{ends}"));
        }
        let self_asked = signed("alice@example.com");
        assert!(self_asked.starts_with("jid=alice@example.com&req_jid=alice@example.com&exp=1802592000&kid="));
        let redirected = signed("alice@example.com --type image dnd=/a?b=c&d=%C3é#' images=http://h.example/--IMAGE--");
        let urls = "&images=http://h.example/--IMAGE--&dnd=/a%3Fb%3Dc%26d%3D%25C3%C3%A9%23%27&exp=";
        assert!(redirected.contains(urls), "{redirected}");
        assert!(signed("älice@example.com").starts_with("jid=%C3%A4lice@example.com&req_jid=%C3%A4lice@example.com&"));
    }

    #[test]
    fn opaque_links() {
        let token = line("alice@example.com --for bob@example.com --days 1 --opaque").expect("it is short");
        assert!(token.starts_with("token=3SfdGQcHBwcHBwcHBwcHB7UNmwQFffBg"), "{token}");
        let whole = line("alice@example.com --opaque --type xml --url https://example.com/presence/");
        assert!(whole.is_ok_and(|whole| whole.starts_with("https://example.com/presence/?token=3SfdGQ")));
    }

    #[test]
    fn what_cannot_be_signed() {
        let long = "a".repeat(1600);
        let not_believed = "nobody would believe this link: --for is no address that a request can have, \
                            or --url has parameters of its own that stand before those of the link";
        for (text, reason) in [
            ("alice@example.org", "alice@example.org: none of the [access] domains serves example.org"),
            ("a@example.net", "b.example.net believes no links: [access b] needs requester = signed and sign_key_file"),
            ("a@example.com --days 31", "--days 31: more than sign_days in [access], which is 30"),
            ("a@example.com --days 4294967295", "--days 4294967295: more than sign_days in [access], which is 30"),
            ("a@example.com dnd=http://evil.example/", "dnd: must lead to a host that this site allows"),
            (
                "a@example.com images=icons/--IMAGE--",
                "images: must be an http or https URL or a path of this site, without backslash, user name and password",
            ),
            (
                "a@example.com --opaque dnd=data:x",
                "dnd: must be an http or https URL or a path of this site, without backslash, user name and password",
            ),
            (
                &format!("a@example.com --opaque images=/{long}"),
                "the token would be longer than 2048 bytes: leave --opaque out",
            ),
            (
                &["available", "chat", "away", "xa", "dnd", "offline"]
                    .iter()
                    .fold("a@example.com".to_owned(), |all, name| format!("{all} {name}=/{long}")),
                "query string: must be at most 8192 bytes",
            ),
            ("a@example.com --for a@*.example.com", not_believed),
            ("a@example.com --url https://h.example/?jid=b@example.com", "jid: one address at a time"),
            ("a@example.com --url https://h.example/?req_jid=b@example.com", not_believed),
            ("a@example.com --url https://h.example/?type=xml", not_believed),
            ("a@example.com --opaque --url https://h.example/?token=x", not_believed),
        ] {
            assert_eq!(line(text), Err(reason.to_owned()), "{text}");
        }
        assert_eq!(line("a@example.com --days 30").map(drop), Ok(()));
    }

    #[test]
    fn what_means_nothing() {
        let names = "images, available, chat, away, xa, dnd, offline, forbidden, unknown";
        for (text, reason) in [
            ("", "sign takes one JID".to_owned()),
            ("a@example.com --days 0", "--days 0: not a number of days".to_owned()),
            ("a@example.com --days 4294967296", "--days 4294967296: not a number of days".to_owned()),
            ("a@example.com --type XML", "--type XML: not one of image, text, xml, json, avatar".to_owned()),
            ("a@example.com --url /presence/", "--url /presence/: not an http or https URL".to_owned()),
            ("a@example.com --for", "missing argument for option '--for'".to_owned()),
            ("a@example.com b@example.com", format!("b@example.com: not NAME=URL with NAME one of {names}")),
            ("a@example.com type=xml", format!("type=xml: not NAME=URL with NAME one of {names}")),
            ("a@example.com dnd=", format!("dnd=: not NAME=URL with NAME one of {names}")),
            ("a@example.com dnd=/a dnd=/b", "dnd twice".to_owned()),
        ] {
            assert_eq!(order(text), Err(reason), "{text}");
        }
    }
}
