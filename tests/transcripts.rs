//! The session against servers as they were measured: each file in `transcripts/` is one conversation, what one side
//! says and what the other must make of it. Every file is played as it is written, and then as networks and servers
//! spoil it. `UPDATE_TRANSCRIPTS=1` writes down what the session does now; read what it changed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use webpresence::probe::session::Step;
use webpresence::probe::{Answer, Failure, Why};

#[path = "transcripts/replay.rs"]
mod replay;

use replay::{Cut, Replay, Told, server_says};

#[test]
fn the_session_does_what_the_transcripts_say() {
    let update = std::env::var_os("UPDATE_TRANSCRIPTS").is_some();
    for (path, script) in transcripts() {
        if update {
            std::fs::write(&path, account_of(&script, Cut::Nowhere)).expect("a writable folder");
        } else {
            check(&path, &script, Cut::Nowhere);
        }
    }
}

#[test]
fn one_byte_at_a_time_changes_nothing() {
    for (path, script) in transcripts() {
        check(&path, &script, Cut::Everywhere);
    }
}

#[test]
fn no_cut_into_two_pieces_changes_anything() {
    for (index, (path, script)) in transcripts().into_iter().enumerate() {
        let longest = Replay::of(&script, Cut::Nowhere).0.longest;
        // Fewer where a password costs thousands of hashes or a flood its bytes; other places in each file.
        let step = match longest {
            4000.. => 100_003,
            _ if script.contains("<challenge") => 1201,
            1000.. => 61,
            _ => 7,
        };
        for at in (1 + index * 13 % step.min(longest)..longest).step_by(step) {
            check(&path, &script, Cut::After(at));
        }
    }
}

/// The server falls silent after each of its lines: by the deadline every question has its answer, and before it
/// none that the lines so far do not bear out.
#[test]
fn silence_at_every_stage() {
    for (path, script) in transcripts() {
        for (stage, _) in server_lines(&script) {
            let context = format!("{}, silent after line {}", path.display(), stage + 1);
            let script: String = script.lines().take(stage + 1).flat_map(|line| [line, "\n"]).collect();
            let (mut replay, _) = Replay::of(&script, Cut::Nowhere);
            wait_to_the_end(&mut replay, &context);
            for Told { answer, at_deadline, .. } in &replay.answers {
                assert!(
                    is_borne_out(answer, *at_deadline, &replay),
                    "{context}: {answer:?}, in the end: {at_deadline}"
                );
            }
        }
    }
}

fn wait_to_the_end(replay: &mut Replay, context: &str) {
    let mut steps = 0;
    while replay.failure.is_none() && !replay.asked.is_empty() {
        let soonest = replay.asked.iter().map(|(_, until)| *until).min().expect("there are questions");
        let Some(Step::Wait(Some(then))) = replay.drive() else { panic!("{context}: nothing is awaited") };
        assert!(replay.asked.is_empty() || replay.now < then && then <= soonest, "{context}: waits until {then:?}");
        replay.now = then;
        replay.drive();
        steps += 1;
        assert!(steps < 10, "{context}: time does not pass");
    }
}

/// What the server must have said for an answer; silence is read only from a server that is there.
fn is_borne_out(answer: &Result<Answer, Failure>, at_deadline: bool, replay: &Replay) -> bool {
    let heard = |what: &str| replay.heard.contains(what);
    // Only the server itself can send either.
    let is_answered = |id: &str| heard(&format!("id='{id}'"));
    let asked = |query| ids(&replay.said, query);
    let roster = asked("<query xmlns='jabber:iq:roster'/>").any(is_answered);
    let pong = || roster || asked("<ping xmlns='urn:xmpp:ping'/>").any(is_answered);
    match answer {
        Err(Failure::Silent) => at_deadline,
        Err(Failure::RosterLate) => at_deadline || !asked("<query xmlns='jabber:iq:roster'/>").all(is_answered),
        Err(Failure::RemoteUnreachable) => heard("<remote-server-"),
        Err(Failure::Hidden) => heard("<query xmlns='http://jabber.org/protocol/disco#items'"),
        Err(_) => false,
        Ok(answer) => match answer.why {
            Why::Present => heard("<presence "),
            Why::SaidOffline => heard("type='unavailable'"),
            Why::LastActivity => heard("jabber:iq:last") && heard("seconds="),
            Why::Silence(_) => pong(),
            Why::Pending => pong() && heard("<error"),
            Why::Chosen => false,
            Why::Refused => heard("unsubscribed") || heard("<forbidden") || heard("<not-authorized"),
            Why::NoConsent(_) => {
                let told = ["<subscription-required", "<forbidden"];
                pong() && (roster || told.iter().any(|word| heard(word)))
            }
            Why::NotFound => heard("<item-not-found") || heard("<presence type='error'"),
            Why::NoOtherClient => pong(),
            Why::Service => heard("category=") || heard("<presence ") || pong(),
            Why::NotRunning => heard("<remote-server-") || at_deadline && (pong() || heard("<presence type='error'")),
        },
    }
}

/// The ids of our IQs that hold this.
fn ids<'a>(said: &'a str, query: &'a str) -> impl Iterator<Item = &'a str> {
    let queries = said.split("<iq").filter(move |iq| iq.contains(query));
    queries.filter_map(|iq| iq.split(" id='").nth(1)?.split('\'').next())
}

/// The server ends the stream at every stage, with a reason and without.
#[test]
fn the_end_of_the_stream_at_every_stage() {
    const XMLNS: &str = "xmlns='urn:ietf:params:xml:ns:xmpp-streams'";
    for (path, script) in transcripts().into_iter().filter(|(_, script)| !script.contains("\nfailure: ")) {
        for (stage, line) in server_lines(&script) {
            let before: String = script.lines().take(stage).flat_map(|line| [line, "\n"]).collect();
            // A stream error needs a stream (RFC 6120, 4.9.1.2).
            let header = if line.contains("<stream:stream") { line.as_str() } else { "" };
            for condition in ["conflict", "not-authorized", "host-unknown", "system-shutdown", ""] {
                let (mut replay, _) = Replay::of(&before, Cut::Nowhere);
                let error = format!("<stream:error><{condition} {XMLNS}/></stream:error>");
                let error = if condition.is_empty() { "</stream:stream>" } else { &error };
                let expected = ended(condition, &replay, &before);
                replay.receive(format!("{header}{error}").as_bytes());
                let place = format!("{}, {error} instead of line {}", path.display(), stage + 1);
                assert_eq!(replay.failure, Some(expected), "{place}");
            }
        }
    }
}

/// What a stream error means after what `before` says.
fn ended(condition: &str, replay: &Replay, before: &str) -> Failure {
    let said = |what: &str| replay.said.matches(what).count();
    let logged_in = replay.session.is_open() || said("<stream:stream ") > 1 + said("<starttls ");
    let logins = said("<auth ") + said("<authenticate ");
    // What was sent before the server could have asked for it.
    let login_ahead = logins > 0 && !logged_in && before.contains("\nC+: <auth");
    let asked_ahead = said(" id='q1'") > 0 && said("<handshake>") == 0;
    let hasty = (login_ahead || asked_ahead) && !replay.session.is_open();
    match condition {
        "conflict" => Failure::Conflict,
        "" if hasty && logins > 1 => Failure::TooHasty,
        "not-authorized" if hasty => Failure::TooHasty,
        "not-authorized" if !logged_in => Failure::LoginRefused(condition.to_owned()),
        "host-unknown" if !logged_in => Failure::NameUnknown(condition.to_owned()),
        _ => Failure::StreamEnded(condition.to_owned()),
    }
}

/// Everything that the server says in an open session, it says twice.
#[test]
fn a_doubled_stanza_changes_nothing() {
    for (path, script) in transcripts() {
        // Each of these wants its own answer.
        let answered = |line: &str| line.contains("type='unsubscribe'");
        let told = |line: &str| line.starts_with("S: <presence") || line.starts_with("S: <iq type='result'");
        let double = |line: &str| match told(line) && !answered(line) {
            true => format!("{line}\n{line}\n"),
            false => format!("{line}\n"),
        };
        let doubled: String = script.lines().map(double).collect();
        check(&path, &doubled, Cut::Nowhere);
    }
}

/// Every transcript: where it is and what it says.
fn transcripts() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let entries =
        folder.read_dir().expect("the folder of the transcripts").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "txt")).collect();
    paths.sort();
    assert!(paths.len() > 50, "there are more transcripts than {}", paths.len());
    let read =
        |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// The lines of the server, by their index in the script.
fn server_lines(script: &str) -> impl Iterator<Item = (usize, String)> {
    script.lines().enumerate().filter_map(|(index, line)| Some((index, server_says(line)?)))
}

/// Plays a transcript and tells everything that the session does, and what is left of it.
fn account_of(script: &str, cut: Cut) -> String {
    let (replay, account) = Replay::of(script, cut);
    account + &replay.learned()
}

/// Plays a transcript and compares everything that the session does.
fn check(path: &Path, script: &str, cut: Cut) {
    let account = account_of(script, cut);
    let path = path.display();
    assert!(account == script, "{path}, cut {cut:?}: expected\n{script}\ngot\n{account}");
}

/// A component with two questions out. The rest is up to chance.
const LOGIN: &str = "identity: component presence.example.com password=secret server=auto
ask 1 bob@example.com
ask 2 carol@example.com
S: <stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='7'>
S: <handshake/>
";

const SERVERS: [&str; 5] = ["auto", "prosody", "ejabberd", "openfire", "other"];
const SENDERS: [&str; 6] = [
    "bob@example.com",
    "bob@example.com/a",
    "bob@example.com/b",
    "eve@example.com/a",
    "example.com",
    "bob@evil.example",
];
const RECEIVERS: [&str; 4] = ["", "to='presence.example.com'", "to='presence.example.com/x'", "to='other.example.com'"];
const STANZAS: [&str; 16] = [
    "<presence ADDRESS/>",
    "<presence ADDRESS><show>away</show><priority>-5</priority><status>x</status></presence>",
    "<presence ADDRESS><show>dnd</show><show>chat</show><priority>abc</priority></presence>",
    "<presence ADDRESS type='unavailable'><status>bye</status></presence>",
    "<presence ADDRESS type='unsubscribed'/>",
    "<presence ADDRESS type='subscribed'/>",
    "<presence ADDRESS type='probe'/>",
    "<presence ADDRESS type='error'><error type='auth'><forbidden xmlns='NS'/></error></presence>",
    "<presence ADDRESS type='error'/>",
    "<iq ADDRESS type='result'/>",
    "<iq ADDRESS type='result'><query xmlns='jabber:iq:last' seconds='5'>bye</query></iq>",
    "<iq ADDRESS type='result'><query xmlns='jabber:iq:version'><name>ejabberd</name></query></iq>",
    "<iq ADDRESS type='result'><query xmlns='http://jabber.org/protocol/disco#info'>\
     <identity category='account' type='registered'/></query></iq>",
    "<iq ADDRESS type='error'><error type='cancel'><remote-server-timeout xmlns='NS'/></error></iq>",
    "<iq ADDRESS type='error'><error type='auth'><subscription-required xmlns='NS'/></error></iq>",
    "<iq ADDRESS type='get'><ping xmlns='urn:xmpp:ping'/></iq>",
];

fn stanza() -> impl Strategy<Value = String> {
    let parts = (select(&STANZAS[..]), select(&SENDERS[..]), select(&RECEIVERS[..]), 1..9_u8);
    parts.prop_map(|(stanza, from, to, id)| {
        let address = format!("id='q{id}' from='{from}' {to}");
        stanza.replace("ADDRESS", &address).replace("NS", "urn:ietf:params:xml:ns:xmpp-stanzas")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Somebody whom no stanza mentions is known by nothing but silence, whatever comes in about others.
    #[test]
    fn nobody_is_seen_whom_no_stanza_mentions(
        server in select(&SERVERS[..]),
        stanzas in vec((stanza(), 0..300_u64), 0..24),
    ) {
        let (mut replay, _) = Replay::of(&LOGIN.replace("auto", server), Cut::Nowhere);
        for (stanza, pause_ms) in &stanzas {
            replay.pass(Duration::from_millis(*pause_ms));
            replay.receive(stanza.as_bytes());
        }
        prop_assert_eq!(&replay.failure, &None);
        wait_to_the_end(&mut replay, &format!("{stanzas:?}"));
        prop_assert_eq!(replay.answers.len(), 2);
        for told in &replay.answers {
            let who = if told.id == 1 { "from='bob@example.com" } else { "from='carol@example.com" };
            let mentioned = stanzas.iter().any(|(stanza, _)| stanza.contains(who));
            prop_assert!(mentioned || is_silence(&told.answer), "{}: {:?}", who, told.answer);
        }
    }

    /// Bytes of any kind, at any stage, end in an error or in silence.
    #[test]
    fn random_bytes_prove_nothing(lines in 1..6_usize, bytes in vec(byte(), 0..400), piece in 1..400_usize) {
        let begin: String = LOGIN.lines().take(lines).flat_map(|line| [line, "\n"]).collect();
        let (mut replay, _) = Replay::of(&begin, Cut::Nowhere);
        for piece in bytes.chunks(piece) {
            replay.receive(piece);
        }
        wait_to_the_end(&mut replay, &format!("{bytes:?}"));
        let silent = replay.answers.iter().all(|told| told.answer == Err(Failure::Silent));
        prop_assert!(silent, "{:?}", bytes);
    }
}

/// An account whose server offered SCRAM before, and gave a token. The signature that proves it is never sent.
const ENTRY: &str = "identity: account user@example.com password=pencil security=direct nonce=fyko+d2lbbFgONRv9qkxdawL
known: login {\"offer\":{\"sasl2\":[\"SCRAM-SHA-1\"],\"fast\":[\"HT-SHA-256-NONE\"],\"proved\":true},TOKEN\"strongest\":\"SCRAM-SHA-1\"}
ask 1 bob@example.com
S: <stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='7'>
";
const TOKEN: &str =
    "\"token\":{\"mechanism\":\"HT-SHA-256-NONE\",\"secret\":\"secret-token\",\"expires_s\":2000000000},";

const LURES: [&str; 12] = [
    "<stream:features><mechanisms xmlns='SASL'><mechanism>PLAIN</mechanism></mechanisms></stream:features>",
    "<stream:features><authentication xmlns='urn:xmpp:sasl:2'><mechanism>PLAIN</mechanism><inline>\
     <bind xmlns='urn:xmpp:bind:0'/></inline></authentication></stream:features>",
    "<stream:features><authentication xmlns='urn:xmpp:sasl:2'><mechanism>SCRAM-SHA-1</mechanism><inline>\
     <bind xmlns='urn:xmpp:bind:0'/></inline></authentication></stream:features>",
    "<challenge xmlns='urn:xmpp:sasl:2'>cj1meWtvK2QybGJiRmdPTlJ2OXFreGRhd0wzcmZjTkhZSlkxWlZ2V1ZzN2oscz1RU1hDUitRNnNlazhiZjkyLGk9NDA5Ng==</challenge>",
    "<challenge xmlns='SASL'>cj1meWtvK2QybGJiRmdPTlJ2OXFreGRhd0wzcmZjTkhZSlkxWlZ2V1ZzN2oscz1RU1hDUitRNnNlazhiZjkyLGk9NDA5Ng==</challenge>",
    "<challenge xmlns='urn:xmpp:sasl:2'/>",
    "<success xmlns='urn:xmpp:sasl:2'><bound xmlns='urn:xmpp:bind:0'/></success>",
    "<success xmlns='urn:xmpp:sasl:2'><additional-data>dj1BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE9</additional-data>\
     <bound xmlns='urn:xmpp:bind:0'/></success>",
    "<success xmlns='SASL'/>",
    "<failure xmlns='urn:xmpp:sasl:2'><invalid-mechanism xmlns='SASL'/></failure>",
    "<presence from='bob@example.com/a'/>",
    "<iq id='q3' from='example.com' type='result'/>",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// Whatever somebody in the middle says, he is not believed, and not told the password.
    #[test]
    fn without_proof_nobody_gets_in(token in any::<bool>(), lures in vec(select(&LURES[..]), 0..8)) {
        let entry = ENTRY.replace("TOKEN", if token { TOKEN } else { "" });
        let (mut replay, _) = Replay::of(&entry, Cut::Nowhere);
        for lure in &lures {
            replay.receive(lure.replace("SASL'", "urn:ietf:params:xml:ns:xmpp-sasl'").as_bytes());
        }
        wait_to_the_end(&mut replay, &format!("{lures:?}"));
        prop_assert!(!replay.session.is_open() && !replay.said.contains("PLAIN"), "{}", replay.said);
        let silent = replay.answers.iter().all(|told| told.answer == Err(Failure::Silent));
        prop_assert!(silent, "{:?}", lures);
    }
}

fn is_silence(answer: &Result<Answer, Failure>) -> bool {
    match answer {
        Ok(answer) => matches!(answer.why, Why::Silence(_)),
        Err(failure) => matches!(failure, Failure::Silent | Failure::RemoteUnreachable),
    }
}

/// Any byte, more often one that means something in XML.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), select(b"<>/='\" &;!?-[]abc\n".to_vec())]
}
