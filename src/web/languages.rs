//! Which languages a visitor wants his words in, best first: from the parameter `lang`, which is checked, or from the
//! browser's Accept-Language, which is read as far as it makes sense.

use super::params::Params;
use super::refusal::{Fault, Rule};

/// More than anybody reads; what comes after them in a header is not looked at.
const ACCEPTED_MAX: usize = 32;

/// The tags of `lang`, or `None` where it was not given.
pub fn asked(params: &Params) -> Result<Option<Vec<String>>, Fault> {
    let Some(text) = params.text("lang")? else { return Ok(None) };
    let tags: Vec<&str> = text.split(',').map(str::trim).collect();
    if !tags.iter().all(|tag| is_tag(tag)) {
        return Err(Fault::new("lang", Rule::Languages));
    }
    Ok(Some(tags.into_iter().map(str::to_owned).collect()))
}

/// The tags of an Accept-Language header (RFC 9110, 12.5.4) in the order of their weight. `*` and tags with weight 0
/// name no language.
pub fn accepted(header: &[u8]) -> Vec<String> {
    let ranges = header.split(|byte| *byte == b',').take(ACCEPTED_MAX);
    let mut weighed: Vec<(u16, &str)> = ranges.filter_map(|range| weigh(str::from_utf8(range).ok()?)).collect();
    weighed.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    weighed.into_iter().map(|(_, tag)| tag.to_owned()).collect()
}

/// A language range with its weight in thousandths.
fn weigh(range: &str) -> Option<(u16, &str)> {
    let (tag, weight) = match range.split_once(';') {
        Some((tag, parameter)) => (tag.trim(), thousandths(parameter)?),
        None => (range.trim(), 1000),
    };
    (is_tag(tag) && weight > 0).then_some((weight, tag))
}

/// `q=0.5` as 500 (RFC 9110, 12.4.2).
fn thousandths(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.trim().split_once('=')?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let digits = fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if !name.eq_ignore_ascii_case("q") || !digits {
        return None;
    }
    match whole {
        "0" => format!("{fraction:0<3}").parse().ok(),
        "1" => Some(1000),
        _ => None,
    }
}

/// The shape of a language tag (RFC 4647, 2.1): subtags of one to eight letters or digits, the first of letters.
fn is_tag(text: &str) -> bool {
    let subtag = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    text.split('-').all(subtag) && text.split('-').take(1).all(|part| part.bytes().all(|b| b.is_ascii_alphabetic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_is_checked() {
        let asked = |query: &str| asked(&Params::read(&[query.as_bytes()]));
        assert_eq!(asked(""), Ok(None));
        let rows: [(&str, &[&str]); 4] = [
            ("lang=de", &["de"]),
            ("lang=de-AT,en", &["de-AT", "en"]),
            ("lang=de,+en", &["de", "en"]),
            ("lang=zh-Hant-TW-x-abcdefgh", &["zh-Hant-TW-x-abcdefgh"]),
        ];
        for (query, expected) in rows {
            assert_eq!(asked(query), Ok(Some(expected.iter().map(ToString::to_string).collect())), "{query}");
        }
        for query in ["lang=", "lang=de,", "lang=de_AT", "lang=*", "lang=123", "lang=abcdefghi", "lang=de--AT"] {
            assert_eq!(asked(query), Err(Fault::new("lang", Rule::Languages)), "{query}");
        }
    }

    #[test]
    fn the_header_is_read_as_far_as_it_makes_sense() {
        let rows: [(&[u8], &[&str]); 9] = [
            (b"", &[]),
            (b"de", &["de"]),
            (b"en;q=0.5, de-AT, de;q=0.9", &["de-AT", "de", "en"]),
            (b"fr;q=0.51,de;q=0.519 , it; Q=0.5", &["de", "fr", "it"]),
            (b"de;q=0, en;q=0.000, *;q=0.1, fr", &["fr"]),
            (b"de;q=2, en;q=x, fr;q=0.1234, it;level=1, es", &["es"]),
            (b"\xFF, de, <script>", &["de"]),
            (b"de,de", &["de", "de"]),
            (b",,;,;q=1", &[]),
        ];
        for (header, expected) in rows {
            assert_eq!(accepted(header), expected, "{}", String::from_utf8_lossy(header));
        }
    }

    #[test]
    fn a_long_header_is_cut() {
        for (count, expected) in [(ACCEPTED_MAX, ACCEPTED_MAX), (ACCEPTED_MAX + 1, ACCEPTED_MAX)] {
            assert_eq!(accepted(vec!["de"; count].join(",").as_bytes()).len(), expected);
        }
    }
}
