//! The documents say what the program does: the reference in the README is the table of keys, and the configurations
//! people copy from it are accepted.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use webpresence::config::{self, Environment};

const BEGIN: &str = "<!-- reference: written by `UPDATE_REFERENCE=1 cargo test --test documents` -->\n";
const END: &str = "<!-- reference ends -->";

fn readme() -> String {
    fs::read_to_string("README.md").expect("README.md is there")
}

#[test]
fn the_reference_is_the_table_of_keys() {
    let text = readme();
    let (front, rest) = text.split_once(BEGIN).expect("the reference begins");
    let (shown, back) = rest.split_once(END).expect("the reference ends");
    let reference = format!("\n{}\n", config::reference());
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write("README.md", format!("{front}{BEGIN}{reference}{END}{back}")).expect("README.md can be written");
        return;
    }
    assert_eq!(shown, reference, "rewrite it: UPDATE_REFERENCE=1 cargo test --test documents");
}

#[test]
fn the_configurations_of_the_readme_are_accepted() {
    let text = readme();
    let blocks: Vec<_> = text.split("```ini\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty(), "the README shows a configuration");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("the directory is ours");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("the file is ours");
        path
    };
    write("sign.key", &"k".repeat(64));
    for block in blocks {
        let identity = if block.contains("[xmpp]") { "" } else { "[xmpp]\njid = presence.example.com\npassword = x\n" };
        let file = write("webpresence.ini", &format!("{identity}{block}"));
        if let Err(errors) = config::load(Some(&file), &Environment::from_process()) {
            panic!("{block}\n{errors}");
        }
    }
}

#[test]
fn every_file_the_documents_name_is_there() {
    for document in ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"] {
        let text = fs::read_to_string(document).expect("the document is there");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let is_there = match target.strip_prefix('#') {
                Some(heading) => text.lines().any(|line| anchor(line).as_deref() == Some(heading)),
                None => target.contains("://") || Path::new(target).exists(),
            };
            assert!(is_there, "{document}: {target} is missing");
        }
    }
}

/// What a link to a heading says: its words in lower case with hyphens between them.
fn anchor(line: &str) -> Option<String> {
    let heading = line.strip_prefix('#')?.trim_start_matches('#').trim().to_lowercase();
    let kept = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
    Some(heading.chars().filter(kept).collect::<String>().replace(' ', "-"))
}
