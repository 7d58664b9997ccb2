//! The executable under test, with a configuration and a directory of its own, started in every way it can be.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use tempfile::TempDir;

use super::http::Answer;
use super::leash::{Leash, directory};
use super::xmpp::{DOMAIN, Identity, SECRET, Xmpp};
use super::{eventually, patiently};

/// The `[xmpp]` section for a server.
fn section(server: &Xmpp, identity: Identity) -> String {
    let (port, more) = match identity {
        Identity::Component(_) => (server.ports.component, String::new()),
        Identity::Account(_) => (server.ports.client, format!("ca_file = {}\n", server.authority.display())),
    };
    let jid = identity.jid();
    format!("[xmpp]\njid = {jid}\npassword = {SECRET}\nhost = 127.0.0.1\nport = {port}\n{more}")
}

/// One installation: a configuration file and the directory it names.
pub struct Webpresence {
    dir: TempDir,
    state: TempDir,
    pub config: PathBuf,
    pub identity: Identity,
}

impl Webpresence {
    /// For `server`, visible to anyone.
    pub fn new(server: &Xmpp, identity: Identity) -> Webpresence {
        Webpresence::tuned(server, identity, "", "")
    }

    /// With `more` lines in `[xmpp]`, and `cache` lines in `[cache]`. It has the time that a busy machine may need.
    pub fn tuned(server: &Xmpp, identity: Identity, more: &str, cache: &str) -> Webpresence {
        let time = if more.contains("timeout") { "" } else { "timeout = 20\n" };
        Webpresence::written(identity, &format!("{}{time}{more}", section(server, identity)), cache)
    }

    /// With a whole section `[xmpp]`, for a server that is none of ours.
    pub fn written(identity: Identity, xmpp: &str, cache: &str) -> Webpresence {
        let dir = directory("installed");
        let state = state_directory();
        let cache = format!("[cache]\ndirectory = {}\n{cache}\n", state.path().display());
        let installed = Webpresence { config: dir.path().join("webpresence.ini"), dir, state, identity };
        let access = format!("[access]\nvisibility = anyone\ndomains = {DOMAIN}, *.{DOMAIN}, dead.test\n");
        installed.configure(&format!("{xmpp}\n{access}{cache}"));
        installed
    }

    /// Writes the configuration file.
    pub fn configure(&self, text: &str) {
        fs::write(&self.config, text).expect("the directory is ours");
        fs::set_permissions(&self.config, Permissions::from_mode(0o600)).expect("the file is ours");
    }

    pub fn configuration(&self) -> String {
        fs::read_to_string(&self.config).expect("the file is ours")
    }

    /// What its processes share.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// Gives everything to the user a web server's children run as; only he starts the executable from now on.
    pub fn hand_over(&self, user: &str) {
        let owner = format!("{user}:");
        let done = Command::new("chown").arg("-R").arg(owner).arg(self.dir.path()).arg(self.state.path()).status();
        assert!(done.is_ok_and(|status| status.success()), "chown to {user}");
    }

    /// The executable at a place where every user can start it, whatever directory the sources are in.
    pub fn executable(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let built = Path::new(env!("CARGO_BIN_EXE_webpresence"));
        fs::hard_link(built, &path).or_else(|_| fs::copy(built, &path).map(drop)).expect("the directory is ours");
        path
    }

    /// A command for people, with `--config`.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_webpresence"));
        command.args(&arguments[..1]).arg("--config").arg(&self.config).args(&arguments[1..]);
        output(command, b"")
    }

    /// `webpresence get QUERY`, and nothing is known of anybody.
    pub fn get(&self, query: &str) -> Answer {
        self.forget_people();
        self.get_as_known(query)
    }

    /// The same with what its processes have learned about people.
    pub fn get_as_known(&self, query: &str) -> Answer {
        let output = self.run(&["get", query]);
        assert!(output.status.success() || !output.stdout.is_empty(), "get {query}: {output:?}");
        Answer::from_cgi(&output.stdout)
    }

    /// As a web server runs a CGI program (RFC 3875), with nothing but these variables.
    pub fn cgi(&self, vars: &[(&str, &str)], body: &[u8]) -> Answer {
        self.cgi_with_log(vars, body).0
    }

    /// The same, and what it told the web server's log.
    pub fn cgi_with_log(&self, vars: &[(&str, &str)], body: &[u8]) -> (Answer, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_webpresence"));
        command.env_clear().env("GATEWAY_INTERFACE", "CGI/1.1").env("WEBPRESENCE_CONFIG", &self.config);
        let output = output(
            {
                command.envs(vars.iter().copied());
                command
            },
            body,
        );
        assert!(output.status.success(), "{vars:?}: {output:?}");
        (Answer::from_cgi(&output.stdout), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Where its processes keep what they know of people.
    pub fn people(&self) -> PathBuf {
        self.state.path().join(format!("{}.people", self.identity.jid()))
    }

    /// The next process looks everybody up. One that runs may write there at the same time.
    fn forget_people(&self) {
        eventually("nobody is known", || {
            let removed = fs::remove_dir_all(self.people());
            removed.map_or_else(|error| (error.kind() == ErrorKind::NotFound).then_some(()), Some)
        });
    }

    /// What its processes have learned, as they wrote it down.
    pub fn facts(&self) -> String {
        fs::read_to_string(self.facts_file()).expect("it is written after every session")
    }

    pub fn write_facts(&self, text: &str) {
        fs::write(self.facts_file(), text).expect("the directory is ours");
    }

    fn facts_file(&self) -> PathBuf {
        self.state.path().join(format!("{}.facts", self.identity.jid()))
    }

    /// `webpresence listen`, until it is dropped.
    pub fn listen(&self) -> Leash {
        let mut command = Command::new(env!("CARGO_BIN_EXE_webpresence"));
        command.arg("listen").arg("--config").arg(&self.config);
        Leash::start(directory("listen"), None, &mut command, &[])
    }

    /// `webpresence serve` on a Unix socket that the web servers may use; returns when it accepts.
    pub fn serve(&self) -> Serve {
        self.serve_by("webpresence.sock", Command::new(env!("CARGO_BIN_EXE_webpresence")))
    }

    /// One of several, on a socket of that name; `command` starts the executable when its arguments are added.
    pub fn serve_by(&self, name: &str, mut command: Command) -> Serve {
        let socket = self.dir.path().join(name);
        command.arg("serve").arg("--config").arg(&self.config);
        command.arg("--listen").arg(listen_argument(&socket));
        let mut leash = Leash::start(directory("serve"), None, &mut command, &[]);
        eventually("webpresence serve accepts", || {
            let ended = leash.ended();
            assert_eq!(ended, None, "webpresence serve ended: {}", leash.log());
            UnixStream::connect(&socket).ok()
        });
        Serve { leash, socket }
    }
}

/// A socket that web servers may use: root gives theirs away.
fn listen_argument(socket: &Path) -> String {
    let group = if rustix::process::geteuid().is_root() { ",group=www-data" } else { "" };
    format!("unix:{},mode=0660{group}", socket.display())
}

/// What processes share must not lie among temporary files, which webpresence refuses. Everybody's processes can get
/// to the place that root uses.
fn state_directory() -> TempDir {
    let is_temporary = |path: &Path| ["/tmp", "/var/tmp", "/dev/shm"].iter().any(|folder| path.starts_with(folder));
    let root = rustix::process::geteuid().is_root().then(|| PathBuf::from("/var/lib"));
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let mut places = root.into_iter().chain([PathBuf::from(env!("CARGO_TARGET_TMPDIR"))]).chain(home);
    let place = places.find(|place| !is_temporary(place)).expect("the sources or HOME outside of /tmp");
    let mut builder = tempfile::Builder::new();
    builder.prefix("webpresence-state-").permissions(Permissions::from_mode(0o700));
    builder.tempdir_in(place).expect("a directory of our own")
}

/// A running `webpresence serve`.
pub struct Serve {
    pub leash: Leash,
    pub socket: PathBuf,
}

/// Runs a command to its end; one that does not end is killed, and fails the test.
fn output(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("built");
    // Whoever ends without reading his input is judged by what he says.
    let _ = child.stdin.take().expect("piped").write_all(input);
    let stdout = reader(child.stdout.take().expect("piped"));
    let stderr = reader(child.stderr.take().expect("piped"));
    let status = eventually_ends(&mut child, &command);
    Output { status, stdout: stdout.join().expect("read"), stderr: stderr.join().expect("read") }
}

fn reader(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe");
        bytes
    })
}

fn eventually_ends(child: &mut Child, command: &Command) -> std::process::ExitStatus {
    patiently(|| child.try_wait().expect("our own child")).unwrap_or_else(|| {
        let _ = child.kill();
        panic!("{command:?} does not end")
    })
}
