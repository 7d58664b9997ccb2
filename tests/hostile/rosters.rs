//! Rosters that mean harm, of a server that lets us read them: whatever they hold, the memory stays bounded and the
//! answer comes in time.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::leash::{Leash, directory};
use crate::rig::patiently_for;
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{Identity, SECRET};
use crate::server::{Act, Server};
use crate::{MEMORY_KIB, PERSON, most_memory_kib};

/// Time for an answer. The server never sends the pong, so that the memory can be seen meanwhile.
const TIMEOUT: Duration = Duration::from_secs(60);
/// What a busy machine may need beside it, to take megabytes apart eight times side by side.
const SLACK: Duration = Duration::from_secs(10);

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
    xmlns:stream='http://etherx.jabber.org/streams' id='7' from='presence0.example.test'>";
const GRANT: &str = "<message from='example.test' to='presence0.example.test'><privilege xmlns='urn:xmpp:privilege:2'>\
    <perm access='roster' type='get'/></privilege></message>";
/// Behind the roster: from then on nobody waits long for the rest.
const PRESENCE: &str = "<presence from='alice@example.test/home' to='OURS'/>";
/// What a session is answered that asks for no roster.
const REST: &str = "<iq type='error' id='q1' from='alice@example.test' to='presence0.example.test'/>\
    <iq type='error' id='q2' from='alice@example.test' to='presence0.example.test'/>\
    <iq type='error' id='q3' from='example.test' to='presence0.example.test'/>\
    <iq type='result' id='q4' from='example.test' to='presence0.example.test'/>";
/// The fifth IQ: the roster is asked for once the grant is heard, behind what came with the handshake.
const BEGIN: &str = "<iq type='result' id='q5' from='alice@example.test' to='OURS'><query xmlns='jabber:iq:roster'>";
const END: &str = "</query></iq>";

/// The most memory that the command takes beside a roster of these acts; one of its lines begins with `told`. It takes
/// so many sessions.
fn memory_kib(name: &str, roster: &[Act], told: &str, sessions: usize) -> u64 {
    let say = |text: &str| Act::Say(text.to_owned());
    let login = [Act::Hear("<stream:stream"), Act::Hear(">"), say(HEADER), Act::Hear("urn:xmpp:ping")];
    let granted = [say("<handshake/>"), say(GRANT), Act::Hear("jabber:iq:roster"), say(BEGIN)];
    let first = [&login[..], &granted, roster, &[say(PRESENCE)]].concat();
    let second = [&login[..], &[say("<handshake/>"), say(GRANT), say(REST)]].concat();
    let server = Server::start(first, second);
    let installed = installed(server.port);
    // What the leash holds goes with the program.
    let printed = tempfile::NamedTempFile::new().expect("a file");
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" probe --config \"$1\" \"$2\" >\"$3\"", env!("CARGO_BIN_EXE_webpresence")]);
    command.arg(&installed.config).arg(PERSON).arg(printed.path());
    let (begun, mut most) = (Instant::now(), 0);
    let mut leash = Leash::start(directory("probe"), None, &mut command, &[]);
    let ended = patiently_for(TIMEOUT + SLACK, || {
        most = most.max(most_memory_kib(&leash).unwrap_or(0));
        leash.ended()
    });
    assert!(ended.is_some() && begun.elapsed() < TIMEOUT + SLACK, "{name}: {:?}", begun.elapsed());
    let log = fs::read_to_string(printed.path()).expect("printed");
    assert!(log.lines().any(|line| line.trim_start().starts_with(told)), "{name}: {told} is not in\n{log}");
    assert_eq!(server.visits(), sessions, "{name}");
    most
}

fn installed(port: u16) -> Webpresence {
    let identity = Identity::Component(0);
    let jid = identity.jid();
    let xmpp = format!("[xmpp]\njid = {jid}\npassword = {SECRET}\nhost = 127.0.0.1\nport = {port}\n");
    let installed = Webpresence::written(identity, &format!("{xmpp}timeout = {}\n", TIMEOUT.as_secs()), "");
    installed.configure(&installed.configuration().replace("visibility = anyone", "visibility = subscribers"));
    installed
}

#[test]
fn no_roster_gets_more_than_its_memory() {
    let items = |item: &str, many: usize| {
        let items: String = (0..many).map(|number| item.replace('#', &number.to_string())).collect();
        [Act::Say(items + END)]
    };
    let friend = "<item jid='u#@e.test' subscription='from'/>";
    let nobody = "0 people may see this, by the roster";
    let rows = [
        ("a few", items(friend, 3), "3 people may see this, by the roster", 1),
        ("too many people", items(friend, 42_000), "40000 people may see this, by the roster", 1),
        ("nobody at all, many times", items("<item/>", 130_000), nobody, 1),
        ("more than two megabytes", items(friend, 60_000), nobody, 1),
        ("more than a session may cost", items(friend, 100_000), nobody, 1),
        ("items in items", [Act::Say(format!("{}{}{END}", "<item>".repeat(500), "</item>".repeat(500)))], nobody, 1),
        ("a long name", items(&format!("<item name='{}'/>", "x".repeat(65_536)), 1), nobody, 2),
        ("no end", [Act::Flood(friend)], nobody, 2),
    ];
    let took: Vec<(&str, u64)> = thread::scope(|scope| {
        let run =
            |(name, roster, told, sessions)| scope.spawn(move || (name, memory_kib(name, roster, told, sessions)));
        let rows: Vec<_> = rows.iter().map(|(name, acts, told, n)| run((*name, acts, *told, *n))).collect();
        rows.into_iter().map(|row| row.join().expect("it has passed")).collect()
    });
    let (_, usual) = took[0];
    for (name, memory) in took {
        let more = memory.saturating_sub(usual);
        assert!(more < MEMORY_KIB, "{name}: {more} KiB more memory");
    }
}
