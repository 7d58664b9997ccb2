//! The ways in which a server can be bad, a few lines each: how far it plays along, what it does then, and what the log
//! must say. The answer is the same for all of them: nothing is known.

use std::time::Duration;

use crate::server::{Act, Shown};

/// How the client comes to the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Component,
    /// An account, by STARTTLS or by TLS from the first byte.
    StartTls,
    Direct,
    /// An account over direct TLS that the client was told not to verify.
    Unverified,
}

/// Words that are in one line of the log.
#[derive(Clone, Copy)]
pub enum Told {
    /// About the session, which the admin sees by default.
    Admin(&'static [&'static str]),
    /// About the person only: the server was alive, so that the session is not to blame.
    Asker(&'static [&'static str]),
}

pub struct Case {
    pub name: &'static str,
    pub way: Way,
    pub shown: Shown,
    /// What another connection before does, if anything.
    pub first: Vec<Act>,
    pub acts: Vec<Act>,
    /// What is set as the time for an answer.
    pub timeout: Duration,
    pub told: Told,
    /// What the client must not have said.
    pub unsaid: &'static [&'static str],
    /// What it must not have said more often.
    pub at_most: (&'static str, usize),
    pub linger: &'static str,
}

const SILENT: Told = Told::Admin(&["the server did not answer in time; next attempt in"]);
const NOTHING_ABOUT_HER: Told = Told::Asker(&["the server did not answer in time"]);
const NOT_XML: Told = Told::Admin(&["the server does not speak XMPP: not well-formed XML"]);
const NOT_A_STREAM: Told = Told::Admin(&["the server does not speak XMPP: not an XMPP stream"]);
const TOO_LARGE: Told =
    Told::Admin(&["the server does not speak XMPP: a tag over 65536 bytes, or a name or value in it over 32768"]);
const TOO_DEEP: Told = Told::Admin(&["the server does not speak XMPP: elements more than 1000 deep"]);
const FLOOD: Told = Told::Admin(&["the server sent more than a session may cost"]);
const CLOSED: Told = Told::Admin(&["the server closed the connection"]);
const INJECTED: Told = Told::Admin(&["bytes were injected before TLS began"]);
const NO_TLS: Told = Told::Admin(&["the server does not offer TLS"]);
const UNPROVEN: Told = Told::Admin(&["the server did not prove that it knows the password"]);
const NO_SASL: Told = Told::Admin(&["the login was broken off: the server sent a SASL message that is none"]);

const UNTRUSTED: Told = Told::Admin(&["TLS with example.test failed: nobody who is trusted here vouches"]);
const EXPIRED: Told = Told::Admin(&["TLS with example.test failed: the certificate was valid until 2020-02-01"]);
const NO_LOGIN: Told = Told::Admin(&["the login was broken off: the server offers no login that can be used"]);

const COMPONENT_STREAM: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
    xmlns:stream='http://etherx.jabber.org/streams' id='7' from='presence0.example.test'>";
const STREAM: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' version='1.0' \
    xmlns:stream='http://etherx.jabber.org/streams' id='7' from='example.test'>";
const OFFER_TLS: &str = "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>";
const PROCEED: &str = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const SUCCESS: &str = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
const BOUND: &str = "<iq type='result' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
    <jid>webstatus0@example.test/7</jid></bind></iq>";
/// `\0webstatus0\0` and the password.
const PLAIN: &str = "AHdlYnN0YXR1czAAb3Blbi1zZXNhbWUtNDcxMQ==";
const CHALLENGE: &str = "r=@x,s=QSXCR+Q6sek8bf92,i=4096";

pub fn all() -> Vec<Case> {
    [silence(), slowness(), size(), xml(), tls(), downgrade(), sasl(), sasl2(), changes(), lies(), crowds()]
        .into_iter()
        .flatten()
        .collect()
}

fn say(text: &str) -> Act {
    Act::Say(text.to_owned())
}

/// A component that says what `acts` say.
fn component(name: &'static str, acts: &[Act], told: Told) -> Case {
    // Whoever floods is stopped by a limit and not by the clock, though this build reads slowly.
    let timeout = Duration::from_secs(if acts.iter().any(|act| matches!(act, Act::Flood(_))) { 20 } else { 1 });
    let (way, shown, acts) = (Way::Component, Shown::Good, acts.to_vec());
    let at_most = ("<presence", 10_000);
    Case { name, way, shown, first: Vec::new(), acts, timeout, told, unsaid: &[], at_most, linger: "0" }
}

fn account(name: &'static str, way: Way, acts: &[Act], told: Told) -> Case {
    Case { way, unsaid: &[PLAIN], ..component(name, acts, told) }
}

/// The component's header came and was answered.
fn header(more: &[Act]) -> Vec<Act> {
    [&[Act::Hear("<stream:stream"), Act::Hear(">"), say(COMPONENT_STREAM)], more].concat()
}

/// The component's handshake was taken and its questions came.
fn open(more: &[Act]) -> Vec<Act> {
    let open = [Act::Hear("</handshake>"), say("<handshake/>"), Act::Hear("urn:xmpp:ping")];
    header(&[&open, more].concat())
}

/// The account's header and its `<starttls/>` came.
fn starttls(more: &[Act]) -> Vec<Act> {
    [&[Act::Hear("xmpp-tls"), say(STREAM)], more].concat()
}

/// TLS is up, and the header within it was answered with these mechanisms.
fn secured(mechanisms: &[&str], more: &[Act]) -> Vec<Act> {
    let list: String = mechanisms.iter().map(|name| format!("<mechanism>{name}</mechanism>")).collect();
    let features = format!(
        "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{list}</mechanisms></stream:features>"
    );
    let begin = [Act::Tls(Shown::Good), Act::Hear("<stream:stream"), Act::Hear(">"), say(STREAM), say(&features)];
    [&begin, more].concat()
}

/// The client's first SCRAM message came.
fn scram(more: &[Act]) -> Vec<Act> {
    secured(&["SCRAM-SHA-1"], &[&[Act::Hear("</auth>")], more].concat())
}

/// The server's first message went out and was answered.
fn challenged(more: &[Act]) -> Vec<Act> {
    let challenge = Act::Sasl("challenge", CHALLENGE.to_owned());
    scram(&[&[challenge, Act::Hear("</response>")], more].concat())
}

/// The account is logged in, by PLAIN over a verified channel, and its new stream is there.
fn logged_in(more: &[Act]) -> Vec<Act> {
    let login = [Act::Hear("</auth>"), say(SUCCESS), Act::Hear("xmpp-bind"), say(STREAM)];
    let features = say("<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>");
    secured(&["PLAIN"], &[&login, &[features][..], more].concat())
}

fn silence() -> Vec<Case> {
    use Way::{Direct, StartTls};
    let welcome = |case: Case| Case { unsaid: &[], ..case };
    vec![
        component("silence after the connection", &[], SILENT),
        component("silence after the header", &header(&[]), SILENT),
        component("silence in the header", &[say("<stream:stream xmlns='jabber:comp")], SILENT),
        component("silence after the handshake", &header(&[Act::Hear("</handshake>")]), SILENT),
        component("silence after the probe", &open(&[]), SILENT),
        component("silence in a presence", &open(&[say("<presence from='alice@example.test/a")]), NOTHING_ABOUT_HER),
        component("the end after the connection", &[Act::Close], CLOSED),
        component("the end after the header", &header(&[Act::Close]), CLOSED),
        component("the end after the probe", &open(&[Act::Close]), CLOSED),
        component("the end of the stream", &open(&[say("</stream:stream>")]), CLOSED),
        account("account: silence after the connection", StartTls, &[], SILENT),
        account("account: silence after the header", StartTls, &starttls(&[]), SILENT),
        account("account: silence after the offer of TLS", StartTls, &starttls(&[say(OFFER_TLS)]), SILENT),
        account("account: silence in TLS", StartTls, &starttls(&[say(OFFER_TLS), say(PROCEED)]), SILENT),
        account("account: silence in direct TLS", Direct, &[], SILENT),
        account("account: silence within TLS", Direct, &[Act::Tls(Shown::Good)], SILENT),
        account("account: silence instead of features", Direct, &[Act::Tls(Shown::Good), say(STREAM)], SILENT),
        account("account: silence after the features", Direct, &scram(&[]), SILENT),
        account("account: silence after the challenge", Direct, &challenged(&[]), SILENT),
        welcome(account("account: silence after the login", Direct, &logged_in(&[]), SILENT)),
        welcome(account("account: silence after the probe", Direct, &logged_in(&[say(BOUND)]), SILENT)),
    ]
}

fn slowness() -> Vec<Case> {
    vec![
        component("a byte a second, from the start", &[Act::Drip(COMPONENT_STREAM)], SILENT),
        component(
            "a byte a second, the handshake",
            &header(&[Act::Hear("</handshake>"), Act::Drip("<handshake/>")]),
            SILENT,
        ),
        component(
            "a byte a second, a presence",
            &open(&[Act::Drip("<presence from='alice@example.test/a'/>")]),
            NOTHING_ABOUT_HER,
        ),
        component("a space a second", &open(&[Act::Drip("                ")]), NOTHING_ABOUT_HER),
        account("a byte a second, TLS", Way::Direct, &[Act::Drip("\u{16}\u{3}\u{3}\u{0}\u{7a}\u{2}\u{0}")], SILENT),
        account("a byte a second, within TLS", Way::Direct, &[Act::Tls(Shown::Good), Act::Drip(STREAM)], SILENT),
    ]
}

fn size() -> Vec<Case> {
    let deep = format!("<message>{}{}</message>", "<a>".repeat(500), "</a>".repeat(500));
    vec![
        component("white space without end, before the header", &[Act::Flood(" ")], NOT_XML),
        component("white space without end, in the header", &[say("<stream:stream"), Act::Flood(" ")], TOO_LARGE),
        component("white space without end, after the header", &header(&[Act::Flood("\n")]), FLOOD),
        component("white space without end, after the login", &open(&[Act::Flood(" \t\n")]), FLOOD),
        component("a header without end", &[say("<stream:stream id='"), Act::Flood("a")], TOO_LARGE),
        component("a name without end", &[say("<"), Act::Flood("a")], TOO_LARGE),
        component("a gigabyte of text", &open(&[say("<message><body>"), Act::Flood("a")]), FLOOD),
        component("a gigabyte of attribute", &open(&[say("<presence from='"), Act::Flood("a")]), TOO_LARGE),
        component("a gigabyte of attributes", &open(&[say("<presence"), Act::Flood(" a#=''")]), TOO_LARGE),
        component("a gigabyte of children", &open(&[say("<presence>"), Act::Flood("<a/>")]), FLOOD),
        component("depth without end", &open(&[Act::Flood("<a>")]), TOO_DEEP),
        component("a depth of 10,000", &open(&[Act::Say("<a>".repeat(10_000))]), TOO_DEEP),
        component("a depth of 500", &open(&[Act::Say(deep)]), NOTHING_ABOUT_HER),
        component("stanzas without end, before the login", &header(&[Act::Flood("<message/>")]), FLOOD),
        component(
            "pushes without end",
            &open(&[Act::Flood("<presence from='bob@example.test/#' to='presence0.example.test'/>")]),
            FLOOD,
        ),
        component(
            "pushes without end, of whom is asked about",
            &open(&[Act::Flood("<presence from='alice@example.test/#' to='presence0.example.test'/>")]),
            FLOOD,
        ),
        component(
            "questions without end",
            &open(&[Act::Flood("<iq type='get' id='#' from='example.test'><ping xmlns='urn:xmpp:ping'/></iq>")]),
            FLOOD,
        ),
        account(
            "features without end",
            Way::Direct,
            &[Act::Tls(Shown::Good), say(STREAM), say("<stream:features>"), Act::Flood("<a/>")],
            FLOOD,
        ),
    ]
}

fn xml() -> Vec<Case> {
    let laughs =
        "<!DOCTYPE l [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'><!ENTITY c '&b;&b;&b;&b;&b;&b;'>]>";
    let status = |text: &str| say(&format!("<presence from='alice@example.test/a'><status>{text}</status></presence>"));
    vec![
        component("a document type", &[say("<!DOCTYPE stream>"), say(COMPONENT_STREAM)], NOT_XML),
        component("entities that are declared", &[say(laughs), say(COMPONENT_STREAM)], NOT_XML),
        component("a declaration in the stream", &open(&[say("<!ENTITY a SYSTEM 'file:///etc/passwd'>")]), NOT_XML),
        component("an entity that nobody declared", &open(&[status("&lol;")]), NOT_XML),
        component("a character that XML has not", &open(&[status("&#0;")]), NOT_XML),
        component("a processing instruction", &open(&[say("<?php phpinfo() ?>")]), NOT_XML),
        component("a comment", &open(&[say("<!-- -->")]), NOT_XML),
        component("a prefix that nobody declared", &open(&[say("<x:presence/>")]), NOT_XML),
        component("text between stanzas", &open(&[say("alice is here<presence/>")]), NOT_XML),
        component("HTTP", &[say("HTTP/1.1 400 Bad Request\r\n\r\n")], NOT_XML),
        component("another sort of XML", &[say("<html>")], NOT_A_STREAM),
    ]
}

fn tls() -> Vec<Case> {
    let secure = |shown| starttls(&[say(OFFER_TLS), say(PROCEED), Act::Tls(shown)]);
    let case = |name, shown, word| Case { shown, ..account(name, Way::StartTls, &secure(shown), word) };
    let direct = |name, shown, word| Case { shown, ..account(name, Way::Direct, &[Act::Tls(shown)], word) };
    vec![
        case("a certificate nobody vouches for", Shown::Untrusted, UNTRUSTED),
        case("a certificate whose time is over", Shown::Expired, EXPIRED),
        case("a certificate of another name", Shown::OtherName, Told::Admin(&["TLS with", "elsewhere.test"])),
        direct("direct: nobody vouches", Shown::Untrusted, UNTRUSTED),
        direct("direct: time is over", Shown::Expired, EXPIRED),
        direct("direct: another name", Shown::OtherName, Told::Admin(&["TLS with", "elsewhere.test"])),
        account("no TLS where it has to be", Way::Direct, &[say(STREAM)], Told::Admin(&["TLS with"])),
        account("TLS that is only noise", Way::Direct, &[Act::Flood("\u{16}\u{3}\u{3}#")], Told::Admin(&["TLS with"])),
    ]
}

fn downgrade() -> Vec<Case> {
    let offer = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
        <mechanism>PLAIN</mechanism></mechanisms></stream:features>";
    let injected = |what: &str| starttls(&[say(OFFER_TLS), say(&format!("{PROCEED}{what}")), Act::Tls(Shown::Good)]);
    let plain = &secured(&["PLAIN"], &[]);
    vec![
        account("no offer of TLS", Way::StartTls, &starttls(&[say("<stream:features/>")]), NO_TLS),
        account("PLAIN instead of TLS", Way::StartTls, &starttls(&[say(offer)]), NO_TLS),
        account(
            "TLS refused",
            Way::StartTls,
            &starttls(&[say(OFFER_TLS), say("<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")]),
            NO_TLS,
        ),
        account("login without TLS", Way::StartTls, &starttls(&[say(SUCCESS)]), Told::Admin(&["did not send TLS"])),
        account(
            "stanzas behind <proceed/>",
            Way::StartTls,
            &injected("<presence from='alice@example.test'/>"),
            INJECTED,
        ),
        account("features behind <proceed/>", Way::StartTls, &injected(offer), INJECTED),
        account("a space behind <proceed/>", Way::StartTls, &injected(" "), INJECTED),
        account("only PLAIN, not verified", Way::Unverified, plain, NO_LOGIN),
        account("nothing to log in by", Way::Direct, &secured(&[], &[]), NO_LOGIN),
        account("only what is weak", Way::Direct, &secured(&["DIGEST-MD5", "X-PLAIN", "ANONYMOUS"], &[]), NO_LOGIN),
    ]
}

fn sasl() -> Vec<Case> {
    let first = |data: &str| scram(&[Act::Sasl("challenge", data.to_owned())]);
    let last = |element, data: &str| challenged(&[Act::Sasl(element, data.to_owned())]);
    let rounds = Told::Admin(&["the server wants", "rounds of SCRAM"]);
    let case =
        |name, acts: Vec<Act>, told| Case { unsaid: &[PLAIN, "probe"], ..account(name, Way::Direct, &acts, told) };
    vec![
        case("a forged signature", last("success", "v=rmF9pqV8S7suAoZWja4dJRkFsKQ="), UNPROVEN),
        case("an empty signature", last("success", "v="), UNPROVEN),
        case("a forged signature as a challenge", last("challenge", "v=rmF9pqV8S7suAoZWja4dJRkFsKQ="), UNPROVEN),
        case("success without a signature", challenged(&[say(SUCCESS)]), UNPROVEN),
        case("success at once", scram(&[say(SUCCESS)]), UNPROVEN),
        case("success, a stream and a presence at once", scram(&[say(SUCCESS), say(STREAM), say(BOUND)]), UNPROVEN),
        case(
            "a nonce of its own",
            first("r=fyko,s=QSXCR+Q6sek8bf92,i=4096"),
            Told::Admin(&["nonce does not extend ours"]),
        ),
        case("our nonce only", first("r=@,s=QSXCR+Q6sek8bf92,i=4096"), Told::Admin(&["nonce does not extend ours"])),
        case("a billion rounds", first("r=@x,s=QSXCR+Q6sek8bf92,i=1000000000"), rounds),
        case("more rounds than a number holds", first("r=@x,s=QSXCR+Q6sek8bf92,i=99999999999999999999"), NO_SASL),
        case("one round", first("r=@x,s=QSXCR+Q6sek8bf92,i=1"), rounds),
        case("an extension that must be understood", first("m=x,r=@x,s=QSXCR+Q6sek8bf92,i=4096"), NO_SASL),
        case("a challenge without salt", first("r=@x,i=4096"), NO_SASL),
        case("an empty challenge", first(""), NO_SASL),
        case("the same challenge again", last("challenge", CHALLENGE), UNPROVEN),
    ]
}

/// Features with SASL2, and the client's `<authenticate/>` came.
fn authenticated(mechanism: &str, more: &[Act]) -> Vec<Act> {
    let features = format!(
        "<stream:features><authentication xmlns='urn:xmpp:sasl:2'><mechanism>{mechanism}</mechanism><inline>\
         <bind xmlns='urn:xmpp:bind:0'/><fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-NONE</mechanism></fast>\
         </inline></authentication></stream:features>"
    );
    let begin = [Act::Tls(Shown::Good), Act::Hear("<stream:stream"), Act::Hear(">"), say(STREAM), say(&features)];
    [&begin, &[Act::Hear("</initial-response>")][..], more].concat()
}

/// SASL2's success with this inside, and what came with it in the same write.
fn success2(address: &str, inside: &str, behind: &str) -> Act {
    let address = format!("<authorization-identifier>{address}</authorization-identifier>");
    let bound = "<bound xmlns='urn:xmpp:bind:0'/>";
    say(&format!("<success xmlns='urn:xmpp:sasl:2'>{address}{inside}{bound}</success>{behind}"))
}

const OURSELVES: &str = "webstatus0@example.test/7";
const HER: &str = "<presence from='alice@example.test/a'/><iq type='result' id='q1' from='alice@example.test'>\
    <query xmlns='jabber:iq:last' seconds='0'/></iq><iq type='result' id='q4' from='example.test'/>";
const REFUSED: &str = "<presence from='bob@example.test' type='unsubscribed'/>";

fn sasl2() -> Vec<Case> {
    let forged = "<additional-data>dj1ybUY5cHFWOFM3c3VBb1pXamE0ZEpSa0ZzS1E9</additional-data>";
    let scram = |more: &[Act]| {
        let challenge = [Act::Challenge2(CHALLENGE), Act::Hear("</response>")];
        authenticated("SCRAM-SHA-1", &[&challenge, more].concat())
    };
    let token = "<token xmlns='urn:xmpp:fast:0' token='secret-token' expiry='2040-01-01T00:00:00Z'/>";
    let case = |name, acts: &[Act], told| account(name, Way::Direct, acts, told);
    let plain = |name, text: &str, address| {
        let acts = authenticated("PLAIN", &[Act::Hear("urn:xmpp:ping"), success2(address, "", ""), say(text)]);
        Case { unsaid: &[], ..account(name, Way::Direct, &acts, NOTHING_ABOUT_HER) }
    };
    vec![
        case("SASL2: success without a signature", &scram(&[success2(OURSELVES, "", HER)]), UNPROVEN),
        case("SASL2: a forged signature", &scram(&[success2(OURSELVES, forged, HER)]), UNPROVEN),
        case("SASL2: success at once", &authenticated("SCRAM-SHA-1", &[success2(OURSELVES, forged, HER)]), UNPROVEN),
        case(
            "SASL2: it wants more than a password",
            &scram(&[say("<continue xmlns='urn:xmpp:sasl:2'><tasks><task>TOTP</task></tasks></continue>")]),
            Told::Admin(&["the server did not send a SASL message where it had to"]),
        ),
        plain("SASL2: a challenge after success", "<challenge xmlns='urn:xmpp:sasl:2'/><message/>", OURSELVES),
        plain(
            "SASL2: the address of somebody else",
            "<presence from='alice@example.test/a' to='mallory@example.test/7'/>",
            "mallory@example.test/7",
        ),
        Case {
            first: authenticated("PLAIN", &[Act::Hear("urn:xmpp:ping"), success2(OURSELVES, token, REFUSED)]),
            unsaid: &["secret-token"],
            ..case(
                "FAST: a server that does not have the token",
                &authenticated("PLAIN", &[Act::Hear("urn:xmpp:ping"), success2(OURSELVES, forged, HER)]),
                UNPROVEN,
            )
        },
    ]
}

/// What was offered before is not offered again.
fn changes() -> Vec<Case> {
    let gone = [
        &secured(&["DIGEST-MD5"], &[])[..],
        &[say("<failure xmlns='urn:xmpp:sasl:2'><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>")],
    ];
    vec![
        Case {
            first: authenticated("PLAIN", &[Act::Hear("urn:xmpp:ping"), success2(OURSELVES, "", REFUSED)]),
            unsaid: &[],
            ..account("no SASL2 any more", Way::Direct, &gone.concat(), NO_LOGIN)
        },
        Case {
            first: scram(&[Act::Close]),
            ..account(
                "only PLAIN any more",
                Way::Direct,
                &secured(&["PLAIN"], &[]),
                Told::Admin(&["the server offers only PLAIN now, and offered SCRAM-SHA-1 before"]),
            )
        },
        Case {
            first: open(&[say("<message from='mallory@example.test' to='presence0.example.test'>\
                 <privilege xmlns='urn:xmpp:privilege:2'><perm access='roster' type='both'/></privilege></message>\
                 <message from='elsewhere.test' to='presence0.example.test'>\
                 <privilege xmlns='urn:xmpp:privilege:2'><perm access='roster' type='both'/></privilege></message>\
                 <presence from='bob@example.test' type='unsubscribed' to='OURS'/>")]),
            unsaid: &["jabber:iq:roster"],
            ..component("rosters opened by those who have none", &open(&[say("<message/>")]), NOTHING_ABOUT_HER)
        },
    ]
}

/// Many people at once: what is said to them has bounds, and so has what is kept of them.
fn crowds() -> Vec<Case> {
    let crowd = |stanza: &str| {
        let stanzas: String = (0..3000).map(|number| stanza.replace('#', &number.to_string())).collect();
        open(&[say(&stanzas)])
    };
    let case = |name, stanza: &str, at_most| Case {
        at_most,
        timeout: Duration::from_secs(5),
        ..component(name, &crowd(stanza), NOTHING_ABOUT_HER)
    };
    vec![
        case(
            "requests of strangers",
            "<presence type='subscribe' from='m#@elsewhere.test' to='presence0.example.test'/>",
            ("type='subscribed'", 0),
        ),
        case(
            "requests of ours",
            "<presence type='subscribe' from='m#@example.test' to='presence0.example.test'/>",
            ("type='subscribed'", 200),
        ),
        case(
            "messages of strangers",
            "<message from='m#@elsewhere.test' to='presence0.example.test'><body>off</body></message>",
            ("<message", 0),
        ),
        case(
            "messages of ours",
            "<message from='m#@example.test' to='presence0.example.test'><body>help</body></message>",
            ("<message", 200),
        ),
        case(
            "messages of one of ours",
            "<message from='mallory@example.test' to='presence0.example.test'><body>help #</body></message>",
            ("<message", 20),
        ),
        Case {
            linger: "always",
            ..case(
                "people nobody asked about",
                "<presence from='m#@example.test/a' to='presence0.example.test'><status>#</status></presence>",
                ("probe", 1),
            )
        },
    ]
}

fn lies() -> Vec<Case> {
    let stanza = |name, text: &str| component(name, &open(&[say(text)]), NOTHING_ABOUT_HER);
    // Every question that the client has out, answered by `from` to `to`.
    let answered = |from: &str, to: &str| -> String {
        let reply =
            |id| format!("<iq type='result' id='q{id}' {from} {to}><query xmlns='jabber:iq:last' seconds='9'/></iq>");
        (1..9).map(reply).collect()
    };
    let ours = "to='OURS'";
    let logged_in = |name, text: &str| Case {
        unsaid: &[],
        ..account(name, Way::Direct, &logged_in(&[say(BOUND), say(text)]), NOTHING_ABOUT_HER)
    };
    vec![
        stanza("the presence of somebody else", &format!("<presence from='mallory@example.test/a' {ours}/>")),
        stanza("the presence of a namesake", &format!("<presence from='alice@elsewhere.test/a' {ours}/>")),
        stanza("a presence of nobody", &format!("<presence {ours}/>")),
        stanza("a presence to somebody else", "<presence from='alice@example.test/a' to='other.example.test'/>"),
        stanza(
            "a presence that nobody asked for",
            "<presence from='alice@example.test/a' to='presence0.example.test'/>",
        ),
        stanza(
            "a farewell of somebody else",
            &format!("<presence from='mallory@example.test' type='unavailable' {ours}/>"),
        ),
        stanza(
            "a farewell to somebody else",
            "<presence from='alice@example.test' type='unavailable' to='other.example.test'/>",
        ),
        stanza(
            "a refusal by somebody else",
            &format!("<presence from='mallory@example.test' type='unsubscribed' {ours}/>"),
        ),
        stanza(
            "a refusal to somebody else",
            "<presence from='alice@example.test' type='unsubscribed' to='other.example.test'/>",
        ),
        stanza("replies of somebody else", &answered("from='mallory@example.test'", ours)),
        stanza("replies of nobody", &answered("", ours)),
        stanza("replies to somebody else", &answered("from='alice@example.test'", "to='other.example.test'")),
        stanza(
            "replies to what was not asked",
            &format!("<iq type='result' id='z' from='alice@example.test' {ours}/>"),
        ),
        logged_in("account: the presence of somebody else", "<presence from='mallory@example.test/a'/>"),
        logged_in(
            "account: a presence to somebody else",
            "<presence from='alice@example.test/a' to='bob@example.test'/>",
        ),
        logged_in(
            "account: a farewell to somebody else",
            "<presence from='alice@example.test' type='unavailable' to='bob@example.test'/>",
        ),
        logged_in("account: replies of somebody else", &answered("from='mallory@example.test'", "")),
        logged_in("account: replies to somebody else", &answered("from='alice@example.test'", "to='bob@example.test'")),
    ]
}
