//! The configuration as an admin meets it: what a file says, what is wrong with it, where it is looked for.

mod errors;
mod files;
mod secrets;
mod table;
mod values;

use std::path::Path;

use webpresence::config::{self, Config};

/// The shortest configurations there can be: `after` is put behind the identity.
fn component(after: &str) -> String {
    format!("[xmpp]\njid = presence.example.com\npassword = secret\n{after}")
}

fn account(after: &str) -> String {
    format!("[xmpp]\njid = bot@example.com\npassword = secret\n{after}")
}

fn accept(text: &str) -> Config {
    config::parse(text, Path::new("/etc/wp.ini")).unwrap_or_else(|e| panic!("{text}\n{e}"))
}

/// What is printed about a text that is refused; the file is called `F`.
fn refuse(text: &str) -> String {
    match config::parse(text, Path::new("F")) {
        Ok(config) => panic!("{text}\nis accepted: {config:?}"),
        Err(errors) => errors.to_string(),
    }
}
