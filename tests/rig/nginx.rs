//! nginx with a shipped snippet in front of a FastCGI socket, changed as the snippet itself says.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::http::{Answer, Request};
use super::leash::{Leash, directory};
use super::{eventually, fill, login, port, program, repository};

pub struct Nginx {
    pub port: u16,
    leash: Leash,
}

/// What differs from one to another. In both texts the words between at signs are filled in, and these by themselves:
/// `DIR`, where its files are, and `PORT`.
pub struct Conf<'a> {
    /// The outermost level, with the events.
    pub main: &'a str,
    /// Inside of `http`.
    pub http: &'a str,
    pub words: &'a [(&'a str, &'a str)],
}

/// The outermost level where nothing is measured.
pub const TALKATIVE: &str = "worker_processes 2;\nerror_log @DIR@/error.log info;\nevents { }";

const CONF: &str = r#"
daemon off;
@USER@
pid @DIR@/nginx.pid;
@MAIN@
http {
    client_body_temp_path @DIR@/body;
    proxy_temp_path @DIR@/proxy;
    fastcgi_temp_path @DIR@/fastcgi;
    uwsgi_temp_path @DIR@/uwsgi;
    scgi_temp_path @DIR@/scgi;
@HTTP@
}
"#;

const HTTP: &str = r#"
    access_log off;
    include @DIR@/webpresence-http.conf;
    # What the rest of a site may do is not to get into the snippets.
    fastcgi_cache_path @DIR@/rest keys_zone=rest:1m;
    fastcgi_cache rest;
    fastcgi_cache_key $uri;
    fastcgi_cache_valid any 1h;
    fastcgi_cache_methods GET HEAD POST;
    fastcgi_cache_use_stale error timeout updating http_403 http_500 http_503;
    fastcgi_cache_background_update on;
    fastcgi_ignore_headers Cache-Control Expires Vary;
    server {
        listen 127.0.0.1:@PORT@;
        server_name localhost;
        root @DIR@;
        add_header X-Cache $upstream_cache_status always;
        include @DIR@/webpresence.conf;
    }
"#;

/// A shipped file, and what its comments tell an admin to change.
#[derive(Clone, Copy, Debug)]
pub enum Snippet<'a> {
    Public,
    /// The same with its cache turned off.
    Uncached,
    /// Only pages of the server itself and of `www.example.com` may show an answer.
    OwnPages,
    /// These users log in, each with the password of all.
    Login(&'a [&'a str]),
    /// The same, and in the same block pages below `/public/` that everybody may open.
    LoginAndPublic(&'a [&'a str]),
}

impl Nginx {
    pub fn with(socket: &Path, snippet: Snippet) -> Nginx {
        port::retrying("nginx", || try_start(socket, snippet))
    }

    /// In `dir`, where everything is already that its configuration includes beside `fastcgi_params`; it listens on `port`.
    pub fn run(dir: TempDir, port: u16, conf: Conf) -> Result<Nginx, String> {
        let text = CONF.replace("@MAIN@", conf.main).replace("@HTTP@", conf.http);
        let (place, number) = (dir.path().to_str().expect("made by us"), port.to_string());
        let words = [&[("DIR", place), ("PORT", &number), ("USER", user())], conf.words].concat();
        fs::write(dir.path().join("nginx.conf"), fill(&text, &words)).expect("the directory is ours");
        fs::copy("/etc/nginx/fastcgi_params", dir.path().join("fastcgi_params")).expect("nginx brings it");
        let mut command = Command::new(program("nginx", "nginx"));
        command.arg("-p").arg(dir.path()).arg("-e").arg(dir.path().join("error.log"));
        command.arg("-c").arg(dir.path().join("nginx.conf"));
        let mut leash = Leash::start(dir, None, &mut command, &["error.log"]);
        let up = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        match eventually("nginx listens", || leash.ended().map(|_| false).or_else(|| up().then_some(true))) {
            true => Ok(Nginx { port, leash }),
            false => Err(leash.log()),
        }
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        self.leash.dir()
    }

    /// To the master process.
    pub fn signal(&self, signal: Signal) {
        self.leash.signal(signal);
    }

    pub fn send(&self, request: Request) -> Answer {
        request.send(self.port)
    }
}

fn try_start(socket: &Path, snippet: Snippet) -> Result<Nginx, String> {
    let dir = directory("nginx");
    let [port] = port::free();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("the directory is ours");
    let http = http(socket, dir.path());
    write("webpresence-http.conf", &if matches!(snippet, Snippet::Uncached) { uncached(&http) } else { http });
    write("webpresence.conf", &snippet.text(socket, dir.path()));
    Nginx::run(dir, port, Conf { main: TALKATIVE, http: HTTP, words: &[] })
}

/// Who its workers are.
fn user() -> &'static str {
    if rustix::process::geteuid().is_root() { "user www-data;" } else { "" }
}

impl Snippet<'_> {
    /// The file, changed; what else it needs is put into `dir`.
    fn text(self, socket: &Path, dir: &Path) -> String {
        match self {
            Snippet::Public | Snippet::Uncached => shipped("webpresence.conf"),
            Snippet::OwnPages => uncommented(&shipped("webpresence.conf"), 2),
            Snippet::Login(users) => {
                let file = format!(" {};", login::htpasswd(dir, users).display());
                let text = for_login(socket);
                replaced(&text, " /etc/nginx/webpresence.htpasswd;", &file, 2)
            }
            Snippet::LoginAndPublic(users) => Snippet::Login(users).text(socket, dir) + &beside_login(),
        }
    }
}

/// The public snippet with other addresses, as the login snippet says.
fn beside_login() -> String {
    let text = shipped("webpresence.conf");
    let first = text.find("location = ").expect("there are two");
    let second = text.find("location ^~ ").expect("there are two");
    replaced(&(text[..first].to_owned() + &text[second..]), "location ^~ /presence/ ", "location ^~ /public/ ", 1)
}

/// The login snippet for a site that asks somebody else who has logged in.
pub fn asking_snippet(socket: &Path) -> String {
    let text = uncommented(&for_login(socket), 6);
    let lines: Vec<&str> = text.lines().filter(|line| !line.ends_with("# basic")).collect();
    assert_eq!(lines.len() + 6, text.lines().count(), "the lines marked basic");
    lines.join("\n")
}

/// The login snippet, with the one thing changed that everybody has to.
fn for_login(socket: &Path) -> String {
    let pass = |address: &str| format!("fastcgi_pass unix:{address};");
    let text = shipped("webpresence-login.conf");
    replaced(&text, &pass("/run/webpresence/webpresence.sock"), &pass(&socket.display().to_string()), 2)
}

/// The file for the level of `http`, with this socket, and the cache in `dir`.
pub fn http(socket: &Path, dir: &Path) -> String {
    let text = shipped("webpresence-http.conf");
    let text = replaced(&text, "unix:/run/webpresence/webpresence.sock;", &format!("unix:{};", socket.display()), 1);
    let path = |place: &str| format!("fastcgi_cache_path {place} ");
    replaced(&text, &path("/var/cache/nginx-webpresence"), &path(&format!("{}/cache", dir.display())), 1)
}

/// The same with the cache turned off, as it says itself.
pub fn uncached(text: &str) -> String {
    replaced(text, "    default webpresence;", "    default off;", 1)
}

/// The public snippet for another service, as it says itself.
pub fn of_service(name: &str) -> String {
    let set = |name: &str| format!("    set $webpresence_service {name};");
    replaced(&shipped("webpresence.conf"), &set("webpresence"), &set(name), 1)
}

/// A file as it is shipped.
pub fn shipped(name: &str) -> String {
    fs::read_to_string(repository("nginx").join(name)).expect("shipped")
}

fn replaced(text: &str, from: &str, to: &str, times: usize) -> String {
    assert_eq!(text.matches(from).count(), times, "{from} in the snippet");
    text.replace(from, to)
}

/// With the lines that begin with # and no space.
pub fn uncommented(text: &str, count: usize) -> String {
    let is_one =
        |line: &str| line.trim_start().strip_prefix('#').is_some_and(|rest| rest.starts_with(char::is_alphabetic));
    assert_eq!(text.lines().filter(|line| is_one(line)).count(), count, "lines that begin with # and no space");
    let line = |line: &str| if is_one(line) { line.replacen('#', "", 1) } else { line.to_owned() };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}
