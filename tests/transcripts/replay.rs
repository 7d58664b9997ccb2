//! Plays one transcript: it stands for the server, the network and the clock of a session, and writes down what the
//! session does, so that the account can be compared with the file as a whole. A line says what the world does
//! (`identity`, `known`, `ask`, `ask-picture`, `subscribe`, `S`, `after`) or what the session does in return (everything else).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jid::BareJid;
use tokio::time::Instant;
use webpresence::config::{Access, DomainPattern, Identity, Privacy, Secret, Security, ServerKind, TlsLibrary};
use webpresence::presence::{Picture, Rule, State, Texts};
use webpresence::probe::avatar;
use webpresence::probe::errand::Roster;
use webpresence::probe::facts::Facts;
use webpresence::probe::login::Bindings;
use webpresence::probe::session::{Session, Step};
use webpresence::probe::{Answer, Clock, Event, Failure};

/// How long a question may take, by the fake clock.
const TIMEOUT: Duration = Duration::from_secs(5);

/// When a transcript begins, in seconds since 1970.
const EPOCH_S: u64 = 1_700_000_000;

/// How the server's bytes arrive.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// What the file lists without a line of ours in between comes in one piece.
    Nowhere,
    /// Every byte on its own.
    Everywhere,
    /// Everything that would come in one piece comes in two, the first of so many bytes.
    After(usize),
}

/// One answer of the session.
pub struct Told {
    pub id: u64,
    pub answer: Result<Answer, Failure>,
    /// Only the deadline brought it.
    pub at_deadline: bool,
}

/// A session and its surroundings.
pub struct Replay {
    pub session: Session,
    pub now: Instant,
    pub failure: Option<Failure>,
    /// Everything the session wrote.
    pub said: String,
    /// Everything the server sent.
    pub heard: String,
    /// Bytes of the longest piece.
    pub longest: usize,
    /// Questions and their deadlines, until they are answered.
    pub asked: Vec<(u64, Instant)>,
    /// The answers so far.
    pub answers: Vec<Told>,
    /// Questions that want a picture, with the answer while it is fetched.
    pictured: Vec<(u64, BareJid, Option<Answer>)>,
    jid: BareJid,
    bindings: Bindings,
    cut: Cut,
    unsaid: String,
    settled: Vec<String>,
    was_open: bool,
    round_trips: usize,
    awaits_reply: bool,
}

impl Replay {
    /// Plays `script` to its end. Returns where that leads, and the account.
    pub fn of(script: &str, cut: Cut) -> (Replay, String) {
        let (mut replay, mut account, mut piece) = (Replay::new(script, cut), String::new(), String::new());
        for line in script.lines() {
            let word = line.split([':', '*', ' ']).next().filter(|_| !line.is_empty()).unwrap_or("#");
            if !piece.is_empty() && !matches!(word, "S" | "#") {
                replay.arrive(&std::mem::take(&mut piece));
                replay.act(&mut account);
            }
            match word {
                "S" => {
                    if piece.is_empty() {
                        replay.act(&mut account);
                    }
                    piece.push_str(&server_says(line).expect("this is such a line"));
                }
                "ask" | "ask-picture" | "ask-pending" | "ask-watched" | "subscribe" | "unsubscribe" => replay.put(line),
                "collect" | "welcome" | "ask-back" | "say" => replay.order(line),
                "after" => {
                    replay.act(&mut account);
                    replay.pass(milliseconds(line));
                }
                "wait" => {
                    replay.wait(&mut account);
                    continue;
                }
                "#" | "identity" | "known" => {}
                // What the session does is written anew.
                _ => {
                    replay.act(&mut account);
                    continue;
                }
            }
            account.push_str(line);
            account.push('\n');
        }
        replay.arrive(&piece);
        replay.act(&mut account);
        for (id, _) in replay.asked.iter().filter(|_| replay.failure.is_none()) {
            account.push_str(&format!("unanswered: {id}\n"));
        }
        account.push_str(&format!("round trips: {}\n", replay.round_trips));
        (replay, account)
    }

    fn new(script: &str, cut: Cut) -> Replay {
        let identity = script.lines().find_map(|line| line.strip_prefix("identity: ")).expect("an identity");
        let (identity, nonce, bindings) = read_identity(identity);
        let now = Instant::now();
        let mut facts = remembered(script, &identity.jid, now);
        for known in script.lines().filter_map(|line| line.strip_prefix("known: ")) {
            match known.split_once(' ').expect("a fact") {
                ("login", _) => {}
                ("consent", jid) => facts.learn_consent(&bare(jid), now),
                (domain, "roster") => facts.server_mut(domain).roster = true,
                (domain, "accounts") => facts.learn_accounts(domain, EPOCH_S),
                (domain, "wants-presence") => facts.server_mut(domain).wants_presence = true,
                (domain, kind) => facts.learn_kind(domain, server(kind).expect("a kind of server"), EPOCH_S),
            }
        }
        // The TCP connection is the first round trip, direct TLS 1.3 the second.
        let direct = !identity.is_component() && identity.security == Security::Direct;
        let round_trips = if direct { 2 } else { 1 };
        let mut session = Session::new(&identity, facts, nonce, Clock { at: now, epoch_s: EPOCH_S });
        session.connected(direct.then(|| bindings.clone()));
        Replay {
            session,
            jid: identity.jid,
            bindings,
            now,
            failure: None,
            said: String::new(),
            heard: String::new(),
            longest: 0,
            asked: Vec::new(),
            answers: Vec::new(),
            pictured: Vec::new(),
            cut,
            unsaid: String::new(),
            settled: Vec::new(),
            was_open: false,
            round_trips,
            awaits_reply: false,
        }
    }

    /// What an account's next login would build on.
    pub fn learned(self) -> String {
        let facts = self.session.into_facts().write(self.now, 0);
        let mut facts: serde_json::Value = serde_json::from_str(&facts).expect("JSON");
        match facts["accounts"][self.jid.as_str()].take() {
            serde_json::Value::Null => String::new(),
            account => format!("learned: {account}\n"),
        }
    }

    fn put(&mut self, line: &str) {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        let (id, jid, until) = (words[1].parse().expect("an id"), bare(words[2]), self.now + TIMEOUT);
        let roster = if words.get(3) == Some(&"viewers") { Roster::Wanted } else { Roster::Unwanted };
        self.asked.push((id, until));
        match words[0] {
            "ask" => self.session.ask(id, jid, roster, until),
            "ask-picture" => {
                self.pictured.push((id, jid.clone(), None));
                self.session.ask(id, jid, roster, until);
            }
            "ask-watched" => self.session.errands().ask_watched(id, jid, until),
            "ask-pending" => self.session.ask_pending(id, jid, roster, until),
            "unsubscribe" => self.session.unsubscribe(id, jid, until),
            _ => self.session.subscribe(id, jid, until),
        }
    }

    /// What the holder of the session has it do, beside questions.
    fn order(&mut self, line: &str) {
        let (now, words, errands) = (self.now, line.splitn(3, ' ').collect::<Vec<_>>(), self.session.errands());
        match words.as_slice() {
            ["collect"] => errands.collect(now),
            ["welcome", jid] => errands.welcome(&bare(jid)),
            ["ask-back", jid] => errands.ask_back(&bare(jid)),
            ["say", jid, text] => errands.say(&bare(jid), text),
            _ => panic!("{line}"),
        }
    }

    /// The server's bytes, in the pieces that were wished.
    pub fn arrive(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.round_trips += usize::from(std::mem::take(&mut self.awaits_reply));
        self.heard.push_str(text);
        self.longest = self.longest.max(text.len());
        let cuts = match self.cut {
            Cut::Nowhere => 0..0,
            Cut::Everywhere => 1..text.len(),
            Cut::After(bytes) => bytes..text.len().min(bytes + 1),
        };
        let mut done = 0;
        for end in cuts.chain([text.len()]) {
            self.receive(&text.as_bytes()[done..end]);
            done = end;
        }
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        if self.failure.is_some() {
            return;
        }
        match self.session.receive(bytes, self.now) {
            Err(failure) => {
                self.failure = Some(failure.clone());
                self.settled.push(format!("failure: {failure:?}\n"));
            }
            Ok(()) => drop(self.drive()),
        }
    }

    /// Does what the session wants, but for TLS. Returns its last wish.
    pub fn drive(&mut self) -> Option<Step> {
        if self.failure.is_some() {
            return None;
        }
        loop {
            let step = self.session.step(self.now);
            self.collect();
            // What was allowed to be fetched goes out at once.
            let step = match step {
                Step::Wait(_) if self.session.is_open() && self.session.errands().has_unsent() => continue,
                step => step,
            };
            match step {
                Step::Send(bytes) => {
                    self.unsaid.push_str(std::str::from_utf8(&bytes).expect("XML is UTF-8"));
                }
                step => return Some(step),
            }
        }
    }

    fn collect(&mut self) {
        for event in self.session.errands().events() {
            self.settled.push(match event {
                Event::Offer(jid) => format!("event: offer {jid}\n"),
                Event::Order(jid, order) => format!("event: order {jid} {order:?}\n"),
                Event::Consented(jid) => format!("event: consented {jid}\n"),
                Event::Changed(jid, p) => {
                    let text = p.texts.choose(&[]).map(|text| format!(" {text:?}")).unwrap_or_default();
                    format!("event: changed {jid} {}{text}\n", p.state.name())
                }
            });
        }
        for (id, answer) in self.session.answers(self.now) {
            if self.fetches_picture(id, &answer) {
                continue;
            }
            let until = self.settle(id, told(id, &answer));
            self.answers.push(Told { id, answer, at_deadline: self.now >= until });
        }
        for (id, picture) in self.session.pictures(self.now) {
            let place = self.pictured.iter().position(|(asked, _, _)| *asked == id).expect("it was asked for");
            let answer = Ok(self.pictured.swap_remove(place).2.expect("it was allowed"));
            let until = self.settle(id, told(id, &answer) + &shown(picture));
            self.answers.push(Told { id, answer, at_deadline: self.now >= until });
        }
        for (id, consent) in self.session.consents(self.now) {
            self.settle(
                id,
                match consent {
                    Ok(consent) => format!("consent {id}: {consent:?}\n"),
                    Err(failure) => format!("failure {id}: {failure:?}\n"),
                },
            );
        }
    }

    /// Somebody who may be shown is asked for his picture, if the question wants one.
    fn fetches_picture(&mut self, id: u64, answer: &Result<Answer, Failure>) -> bool {
        let Some((_, jid, seen)) = self.pictured.iter_mut().find(|(asked, _, _)| *asked == id) else { return false };
        let Some(answer) = answer.as_ref().ok().filter(|answer| avatar::is_allowed(answer)) else { return false };
        *seen = Some(answer.clone());
        let until = self.asked.iter().find(|(asked, _)| *asked == id).map_or(self.now, |(_, until)| *until);
        self.session.fetch_picture(id, jid.clone(), until);
        true
    }

    /// Returns when the question had to be settled.
    fn settle(&mut self, id: u64, outcome: String) -> Instant {
        let place = self.asked.iter().position(|(asked, _)| *asked == id);
        let (_, until) = self.asked.remove(place.unwrap_or_else(|| panic!("nobody asked: {outcome}")));
        self.settled.push(outcome);
        until
    }

    /// Writes down what the session did.
    fn act(&mut self, account: &mut String) {
        let wish = self.drive();
        if self.session.is_open() && !std::mem::replace(&mut self.was_open, true) {
            account.push_str("open\n");
        }
        self.say(account);
        if wish == Some(Step::StartTls) {
            account.push_str("TLS\n");
            self.round_trips += 1;
            self.session.secured(self.bindings.clone());
            self.drive();
            self.say(account);
        }
        self.settled.sort();
        // What is said twice means the same.
        self.settled.dedup();
        account.push_str(&self.settled.concat());
        self.settled.clear();
    }

    fn say(&mut self, account: &mut String) {
        let said = std::mem::take(&mut self.unsaid);
        // Nobody waits for an answer to an answer.
        let is_reply = |element: &str| element.contains(" type='result'") || element.contains(" type='error'");
        self.awaits_reply |= elements(&said).any(|element| !is_reply(element));
        self.said.push_str(&said);
        for (index, element) in elements(&said).enumerate() {
            account.push_str(if index == 0 { "C: " } else { "C+: " });
            account.push_str(element);
            account.push('\n');
        }
    }

    /// Lets time pass; the session is woken when it wishes.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Step::Wait(Some(then))) = self.drive()
            && then <= end
        {
            self.now = then;
        }
        self.now = end;
    }

    /// Lets the time pass that the session gives.
    fn wait(&mut self, account: &mut String) {
        self.act(account);
        match self.drive() {
            Some(Step::Wait(Some(then))) => {
                account.push_str(&format!("wait {}ms\n", (then - self.now).as_millis()));
                self.now = then;
                self.act(account);
            }
            wish => account.push_str(&format!("wait in vain: {wish:?}\n")),
        }
    }
}

/// What `known: login …` says of an earlier login, in the form of `learned: …`.
fn remembered(script: &str, jid: &BareJid, now: Instant) -> Facts {
    let account = script.lines().find_map(|line| line.strip_prefix("known: login ")).unwrap_or("{}");
    let account: serde_json::Value = serde_json::from_str(account).expect("JSON");
    let facts =
        serde_json::json!({ "version": 1, "servers": {}, "consents": {}, "accounts": { jid.as_str(): account } });
    Facts::read(&facts.to_string(), now, 0)
}

/// The text of a line `S: …`, or `S*1000: …` for so many times the same; with a line feed where it ends in `\n`, and a
/// part of it so often as `{A*1000}` says.
pub fn server_says(line: &str) -> Option<String> {
    let (word, text) = line.split_once(": ")?;
    let times = match word.strip_prefix('S')? {
        "" => 1,
        times => times.strip_prefix('*')?.parse().ok()?,
    };
    let text = match text.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?))) {
        Some((before, (repeated, after))) => {
            let (what, times) = repeated.split_once('*').expect("{WHAT*TIMES}");
            format!("{before}{}{after}", what.repeat(times.parse().expect("a number")))
        }
        None => text.to_owned(),
    };
    Some(text.replace("\\n", "\n").repeat(times))
}

fn milliseconds(line: &str) -> Duration {
    let number = line.strip_prefix("after ").and_then(|line| line.strip_suffix("ms")).and_then(|ms| ms.parse().ok());
    Duration::from_millis(number.unwrap_or_else(|| panic!("{line}")))
}

/// The elements of one write. None of ours holds another of these names.
fn elements(said: &str) -> impl Iterator<Item = &str> {
    const NAMES: [&str; 11] = [
        "<stream:stream ",
        "<presence/>",
        "<presence>",
        "<presence ",
        "<message ",
        "<iq ",
        "<handshake>",
        "<starttls ",
        "<auth ",
        "<authenticate ",
        "<response ",
    ];
    let begins = |at: &usize| NAMES.iter().any(|name| said[*at..].starts_with(name));
    let starts: Vec<usize> = said.match_indices('<').map(|(at, _)| at).filter(begins).collect();
    assert_eq!(starts.first().copied().unwrap_or(0), 0, "{said}");
    let ends: Vec<usize> = starts.iter().copied().skip(1).chain([said.len()]).collect();
    starts.into_iter().zip(ends).map(|(start, end)| &said[start..end])
}

/// One answer: the presence and what it rests on, then every resource.
fn told(id: u64, answer: &Result<Answer, Failure>) -> String {
    let presence = |state: State, priority: i8, texts: &Texts| {
        let text = |lang: &[String]| texts.choose(lang).map(|text| format!(" {text:?}")).unwrap_or_default();
        let german = text(&["de".to_owned()]);
        let german = if german == text(&[]) { String::new() } else { format!(" de:{german}") };
        format!("{} {priority}{}{german}", state.name(), text(&[]))
    };
    match answer {
        Err(failure) => format!("failure {id}: {failure:?}\n"),
        Ok(Answer { presence: p, why, resources, viewers, settled }) => {
            let since = p.since.map(|since| format!(" since {since}")).unwrap_or_default();
            let mut told = format!("answer {id}: {} {why:?}{since}\n", presence(p.state, p.priority, &p.texts));
            let mut lines: Vec<_> = resources
                .iter()
                .map(|r| {
                    let stamp = r.stamp.map(|stamp| format!(" at {stamp}")).unwrap_or_default();
                    format!("  {}: {}{stamp}\n", r.name, presence(r.state, r.priority, &r.texts))
                })
                .collect();
            lines.sort();
            told.push_str(&lines.concat());
            if !settled {
                told.push_str("  unsettled\n");
            }
            if let Some(viewers) = viewers {
                told.push_str(&format!("  viewers: {}\n", viewers.len()));
            }
            told
        }
    }
}

fn shown(picture: Option<Picture>) -> String {
    match picture {
        Some(picture) if picture.bytes().len() <= 16 => format!("  picture {:?}\n", picture.bytes()),
        Some(picture) => format!("  picture of {} bytes\n", picture.bytes().len()),
        None => "  no picture\n".to_owned(),
    }
}

/// `component DOMAIN` or `account JID`, then `key=value`.
fn read_identity(line: &str) -> (Identity, String, Bindings) {
    let mut words = line.split(' ').skip(1);
    let jid = bare(words.next().expect("a JID"));
    let mut identity = Identity {
        name: String::new(),
        accept_subscriptions: jid.node().is_none(),
        jid,
        password: Secret::new("secret".into()),
        host: None,
        port: None,
        security: Security::StartTls,
        tls: TlsLibrary::ALL[0],
        ca_file: None,
        client_certificate: None,
        verify: true,
        timeout: TIMEOUT,
        linger: None,
        server: None,
        visible: false,
        rule: Rule::MostAvailable,
        access: Access::open(vec![DomainPattern::Exactly("example.com".into())]),
        privacy: Privacy::default(),
    };
    let (mut nonce, mut bindings) = ("n0nce".to_owned(), Bindings::default());
    let bytes = |value: &str| Some(BASE64.decode(value).expect("base64"));
    for (key, value) in words.map(|word| word.split_once('=').expect("key=value")) {
        match key {
            "password" => identity.password = Secret::new(value.into()),
            "nonce" => nonce = value.to_owned(),
            "visible" => identity.visible = value == "yes",
            "accept" => identity.accept_subscriptions = value == "yes",
            "exporter" => bindings.exporter = bytes(value),
            "end-point" => bindings.end_point = bytes(value),
            "verify" => identity.verify = value == "yes",
            "server" => identity.server = server(value),
            "home" => {
                identity.access.domains = value.split(',').map(|name| DomainPattern::Exactly(name.into())).collect();
            }
            "rule" if value == "highest-priority" => identity.rule = Rule::HighestPriority,
            "security" => {
                identity.security = match value {
                    "direct" => Security::Direct,
                    "none" => Security::None,
                    _ => Security::StartTls,
                }
            }
            _ => panic!("{key}={value}"),
        }
    }
    (identity, nonce, bindings)
}

fn server(name: &str) -> Option<ServerKind> {
    match name {
        "auto" => None,
        "prosody" => Some(ServerKind::Prosody),
        "ejabberd" => Some(ServerKind::Ejabberd),
        "openfire" => Some(ServerKind::Openfire),
        "other" => Some(ServerKind::Other),
        _ => panic!("no such server: {name}"),
    }
}

fn bare(jid: &str) -> BareJid {
    BareJid::new(jid).unwrap_or_else(|error| panic!("{jid}: {error}"))
}
