//! nginx and Apache with all the paths that are compared, under the same settings: one server each, one location for
//! each way to the same icon. What nginx keeps it keeps by the files that are shipped for it.

use std::fs;
use std::path::Path;

use crate::rig::apache::{self as httpd, Apache};
use crate::rig::leash::directory;
use crate::rig::nginx::{self, Conf, Nginx};
use crate::rig::port;

const NGINX: &str = "worker_processes 2; worker_rlimit_nofile 8192; error_log @DIR@/error.log;
events { worker_connections 4096; }";

const HTTP: &str = r#"
    sendfile on;
    tcp_nopush on;
    access_log off;
    types { image/png png; }
    include @DIR@/webpresence-http.conf;
    @UPSTREAMS@
    server {
        listen 127.0.0.1:@PORT@ backlog=1024;
        root @DIR@;
        include @DIR@/webpresence.conf;
        @LOCATIONS@
    }
    # The same cache, and whether it had the answer: where it is measured a hit costs what it costs.
    server {
        listen 127.0.0.1:@LOOK@;
        add_header X-Cache $upstream_cache_status always;
        include @DIR@/webpresence.conf;
    }
"#;

/// With the icon at `/static/icon.png`.
const APACHE: &str = r#"
LogLevel error
# Two processes as nginx has, from the start, each with a thread for every connection of the bench: one that runs out of
# threads closes connections that were to be kept.
ServerLimit 2
StartServers 2
ThreadLimit 300
ThreadsPerChild 300
MaxRequestWorkers 600
MinSpareThreads 1
MaxSpareThreads 600
MaxKeepAliveRequests 0
FcgidSpawnScore 0
FcgidTerminationScore 0
SetEnv ap_trust_cgilike_cl 1
<Location "/">
    Require all granted
    Options +ExecCGI
</Location>
<Location "/fcgid/">
    SetHandler fcgid-script
    FcgidWrapper "@EXE@" virtual
</Location>
<Location "/fcgid-hello/">
    SetHandler fcgid-script
    FcgidWrapper "@HELLO@" virtual
</Location>
ScriptAliasMatch "^/cgi/" "@EXE@"
ScriptAliasMatch "^/cgi-hello/" "@CGI@"
"#;

/// A path below which nginx hands over to a socket, and keeps the connections.
pub struct Place<'a>(pub &'a str, pub &'a Path);

/// How much nginx's cache holds.
#[derive(Clone, Copy, Debug)]
pub enum Room {
    Shipped,
    /// As an admin with a hundred thousand people would have it.
    Large,
}

/// nginx with `icon` as a file at `/static/icon.png`, the socket `kept` behind the shipped files at `/presence/`, and on
/// a port of its own for those who ask whether that was kept.
pub fn nginx(icon: &[u8], kept: &Path, room: Room, places: &[Place]) -> (Nginx, u16) {
    port::retrying("nginx", || {
        let dir = directory("nginx");
        let [port, look] = port::free();
        let words: [(&str, &str); 3] = [
            ("LOOK", &look.to_string()),
            ("UPSTREAMS", &places.iter().map(Place::upstream).collect::<String>()),
            ("LOCATIONS", &places.iter().map(Place::location).collect::<String>()),
        ];
        let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).expect("the directory is ours");
        write("webpresence-http.conf", room.in_text(nginx::http(kept, dir.path())).as_bytes());
        write("webpresence.conf", nginx::shipped("webpresence.conf").as_bytes());
        fs::create_dir(dir.path().join("static")).expect("the directory is ours");
        write("static/icon.png", icon);
        Ok((Nginx::run(dir, port, Conf { main: NGINX, http: HTTP, words: &words })?, look))
    })
}

impl Room {
    fn in_text(self, text: String) -> String {
        let (shipped, large) = ("keys_zone=webpresence:4m max_size=64m", "keys_zone=webpresence:64m max_size=2g");
        assert_eq!(text.matches(shipped).count(), 1, "{shipped} in the file");
        match self {
            Room::Shipped => text,
            Room::Large => text.replace(shipped, large),
        }
    }
}

impl Place<'_> {
    fn upstream(&self) -> String {
        let Place(name, socket) = self;
        format!("upstream {name} {{ server unix:{}; keepalive 256; }}\n    ", socket.display())
    }

    /// What a visitor sends for a login is withheld everywhere, as the shipped snippet does.
    fn location(&self) -> String {
        let name = self.0;
        format!(
            "location /{name}/ {{ include fastcgi_params; fastcgi_param REMOTE_USER \"\"; \
             fastcgi_param WEBPRESENCE_AUTH \"\"; fastcgi_param HTTP_PROXY \"\"; \
             fastcgi_keep_conn on; fastcgi_pass {name}; }}\n        "
        )
    }
}

/// Apache that starts the executable, and both C programs.
pub fn apache(executable: &Path, config: &Path, hello: &Path, cgi: &Path) -> Apache {
    port::retrying("apache2", || {
        let dir = directory("apache");
        let [port] = port::free();
        let text = |path: &Path| path.to_str().expect("paths of ours are text").to_owned();
        let words = [("EXE", text(executable)), ("HELLO", text(hello)), ("CGI", text(cgi))];
        let words = words.each_ref().map(|(name, value)| (*name, value.as_str()));
        Apache::run(dir, port, httpd::Conf { modules: &["fcgid", "cgid"], text: APACHE, config, words: &words })
    })
}
