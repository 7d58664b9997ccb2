//! Through which door was this process entered: a person at a terminal, a service manager, a FastCGI process manager,
//! plain CGI? The order of the questions matters: a listening fd 0 says more than the environment, and "fd 0 is a
//! socket" alone says nothing (mod_cgid, mini_httpd and Python connect CGI programs by one).

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;

use super::listen::Listener;

/// How this process was started.
#[derive(Debug)]
pub enum Door {
    /// Somebody typed a command. The only door behind which the arguments name one.
    Person,
    /// A service manager passed listening sockets (LISTEN_FDS).
    Activated(Vec<Listener>),
    /// fd 0 listens: mod_fcgid, spawn-fcgi, lighttpd, `StandardInput=socket`.
    Inherited(Listener),
    /// One request is in the environment. The arguments are never to be read: a web server passes `?foo+bar` there.
    Cgi,
    Nobody,
}

/// What a process sees of itself when it starts.
pub struct Start<'a> {
    /// Without the program's name.
    pub args: &'a [OsString],
    pub env: &'a dyn Fn(&str) -> Option<OsString>,
    pub pid: u32,
    /// Takes the listening sockets among the first so many that were passed.
    pub handed_over: &'a dyn Fn(usize) -> Vec<Listener>,
}

impl Door {
    /// The door of this process. `commands` are the first arguments by which a person is known. To be called once,
    /// before there are threads: sockets and their variables are taken out of the environment.
    pub fn detect(commands: &[&str]) -> Door {
        let args: Vec<OsString> = env::args_os().skip(1).collect();
        let env = |name: &str| env::var_os(name);
        Start { args: &args, env: &env, pid: std::process::id(), handed_over: &Listener::handed_over }
            .door(commands, io::stdin())
    }
}

/// The sockets that `serve` without `--listen` takes: those of LISTEN_FDS, else a listening fd 0, else none.
/// To be called once, before there are threads.
pub fn given_listeners() -> Vec<Listener> {
    let env = |name: &str| env::var_os(name);
    let start = Start { args: &[], env: &env, pid: std::process::id(), handed_over: &Listener::handed_over };
    match start.activated() {
        listeners if listeners.is_empty() => Listener::inherited(io::stdin()).into_iter().collect(),
        listeners => listeners,
    }
}

impl Start<'_> {
    /// The first door that fits.
    pub fn door(&self, commands: &[&str], stdin: impl AsFd) -> Door {
        let has_request = ["GATEWAY_INTERFACE", "REQUEST_METHOD"].iter().any(|name| (self.env)(name).is_some());
        if !has_request && self.command().is_some_and(|first| commands.iter().any(|command| first == *command)) {
            return Door::Person;
        }
        let activated = self.activated();
        if !activated.is_empty() {
            return Door::Activated(activated);
        }
        match Listener::inherited(stdin) {
            Some(listener) => Door::Inherited(listener),
            None if has_request => Door::Cgi,
            None => Door::Nobody,
        }
    }

    /// The first argument behind `--config FILE`, which spawn-fcgi may have been told to pass too.
    fn command(&self) -> Option<&OsStr> {
        let mut args = self.args.iter();
        loop {
            let arg = args.next()?;
            if arg == "--config" {
                args.next()?;
            } else if !arg.as_encoded_bytes().starts_with(b"--config=") {
                return Some(arg);
            }
        }
    }

    /// LISTEN_FDS counts only if LISTEN_PID is this process: a parent may have left both behind.
    fn activated(&self) -> Vec<Listener> {
        let number = |name: &str| (self.env)(name)?.into_string().ok()?.parse::<u32>().ok();
        if number("LISTEN_PID") != Some(self.pid) {
            return Vec::new();
        }
        // More sockets than a port has numbers are a mistake.
        match number("LISTEN_FDS").and_then(|count| u16::try_from(count).ok()) {
            Some(count) if count >= 1 => (self.handed_over)(usize::from(count)),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    const COMMANDS: &[&str] = &["serve", "get", "probe", "subscribe", "check", "--help", "-h", "--version", "-V"];
    const PID: u32 = 4711;

    /// The descriptors that launchers put on fd 0.
    struct Stdins {
        _directory: tempfile::TempDir,
        unix: OwnedFd,
        tcp: OwnedFd,
        unix_connected: OwnedFd,
        tcp_connected: OwnedFd,
        null: OwnedFd,
        pipe: OwnedFd,
    }

    impl Stdins {
        fn new() -> Stdins {
            let directory = tempfile::tempdir().unwrap();
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            Stdins {
                unix: UnixListener::bind(directory.path().join("socket")).unwrap().into(),
                unix_connected: UnixStream::pair().unwrap().0.into(),
                tcp_connected: TcpStream::connect(tcp.local_addr().unwrap()).unwrap().into(),
                tcp: tcp.into(),
                null: File::open("/dev/null").unwrap().into(),
                pipe: io::pipe().unwrap().0.into(),
                _directory: directory,
            }
        }
    }

    /// `handed_over` is how many of the passed sockets listen.
    fn door(args: &[&str], env: &[(&str, &str)], handed_over: usize, stdin: &OwnedFd) -> String {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let env = |name: &str| env.iter().find(|var| var.0 == name).map(|var| OsString::from(var.1));
        let take = |count: usize| {
            let listener = || Listener::Tcp(TcpListener::bind("127.0.0.1:0").unwrap());
            (0..count.min(handed_over)).map(|_| listener()).collect()
        };
        match (Start { args: &args, env: &env, pid: PID, handed_over: &take }).door(COMMANDS, stdin) {
            Door::Person => "person".to_owned(),
            Door::Activated(listeners) => format!("activated {}", listeners.len()),
            Door::Inherited(Listener::Unix { .. }) => "inherited unix".to_owned(),
            Door::Inherited(Listener::Tcp(_)) => "inherited tcp".to_owned(),
            Door::Cgi => "cgi".to_owned(),
            Door::Nobody => "nobody".to_owned(),
        }
    }

    #[test]
    fn every_launcher_is_known_by_what_it_hands_over() {
        let fd = Stdins::new();
        let cgi = [("GATEWAY_INTERFACE", "CGI/1.1"), ("REQUEST_METHOD", "GET")];
        let table = [
            ("mod_fcgid", &[("PATH", "/bin")][..], &fd.unix, "inherited unix"),
            ("lighttpd bin-path", &[("PHP_FCGI_CHILDREN", "1")], &fd.unix, "inherited unix"),
            ("spawn-fcgi -p", &[], &fd.tcp, "inherited tcp"),
            ("systemd .socket", &[("LISTEN_PID", "4711"), ("LISTEN_FDS", "1")], &fd.null, "activated 1"),
            ("systemd StandardInput=socket", &[], &fd.unix, "inherited unix"),
            ("mod_cgi", &cgi, &fd.pipe, "cgi"),
            ("mod_cgid", &cgi, &fd.unix_connected, "cgi"),
            ("lighttpd mod_cgi", &cgi, &fd.null, "cgi"),
            ("mini_httpd, python", &cgi, &fd.tcp_connected, "cgi"),
            ("one of the two variables", &[("REQUEST_METHOD", "")], &fd.null, "cgi"),
            ("the other one", &[("GATEWAY_INTERFACE", "CGI/1.1")], &fd.null, "cgi"),
            ("a FastCGI launcher inside a CGI environment", &cgi, &fd.unix, "inherited unix"),
            ("a terminal", &[], &fd.null, "nobody"),
            ("an inetd without a request", &[], &fd.tcp_connected, "nobody"),
        ];
        for (launcher, env, stdin, expected) in table {
            assert_eq!(door(&[], env, 2, stdin), expected, "{launcher}");
        }
    }

    #[test]
    fn a_person_is_known_by_a_command_and_never_within_a_request() {
        let fd = Stdins::new();
        let activated = [("LISTEN_PID", "4711"), ("LISTEN_FDS", "1")];
        for command in COMMANDS {
            assert_eq!(door(&[command, "more"], &[], 0, &fd.null), "person");
            assert_eq!(door(&[command], &activated, 1, &fd.unix), "person", "under systemd too");
            // A visitor wrote `?serve` or `?check`.
            assert_eq!(door(&[command], &[("REQUEST_METHOD", "GET")], 0, &fd.null), "cgi");
            assert_eq!(door(&[command], &[("GATEWAY_INTERFACE", "CGI/1.1")], 0, &fd.pipe), "cgi");
        }
        for args in [&["bogus"][..], &["", "serve"], &["-x", "serve"], &["Serve"], &["--", "serve"], &["foo", "bar"]] {
            assert_eq!(door(args, &[], 0, &fd.null), "nobody", "{args:?}");
            assert_eq!(door(args, &[], 0, &fd.unix), "inherited unix", "{args:?}");
        }
    }

    #[test]
    fn config_alone_is_no_command_and_may_precede_one() {
        let fd = Stdins::new();
        for config in [&["--config", "FILE"][..], &["--config=FILE"], &["--config", "serve"], &["--config"]] {
            assert_eq!(door(config, &[], 0, &fd.unix), "inherited unix", "{config:?}");
            assert_eq!(door(config, &[], 0, &fd.null), "nobody", "{config:?}");
        }
        for args in [&["--config", "FILE", "check"][..], &["--config=FILE", "check"]] {
            assert_eq!(door(args, &[], 0, &fd.null), "person", "{args:?}");
        }
    }

    #[test]
    fn sockets_passed_to_somebody_else_do_not_count() {
        let fd = Stdins::new();
        let table = [
            (&[("LISTEN_PID", "4711"), ("LISTEN_FDS", "2")][..], 2, "activated 2"),
            (&[("LISTEN_PID", "4711"), ("LISTEN_FDS", "2")], 1, "activated 1"),
            (&[("LISTEN_PID", "4711"), ("LISTEN_FDS", "2")], 0, "inherited unix"),
            (&[("LISTEN_PID", "4712"), ("LISTEN_FDS", "1")], 1, "inherited unix"),
            (&[("LISTEN_FDS", "1")], 1, "inherited unix"),
            (&[("LISTEN_PID", ""), ("LISTEN_FDS", "1")], 1, "inherited unix"),
            (&[("LISTEN_PID", "4711")], 1, "inherited unix"),
            (&[("LISTEN_PID", "4711"), ("LISTEN_FDS", "0")], 1, "inherited unix"),
            (&[("LISTEN_PID", "4711"), ("LISTEN_FDS", "-1")], 1, "inherited unix"),
            (&[("LISTEN_PID", "4711"), ("LISTEN_FDS", "99999999")], 1, "inherited unix"),
        ];
        for (env, handed_over, expected) in table {
            assert_eq!(door(&[], env, handed_over, &fd.unix), expected, "{env:?}");
        }
    }
}
