//! The sections `[xmpp]` → the identities that ask, with the rules between their keys: which password, what may go
//! unencrypted, how long a session stays. Whom an identity may show to whom is for `permission`.

use std::time::Duration;

use jid::BareJid;

use super::keys::{Key, Kind, Section, key};
use super::permission::Permission;
use super::problem::Fault;
use super::reader::{Claimed, Given, Reader, Reported};
use super::sections::{Block, Sections};
use super::values;
use super::{Access, CacheSettings, ClientCertificate, Host, Identity, Secret, Security, ServerKind, TlsLibrary};
use crate::presence::Rule;

/// The default of `linger`, in seconds.
const LINGER: u64 = 90;
/// How much longer than an answer's life the session stays open where nothing is configured, in seconds.
const LINGER_BEYOND: u64 = 50;

/// What `linger` can say.
#[derive(Clone, Copy)]
enum Linger {
    Always,
    Seconds(u64),
}

impl Reader {
    pub fn identities(&mut self, read: &mut Sections, cache: &CacheSettings) -> Vec<Identity> {
        let is_xmpp = |block: &Block| block.section == Section::Xmpp;
        let (xmpp, rest) = std::mem::take(&mut read.blocks).into_iter().partition::<Vec<_>, _>(is_xmpp);
        read.blocks = rest;
        if xmpp.is_empty() {
            self.report.add(None, "", "", Fault::NoIdentity);
        }
        let mut identities = Vec::new();
        for block in &xmpp {
            let theirs = Permission::take(read, &block.name);
            identities.extend(self.identity(block, &theirs, cache));
        }
        for orphan in read.blocks.iter().filter(|block| block.section.is_per_identity()) {
            self.report.add(orphan.line, &orphan.header(), "", Fault::NoSuchIdentity);
            match orphan.section {
                Section::Viewers => drop(self.viewers(orphan)),
                Section::Privacy => drop(self.privacy(orphan)),
                _ => drop(self.access(orphan, None)),
            }
        }
        identities
    }

    fn identity(&mut self, xmpp: &Block, theirs: &Permission, cache: &CacheSettings) -> Option<Identity> {
        let jid = self.jid(xmpp);
        let client_certificate = self.client_certificate(xmpp);
        let password = self.password(xmpp, &client_certificate);
        let host = self.value(xmpp, const { key(Section::Xmpp, "host") }, values::host);
        let port = self.number(xmpp, const { key(Section::Xmpp, "port") });
        let security = self.choice(xmpp, const { key(Section::Xmpp, "security") });
        let ca_file = self.claimed_path(xmpp, const { key(Section::Xmpp, "ca_file") }, Claimed::Readable);
        let verify = self.or_default(xmpp, const { key(Section::Xmpp, "verify") }, values::yes_no);
        let timeout = self.number_or_default(xmpp, const { key(Section::Xmpp, "timeout") });
        let linger = self.linger(xmpp);
        let server = self.choice_or_default(xmpp, const { key(Section::Xmpp, "server") });
        let rule = self.choice_or_default(xmpp, const { key(Section::Xmpp, "resource") });
        let visible = self.or_default(xmpp, const { key(Section::Xmpp, "visible") }, values::yes_no);
        let accept = self.value(xmpp, const { key(Section::Xmpp, "accept_subscriptions") }, values::yes_no);
        let tls = self.tls(xmpp);
        let viewers = self.viewers(&theirs.viewers);
        let access = Access { viewers, ..self.access(&theirs.access, jid.as_ref()) };
        let privacy = self.privacy(&theirs.privacy);

        let jid = jid?;
        let is_component = jid.node().is_none();
        self.check_host(xmpp, is_component, &host, &port);
        self.check_certificate(xmpp, is_component, &client_certificate, &security);
        let security = match self.security(xmpp, is_component, &host, security) {
            // A host or port of the admin's is no record of DNS, which would say which of the two it speaks.
            Security::AsOffered if xmpp.names(&["host", "port"]) => Security::StartTls,
            security => security,
        };
        let linger = self.linger_of(xmpp, is_component, linger, cache);
        Some(Identity {
            name: xmpp.name.clone(),
            jid,
            password: password?,
            host: host.ok().flatten(),
            // The table's range is that of u16.
            port: port.ok().flatten().and_then(|port| u16::try_from(port).ok()),
            security,
            tls,
            ca_file,
            client_certificate: client_certificate.ok().flatten(),
            verify,
            timeout: Duration::from_secs(timeout),
            linger,
            server: server_kind(server),
            visible,
            accept_subscriptions: accept.ok().flatten().unwrap_or(is_component),
            rule: if rule == "highest-priority" { Rule::HighestPriority } else { Rule::MostAvailable },
            access,
            privacy,
        })
    }

    fn jid(&mut self, xmpp: &Block) -> Option<BareJid> {
        const JID: &Key = key(Section::Xmpp, "jid");
        let given = self.value(xmpp, JID, values::jid);
        if let Ok(None) = given {
            self.problem(xmpp, JID, Fault::Missing { allowed: JID.kind.to_string() });
        }
        given.ok().flatten()
    }

    /// Both of its files, or none.
    fn client_certificate(&mut self, xmpp: &Block) -> Given<ClientCertificate> {
        const CERT: &Key = key(Section::Xmpp, "cert");
        const KEY: &Key = key(Section::Xmpp, "key");
        let alone = |allowed: &str| Fault::Missing { allowed: allowed.to_owned() };
        match (self.path(xmpp, CERT)?, self.path(xmpp, KEY)?) {
            (Some(cert), Some(key)) => {
                self.claim(xmpp, CERT, &cert, Claimed::Readable);
                self.claim(xmpp, KEY, &key, Claimed::PrivateKey);
                return Ok(Some(ClientCertificate { cert, key }));
            }
            (Some(_), None) => self.problem(xmpp, KEY, alone("the private key of cert")),
            (None, Some(_)) => self.problem(xmpp, CERT, alone("the certificate of key")),
            (None, None) => return Ok(None),
        }
        Err(Reported)
    }

    fn check_certificate(
        &mut self,
        xmpp: &Block,
        is_component: bool,
        certificate: &Given<ClientCertificate>,
        security: &Given<&str>,
    ) {
        const CERT: &Key = key(Section::Xmpp, "cert");
        if !matches!(certificate, Ok(Some(_))) {
            return;
        }
        if is_component {
            self.refuse(xmpp, CERT, "is for accounts only", "a component proves its password");
        } else if matches!(security, Ok(Some("none"))) {
            self.refuse(xmpp, CERT, "is shown in TLS", "security = starttls or direct beside it");
        }
    }

    /// The library that is asked for, if this build has it.
    fn tls(&mut self, xmpp: &Block) -> TlsLibrary {
        const TLS: &Key = key(Section::Xmpp, "tls");
        let default = TlsLibrary::ALL[0];
        let Ok(Some(word)) = self.choice(xmpp, TLS) else { return default };
        let built_in = TlsLibrary::ALL.iter().copied().find(|library| library.word() == word);
        built_in.unwrap_or_else(|| {
            let words: Vec<_> = TlsLibrary::ALL.iter().map(|library| library.word()).collect();
            self.refuse(xmpp, TLS, "is not in this build of webpresence", &words.join(", "));
            default
        })
    }

    /// The password, empty as long as it is still in its file, and where a certificate stands for it.
    fn password(&mut self, xmpp: &Block, certificate: &Given<ClientCertificate>) -> Option<Secret> {
        const PASSWORD: &Key = key(Section::Xmpp, "password");
        const FILE: &Key = key(Section::Xmpp, "password_file");
        let written = self.value(xmpp, PASSWORD, |text| Ok(Secret::new(text.to_owned())));
        let file = self.path(xmpp, FILE);
        match (written, file) {
            (Ok(None), Ok(None)) if !matches!(certificate, Ok(None)) => Some(Secret::new(String::new())),
            (Ok(None), Ok(None)) => {
                let allowed = "password or password_file".to_owned();
                self.problem(xmpp, PASSWORD, Fault::Missing { allowed });
                None
            }
            (Ok(Some(_)), Ok(Some(_))) => {
                self.refuse(xmpp, FILE, "stands beside password", "one of the two");
                None
            }
            (Ok(Some(password)), _) => Some(password),
            (_, Ok(Some(path))) => {
                self.claim(xmpp, FILE, &path, Claimed::Password);
                Some(Secret::new(String::new()))
            }
            (_, _) => None,
        }
    }

    fn check_host(&mut self, xmpp: &Block, is_component: bool, host: &Given<Host>, port: &Given<u64>) {
        let Ok(Some(Host::Unix(_))) = host else {
            return;
        };
        if !is_component {
            const HOST: &Key = key(Section::Xmpp, "host");
            self.refuse(xmpp, HOST, "a Unix socket is for components only", "a host name or an IP address");
        }
        if let Ok(Some(_)) = port {
            const PORT: &Key = key(Section::Xmpp, "port");
            self.refuse(xmpp, PORT, "a Unix socket has no port", "port beside a host name or an IP address");
        }
    }

    /// How the connection is encrypted: a password may cross a network in clear only if the admin says so himself.
    fn security(&mut self, xmpp: &Block, is_component: bool, host: &Given<Host>, written: Given<&str>) -> Security {
        const SECURITY: &Key = key(Section::Xmpp, "security");
        let (Ok(host), Ok(written)) = (host, written) else {
            return Security::StartTls;
        };
        // Without a host a component connects to this machine, an account to wherever DNS says.
        let is_near = host.as_ref().map_or(is_component, values::is_loopback);
        match (is_component, written) {
            (true, None) if is_near => Security::None,
            (true, None) => {
                let allowed = "direct, or none on purpose, for a component on another machine".to_owned();
                self.problem(xmpp, SECURITY, Fault::Missing { allowed });
                Security::None
            }
            (true, Some("starttls")) => {
                self.refuse(xmpp, SECURITY, "a component has no starttls", "direct, none");
                Security::None
            }
            (false, Some("none")) if !is_near => {
                let why = "an account goes without encryption only to a host on this machine";
                self.refuse(xmpp, SECURITY, why, "starttls, direct");
                Security::None
            }
            (true, Some("direct")) if matches!(host, Some(Host::Unix(_))) => {
                self.refuse(xmpp, SECURITY, "a Unix socket has no TLS", "none");
                Security::None
            }
            (_, Some("none")) => Security::None,
            (_, Some("direct")) => Security::Direct,
            (_, Some(_)) => Security::StartTls,
            (_, None) => Security::AsOffered,
        }
    }

    fn linger(&mut self, xmpp: &Block) -> Given<Linger> {
        const LINGER: &Key = key(Section::Xmpp, "linger");
        let Kind::NumberOr { word, min, max, .. } = LINGER.kind else {
            unreachable!("the table says that linger is a number or a word");
        };
        self.value(xmpp, LINGER, |text| {
            if text == word { Ok(Linger::Always) } else { values::number(text, min, max).map(Linger::Seconds) }
        })
    }

    /// A session that closes before its answers grow old would be opened for every question.
    fn linger_of(
        &mut self,
        xmpp: &Block,
        is_component: bool,
        linger: Given<Linger>,
        cache: &CacheSettings,
    ) -> Option<Duration> {
        const KEY: &Key = key(Section::Xmpp, "linger");
        let (ttl, refresh) = (cache.ttl.as_secs(), cache.refresh.as_secs());
        let by_default = LINGER.max(ttl + refresh + LINGER_BEYOND);
        match linger {
            Ok(Some(Linger::Always)) if is_component => None,
            Ok(Some(Linger::Always)) => {
                self.refuse(xmpp, KEY, "always is for components only", "0 to 86400 seconds");
                None
            }
            Ok(Some(Linger::Seconds(n))) if n > 0 && n <= ttl + refresh => {
                self.problem(xmpp, KEY, Fault::LingerTooShort { ttl, refresh });
                None
            }
            Ok(Some(Linger::Seconds(n))) => Some(Duration::from_secs(n)),
            Ok(None) | Err(Reported) => Some(Duration::from_secs(by_default)),
        }
    }
}

fn server_kind(word: &str) -> Option<ServerKind> {
    match word {
        "prosody" => Some(ServerKind::Prosody),
        "ejabberd" => Some(ServerKind::Ejabberd),
        "openfire" => Some(ServerKind::Openfire),
        "other" => Some(ServerKind::Other),
        _ => None,
    }
}
