//! The XML stream, read under limits. Bytes go in, stream headers and whole stream elements come out; nothing here
//! knows what they mean, but for rosters, whose items are too many to be kept as elements. Elements in `jabber:component:accept` are handed out as `jabber:client`, so that the rest of
//! the house sees one kind of stanza for components and accounts.

use std::fmt;

use rxml::error::{EndOrError, Error as RxmlError};
use rxml::{AttrMap, Event, Namespace, Options, Parse, Parser, WithOptions};
use xmpp_parsers::minidom::{Element, Node};

use super::{ns, roster};

/// Bytes of one stream element, the same for the header. What is longer is cut off: see `cut_down`. Only an answer that
/// is awaited may be longer: see [`Reader::expect_answer`].
pub const STANZA_LIMIT: usize = 64 * 1024;
/// Elements and attributes of one stream element are at most so many, and in a long answer one for so many bytes: each
/// takes far more memory than the four bytes that it may come in.
const PARTS_LIMIT: usize = STANZA_LIMIT / 4;
const BYTES_PER_PART: usize = 16;
/// Bytes of one name or value of an attribute, such as the id of a stranger's message. White space between stanzas is
/// gathered up to it too, so that it is less than the limit of a stanza.
pub const TOKEN_LIMIT: usize = STANZA_LIMIT / 2;
/// How deep elements may nest, the stream element not counted. What is deeper is cut off.
pub const DEPTH_LIMIT: usize = 32;
/// How deep what is cut off may nest, its outermost tag counted. The parser looks for a namespace at every level above,
/// so that depth costs its square: a quarter of a megabyte of `<a>` took more than a second.
pub const PASSED_DEPTH_LIMIT: usize = 1000;
/// What the parser says of what is over [`TOKEN_LIMIT`]; it has no name for it.
const TOO_LONG: RxmlError = RxmlError::RestrictedXml("long name or reference");

/// What a stream is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// The server's `<stream:stream>`, with its `id`.
    Header { id: Option<String> },
    /// One complete child of the stream.
    Element(Element),
    /// `</stream:stream>`.
    End,
}

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not the XML that RFC 6120, 11 allows.
    NotWellFormed,
    /// The first element is not an XMPP stream.
    NotAStream,
    /// A header or a single tag over [`STANZA_LIMIT`], or something in it over [`TOKEN_LIMIT`].
    TooLarge,
    /// Elements deeper than [`PASSED_DEPTH_LIMIT`].
    TooDeep,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NotWellFormed => f.write_str("not well-formed XML"),
            Fault::NotAStream => f.write_str("not an XMPP stream"),
            Fault::TooLarge => {
                write!(f, "a tag over {STANZA_LIMIT} bytes, or a name or value in it over {TOKEN_LIMIT}")
            }
            Fault::TooDeep => write!(f, "elements more than {PASSED_DEPTH_LIMIT} deep"),
        }
    }
}

/// Reads one stream; a restarted stream wants a new one.
pub struct Reader {
    parser: Parser,
    /// The elements that are open, outermost first, without the stream element.
    open: Vec<Element>,
    /// How deep we are inside of an element that was cut down to its outermost tag.
    cut: Option<usize>,
    header_seen: bool,
    /// Bytes since the last complete element.
    pending: usize,
    /// Elements and attributes since then.
    parts: usize,
    /// The most bytes of an answer.
    answer_limit: usize,
}

impl Default for Reader {
    fn default() -> Reader {
        let options = Options { max_token_length: TOKEN_LIMIT, ..Options::default() };
        let parser = Parser::with_options(options);
        Reader {
            parser,
            open: Vec::new(),
            cut: None,
            header_seen: false,
            pending: 0,
            parts: 0,
            answer_limit: STANZA_LIMIT,
        }
    }
}

impl Reader {
    /// From now on an `<iq/>` may have so many bytes. One that has begun under a higher limit keeps it.
    pub fn expect_answer(&mut self, limit: usize) {
        if limit > self.answer_limit || self.pending == 0 {
            self.answer_limit = limit;
        }
    }

    /// The next thing in `bytes`, which is advanced behind it; `None` when more bytes are needed.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Incoming>, Fault> {
        // The parser would gather such text until a `<` comes, which a mail or SSH server never sends.
        if !self.header_seen && self.pending == 0 && bytes.first().is_some_and(|first| !b"< \t\r\n".contains(first)) {
            return Err(Fault::NotWellFormed);
        }
        loop {
            let before = bytes.len();
            // A slice at a time, so that an endless element is refused before it is stored.
            let window = before.min(self.limit() + 1 - self.pending);
            let mut part = &bytes[..window];
            let event = self.parser.parse(&mut part, false);
            let used = window - part.len();
            *bytes = &bytes[used..];
            self.pending += used;
            if self.pending > self.limit() {
                self.cut_down()?;
            }
            match event {
                Ok(Some(event)) => {
                    if let Some(incoming) = self.take(event)? {
                        (self.pending, self.parts) = (0, 0);
                        return Ok(Some(incoming));
                    }
                }
                Ok(None) | Err(EndOrError::NeedMoreData) if bytes.is_empty() => return Ok(None),
                Ok(None) | Err(EndOrError::NeedMoreData) => {}
                Err(EndOrError::Error(error)) if error == TOO_LONG => return Err(Fault::TooLarge),
                Err(EndOrError::Error(_)) => return Err(Fault::NotWellFormed),
            }
        }
    }

    /// The element that is coming in, as far as it is kept, once its tag is complete.
    pub fn outermost(&self) -> Option<&Element> {
        self.open.first()
    }

    fn limit(&self) -> usize {
        let is_answer = self.cut.is_none() && self.outermost().is_some_and(|outermost| outermost.is("iq", ns::CLIENT));
        if is_answer { self.answer_limit } else { STANZA_LIMIT }
    }

    /// Keeps the outermost tag of the element that is open, with the children that are complete, and drops the rest:
    /// any stranger may send us a message of any size, which must not end the session of everybody.
    fn cut_down(&mut self) -> Result<(), Fault> {
        let outermost = self.open.first_mut().ok_or(Fault::TooLarge)?;
        for child in outermost.take_nodes().into_iter().filter_map(Node::into_element) {
            outermost.append_child(child);
        }
        self.cut.get_or_insert(self.open.len());
        self.open.truncate(1);
        self.pending = 0;
        Ok(())
    }

    /// Goes through an element that was cut down, to its end.
    fn pass_over(&mut self, depth: usize, event: &Event) -> Result<Option<Incoming>, Fault> {
        let depth = match event {
            Event::StartElement(..) => depth + 1,
            Event::EndElement(..) => depth - 1,
            Event::XmlDeclaration(..) | Event::Text(..) => depth,
        };
        if depth > PASSED_DEPTH_LIMIT {
            return Err(Fault::TooDeep);
        }
        self.pending = 0;
        self.cut = Some(depth).filter(|depth| *depth > 0);
        Ok(if self.cut.is_some() { None } else { self.close() })
    }

    fn take(&mut self, event: Event) -> Result<Option<Incoming>, Fault> {
        if let Some(depth) = self.cut {
            return self.pass_over(depth, &event);
        }
        match event {
            Event::XmlDeclaration(..) => Ok(None),
            Event::StartElement(_, (namespace, name), attrs) if self.header_seen => {
                self.parts += 1 + attrs.len();
                self.open.push(element(&namespace, &name, attrs));
                let parts_limit = PARTS_LIMIT.max(self.limit() / BYTES_PER_PART);
                if self.open.len() > DEPTH_LIMIT || self.parts > parts_limit {
                    self.cut_down()?;
                }
                Ok(None)
            }
            Event::StartElement(_, (namespace, name), attrs) => {
                if &*namespace != ns::STREAM || &*name != "stream" {
                    return Err(Fault::NotAStream);
                }
                self.header_seen = true;
                let id = attrs.get(&Namespace::NONE, "id").cloned();
                Ok(Some(Incoming::Header { id }))
            }
            Event::Text(_, text) => {
                match self.open.last_mut() {
                    Some(top) => top.append_text(text),
                    // White space between stanzas keeps a connection alive (RFC 6120, 4.6.1).
                    None if text.trim().is_empty() => self.pending = 0,
                    None => return Err(Fault::NotWellFormed),
                }
                Ok(None)
            }
            Event::EndElement(_) => Ok(self.close()),
        }
    }

    fn close(&mut self) -> Option<Incoming> {
        let Some(done) = self.open.pop() else {
            return Some(Incoming::End);
        };
        match self.open.last_mut() {
            Some(parent) => {
                match roster::note(parent, &done) {
                    Some(line) => parent.append_text(line),
                    None => drop(parent.append_child(done)),
                }
                None
            }
            None => Some(Incoming::Element(done)),
        }
    }
}

fn element(namespace: &str, name: &str, attrs: AttrMap) -> Element {
    let namespace = if namespace == ns::COMPONENT { ns::CLIENT } else { namespace };
    let mut element = Element::bare(name, namespace);
    for ((namespace, name), value) in attrs {
        element.set_attr(namespace, name, value);
    }
    element
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
                          xmlns:stream='http://etherx.jabber.org/streams' id='7' from='a.example'>";

    /// Everything in `text`, fed in pieces of `size` bytes.
    fn read(text: &str, size: usize) -> Result<Vec<Incoming>, Fault> {
        let mut reader = Reader::default();
        let mut seen = Vec::new();
        for mut piece in text.as_bytes().chunks(size) {
            while let Some(incoming) = reader.next(&mut piece)? {
                seen.push(incoming);
            }
        }
        Ok(seen)
    }

    #[test]
    fn a_stream_reads_the_same_however_it_is_cut() {
        let text =
            format!("{HEADER} <handshake/>\n<presence from='b@example'><show>away</show></presence></stream:stream>");
        let whole = read(&text, text.len()).expect("well-formed");
        assert_eq!(whole.len(), 4);
        assert_eq!(whole[0], Incoming::Header { id: Some("7".into()) });
        assert_eq!(whole[3], Incoming::End);
        let Incoming::Element(presence) = &whole[2] else { panic!("{whole:?}") };
        assert!(presence.is("presence", ns::CLIENT), "{presence:?}");
        assert_eq!(presence.get_child("show", ns::CLIENT).map(Element::text), Some("away".into()));
        for size in 1..text.len() {
            assert_eq!(read(&text, size).as_ref(), Ok(&whole), "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_not_xmpp_is_refused() {
        for (text, fault) in [
            ("HTTP/1.1 400 Bad Request\r\n", Fault::NotWellFormed),
            ("<html>", Fault::NotAStream),
            ("<stream xmlns='jabber:client'>", Fault::NotAStream),
            ("<!DOCTYPE lol [<!ENTITY a 'b'>]>", Fault::NotWellFormed),
            (&format!("{HEADER}<a>&lol;</a>"), Fault::NotWellFormed),
            (&format!("{HEADER}<?php ?>"), Fault::NotWellFormed),
            (&format!("{HEADER}<!-- -->"), Fault::NotWellFormed),
            (&format!("{HEADER}text"), Fault::NotWellFormed),
            (&format!("{HEADER}<a></b>"), Fault::NotWellFormed),
        ] {
            let text = format!("{text}<a/>");
            assert_eq!(read(&text, 7), Err(fault), "{text}");
        }
    }

    #[test]
    fn limits_hold_on_both_sides() {
        let cut = |size: usize, text: &str| read(&format!("{HEADER}{text}<b/>"), size).map(|seen| seen[1..].to_vec());
        let bare = |name: &str| Incoming::Element(Element::bare(name, ns::CLIENT));
        let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        let sized = |bytes: usize| format!("<a>{}</a>", "x".repeat(bytes - "<a></a>".len()));
        for size in [1, 100, STANZA_LIMIT * 2] {
            let whole = cut(size, &nested(DEPTH_LIMIT)).expect("well-formed");
            assert!(whole[0] != bare("a") && whole[1..] == [bare("b")], "in pieces of {size}");
            assert_eq!(cut(size, &nested(DEPTH_LIMIT + 1)), Ok(vec![bare("a"), bare("b")]), "in pieces of {size}");
            assert_eq!(cut(size, &nested(PASSED_DEPTH_LIMIT)), Ok(vec![bare("a"), bare("b")]), "in pieces of {size}");
            assert_eq!(cut(size, &nested(PASSED_DEPTH_LIMIT + 1)), Err(Fault::TooDeep), "in pieces of {size}");
            let whole = cut(size, &sized(STANZA_LIMIT)).expect("well-formed");
            assert!(whole[0] != bare("a") && whole[1..] == [bare("b")], "in pieces of {size}");
            for bytes in [STANZA_LIMIT + 1, STANZA_LIMIT * 5] {
                assert_eq!(cut(size, &sized(bytes)), Ok(vec![bare("a"), bare("b")]), "{bytes} in pieces of {size}");
            }
        }
        let both = format!("<a>{}{}</a>", "x".repeat(STANZA_LIMIT), nested(DEPTH_LIMIT * 2));
        assert_eq!(cut(1000, &both), Ok(vec![bare("a"), bare("b")]));
        let mut kept = Element::bare("a", ns::CLIENT);
        kept.append_child(Element::bare("c", ns::CLIENT));
        let late = format!("<a><c/>{}<d/></a>", "x".repeat(STANZA_LIMIT));
        assert_eq!(cut(1000, &late), Ok(vec![Incoming::Element(kept), bare("b")]));
        let long = |bytes: usize| format!("<a b='{}'/>", "x".repeat(bytes - "<a b=''/>".len()));
        assert_eq!(cut(1000, &long(TOKEN_LIMIT)).map(|seen| seen.len()), Ok(2));
        assert_eq!(cut(1000, &long(TOKEN_LIMIT * 2)), Err(Fault::TooLarge));
        assert_eq!(cut(1, "<a>&#9999999999999999999;</a>"), Err(Fault::NotWellFormed));
        assert_eq!(read(&"<a>".repeat(3), 1), Err(Fault::NotAStream));
        let header = format!("<stream:stream {}", "a='b' ".repeat(STANZA_LIMIT));
        assert!(read(&header, 4096).is_err());
        let endless = format!("{HEADER}<a b='{}", "x".repeat(STANZA_LIMIT * 2));
        assert!(read(&endless, 4096).is_err());
    }

    /// Only answers, and only as long as they are awaited.
    #[test]
    fn an_answer_may_be_longer() {
        const LIMIT: usize = STANZA_LIMIT * 3;
        let sized = |name: &str, bytes: usize| {
            let empty = format!("<{name}></{name}>").len();
            format!("<{name}>{}</{name}>", "x".repeat(bytes - empty))
        };
        let bare = |name: &str| Incoming::Element(Element::bare(name, ns::CLIENT));
        for size in [1, 100, 8192] {
            // What is left of the one between.
            let read = |limits: [usize; 2], stanza: String| {
                let mut reader = Reader::default();
                let text = format!("{HEADER}{stanza}<b/>");
                let mut seen = Vec::new();
                reader.expect_answer(limits[0]);
                for mut piece in text.as_bytes().chunks(size) {
                    while let Some(incoming) = reader.next(&mut piece).expect("well-formed") {
                        seen.push(incoming);
                    }
                    reader.expect_answer(limits[1]);
                }
                assert_eq!(seen[2..], [bare("b")]);
                let Incoming::Element(element) = seen.swap_remove(1) else { panic!("{seen:?}") };
                (element.text().len(), element.children().count())
            };
            let text = |name: &str, bytes: usize, limit: usize| read([limit; 2], sized(name, bytes)).0;
            assert_eq!(text("iq", LIMIT, LIMIT), LIMIT - "<iq></iq>".len(), "in pieces of {size}");
            assert_eq!(text("iq", LIMIT + 1, LIMIT), 0, "in pieces of {size}");
            assert_eq!(text("iq", STANZA_LIMIT + 1, STANZA_LIMIT), 0, "nobody asked, in pieces of {size}");
            assert_eq!(text("a", STANZA_LIMIT + 1, LIMIT), 0, "a stranger's, in pieces of {size}");
            assert_ne!(read([STANZA_LIMIT, LIMIT], sized("iq", LIMIT)).0, 0, "asked meanwhile, in pieces of {size}");
            let most = PARTS_LIMIT / 2 - 1;
            for (count, left) in [(most, most), (most + 1, most), (most * 2, most)] {
                let parts = format!("<iq>{}</iq>", "<c d=''/>".repeat(count));
                assert_eq!(read([LIMIT; 2], parts).1, left, "in pieces of {size}");
            }
        }
        let lowered = format!("{HEADER}<iq>{}", "x".repeat(STANZA_LIMIT * 2));
        let mut reader = Reader::default();
        reader.expect_answer(LIMIT);
        let mut bytes = lowered.as_bytes();
        while reader.next(&mut bytes).expect("well-formed").is_some() {}
        reader.expect_answer(STANZA_LIMIT);
        let Ok(Some(Incoming::Element(iq))) = reader.next(&mut &b"</iq>"[..]) else { panic!("an element") };
        assert_eq!(iq.text().len(), STANZA_LIMIT * 2, "it began under the higher limit");
        reader.expect_answer(STANZA_LIMIT);
        let mut next = sized("iq", STANZA_LIMIT + 1).into_bytes();
        next.extend(b"<b/>");
        assert_eq!(reader.next(&mut &next[..]), Ok(Some(bare("iq"))), "and the next one does not");
    }

    #[test]
    fn white_space_between_stanzas_never_adds_up() {
        let text = format!("{HEADER}{}<a/>", " ".repeat(STANZA_LIMIT * 3));
        assert_eq!(read(&text, 512).map(|seen| seen.len()), Ok(2));
    }
}
