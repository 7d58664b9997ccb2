//! The sections `[access]`, `[viewers]` and `[privacy]` of one identity → whom it may show to whom, how they say who
//! they are, and how much they are told; with the rules between their keys.

use std::path::PathBuf;

use jid::BareJid;

use super::keys::{Key, Section, key};
use super::patterns::{self, Groups};
use super::problem::Fault;
use super::reader::{Claimed, Given, Reader, Reported};
use super::sections::{Block, Sections};
use super::values;
use super::{Access, DomainPattern, JidPattern, Privacy, Requester, Secret, Shown, SigningKeys, Visibility};

const SIGN_KEY: &Key = key(Section::Access, "sign_key_file");
const OLD_KEY: &Key = key(Section::Access, "sign_key_file_old");

/// How many viewers all lines of `[viewers]` may have together, each group counted wherever it is named: a file of two
/// long halves would make millions of them.
const VIEWERS: usize = 100_000;

/// The sections, any of them perhaps absent.
pub(super) struct Permission {
    pub access: Block,
    pub viewers: Block,
    pub privacy: Block,
}

impl Permission {
    pub fn take(read: &mut Sections, name: &str) -> Permission {
        Permission {
            access: read.take(Section::Access, name),
            viewers: read.take(Section::Viewers, name),
            privacy: read.take(Section::Privacy, name),
        }
    }
}

impl Reader {
    /// Without the viewers. `jid` is whose access it is, where that is known.
    pub fn access(&mut self, access: &Block, jid: Option<&BareJid>) -> Access {
        let visibility = match self.choice_or_default(access, const { key(Section::Access, "visibility") }) {
            "anyone" => Visibility::Anyone,
            _ => Visibility::Subscribers,
        };
        let domains = self.domains(access, jid);
        let client = self.number_or_default(access, const { key(Section::Access, "unknown_per_minute") });
        let all = self.number_or_default(access, const { key(Section::Access, "unknown_per_minute_all") });
        Access {
            visibility,
            requester: self.requester(access, &domains),
            allow: self.list(access, const { key(Section::Access, "allow") }, patterns::patterns),
            deny: self.list(access, const { key(Section::Access, "deny") }, patterns::patterns),
            viewers: Vec::new(),
            unknown_per_minute: u32::try_from(client).unwrap_or(u32::MAX),
            unknown_per_minute_all: u32::try_from(all).unwrap_or(u32::MAX),
            referers: self.list(access, const { key(Section::Access, "referers") }, values::hosts),
            cors: self.list(access, const { key(Section::Access, "cors") }, values::origins),
            domains,
        }
    }

    fn list<T>(
        &mut self,
        block: &Block,
        key: &'static Key,
        read: impl Fn(&str) -> Result<Vec<T>, &'static str>,
    ) -> Vec<T> {
        self.value(block, key, read).ok().flatten().unwrap_or_default()
    }

    fn domains(&mut self, access: &Block, jid: Option<&BareJid>) -> Vec<DomainPattern> {
        const DOMAINS: &Key = key(Section::Access, "domains");
        match (self.value(access, DOMAINS, values::domains), jid) {
            (Ok(Some(domains)), _) => domains,
            (Ok(None), Some(jid)) => match home_domain(jid) {
                Some(home) => vec![DomainPattern::Exactly(home.to_owned()), DomainPattern::Below(home.to_owned())],
                None => {
                    self.problem(access, DOMAINS, Fault::Missing { allowed: DOMAINS.kind.to_string() });
                    Vec::new()
                }
            },
            (_, _) => Vec::new(),
        }
    }

    /// How somebody says who he is. What belongs to another way is a mistake: it would protect nothing.
    fn requester(&mut self, access: &Block, domains: &[DomainPattern]) -> Requester {
        const DOMAIN: &Key = key(Section::Access, "requester_domain");
        let requester = self.choice(access, const { key(Section::Access, "requester") });
        let domain = self.value(access, DOMAIN, values::domain);
        let days = self.number_or_default(access, const { key(Section::Access, "sign_days") });
        let (current, old) = (self.path(access, SIGN_KEY), self.path(access, OLD_KEY));
        let Ok(requester) = requester else { return Requester::Query };
        if requester != Some("remote-user") {
            self.only_beside(access, DOMAIN, "requester = remote-user");
        }
        if requester != Some("signed") {
            self.only_beside(access, SIGN_KEY, "requester = signed");
            self.only_beside(access, OLD_KEY, "requester = signed");
        }
        match requester {
            Some("remote-user") => {
                let home = || domains.iter().find_map(plain_name).unwrap_or_default();
                Requester::RemoteUser { domain: domain.ok().flatten().unwrap_or_else(home) }
            }
            Some("signed") => self.signed(access, current, old, days),
            _ => Requester::Query,
        }
    }

    fn only_beside(&mut self, block: &Block, key: &Key, what: &str) {
        // What is empty has been reported.
        if block.entry(key).is_some_and(|entry| !entry.value.is_empty()) {
            self.refuse(block, key, "means nothing here", &format!("{what} beside it"));
        }
    }

    /// The keys are empty as long as they are still in their files.
    fn signed(&mut self, access: &Block, current: Given<PathBuf>, old: Given<PathBuf>, days: u64) -> Requester {
        match current {
            Ok(None) => self.problem(access, SIGN_KEY, Fault::Missing { allowed: SIGN_KEY.kind.to_string() }),
            Ok(Some(path)) => self.claim(access, SIGN_KEY, &path, Claimed::SigningKey),
            Err(Reported) => {}
        }
        let old = old.ok().flatten();
        if let Some(path) = &old {
            self.claim(access, OLD_KEY, path, Claimed::OldSigningKey);
        }
        let empty = || Secret::new(String::new());
        let days = u32::try_from(days).unwrap_or(u32::MAX);
        Requester::Signed(SigningKeys { current: empty(), old: old.map(|_| empty()), days })
    }

    /// Who may see whom, with the groups resolved, which may stand anywhere in the section.
    pub fn viewers(&mut self, block: &Block) -> Vec<(JidPattern, Vec<JidPattern>)> {
        const PEOPLE: &Key = key(Section::Viewers, "PATTERN");
        const GROUP: &Key = key(Section::Viewers, "@GROUP");
        let mut groups = Groups::new();
        for entry in block.lines(GROUP) {
            // One whose members are wrong is known all the same, so that its name is no second mistake.
            let members = self.line(block, entry, patterns::members).unwrap_or_default();
            groups.insert(entry.own.to_lowercase(), members);
        }
        let (mut lines, mut count) = (Vec::new(), 0);
        for entry in block.lines(PEOPLE) {
            let Ok(viewers) = self.line(block, entry, |text| patterns::viewers(text, &groups)) else { continue };
            count += viewers.len();
            if count > VIEWERS {
                let allowed = format!("up to {VIEWERS}, or patterns such as *@domain for many at once");
                let fault = Fault::Value { why: "the lines up to here have too many viewers in all", allowed };
                self.report.add(Some(entry.line), &block.header(), &entry.own, fault);
                break;
            }
            let people = patterns::people(&entry.own).expect("only such a left side is read as one of this key");
            lines.push((people, viewers));
        }
        lines
    }

    pub fn privacy(&mut self, privacy: &Block) -> Privacy {
        const DIFFERING: &Key = key(Section::Privacy, "PATTERN");
        let all = Shown {
            text: self.or_default(privacy, const { key(Section::Privacy, "show_text") }, values::yes_no),
            priority: self.or_default(privacy, const { key(Section::Privacy, "show_priority") }, values::yes_no),
            since: self.or_default(privacy, const { key(Section::Privacy, "show_since") }, values::yes_no),
            avatar: self.or_default(privacy, const { key(Section::Privacy, "show_avatar") }, values::yes_no),
            coarse: self.or_default(privacy, const { key(Section::Privacy, "coarse") }, values::yes_no),
        };
        let mut rules = Vec::new();
        for entry in privacy.lines(DIFFERING) {
            if let Ok(changes) = self.line(privacy, entry, patterns::changes) {
                let whom = patterns::pattern(&entry.own).expect("only such a left side is read as one of this key");
                rules.push((whom, changes));
            }
        }
        Privacy { all, rules }
    }
}

fn plain_name(pattern: &DomainPattern) -> Option<String> {
    match pattern {
        DomainPattern::Exactly(name) => Some(name.clone()),
        DomainPattern::Below(_) => None,
    }
}

/// An account's own domain; for a component what follows its first dot, where there is a dot.
fn home_domain(jid: &BareJid) -> Option<&str> {
    let domain = jid.domain().as_str();
    if jid.node().is_some() { Some(domain) } else { domain.split_once('.').map(|(_, rest)| rest) }
}
