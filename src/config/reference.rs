//! The configuration described for people, from the same table that the parser reads: the reference in Markdown, and
//! the commented example.

use std::fmt::Write;

use super::keys::{Absent, Key, Kind, Section};

/// One Markdown table for each section.
pub fn reference() -> String {
    let mut text = String::new();
    for section in Section::ALL {
        if section != Section::ALL[0] {
            text.push('\n');
        }
        put(&mut text, format_args!("### `[{}]`\n\n{}\n\n", section.name(), section.meaning()));
        text.push_str("| key | values | default | meaning |\n| --- | --- | --- | --- |\n");
        for key in section.keys() {
            let (name, values, default) = (key.name, values(&key.kind), default(key));
            put(&mut text, format_args!("| `{name}` | {values} | {default} | {} |\n", stars_as_code(key.meaning)));
        }
    }
    text
}

/// A `webpresence.ini` in which only the identity must be filled in; everything else is commented out.
pub fn example() -> String {
    let mut text = String::from("; The configuration of webpresence. Only jid and password have no default.\n");
    for section in Section::ALL {
        put(&mut text, format_args!("\n; {}\n[{}]\n", section.meaning().replace('`', ""), section.name()));
        for key in section.keys() {
            let left = key.sample_left();
            put(&mut text, format_args!("\n; {}\n; {}", key.meaning, allowed_in_words(key)));
            match key.absent {
                Absent::Required(sample) => put(&mut text, format_args!("\n{left} = {sample}\n")),
                Absent::Value(value) => put(&mut text, format_args!("\n; {left} = {value}\n")),
                Absent::Otherwise { says, sample } => {
                    put(&mut text, format_args!(" Without it: {says}.\n; {left} = {sample}\n"));
                }
            }
        }
    }
    text
}

fn allowed_in_words(key: &Key) -> String {
    format!("Allowed: {}.", key.kind)
}

/// The allowed values; words are set as code.
fn values(kind: &Kind) -> String {
    match kind {
        Kind::Choice(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        Kind::YesNo => "`yes`, `no`".to_owned(),
        kind => stars_as_code(&kind.to_string()),
    }
}

/// Two stars in one paragraph would set in italics what lies between them.
fn stars_as_code(text: &str) -> String {
    let code = |word: &str| {
        let bare = word.trim_end_matches([',', ';', ':']);
        if word.contains('*') { format!("`{bare}`{}", &word[bare.len()..]) } else { word.to_owned() }
    };
    text.split(' ').map(code).collect::<Vec<_>>().join(" ")
}

fn default(key: &Key) -> String {
    match key.absent {
        Absent::Required(_) => "required".to_owned(),
        Absent::Value(value) => format!("`{value}`"),
        Absent::Otherwise { says, .. } => says.to_owned(),
    }
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a String takes everything");
}
