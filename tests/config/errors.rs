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
F:7: [cahce]: unknown section, perhaps cache; allowed: xmpp, access, viewers, privacy, cache, web, images, text, limits, log
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
            "F:3: [xmpp] password_file: is read only where the configuration is a file",
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
            (
                "[]",
                "F:4: unknown section; allowed: xmpp, access, viewers, privacy, cache, web, images, text, limits, log",
            ),
            (
                "[people]\na = b",
                "F:4: [people]: unknown section; allowed: xmpp, access, viewers, privacy, cache, web, images, text, limits, log",
            ),
            (
                "[LOG]",
                "F:4: [LOG]: unknown section, perhaps log; allowed: xmpp, access, viewers, privacy, cache, web, images, text, limits, log",
            ),
            (
                "[log a]",
                "F:4: [log a]: unknown section, perhaps log; allowed: xmpp, access, viewers, privacy, cache, web, images, text, \
             limits, log",
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
            (
                "[viewers two]\nalice = x\n[privacy two]\ncoarse = x",
                "F:4: [viewers two]: belongs to no identity: there is no [xmpp] of the same name\nF:5: [viewers two] \
                 alice: unknown key; allowed: name@domain, *@domain, *@*.domain, @group\nF:6: [privacy two]: belongs to \
                 no identity: there is no [xmpp] of the same name\nF:7: [privacy two] coarse: is neither yes nor no; \
                 allowed: yes, no",
            ),
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
fn a_way_to_say_who_one_is_has_keys_of_its_own() {
    let path = "the path of a file (a relative one starts at the folder of webpresence.ini)";
    check_after(
        component,
        &[
            (
                "[access]\nrequester_domain = example.com\nsign_key_file = k\nsign_key_file_old = o",
                "F:5: [access] requester_domain: means nothing here; allowed: requester = remote-user beside it\n\
                 F:6: [access] sign_key_file: means nothing here; allowed: requester = signed beside it\n\
                 F:7: [access] sign_key_file_old: means nothing here; allowed: requester = signed beside it",
            ),
            (
                "[access]\nrequester = remote-user\nsign_key_file = k",
                "F:6: [access] sign_key_file: means nothing here; allowed: requester = signed beside it",
            ),
            (
                "[access]\nrequester = remote-user\nrequester_domain = a@example.com",
                "F:6: [access] requester_domain: is not a domain; allowed: a domain",
            ),
            (
                "[access]\nrequester = login\nrequester_domain = example.com\nsign_key_file = k",
                "F:5: [access] requester: is not one of the words for it; allowed: query, remote-user, signed",
            ),
            (
                "[access]\nrequester = signed\nrequester_domain = example.com",
                &format!(
                    "F:4: [access] sign_key_file: is missing; allowed: {path}\n\
                     F:6: [access] requester_domain: means nothing here; allowed: requester = remote-user beside it"
                ),
            ),
            (
                "[access]\nrequester = signed\nsign_key_file_old = o",
                &format!(
                    "F:4: [access] sign_key_file: is missing; allowed: {path}\n\
                     F:6: [access] sign_key_file_old: is read only where the configuration is a file"
                ),
            ),
            (
                "[access]\nrequester = signed\nsign_key_file =",
                &format!("F:6: [access] sign_key_file: has no value; allowed: {path}"),
            ),
        ],
    );
}

#[test]
fn lines_of_viewers_must_be_understood() {
    let people = "name@domain, *@domain, *@*.domain";
    let (left, list) = (format!("{people}, @group"), format!("{people}, @group, separated by commas or spaces"));
    check_after(
        component,
        &[
            ("[viewers]\nalice = b@x.example", &format!("F:5: [viewers] alice: unknown key; allowed: {left}")),
            ("[viewers]\nPATTERN = b@x.example", &format!("F:5: [viewers] PATTERN: unknown key; allowed: {left}")),
            (
                "[viewers]\nvisibility = anyone",
                &format!("F:5: [viewers] visibility: unknown key, it belongs to [access]; allowed: {left}"),
            ),
            (
                "[viewers]\nx.example = b@x.example\n*.x.example = b@x.example\na*@x.example = b@x.example",
                &["x.example", "*.x.example", "a*@x.example"]
                    .iter()
                    .zip(5..)
                    .map(|(pattern, line)| {
                        format!("F:{line}: [viewers] {pattern}: is not a pattern of people; allowed: {left}")
                    })
                    .collect::<Vec<_>>()
                    .join("\n"),
            ),
            // A colon ends the left side as it ends every key: this is no address that could be written there.
            (
                "[viewers]\na@[::1] = b@x.example",
                &format!("F:5: [viewers] a@[: is not a pattern of people; allowed: {left}"),
            ),
            (
                "[viewers]\na@x.example = bob\nb@x.example = c@x.example/web\nc@x.example = *.x.example",
                &["a", "b", "c"]
                    .iter()
                    .zip(5..)
                    .map(|(name, line)| {
                        let why = "one of them is not a pattern of people";
                        format!("F:{line}: [viewers] {name}@x.example: {why}; allowed: {list}")
                    })
                    .collect::<Vec<_>>()
                    .join("\n"),
            ),
            ("[viewers]\na=b@x.example = c@x.example", &format!("F:5: [viewers] a: unknown key; allowed: {left}")),
            ("[viewers]\na@x.example = ", &format!("F:5: [viewers] a@x.example: has no value; allowed: {list}")),
            (
                "[viewers]\na@x.example = ,",
                &format!("F:5: [viewers] a@x.example: there is no pattern; allowed: {list}"),
            ),
            (
                "[viewers]\nA@x.example = b@x.example\na@X.example = c@x.example",
                "F:6: [viewers] a@X.example: the key stands already on line 5",
            ),
        ],
    );
}

#[test]
fn groups_of_viewers_must_be_understood() {
    let people = "name@domain, *@domain, *@*.domain";
    let (left, list) = (format!("{people}, @group"), format!("{people}, @group, separated by commas or spaces"));
    let members = format!("{people}, separated by commas or spaces");
    check_after(
        component,
        &[
            (
                "[viewers]\n@Team = b@x.example\n@team = c@x.example",
                "F:6: [viewers] @team: the key stands already on line 5",
            ),
            (
                "[viewers]\na@x.example = @team, @others\n@team = b@x.example",
                &format!(
                    "F:5: [viewers] a@x.example: names a group that this section does not define; allowed: {list}"
                ),
            ),
            (
                "[viewers]\n@all = @team\n@team = b@x.example\na@x.example = @all",
                &format!("F:5: [viewers] @all: a group holds no other group; allowed: {members}"),
            ),
            ("[viewers]\n@ = b@x.example", &format!("F:5: [viewers] @: is not the name of a group; allowed: {left}")),
            (
                "[viewers]\n@x.example/y = b@x.example",
                &format!("F:5: [viewers] @x.example/y: is not the name of a group; allowed: {left}"),
            ),
        ],
    );
}

/// A quarter of a megabyte must not become gigabytes.
#[test]
fn viewers_have_a_limit() {
    let group: String = (0..1000).map(|n| format!(" u{n}@x.example")).collect();
    let lines = |count: usize| (0..count).map(|n| format!("p{n}@x.example = @all\n")).collect::<String>();
    let text = |count: usize| component(&format!("[viewers]\n@all ={group}\n{}", lines(count)));
    super::accept(&text(100));
    let expected = "F:106: [viewers] p100@x.example: the lines up to here have too many viewers in all; allowed: up to \
                    100000, or patterns such as *@domain for many at once";
    assert_eq!(refuse(&text(200)), expected);
}

#[test]
fn lines_of_privacy_must_be_understood() {
    let keys = "show_text, show_priority, show_since, show_avatar, coarse";
    let left = format!("{keys}, name@domain, *@domain, *@*.domain, host.domain, *.domain");
    let list = format!("{keys}, each once at most and with :yes or :no, separated by commas or spaces");
    let wrong = |why: &str| format!("F:5: [privacy] a@x.example: {why}; allowed: {list}");
    check_after(
        component,
        &[
            (
                "[privacy]\nshow_txt = no",
                &format!("F:5: [privacy] show_txt: unknown key, perhaps show_text; allowed: {left}"),
            ),
            ("[privacy]\nalice = coarse:yes", &format!("F:5: [privacy] alice: unknown key; allowed: {left}")),
            ("[privacy]\n@team = coarse:yes", &format!("F:5: [privacy] @team: unknown key; allowed: {left}")),
            ("[privacy]\n*@ = coarse:yes", &format!("F:5: [privacy] *@: is not a pattern; allowed: {left}")),
            ("[privacy]\na@x.example = no", &wrong("one of them has no :yes or :no")),
            ("[privacy]\na@x.example = coarse: yes", &wrong("is neither yes nor no")),
            ("[privacy]\na@x.example = coarse:yes, show_name:no", &wrong("one of the names is not known")),
            ("[privacy]\na@x.example = coarse:yes, coarse:yes", &wrong("has one of the names twice")),
            ("[privacy]\na@x.example = ,", &wrong("changes nothing")),
            (
                "[privacy]\na@x.example = coarse:yes\nA@x.example = coarse:no",
                "F:6: [privacy] A@x.example: the key stands already on line 5",
            ),
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
