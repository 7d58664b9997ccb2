//! An authority and a certificate for the domain of the tests, made by openssl. Whoever verifies must be given the
//! authority's file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::program;

pub struct Certificate {
    pub authority: PathBuf,
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// Makes the files in `dir`.
pub fn make(dir: &Path, domain: &str) -> Certificate {
    let extensions = format!("subjectAltName=DNS:{domain},DNS:*.{domain}\nbasicConstraints=CA:FALSE\n");
    fs::write(dir.join("extensions"), extensions).expect("the directory is ours");
    let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    let authority = "-subj /CN=authority -addext basicConstraints=critical,CA:TRUE";
    openssl(dir, &format!("req -x509 {new_key} -keyout ca.key -out ca.pem -days 3 {authority}"));
    openssl(dir, &format!("req {new_key} -keyout key.pem -out request.pem -subj /CN={domain}"));
    let signing = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions";
    openssl(dir, &format!("x509 -req -in request.pem {signing} -out certificate.pem"));
    let file = |name: &str| dir.join(name);
    Certificate { authority: file("ca.pem"), chain: file("certificate.pem"), key: file("key.pem") }
}

/// Runs `openssl` in `dir`; its arguments hold no spaces.
pub fn openssl(dir: &Path, arguments: &str) {
    let mut command = Command::new(program("openssl", "openssl"));
    let output = command.args(arguments.split(' ')).current_dir(dir).output().expect("openssl starts");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
