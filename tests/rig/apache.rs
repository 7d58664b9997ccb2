//! Apache with a shipped snippet, changed as the snippet itself says; it starts the executable itself.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::leash::{Leash, directory};
use super::nginx::uncommented;
use super::{eventually, fill, http, login, port, program, repository};

/// Which shipped file, each for a way to run the executable, and what its comments tell an admin to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snippet<'a> {
    Fcgid,
    Cgid,
    /// By mod_cgid, without the modules for the cache.
    Uncached,
    /// By mod_fcgid, and only pages of `www.example.com` may show an answer.
    OwnPages,
    /// By mod_fcgid; these users log in, each with the password of all.
    Login(&'a [&'a str]),
    /// By mod_fcgid, and the site `second.test`, which is also all that is at a second address, has a configuration of its
    /// own.
    TwoSites(&'a Path),
}

pub struct Apache {
    pub port: u16,
    _leash: Leash,
}

/// What differs from one to another.
pub struct Conf<'a> {
    /// Beside [`MODULES`].
    pub modules: &'a [&'a str],
    /// In which the words between at signs are filled in; `DIR`, where its files are, and `PORT` by themselves.
    pub text: &'a str,
    /// That of what it starts.
    pub config: &'a Path,
    pub words: &'a [(&'a str, &'a str)],
}

/// Those of all.
const MODULES: [&str; 4] = ["mpm_event", "authz_core", "alias", "env"];

const CONF: &str = r#"
ServerRoot "@DIR@"
ServerName localhost
Listen 127.0.0.1:@PORT@
PidFile "@DIR@/apache.pid"
DefaultRuntimeDir "@DIR@"
ErrorLog "@DIR@/error.log"
DocumentRoot "@DIR@"
# Debian has file locks here, which the kernel takes for a deadlock when several threads of mod_fcgid want them.
Mutex pthread default
@USER@
@MODULES@
<IfModule mod_fcgid.c>
    FcgidIPCDir "@DIR@/sock"
    FcgidProcessTableFile "@DIR@/fcgid_shm"
    FcgidInitialEnv WEBPRESENCE_CONFIG "@CONFIG@"
</IfModule>
<IfModule mod_cgid.c>
    ScriptSock "@DIR@/cgisock"
    SetEnv WEBPRESENCE_CONFIG "@CONFIG@"
</IfModule>
@TEXT@
"#;

/// For the shipped files.
const TEXT: &str = r#"
LogLevel info
SetOutputFilter DEFLATE
@CACHE@
Define WEBPRESENCE_EXE "@EXE@"
Define WEBPRESENCE_USERS "@DIR@/htpasswd"
Include "@SNIPPET@"
"#;

/// What else a site has.
const SITE: [&str; 6] = ["authn_core", "authn_file", "authz_user", "auth_basic", "filter", "deflate"];

/// What the snippets ask for.
const CACHE_MODULES: [&str; 3] = ["cache", "cache_socache", "socache_shmcb"];
/// What the rest of a site does with those is not to get into the snippets.
const CACHE: &str = "
CacheEnable socache /
CacheHeader on
CacheStaleOnError on
CacheStorePrivate on
CacheStoreNoStore on
CacheStoreExpired on
CacheMinExpire 3600
";

impl Apache {
    /// `executable` and `config` must be readable for `web_user`.
    pub fn start(snippet: Snippet, executable: &Path, config: &Path) -> Apache {
        port::retrying("apache2", || try_start(snippet, executable, config))
    }

    /// In `dir`; it listens on `port`.
    pub fn run(dir: TempDir, port: u16, conf: Conf) -> Result<Apache, String> {
        let place = |path: &Path| path.to_str().expect("paths of ours are text").to_owned();
        let load = |name: &&str| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n");
        let own = [
            ("MODULES", MODULES.iter().chain(conf.modules).map(load).collect()),
            ("TEXT", conf.text.to_owned()),
            ("DIR", place(dir.path())),
            ("PORT", port.to_string()),
            ("USER", web_user().map_or(String::new(), |user| format!("User {user}\nGroup {user}"))),
            ("CONFIG", place(conf.config)),
        ];
        let words = [&own.each_ref().map(|(name, value)| (*name, value.as_str())), conf.words].concat();
        fs::write(dir.path().join("apache.conf"), fill(CONF, &words)).expect("the directory is ours");
        let mut command = Command::new(program("apache2", "apache2"));
        command.arg("-DFOREGROUND").arg("-f").arg(dir.path().join("apache.conf"));
        let mut leash = Leash::start(dir, None, &mut command, &["error.log"]);
        let has_scripts = conf.modules.contains(&"cgid");
        let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        let is_up = |leash: &Leash| listens() && (!has_scripts || takes_scripts(leash.dir()));
        match eventually("apache2 serves", || leash.ended().map(|_| false).or_else(|| is_up(&leash).then_some(true))) {
            true => Ok(Apache { port, _leash: leash }),
            false => Err(leash.log()),
        }
    }

    pub fn send(&self, request: http::Request) -> http::Answer {
        request.send(self.port)
    }
}

/// Who Apache's and nginx's workers are when root starts them.
pub fn web_user() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some("www-data")
}

fn try_start(which: Snippet, executable: &Path, config: &Path) -> Result<Apache, String> {
    let dir = directory("apache");
    let [port] = port::free();
    let (snippet, module, package) = match which {
        Snippet::Cgid | Snippet::Uncached => ("apache/webpresence-cgi.conf", "cgid", "apache2"),
        Snippet::Fcgid | Snippet::OwnPages | Snippet::TwoSites(_) => {
            ("apache/webpresence-fcgid.conf", "fcgid", "libapache2-mod-fcgid")
        }
        Snippet::Login(_) => ("apache/webpresence-login.conf", "fcgid", "libapache2-mod-fcgid"),
    };
    let mut text = fs::read_to_string(repository(snippet)).expect("shipped");
    match which {
        Snippet::Fcgid | Snippet::Cgid | Snippet::Uncached => {}
        Snippet::OwnPages => text = uncommented(&text, 1).replace("    Require all granted\n", ""),
        Snippet::Login(users) => drop(login::htpasswd(dir.path(), users)),
        Snippet::TwoSites(second) => {
            assert!(text.contains(&format!("#     {APART}")), "what keeps two sites apart is in the snippet");
            text += &two_sites(port, second);
        }
    }
    let snippet = dir.path().join("webpresence.conf");
    fs::write(&snippet, text).expect("the directory is ours");
    let there = fs::exists(format!("/usr/lib/apache2/modules/mod_{module}.so")).unwrap_or(false);
    assert!(there, "mod_{module} is missing; install it with: apt-get install {package}");
    let (cache_modules, cache) = if which == Snippet::Uncached { (&[][..], "") } else { (&CACHE_MODULES[..], CACHE) };
    let modules = [&SITE, cache_modules, &[module]].concat();
    let snippet = snippet.to_str().expect("made by us");
    let executable = executable.to_str().expect("paths of ours are text");
    let words = [("CACHE", cache), ("EXE", executable), ("SNIPPET", snippet)];
    Apache::run(dir, port, Conf { modules: &modules, text: TEXT, config, words: &words })
}

/// mod_cgid's own process begins to listen after Apache does, and lets the others have its socket after that. Whoever asks
/// before gets a 503.
fn takes_scripts(dir: &Path) -> bool {
    let start = dir.join("cgisock").display().to_string();
    let sockets = fs::read_to_string("/proc/net/unix").expect("Linux");
    let listening = sockets.lines().filter(|line| line.split_whitespace().nth(3) == Some(ACCEPTS));
    let mut paths = listening.filter_map(|line| line.split_whitespace().last()).filter(|path| path.starts_with(&start));
    let is_handed_over = |path: &str| fs::metadata(path).is_ok_and(|socket| socket.uid() != 0);
    paths.any(|path| web_user().is_none() || is_handed_over(path))
}

/// The flag of a listening socket in `/proc/net/unix` (the kernel's `__SO_ACCEPTCON`).
const ACCEPTS: &str = "00010000";

/// Keeps what is cached of a site apart.
const APART: &str = "CacheKeyBaseURL intern://intern.example.com\n";

/// The second address of `TwoSites`.
pub const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The lines that the snippet names, in sites beside the first: one told by its name, the other by its address.
fn two_sites(port: u16, second: &Path) -> String {
    let site = |host: &str, name: &str, more: &str| {
        format!("<VirtualHost {host}:{port}>\nServerName {name}\n{more}</VirtualHost>\n")
    };
    let own = format!("FcgidInitialEnv WEBPRESENCE_CONFIG {}\n{APART}", second.display());
    let sites = [
        site("127.0.0.1", "localhost", ""),
        site("127.0.0.1", "second.test", &own),
        site(&SECOND.to_string(), "second.test", &own),
    ];
    format!("Listen {SECOND}:{port}\n{}", sites.concat())
}
