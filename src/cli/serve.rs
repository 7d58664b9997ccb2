//! `webpresence serve`, and what web servers start: FastCGI on given sockets, and CGI. They differ only in how the
//! request comes in and how long the process lives.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use log::Level;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{BLOCKING_THREADS, Failed, configured, exit_code, run_on, runtime, shared_directory};
use crate::config::keys::Section;
use crate::config::{Config, Environment, Identity, Requester, WebSettings, load};
use crate::gateway::signals::Signals;
use crate::gateway::{self, Address, Limits, Listener, cgi, door, ready};
use crate::render::folder::Folder;
use crate::render::picture::Icons;
use crate::render::text;
use crate::site::{Life, Sessions, Site};
use crate::web::request::Request;
use crate::web::response::Response;

/// How long sessions may take to close when the process ends.
const GOODBYE: Duration = Duration::from_secs(2);

/// `webpresence serve`: on addresses of its own, else on the sockets that were given.
pub fn serve(file: Option<PathBuf>, addresses: &[Address]) -> Result<(), Failed> {
    let mut listeners = if addresses.is_empty() { door::given_listeners() } else { Vec::new() };
    if addresses.is_empty() && listeners.is_empty() {
        return Err(Failed::Usage("serve needs --listen ADDRESS, or sockets from systemd or on fd 0"));
    }
    let config = configured(file.clone())?;
    for address in addresses {
        listeners.extend(Listener::bind(address).map_err(|error| Failed::Because(error.to_string()))?);
    }
    run(file, config, listeners, Life::Resident)
}

/// What a web server or a service manager started with listening sockets. Only `--config FILE` may be an argument.
pub fn fastcgi(args: Vec<OsString>, listeners: Vec<Listener>, life: Life) -> ExitCode {
    let served = config_argument(&args).and_then(|file| {
        let config = configured(file.clone())?;
        run(file, config, listeners, life)
    });
    exit_code(served)
}

fn config_argument(args: &[OsString]) -> Result<Option<PathBuf>, Failed> {
    match args {
        [] => Ok(None),
        [flag, file] if flag == "--config" => Ok(Some(PathBuf::from(file))),
        [one] if one.to_str().is_some_and(|one| one.starts_with("--config=")) => {
            Ok(one.to_str().and_then(|one| one.strip_prefix("--config=")).map(PathBuf::from))
        }
        _ => Err(Failed::Usage("on sockets that were handed over, --config FILE is the only argument")),
    }
}

/// One request of plain CGI. What is wrong with the configuration goes to the web server's log, a short 500 to the
/// visitor.
pub fn cgi() -> ExitCode {
    let request = cgi::request(Instant::now());
    let answered = configured(None).and_then(|config| {
        let icons = icons(&config)?;
        let directory = shared_directory(&config, Level::Info);
        run_on(runtime()?, async {
            let (site, sessions) = Site::open(config, icons, directory, Life::Single);
            let response = site.answer(&request).await;
            if let Err(error) = cgi::write_response(&response) {
                log::info!("the web server took no answer: {error}");
            }
            site.close();
            leave(sessions).await;
            Ok(())
        })
    });
    if answered.is_err() {
        // Whoever asked may have gone; the log is told in any case.
        let _ = cgi::write_response(&broken(&request));
    }
    exit_code(answered)
}

/// The visitor has his answer. What other processes asked through our session is still answered, and the session closed,
/// while the web server is told that nothing more comes.
async fn leave(sessions: Sessions) {
    if sessions.are_closed() {
        return;
    }
    // Apache ends a process that outlives its output: what is in hand is done all the same.
    let _deaf = signal(SignalKind::terminate());
    // COMPAT: under mod_cgid, input and output are one socket.
    let nowhere = File::options().read(true).write(true).open("/dev/null");
    let silenced =
        nowhere.and_then(|null| Ok(rustix::stdio::dup2_stdout(&null).and(rustix::stdio::dup2_stdin(&null))?));
    if let Err(error) = silenced {
        log::debug!("the output stays open: {error}");
    }
    if timeout(GOODBYE, sessions.closed()).await.is_err() {
        log::info!("the session did not close in time");
    }
}

fn broken(request: &Request) -> Response {
    let line = "webpresence is not set up: the web server's log says what is wrong\n";
    Response::new(500, text::CONTENT_TYPE, line).with("Cache-Control", "no-store").seal(request)
}

/// The built-in icons and the admin's own.
pub fn icons(config: &Config) -> Result<Icons, Failed> {
    let Some(directory) = &config.images.directory else { return Ok(Icons::default()) };
    let folder = Folder::load(directory).map_err(|errors| {
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        Failed::Because(lines.join("\nwebpresence: "))
    })?;
    Ok(Icons::new(folder))
}

/// As many descriptors as this process may have: the usual soft limit is below the connections it takes, and the people
/// who are looked up at once.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        log::info!("the limit of open files stays at {:?}: {error}", limit.current);
    }
}

fn run(file: Option<PathBuf>, config: Config, listeners: Vec<Listener>, life: Life) -> Result<(), Failed> {
    let open = listeners.iter().find_map(Listener::open_to_all);
    check_believable(&config, open.as_deref())?;
    let icons = icons(&config)?;
    let directory = shared_directory(&config, Level::Warn);
    raise_descriptor_limit();
    let runtime = match life {
        Life::Resident => workers(config.web.workers)?,
        // mod_fcgid gives a process one request at a time.
        Life::Pooled | Life::Single => runtime()?,
    };
    let web = config.web.clone();
    let limits = Limits { connections: web.connections, ..Limits::default() };
    run_on(runtime, async {
        let signals = Signals::listen()?;
        let (site, sessions) = Site::open(config, icons, directory, life);
        let (current, site) = watch::channel(Arc::new(site));
        let (stop, stopped) = watch::channel(false);
        let manager = ready::Manager::from_env();
        let answer = move |request: Request| {
            let site = site.borrow().clone();
            async move { site.answer(&request).await }
        };
        let mut reloaded = Reloaded { file, life, open, web, current, sessions: vec![sessions] };
        let serving = tokio::spawn(gateway::serve(listeners, limits, answer, stopped));
        manager.ready();
        let signalled = signals.run(stop, || {
            manager.reloading();
            reloaded.reload();
            manager.ready();
        });
        signalled.await;
        manager.stopping();
        let served = serving.await.map_err(|error| Failed::Because(error.to_string()))?;
        reloaded.close().await;
        Ok(served?)
    })
}

/// One thread hands nothing over to another, which is what answers cost most with several.
fn workers(count: usize) -> io::Result<Runtime> {
    match count {
        1 => runtime(),
        count => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(count).max_blocking_threads(BLOCKING_THREADS).enable_all().build()
        }
    }
}

/// Whoever reaches the socket can send REMOTE_USER with any name in it, so that no login would mean anything.
fn check_believable(config: &Config, open: Option<&str>) -> Result<(), Failed> {
    let believes = |identity: &&Identity| matches!(identity.access.requester, Requester::RemoteUser { .. });
    let (Some(open), Some(identity)) = (open, config.identities.iter().find(believes)) else { return Ok(()) };
    let section = identity.header(Section::Access);
    Err(Failed::Because(format!(
        "{open}, where anybody can say that he has logged in: requester = remote-user in {section} needs a Unix socket \
         for its owner and group alone (mode=0660)"
    )))
}

/// The site that answers now, and what is left of those before it.
struct Reloaded {
    file: Option<PathBuf>,
    life: Life,
    /// What is wrong with the sockets where a login is to be believed.
    open: Option<String>,
    /// By which the process goes until it ends.
    web: WebSettings,
    current: watch::Sender<Arc<Site>>,
    sessions: Vec<Sessions>,
}

impl Reloaded {
    /// Reads the configuration again, all but where the log goes, and how many threads and connections there are; what is
    /// broken is told, and the old one goes on.
    fn reload(&mut self) {
        let loaded = load(self.file.as_deref(), &Environment::from_process()).map_err(Failed::Config);
        let loaded = loaded.and_then(|config| {
            check_believable(&config, self.open.as_deref())?;
            icons(&config).map(|icons| (config, icons))
        });
        match loaded {
            Ok((config, icons)) => {
                if config.web != self.web {
                    log::warn!("[web] holds from the next start: workers and connections stay as they are");
                }
                let directory = shared_directory(&config, Level::Warn);
                let (site, sessions) = Site::open(config, icons, directory, self.life);
                self.current.send_replace(Arc::new(site));
                self.sessions.retain(|old| !old.are_closed());
                self.sessions.push(sessions);
                log::info!("the configuration was read again");
            }
            Err(failed) => log::error!("the old configuration stays: {failed}"),
        }
    }

    async fn close(self) {
        drop(self.current);
        for sessions in self.sessions {
            if timeout(GOODBYE, sessions.closed()).await.is_err() {
                log::warn!("a session did not close in time");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::response::Header;

    #[test]
    fn a_broken_configuration_is_an_answer_like_any_other() {
        for (method, body) in [("GET", 67), ("HEAD", 0), ("POST", 67)] {
            let vars = [("REQUEST_METHOD", method)].into();
            let response = broken(&Request { vars, body: Vec::new(), excess: None, arrived: Instant::now() });
            assert_eq!((response.status, response.body.len()), (500, body), "{method}");
            let expected: [Header; 6] = [
                ("Content-Type", "text/plain; charset=utf-8".into()),
                ("Cache-Control", "no-store".into()),
                ("X-Content-Type-Options", "nosniff".into()),
                ("X-Robots-Tag", "noindex".into()),
                ("Cross-Origin-Resource-Policy", "cross-origin".into()),
                ("Content-Length", "67".into()),
            ];
            assert_eq!(response.headers, expected, "{method}");
        }
    }
}
