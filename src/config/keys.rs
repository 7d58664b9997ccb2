//! The one table of what may stand in `webpresence.ini`: section, key, kind of value, what applies without it, and
//! what it means. The parser reads ranges and defaults from here, error messages their allowed values, and the
//! reference its rows, so that none of them can disagree. Adding a key is adding a row, and a line where it is read.

use std::fmt;

use super::TlsLibrary;
use Absent::{Otherwise, Required, Value};
use Section::{Access, Cache, Images, Limits, Log, Privacy, Text, Viewers, Web, Xmpp};

/// Every key there is, in the order of the reference.
pub const KEYS: &[Key] = &[
    row(
        Xmpp,
        "jid",
        Kind::Jid,
        Required("presence.example.com"),
        "The address that asks. A domain connects as an external component (XEP-0114), user@domain logs in as an \
         ordinary account.",
    ),
    row(
        Xmpp,
        "password",
        Kind::Secret,
        Required("change me"),
        "The component's secret or the account's password, exactly as it stands up to the end of the line: quotes, \
         # and ; belong to it. With it in this file, only its owner and group may be allowed to read the file. It \
         goes without where password_file is there, and for an account that has cert and key.",
    ),
    row(
        Xmpp,
        "password_file",
        Kind::File,
        Otherwise { says: "none", sample: "password" },
        "Instead of password: a file that holds nothing but it. One line end at its end is not part of it.",
    ),
    row(
        Xmpp,
        "host",
        Kind::Host,
        Otherwise { says: "127.0.0.1 for a component, DNS for an account", sample: "127.0.0.1" },
        "Where the XMPP server is. Without it an account's server is found by DNS SRV (RFC 6120, XEP-0368), then by \
         the domain itself. A Unix socket is for components only, and has no TLS.",
    ),
    row(
        Xmpp,
        "port",
        Kind::Number { min: 1, max: 65_535, unit: "" },
        Otherwise { says: "5347 for a component, DNS or 5222 (direct: 5223) for an account", sample: "5347" },
        "The TCP port there.",
    ),
    row(
        Xmpp,
        "security",
        Kind::Choice(&["starttls", "direct", "none"]),
        Otherwise {
            says: "none for a component on this machine; for an account starttls or direct, as DNS says, and \
                   starttls where host or port is there",
            sample: "direct",
        },
        "How the connection is encrypted: direct is TLS from the first byte. An account goes without only to this \
         machine. A component has no starttls; one that connects to another machine must say direct or, on purpose, \
         none.",
    ),
    row(
        Xmpp,
        "tls",
        Kind::Choice(&["rustls", "native"]),
        Otherwise { says: "rustls where it is built in, else native", sample: TlsLibrary::ALL[0].word() },
        "The TLS library: native is the system's own (OpenSSL here), for executables that were built with it.",
    ),
    row(
        Xmpp,
        "ca_file",
        Kind::File,
        Otherwise { says: "the certificates the system trusts", sample: "ca.pem" },
        "Certificates (PEM) to trust instead of the system's: of authorities, or the server's own.",
    ),
    row(
        Xmpp,
        "cert",
        Kind::File,
        Otherwise { says: "none", sample: "client.pem" },
        "An account's own certificate (PEM, with the chain behind it), shown to the server to log in by SASL EXTERNAL. \
         It needs key.",
    ),
    row(
        Xmpp,
        "key",
        Kind::File,
        Otherwise { says: "none", sample: "client.key" },
        "The private key of cert (PEM, PKCS#8), which only its owner and group may be allowed to read.",
    ),
    row(
        Xmpp,
        "verify",
        Kind::YesNo,
        Value("yes"),
        "Whether the server's certificate is checked. Without the check anybody on the way can read the password.",
    ),
    row(
        Xmpp,
        "timeout",
        Kind::Number { min: 1, max: 60, unit: " seconds" },
        Value("5"),
        "How long a visitor waits for an answer at most, whatever the XMPP server does.",
    ),
    row(
        Xmpp,
        "linger",
        Kind::NumberOr { word: "always", min: 0, max: 86_400, unit: " seconds" },
        Otherwise { says: "90, or ttl + refresh + 50 where that is more", sample: "90" },
        "How long the XMPP session stays open after the last question: 0, or longer than ttl + refresh of [cache]. \
         always is for components.",
    ),
    row(
        Xmpp,
        "server",
        Kind::Choice(&["auto", "prosody", "ejabberd", "openfire", "other"]),
        Value("auto"),
        "The server's software, since what its silence means differs. auto asks it, once a day.",
    ),
    row(
        Xmpp,
        "resource",
        Kind::Choice(&["most-available", "highest-priority"]),
        Value("most-available"),
        "Which of several clients speaks for a person.",
    ),
    row(
        Xmpp,
        "visible",
        Kind::YesNo,
        Value("no"),
        "For somebody's own account: whether it may show itself to its contacts as one more client, where the server \
         tells it about its other clients no other way.",
    ),
    row(
        Xmpp,
        "accept_subscriptions",
        Kind::YesNo,
        Otherwise { says: "yes for a component, no for an account", sample: "yes" },
        "Whether people of the [access] domains who add this identity to their contacts are let in and asked back: so \
         they agree to be shown. An account is to serve nothing else then: it takes its messages, and comes online \
         for a moment at most every five minutes to see who has asked.",
    ),
    row(
        Access,
        "visibility",
        Kind::Choice(&["subscribers", "anyone"]),
        Value("subscribers"),
        "Who may see people who have agreed: anyone is every visitor. subscribers is who is in the person's roster with \
         a subscription to him. The roster is read where the server grants that (XEP-0356), and is the identity's own \
         where the person is the identity itself; where there is neither, [viewers] says who may.",
    ),
    row(
        Access,
        "requester",
        Kind::Choice(&["query", "remote-user", "signed"]),
        Value("query"),
        "How it is known who asks. query believes req_jid, as the original does: a claim that anybody can make. \
         remote-user believes the web server's own login, where the snippet with a login is included; a TCP listener \
         is refused then, since whoever reaches it could send any name. signed believes the links that webpresence \
         sign makes.",
    ),
    row(
        Access,
        "requester_domain",
        Kind::Domain,
        Otherwise { says: "the first plain name of domains", sample: "example.com" },
        "With requester = remote-user: the domain that completes a bare login name. A login name that has a domain \
         counts only with this one.",
    ),
    row(
        Access,
        "domains",
        Kind::Domains,
        Otherwise {
            says: "an account's own domain, or what follows the first dot of a component's, and everything below",
            sample: "example.com, *.example.com",
        },
        "Whose presence may be asked for: names, and *.name for everything below one. The first plain name is home.",
    ),
    row(
        Access,
        "allow",
        Kind::Patterns,
        Otherwise { says: "everybody of the domains", sample: "*@example.com" },
        "Who of the domains may be asked for.",
    ),
    row(
        Access,
        "deny",
        Kind::Patterns,
        Otherwise { says: "nobody", sample: "ceo@example.com" },
        "Who may not be asked for, whatever allow says.",
    ),
    row(
        Access,
        "unknown_per_minute",
        Kind::Number { min: 0, max: 1_000_000, unit: "" },
        Value("60"),
        "How many different people a client may ask for in a minute who are not known to be visible to it, so that \
         guessing addresses is useless. A client is an IPv4 address, or an IPv6 network of 64 bits. Over it the answer \
         is unknown. 0 is no limit.",
    ),
    row(
        Access,
        "unknown_per_minute_all",
        Kind::Number { min: 0, max: 1_000_000, unit: "" },
        Value("600"),
        "The same for all clients together. 0 is no limit.",
    ),
    row(
        Access,
        "referers",
        Kind::Hosts,
        Otherwise { says: "any", sample: "www.example.com" },
        "The hosts whose pages may show an answer, against hot-linking: on others it is forbidden. Each name counts as \
         it stands; the host that is asked may in any case, and so may browsers that do not name the page.",
    ),
    row(
        Access,
        "cors",
        Kind::Origins,
        Otherwise {
            says: "any where visibility = anyone and no login is involved, else none",
            sample: "https://www.example.com",
        },
        "The origins whose scripts may read every answer. With requester = remote-user pages of no other site but these are answered.",
    ),
    row(
        Access,
        "sign_key_file",
        Kind::File,
        Otherwise { says: "none", sample: "sign.key" },
        "With requester = signed: a file that holds nothing but the key of signed links, one line of at least 32 bytes \
         (openssl rand -hex 32), which only its owner and group may be allowed to read. One line end at its end is not \
         part of it.",
    ),
    row(
        Access,
        "sign_key_file_old",
        Kind::File,
        Otherwise { says: "none", sample: "sign.old.key" },
        "The key before that one, whose links still count. Nothing is signed with it.",
    ),
    row(
        Access,
        "sign_days",
        Kind::Number { min: 1, max: 3650, unit: " days" },
        Value("365"),
        "The longest life of a signed link.",
    ),
    row(
        Viewers,
        "PATTERN",
        Kind::Viewers,
        Otherwise { says: "nobody", sample: "bob@example.com, *@corp.example.com" },
        "Who may see the people on the left. All lines that fit somebody count.",
    ),
    row(
        Viewers,
        "@GROUP",
        Kind::Members,
        Otherwise { says: "no groups", sample: "carol@example.com, dave@example.com" },
        "A name for several viewers, which stands on the right like a pattern. This line may come before or after; a group \
         holds no other group.",
    ),
    row(
        Privacy,
        "show_text",
        Kind::YesNo,
        Value("yes"),
        "Whether the status text is told that somebody has written. Without it everybody has the word of his state.",
    ),
    row(Privacy, "show_priority", Kind::YesNo, Value("yes"), "Whether type=xml and type=json tell the priority."),
    row(
        Privacy,
        "show_since",
        Kind::YesNo,
        Value("no"),
        "Whether type=json says since when somebody is idle, as he is, or gone.",
    ),
    row(
        Privacy,
        "show_avatar",
        Kind::YesNo,
        Value("yes"),
        "Whether type=avatar shows the picture that somebody has published. Without it everybody has the icon of his \
         state.",
    ),
    row(
        Privacy,
        "coarse",
        Kind::YesNo,
        Value("no"),
        "Whether only this is told: somebody is there, or not. Nothing of away, busy or free for chat.",
    ),
    row(
        Privacy,
        "PATTERN",
        Kind::Changes,
        Otherwise { says: "as above", sample: "show_text:no, coarse:yes" },
        "What differs for those on the left. Where several lines fit somebody, a later one wins.",
    ),
    row(
        Cache,
        "ttl",
        Kind::Number { min: 1, max: 86_400, unit: " seconds" },
        Value("30"),
        "How long an answer counts as fresh.",
    ),
    row(
        Cache,
        "refresh",
        Kind::Number { min: 0, max: 86_400, unit: " seconds" },
        Value("10"),
        "How much longer it is still told while a new one is fetched.",
    ),
    row(
        Cache,
        "stale",
        Kind::Number { min: 0, max: 604_800, unit: " seconds" },
        Value("300"),
        "How old an answer may be while the XMPP server cannot be asked.",
    ),
    row(
        Cache,
        "entries",
        Kind::Number { min: 10, max: 10_000_000, unit: "" },
        Value("10000"),
        "How many people are remembered for each identity, in memory and in the directory. Refusals have a tenth of that \
         of their own.",
    ),
    row(
        Cache,
        "directory",
        Kind::Folder,
        Otherwise {
            says: "$STATE_DIRECTORY, else /var/lib/webpresence where it is ours, else ~/.cache/webpresence, else \
             memory",
            sample: "/var/lib/webpresence",
        },
        "Where processes share what they know. Made when missing, ours alone (0700), never below /tmp, /var/tmp or \
         /dev/shm.",
    ),
    row(
        Cache,
        "url",
        Kind::Redis,
        Otherwise { says: "each machine for itself", sample: "redis://:password@cache.example.com:6379/0" },
        "Where the machines of one installation share answers and the session: a Redis or Valkey server of their own, or \
         a database of one. It needs a build with the feature redis. While it cannot be reached, each machine goes by \
         its directory. With a password in it, only the owner and group of this file may be allowed to read it.",
    ),
    row(
        Web,
        "workers",
        Kind::Number { min: 1, max: 64, unit: "" },
        Value("1"),
        "How many threads of one process answer. One is enough for some ten thousand answers a second; more are for \
         serve on machines with cores to spare. Read when the process starts.",
    ),
    row(
        Web,
        "connections",
        Kind::Number { min: 1, max: 65_536, unit: "" },
        Value("2048"),
        "How many connections from the web server are served at once; further ones wait. Read when the process starts.",
    ),
    row(
        Images,
        "directory",
        Kind::Folder,
        Otherwise { says: "the built-in pictures", sample: "icons" },
        "A folder with pictures of your own, which win over the built-in ones.",
    ),
    row(Images, "theme", Kind::Choice(THEMES), Value("default"), "The icon set where a page names none."),
    row(
        Images,
        "redirect_hosts",
        Kind::Hosts,
        Otherwise { says: "any", sample: "www.example.com" },
        "The hosts that images and the addresses of single states may redirect to.",
    ),
    word("available", "Available", "The word for somebody who is there."),
    word("chat", "Free for chat", "The word for somebody who would like to talk."),
    word("away", "Away", "The word for somebody who is away."),
    word("xa", "Extended away", "The word for somebody who is away for long."),
    word("dnd", "Do not disturb", "The word for somebody who is busy."),
    word("unavailable", "Unavailable", "The word for somebody who is offline."),
    word("forbidden", "Forbidden", "The word for somebody whose presence is not told."),
    word("unknown", "Unknown", "The word for when the XMPP server cannot be asked."),
    row(
        Limits,
        "lookups",
        Kind::Number { min: 1, max: 65_536, unit: "" },
        Value("1024"),
        "How many questions to XMPP servers a process has open at once. More are answered unknown, or with what was known \
         last.",
    ),
    row(
        Limits,
        "probes_per_second",
        Kind::Number { min: 1, max: 100_000, unit: "" },
        Value("200"),
        "How many people a session asks its server about in a second, after five times as many at once. The rest waits \
         its turn until it is too late. What servers tell by themselves is not asked.",
    ),
    row(
        Log,
        "level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace", "off"]),
        Value("warn"),
        "How much is logged.",
    ),
    row(
        Log,
        "target",
        Kind::LogTarget,
        Value("stderr"),
        "Where it goes: syslog is standard error with the priorities that journald reads.",
    ),
];

/// The icon sets that are built in.
pub const THEMES: &[&str] = &["default"];

/// One key of one section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub section: Section,
    pub name: &'static str,
    pub kind: Kind,
    pub absent: Absent,
    /// One or two sentences for the reference.
    pub meaning: &'static str,
}

impl Key {
    /// True where `key.LANG` is a key, too.
    pub fn takes_language(&self) -> bool {
        self.kind == Kind::Word
    }

    /// Where the admin himself chooses what stands on the left: what is allowed there, and an example.
    pub fn left(&self) -> Option<(&'static str, &'static str)> {
        match self.kind {
            Kind::Viewers => Some(("name@domain, *@domain, *@*.domain", "alice@example.com")),
            Kind::Members => Some(("@group", "@team")),
            Kind::Changes => Some(("name@domain, *@domain, *@*.domain, host.domain, *.domain", "alice@example.com")),
            _ => None,
        }
    }

    /// What may stand on the left, as an error says it.
    pub fn allowed_left(&self) -> &'static str {
        self.left().map_or(self.name, |(allowed, _)| allowed)
    }

    /// What stands on the left in an example.
    pub fn sample_left(&self) -> &'static str {
        self.left().map_or(self.name, |(_, sample)| sample)
    }
}

/// A section of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Section {
    Xmpp,
    Access,
    Viewers,
    Privacy,
    Cache,
    Web,
    Images,
    Text,
    Limits,
    Log,
}

impl Section {
    pub const ALL: [Section; 10] = [Xmpp, Access, Viewers, Privacy, Cache, Web, Images, Text, Limits, Log];

    pub fn name(self) -> &'static str {
        match self {
            Xmpp => "xmpp",
            Access => "access",
            Viewers => "viewers",
            Privacy => "privacy",
            Cache => "cache",
            Web => "web",
            Images => "images",
            Text => "text",
            Limits => "limits",
            Log => "log",
        }
    }

    /// True where `[section NAME]` may stand for a further identity.
    pub fn is_per_identity(self) -> bool {
        matches!(self, Xmpp | Access | Viewers | Privacy)
    }

    /// One sentence for the reference.
    pub fn meaning(self) -> &'static str {
        match self {
            Xmpp => "The identity that asks. A further one is a section `[xmpp NAME]`.",
            Access => "Whose presence is told to whom. `[access NAME]` belongs to `[xmpp NAME]`.",
            Viewers => {
                "Who may see whom where `visibility = subscribers` and no roster can be read. The people on the left are \
                 `name@domain`, `*@domain` or `*@*.domain` (everything below it). `[viewers NAME]` belongs to \
                 `[xmpp NAME]`."
            }
            Privacy => {
                "How much is told, about all and about those who differ: people, written as in `[viewers]`, or hosts, \
                 as `host.domain` or `*.domain`. `[privacy NAME]` belongs to `[xmpp NAME]`."
            }
            Cache => "How old an answer may be, and where answers are kept.",
            Web => "How the web server is served.",
            Images => "Pictures and redirects to pictures.",
            Text => "The words for the states, for all languages; `unavailable.de` is for one.",
            Limits => "How much XMPP servers are asked.",
            Log => "What is written down about the work.",
        }
    }

    pub fn keys(self) -> impl Iterator<Item = &'static Key> {
        KEYS.iter().filter(move |key| key.section == self)
    }
}

/// What a value looks like. Prints as the allowed values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Jid,
    Secret,
    File,
    Folder,
    Host,
    Hosts,
    Domains,
    Domain,
    /// People and hosts.
    Patterns,
    /// People and groups.
    Viewers,
    /// People.
    Members,
    /// Keys of `[privacy]` with what applies instead.
    Changes,
    Origins,
    Choice(&'static [&'static str]),
    YesNo,
    /// A whole number; the unit starts with its space, or is empty.
    Number {
        min: u64,
        max: u64,
        unit: &'static str,
    },
    /// The word, or a whole number.
    NumberOr {
        word: &'static str,
        min: u64,
        max: u64,
        unit: &'static str,
    },
    Word,
    LogTarget,
    Redis,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Jid => f.write_str("a domain (component) or user@domain (account), without a resource"),
            Kind::Secret => f.write_str("any text in one line"),
            Kind::File => f.write_str("the path of a file (a relative one starts at the folder of webpresence.ini)"),
            Kind::Folder => {
                f.write_str("the path of a directory (a relative one starts at the folder of webpresence.ini)")
            }
            Kind::Host => f.write_str("a host name, an IP address, or unix:/PATH"),
            Kind::Hosts => f.write_str("host names or IP addresses, separated by commas or spaces"),
            Kind::Domains => f.write_str("names and *.name, separated by commas or spaces, at least one plain name"),
            Kind::Domain => f.write_str("a domain"),
            Kind::Patterns => f.write_str(
                "name@domain, *@domain, *@*.domain for people, domain, *.domain for hosts, separated by commas or spaces",
            ),
            Kind::Viewers => {
                f.write_str("name@domain, *@domain, *@*.domain, @group, separated by commas or spaces")
            }
            Kind::Members => f.write_str("name@domain, *@domain, *@*.domain, separated by commas or spaces"),
            Kind::Changes => f.write_str(
                "show_text, show_priority, show_since, show_avatar, coarse, each once at most and with :yes or :no, \
                 separated by commas or spaces",
            ),
            Kind::Origins => {
                f.write_str("http:// or https://, a host, perhaps :PORT, and no more; separated by commas or spaces")
            }
            Kind::Choice(words) => f.write_str(&words.join(", ")),
            Kind::YesNo => f.write_str("yes, no"),
            Kind::Number { min, max, unit } => write!(f, "{min} to {max}{unit}"),
            Kind::NumberOr { word, min, max, unit } => write!(f, "{word}, {min} to {max}{unit}"),
            Kind::Word => f.write_str("1 to 200 characters in one line"),
            Kind::LogTarget => f.write_str("stderr, syslog, or the absolute path of a file"),
            Kind::Redis => f.write_str(
                "redis://USER:PASSWORD@HOST:PORT/DATABASE with all but the host left out at will, rediss:// for TLS, \
                 unix:/PATH?db=DATABASE&user=USER&pass=PASSWORD; for a cluster redis+cluster:// or several URLs, \
                 separated by commas or spaces",
            ),
        }
    }
}

/// What applies where a key is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// It must be written; for example so.
    Required(&'static str),
    /// As if this were written.
    Value(&'static str),
    /// What no value can say; and an example of what could be written.
    Otherwise { says: &'static str, sample: &'static str },
}

/// The row of a key, looked up while compiling: a key without a row does not build.
pub(super) const fn key(section: Section, name: &str) -> &'static Key {
    let mut i = 0;
    while i < KEYS.len() {
        if KEYS[i].section as u8 == section as u8 && same(KEYS[i].name.as_bytes(), name.as_bytes()) {
            return &KEYS[i];
        }
        i += 1;
    }
    panic!("the table has no such key");
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

const fn row(section: Section, name: &'static str, kind: Kind, absent: Absent, meaning: &'static str) -> Key {
    Key { section, name, kind, absent, meaning }
}

const fn word(name: &'static str, built_in: &'static str, meaning: &'static str) -> Key {
    row(Text, name, Kind::Word, Otherwise { says: built_in, sample: built_in }, meaning)
}
