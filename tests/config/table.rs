//! Every row of the table of keys, on both sides of what it allows, and the texts that are made from it.

use std::path::Path;

use webpresence::config::keys::{Absent, KEYS, Key, Kind, Section};
use webpresence::config::{self, Config, Errors, Fault, Problem};

/// The identities of which at least one suits each value of `[xmpp]`.
const IDENTITIES: [&str; 3] =
    ["jid = presence.example.com\n", "jid = bot@example.com\nhost = 127.0.0.1\n", "jid = bot@example.com\n"];

/// A configuration where the key has this value and the identity is otherwise complete.
fn with(key: &Key, value: &str, identity: &str) -> String {
    let given = |name: &str| key.section == Section::Xmpp && key.name == name;
    let identity: String = identity
        .lines()
        .filter(|line| !given(&line[..line.find(' ').unwrap_or(0)]))
        .fold(String::new(), |text, line| text + line + "\n");
    let password = if given("password") || given("password_file") { "" } else { "password = secret\n" };
    // One of the two means nothing without the other.
    let partner = match (key.name, value) {
        ("cert", _) => "key = own.key\n",
        ("key", _) => "cert = own.pem\n",
        ("requester_domain", _) => "requester = remote-user\n",
        ("requester", "signed") => "sign_key_file = k\n",
        ("sign_key_file", _) => "requester = signed\n",
        ("sign_key_file_old", _) => "requester = signed\nsign_key_file = k\n",
        _ => "",
    };
    let header = if key.section == Section::Xmpp { String::new() } else { format!("[{}]\n", key.section.name()) };
    format!("[xmpp]\n{identity}{password}{header}{partner}{} = {value}\n", key.sample_left())
}

fn parse(text: &str) -> Result<Config, Errors> {
    config::parse(text, Path::new("/etc/wp.ini"))
}

/// A file with a secret is refused by nothing but the fact that it was not read, and what may be left out of a build by
/// nothing but that.
fn is_accepted(key: &Key, value: &str) -> bool {
    IDENTITIES.iter().any(|identity| match parse(&with(key, value, identity)) {
        Ok(_) => true,
        Err(errors) => errors.problems().iter().all(|problem| match &problem.fault {
            Fault::NeedsFile => key.name == "password_file" || is_about_signing(key, value),
            Fault::Value { why, .. } => {
                ["tls", "url"].contains(&key.name) && why.starts_with("is not in this build of webpresence")
            }
            _ => false,
        }),
    })
}

fn is_about_signing(key: &Key, value: &str) -> bool {
    key.name.starts_with("sign_key_file") || value == "signed"
}

const ORIGINS: [&str; 3] =
    ["https://a.example", "HTTP://A.example:8080,https://[::1]:443 http://192.0.2.1", "http://bücher.example"];

const NO_ORIGINS: [&str; 19] = [
    "a.example",
    "ftp://a.example",
    "https:a.example",
    "https:\\\\a.example",
    "https://",
    "https://:443",
    "https://a.example/",
    "https://a.example/b",
    "https://a.example?b",
    "https://a.example#b",
    "https://u@a.example",
    "https://a.example:",
    "https://a.example:65536",
    "https://*.a.example",
    "https://a%2eexample",
    "https://a_b..example",
    "null",
    "*",
    ",",
];

/// Values on the inner and on the outer side of what a kind allows.
fn sides(kind: &Kind) -> (Vec<String>, Vec<String>) {
    let own = |values: &[&str]| values.iter().map(|value| value.to_string()).collect::<Vec<_>>();
    let numbers = |min: u64, max: u64| {
        let mut wrong = own(&["x", "-1", "+5", "5s", "5.0", "0x5", "5 5", "99999999999999999999999"]);
        wrong.push((max + 1).to_string());
        wrong.extend(min.checked_sub(1).map(|n| n.to_string()));
        (vec![min.to_string(), max.to_string(), format!("0{max}")], wrong)
    };
    match kind {
        Kind::Jid => (
            own(&["presence.example.com", "a@example.com", "a@[::1]", "bücher.example.com", "A_b.example.com"]),
            own(&["@a.example", "a@", "a@b@c", "a@b/c", "a.example/", "a b@c", "a..b", "\"a.example\"", "*.a.example"]),
        ),
        Kind::Secret => (own(&["x", "a #b;c"]), vec![]),
        Kind::File => (own(&["x", "/x/y"]), vec![]),
        Kind::Folder => (own(&["/x/y"]), vec![]),
        Kind::Host => (own(&["localhost", "127.0.0.1", "::1", "[::1]", "unix:/x"]), own(&["a:1", "unix:x", "a b"])),
        Kind::Hosts => (own(&["a.example", "a.example, [::1] 192.0.2.1"]), own(&[",", "a.example:80", "*.a.example"])),
        Kind::Domains => (
            own(&["a.example", "*.a.example,a.example", "a.example b.example"]),
            own(&["*.a.example", ",", "a@b.example", "b.example/c", "a*.example b.example", "*", "*. b.example"]),
        ),
        Kind::Domain => (
            own(&["a.example", "A.example", "bücher.example", "[::1]"]),
            own(&["a@b.example", "*.a.example", "a.example b.example", "a.example/b", ","]),
        ),
        Kind::Patterns => (
            own(&["a@b.example", "*@b.example,*@*.b.example", "b.example *.b.example"]),
            own(&["*", "*@*", "a*@b.example", ",", "a@b.example *", "a@b.example/c"]),
        ),
        Kind::Viewers | Kind::Members => (
            own(&["a@b.example", "*@b.example, *@*.b.example c@b.example"]),
            own(&["*", "a", "b.example", "*.b.example", ",", "@team", "a@b.example, @team"]),
        ),
        Kind::Changes => (
            own(&["show_text:no", "show_priority:yes,show_since:yes show_avatar:no, coarse:yes"]),
            own(&["no", "show_text", "show_text:", "show_text: no", "show_name:no", "coarse:no coarse:no", ","]),
        ),
        Kind::Origins => (own(&ORIGINS), own(&NO_ORIGINS)),
        Kind::Choice(words) => {
            let mut wrong = own(&["x", "default2"]);
            wrong.extend(words.iter().map(|word| word.to_uppercase()));
            wrong.extend(words.iter().map(|word| format!("\"{word}\"")));
            (own(words), wrong)
        }
        Kind::YesNo => (own(&["yes", "no"]), own(&["true", "1", "on", "Yes", "no, never"])),
        Kind::Number { min, max, .. } => numbers(*min, *max),
        Kind::NumberOr { word, min, max, .. } => {
            let (mut right, mut wrong) = numbers(*min, *max);
            right.push((*word).to_owned());
            wrong.push(word.to_uppercase());
            (right, wrong)
        }
        Kind::Word => (vec!["x".into(), "ä".repeat(200)], vec!["ä".repeat(201), "a\tb".into()]),
        Kind::LogTarget => (own(&["stderr", "syslog", "/x/y"]), own(&["x", "STDERR", "x/y", "/x/", "/"])),
        Kind::Redis => (
            own(&["redis://a", "valkey://u:p@a:1/255", "unix:/a?pass=p", "redis+cluster://a", "redis://a,redis://b"]),
            own(&[
                "a",
                "http://a",
                "redis://",
                "redis://a/256",
                "redis://a:65536",
                "unix:a",
                "redis://a/1 redis://b",
                ",",
            ]),
        ),
    }
}

#[test]
fn every_key_knows_both_sides_of_its_range() {
    for key in KEYS {
        let (right, mut wrong) = sides(&key.kind);
        for value in right {
            assert!(is_accepted(key, &value), "[{}] {} = {value}", key.section.name(), key.name);
        }
        wrong.push(String::new());
        for value in wrong {
            let text = with(key, &value, IDENTITIES[1]);
            let Err(errors) = parse(&text) else { panic!("{text}\nis accepted") };
            let line = text.lines().count();
            let told: Vec<_> = errors.problems().iter().filter(|problem| problem.fault != Fault::NeedsFile).collect();
            let [Problem { line: Some(l), section, key: name, fault, .. }] = told[..] else {
                panic!("{text}\n{errors}")
            };
            let place = (line, key.section.name(), key.sample_left());
            assert_eq!((*l, section.as_str(), name.as_str()), place, "{text}\n{errors}");
            let told = match fault {
                Fault::Empty { allowed } | Fault::Value { allowed, .. } => allowed,
                fault => panic!("{text}\n{fault:?}"),
            };
            assert_eq!(*told, key.kind.to_string());
        }
    }
}

#[test]
fn the_cache_is_never_in_a_temporary_folder() {
    for path in ["/tmp", "/tmp/x", "/var/tmp/x", "/dev/shm/x", "/srv/../tmp/x"] {
        let text = super::component(&format!("[cache]\ndirectory = {path}"));
        let expected = "F:5: [cache] directory: is in a folder for temporary files, where anybody may write; \
         allowed: a \
                        directory of its own outside /tmp, /var/tmp and /dev/shm";
        assert_eq!(super::refuse(&text), expected, "{path}");
    }
}

#[test]
fn each_word_has_a_meaning_of_its_own() {
    for key in KEYS {
        let Kind::Choice(words) = key.kind else { continue };
        let read = |word: &&str| IDENTITIES.iter().find_map(|identity| parse(&with(key, word, identity)).ok());
        let mut seen: Vec<String> = words.iter().map(|word| format!("{:?}", read(word))).collect();
        // Which identity suited differs for no key but this one, and there the words differ, too.
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), words.len(), "{}", key.name);
    }
}

#[test]
fn keys_are_told_apart() {
    for (i, key) in KEYS.iter().enumerate() {
        assert!(KEYS[..i].iter().all(|other| (other.section, other.name) != (key.section, key.name)), "{}", key.name);
        assert!(key.meaning.ends_with('.') && !key.meaning.contains(['|', '\n']), "{}", key.meaning);
    }
}

#[test]
fn what_is_written_about_defaults_is_true() {
    for key in KEYS {
        let (Absent::Required(sample) | Absent::Value(sample) | Absent::Otherwise { sample, .. }) = key.absent;
        assert!(is_accepted(key, sample), "{} = {sample}", key.name);
        if let Absent::Value(default) = key.absent {
            let (without, with) = (parse(&super::component("")), parse(&with(key, default, IDENTITIES[0])));
            assert_eq!(format!("{without:?}"), format!("{with:?}"), "{} = {default}", key.name);
        }
    }
}

#[test]
fn the_reference_has_a_row_for_every_key() {
    let reference = config::reference();
    assert!(reference.starts_with("### `[xmpp]`\n\n"));
    let rows: Vec<_> = reference.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows.len(), KEYS.len());
    for (row, key) in rows.iter().zip(KEYS) {
        let cells: Vec<_> = row.split(" | ").collect();
        assert_eq!(cells.len(), 4, "{row}");
        assert_eq!(cells[0], format!("| `{}`", key.name));
    }
    let timeout = "| `timeout` | 1 to 60 seconds | `5` | How long a visitor waits for an answer at most, whatever \
     the \
                   XMPP server does. |";
    let verify = "| `verify` | `yes`, `no` | `yes` | Whether the server's certificate is checked. Without the check \
                  anybody on the way can read the password. |";
    assert!(rows.contains(&timeout) && rows.contains(&verify), "{reference}");
}

#[test]
fn the_example_is_a_configuration() {
    let example = config::example();
    let config = parse(&example).unwrap_or_else(|e| panic!("{e}\n{example}"));
    assert_eq!(config.identities[0].jid.as_str(), "presence.example.com");
    let bare = parse("[xmpp]\njid = presence.example.com\npassword = change me\n");
    assert_eq!(format!("{:?}", Ok::<_, Errors>(config)), format!("{bare:?}"));

    let live: Vec<_> = example.lines().filter(|line| !line.is_empty() && !line.starts_with([';', '['])).collect();
    assert_eq!(live, ["jid = presence.example.com", "password = change me"]);
    for key in KEYS {
        if matches!(key.absent, Absent::Required(_)) {
            continue;
        }
        let (header, commented) = (format!("\n[{}]\n", key.section.name()), format!("\n; {} = ", key.sample_left()));
        let (front, section) = example.split_once(&header).expect("every section is shown");
        let (before, after) = section.split_once(&commented).expect("every key is shown");
        let text = format!("{front}{header}{before}\n{} = {after}", key.sample_left());
        let errors = parse(&text).err().map(|errors| errors.to_string()).unwrap_or_default();
        let no_redis = format!(
            "[cache] url: is not in this build of webpresence, which has not the feature redis; allowed: {}",
            Kind::Redis
        );
        let password = "[xmpp] password_file: stands beside password; allowed: one of the two";
        let expected = match key.name {
            "password_file" => password,
            "cert" => "[xmpp] key: is missing; allowed: the private key of cert",
            "key" => "[xmpp] cert: is missing; allowed: the certificate of key",
            "requester_domain" => {
                "[access] requester_domain: means nothing here; allowed: requester = remote-user beside it"
            }
            "sign_key_file" => "[access] sign_key_file: means nothing here; allowed: requester = signed beside it",
            "sign_key_file_old" => {
                "[access] sign_key_file_old: means nothing here; allowed: requester = signed beside it"
            }
            "url" if !cfg!(feature = "redis") => no_redis.as_str(),
            _ => "",
        };
        assert!(errors.is_empty() && expected.is_empty() || errors.ends_with(expected), "{errors}\n{text}");
    }
}
