//! Finds the configuration's file, reads it, and looks at the files it names: existence, permissions, passwords and
//! keys in files of their own. With `directory` the only part of the configuration that touches the machine. What the text
//! means is decided by `parse`.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::parse::{Draft, OWN_FOLDER, TEMPORARY, draft};
use super::problem::{Errors, Fault, Report};
use super::reader::{Claim, Claimed};
use super::sections::Spot;
use super::values::is_temporary;
use super::{Config, Requester, Secret};

/// The largest configuration.
const FILE_BYTES: u64 = 256 * 1024;
/// The shortest key of signed links: as long as what HMAC-SHA-256 makes (RFC 2104, 3).
const SIGNING_KEY_BYTES: usize = 32;
/// The largest file with a password or a key.
const SECRET_BYTES: u64 = 4 * 1024;
const NAME: &str = "webpresence.ini";

/// What the process knows of where it runs. Tests make their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// `WEBPRESENCE_CONFIG`, the process's own variable: never a request's parameter, since whoever reaches the
    /// socket could name a file.
    pub config: Option<PathBuf>,
    /// The home of the user it runs as.
    pub home: Option<PathBuf>,
    /// `STATE_DIRECTORY` of systemd: the first of several.
    pub state_directory: Option<PathBuf>,
    /// The executable, without symbolic links.
    pub executable: Option<PathBuf>,
    /// `/etc/webpresence`
    pub etc: PathBuf,
    /// `/var/lib/webpresence`
    pub var_lib: PathBuf,
    /// The effective user.
    pub uid: u32,
}

impl Environment {
    pub fn from_process() -> Environment {
        Environment::new(|name| env::var_os(name), rustix::process::geteuid().as_raw())
    }

    fn new(var: impl Fn(&str) -> Option<OsString>, uid: u32) -> Environment {
        let state_directories = var("STATE_DIRECTORY").unwrap_or_default();
        Environment {
            config: var("WEBPRESENCE_CONFIG").filter(|file| !file.is_empty()).map(PathBuf::from),
            home: home(absolute(var("HOME").map(PathBuf::from)), uid),
            state_directory: absolute(env::split_paths(&state_directories).next()),
            executable: env::current_exe().ok(),
            etc: PathBuf::from("/etc/webpresence"),
            var_lib: PathBuf::from("/var/lib/webpresence"),
            uid,
        }
    }

    /// Where a configuration may be, in the order of the search.
    fn candidates(&self) -> Vec<PathBuf> {
        let home = self.home.as_ref().map(|home| home.join(".config/webpresence"));
        let beside = self.executable.as_ref().and_then(|executable| executable.parent()).map(Path::to_owned);
        [home, beside, Some(self.etc.clone())].into_iter().flatten().map(|folder| folder.join(NAME)).collect()
    }

    /// The first folder that may hold the cache, if any; whether it can be used is for `directory::open`.
    fn cache_directory(&self) -> Option<PathBuf> {
        let var_lib = Some(self.var_lib.clone()).filter(|path| is_folder_of(path, self.uid));
        let home = self.home.as_ref().map(|home| home.join(".cache/webpresence"));
        let candidates = [self.state_directory.clone(), var_lib, home];
        candidates.into_iter().flatten().find(|path| !is_temporary(path) && !is_temporary(&real_path(path)))
    }
}

/// Finds, reads and checks the configuration: `explicit` (`--config`), else `WEBPRESENCE_CONFIG`, else the first of
/// the usual places where there is one.
///
/// # Errors
/// All problems at once. An explicit file that is missing is one; no other is looked for then.
pub fn load(explicit: Option<&Path>, env: &Environment) -> Result<Config, Errors> {
    let file = match explicit.or(env.config.as_deref()) {
        // Only an empty path cannot be made absolute; it is no file either way.
        Some(path) => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        None => find(env)?,
    };
    let mut report = Report::new(&file);
    let (text, mode) = match read(&file) {
        Ok(found) => found,
        Err((line, fault)) => {
            report.add(line, "", "", fault);
            return Err(report.into_errors());
        }
    };
    let mut draft = draft(&text, &file);
    check_files(&mut draft, mode);
    let mut config = draft.report.finish(draft.config)?;
    config.cache.directory = config.cache.directory.or_else(|| env.cache_directory());
    Ok(config)
}

fn find(env: &Environment) -> Result<PathBuf, Errors> {
    let mut looked = Vec::new();
    for path in env.candidates() {
        match fs::metadata(&path) {
            Ok(_) => return Ok(path),
            Err(e) => looked.push((path, e.kind())),
        }
    }
    let mut report = Report::new(Path::new(NAME));
    report.add(None, "", "", Fault::Nowhere(looked));
    Err(report.into_errors())
}

/// The text and the mode bits of the configuration; else what is wrong, with the line where there is one.
fn read(file: &Path) -> Result<(String, u32), (Option<usize>, Fault)> {
    let (bytes, mode) = read_up_to(file, FILE_BYTES).map_err(|fault| (None, fault))?;
    String::from_utf8(bytes).map(|text| (text, mode)).map_err(|e| {
        let sound = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = sound.iter().filter(|b| **b == b'\n').count() + 1;
        (Some(line), Fault::NotUtf8)
    })
}

/// Reads a regular file and the mode bits it had while it was read.
fn read_up_to(path: &Path, max_bytes: u64) -> Result<(Vec<u8>, u32), Fault> {
    let unreadable = |e: io::Error| Fault::Unreadable(e.kind());
    let file = open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Fault::NotAFile);
    }
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > max_bytes {
        return Err(Fault::TooLarge { max_bytes });
    }
    Ok((bytes, metadata.mode() & 0o7777))
}

/// Opens without waiting for a writer where the path is a pipe.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)
}

/// Looks at everything that the text claims of the machine, and fetches the secrets.
fn check_files(draft: &mut Draft, mode: u32) {
    if let Some(Spot { line, section, key }) = &draft.password
        && is_world_readable(mode)
    {
        draft.report.add(Some(*line), section, key, Fault::WorldReadable { mode });
    }
    for claim in &draft.claims {
        let checked = match claim.what {
            Claimed::Password => secret(&claim.path).map(|text| give(&mut draft.config, claim, text)),
            Claimed::SigningKey | Claimed::OldSigningKey => {
                signing_key(&claim.path).map(|text| give(&mut draft.config, claim, text))
            }
            Claimed::PrivateKey => private_key(&claim.path),
            Claimed::Readable => readable(&claim.path),
            Claimed::Folder => folder(&claim.path),
            Claimed::Cache => lasting(&claim.path),
        };
        if let Err(fault) = checked {
            draft.report.add(claim.line, &claim.section, claim.key, fault);
        }
    }
}

fn is_world_readable(mode: u32) -> bool {
    mode & 0o004 != 0
}

/// Puts a secret where it belongs.
fn give(config: &mut Config, claim: &Claim, text: String) {
    let name = claim.section.split_once(' ').map_or("", |(_, name)| name);
    let Some(identity) = config.identities.iter_mut().find(|identity| identity.name == name) else { return };
    let secret = Secret::new(text);
    match (claim.what, &mut identity.access.requester) {
        (Claimed::Password, _) => identity.password = secret,
        (Claimed::SigningKey, Requester::Signed(keys)) => keys.current = secret,
        (Claimed::OldSigningKey, Requester::Signed(keys)) => keys.old = Some(secret),
        _ => {}
    }
}

fn signing_key(path: &Path) -> Result<String, Fault> {
    let key = secret(path)?;
    if key.len() < SIGNING_KEY_BYTES {
        let allowed = format!("one line of at least {SIGNING_KEY_BYTES} bytes, as openssl rand -hex 32 makes it");
        return Err(Fault::Value { why: "the key is too short", allowed });
    }
    Ok(key)
}

/// One line that is for few eyes.
fn secret(path: &Path) -> Result<String, Fault> {
    let (bytes, mode) = read_up_to(path, SECRET_BYTES)?;
    if is_world_readable(mode) {
        return Err(Fault::WorldReadable { mode });
    }
    let text = String::from_utf8(bytes).map_err(|_| Fault::NotUtf8)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(Fault::NotASecret("the file is empty"));
    }
    if text.contains(|c: char| c.is_control() && c != '\t') {
        return Err(Fault::NotASecret("the file holds more than one line, or control characters"));
    }
    Ok(text.to_owned())
}

/// It is read when a session is opened; here only who may read it counts.
fn private_key(path: &Path) -> Result<(), Fault> {
    let metadata = open(path).and_then(|file| file.metadata()).map_err(|e| Fault::Unreadable(e.kind()))?;
    match metadata.mode() & 0o7777 {
        _ if !metadata.is_file() => Err(Fault::NotAFile),
        mode if is_world_readable(mode) => Err(Fault::WorldReadable { mode }),
        _ => Ok(()),
    }
}

fn readable(path: &Path) -> Result<(), Fault> {
    let metadata = open(path).and_then(|file| file.metadata()).map_err(|e| Fault::Unreadable(e.kind()))?;
    if metadata.is_file() { Ok(()) } else { Err(Fault::NotAFile) }
}

fn folder(path: &Path) -> Result<(), Fault> {
    let metadata = fs::metadata(path).map_err(|e| Fault::Unreadable(e.kind()))?;
    if metadata.is_dir() { Ok(()) } else { Err(Fault::NotADirectory) }
}

/// The path itself was judged with the text; a link may still lead into a temporary folder.
fn lasting(path: &Path) -> Result<(), Fault> {
    if is_temporary(&real_path(path)) {
        return Err(Fault::Value { why: TEMPORARY, allowed: OWN_FOLDER.to_owned() });
    }
    Ok(())
}

/// The path with the links of its existing part followed; the folder may not have been made yet.
fn real_path(path: &Path) -> PathBuf {
    for existing in path.ancestors() {
        if let Ok(real) = fs::canonicalize(existing) {
            return path.strip_prefix(existing).map_or(real.clone(), |rest| real.join(rest));
        }
    }
    path.to_owned()
}

/// Root's commands act as the owner of a folder that is another user's.
fn is_folder_of(path: &Path, uid: u32) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir() && (uid == 0 || metadata.uid() == uid))
}

fn absolute(path: Option<PathBuf>) -> Option<PathBuf> {
    path.filter(|path| path.is_absolute())
}

/// `HOME` where that is the user's own. suexec hands over none, and what drops its privileges may leave root's: then
/// the one that `/etc/passwd` names.
fn home(variable: Option<PathBuf>, uid: u32) -> Option<PathBuf> {
    let is_own = |home: &PathBuf| fs::metadata(home).is_ok_and(|metadata| metadata.uid() == uid);
    let named = || home_in(&String::from_utf8_lossy(&fs::read("/etc/passwd").ok()?), uid);
    variable.clone().filter(is_own).or_else(|| absolute(named())).or(variable)
}

/// The sixth field of the user's line (passwd(5)).
fn home_in(passwd: &str, uid: u32) -> Option<PathBuf> {
    let uid = uid.to_string();
    let mut users = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    users.find(|fields| fields.len() == 7 && fields[2] == uid).map(|fields| PathBuf::from(fields[5]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user whom no machine knows.
    const NOBODY: u32 = 3_999_999_999;

    #[test]
    fn the_process_says_where_to_look() {
        type Seen<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a str>);
        let table: [(&[(&str, &str)], Seen); 4] = [
            (&[], (None, None, None)),
            (
                &[("WEBPRESENCE_CONFIG", "wp.ini"), ("HOME", "/home/a"), ("STATE_DIRECTORY", "/srv/a:/srv/b")],
                (Some("wp.ini"), Some("/home/a"), Some("/srv/a")),
            ),
            (&[("WEBPRESENCE_CONFIG", ""), ("HOME", ""), ("STATE_DIRECTORY", "")], (None, None, None)),
            (&[("HOME", "home/a"), ("STATE_DIRECTORY", "srv/a")], (None, None, None)),
        ];
        for (variables, expected) in table {
            let var = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into());
            let env = Environment::new(var, NOBODY);
            let seen =
                [&env.config, &env.home, &env.state_directory].map(|path| path.as_ref().and_then(|p| p.to_str()));
            assert_eq!((seen[0], seen[1], seen[2]), expected, "{variables:?}");
        }
    }

    #[test]
    fn another_users_home_is_not_ours() {
        let own = tempfile::tempdir().expect("a temporary folder");
        let uid = fs::metadata(own.path()).expect("it is there").uid();
        assert_eq!(home(Some(own.path().to_owned()), uid), Some(own.path().to_owned()));
        let passwd = fs::read_to_string("/etc/passwd").expect("users");
        let root = home_in(&passwd, 0).expect("there is a user 0");
        // The path is nobody's, least of all root's.
        assert_eq!(home(Some("/no/such/home".into()), 0), Some(root));
        assert_eq!(home(Some("/no/such/home".into()), NOBODY), Some("/no/such/home".into()));
    }

    #[test]
    fn homes_are_found_by_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:33::/var/www:/bin/false\nw2:x:33:1::/w2:/bin/sh\n";
        let table = [(0, Some("/root")), (33, Some("/var/www")), (3, None), (1, None)];
        for (uid, expected) in table {
            assert_eq!(home_in(passwd, uid), expected.map(PathBuf::from), "{uid}");
        }
    }
}
