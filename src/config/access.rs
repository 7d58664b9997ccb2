//! `[access]` and `[viewers]` as the rest of the house sees them: whom an identity may be used for, who may see him, and
//! how somebody proves who he is.

use jid::BareJid;

use super::{DomainPattern, Secret};

/// Who may see whom.
#[derive(Clone, Debug)]
pub struct Access {
    pub visibility: Visibility,
    pub requester: Requester,
    /// Whose presence may be asked for; the first plain name is the home domain.
    pub domains: Vec<DomainPattern>,
    /// Only these of them, where there are any.
    pub allow: Vec<JidPattern>,
    /// None of these.
    pub deny: Vec<JidPattern>,
    /// For servers that give nobody the roster: people, and who may see them.
    pub viewers: Vec<(JidPattern, Vec<JidPattern>)>,
    /// How many people that are not known may be asked for in a minute by one client; 0 is no limit.
    pub unknown_per_minute: u32,
    /// And by all together.
    pub unknown_per_minute_all: u32,
    /// Hosts whose pages may show an answer; empty: any.
    pub referers: Vec<String>,
    /// Origins (RFC 6454) whose scripts may read every answer.
    pub cors: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    Subscribers,
    Anyone,
}

/// How it is known who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requester {
    /// By what the request claims.
    Query,
    /// By the web server's login. The domain completes a bare login name, and is the only one believed.
    RemoteUser { domain: String },
    /// By a signed link.
    Signed(SigningKeys),
}

/// The keys of signed links: what is signed today, and what was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKeys {
    pub current: Secret,
    pub old: Option<Secret>,
    /// The longest life of a link, in days.
    pub days: u32,
}

/// People, or hosts, by their bare addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JidPattern {
    /// `alice@example.com`, or the host `example.com`.
    Exactly(BareJid),
    /// `*@example.com`, `*@*.example.com`: people.
    Everybody(DomainPattern),
    /// `*.example.com`: the hosts below one.
    HostsBelow(String),
}

impl JidPattern {
    pub fn holds(&self, jid: &BareJid) -> bool {
        let domain = jid.domain().as_str();
        match self {
            JidPattern::Exactly(known) => known == jid,
            JidPattern::Everybody(pattern) => jid.node().is_some() && pattern.holds(domain),
            JidPattern::HostsBelow(name) => jid.node().is_none() && DomainPattern::Below(name.clone()).holds(domain),
        }
    }
}

impl Access {
    /// Every visitor may see everybody of these domains.
    pub fn open(domains: Vec<DomainPattern>) -> Access {
        Access {
            visibility: Visibility::Anyone,
            requester: Requester::Query,
            domains,
            allow: Vec::new(),
            deny: Vec::new(),
            viewers: Vec::new(),
            unknown_per_minute: 0,
            unknown_per_minute_all: 0,
            referers: Vec::new(),
            cors: Vec::new(),
        }
    }

    /// Whether the configuration lets `viewer` see `person`.
    pub fn lists(&self, person: &BareJid, viewer: &BareJid) -> bool {
        let lines = self.viewers.iter().filter(|(people, _)| people.holds(person));
        lines.flat_map(|(_, viewers)| viewers).any(|pattern| pattern.holds(viewer))
    }
}
