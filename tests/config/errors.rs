//! Every way in which a text can be wrong, and the whole of what is printed then.

use super::{account, component, refuse};

/// Checks what is printed about each text.
fn check(table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(refuse(text), *expected, "{text}");
    }
}

/// The same for lines that follow an identity, whose three lines come first.
fn check_after(identity: fn(&str) -> String, table: &[(&str, &str)]) {
    for (lines, expected) in table {
        assert_eq!(refuse(&identity(lines)), *expected, "{lines}");
    }
}

#[test]
fn five_mistakes_are_five_lines() {
    let text = "[xmpp]\n\
                jid = presence.example.com/web\n\
                password = secret\n\
                timout = 5\n\
                verify = yes\n\
                verify = no\n\
                [cahce]\n\
                [cache]\n\
                ttl = 0\n";
    let expected = "\
F:2: [xmpp] jid: has a resource; allowed: a domain (component) or user@domain (account), without a resource
F:4: [xmpp] timout: unknown key, perhaps timeout; allowed: jid, password, password_file, host, port, security, tls, \
ca_file, cert, key, verify, timeout, linger, server, resource, visible, accept_subscriptions
F:6: [xmpp] verify: the key stands already on line 5
F:7: [cahce]: unknown section, perhaps cache; allowed: xmpp, access, privacy, cache, images, text, log
F:9: [cache] ttl: is out of range; allowed: 1 to 86400 seconds";
    assert_eq!(refuse(text), expected);
    assert_eq!(refuse(&text.replace('\n', "\r\n")), expected);
    assert_eq!(refuse(&format!("\u{feff}{text}")), expected);
}

#[test]
fn identities_must_be_complete() {
    let both = "[xmpp] jid: is missing; allowed: a domain (component) or user@domain (account), without a resource\n\
                F:1: [xmpp] password: is missing; allowed: password or password_file";
    check(&[
        ("", "F: there is no section [xmpp] with the identity that asks"),
        ("[cache]\nttl = 5", "F: there is no section [xmpp] with the identity that asks"),
        ("[xmpp]", &format!("F:1: {both}")),
        ("[xmpp]\njid = a.example\npassword =", "F:3: [xmpp] password: has no value; allowed: any text in one line"),
        (
            "[xmpp]\njid = a.example\npassword = x\npassword_file = y",
            "F:4: [xmpp] password_file: stands beside password; allowed: one of the two",
        ),
        (
            "[xmpp]\njid = a.example\npassword_file = y",
            "F:3: [xmpp] password_file: is read only where the configuration is a file; allowed: password",
        ),
        (
            "[xmpp]\njid = localhost\npassword = x",
            "F: [access] domains: is missing; allowed: names and *.name, separated by commas or spaces, at least one \
             plain name",
        ),
    ]);
}

#[test]
fn lines_and_names_must_be_known() {
    check_after(
        component,
        &[
            ("nonsense", "F:4: [xmpp]: not understood; allowed: [section], key = value, ; comment"),
            ("[cache", "F:4: [xmpp]: not understood; allowed: [section], key = value, ; comment"),
            ("[cache] ; mine", "F:4: [xmpp]: not understood; allowed: [section], key = value, ; comment"),
            ("verify = y\res", "F:4: [xmpp]: there is a control character in this line"),
            ("[]", "F:4: unknown section; allowed: xmpp, access, privacy, cache, images, text, log"),
            (
                "[viewers]\na = b",
                "F:4: [viewers]: unknown section; allowed: xmpp, access, privacy, cache, images, text, log",
            ),
            (
                "[LOG]",
                "F:4: [LOG]: unknown section, perhaps log; allowed: xmpp, access, privacy, cache, images, text, log",
            ),
            (
                "[log a]",
                "F:4: [log a]: unknown section, perhaps log; allowed: xmpp, access, privacy, cache, images, text, \
             log",
            ),
            ("[xmpp]", "F:4: [xmpp]: the section stands already on line 1"),
            (
                "[log]\n[log]\nlevel = x",
                "F:5: [log]: the section stands already on line 4\nF:6: [log] level: is not one of the words for \
                 it; allowed: error, warn, info, debug, trace, off",
            ),
            (
                "[log]\nlevel = off\n[log]\nlevel = off",
                "F:6: [log]: the section stands already on line 4\nF:7: [log] level: the key stands already on line \
                 5",
            ),
            ("[access two]", "F:4: [access two]: belongs to no identity: there is no [xmpp] of the same name"),
            ("[log]\nwidth = 5", "F:5: [log] width: unknown key; allowed: level, target"),
            ("[log]\nLevel = off", "F:5: [log] Level: unknown key, perhaps level; allowed: level, target"),
            ("[log]\nttl = 5", "F:5: [log] ttl: unknown key, it belongs to [cache]; allowed: level, target"),
            ("[log]\nlevel.de = off", "F:5: [log] level.de: unknown key; allowed: level, target"),
            (
                "[text]\naway.de_AT = x",
                "F:5: [text] away.de_AT: no language tag after the dot; allowed: such as de or pt-BR (RFC 5646)",
            ),
            (
                "[text]\naway. = x",
                "F:5: [text] away.: no language tag after the dot; allowed: such as de or pt-BR (RFC 5646)",
            ),
            ("[text]\naway.de = x\naway.DE = y", "F:6: [text] away.DE: the key stands already on line 5"),
            (
                "[text]\noffline = x",
                "F:5: [text] offline: unknown key; allowed: available, chat, away, xa, dnd, unavailable, forbidden, \
                 unknown",
            ),
        ],
    );
    check(&[("jid = a\n[xmpp]\njid = a.example\npassword = x", "F:1: jid: stands before the first [section]")]);
    for name in ["../x", ".x", "x.", "a b", "ä", &"x".repeat(65)] {
        let expected = format!(
            "F:4: [xmpp {name}]: the section's name is not allowed; allowed: up to 64 letters, digits, - _ and \
             inner dots"
        );
        assert_eq!(refuse(&component(&format!("[xmpp {name}]\njid = b.example\npassword = x"))), expected);
    }
}

#[test]
fn a_component_must_fit_its_connection() {
    check_after(
        component,
        &[
            ("security = starttls", "F:4: [xmpp] security: a component has no starttls; allowed: direct, none"),
            (
                "host = xmpp.example.com",
                "F:1: [xmpp] security: is missing; allowed: direct, or none on purpose, for a component on another \
                 machine",
            ),
            (
                "host = unix:/run/x\nport = 5347",
                "F:5: [xmpp] port: a Unix socket has no port; allowed: port beside a host name or an IP address",
            ),
            ("host = unix:/run/x\nsecurity = direct", "F:5: [xmpp] security: a Unix socket has no TLS; allowed: none"),
            (
                "cert = c.pem\nkey = c.key",
                "F:4: [xmpp] cert: is for accounts only; allowed: a component proves its password",
            ),
            (
                "linger = 40",
                "F:4: [xmpp] linger: is not longer than ttl + refresh of [cache] (30 + 10 seconds); allowed: 0, or \
                 more than 40",
            ),
            (
                "linger = 86400\n[cache]\nttl = 86400",
                "F:4: [xmpp] linger: is not longer than ttl + refresh of [cache] (86400 + 10 seconds); allowed: 0, \
                 or more than 86410",
            ),
        ],
    );
}

#[test]
fn an_account_must_fit_its_connection() {
    check_after(
        account,
        &[
            (
                "security = none",
                "F:4: [xmpp] security: an account goes without encryption only to a host on this machine; allowed: \
                 starttls, direct",
            ),
            (
                "host = 192.0.2.1\nsecurity = none",
                "F:5: [xmpp] security: an account goes without encryption only to a host on this machine; allowed: \
                 starttls, direct",
            ),
            (
                "host = unix:/run/x",
                "F:4: [xmpp] host: a Unix socket is for components only; allowed: a host name or an IP address",
            ),
            ("linger = always", "F:4: [xmpp] linger: always is for components only; allowed: 0 to 86400 seconds"),
            ("cert = c.pem", "F:1: [xmpp] key: is missing; allowed: the private key of cert"),
            ("key = c.key", "F:1: [xmpp] cert: is missing; allowed: the certificate of key"),
            (
                "host = localhost\nsecurity = none\ncert = c.pem\nkey = c.key",
                "F:6: [xmpp] cert: is shown in TLS; allowed: security = starttls or direct beside it",
            ),
            ("tls = openssl", "F:4: [xmpp] tls: is not one of the words for it; allowed: rustls, native"),
        ],
    );
}

#[test]
fn one_mistake_is_told_once() {
    let host = "F:4: [xmpp] host: is not a host name or IP address; allowed: a host name, an IP address, or \
     unix:/PATH";
    assert_eq!(refuse(&component("host = a b")), host);
    assert_eq!(refuse(&account("host = a b\nsecurity = none")), host);
    let security = "F:4: [xmpp] security: is not one of the words for it; allowed: starttls, direct, none";
    assert_eq!(refuse(&component("security = tls\nhost = a.example")), security);
    let domains = "F:5: [access] domains: there is no plain name; allowed: names and *.name, separated by commas or \
                   spaces, at least one plain name";
    assert_eq!(refuse(&component("[access]\ndomains = *.example.com")), domains);
}

#[test]
fn a_file_of_nonsense_is_told_in_bounds() {
    let nonsense = "nonsense\n".repeat(150);
    let printed = refuse(&component(&nonsense));
    assert_eq!(printed.lines().count(), 101);
    assert_eq!(printed.lines().last(), Some("and 50 more"));
    assert_eq!(refuse(&component(&"nonsense\n".repeat(100))).lines().count(), 100);
    let long = refuse(&component(&format!("{} = 1", "x".repeat(5000))));
    assert!(long.starts_with(&format!("F:4: [xmpp] {}: unknown key; ", "x".repeat(80))), "{long}");
}

/// What the program can do is not what every executable of it can.
#[cfg(not(feature = "native-tls"))]
#[test]
fn a_library_must_be_built_in() {
    let expected = "F:4: [xmpp] tls: is not in this build of webpresence; allowed: rustls";
    check_after(component, &[("tls = native", expected)]);
}
