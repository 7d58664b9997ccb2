//! nginx with the shipped snippet in front of a FastCGI socket.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::leash::{Leash, directory};
use super::{eventually, fill, http, port, program, repository};

pub struct Nginx {
    pub port: u16,
    _leash: Leash,
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
        root @DIR@;
        include @DIR@/webpresence.conf;
    }
}
"#;

impl Nginx {
    pub fn start(socket: &Path) -> Nginx {
        port::retrying("nginx", || try_start(socket))
    }

    /// With the `nginx.conf` in `dir`, which makes it listen on `port`.
    pub fn run(dir: TempDir, port: u16) -> Result<Nginx, String> {
        let mut command = Command::new(program("nginx", "nginx"));
        command.arg("-p").arg(dir.path()).arg("-e").arg(dir.path().join("error.log"));
        command.arg("-c").arg(dir.path().join("nginx.conf"));
        let mut leash = Leash::start(dir, None, &mut command, &["error.log"]);
        let up = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        match eventually("nginx listens", || leash.ended().map(|_| false).or_else(|| up().then_some(true))) {
            true => Ok(Nginx { port, _leash: leash }),
            false => Err(leash.log()),
        }
    }

    pub fn send(&self, request: http::Request) -> http::Answer {
        request.send(self.port)
    }
}

fn try_start(socket: &Path) -> Result<Nginx, String> {
    let dir = directory("nginx");
    let [port] = port::free();
    let user = if rustix::process::geteuid().is_root() { "user www-data;" } else { "" };
    let words = [("DIR", dir.path().to_str().expect("made by us")), ("PORT", &port.to_string()), ("USER", user)];
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("the directory is ours");
    write("nginx.conf", &fill(CONFIG, &words));
    fs::copy("/etc/nginx/fastcgi_params", dir.path().join("fastcgi_params")).expect("nginx brings it");
    write("webpresence.conf", &snippet(socket));
    Nginx::run(dir, port)
}

/// The shipped file, with the one thing it asks to be changed.
fn snippet(socket: &Path) -> String {
    let text = fs::read_to_string(repository("nginx/webpresence.conf")).expect("shipped");
    let shipped = "unix:/run/webpresence/webpresence.sock;";
    assert_eq!(text.matches(&format!("fastcgi_pass {shipped}")).count(), 2, "the socket's place in the snippet");
    text.replace(shipped, &format!("unix:{};", socket.display()))
}
