//! The peers in C: built by gcc from `peers/`, with the bytes of webpresence's own answer inside.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::rig::leash::{Leash, directory};
use crate::rig::{eventually, program, repository};

pub struct Peers {
    dir: TempDir,
}

impl Peers {
    /// `answer` is what webpresence prints as a CGI program.
    pub fn build(answer: &[u8]) -> Peers {
        let dir = directory("peers");
        let bytes: Vec<String> = answer.iter().map(u8::to_string).collect();
        let header = format!("static const unsigned char ANSWER[{}] = {{{}}};\n", answer.len(), bytes.join(","));
        fs::write(dir.path().join("answer.h"), header).expect("the directory is ours");
        let peers = Peers { dir };
        for (name, libraries) in [("ceiling", &[][..]), ("hello", &["-lfcgi"]), ("cgi", &[])] {
            peers.compile(name, libraries);
        }
        peers
    }

    fn compile(&self, name: &str, libraries: &[&str]) {
        let mut command = Command::new(program("gcc", "gcc"));
        command.args(["-O2", "-Wall", "-I"]).arg(self.dir.path()).arg("-o").arg(self.path(name));
        command.arg(repository("benches/speed/peers").join(format!("{name}.c"))).args(libraries);
        let output = command.output().expect("gcc starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).expect("it is ours");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn ceiling(&self) -> Responder {
        self.start("ceiling", &[])
    }

    /// libfcgi serves one connection at a time in each process.
    pub fn hello(&self, processes: usize) -> Responder {
        self.start("hello", &[&processes.to_string()])
    }

    fn start(&self, name: &str, arguments: &[&str]) -> Responder {
        let dir = directory(name);
        let socket = dir.path().join("socket");
        let mut command = Command::new(self.path(name));
        command.arg(&socket).args(arguments);
        let leash = Leash::start(dir, None, &mut command, &[]);
        eventually("a peer accepts", || UnixStream::connect(&socket).ok());
        Responder { _leash: leash, socket }
    }
}

/// One that listens.
pub struct Responder {
    _leash: Leash,
    socket: PathBuf,
}

impl Responder {
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}
