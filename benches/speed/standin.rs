//! A stand-in for an XMPP server with any number of people, each of them away with a text. It takes every component at
//! its word and answers what is asked at once, in order. Where a cache is filled with a hundred thousand people it is
//! webpresence that is measured, not the two minutes a real server would need to look all of them up; what a real
//! server has to do is measured with real ones.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use xmpp_parsers::minidom::Element;

/// What each of them says.
pub const TEXT: &str = "In a meeting until three";

/// Its port; it lives as long as the process.
pub fn start() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    port
}

/// Until the other side has gone.
fn serve(mut stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut heard = String::new();
    let mut buffer = [0; 65536];
    loop {
        let length = stream.read(&mut buffer).ok().filter(|length| *length > 0)?;
        heard.push_str(std::str::from_utf8(&buffer[..length]).expect("whole characters: the bench asks in ASCII"));
        let mut answers = String::new();
        while let Some(end) = first(&heard) {
            answers += &answer(&heard[..end]);
            heard.drain(..end);
        }
        stream.write_all(answers.as_bytes()).ok()?;
    }
}

/// Where the first complete element ends; a stream's header, or its end, counts as one.
fn first(heard: &str) -> Option<usize> {
    let mut depth = 0;
    let mut at = 0;
    while let Some(opens) = heard[at..].find('<') {
        let begins = at + opens;
        let ends = begins + heard[begins..].find('>')?;
        at = ends + 1;
        let tag = &heard[begins..at];
        match tag {
            _ if tag.starts_with("<?") => continue,
            _ if tag.starts_with("<stream:stream") || tag.starts_with("</stream:stream") => return Some(at),
            _ if tag.starts_with("</") => depth -= 1,
            _ if tag.ends_with("/>") => {}
            _ => depth += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

fn answer(text: &str) -> String {
    let text = text.trim_start();
    if text.contains("<stream:stream") {
        return "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='1'>"
            .to_owned();
    }
    if text.starts_with("</") {
        return "</stream:stream>".to_owned();
    }
    if text.starts_with("<handshake") {
        return "<handshake/>".to_owned();
    }
    let stanza = Element::from_reader_with_prefixes(text.as_bytes(), "jabber:component:accept".to_owned());
    let stanza = stanza.unwrap_or_else(|error| panic!("{text}: {error}"));
    let [from, to, id, kind] = ["from", "to", "id", "type"].map(|name| stanza.attr(name).unwrap_or_default());
    match (stanza.name(), kind) {
        ("presence", "probe") if to.contains('@') => {
            format!("<presence from='{to}/home' to='{from}'><show>away</show><status>{TEXT}</status></presence>")
        }
        ("iq", "get") => format!("<iq type='{}", result(&stanza, from, to, id)),
        _ => String::new(),
    }
}

fn result(stanza: &Element, from: &str, to: &str, id: &str) -> String {
    let question = stanza.children().next().map(Element::ns).unwrap_or_default();
    let addresses = format!("from='{to}' to='{from}' id='{id}'");
    match question.as_str() {
        "urn:xmpp:ping" => format!("result' {addresses}/>"),
        _ => format!(
            "error' {addresses}><error type='cancel'>\
             <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        ),
    }
}
