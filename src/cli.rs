//! The commands for people: what they are called, what they take, and which one was meant. What each does has a file
//! of its own. Data goes to stdout, errors to stderr; the exit codes are 0, 1 (failed) and 2 (usage).

mod check;
mod get;
mod listen;
mod owner;
mod probe;
mod serve;
mod sign;
mod subscribe;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use jid::BareJid;
use lexopt::{Arg, Parser, ValueExt as _};
use log::{Level, LevelFilter};
use tokio::runtime::{Builder, Runtime};

use crate::access;
use crate::config::{self, Config, Environment, Identity, LogSettings, LogTarget, directory, load};
use crate::gateway::Address;
use crate::probe::Failure;
use crate::probe::lease::Place;
use crate::probe::memory::Memory;

pub use serve::{cgi, fastcgi};
use subscribe::Wish;

/// First arguments by which a person at a terminal is known.
pub const COMMANDS: [&str; 13] = [
    "serve",
    "get",
    "probe",
    "subscribe",
    "unsubscribe",
    "listen",
    "check",
    "sign",
    "config",
    "--help",
    "-h",
    "--version",
    "-V",
];

const HELP: &str = "\
webpresence shows on a web page whether somebody on XMPP (Jabber) is there.

A web server runs it as CGI or FastCGI. For people there are these commands:

  webpresence serve [--listen ADDRESS]...   answer FastCGI on a socket of its own; ADDRESS is
                                            unix:PATH[,mode=0660][,group=NAME] or HOST:PORT
  webpresence get QUERY                     the answer to a request, such as 'jid=a@example.com&type=xml'
  webpresence probe [--for REQ] JID...      ask now and tell what came back, why, and who may see it; with --for
                                            whether REQ, a JID, may
  webpresence subscribe JID...              ask people for their consent to be shown
  webpresence unsubscribe JID...            give the consent back
  webpresence listen [--for SECONDS]        hold the session, so that people can opt in from their own clients
  webpresence check [JID...]                try the configuration and the way to the XMPP server, and whether these
                                            people can be seen
  webpresence sign JID [NAME=URL]...        print the parameters of a link whose holder sees what this person may see,
                                            with these redirects (images, available, away, ...)
       --for JID                            what somebody else may see
       --days N                             until then; by default the longest that the configuration allows
       --type TYPE                          for this type of answer
       --opaque                             hide the addresses
       --url BASE                           print the whole link
  webpresence config --example              print a commented configuration file
  webpresence config --reference            print all keys as a table
  webpresence --help, --version

  check marks with a tick what is well, with a cross what is not, and with a dot what is only worth knowing: such as
  roster access that is not granted, or that nobody has been seen yet. It fails if there is a cross. Without a JID it
  asks about the server alone, so that a new installation is well before anybody has accepted it.

  --config FILE, before or after a command, names the configuration. Otherwise it is $WEBPRESENCE_CONFIG,
  ~/.config/webpresence/webpresence.ini, webpresence.ini beside the executable, or
  /etc/webpresence/webpresence.ini.
";

/// Said where nothing was typed but, perhaps, an option.
const NO_COMMAND: &str = "which command?";

/// What was meant.
#[derive(Debug, PartialEq)]
enum Command {
    Serve(Vec<Address>),
    Get(OsString),
    /// And for whom.
    Probe(Vec<BareJid>, Option<BareJid>),
    Subscribe(Vec<BareJid>, Wish),
    Listen(Option<Duration>),
    Check(Vec<BareJid>),
    Sign(sign::Order),
    ConfigExample,
    ConfigReference,
    Help,
    Version,
}

/// A command line that means nothing.
#[derive(Debug)]
struct Misuse(String);

impl From<lexopt::Error> for Misuse {
    fn from(error: lexopt::Error) -> Misuse {
        Misuse(error.to_string())
    }
}

/// Why a command failed.
enum Failed {
    Config(config::Errors),
    /// In one sentence.
    Because(String),
    /// What was asked for makes no sense.
    Usage(&'static str),
    /// It has said so itself.
    Told,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::Config(errors) => write!(f, "{errors}"),
            Failed::Because(reason) => f.write_str(reason),
            Failed::Usage(reason) => f.write_str(reason),
            Failed::Told => Ok(()),
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        match error.kind() {
            // Whoever read our output has seen enough.
            io::ErrorKind::BrokenPipe => Failed::Told,
            _ => Failed::Because(error.to_string()),
        }
    }
}

/// Where a command writes what it found. Not `println!`, which panics when nobody reads any more.
type Out<'a> = &'a mut dyn Write;

/// Runs what a person typed.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (file, command) = match parse(args) {
        Ok(parsed) => parsed,
        Err(Misuse(reason)) => {
            eprintln!("webpresence: {reason}\nTry: webpresence --help");
            return ExitCode::from(2);
        }
    };
    let mut out = io::stdout();
    let out: Out<'_> = &mut out;
    let done = match command {
        Command::Help => write!(out, "{HELP}").map_err(Failed::from),
        Command::Version => writeln!(out, "webpresence {}", env!("CARGO_PKG_VERSION")).map_err(Failed::from),
        Command::ConfigExample => write!(out, "{}", config::example()).map_err(Failed::from),
        Command::ConfigReference => write!(out, "{}", config::reference()).map_err(Failed::from),
        Command::Serve(addresses) => serve::serve(file, &addresses),
        Command::Get(query) => {
            // The log file is to be his who writes it at other times.
            let config = loaded(file).and_then(as_owner).and_then(logging);
            config.and_then(|config| get::get(config, query))
        }
        Command::Probe(jids, requester) => {
            let config = configured_quietly(file).and_then(as_owner);
            config.and_then(|config| probe::probe(&config, &jids, requester.as_ref(), out))
        }
        Command::Subscribe(jids, wish) => {
            let config = configured_quietly(file).and_then(as_owner);
            config.and_then(|config| subscribe::subscribe(&config, &jids, wish, out))
        }
        Command::Listen(time) => {
            configured_quietly(file).and_then(as_owner).and_then(|config| listen::listen(&config, time, out))
        }
        Command::Check(jids) => check::check(file, &jids, out),
        Command::Sign(order) => loaded(file).and_then(|config| sign::sign(&config, &order, out)),
    };
    exit_code(done)
}

/// Tells what is still to be told, on stderr.
fn exit_code(done: Result<(), Failed>) -> ExitCode {
    match &done {
        Ok(()) | Err(Failed::Told) => {}
        Err(failed) => eprintln!("webpresence: {failed}"),
    }
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Usage(_)) => ExitCode::from(2),
        Err(_) => ExitCode::FAILURE,
    }
}

/// What to do when nothing tells what to do: the help, and behind it, where it is seen, what was not understood.
pub fn nobody(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    eprint!("{HELP}");
    if let Err(Misuse(reason)) = parse(args)
        && reason != NO_COMMAND
    {
        eprintln!("\nwebpresence: {reason}");
    }
    ExitCode::from(2)
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<(Option<PathBuf>, Command), Misuse> {
    let (mut file, mut name, mut values, mut listen, mut flag) = (None, None, Vec::new(), Vec::new(), None);
    let (mut time, mut requester, mut link) = (None, None, sign::Options::default());
    let mut parser = Parser::from_iter(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("config") => file = Some(PathBuf::from(parser.value()?)),
            Arg::Long("listen") if name.as_deref() == Some("serve") => {
                let address = parser.value()?.string()?;
                listen.push(address.parse().map_err(|error| Misuse(format!("--listen {address}: {error}")))?);
            }
            Arg::Long("for") if name.as_deref() == Some("listen") => {
                let seconds = parser.value()?.string()?;
                let parsed = seconds.parse().ok().filter(|seconds| *seconds > 0);
                let misuse = || Misuse(format!("--for {seconds}: not a number of seconds from 1 to {}", u32::MAX));
                time = Some(Duration::from_secs(parsed.map(u32::into).ok_or_else(misuse)?));
            }
            Arg::Long("for") if name.as_deref() == Some("probe") => requester = Some(jid(parser.value()?)?),
            Arg::Long(option) if name.as_deref() == Some("sign") && sign::Options::NAMES.contains(&option) => {
                let option = option.to_owned();
                link.take(&option, &mut parser)?;
            }
            Arg::Long("example") if name.as_deref() == Some("config") => flag = Some(Command::ConfigExample),
            Arg::Long("reference") if name.as_deref() == Some("config") => flag = Some(Command::ConfigReference),
            Arg::Long("help") | Arg::Short('h') => return Ok((file, Command::Help)),
            Arg::Long("version") | Arg::Short('V') => return Ok((file, Command::Version)),
            Arg::Value(value) if name.is_none() => name = Some(value.string()?),
            Arg::Value(value) => values.push(value),
            other => return Err(other.unexpected().into()),
        }
    }
    let command = match (name.as_deref(), values.as_mut_slice()) {
        (Some("serve"), []) => Command::Serve(listen),
        (Some("get"), [query]) => Command::Get(std::mem::take(query)),
        (Some("get"), _) => return Err(Misuse("get takes one query, such as 'jid=a@example.com&type=xml'".into())),
        (Some("probe"), [_, ..]) => Command::Probe(jids(values)?, requester),
        (Some("subscribe"), [_, ..]) => Command::Subscribe(jids(values)?, Wish::Subscribe),
        (Some("unsubscribe"), [_, ..]) => Command::Subscribe(jids(values)?, Wish::Unsubscribe),
        (Some("listen"), []) => Command::Listen(time),
        (Some(name @ ("probe" | "subscribe" | "unsubscribe")), []) => {
            return Err(Misuse(format!("{name} takes one JID or more")));
        }
        (Some("check"), _) => Command::Check(jids(values)?),
        (Some("sign"), _) => Command::Sign(link.about(values)?),
        (Some("config"), []) => flag.ok_or_else(|| Misuse("config takes --example or --reference".to_owned()))?,
        (Some("serve" | "listen" | "config"), [extra, ..]) => {
            return Err(Misuse(format!("unexpected argument {extra:?}")));
        }
        (Some(other), _) => return Err(Misuse(format!("there is no command {other:?}"))),
        (None, _) => return Err(Misuse(NO_COMMAND.to_owned())),
    };
    Ok((file, command))
}

fn jids(values: Vec<OsString>) -> Result<Vec<BareJid>, Misuse> {
    values.into_iter().map(jid).collect()
}

fn jid(value: OsString) -> Result<BareJid, Misuse> {
    let text = value.string()?;
    BareJid::new(&text).map_err(|error| Misuse(format!("{text}: not a JID without a resource: {error}")))
}

fn configured(file: Option<PathBuf>) -> Result<Config, Failed> {
    loaded(file).and_then(logging)
}

fn logging(config: Config) -> Result<Config, Failed> {
    crate::logging::start(&config.log)?;
    Ok(config)
}

/// For a command that tells everything itself: warnings of its one session would only repeat it.
fn configured_quietly(file: Option<PathBuf>) -> Result<Config, Failed> {
    let config = loaded(file)?;
    let level = if config.log.level == LevelFilter::Warn { LevelFilter::Error } else { config.log.level };
    crate::logging::start(&LogSettings { level, target: LogTarget::Stderr })?;
    Ok(config)
}

/// Goes on as the owner of what the web server's processes share.
fn as_owner(config: Config) -> Result<Config, Failed> {
    owner::act_as_owner(&config).map(|_| config)
}

fn loaded(file: Option<PathBuf>) -> Result<Config, Failed> {
    load(file.as_deref(), &Environment::from_process()).map_err(Failed::Config)
}

/// The addresses by the identity that serves them, so that each logs in once; those that nobody serves by `None`.
fn by_identity<'a>(config: &'a Config, jids: &'a [BareJid]) -> Vec<(Option<&'a Identity>, Vec<&'a BareJid>)> {
    let identities = config.identities.iter().map(Some).chain([None]);
    let served = identities.map(|identity| {
        let name = identity.map(|identity| &identity.name);
        let jids = jids.iter().filter(|jid| access::serving(config, jid).map(|found| &found.name) == name);
        (identity, jids.collect::<Vec<_>>())
    });
    served.filter(|(_, jids)| !jids.is_empty()).collect()
}

/// Where processes take turns; where there is no such place the log is told, at `level`.
fn shared_directory(config: &Config, level: Level) -> Option<PathBuf> {
    let directory = directory::open(config.cache.directory.as_deref(), rustix::process::geteuid().as_raw());
    directory.inspect_err(|unusable| log::log!(level, "nothing is shared between processes: {unusable}")).ok()
}

/// What a person can do about a failure that does not say it itself.
fn advice(failure: &Failure, identity: &Identity, directory: Option<&Path>) -> Option<String> {
    match failure {
        Failure::Busy => directory.map(|directory| {
            let file = Place::new(directory, &identity.jid).path("lease");
            format!(
                "it may be stopped, or run on another machine that shares the directory: end it (fuser {} tells which \
                 it is), or give each machine an identity or a directory of its own",
                file.display()
            )
        }),
        Failure::Conflict => {
            Some("run this command as the user of the process that is connected: they take turns then".to_owned())
        }
        Failure::LoginRefused(_) if !identity.is_component() => directory.map(|directory| {
            let file = Memory::setback_file(directory, identity);
            format!(
                "the password is not sent again for two hours, unless the configuration changes; \
                 where the server's was corrected, remove {}",
                file.display()
            )
        }),
        Failure::NameUnknown(_) => {
            Some(format!("it does not know {} yet: name it in its configuration, then restart it", identity.jid))
        }
        // ejabberd says this of a component's name too.
        Failure::LoginRefused(condition) if condition == "not-authorized" => {
            let there = "the password here is not the one that the server has for this component";
            let again = directory.map(|directory| Memory::setback_file(directory, identity));
            let again = again.map(|file| format!("; where the server's was corrected, remove {}", file.display()));
            Some(format!("{there}{}", again.unwrap_or_default()))
        }
        _ => None,
    }
}

/// Threads for what cannot be awaited: files, and the system's search for names, which may hang for each identity.
const BLOCKING_THREADS: usize = 64;

/// What commands and CGI run on: one thread is enough.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().max_blocking_threads(BLOCKING_THREADS).enable_all().build()
}

/// Runs to the end of `task`, and no longer: the system's search for a name cannot be broken off, and a web server waits
/// for the end of a CGI process.
fn run_on<T>(runtime: Runtime, task: impl Future<Output = T>) -> T {
    let done = runtime.block_on(task);
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Result<(Option<&str>, Command), &str>) {
        let args = std::iter::once("webpresence").chain(line.split_whitespace()).map(OsString::from);
        let parsed = parse(args).map_err(|Misuse(reason)| reason);
        assert_eq!(parsed, expected.map(|(f, c)| (f.map(PathBuf::from), c)).map_err(str::to_owned), "{line}");
    }

    #[test]
    fn commands_and_their_arguments() {
        let bob = || BareJid::new("bob@example.com").expect("a bare JID");
        check("check", Ok((None, Command::Check(Vec::new()))));
        check("--config a.ini check bob@example.com", Ok((Some("a.ini"), Command::Check(vec![bob()]))));
        check("get jid=a@b&type=xml --config=a.ini", Ok((Some("a.ini"), Command::Get("jid=a@b&type=xml".into()))));
        check("probe bob@example.com", Ok((None, Command::Probe(vec![bob()], None))));
        check("probe --for bob@example.com bob@example.com", Ok((None, Command::Probe(vec![bob()], Some(bob())))));
        let both = || vec![bob(), bob()];
        check("subscribe Bob@example.com bob@example.com", Ok((None, Command::Subscribe(both(), Wish::Subscribe))));
        check("unsubscribe bob@example.com", Ok((None, Command::Subscribe(vec![bob()], Wish::Unsubscribe))));
        check("listen", Ok((None, Command::Listen(None))));
        check("listen --for 60", Ok((None, Command::Listen(Some(Duration::from_secs(60))))));
        check("serve", Ok((None, Command::Serve(Vec::new()))));
        check("config --example", Ok((None, Command::ConfigExample)));
        check("serve --help", Ok((None, Command::Help)));
        check("-V", Ok((None, Command::Version)));
    }

    #[test]
    fn what_cannot_be_broken_off_is_not_waited_for() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let runtime = runtime().expect("a runtime");
        run_on(runtime, async { drop(tokio::task::spawn_blocking(move || ended.recv())) });
        drop(end);
    }

    #[test]
    fn what_means_nothing_is_said() {
        check("", Err("which command?"));
        check("server", Err("there is no command \"server\""));
        check("get", Err("get takes one query, such as 'jid=a@example.com&type=xml'"));
        check("probe", Err("probe takes one JID or more"));
        check("unsubscribe", Err("unsubscribe takes one JID or more"));
        check("listen --for 0", Err("--for 0: not a number of seconds from 1 to 4294967295"));
        check("get --for bob@example.com a", Err("invalid option '--for'"));
        check("probe --for bob@example.com", Err("probe takes one JID or more"));
        check("listen all", Err("unexpected argument \"all\""));
        check("check --listen x", Err("invalid option '--listen'"));
        check("sign", Err("sign takes one JID"));
        check("check --days 1", Err("invalid option '--days'"));
        check("config", Err("config takes --example or --reference"));
        check("--config", Err("missing argument for option '--config'"));
    }
}
