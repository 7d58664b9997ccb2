//! The invariants of ARCHITECTURE.md that can be seen in the source: they are about what is absent.

use std::fs;
use std::path::{Path, PathBuf};

/// Every source file below `src`, with its text up to its tests.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the source") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
                found.push((path.strip_prefix("src").unwrap_or(&path).display().to_string(), code));
            }
        }
    }
    assert!(found.len() > 40, "the source is where it was");
    found
}

/// The files whose code names one of `words`, comments left out, and that do not begin with one of `allowed`.
fn offenders(words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut offenders = Vec::new();
    for (file, code) in sources() {
        if allowed.iter().any(|prefix| file.starts_with(prefix)) {
            continue;
        }
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in lines.filter(|line| words.iter().any(|word| line.contains(word))) {
            offenders.push(format!("{file}: {}", line.trim()));
        }
    }
    offenders
}

fn none(words: &[&str], allowed: &[&str]) {
    let offenders = offenders(words, allowed);
    assert!(offenders.is_empty(), "{}", offenders.join("\n"));
}

#[test]
fn only_the_edges_touch_sockets_files_and_clocks() {
    let edges = [
        "cli",
        "main.rs",
        "logging.rs",
        "gateway/",
        "config/load.rs",
        "cache/store/",
        "config/directory.rs",
        "hub/",
        "render/folder.rs",
        "probe/connect.rs",
        "probe/choices.rs",
        "probe/dns.rs",
        "probe/race.rs",
        "probe/tls/",
        "probe/lease.rs",
        "probe/lines.rs",
        "probe/machines.rs",
        "probe/memory.rs",
        "probe/notes.rs",
        "probe/pending.rs",
        "probe/prober",
        "probe/relay.rs",
        "probe/talk.rs",
        "strangers/ledger.rs",
    ];
    none(
        &[
            "std::fs",
            "tokio::net",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "std::env",
            "std::process",
            "rustix::",
            "SystemRandom",
        ],
        &edges,
    );
    // The steps are stamped for people, the cache is handed its clock, and the site holds refusals back.
    none(&["Instant::now", "SystemTime::now"], &[&edges[..], &["probe/steps.rs", "cache/", "site.rs"]].concat());
}

#[test]
fn the_web_knows_no_stanza_and_the_probe_no_web() {
    none(&["xmpp_parsers", "rxml", "minidom"], &["probe/"]);
    let web = ["crate::web", "crate::gateway", "crate::render", "REQUEST_METHOD", "QUERY_STRING"];
    let offenders: Vec<_> = offenders(&web, &[]).into_iter().filter(|line| line.starts_with("probe/")).collect();
    assert!(offenders.is_empty(), "{}", offenders.join("\n"));
}

#[test]
fn only_the_gateway_knows_fastcgi() {
    none(&["FCGI_", "fastcgi::"], &["gateway/"]);
}

#[test]
fn there_is_no_state_beside_the_configuration() {
    none(&["static mut", "thread_local!", "OnceLock", "LazyLock", "lazy_static"], &[]);
}

#[test]
fn secrets_are_revealed_where_they_are_proved_and_nowhere_else() {
    none(&[".reveal()"], &["hub/connection.rs", "probe/session.rs", "probe/memory.rs", "signature"]);
}

#[test]
fn every_file_says_what_it_is_for() {
    for (file, code) in sources() {
        assert!(code.starts_with("//! "), "src/{file} opens without a word about itself");
    }
}

#[test]
fn the_top_level_is_what_the_map_says() {
    for place in ["Cargo.toml", "src", "images", "apache", "nginx", "tests", "contrib", ".ci/run", "deny.toml"] {
        assert!(Path::new(place).exists(), "{place}");
    }
}
