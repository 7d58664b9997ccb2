//! Passwords are nowhere but in `reveal`; and no text makes the parser panic.

use std::path::Path;

use proptest::prelude::*;
use webpresence::config;

const SECRET: &str = "hunter2-Tr0ub4dor";

#[test]
fn a_password_is_in_no_debug_output() {
    let config = super::accept(&format!("[xmpp]\njid = a.example\npassword = {SECRET}\n"));
    let debug = format!("{config:?} {config:#?}");
    assert!(!debug.contains("hunter2") && debug.contains("password: ***"), "{debug}");
}

/// A password in any wrong place: as the value of every key, without a key, before the first section.
#[test]
fn a_password_is_in_no_error() {
    let mut texts = vec![SECRET.to_owned(), format!("password = {SECRET}"), format!("[xmpp]\n{SECRET}")];
    for key in config::keys::KEYS {
        texts.push(format!("[{}]\n{} = {SECRET} /", key.section.name(), key.name));
        texts.push(format!("[{}]\nx{} = {SECRET}", key.section.name(), key.name));
        texts.push(format!("[{}]\n{} = {SECRET} /", key.section.name(), key.sample_left()));
    }
    texts.push(super::component(&format!("password = {SECRET}")));
    texts.push(format!("[xmpp]\njid = {SECRET} x\npassword = {SECRET}\nlinger = {SECRET}"));
    for text in texts {
        let Err(errors) = config::parse(&text, Path::new("F")) else { panic!("{text}\nis accepted") };
        let printed = format!("{errors} {errors:?}");
        assert!(!printed.contains("hunter2"), "{text}\n{printed}");
    }
}

/// Lines that are nearly right, in any order.
fn line() -> impl Strategy<Value = String> {
    let key = prop::sample::select(config::keys::KEYS);
    prop_oneof![
        (key.clone(), "[ -~]{0,20}").prop_map(|(key, value)| format!("{} = {value}", key.sample_left())),
        (key, "[@*.:, a-d]{0,20}").prop_map(|(key, value)| format!("{} = {value}", key.sample_left())),
        "[@*.:= a-d]{0,12} = [@*.:, a-d]{0,20}",
        prop::sample::select(vec![
            "[xmpp]",
            "[xmpp a]",
            "[access]",
            "[access a]",
            "[viewers]",
            "[viewers a]",
            "[privacy]",
            "[cache]",
            "[text]",
            "[images]",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,20}",
    ]
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = config::parse(&text, Path::new("F"));
    }

    #[test]
    fn no_nearly_right_text_panics_or_is_refused_without_a_reason(lines in prop::collection::vec(line(), 0..30)) {
        let text = lines.join("\n");
        if let Err(errors) = config::parse(&text, Path::new("F")) {
            prop_assert!(!errors.problems().is_empty());
            prop_assert_eq!(errors.to_string().lines().count(), errors.problems().len());
        }
    }
}

#[test]
fn a_text_cut_at_every_byte_is_no_surprise() {
    let example = config::example();
    for end in 0..example.len() {
        let _ = config::parse(&example[..end], Path::new("F"));
    }
}
