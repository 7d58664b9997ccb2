//! One value's text → its type, or what is wrong with it. Knows neither keys nor lines; what is allowed is said by
//! the table of keys.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jid::BareJid;
use url::Url;

use super::{DomainPattern, Host, LogTarget};

/// The longest path a Unix socket can have: `sun_path` without its closing zero (unix(7)).
const SOCKET_PATH_BYTES: usize = 107;
/// The longest word of `[text]`, in characters.
const WORD_CHARS: usize = 200;
/// Where anybody may put files or links, and where they vanish.
const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// A bare JID (RFC 7622).
pub(super) fn jid(text: &str) -> Result<BareJid, &'static str> {
    let jid = match BareJid::new(text) {
        Ok(jid) => jid,
        Err(jid::Error::ResourceInBareJid) => return Err("has a resource"),
        Err(_) => return Err("is not a JID"),
    };
    if is_plain_domain(jid.domain().as_str()) { Ok(jid) } else { Err("is not a JID") }
}

/// RFC 7622 leaves it to DNS and IDNA what a domain is; `jid` lets more through than either, such as `*` and quotes.
fn is_plain_domain(domain: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c) || !c.is_ascii();
    domain.starts_with('[') || domain.chars().all(plain)
}

/// A domain, normalised as in a JID.
pub(super) fn domain(text: &str) -> Result<String, &'static str> {
    match jid(text) {
        Ok(jid) if jid.node().is_none() => Ok(jid.domain().as_str().to_owned()),
        _ => Err("is not a domain"),
    }
}

/// A domain, or `*.name`.
pub(super) fn domain_pattern(text: &str) -> Result<DomainPattern, &'static str> {
    match text.strip_prefix("*.") {
        Some(parent) => domain(parent).map(DomainPattern::Below),
        None => domain(text).map(DomainPattern::Exactly),
    }
}

pub(super) fn domains(text: &str) -> Result<Vec<DomainPattern>, &'static str> {
    let read = |name| domain_pattern(name).map_err(|_| "one of the names is not a domain");
    let patterns = items(text).map(read).collect::<Result<Vec<_>, _>>()?;
    let has_plain = patterns.iter().any(|pattern| matches!(pattern, DomainPattern::Exactly(_)));
    if has_plain { Ok(patterns) } else { Err("there is no plain name") }
}

/// What a list separated by commas, white space or both holds.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty())
}

pub(super) fn host(text: &str) -> Result<Host, &'static str> {
    let Some(socket) = text.strip_prefix("unix:") else {
        let bare_ip = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        return match bare_ip.parse::<IpAddr>() {
            Ok(ip) => Ok(Host::Name(ip.to_string())),
            Err(_) => host_name(text).map(Host::Name),
        };
    };
    if !socket.starts_with('/') {
        return Err("the socket's path is not absolute");
    }
    if socket.len() > SOCKET_PATH_BYTES {
        return Err("the socket's path is longer than 107 bytes");
    }
    Ok(Host::Unix(PathBuf::from(socket)))
}

pub(super) fn hosts(text: &str) -> Result<Vec<String>, &'static str> {
    let names = items(text).map(host_name).collect::<Result<Vec<_>, _>>()?;
    if names.is_empty() { Err("there is no name") } else { Ok(names) }
}

/// Origins as browsers send them (RFC 6454, 6.2): no default port, the host as in a URL.
pub(super) fn origins(text: &str) -> Result<Vec<String>, &'static str> {
    let origins = items(text).map(origin).collect::<Result<Vec<_>, _>>()?;
    if origins.is_empty() { Err("there is no origin") } else { Ok(origins) }
}

fn origin(text: &str) -> Result<String, &'static str> {
    const WRONG: &str = "is not an origin";
    let url = Url::parse(text).map_err(|_| WRONG)?;
    // The library is as forgiving as a browser; what it would repair, leave out or add is refused.
    let (scheme, place) = text.split_once("://").ok_or(WRONG)?;
    let is_web = ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web));
    if !is_web || place.contains(['/', '\\', '?', '#', '@', '%']) || place.ends_with(':') {
        return Err(WRONG);
    }
    host_name(url.host_str().ok_or(WRONG)?).map_err(|_| WRONG)?;
    Ok(url.origin().ascii_serialization())
}

/// A host as the WHATWG URL standard writes it: lower case, international names in ASCII, IPv6 in brackets. Redirect
/// targets are compared with it, and they come from the same library.
fn host_name(text: &str) -> Result<String, &'static str> {
    const WRONG: &str = "is not a host name or IP address";
    let host = url::Host::parse(text).map_err(|_| WRONG)?;
    match &host {
        url::Host::Domain(name) if !is_dns_name(name) => Err(WRONG),
        _ => Ok(host.to_string()),
    }
}

/// Labels of 1 to 63 letters, digits, hyphens or underscores, 253 characters in all (RFC 1035, 2.3.4).
fn is_dns_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let label = |label: &str| (1..=63).contains(&label.len()) && label.chars().all(plain);
    name.len() <= 253 && name.split('.').all(label)
}

/// True where no other machine is reached.
pub(super) fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Name(name) => match name.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            // RFC 6761, 6.3: these names never leave the machine.
            Err(_) => name == "localhost" || name.ends_with(".localhost"),
        },
    }
}

/// A whole number in decimal digits and nothing else.
pub(super) fn number(text: &str, min: u64, max: u64) -> Result<u64, &'static str> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("is not a whole number");
    }
    match text.parse() {
        Ok(n) if (min..=max).contains(&n) => Ok(n),
        _ => Err("is out of range"),
    }
}

pub(super) fn choice(text: &str, words: &[&'static str]) -> Result<&'static str, &'static str> {
    words.iter().find(|word| **word == text).copied().ok_or("is not one of the words for it")
}

pub(super) fn yes_no(text: &str) -> Result<bool, &'static str> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("is neither yes nor no"),
    }
}

pub(super) fn word(text: &str) -> Result<String, &'static str> {
    if text.contains(char::is_control) {
        return Err("holds a control character");
    }
    if text.chars().count() > WORD_CHARS { Err("is longer than 200 characters") } else { Ok(text.to_owned()) }
}

/// True for what RFC 5646 can be a language tag: up to 35 characters, parts of 1 to 8 letters and digits, the first
/// of 2 to 8 letters.
pub(super) fn is_language(tag: &str) -> bool {
    let part = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
    let first = tag.split('-').next().unwrap_or(tag);
    tag.len() <= 35 && first.len() >= 2 && first.bytes().all(|b| b.is_ascii_alphabetic()) && tag.split('-').all(part)
}

pub(super) fn log_target(text: &str) -> Result<LogTarget, &'static str> {
    match text {
        "stderr" => Ok(LogTarget::Stderr),
        "syslog" => Ok(LogTarget::Syslog),
        path if path.starts_with('/') && !path.ends_with('/') => Ok(LogTarget::File(PathBuf::from(path))),
        _ => Err("is not a log target"),
    }
}

/// True for a path in a folder where anybody may write; `..` and `.` do not hide it.
pub(super) fn is_temporary(path: &Path) -> bool {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(plain.pop()),
            std::path::Component::CurDir => {}
            part => plain.push(part),
        }
    }
    TEMPORARY.iter().any(|folder| plain.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_addresses_or_sockets() {
        let name = |text: &str| Ok(Host::Name(text.into()));
        const WRONG: Result<Host, &str> = Err("is not a host name or IP address");
        let longest = format!("unix:/{}", "x".repeat(SOCKET_PATH_BYTES - 1));
        let table = [
            ("XMPP.Example.com", name("xmpp.example.com")),
            ("bücher.example", name("xn--bcher-kva.example")),
            ("192.0.2.1", name("192.0.2.1")),
            ("::1", name("::1")),
            ("[2001:DB8::1]", name("2001:db8::1")),
            ("unix:/run/xmpp.sock", Ok(Host::Unix("/run/xmpp.sock".into()))),
            (&longest, Ok(Host::Unix(longest["unix:".len()..].into()))),
            (&format!("{longest}x"), Err("the socket's path is longer than 107 bytes")),
            ("unix:run/xmpp.sock", Err("the socket's path is not absolute")),
            ("unix:", Err("the socket's path is not absolute")),
            ("example.com:5347", WRONG),
            ("http://example.com", WRONG),
            ("*.example.com", WRONG),
            ("a..b", WRONG),
            ("example.com.", WRONG),
            ("a b", WRONG),
            ("\"example.com\"", WRONG),
        ];
        for (text, expected) in table {
            assert_eq!(host(text), expected, "{text}");
        }
    }

    #[test]
    fn loopback_is_what_stays_on_this_machine() {
        let table = [
            ("localhost", true),
            ("xmpp.localhost", true),
            ("127.8.9.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("unix:/x", true),
            ("notlocalhost", false),
            ("127.example.com", false),
            ("192.0.2.1", false),
            ("::2", false),
        ];
        for (text, expected) in table {
            assert_eq!(is_loopback(&host(text).expect("a host")), expected, "{text}");
        }
    }

    #[test]
    fn languages_have_the_shape_of_a_tag() {
        for tag in ["de", "pt-BR", "zh-Hant-TW", "sl-rozaj-biske-1994", "abcdefgh"] {
            assert!(is_language(tag), "{tag}");
        }
        let long = "ab-".repeat(11) + "abc";
        for tag in ["", "d", "de-", "-de", "de_AT", "d1", "abcdefghi", "de-abcdefghi", "dé", "de.AT", &long] {
            assert!(!is_language(tag), "{tag}");
        }
    }

    #[test]
    fn temporary_folders_are_seen_through_dots() {
        for path in ["/tmp", "/tmp/", "/tmp/x", "//tmp/x", "/srv/../tmp/x", "/./var/tmp/x", "/dev/shm/x", "/../tmp"] {
            assert!(is_temporary(Path::new(path)), "{path}");
        }
        for path in ["/", "/tmpx", "/var/lib/tmp", "/tmp/../srv", "/home/a/tmp", "/var/lib"] {
            assert!(!is_temporary(Path::new(path)), "{path}");
        }
    }
}
