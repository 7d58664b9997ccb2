//! nginx and Apache with all the paths that are compared, under the same settings: one server each, one location for
//! each way to the same icon.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use crate::rig::apache::web_user;
use crate::rig::leash::{Leash, directory};
use crate::rig::nginx::{self, Nginx};
use crate::rig::{eventually, fill, port, program};

const NGINX: &str = r#"
daemon off;
@USER@
worker_processes 2;
worker_rlimit_nofile 8192;
pid @DIR@/nginx.pid;
error_log @DIR@/error.log;
events { worker_connections 4096; }
http {
    sendfile on;
    tcp_nopush on;
    access_log off;
    types { image/png png; }
    client_body_temp_path @DIR@/body;
    proxy_temp_path @DIR@/proxy;
    fastcgi_temp_path @DIR@/fastcgi;
    uwsgi_temp_path @DIR@/uwsgi;
    scgi_temp_path @DIR@/scgi;
    # Told only to whoever wants to know: a hit costs what it costs.
    map $http_x_look $told { default ""; 1 $upstream_cache_status; }
    fastcgi_cache_path @DIR@/cache levels=1:2 keys_zone=presence:64m max_size=2g inactive=1h;
    @UPSTREAMS@
    server {
        listen 127.0.0.1:@PORT@ backlog=1024;
        root @DIR@;
        @LOCATIONS@
    }
}
"#;

/// With the icon at `/static/icon.png`.
const APACHE: &str = r#"
ServerRoot "@DIR@"
ServerName localhost
Listen 127.0.0.1:@PORT@
PidFile "@DIR@/apache.pid"
ErrorLog "@DIR@/error.log"
LogLevel error
# Debian has file locks here, which the kernel takes for a deadlock when hundreds of threads of mod_fcgid want them.
Mutex pthread default
DocumentRoot "@DIR@"
@USER@
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
LoadModule env_module /usr/lib/apache2/modules/mod_env.so
LoadModule fcgid_module /usr/lib/apache2/modules/mod_fcgid.so
LoadModule cgid_module /usr/lib/apache2/modules/mod_cgid.so
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
FcgidIPCDir "@DIR@/sock"
FcgidProcessTableFile "@DIR@/fcgid_shm"
FcgidInitialEnv WEBPRESENCE_CONFIG "@CONFIG@"
FcgidSpawnScore 0
FcgidTerminationScore 0
ScriptSock "@DIR@/cgisock"
SetEnv WEBPRESENCE_CONFIG "@CONFIG@"
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

/// What nginx does below a path.
pub enum Place<'a> {
    /// Hands over to a socket, and keeps the connections.
    Pass(&'a str, &'a Path),
    /// The same, and keeps the answers as they say.
    Keep(&'a str, &'a Path),
}

/// nginx with `icon` as a file at `/static/icon.png`.
pub fn nginx(icon: &[u8], places: &[Place]) -> Nginx {
    port::retrying("nginx", || {
        let dir = directory("nginx");
        let [port] = port::free();
        let words = [
            ("DIR", dir.path().to_str().expect("made by us")),
            ("PORT", &port.to_string()),
            ("USER", nginx::user()),
            ("UPSTREAMS", &places.iter().map(Place::upstream).collect::<String>()),
            ("LOCATIONS", &places.iter().map(Place::location).collect::<String>()),
        ];
        fs::write(dir.path().join("nginx.conf"), fill(NGINX, &words)).expect("the directory is ours");
        fs::create_dir(dir.path().join("static")).expect("the directory is ours");
        fs::write(dir.path().join("static/icon.png"), icon).expect("the directory is ours");
        nginx::bring_params(dir.path());
        Nginx::run(dir, port)
    })
}

impl Place<'_> {
    fn name(&self) -> &str {
        match self {
            Place::Pass(name, _) | Place::Keep(name, _) => name,
        }
    }

    fn upstream(&self) -> String {
        let (Place::Pass(name, socket) | Place::Keep(name, socket)) = self;
        format!("upstream {name} {{ server unix:{}; keepalive 256; }}\n    ", socket.display())
    }

    /// What a visitor sends for a login is withheld everywhere, as the shipped snippet does.
    fn location(&self) -> String {
        let name = self.name();
        let cache = match self {
            Place::Pass(..) => "",
            Place::Keep(..) => {
                "fastcgi_cache presence; fastcgi_cache_key $request_method$scheme$host$request_uri; \
                 fastcgi_cache_lock on; fastcgi_cache_background_update on; fastcgi_cache_use_stale updating; \
                 add_header X-Cache $told;"
            }
        };
        format!(
            "location /{name}/ {{ include fastcgi_params; fastcgi_param REMOTE_USER \"\"; \
             fastcgi_param WEBPRESENCE_AUTH \"\"; fastcgi_param HTTP_PROXY \"\"; \
             fastcgi_keep_conn on; {cache} fastcgi_pass {name}; }}\n        "
        )
    }
}

pub struct Apache {
    pub port: u16,
    _leash: Leash,
}

/// Apache that starts the executable, and both C programs.
pub fn apache(executable: &Path, config: &Path, hello: &Path, cgi: &Path) -> Apache {
    port::retrying("apache2", || {
        let dir = directory("apache");
        let [port] = port::free();
        let text = |path: &Path| path.to_str().expect("paths of ours are text").to_owned();
        let words = [
            ("DIR", text(dir.path())),
            ("PORT", port.to_string()),
            ("USER", web_user().map_or("", |_| "User www-data\nGroup www-data").to_owned()),
            ("CONFIG", text(config)),
            ("EXE", text(executable)),
            ("HELLO", text(hello)),
            ("CGI", text(cgi)),
        ];
        let words: Vec<(&str, &str)> = words.iter().map(|(name, value)| (*name, value.as_str())).collect();
        fs::write(dir.path().join("apache.conf"), fill(APACHE, &words)).expect("the directory is ours");
        let mut command = Command::new(program("apache2", "apache2"));
        command.arg("-DFOREGROUND").arg("-f").arg(dir.path().join("apache.conf"));
        let mut leash = Leash::start(dir, None, &mut command, &["error.log"]);
        let up = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        match eventually("apache2 listens", || leash.ended().map(|_| false).or_else(|| up().then_some(true))) {
            true => Ok(Apache { port, _leash: leash }),
            false => Err(leash.log()),
        }
    })
}
