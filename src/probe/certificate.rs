//! The one thing the commands tell about a certificate that TLS does not: until when it is valid (RFC 5280, 4.1). TLS
//! has verified it before; this only reads a date out of its DER.

use xmpp_parsers::date::DateTime;

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT`: the version, in front of the serial number.
const VERSION: u8 = 0xa0;

/// The end of a certificate's validity; `None` where the bytes are no certificate.
pub fn not_after(der: &[u8]) -> Option<DateTime> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest, VERSION)?.1;
    }
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        rest = element(rest, tag)?.1;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let (_, not_after) = time(validity)?;
    Some(time(not_after)?.0)
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
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let content = rest.split_at_checked(length)?;
    (*found == tag).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A DER element.
    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).expect("small");
        [&[tag, 0x81, length], content].concat()
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
        let version = der(VERSION, &der(INTEGER, &[2]));
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
}
