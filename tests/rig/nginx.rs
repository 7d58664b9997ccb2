//! nginx with a shipped snippet in front of a FastCGI socket, changed as the snippet itself says.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::leash::{Leash, directory};
use super::{eventually, fill, http, login, port, program, repository};

pub struct Nginx {
    pub port: u16,
    leash: Leash,
}

const CONFIG: &str = r#"
daemon off;
@USER@
worker_processes 2;
pid @DIR@/nginx.pid;
error_log @DIR@/error.log info;
events { }
http {
    access_log off;
    client_body_temp_path @DIR@/body;
    proxy_temp_path @DIR@/proxy;
    fastcgi_temp_path @DIR@/fastcgi;
    uwsgi_temp_path @DIR@/uwsgi;
    scgi_temp_path @DIR@/scgi;
    server {
        listen 127.0.0.1:@PORT@;
        server_name localhost;
        root @DIR@;
        include @DIR@/webpresence.conf;
    }
}
"#;

/// A shipped file, and what its comments tell an admin to change.
#[derive(Clone, Copy, Debug)]
pub enum Snippet<'a> {
    Public,
    /// Only pages of the server itself and of `www.example.com` may show an answer.
    OwnPages,
    /// These users log in, each with the password of all.
    Login(&'a [&'a str]),
}

impl Nginx {
    pub fn with(socket: &Path, snippet: Snippet) -> Nginx {
        port::retrying("nginx", || try_start(socket, snippet))
    }

    /// With the `nginx.conf` in `dir`, which makes it listen on `port`.
    pub fn run(dir: TempDir, port: u16) -> Result<Nginx, String> {
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

    pub fn send(&self, request: http::Request) -> http::Answer {
        request.send(self.port)
    }
}

fn try_start(socket: &Path, snippet: Snippet) -> Result<Nginx, String> {
    let dir = directory("nginx");
    let [port] = port::free();
    let words = [("DIR", dir.path().to_str().expect("made by us")), ("PORT", &port.to_string()), ("USER", user())];
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("the directory is ours");
    write("nginx.conf", &fill(CONFIG, &words));
    write("webpresence.conf", &snippet.text(socket, dir.path()));
    bring_params(dir.path());
    Nginx::run(dir, port)
}

/// Who its workers are.
pub fn user() -> &'static str {
    if rustix::process::geteuid().is_root() { "user www-data;" } else { "" }
}

/// What the snippets include.
pub fn bring_params(dir: &Path) {
    fs::copy("/etc/nginx/fastcgi_params", dir.join("fastcgi_params")).expect("nginx brings it");
}

impl Snippet<'_> {
    /// The file, changed; what else it needs is put into `dir`.
    fn text(self, socket: &Path, dir: &Path) -> String {
        match self {
            Snippet::Public => shipped("webpresence.conf", socket),
            Snippet::OwnPages => uncommented(&shipped("webpresence.conf", socket), 4),
            Snippet::Login(users) => {
                let file = format!(" {};", login::htpasswd(dir, users).display());
                let text = shipped("webpresence-login.conf", socket);
                replaced(&text, " /etc/nginx/webpresence.htpasswd;", &file, 2)
            }
        }
    }
}

/// The login snippet for a site that asks somebody else who has logged in.
pub fn asking_snippet(socket: &Path) -> String {
    let text = uncommented(&shipped("webpresence-login.conf", socket), 6);
    let lines: Vec<&str> = text.lines().filter(|line| !line.ends_with("# basic")).collect();
    assert_eq!(lines.len() + 6, text.lines().count(), "the lines marked basic");
    lines.join("\n")
}

/// The shipped file, with the one thing changed that everybody has to.
pub fn shipped(name: &str, socket: &Path) -> String {
    let text = fs::read_to_string(repository("nginx").join(name)).expect("shipped");
    let pass = |address: &str| format!("fastcgi_pass unix:{address};");
    replaced(&text, &pass("/run/webpresence/webpresence.sock"), &pass(&socket.display().to_string()), 2)
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
