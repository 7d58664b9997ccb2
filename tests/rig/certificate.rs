//! An authority and certificates for the domains of the tests, made by openssl. Whoever verifies must be given the
//! authority's file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::program;

#[derive(Clone)]
pub struct Certificate {
    pub authority: PathBuf,
    pub chain: PathBuf,
    pub key: PathBuf,
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
/// A moment as openssl writes it: a year in two digits.
const BEFORE: (&str, &str) = ("200101000000Z", "200201000000Z");
const LATER: (&str, &str) = ("480101000000Z", "480201000000Z");

/// Makes the files in `dir`.
pub fn make(dir: &Path, domain: &str) -> Certificate {
    let authority = "-subj /CN=authority -addext basicConstraints=critical,CA:TRUE";
    openssl(dir, &format!("req -x509 {NEW_KEY} -keyout ca.key -out ca.pem -days 3 {authority}"));
    signed(dir, "certificate", &[domain, &format!("*.{domain}")], "")
}

/// Another of the authority in `dir`, for these names; `more` is for openssl.
pub fn signed(dir: &Path, file: &str, names: &[&str], more: &str) -> Certificate {
    let certificate = request(dir, file, names);
    let signing = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2";
    openssl(dir, &format!("x509 -req -in {file}.csr {signing} -extfile {file}.ext -out {file}.pem {more}"));
    certificate
}

/// One that was valid long ago.
pub fn expired(dir: &Path, file: &str, names: &[&str]) -> Certificate {
    dated(dir, file, names, BEFORE)
}

/// One that will be valid.
pub fn early(dir: &Path, file: &str, names: &[&str]) -> Certificate {
    dated(dir, file, names, LATER)
}

/// One that vouches for itself, and might for others.
pub fn own(dir: &Path, file: &str, names: &[&str]) -> Certificate {
    let names = format!("-addext subjectAltName={} -addext basicConstraints=CA:TRUE", alternatives(names));
    openssl(dir, &format!("req -x509 {NEW_KEY} -keyout {file}.key -out {file}.pem -days 2 -subj /CN=own {names}"));
    Certificate { authority: dir.join(format!("{file}.pem")), ..files(dir, file) }
}

fn dated(dir: &Path, file: &str, names: &[&str], (from, until): (&str, &str)) -> Certificate {
    let certificate = request(dir, file, names);
    let config = format!(
        "[ca]\ndefault_ca=this\n[this]\nnew_certs_dir=.\ndatabase={file}.index\nserial={file}.serial\n\
         default_md=sha256\npolicy=any\n[any]\ncommonName=supplied\n"
    );
    for (ending, text) in [("cnf", config.as_str()), ("index", ""), ("serial", "01")] {
        fs::write(dir.join(format!("{file}.{ending}")), text).expect("the directory is ours");
    }
    let signing = format!("-batch -notext -config {file}.cnf -cert ca.pem -keyfile ca.key -extfile {file}.ext");
    openssl(dir, &format!("ca {signing} -in {file}.csr -startdate {from} -enddate {until} -out {file}.pem"));
    certificate
}

fn request(dir: &Path, file: &str, names: &[&str]) -> Certificate {
    let extensions = format!("subjectAltName={}\nbasicConstraints=CA:FALSE\n", alternatives(names));
    fs::write(dir.join(format!("{file}.ext")), extensions).expect("the directory is ours");
    openssl(dir, &format!("req {NEW_KEY} -keyout {file}.key -out {file}.csr -subj /CN={}", names[0]));
    files(dir, file)
}

fn files(dir: &Path, file: &str) -> Certificate {
    let file = |ending: &str| dir.join(format!("{file}.{ending}"));
    Certificate { authority: dir.join("ca.pem"), chain: file("pem"), key: file("key") }
}

fn alternatives(names: &[&str]) -> String {
    names.iter().map(|name| format!("DNS:{name}")).collect::<Vec<_>>().join(",")
}

/// Runs `openssl` in `dir`; its arguments hold no spaces.
pub fn openssl(dir: &Path, arguments: &str) {
    let mut command = Command::new(program("openssl", "openssl"));
    let arguments = arguments.split_whitespace();
    let output = command.args(arguments.clone()).current_dir(dir).output().expect("openssl starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {}: {said}", arguments.collect::<Vec<_>>().join(" "));
}
