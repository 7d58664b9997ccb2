//! The session against servers as they were measured: each file in `transcripts/` is one conversation, what one side
//! says and what the other must make of it. Every file is played as it is written, and then as networks and servers
//! spoil it. `UPDATE_TRANSCRIPTS=1` writes down what the session does now; read what it changed.

use std::path::{Path, PathBuf};

#[path = "transcripts/replay.rs"]
mod replay;

use replay::{Cut, Replay};

#[test]
fn the_session_does_what_the_transcripts_say() {
    let update = std::env::var_os("UPDATE_TRANSCRIPTS").is_some();
    for (path, script) in transcripts() {
        if update {
            std::fs::write(&path, Replay::of(&script, Cut::Nowhere).1).expect("a writable folder");
        } else {
            check(&path, &script, Cut::Nowhere);
        }
    }
}

#[test]
fn one_byte_at_a_time_changes_nothing() {
    for (path, script) in transcripts() {
        check(&path, &script, Cut::Everywhere);
    }
}

#[test]
fn no_cut_into_two_pieces_changes_anything() {
    for (index, (path, script)) in transcripts().into_iter().enumerate() {
        let longest = Replay::of(&script, Cut::Nowhere).0.longest;
        // Other places in each file. Fewer where a password costs thousands of hashes or a flood its bytes.
        let step = match longest {
            4000.. => 100_003,
            _ if script.contains("<challenge") => 401,
            _ => 7,
        };
        for at in (1 + index % 7..longest).step_by(step) {
            check(&path, &script, Cut::After(at));
        }
    }
}

/// Everything that the server says in an open session, it says twice.
#[test]
fn a_doubled_stanza_changes_nothing() {
    for (path, script) in transcripts() {
        let double = |line: &str| match line.starts_with("S: <presence") || line.starts_with("S: <iq type='result'") {
            true => format!("{line}\n{line}\n"),
            false => format!("{line}\n"),
        };
        let doubled: String = script.lines().map(double).collect();
        check(&path, &doubled, Cut::Nowhere);
    }
}

/// Every transcript: where it is and what it says.
fn transcripts() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let entries =
        folder.read_dir().expect("the folder of the transcripts").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "txt")).collect();
    paths.sort();
    assert!(paths.len() > 50, "there are more transcripts than {}", paths.len());
    let read =
        |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// Plays a transcript and compares everything that the session does.
fn check(path: &Path, script: &str, cut: Cut) {
    let (_, account) = Replay::of(script, cut);
    let path = path.display();
    assert!(account == script, "{path}, cut {cut:?}: expected\n{script}\ngot\n{account}");
}
