//! The layout of FastCGI records (specification, 3.3 and 8): the header's fields and the records that we send.
//! What a record means at its place in a conversation is decided in the parent module.

use super::pairs::{pairs, push_short};

pub const VERSION: u8 = 1;
pub const HEADER_LEN: usize = 8;

pub const BEGIN_REQUEST: u8 = 1;
pub const ABORT_REQUEST: u8 = 2;
pub const END_REQUEST: u8 = 3;
pub const PARAMS: u8 = 4;
pub const STDIN: u8 = 5;
pub const STDOUT: u8 = 6;
pub const GET_VALUES: u8 = 9;
pub const GET_VALUES_RESULT: u8 = 10;
pub const UNKNOWN_TYPE: u8 = 11;

/// The only role we play (specification, 6.2).
pub const RESPONDER: u16 = 1;
/// The flag of BEGIN_REQUEST that asks for the connection to stay open (5.1).
pub const KEEP_CONN: u8 = 1;

/// The most content in one record that we send: the largest multiple of 8 that the length field can say.
pub const MAX_CONTENT_BYTES: usize = 65_528;

/// Why a request ends (5.5, `protocolStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndStatus {
    RequestComplete = 0,
    Overloaded = 2,
    UnknownRole = 3,
}

/// The first eight bytes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: u8,
    pub id: u16,
    pub content_len: usize,
    pub padding_len: usize,
}

impl Header {
    /// Reads the header; its version is the caller's to check.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Header {
        let [_version, kind, id_high, id_low, content_high, content_low, padding, _reserved] = *bytes;
        Header {
            kind,
            id: u16::from_be_bytes([id_high, id_low]),
            content_len: usize::from(u16::from_be_bytes([content_high, content_low])),
            padding_len: usize::from(padding),
        }
    }

    /// The whole record's length.
    pub fn record_len(&self) -> usize {
        HEADER_LEN + self.content_len + self.padding_len
    }
}

/// A finished answer in one buffer, so that it is one write: STDOUT records, the empty STDOUT, END_REQUEST.
pub fn response(id: u16, stdout: &[u8]) -> Vec<u8> {
    let records = stdout.len().div_ceil(MAX_CONTENT_BYTES) + 3;
    let mut out = Vec::with_capacity(stdout.len() + records * 2 * HEADER_LEN);
    for content in stdout.chunks(MAX_CONTENT_BYTES) {
        push_record(&mut out, STDOUT, id, content);
    }
    push_record(&mut out, STDOUT, id, b"");
    push_end(&mut out, id, 0, EndStatus::RequestComplete);
    out
}

/// Appends END_REQUEST. `app_status` is what a CGI program's exit code would be.
pub fn push_end(out: &mut Vec<u8>, id: u16, app_status: u32, status: EndStatus) {
    let [a, b, c, d] = app_status.to_be_bytes();
    push_record(out, END_REQUEST, id, &[a, b, c, d, status as u8, 0, 0, 0]);
}

/// Appends the answer to a management record of a type we do not know (4.2).
pub fn push_unknown_type(out: &mut Vec<u8>, kind: u8) {
    push_record(out, UNKNOWN_TYPE, 0, &[kind, 0, 0, 0, 0, 0, 0, 0]);
}

/// Appends the answer to GET_VALUES (4.1): each of `known` that was asked for, once. HAProxy waits for it before it
/// puts several requests on one connection.
pub fn push_values(out: &mut Vec<u8>, question: &[u8], known: &[(&str, usize)]) {
    let asked = |name: &str| pairs(question).map_while(Result::ok).any(|pair| pair.1 == name.as_bytes());
    let mut content = Vec::new();
    for (name, value) in known.iter().filter(|(name, _)| asked(name)) {
        push_short(&mut content, name.as_bytes(), value.to_string().as_bytes());
    }
    push_record(out, GET_VALUES_RESULT, 0, &content);
}

/// Appends a record, padded to a multiple of 8 bytes as the specification recommends (3.3).
/// `content` is at most [`MAX_CONTENT_BYTES`] long.
pub fn push_record(out: &mut Vec<u8>, kind: u8, id: u16, content: &[u8]) {
    debug_assert!(content.len() <= MAX_CONTENT_BYTES);
    let padding = content.len().next_multiple_of(8) - content.len();
    let [id_high, id_low] = id.to_be_bytes();
    let [content_high, content_low] = (content.len() as u16).to_be_bytes();
    out.extend([VERSION, kind, id_high, id_low, content_high, content_low, padding as u8, 0]);
    out.extend(content);
    out.resize(out.len() + padding, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    const END_OF_7: &[u8] = b"\x01\x06\0\x07\0\0\0\0\x01\x03\0\x07\0\x08\0\0\0\0\0\0\0\0\0\0";

    #[test]
    fn a_response_is_padded_records_their_end_and_end_request() {
        assert_eq!(response(7, b""), END_OF_7);
        assert_eq!(response(7, b"hello"), [b"\x01\x06\0\x07\0\x05\x03\0hello\0\0\0", END_OF_7].concat());
    }

    #[test]
    fn content_over_65528_bytes_takes_another_record() {
        let table: &[(usize, &[usize])] = &[
            (MAX_CONTENT_BYTES - 1, &[65_527]),
            (MAX_CONTENT_BYTES, &[65_528]),
            (MAX_CONTENT_BYTES + 1, &[65_528, 1]),
            (200_000, &[65_528, 65_528, 65_528, 3_416]),
        ];
        for (size, expected) in table {
            let sent: Vec<u8> = (0..*size).map(|i| i as u8).collect();
            let bytes = response(0x0102, &sent);
            assert!(bytes.len().is_multiple_of(8) && bytes.capacity() >= bytes.len());
            let mut rest = &bytes[..];
            let (mut sizes, mut content) = (Vec::new(), Vec::<u8>::new());
            while let Some(header) = rest.first_chunk().map(Header::parse).filter(|header| header.kind == STDOUT) {
                assert_eq!((header.id, header.record_len() % 8), (0x0102, 0));
                sizes.push(header.content_len);
                content.extend(&rest[HEADER_LEN..HEADER_LEN + header.content_len]);
                rest = &rest[header.record_len()..];
            }
            assert_eq!(sizes.pop(), Some(0), "the stream's end");
            assert_eq!((&sizes[..], content == sent), (*expected, true));
            assert_eq!(rest, b"\x01\x03\x01\x02\0\x08\0\0\0\0\0\0\0\0\0\0");
        }
    }

    #[test]
    fn get_values_answers_the_known_names_once_and_passes_over_the_others() {
        let known = [("FCGI_MAX_CONNS", 2048), ("FCGI_MPXS_CONNS", 1)];
        let table: &[(&[u8], &[u8])] = &[
            (b"", b"\x01\x0a\0\0\0\0\0\0"),
            (b"\x03\0FOO", b"\x01\x0a\0\0\0\0\0\0"),
            (b"\x0f\0FCGI_MPXS_CONNS\x03\0FOO", b"\x01\x0a\0\0\0\x12\x06\0\x0f\x01FCGI_MPXS_CONNS1\0\0\0\0\0\0"),
            (
                b"\x0e\0FCGI_MAX_CONNS\x0e\0FCGI_MAX_CONNS",
                b"\x01\x0a\0\0\0\x14\x04\0\x0e\x04FCGI_MAX_CONNS2048\0\0\0\0",
            ),
            (b"\x0e\0FCGI_MAX_CONNS\x0e\0FCG", b"\x01\x0a\0\0\0\x14\x04\0\x0e\x04FCGI_MAX_CONNS2048\0\0\0\0"),
        ];
        for (question, expected) in table {
            let mut out = Vec::new();
            push_values(&mut out, question, &known);
            assert_eq!(out, *expected, "{:?}", String::from_utf8_lossy(question));
        }
    }
}
