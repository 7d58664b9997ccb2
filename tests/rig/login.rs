//! A web server's own login (RFC 7617): the file of its users, and what a browser sends for one of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::http::Request;
use super::program;
use super::xmpp::SECRET;

/// A file in `dir` for nginx and Apache; all users have the same password.
pub fn htpasswd(dir: &Path, users: &[&str]) -> PathBuf {
    let mut command = Command::new(program("openssl", "openssl"));
    let output = command.args(["passwd", "-apr1", SECRET]).output().expect("openssl starts");
    assert!(output.status.success(), "{output:?}");
    let hash = String::from_utf8(output.stdout).expect("openssl writes text");
    let lines: String = users.iter().map(|user| format!("{user}:{hash}")).collect();
    let file = dir.join("htpasswd");
    fs::write(&file, lines).expect("the directory is ours");
    file
}

impl Request {
    /// As a browser does where somebody has typed a name and a password.
    pub fn login(self, user: &str, password: &str) -> Request {
        self.header("Authorization", &format!("Basic {}", BASE64.encode(format!("{user}:{password}"))))
    }
}
