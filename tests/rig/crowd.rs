//! An XMPP server for one component on which everybody who is asked for is there, by hand: it answers thousands of
//! people as fast as they are asked for, and counts how often that was.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

#[derive(Clone)]
pub struct Crowd {
    pub port: u16,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    /// Everybody's status text.
    status: String,
    /// How often each was asked for.
    probes: HashMap<String, usize>,
}

impl Crowd {
    pub fn start(status: &str) -> Crowd {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let inner = Inner { status: status.to_owned(), ..Inner::default() };
        let crowd = Crowd { port, inner: Arc::new(Mutex::new(inner)) };
        let served = crowd.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = served.clone();
                thread::spawn(move || served.serve(stream));
            }
        });
        crowd
    }

    pub fn says(&self, status: &str) {
        self.lock().status = status.to_owned();
    }

    /// How often this address was asked for.
    pub fn probes(&self, jid: &str) -> usize {
        self.lock().probes.get(jid).copied().unwrap_or_default()
    }

    /// Until the component ends its stream or is no more.
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let (mut heard, mut buffer) = (String::new(), [0; 65536]);
        loop {
            let mut answers = String::new();
            while let Some(end) = whole(&heard) {
                let rest = heard.split_off(end);
                answers.push_str(&self.answer(&heard)?);
                heard = rest;
            }
            stream.write_all(answers.as_bytes()).ok()?;
            let length = stream.read(&mut buffer).ok().filter(|length| *length > 0)?;
            heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }

    fn answer(&self, stanza: &str) -> Option<String> {
        let [id, from, to] = ["id", "from", "to"].map(|name| attribute(stanza, name));
        if stanza.contains("<stream:stream") {
            let namespaces = "xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'";
            return Some(format!("<?xml version='1.0'?><stream:stream {namespaces} from='{to}' id='1'>"));
        }
        if stanza.starts_with("<handshake") {
            return Some("<handshake/>".to_owned());
        }
        if stanza.starts_with("<presence") && stanza.contains("type='probe'") {
            let mut inner = self.lock();
            *inner.probes.entry(to.to_owned()).or_default() += 1;
            let status = &inner.status;
            return Some(format!("<presence from='{to}/home' to='{from}'><status>{status}</status></presence>"));
        }
        if stanza.starts_with("<iq") && stanza.contains("urn:xmpp:ping") {
            return Some(format!("<iq type='result' id='{id}' from='{to}' to='{from}'/>"));
        }
        if stanza.starts_with("<iq") {
            let condition = "<service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>";
            let error = format!("<error type='cancel'>{condition}</error>");
            return Some(format!("<iq type='error' id='{id}' from='{to}' to='{from}'>{error}</iq>"));
        }
        // The end of the stream.
        (!stanza.starts_with("</")).then(String::new)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the first element of what our own side writes ends, which is simple XML.
fn whole(heard: &str) -> Option<usize> {
    let end = heard.find('>')? + 1;
    let head = &heard[..end];
    if head.starts_with("<?") {
        return Some(whole(&heard[end..])? + end);
    }
    if head.starts_with("<stream:") || head.starts_with("</") || head.ends_with("/>") {
        return Some(end);
    }
    let name = head[1..].split([' ', '>']).next()?;
    let close = format!("</{name}>");
    Some(heard.find(&close)? + close.len())
}

/// The value of the first attribute of that name.
fn attribute<'a>(stanza: &'a str, name: &str) -> &'a str {
    stanza.split(&format!(" {name}='")).nth(1).and_then(|rest| rest.split('\'').next()).unwrap_or_default()
}
