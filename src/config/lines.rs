//! INI syntax, one line at a time. The crate `ini` reads each line; a file as a whole is not given to it, because it
//! stops at the first mistake, tells no line of what it read, and joins a line that ends in a backslash with the next
//! one, which would swallow a line after such a password. What sections and keys mean is not known here.

use ini::{Ini, ParseOption};

use super::problem::Fault;

/// What one line says. White space around names and values is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Section(String),
    Pair(String, String),
}

/// The lines that say something, each with its number, counted from 1.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, Result<Line, Fault>)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let numbered = text.split('\n').enumerate().map(|(i, line)| (i + 1, line.trim()));
    numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with([';', '#'])).map(|(n, line)| (n, read(line)))
}

fn read(line: &str) -> Result<Line, Fault> {
    // A lone carriage return would end the line for the crate, and nothing here needs any other.
    if line.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Fault::ControlCharacter);
    }
    let verbatim = ParseOption { enabled_quote: false, enabled_escape: false, ..ParseOption::default() };
    let ini = Ini::load_from_str_opt(line, verbatim).map_err(|_| Fault::Syntax)?;
    let mut said = ini.iter().filter(|(name, pairs)| name.is_some() || !pairs.is_empty());
    let (Some((name, pairs)), None) = (said.next(), said.next()) else {
        return Err(Fault::Syntax);
    };
    match (name, pairs.iter().next()) {
        (Some(name), None) => Ok(Line::Section(name.to_owned())),
        (None, Some((key, value))) => Ok(Line::Pair(key.to_owned(), value.to_owned())),
        _ => Err(Fault::Syntax),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn section(name: &str) -> Result<Line, Fault> {
        Ok(Line::Section(name.into()))
    }

    fn pair(key: &str, value: &str) -> Result<Line, Fault> {
        Ok(Line::Pair(key.into(), value.into()))
    }

    #[test]
    fn each_line_is_read_for_itself() {
        let table = [
            ("[xmpp]", section("xmpp")),
            ("  [ xmpp work ]\t", section("xmpp work")),
            ("key = value", pair("key", "value")),
            ("  key=value  ", pair("key", "value")),
            ("key: value", pair("key", "value")),
            ("key =", pair("key", "")),
            ("key = a #b;c", pair("key", "a #b;c")),
            ("key = \"a\" 'b'", pair("key", "\"a\" 'b'")),
            ("key = \"a", pair("key", "\"a")),
            ("key = a=b:c", pair("key", "a=b:c")),
            ("host = unix:/run/x.sock", pair("host", "unix:/run/x.sock")),
            ("key = a\\nb\\", pair("key", "a\\nb\\")),
            ("key = a\\\\", pair("key", "a\\\\")),
            ("key = a\tb", pair("key", "a\tb")),
            ("key = [a]", pair("key", "[a]")),
            ("*@*.a.example = @team, *@b.example", pair("*@*.a.example", "@team, *@b.example")),
            (r"a\40b.example@c.example = x:no, y:yes", pair(r"a\40b.example@c.example", "x:no, y:yes")),
            ("@team: a@b.example", pair("@team", "a@b.example")),
            ("just words", Err(Fault::Syntax)),
            ("= value", Err(Fault::Syntax)),
            ("[xmpp", Err(Fault::Syntax)),
            ("[xmpp] ; comment", Err(Fault::Syntax)),
            ("[xmpp] jid = a", Err(Fault::Syntax)),
            ("[a][b]", Err(Fault::Syntax)),
            ("[a\\]", Err(Fault::Syntax)),
            ("key = a\rb = c", Err(Fault::ControlCharacter)),
            ("key = \0", Err(Fault::ControlCharacter)),
        ];
        for (line, expected) in table {
            assert_eq!(lines(line).collect::<Vec<_>>(), [(1, expected)], "{line:?}");
        }
    }

    #[test]
    fn lines_are_counted_as_an_editor_counts() {
        let text = "\u{feff}; comment\r\n\r\n[a]\r\n  # comment = 1\n\nb = 1\\\nc = 2";
        let expected = [(3, section("a")), (6, pair("b", "1\\")), (7, pair("c", "2"))];
        assert_eq!(lines(text).collect::<Vec<_>>(), expected);
    }

    proptest! {
        /// On files without its peculiarities the crate says of the whole file what it says line by line.
        #[test]
        fn line_by_line_agrees_with_the_whole_file(
            content in prop::collection::vec(("[a-z]{1,8}( [a-z]{1,8})?", prop::collection::vec(
                ("[a-z_.]{1,10}", "[ -\\[\\]-~äß]{0,20}", "( = |=|:|: )", "(|\r)\n(\n|; c = 1\n|# x\n)?"), 0..6)), 0..6),
        ) {
            let mut text = String::new();
            for (name, pairs) in &content {
                text += &format!("[{name}]\n");
                for (key, value, separator, end) in pairs {
                    text += &format!("{key}{separator}{value}{end}");
                }
            }
            let options = ParseOption { enabled_quote: false, enabled_escape: false, ..ParseOption::default() };
            let whole = Ini::load_from_str_opt(&text, options).expect("the text is well-formed");
            let mut theirs = Vec::new();
            for name in content.iter().map(|(name, _)| name.as_str()).collect::<std::collections::BTreeSet<_>>() {
                for pairs in whole.section_all(Some(name)) {
                    theirs.extend(pairs.iter().map(|(key, value)| (name.to_owned(), key.to_owned(), value.to_owned())));
                }
            }
            let (mut ours, mut current) = (Vec::new(), String::new());
            for (n, line) in lines(&text) {
                match line.expect("the text is well-formed") {
                    Line::Section(name) => current = name,
                    Line::Pair(key, value) => {
                        let written = text.split('\n').nth(n - 1).expect("the line is there");
                        prop_assert!(written.contains(&key) && written.contains(&value));
                        ours.push((current.clone(), key, value));
                    }
                }
            }
            ours.sort_by(|a, b| a.0.cmp(&b.0));
            prop_assert_eq!(ours, theirs);
        }
    }
}
