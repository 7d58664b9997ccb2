//! Where the configuration is looked for, what its files must be, and the folder of the cache. Permissions are judged
//! by their bits, so these tests mean the same whoever runs them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use webpresence::config::directory::{Unusable, Why, open};
use webpresence::config::{Environment, Requester, Secret, SigningKeys, load};

/// A folder with the places of a small machine in it.
struct Machine {
    root: TempDir,
    env: Environment,
}

impl Machine {
    fn new() -> Machine {
        let root = tempfile::tempdir().expect("a temporary folder");
        let at = |path: &str| root.path().join(path);
        let env = Environment {
            config: None,
            home: Some(at("home")),
            state_directory: None,
            executable: Some(at("cgi-bin/webpresence.fcgi")),
            etc: at("etc"),
            var_lib: at("lib"),
            uid: rustix::process::geteuid().as_raw(),
        };
        Machine { root, env }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn put(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("it lies in the folder")).expect("a folder");
        // Who is not root could not write into a file he may only read.
        let _ = fs::remove_file(&path);
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("its mode");
        path
    }

    /// The file that is found, or what is printed, with the machine's folder as `~`.
    fn found(&self, explicit: Option<&Path>) -> String {
        let said = match load(explicit, &self.env) {
            Ok(config) => config.file.display().to_string(),
            Err(errors) => errors.to_string(),
        };
        said.replace(&self.root.path().display().to_string(), "~")
    }
}

const SOUND: &str = "[xmpp]\njid = presence.example.com\npassword = secret\n";

#[test]
fn the_search_has_an_order() {
    let mut machine = Machine::new();
    let nowhere = "webpresence.ini: there is no configuration; looked for \
     ~/home/.config/webpresence/webpresence.ini, \
                   ~/cgi-bin/webpresence.ini, ~/etc/webpresence.ini";
    assert_eq!(machine.found(None), nowhere);
    for path in ["etc/webpresence.ini", "cgi-bin/webpresence.ini", "home/.config/webpresence/webpresence.ini"] {
        machine.put(path, SOUND, 0o600);
        assert_eq!(machine.found(None), format!("~/{path}"));
    }
    machine.env.config = Some(machine.put("own.ini", SOUND, 0o600));
    assert_eq!(machine.found(None), "~/own.ini");
    let explicit = machine.put("explicit.ini", SOUND, 0o600);
    assert_eq!(machine.found(Some(&explicit)), "~/explicit.ini");

    machine.env = Environment { config: None, home: None, executable: None, ..machine.env };
    assert_eq!(machine.found(None), "~/etc/webpresence.ini");
}

#[test]
fn what_bars_the_way_is_told() {
    let mut machine = Machine::new();
    machine.put("home", "a file where a folder should be", 0o600);
    machine.env.executable = None;
    let expected = "webpresence.ini: there is no configuration; looked for \
     ~/home/.config/webpresence/webpresence.ini (not \
                    a directory), ~/etc/webpresence.ini";
    assert_eq!(machine.found(None), expected);
}

#[test]
fn a_file_asked_for_is_never_replaced_by_another() {
    let mut machine = Machine::new();
    machine.put("etc/webpresence.ini", SOUND, 0o600);
    let missing = machine.at("missing.ini");
    assert_eq!(machine.found(Some(&missing)), "~/missing.ini: there is no such file");
    machine.env.config = Some(missing);
    assert_eq!(machine.found(None), "~/missing.ini: there is no such file");
}

#[test]
fn a_broken_file_hides_the_ones_behind_it() {
    let machine = Machine::new();
    machine.put("etc/webpresence.ini", SOUND, 0o600);
    machine.put("cgi-bin/webpresence.ini", "", 0o600);
    let expected = "~/cgi-bin/webpresence.ini: there is no section [xmpp] with the identity that asks";
    assert_eq!(machine.found(None), expected);
}

#[test]
fn relative_files_are_made_absolute() {
    let machine = Machine::new();
    let file = Path::new("no-such-folder/wp.ini");
    let absolute = std::env::current_dir().expect("a working directory").join(file);
    assert_eq!(machine.found(Some(file)), format!("{}: there is no such file", absolute.display()));
}

#[test]
fn a_file_must_be_a_bounded_text() {
    let machine = Machine::new();
    let fill = |bytes: usize| format!("{SOUND};{}", "x".repeat(bytes - SOUND.len() - 1));
    let latin1 = b"[xmpp]\n; gr\xfc\xdfe\n";
    let pipe = machine.at("pipe.ini");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).expect(
        "a \
     pipe",
    );
    let table = [
        (machine.put("a.ini", fill(256 * 1024), 0o600), "~/a.ini"),
        (machine.put("b.ini", fill(256 * 1024 + 1), 0o600), "~/b.ini: is too large; allowed: up to 262144 bytes"),
        (machine.put("c.ini", latin1, 0o600), "~/c.ini:2: is not UTF-8"),
        (machine.put("d.ini", [b"\xef\xbb\xbf", SOUND.as_bytes()].concat(), 0o600), "~/d.ini"),
        (machine.root.path().to_owned(), "~: is not a regular file"),
        (pipe, "~/pipe.ini: is not a regular file"),
    ];
    for (file, expected) in table {
        assert_eq!(machine.found(Some(&file)), expected);
    }
}

#[test]
fn a_password_is_for_owner_and_group() {
    let machine = Machine::new();
    for mode in [0o600, 0o640, 0o660, 0o400] {
        let file = machine.put("wp.ini", SOUND, mode);
        assert_eq!(machine.found(Some(&file)), "~/wp.ini", "{mode:o}");
    }
    for mode in [0o644, 0o604, 0o666] {
        let file = machine.put("wp.ini", SOUND, mode);
        let expected = format!(
            "~/wp.ini:3: [xmpp] password: everybody may read the file with this secret (mode {mode:04o}); allowed: \
             0600, or 0640 with the group of the web server"
        );
        assert_eq!(machine.found(Some(&file)), expected);
    }
}

/// The same for the one of Redis, which is part of a URL.
#[cfg(feature = "redis")]
#[test]
fn a_password_in_a_url_is_for_owner_and_group() {
    let machine = Machine::new();
    machine.put("pw", "x", 0o600);
    let text = "[xmpp]\njid = presence.example.com\npassword_file = pw\n[cache]\nurl = ";
    let found = |url: &str, mode| machine.found(Some(&machine.put("wp.ini", format!("{text}{url}\n"), mode)));
    assert_eq!(found("redis://:hunter2@h", 0o640), "~/wp.ini");
    assert_eq!(found("redis://h", 0o644), "~/wp.ini");
    let expected = "~/wp.ini:5: [cache] url: everybody may read the file with this secret (mode 0644); allowed: 0600, \
                    or 0640 with the group of the web server";
    assert_eq!(found("redis://:hunter2@h", 0o644), expected);
}

#[test]
fn a_password_may_be_in_a_file_of_its_own() {
    let machine = Machine::new();
    let text = "[xmpp a]\njid = presence.example.com\npassword_file = pw\n[xmpp b]\njid = b.example\npassword = x\n";
    let file = machine.put("wp.ini", text, 0o600);
    let world_readable = machine.put("open.ini", &text[..text.find("[xmpp b]").expect("it is there")], 0o644);
    for (content, expected) in [("pw", "pw"), ("pw\n", "pw"), ("pw\r\n", "pw"), (" p#w \n", " p#w ")] {
        machine.put("pw", content, 0o640);
        let config = load(Some(&file), &machine.env).expect("the file is sound");
        let passwords: Vec<_> = config.identities.iter().map(|i| i.password.reveal()).collect();
        assert_eq!(passwords, [expected, "x"]);
        assert_eq!(machine.found(Some(&world_readable)), "~/open.ini");
    }
    let place = "~/wp.ini:3: [xmpp a] password_file:";
    let large = "x".repeat(4097);
    let refused: [(&[u8], u32, &str); 7] = [
        (
            b"pw",
            0o644,
            "everybody may read the file with this secret (mode 0644); allowed: 0600, or 0640 with the group of \
             the web server",
        ),
        (b"", 0o600, "the file is empty; allowed: one line of text"),
        (b"\n", 0o600, "the file is empty; allowed: one line of text"),
        (b"pw\n\n", 0o600, "the file holds more than one line, or control characters; allowed: one line of text"),
        (b"p\0w", 0o600, "the file holds more than one line, or control characters; allowed: one line of text"),
        (b"p\xff", 0o600, "is not UTF-8"),
        (large.as_bytes(), 0o600, "is too large; allowed: up to 4096 bytes"),
    ];
    for (content, mode, why) in refused {
        machine.put("pw", content, mode);
        assert_eq!(machine.found(Some(&file)), format!("{place} {why}"));
    }
    fs::remove_file(machine.at("pw")).expect("it is there");
    assert_eq!(machine.found(Some(&file)), format!("{place} there is no such file"));
    fs::create_dir(machine.at("pw")).expect("a folder");
    assert_eq!(machine.found(Some(&file)), format!("{place} is not a regular file"));
}

#[test]
fn keys_of_signed_links_are_files_of_their_own() {
    let machine = Machine::new();
    let key = "k".repeat(32);
    let text = format!(
        "{SOUND}[access b]\nrequester = signed\nsign_key_file = new\nsign_key_file_old = old\nsign_days = 7\n\
         [xmpp b]\njid = b.example.com\npassword = x\n"
    );
    let file = machine.put("wp.ini", text, 0o600);
    let signed = |current: &str, old: Option<&str>| {
        let secret = |text: &str| Secret::new(text.to_owned());
        Requester::Signed(SigningKeys { current: secret(current), old: old.map(secret), days: 7 })
    };
    machine.put("old", "o".repeat(4096), 0o640);
    for end in ["", "\n", "\r\n"] {
        machine.put("new", format!("{key}{end}"), 0o600);
        let config = load(Some(&file), &machine.env).expect("the file is sound");
        let requesters: Vec<_> = config.identities.iter().map(|identity| &identity.access.requester).collect();
        assert_eq!(requesters, [&Requester::Query, &signed(&key, Some(&"o".repeat(4096)))]);
    }
    let place = "~/wp.ini:6: [access b] sign_key_file:";
    let short = "the key is too short; allowed: one line of at least 32 bytes, as openssl rand -hex 32 makes it";
    let refused: [(&[u8], u32, &str); 6] = [
        (
            key.as_bytes(),
            0o644,
            "everybody may read the file with this secret (mode 0644); allowed: 0600, or 0640 with the group of \
             the web server",
        ),
        (&key.as_bytes()[1..], 0o600, short),
        (b"0123456789012345678901234567890\n", 0o600, short),
        (b"", 0o600, "the file is empty; allowed: one line of text"),
        (
            &[key.as_bytes(), b"\n\n"].concat(),
            0o600,
            "the file holds more than one line, or control characters; allowed: one line of text",
        ),
        (&[0xff; 32], 0o600, "is not UTF-8"),
    ];
    for (content, mode, why) in refused {
        machine.put("new", content, mode);
        assert_eq!(machine.found(Some(&file)), format!("{place} {why}"));
    }
    fs::remove_file(machine.at("new")).expect("it is there");
    fs::remove_file(machine.at("old")).expect("it is there");
    let old = "~/wp.ini:7: [access b] sign_key_file_old:";
    assert_eq!(machine.found(Some(&file)), format!("{place} there is no such file\n{old} there is no such file"));
}

#[test]
fn mistakes_in_text_and_files_are_told_together() {
    let machine = Machine::new();
    machine.put("pw", "pw", 0o604);
    machine.put("icons", "", 0o600);
    let text = "[xmpp]\njid = presence.example.com\npassword_file = pw\ntimout = 5\nca_file = missing.pem\n\
                [xmpp b]\njid = b.example\npassword = x\n[cash]\n[images]\ndirectory = icons\n[log]\nlevel = loud\n";
    let file = machine.put("wp.ini", text, 0o644);
    let expected = "\
~/wp.ini:3: [xmpp] password_file: everybody may read the file with this secret (mode 0604); allowed: 0600, or 0640 \
with the group of the web server
~/wp.ini:4: [xmpp] timout: unknown key, perhaps timeout; allowed: jid, password, password_file, host, port, security, \
tls, ca_file, cert, key, verify, timeout, linger, server, resource, visible, accept_subscriptions
~/wp.ini:5: [xmpp] ca_file: there is no such file
~/wp.ini:8: [xmpp b] password: everybody may read the file with this secret (mode 0644); allowed: 0600, or 0640 with \
the group of the web server
~/wp.ini:9: [cash]: unknown section; allowed: xmpp, access, viewers, privacy, cache, web, images, text, limits, log
~/wp.ini:11: [images] directory: is not a directory
~/wp.ini:13: [log] level: is not one of the words for it; allowed: error, warn, info, debug, trace, off";
    assert_eq!(machine.found(Some(&file)), expected);
}

#[test]
fn files_that_are_named_must_be_there() {
    let machine = Machine::new();
    machine.put("ca.pem", "", 0o644);
    machine.put("icons/away.png", "", 0o644);
    let check = |lines: &str, expected: &str| {
        let file = machine.put("wp.ini", format!("{SOUND}{lines}"), 0o600);
        assert_eq!(machine.found(Some(&file)), expected, "{lines}");
    };
    check("ca_file = ca.pem\n[images]\ndirectory = icons", "~/wp.ini");
    check("ca_file = icons", "~/wp.ini:4: [xmpp] ca_file: is not a regular file");
    check("[images]\ndirectory = icons/none", "~/wp.ini:5: [images] directory: there is no such file");
}

/// The key of a certificate is as secret as a password.
#[test]
fn a_certificate_has_a_key_of_its_own() {
    let machine = Machine::new();
    machine.put("own.pem", "", 0o644);
    let text = "[xmpp]\njid = bot@example.com\ncert = own.pem\nkey = own.key\n";
    let file = machine.put("wp.ini", text, 0o644);
    assert_eq!(machine.found(Some(&file)), "~/wp.ini:4: [xmpp] key: there is no such file");
    machine.put("own.key", "", 0o644);
    let expected = "~/wp.ini:4: [xmpp] key: everybody may read the file with this secret (mode 0644); allowed: 0600, or \
                    0640 with the group of the web server";
    assert_eq!(machine.found(Some(&file)), expected);
    machine.put("own.key", "", 0o640);
    assert_eq!(machine.found(Some(&file)), "~/wp.ini");
}

#[test]
fn the_cache_follows_the_machine() {
    let mut machine = Machine::new();
    let file = machine.put("wp.ini", SOUND, 0o600);
    let mut check = |state: Option<&str>, var_lib: &str, uid: u32, home: Option<&str>, expected: Option<&str>| {
        machine.env.state_directory = state.map(PathBuf::from);
        machine.env.home = home.map(PathBuf::from);
        machine.env = Environment { var_lib: var_lib.into(), uid, ..machine.env.clone() };
        let config = load(Some(&file), &machine.env).expect("the file is sound");
        assert_eq!(config.cache.directory, expected.map(PathBuf::from), "{state:?} {var_lib} {uid} {home:?}");
    };
    // The root folder is there on every machine.
    let owner = fs::metadata("/").expect("it is there").uid();
    let other = owner + 1;
    check(Some("/srv/state"), "/", owner, Some("/home/a"), Some("/srv/state"));
    check(None, "/", owner, Some("/home/a"), Some("/"));
    check(None, "/", other, Some("/home/a"), Some("/home/a/.cache/webpresence"));
    check(None, "/no/such/folder", owner, Some("/home/a"), Some("/home/a/.cache/webpresence"));
    check(None, "/", other, None, None);
    check(Some("/tmp/state"), "/", other, Some("/dev/shm/a"), None);

    let configured = machine.put("wp.ini", format!("{SOUND}[cache]\ndirectory = /srv/own\n"), 0o600);
    machine.env.state_directory = Some("/srv/state".into());
    let config = load(Some(&configured), &machine.env).expect("the file is sound");
    assert_eq!(config.cache.directory, Some(PathBuf::from("/srv/own")));
}

#[test]
fn no_link_leads_the_cache_into_a_temporary_folder() {
    // Below the build's own folder, since the link itself must not lie in a temporary one.
    let outside = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let link = outside.path().join("link");
    symlink("/tmp", &link).expect("a link");
    let machine = Machine::new();
    let text = format!("{SOUND}[cache]\ndirectory = {}/cache\n", link.display());
    let file = machine.put("wp.ini", text, 0o600);
    let expected = "~/wp.ini:5: [cache] directory: is in a folder for temporary files, where anybody may write; \
     allowed: \
                    a directory of its own outside /tmp, /var/tmp and /dev/shm";
    assert_eq!(machine.found(Some(&file)), expected);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

#[test]
fn the_folder_is_made_for_us_alone() {
    let machine = Machine::new();
    let path = machine.at("home/.cache/webpresence");
    assert_eq!(open(Some(&path), machine.env.uid), Ok(path.clone()));
    assert_eq!((mode(&path), mode(&machine.at("home/.cache"))), (0o700, 0o700));
    assert_eq!(open(Some(&path), machine.env.uid), Ok(path));
}

#[test]
fn a_folder_others_can_read_is_closed() {
    let machine = Machine::new();
    let dir = machine.at("dir");
    fs::create_dir(&dir).expect("a folder");
    for readable in [0o755, 0o750, 0o701, 0o744] {
        fs::set_permissions(&dir, Permissions::from_mode(readable)).expect("its mode");
        assert_eq!(open(Some(&dir), machine.env.uid), Ok(dir.clone()));
        assert_eq!(mode(&dir), 0o700);
    }
    // systemd opens it again at each start, whatever is in it. But root may have named /var/lib.
    machine.put("dir/ours", "", 0o600);
    let people = machine.at("dir/p.example.com.people");
    fs::create_dir(&people).expect("a folder");
    fs::set_permissions(&people, Permissions::from_mode(0o700)).expect("its mode");
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).expect("its mode");
    assert_eq!(open(Some(&dir), machine.env.uid), Ok(dir.clone()));
    assert_eq!(mode(&dir), 0o700);
    for (people_mode, other) in [(0o701, None), (0o700, Some("dir/folder"))] {
        fs::set_permissions(&people, Permissions::from_mode(people_mode)).expect("its mode");
        let other = other.map(|other| machine.at(other));
        other.iter().for_each(|other| fs::create_dir(other).expect("a folder"));
        other.iter().for_each(|other| fs::set_permissions(other, Permissions::from_mode(0o700)).expect("its mode"));
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).expect("its mode");
        let refused = Unusable::Because(dir.clone(), Why::InUse { mode: 0o755 });
        assert_eq!(open(Some(&dir), machine.env.uid), Err(refused), "{people_mode:o} {other:?}");
        other.iter().for_each(|other| fs::remove_dir(other).expect("ours"));
    }
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).expect("its mode");
    machine.put("dir/file", "", 0o644);
    assert_eq!(open(Some(&dir), machine.env.uid), Ok(dir.clone()), "it is closed already");
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).expect("its mode");
    let refused = Unusable::Because(dir.clone(), Why::InUse { mode: 0o755 });
    assert_eq!(open(Some(&dir), machine.env.uid), Err(refused));
    assert_eq!(mode(&dir), 0o755);
}

#[test]
fn a_folder_that_is_not_ours_alone_is_refused() {
    let machine = Machine::new();
    let (uid, dir) = (machine.env.uid, machine.at("dir"));
    let refused = |path: &Path, uid: u32| open(Some(path), uid).expect_err("it is refused");
    fs::create_dir(&dir).expect("a folder");
    for mode in [0o770, 0o720, 0o702, 0o1777] {
        fs::set_permissions(&dir, Permissions::from_mode(mode)).expect("its mode");
        assert_eq!(refused(&dir, uid), Unusable::Because(dir.clone(), Why::Writable { mode }));
    }
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).expect("its mode");
    assert_eq!(refused(&dir, uid + 1), Unusable::Because(dir.clone(), Why::Foreign { owner: uid, uid: uid + 1 }));
    let link = machine.at("link");
    symlink(&dir, &link).expect("a link");
    assert_eq!(refused(&link.join(""), uid), Unusable::Because(link.clone(), Why::NotADirectory), "behind a slash");
    assert_eq!(refused(&link, uid), Unusable::Because(link, Why::NotADirectory));
    let file = machine.put("file", "", 0o600);
    assert_eq!(refused(&file, uid), Unusable::Because(file.clone(), Why::NotMade(std::io::ErrorKind::AlreadyExists)));
    let below = file.join("x");
    assert_eq!(refused(&below, uid), Unusable::Because(below, Why::NotMade(std::io::ErrorKind::NotADirectory)));
}

#[test]
fn refusals_are_one_line_for_the_log() {
    let because = |why| Unusable::Because("/srv/x".into(), why).to_string();
    assert_eq!(Unusable::Nowhere.to_string(), "no directory for the cache belongs to this user");
    assert_eq!(open(None, 0), Err(Unusable::Nowhere));
    assert_eq!(because(Why::Writable { mode: 0o777 }), "others may write in /srv/x (mode 0777)");
    assert_eq!(because(Why::Foreign { owner: 0, uid: 33 }), "/srv/x belongs to user 0, not to user 33");
    assert_eq!(because(Why::NotADirectory), "/srv/x is not a directory (links are not followed)");
    let denied = std::io::ErrorKind::PermissionDenied;
    assert_eq!(because(Why::NotMade(denied)), "/srv/x cannot be made: permission denied");
    assert_eq!(because(Why::Failed(denied)), "/srv/x cannot be used: permission denied");
}
