//! People who are online: the other end of `users.py`, one process for all users of an XMPP server.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::xmpp::{DOMAIN, SECRET, Xmpp};
use super::{program, repository};

pub struct Users {
    desk: Mutex<Desk>,
    component_port: u16,
}

struct Desk {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What somebody shows: `show` as on the wire (empty: available), texts by language (empty: none named).
#[derive(Clone, Copy, Default)]
pub struct Shown<'a> {
    pub show: &'a str,
    pub texts: &'a [(&'a str, &'a str)],
    pub priority: i8,
}

impl Users {
    pub fn of(server: &Xmpp) -> Users {
        require_slixmpp();
        let mut command = Command::new(program("python3", "python3"));
        command.arg(repository("tests/rig/users.py")).arg("127.0.0.1").arg(server.ports.client.to_string());
        command.arg(&server.authority).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 starts");
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Users { desk: Mutex::new(Desk { child, commands, answers }), component_port: server.ports.component }
    }

    /// Logs `user/resource` in and shows something; says yes to whoever asks.
    pub fn login(&self, who: &str, shown: Shown) {
        self.tell("login", who, shown, json!({"password": SECRET}));
    }

    /// As `login`, but questions stay unanswered.
    pub fn login_unasked(&self, who: &str, shown: Shown) {
        self.tell("login", who, shown, json!({"password": SECRET, "accept": false}));
    }

    pub fn show(&self, who: &str, shown: Shown) {
        self.tell("presence", who, shown, json!({}));
    }

    /// As `show`, with a client that nobody has touched since then, in seconds since 1970.
    pub fn show_idle(&self, who: &str, shown: Shown, since: u64) {
        self.tell("presence", who, shown, json!({"idle": since}));
    }

    pub fn logout(&self, who: &str, texts: &[(&str, &str)]) {
        self.tell("logout", who, Shown { texts, ..Shown::default() }, json!({}));
    }

    /// His connection breaks; the server finds out by itself.
    pub fn vanish(&self, who: &str) {
        self.tell("vanish", who, Shown::default(), json!({}));
    }

    /// Waits until `who` has let `asker` see him.
    pub fn granted(&self, who: &str, asker: &str) {
        self.tell("granted", who, Shown::default(), json!({"to": asker}));
    }

    /// Says yes to a request that came in earlier; returns when his server has it.
    pub fn approve(&self, who: &str, asker: &str) {
        self.tell("approve", who, Shown::default(), json!({"to": asker}));
    }

    pub fn revoke(&self, who: &str, asker: &str) {
        self.tell("revoke", who, Shown::default(), json!({"to": asker}));
    }

    /// Adds a contact, as a person does in his client: asks to see him.
    pub fn add(&self, who: &str, contact: &str) {
        self.tell("add", who, Shown::default(), json!({"to": contact}));
    }

    /// Removes a contact, and with it all that was agreed with him.
    pub fn remove(&self, who: &str, contact: &str) {
        self.tell("remove", who, Shown::default(), json!({"to": contact}));
    }

    pub fn block(&self, who: &str, contact: &str) {
        self.tell("block", who, Shown::default(), json!({"to": contact}));
    }

    /// Says something to a contact. Returns what he says to it.
    pub fn say(&self, who: &str, contact: &str, text: &str) -> String {
        let answer = self.told("say", who, Shown::default(), json!({"to": contact, "text": text}));
        answer["heard"].as_str().expect("an answer").to_owned()
    }

    /// Publishes a picture: `how` is `pep` or `vcard`.
    pub fn publish(&self, who: &str, how: &str, kind: &str, picture: &[u8]) {
        let data = BASE64.encode(picture);
        self.tell("publish", who, Shown::default(), json!({"how": how, "type": kind, "data": data}));
    }

    /// Creates the room, or goes there.
    pub fn join(&self, who: &str, room: &str) {
        self.tell("join", who, Shown::default(), json!({"room": room}));
    }

    /// Connects a component that answers as components do.
    pub fn component(&self, domain: &str) {
        let port = self.component_port;
        drop(self.send(json!({"do": "component", "jid": domain, "password": SECRET, "port": port})));
    }

    fn tell(&self, what: &str, who: &str, shown: Shown, more: Value) {
        let answer = self.told(what, who, shown, more);
        assert_eq!(answer, json!({}), "users.py, asked by {who} to {what}");
    }

    fn told(&self, what: &str, who: &str, shown: Shown, more: Value) -> Value {
        let (user, resource) = who.split_once('/').expect("user/resource");
        let texts: serde_json::Map<String, Value> =
            shown.texts.iter().map(|(l, t)| (l.to_string(), json!(t))).collect();
        let mut command = json!({"do": what, "jid": format!("{user}@{DOMAIN}/{resource}"), "show": shown.show,
                                 "status": texts, "priority": shown.priority});
        let fields = command.as_object_mut().expect("written as one");
        fields.extend(more.as_object().expect("written as one").clone());
        self.send(command)
    }

    /// One command, and its answer: the XMPP server has dealt with it.
    fn send(&self, command: Value) -> Value {
        let mut desk = self.desk.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut commands = desk.commands.as_ref().expect("open until dropped");
        writeln!(commands, "{command}").expect("users.py reads");
        let mut answer = String::new();
        desk.answers.read_line(&mut answer).expect("users.py answers");
        let answer: Value = serde_json::from_str(&answer).expect("users.py answers in JSON");
        assert_eq!(answer.get("error"), None, "users.py, asked {command}");
        answer
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _ = self.child.wait();
    }
}

fn require_slixmpp() {
    let output = Command::new(program("python3", "python3")).args(["-c", "import slixmpp"]).output();
    let there = output.is_ok_and(|output| output.status.success());
    assert!(there, "python3-slixmpp is missing; install it with: apt-get install python3-slixmpp");
}
