//! The commands for people, at real servers: what `check` finds, and how `probe` says what is wrong.

use std::process::{Command, Output, Stdio};

use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{Identity, Kind, SECRET};
use crate::world::visit;

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn check(kind: Kind, identity: Identity) {
    let world = visit(kind);
    let installed = Webpresence::new(&world.server, identity);
    let output = installed.run(&["check"]);
    let report = printed(&output);
    assert!(output.status.success() && report.contains('✓') && !report.contains('✗'), "{report}");
    assert!(!report.contains(SECRET), "the password is told");

    let output = installed.run(&["probe", "away@example.test"]);
    let report = printed(&output);
    assert_eq!(output.status.code(), Some(0), "{report}");
    for part in ["away", "Lunch", "home"] {
        assert!(report.contains(part), "{part} in {report}");
    }
    let output = installed.run(&["probe", "stranger@example.test"]);
    let report = printed(&output);
    assert!(report.contains("forbidden"), "{report}");
    assert!(report.contains(&identity.jid()), "who has no consent: {report}");
    assert!(report.contains("webpresence subscribe stranger@example.test"), "what to do: {report}");

    let open = installed.configuration();
    installed.configure(&open.replace("visibility = anyone\n", ""));
    let output = installed.run(&["probe", "away@example.test", "example.test"]);
    let report = printed(&output);
    let hidden = report.lines().filter(|line| line.contains("nobody may see this: no roster can be read")).count();
    assert_eq!(hidden, 1, "hidden are people, not servers: {report}");

    installed.configure(&open.replace(SECRET, "mistaken-0815"));
    let output = installed.run(&["check"]);
    let report = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert!(report.contains('✗') && !report.contains("mistaken-0815"), "{report}");
    let advice = match identity {
        Identity::Component(_) => "the password here is not the one",
        Identity::Account(_) => "not sent again",
    };
    assert!(report.contains(advice), "what to do: {report}");
}

#[test]
fn prosody_component() {
    check(Kind::Prosody, Identity::Component(11));
}

#[test]
fn prosody_account() {
    check(Kind::Prosody, Identity::Account(11));
}

#[test]
fn ejabberd_component() {
    check(Kind::Ejabberd, Identity::Component(11));
}

#[test]
fn ejabberd_account() {
    check(Kind::Ejabberd, Identity::Account(11));
}

#[test]
fn what_is_not_understood_gets_the_help_and_is_named() {
    let rows: [(&[&str], &str); 4] = [
        (&[], "/etc/webpresence/webpresence.ini."),
        (&["--config", "a.ini"], "/etc/webpresence/webpresence.ini."),
        (&["chek"], "webpresence: there is no command \"chek\""),
        (&["--config", "a.ini", "chek"], "webpresence: there is no command \"chek\""),
    ];
    for (arguments, last) in rows {
        let mut command = Command::new(env!("CARGO_BIN_EXE_webpresence"));
        let output = command.env_clear().args(arguments).stdin(Stdio::null()).output().expect("built");
        let report = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{arguments:?}: {report}");
        assert!(report.starts_with("webpresence shows on a web page") && report.trim_end().ends_with(last), "{report}");
    }
}
