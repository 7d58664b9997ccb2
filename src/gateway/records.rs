//! The FastCGI record layer of one connection, without the connection: bytes in, events and bytes out (FastCGI
//! specification 1.0). It touches no socket and no clock; `now` is an argument. Several requests may be under way at
//! once. What a request asks for is not looked at here.
//!
//! Choices the specification leaves open: of a repeated variable the last one counts (an admin writes his line below
//! `include fastcgi_params`); a variable whose name is empty or not UTF-8 is dropped, the others stay; a request that
//! breaks a limit is read to its end all the same, for an END_REQUEST that overtakes the rest of FCGI_STDIN makes
//! Apache take that rest for garbage on a kept connection.

use std::mem;

use tokio::time::Instant;

use self::pairs::CutOff;
use self::wire::{EndStatus, HEADER_LEN, Header};
use super::{MAX_BODY_BYTES, MAX_PARAMS_BYTES};
use crate::web::request::{Excess, Request};
use crate::web::vars::{Place, Vars};

mod pairs;
pub mod wire;

/// Requests under way at once on one connection; one more is refused with FCGI_OVERLOADED.
pub const MAX_REQUESTS: usize = 64;

/// What a variable takes, on average and rather less than that.
const PAIR_BYTES: usize = 24;

/// Room for one record that an idle connection keeps.
const IDLE_RECORD_BYTES: usize = 4 * 1024;

/// One connection from a web server.
#[derive(Debug)]
pub struct Connection {
    /// What FCGI_MAX_CONNS says.
    max_connections: usize,
    /// The record that is coming in, as far as it is here.
    record: Vec<u8>,
    /// When its first byte came; meaningless while `record` is empty.
    record_since: Instant,
    /// Requests between their BEGIN_REQUEST and their END_REQUEST: one as a rule.
    active: Vec<Active>,
    /// The connection is to be closed once no request is under way.
    closing: bool,
    /// No request is taken any more.
    full: bool,
    broken: bool,
}

/// What came of some bytes: events in their order, and what is to be sent at once.
#[derive(Debug, Default)]
pub struct Received {
    pub events: Vec<Event>,
    pub send: Vec<u8>,
}

#[derive(Debug)]
pub enum Event {
    /// A request is here as a whole. Its answer goes out through [`Connection::respond`].
    Request { id: u16, request: Request },
    /// The web server does not want this answer any more; its END_REQUEST is in [`Received::send`].
    Aborted { id: u16 },
    /// What the peer says cannot be understood; nothing more will be. The connection is to be closed.
    Broken(Violation),
}

/// How a peer broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Not FastCGI 1 (somebody speaks HTTP to this port).
    Version(u8),
    /// A BEGIN_REQUEST of less than eight bytes.
    ShortBegin,
    /// A BEGIN_REQUEST with the id of a request that is under way.
    SecondBegin(u16),
    /// The PARAMS stream ended inside a pair.
    CutOffPair(u16),
    /// A record did not come to its end in time.
    Stalled,
}

#[derive(Debug)]
struct Active {
    id: u16,
    keep_connection: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Incoming(Incoming),
    /// Handed out; the answer is awaited.
    Answering,
}

#[derive(Debug)]
struct Incoming {
    since: Instant,
    params: Vec<u8>,
    params_ended: bool,
    body: Vec<u8>,
    body_ended: bool,
    excess: Option<Excess>,
}

impl Connection {
    /// `max_connections` is told to a web server that asks for FCGI_MAX_CONNS.
    pub fn new(max_connections: usize, now: Instant) -> Connection {
        Connection {
            max_connections,
            record: Vec::new(),
            record_since: now,
            active: Vec::new(),
            closing: false,
            full: false,
            broken: false,
        }
    }

    /// Takes the next bytes of the stream, cut wherever they are.
    pub fn receive(&mut self, mut bytes: &[u8], now: Instant) -> Received {
        let mut received = Received::default();
        while !bytes.is_empty() && !self.broken {
            match self.take(bytes, now, &mut received) {
                Ok(taken) => bytes = &bytes[taken..],
                Err(violation) => {
                    self.broken = true;
                    received.events.push(Event::Broken(violation));
                }
            }
        }
        received
    }

    /// The finished answer of a request as bytes to send in one write, and the request's end. None if nobody waits
    /// for it any more.
    pub fn respond(&mut self, id: u16, stdout: &[u8]) -> Option<Vec<u8>> {
        if !matches!(self.active(id)?.stage, Stage::Answering) {
            return None;
        }
        self.end(id);
        Some(wire::response(id, stdout))
    }

    /// Since when something is half here: a record or a request.
    pub fn incomplete_since(&self) -> Option<Instant> {
        let requests = self.active.iter().filter_map(|active| match &active.stage {
            Stage::Incoming(incoming) => Some(incoming.since),
            Stage::Answering => None,
        });
        requests.chain((!self.record.is_empty()).then_some(self.record_since)).min()
    }

    /// Gives up what is half here since `begun` or longer.
    pub fn expire(&mut self, begun: Instant) -> Received {
        let mut received = Received::default();
        if !self.record.is_empty() && self.record_since <= begun {
            self.broken = true;
            received.events.push(Event::Broken(Violation::Stalled));
            return received;
        }
        let is_over = |active: &Active| matches!(&active.stage, Stage::Incoming(incoming) if incoming.since <= begun);
        let over: Vec<u16> = self.active.iter().filter(|active| is_over(active)).map(|active| active.id).collect();
        for id in over {
            self.end(id);
            wire::push_end(&mut received.send, id, 1, EndStatus::RequestComplete);
        }
        received
    }

    /// Nothing is under way, not even half a record.
    pub fn is_idle(&self) -> bool {
        self.active.is_empty() && self.record.is_empty()
    }

    /// Takes no further request: those under way are the last.
    pub fn finish(&mut self) {
        self.full = true;
        self.closing = true;
    }

    /// No request is under way, and none is to come: the peer wanted the connection closed after its request, or
    /// [`finish`](Connection::finish) was called.
    pub fn is_finished(&self) -> bool {
        self.closing && self.active.is_empty()
    }

    /// How much memory what came in takes up, in bytes. Bounded whatever comes in: a record, and for each of
    /// [`MAX_REQUESTS`] its variables and its body.
    pub fn stored_bytes(&self) -> usize {
        let of = |active: &Active| match &active.stage {
            Stage::Incoming(incoming) => incoming.params.capacity() + incoming.body.capacity(),
            Stage::Answering => 0,
        };
        self.record.capacity() + self.active.iter().map(of).sum::<usize>()
    }

    /// The length of the record that is coming in, or of its header while that is all we can know.
    fn record_len(&self) -> usize {
        self.record.first_chunk().map_or(HEADER_LEN, |header| Header::parse(header).record_len())
    }

    /// Takes one record, or the piece of one that is here, and says how many bytes that was.
    fn take(&mut self, bytes: &[u8], now: Instant, received: &mut Received) -> Result<usize, Violation> {
        if self.record.is_empty() {
            self.record_since = now;
            if bytes[0] != wire::VERSION {
                return Err(Violation::Version(bytes[0]));
            }
            // As a rule it is here as a whole, and need not be kept.
            if let Some(header) = bytes.first_chunk().map(Header::parse)
                && let Some(record) = bytes.get(..header.record_len())
            {
                self.handle(header, &record[HEADER_LEN..][..header.content_len], received)?;
                return Ok(record.len());
            }
        }
        let taken = (self.record_len() - self.record.len()).min(bytes.len());
        self.record.extend_from_slice(&bytes[..taken]);
        self.advance(received)?;
        Ok(taken)
    }

    /// Handles the record that was kept if it is complete now.
    fn advance(&mut self, received: &mut Received) -> Result<(), Violation> {
        let Some(header) = self.record.first_chunk().map(Header::parse) else { return Ok(()) };
        if self.record.len() < header.record_len() {
            return Ok(());
        }
        let mut record = mem::take(&mut self.record);
        self.handle(header, &record[HEADER_LEN..][..header.content_len], received)?;
        if record.capacity() <= IDLE_RECORD_BYTES {
            record.clear();
            self.record = record;
        }
        Ok(())
    }

    /// One record, in the order of the specification's section 8. Records of ids that are not active are passed over
    /// (3.3): the rest of a request that was aborted or refused, an empty FCGI_STDIN sent twice.
    fn handle(&mut self, header: Header, content: &[u8], received: &mut Received) -> Result<(), Violation> {
        match (header.kind, header.id) {
            (wire::GET_VALUES, 0) => wire::push_values(&mut received.send, content, &self.values()),
            (kind, 0) => wire::push_unknown_type(&mut received.send, kind),
            (wire::BEGIN_REQUEST, id) => self.begin(id, content, &mut received.send)?,
            (wire::ABORT_REQUEST, id) => self.abort(id, received),
            (wire::PARAMS | wire::STDIN, id) => {
                let Some(Active { stage: Stage::Incoming(incoming), .. }) = self.active(id) else {
                    return Ok(());
                };
                match header.kind {
                    wire::PARAMS => incoming.take_params(content),
                    _ => incoming.take_body(content),
                }
                self.hand_out(id, received)?;
            }
            // FCGI_DATA is for filters, which we refuse to be; the rest are records that applications send.
            _ => {}
        }
        Ok(())
    }

    fn values(&self) -> [(&'static str, usize); 3] {
        let requests = self.max_connections.saturating_mul(MAX_REQUESTS);
        [("FCGI_MAX_CONNS", self.max_connections), ("FCGI_MAX_REQS", requests), ("FCGI_MPXS_CONNS", 1)]
    }

    fn begin(&mut self, id: u16, content: &[u8], send: &mut Vec<u8>) -> Result<(), Violation> {
        let [role_high, role_low, flags, ..] = *content.first_chunk::<8>().ok_or(Violation::ShortBegin)?;
        if self.active(id).is_some() {
            return Err(Violation::SecondBegin(id));
        }
        let full = self.full || self.active.len() >= MAX_REQUESTS;
        let keep_connection = flags & wire::KEEP_CONN != 0;
        let stage = Stage::Incoming(Incoming::new(self.record_since));
        self.active.push(Active { id, keep_connection, stage });
        if u16::from_be_bytes([role_high, role_low]) != wire::RESPONDER {
            self.end(id);
            wire::push_end(send, id, 0, EndStatus::UnknownRole);
        } else if full {
            self.end(id);
            wire::push_end(send, id, 0, EndStatus::Overloaded);
        }
        Ok(())
    }

    fn abort(&mut self, id: u16, received: &mut Received) {
        if self.active(id).is_none() {
            return;
        }
        self.end(id);
        wire::push_end(&mut received.send, id, 0, EndStatus::RequestComplete);
        received.events.push(Event::Aborted { id });
    }

    /// Hands the request out if both of its streams have ended.
    fn hand_out(&mut self, id: u16, received: &mut Received) -> Result<(), Violation> {
        let Some(active) = self.active(id) else { return Ok(()) };
        match mem::replace(&mut active.stage, Stage::Answering) {
            Stage::Incoming(incoming) if incoming.params_ended && incoming.body_ended => {
                let request = incoming.into_request().map_err(|CutOff| Violation::CutOffPair(id))?;
                received.events.push(Event::Request { id, request });
            }
            unchanged => active.stage = unchanged,
        }
        Ok(())
    }

    fn active(&mut self, id: u16) -> Option<&mut Active> {
        self.active.iter_mut().find(|active| active.id == id)
    }

    fn end(&mut self, id: u16) {
        if let Some(place) = self.active.iter().position(|active| active.id == id) {
            self.closing |= !self.active.remove(place).keep_connection;
        }
    }
}

impl Incoming {
    fn new(since: Instant) -> Incoming {
        Incoming { since, params: Vec::new(), params_ended: false, body: Vec::new(), body_ended: false, excess: None }
    }

    fn take_params(&mut self, content: &[u8]) {
        self.params_ended |= content.is_empty();
        if self.params_ended || self.excess == Some(Excess::Params) {
            return;
        }
        if self.params.len() + content.len() > MAX_PARAMS_BYTES {
            self.params = Vec::new();
            self.excess = Some(Excess::Params);
            return;
        }
        self.params.extend_from_slice(content);
    }

    fn take_body(&mut self, content: &[u8]) {
        self.body_ended |= content.is_empty();
        if self.body_ended || self.excess.is_some() {
            return;
        }
        if self.body.len() + content.len() > MAX_BODY_BYTES {
            self.body = Vec::new();
            self.excess = Some(Excess::Body);
            return;
        }
        self.body.extend_from_slice(content);
    }

    fn into_request(self) -> Result<Request, CutOff> {
        let mut places = Vec::with_capacity(self.params.len() / PAIR_BYTES);
        for pair in pairs::pairs(&self.params) {
            let (begin, name, value) = pair?;
            if !name.is_empty() && (name.is_ascii() || str::from_utf8(name).is_ok()) {
                places.push(Place::new(begin, name, value.len()));
            }
        }
        let vars = Vars::new(self.params, places);
        let mut request = Request { vars, body: self.body, excess: self.excess, arrived: self.since };
        // Specification, 6.2: the visitor went away in the middle of it. Cut short, a form may name somebody else.
        if request.content_length().is_some_and(|length| length > request.body.len() as u64) {
            request.body = Vec::new();
        }
        // The body of anything but a POST says nothing, however long it is.
        if request.excess == Some(Excess::Body) && request.var("REQUEST_METHOD") != Some(b"POST") {
            request.excess = None;
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests;
