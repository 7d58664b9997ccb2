//! What a text that is right becomes.

use std::path::PathBuf;
use std::time::Duration;

use webpresence::config::{
    Access, Changes, ClientCertificate, DomainPattern, Host, JidPattern, Limits, LogSettings, LogTarget, Requester,
    Security, ServerKind, Shown, TlsLibrary, Visibility,
};
use webpresence::presence::{Rule, State};

use super::{accept, account, component};

fn exactly(name: &str) -> DomainPattern {
    DomainPattern::Exactly(name.into())
}

fn below(name: &str) -> DomainPattern {
    DomainPattern::Below(name.into())
}

fn person(jid: &str) -> JidPattern {
    JidPattern::Exactly(jid.parse().expect("a bare JID"))
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn nothing_but_the_identity_is_needed() {
    let config = accept(&component(""));
    assert_eq!(config.file, PathBuf::from("/etc/wp.ini"));
    let [identity] = &config.identities[..] else { panic!("{config:?}") };
    assert_eq!((identity.name.as_str(), identity.jid.as_str()), ("", "presence.example.com"));
    assert!(identity.is_component() && identity.verify);
    assert_eq!((&identity.host, identity.port, identity.security), (&None, None, Security::None));
    assert_eq!((&identity.ca_file, identity.timeout, identity.linger), (&None, secs(5), Some(secs(90))));
    assert_eq!((identity.server, identity.rule), (None, Rule::MostAvailable));
    assert!(identity.accept_subscriptions && !identity.visible);
    assert_eq!((identity.privacy.all, identity.privacy.rules.len()), (Shown::default(), 0));
    let access = Access {
        visibility: Visibility::Subscribers,
        unknown_per_minute: 60,
        unknown_per_minute_all: 600,
        ..Access::open(vec![exactly("example.com"), below("example.com")])
    };
    assert_eq!(format!("{:?}", identity.access), format!("{access:?}"));
    let cache = &config.cache;
    assert_eq!((cache.ttl, cache.refresh, cache.stale), (secs(30), secs(10), secs(300)));
    assert_eq!((cache.entries, &cache.directory), (10_000, &None));
    assert_eq!(config.limits, Limits { lookups: 1024, probes_per_second: 200 });
    assert_eq!(config.limits, Limits::default());
    assert_eq!((&config.images.directory, config.images.theme.as_str()), (&None, "default"));
    assert!(config.images.redirect_hosts.is_empty() && config.words.overrides.is_empty());
    assert_eq!(config.log, LogSettings { level: log::LevelFilter::Warn, target: LogTarget::Stderr });

    let account = accept(&account("")).identities.remove(0);
    assert_eq!(
        (account.is_component(), account.security, account.linger),
        (false, Security::AsOffered, Some(secs(90)))
    );
    assert!(!account.accept_subscriptions, "it may be somebody's own: his contacts are his to choose");
    assert_eq!(account.access.domains, [exactly("example.com"), below("example.com")]);
}

#[test]
fn every_key_arrives() {
    let config = accept(
        "[access]\nvisibility = anyone\ndomains = *.Example.org, example.ORG  bücher.example,,\n\
         requester = remote-user\nrequester_domain = Corp.example\nallow = *@Example.org, room.example.org\n\
         deny = *@*.example.org *.example.org\nunknown_per_minute = 0\nunknown_per_minute_all = 1000000\n\
         referers = WWW.example.com\ncors = HTTPS://Www.Example.com:443, http://bücher.example:8080\n\
         [viewers]\na@example.org = Bob@Example.org, @Team\n@team = *@*.corp.example\n\
         [xmpp]\njid: Presence.Example.com\npassword = s\nhost = XMPP.example.net\nport = 65535\nsecurity = direct\n\
         tls = rustls\nca_file = ca.pem\nverify = no\ntimeout = 60\nlinger = always\nserver = ejabberd\n\
         resource = highest-priority\nvisible = yes\naccept_subscriptions = no\n\
         [privacy]\n*@example.org = show_text:yes\nshow_since = yes\nshow_avatar = no\nshow_text = no\n\
         show_priority = no\ncoarse = yes\na@example.org = coarse:no, show_avatar:yes\n\
         [cache]\nttl = 1\nrefresh = 0\nstale = 0\nentries = 10\ndirectory = /srv/wp\n\
         [images]\ndirectory = icons\ntheme = default\nredirect_hosts = WWW.example.com 192.0.2.1,[2001:DB8::1]\n\
         [text]\nunavailable = Gone\nunavailable.DE-at = Weg\ndnd = a = b; c\n\
         [limits]\nlookups = 65536\nprobes_per_second = 1\n\
         [log]\nlevel = trace\ntarget = /var/log/wp.log\n",
    );
    let identity = &config.identities[0];
    assert_eq!(identity.jid.as_str(), "presence.example.com");
    assert_eq!(identity.host, Some(Host::Name("xmpp.example.net".into())));
    assert_eq!((identity.port, identity.security, identity.verify), (Some(65_535), Security::Direct, false));
    assert_eq!(identity.ca_file, Some(PathBuf::from("/etc/ca.pem")));
    assert_eq!((identity.timeout, identity.linger), (secs(60), None));
    assert_eq!((identity.server, identity.rule), (Some(ServerKind::Ejabberd), Rule::HighestPriority));
    assert!(identity.visible && !identity.accept_subscriptions);
    let shown = Shown { text: false, priority: false, since: true, avatar: false, coarse: true };
    let everybody = JidPattern::Everybody;
    let rules = [
        (everybody(exactly("example.org")), Changes { text: Some(true), ..Changes::default() }),
        (person("a@example.org"), Changes { coarse: Some(false), avatar: Some(true), ..Changes::default() }),
    ];
    assert_eq!((identity.privacy.all, &identity.privacy.rules[..]), (shown, &rules[..]));
    let access = Access {
        visibility: Visibility::Anyone,
        requester: Requester::RemoteUser { domain: "corp.example".into() },
        domains: vec![below("example.org"), exactly("example.org"), exactly("bücher.example")],
        allow: vec![everybody(exactly("example.org")), person("room.example.org")],
        deny: vec![everybody(below("example.org")), JidPattern::HostsBelow("example.org".into())],
        viewers: vec![(person("a@example.org"), vec![person("bob@example.org"), everybody(below("corp.example"))])],
        unknown_per_minute: 0,
        unknown_per_minute_all: 1_000_000,
        referers: vec!["www.example.com".into()],
        cors: vec!["https://www.example.com".into(), "http://xn--bcher-kva.example:8080".into()],
    };
    assert_eq!(format!("{:?}", identity.access), format!("{access:?}"));
    let cache = &config.cache;
    assert_eq!((cache.ttl, cache.refresh, cache.stale, cache.entries), (secs(1), secs(0), secs(0), 10));
    assert_eq!(cache.directory, Some(PathBuf::from("/srv/wp")));
    assert_eq!(config.images.directory, Some(PathBuf::from("/etc/icons")));
    assert_eq!(config.images.redirect_hosts, ["www.example.com", "192.0.2.1", "[2001:db8::1]"]);
    let word = |state, language: &str, word: &str| (state, language.to_owned(), word.to_owned());
    let expected =
        [word(State::Offline, "", "Gone"), word(State::Offline, "de-at", "Weg"), word(State::Dnd, "", "a = b; c")];
    assert_eq!(config.words.overrides, expected);
    assert_eq!(config.limits, Limits { lookups: 65_536, probes_per_second: 1 });
    let target = LogTarget::File("/var/log/wp.log".into());
    assert_eq!(config.log, LogSettings { level: log::LevelFilter::Trace, target });
}

#[test]
fn a_password_is_kept_to_the_end_of_its_line() {
    for password in ["a #b;c", "\"quoted\"", "'half", "a=b:c", "back\\slash\\n", "ends\\", "[x]", "grüße 鍵", "; #"]
    {
        let text = format!("[xmpp]\npassword = {password}\njid = a.example\n");
        let config = accept(&text);
        assert_eq!(config.identities[0].password.reveal(), password);
        assert_eq!(config.identities[0].jid.as_str(), "a.example");
        let config = accept(&text.replace('\n', "\r\n").replace(" = ", ":\t"));
        assert_eq!(config.identities[0].password.reveal(), password);
    }
}

#[test]
fn comments_stand_on_lines_of_their_own() {
    let config = accept("\u{feff}; a\n  # b = c\n\n[xmpp]\n\t; jid = d\njid = a.example\npassword = x\n#[log]\n");
    assert_eq!(config.identities[0].jid.as_str(), "a.example");
}

#[test]
fn further_identities_have_their_own_access() {
    let config = accept(
        "[access b.2]\nvisibility = anyone\n[xmpp  b.2]\njid = bot@b.example\npassword = 2\n\
         [xmpp]\njid = presence.a.example\npassword = 1\n[xmpp c]\njid = c.example\npassword = 3\n\
         [access c]\ndomains = x.example\n",
    );
    let said: Vec<_> = config
        .identities
        .iter()
        .map(|i| (i.name.as_str(), i.jid.as_str(), i.password.reveal(), i.access.visibility, i.access.domains.clone()))
        .collect();
    let own = |name: &str| vec![exactly(name), below(name)];
    let expected = [
        ("b.2", "bot@b.example", "2", Visibility::Anyone, own("b.example")),
        ("", "presence.a.example", "1", Visibility::Subscribers, own("a.example")),
        ("c", "c.example", "3", Visibility::Subscribers, vec![exactly("x.example")]),
    ];
    assert_eq!(said, expected);
}

#[test]
fn viewers_and_privacy_belong_to_their_identity() {
    let config = accept(
        "[xmpp]\njid = presence.a.example\npassword = 1\n[xmpp b]\njid = bot@b.example\npassword = 2\n\
         [viewers b]\n*@b.example = *@b.example\n@other = c@b.example\n[privacy b]\nb.example = show_text:no\n\
         [viewers]\n*@*.a.example = x@a.example @all\na@a.example = @all\n@all: y@a.example\n",
    );
    let said: Vec<_> =
        config.identities.iter().map(|i| (i.name.as_str(), &i.access.viewers[..], i.privacy.rules.len())).collect();
    let everybody = JidPattern::Everybody;
    let of_a = [
        (everybody(below("a.example")), vec![person("x@a.example"), person("y@a.example")]),
        (person("a@a.example"), vec![person("y@a.example")]),
    ];
    let of_b = [(everybody(exactly("b.example")), vec![everybody(exactly("b.example"))])];
    assert_eq!(said, [("", &of_a[..], 0), ("b", &of_b[..], 1)]);
}

#[test]
fn the_home_domain_completes_a_login_name() {
    let table = [
        (component("[access]\nrequester = remote-user"), "example.com"),
        (account("[access]\nrequester = remote-user"), "example.com"),
        (account("[access]\ndomains = *.a.example, b.example, c.example\nrequester = remote-user"), "b.example"),
        (component("[access]\nrequester = remote-user\nrequester_domain = Corp.example"), "corp.example"),
    ];
    for (text, domain) in table {
        let expected = Requester::RemoteUser { domain: domain.into() };
        assert_eq!(accept(&text).identities[0].access.requester, expected, "{text}");
    }
}

#[test]
fn security_follows_the_host() {
    use Security::{AsOffered, Direct, None, StartTls};
    let table = [
        (component("host = localhost"), None),
        (component("host = ::1"), None),
        (component("host = unix:/run/x"), None),
        (component("host = a.example\nsecurity = none"), None),
        (component("host = a.example\nsecurity = direct"), Direct),
        (component("security = direct"), Direct),
        (account(""), AsOffered),
        (account("security = starttls"), StartTls),
        (account("host = localhost"), StartTls),
        (account("port = 5222"), StartTls),
        (account("host = 127.0.0.1\nsecurity = none"), None),
        (account("security = direct"), Direct),
    ];
    for (text, expected) in table {
        assert_eq!(accept(&text).identities[0].security, expected, "{text}");
    }
}

#[test]
fn a_certificate_may_stand_for_the_password() {
    let certificate = ClientCertificate { cert: "/etc/own.pem".into(), key: "/keys/own".into() };
    let lines = "cert = own.pem\nkey = /keys/own\n";
    for (text, password) in [
        (account(lines), "secret"),
        (format!("[xmpp]\njid = bot@example.com\n{lines}"), ""),
        (account(&format!("{lines}security = direct")), "secret"),
    ] {
        let identity = accept(&text).identities.remove(0);
        let (found, revealed) = (identity.client_certificate, identity.password.reveal());
        assert_eq!((found.as_ref(), revealed), (Some(&certificate), password), "{text}");
    }
    assert_eq!(accept(&account("")).identities[0].client_certificate, None);
}

#[test]
fn the_first_library_is_the_default() {
    assert_eq!(accept(&account("")).identities[0].tls, TlsLibrary::ALL[0]);
    for library in TlsLibrary::ALL {
        assert_eq!(accept(&account(&format!("tls = {}", library.word()))).identities[0].tls, *library);
    }
}

#[test]
fn linger_outlives_the_answers() {
    let table = [
        ("linger = 0", Some(secs(0))),
        ("linger = 41", Some(secs(41))),
        ("linger = 11\n[cache]\nttl = 10\nrefresh = 0", Some(secs(11))),
        ("linger = always\n[cache]\nttl = 600", None),
        ("[cache]\nttl = 1\nrefresh = 0", Some(secs(90))),
        ("[cache]\nttl = 600", Some(secs(660))),
    ];
    for (lines, expected) in table {
        assert_eq!(accept(&component(lines)).identities[0].linger, expected, "{lines}");
    }
}

#[test]
fn endpoints_follow_kind_and_security() {
    let name = |host: &str, port| Some((Host::Name(host.into()), port));
    let table = [
        (component(""), name("127.0.0.1", 5347)),
        (component("port = 9"), name("127.0.0.1", 9)),
        (component("host = localhost"), name("localhost", 5347)),
        (component("host = unix:/run/x"), Some((Host::Unix("/run/x".into()), 5347))),
        (account(""), None),
        (account("security = direct"), None),
        (account("port = 9"), name("example.com", 9)),
        (account("host = a.example"), name("a.example", 5222)),
        (account("host = a.example\nsecurity = direct"), name("a.example", 5223)),
        (account("host = a.example\nport = 9"), name("a.example", 9)),
    ];
    for (text, expected) in table {
        assert_eq!(accept(&text).identities[0].endpoint(), expected, "{text}");
    }
}
