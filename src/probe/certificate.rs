//! What is read out of a server's certificate (RFC 5280, 4.1) beside what the TLS library does with it: until when it
//! is valid, whom it is for, and the hash that a login is bound to. Nothing here decides whether it is trusted.

use std::net::IpAddr;

use ring::digest::{self, Algorithm, SHA256, SHA384, SHA512};
use xmpp_parsers::date::DateTime;

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT`: the version in front of the serial number; the hash among the parameters of RSASSA-PSS.
const FIRST: u8 = 0xa0;
/// `[3] EXPLICIT`: the extensions.
const EXTENSIONS: u8 = 0xa3;
/// `[2]` and `[7]` of a GeneralName.
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// subjectAltName, 2.5.29.17
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
/// RSASSA-PSS, 1.2.840.113549.1.1.10
const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
/// SHA-1, 1.3.14.3.2.26
const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];

/// Signature algorithms and hashes by the hash that stands for them in `tls-server-end-point`: MD5 and SHA-1 are
/// replaced by SHA-256 (RFC 5929, 4.1).
const HASHES: &[(&[u8], &Algorithm)] = &[
    // md5, sha1, sha256, sha384, sha512 WithRSAEncryption
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04], &SHA256),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05], &SHA256),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b], &SHA256),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c], &SHA384),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d], &SHA512),
    // ecdsa-with-SHA1, SHA256, SHA384, SHA512
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01], &SHA256),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02], &SHA256),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03], &SHA384),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04], &SHA512),
    // The hashes themselves, which RSASSA-PSS names.
    (SHA1, &SHA256),
    (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01], &SHA256),
    (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02], &SHA384),
    (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03], &SHA512),
];

/// How many names are told of a certificate that has many.
const NAMES: usize = 10;

/// The end of a certificate's validity; `None` where the bytes are no certificate.
pub fn not_after(der: &[u8]) -> Option<DateTime> {
    Some(validity(der)?.1)
}

/// From when and until when it is valid.
pub fn validity(der: &[u8]) -> Option<(DateTime, DateTime)> {
    let (validity, _) = element(parts(der)?.from_validity, SEQUENCE)?;
    let (not_before, rest) = time(validity)?;
    Some((not_before, time(rest)?.0))
}

/// The hosts it is for, at most the first ten. A stranger wrote them: what is no name is left out.
pub fn names(der: &[u8]) -> Vec<String> {
    let Some(mut rest) = alternative_names(der) else { return Vec::new() };
    let mut names = Vec::new();
    while let Some((tag, content, after)) = any(rest) {
        names.extend(name(tag, content));
        rest = after;
    }
    names.truncate(NAMES);
    names
}

fn name(tag: u8, content: &[u8]) -> Option<String> {
    match tag {
        DNS_NAME if content.iter().all(u8::is_ascii_graphic) => String::from_utf8(content.to_owned()).ok(),
        IP_ADDRESS => match content.len() {
            4 => <[u8; 4]>::try_from(content).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(content).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    }
}

/// What `tls-server-end-point` is (RFC 5929, 4.1); `None` where the signature's algorithm has no single hash.
pub fn end_point(der: &[u8]) -> Option<Vec<u8>> {
    let (algorithm, _) = element(parts(der)?.signature, SEQUENCE)?;
    let (algorithm, parameters) = element(algorithm, OID)?;
    let hash = if algorithm == RSA_PSS { hash_of_pss(parameters)? } else { algorithm };
    let (_, hash) = HASHES.iter().find(|(oid, _)| *oid == hash)?;
    Some(digest::digest(hash, der).as_ref().to_owned())
}

/// RFC 4055, 3.1: without one it is SHA-1.
fn hash_of_pss(parameters: &[u8]) -> Option<&[u8]> {
    let (parameters, _) = element(parameters, SEQUENCE)?;
    match element(parameters, FIRST) {
        None => Some(SHA1),
        Some((hash, _)) => Some(element(element(hash, SEQUENCE)?.0, OID)?.0),
    }
}

/// The places in a certificate that are read.
struct Parts<'a> {
    from_validity: &'a [u8],
    /// Behind what is signed: the algorithm of the signature.
    signature: &'a [u8],
}

fn parts(der: &[u8]) -> Option<Parts<'_>> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut rest, signature) = element(certificate, SEQUENCE)?;
    if rest.first() == Some(&FIRST) {
        rest = element(rest, FIRST)?.1;
    }
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        rest = element(rest, tag)?.1;
    }
    Some(Parts { from_validity: rest, signature })
}

/// The GeneralNames of the extension.
fn alternative_names(der: &[u8]) -> Option<&[u8]> {
    let mut rest = parts(der)?.from_validity;
    // Validity, subject and key; two unique identifiers nobody uses may follow.
    while rest.first() != Some(&EXTENSIONS) {
        rest = any(rest)?.2;
    }
    let (mut extensions, _) = element(element(rest, EXTENSIONS)?.0, SEQUENCE)?;
    while let Some((extension, after)) = element(extensions, SEQUENCE) {
        let (oid, mut value) = element(extension, OID)?;
        if oid == ALTERNATIVE_NAMES {
            // Whether it is critical may stand in front of it.
            while value.first() != Some(&OCTETS) {
                value = any(value)?.2;
            }
            return Some(element(element(value, OCTETS)?.0, SEQUENCE)?.0);
        }
        extensions = after;
    }
    None
}

fn time(der: &[u8]) -> Option<(DateTime, &[u8])> {
    let (digits, rest) = match element(der, UTC_TIME) {
        Some((short, rest)) => {
            let short = std::str::from_utf8(short).ok()?;
            let century = if short.get(..2)?.parse::<u8>().ok()? < 50 { "20" } else { "19" };
            (format!("{century}{short}"), rest)
        }
        None => {
            let (long, rest) = element(der, GENERALIZED_TIME)?;
            (std::str::from_utf8(long).ok()?.to_owned(), rest)
        }
    };
    let part = |range: std::ops::Range<usize>| digits.get(range);
    let date = format!("{}-{}-{}", part(0..4)?, part(4..6)?, part(6..8)?);
    let time = format!("{}:{}:{}Z", part(8..10)?, part(10..12)?, part(12..14)?);
    Some((format!("{date}T{time}").parse().ok()?, rest))
}

/// The content of the element at the front, if it has this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    any(der).filter(|(found, _, _)| *found == tag).map(|(_, content, rest)| (content, rest))
}

/// The tag and the content of the element at the front, and what follows it.
fn any(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A DER element.
    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(content.len()).expect("small").to_be_bytes();
        [&[tag, 0x82, high, low], content].concat()
    }

    fn certificate(version: &[u8], times: &[Vec<u8>]) -> Vec<u8> {
        let front = [version, &der(INTEGER, &[1]), &der(SEQUENCE, &[]), &der(SEQUENCE, &[])].concat();
        let body = [front, der(SEQUENCE, &times.concat()), der(SEQUENCE, &[])].concat();
        der(SEQUENCE, &[der(SEQUENCE, &body), der(SEQUENCE, &[])].concat())
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let utc = |text: &str| der(UTC_TIME, text.as_bytes());
        let general = |text: &str| der(GENERALIZED_TIME, text.as_bytes());
        let version = der(FIRST, &der(INTEGER, &[2]));
        for (version, times, expected) in [
            (version.as_slice(), [utc("260101000000Z"), utc("270203040506Z")], "2027-02-03T04:05:06Z"),
            (&[], [utc("991231235959Z"), utc("491231235959Z")], "2049-12-31T23:59:59Z"),
            (&[], [utc("260101000000Z"), general("20510203040506Z")], "2051-02-03T04:05:06Z"),
        ] {
            let found = not_after(&certificate(version, &times));
            assert_eq!(found, Some(expected.parse().expect("a date")));
        }
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        let whole = certificate(&[], &[der(UTC_TIME, b"260101000000Z"), der(UTC_TIME, b"270203040506Z")]);
        assert!(not_after(&whole).is_some());
        for end in 0..whole.len() {
            assert_eq!(not_after(&whole[..end]), None, "cut at {end}");
        }
        let bad = certificate(&[], &[der(UTC_TIME, b"260101000000Z"), der(UTC_TIME, "27\u{e4}\u{e4}".as_bytes())]);
        assert_eq!(not_after(&bad), None);
    }

    /// With this algorithm of its signature, and these extensions.
    fn signed(algorithm: &[u8], extensions: &[u8]) -> Vec<u8> {
        let times = [der(UTC_TIME, b"260101000000Z"), der(UTC_TIME, b"270203040506Z")].concat();
        let front = [der(INTEGER, &[1]), der(SEQUENCE, &[]), der(SEQUENCE, &[]), der(SEQUENCE, &times)].concat();
        let body = [front, der(SEQUENCE, &[]), der(SEQUENCE, &[]), der(EXTENSIONS, extensions)].concat();
        der(SEQUENCE, &[der(SEQUENCE, &body), der(SEQUENCE, algorithm)].concat())
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let oid = |numbers: &[u8]| der(OID, numbers);
        let pss = |parameters: &[u8]| [oid(RSA_PSS), der(SEQUENCE, parameters)].concat();
        let named = |hash: &[u8]| pss(&der(FIRST, &der(SEQUENCE, &oid(hash))));
        let rsa = |last: u8| [oid(&[&RSA_PSS[..8], &[last]].concat()), der(5, &[])].concat();
        for (algorithm, expected) in [
            (rsa(4), Some(&SHA256)),
            (rsa(5), Some(&SHA256)),
            (rsa(11), Some(&SHA256)),
            (rsa(12), Some(&SHA384)),
            (rsa(13), Some(&SHA512)),
            (oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03]), Some(&SHA384)),
            (pss(&[]), Some(&SHA256)),
            (named(SHA1), Some(&SHA256)),
            (named(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03]), Some(&SHA512)),
            // Ed25519, 1.3.101.112
            (oid(&[0x2b, 0x65, 0x70]), None),
            (Vec::new(), None),
        ] {
            let certificate = signed(&algorithm, &[]);
            let expected = expected.map(|hash| digest::digest(hash, &certificate).as_ref().to_owned());
            assert_eq!(end_point(&certificate), expected, "{algorithm:x?}");
        }
        assert_eq!(end_point(b"0"), None);
    }

    #[test]
    fn names_are_those_of_hosts() {
        let extension = |oid: &[u8], critical: &[u8], value: &[u8]| {
            der(SEQUENCE, &[&der(OID, oid), critical, &der(OCTETS, value)].concat())
        };
        let general = [
            der(DNS_NAME, b"www.example.com"),
            der(0x81, b"mail@example.com"),
            der(DNS_NAME, b"evil\x1b[2J.example"),
            der(IP_ADDRESS, &[192, 0, 2, 1]),
            der(IP_ADDRESS, &[0; 16]),
            der(IP_ADDRESS, &[1, 2]),
            der(DNS_NAME, b"*.example.com"),
        ];
        let expected = ["www.example.com", "192.0.2.1", "::", "*.example.com"];
        let value = der(SEQUENCE, &general.concat());
        for critical in [vec![], der(1, &[0xff])] {
            let other = extension(&[0x55, 0x1d, 0x13], &critical, &[]);
            let extensions = [other, extension(ALTERNATIVE_NAMES, &critical, &value)].concat();
            let whole = signed(&[], &der(SEQUENCE, &extensions));
            assert_eq!(names(&whole), expected);
            for end in 0..whole.len() {
                assert_eq!(names(&whole[..end]), [""; 0], "cut at {end}");
            }
        }
        let many: Vec<u8> = (0..8).flat_map(|_| der(DNS_NAME, b"a.example")).collect();
        let most: Vec<u8> = (0..4).flat_map(|_| der(DNS_NAME, b"b.example")).collect();
        let value = der(SEQUENCE, &[many, most].concat());
        let extensions = der(SEQUENCE, &extension(ALTERNATIVE_NAMES, &[], &value));
        assert_eq!(names(&signed(&[], &extensions)).len(), NAMES);
        assert_eq!(names(&signed(&[], &der(SEQUENCE, &[]))), [""; 0]);
    }
}
