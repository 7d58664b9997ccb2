//! A FastCGI client (FastCGI 1.0, 3 and 5) that keeps its connection: one request after the other on a Unix socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::PATIENCE;
use super::http::Answer;

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const KEEP_CONN: u8 = 1;

pub struct Connection(UnixStream);

impl Connection {
    pub fn open(socket: &Path) -> Connection {
        let stream = UnixStream::connect(socket).expect("webpresence listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        Connection(stream)
    }

    /// Sends a request without a body; the connection is to stay open.
    pub fn send(&mut self, params: &[(&str, &[u8])]) {
        let pairs: Vec<u8> = params.iter().flat_map(|(name, value)| pair(name.as_bytes(), value)).collect();
        let begin = record(BEGIN_REQUEST, &[0, 1, KEEP_CONN, 0, 0, 0, 0, 0]);
        let rest = [record(PARAMS, &pairs), record(PARAMS, b""), record(STDIN, b"")].concat();
        self.0.write_all(&[begin, rest].concat()).expect("webpresence reads");
    }

    /// The answer to the last request.
    pub fn receive(&mut self) -> io::Result<Answer> {
        let mut printed = Vec::new();
        loop {
            let mut header = [0; 8];
            self.0.read_exact(&mut header)?;
            let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
            let mut content = vec![0; length + usize::from(header[6])];
            self.0.read_exact(&mut content)?;
            match header[1] {
                STDOUT => printed.extend_from_slice(&content[..length]),
                END_REQUEST => return Ok(Answer::from_cgi(&printed)),
                _ => {}
            }
        }
    }

    pub fn ask(&mut self, query: &str) -> Answer {
        self.send(&[("REQUEST_METHOD", b"GET"), ("QUERY_STRING", query.as_bytes())]);
        self.receive().expect("webpresence answers")
    }
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("small requests").to_be_bytes();
    [&[1, kind, 0, 1, length[0], length[1], 0, 0], content].concat()
}

/// FastCGI 1.0, 3.4, with four bytes for the lengths of what may be long.
fn pair(name: &[u8], value: &[u8]) -> Vec<u8> {
    let name_length = u8::try_from(name.len()).expect("short names");
    let value_length = (value.len() as u32 | 1 << 31).to_be_bytes();
    [&[name_length], &value_length[..], name, value].concat()
}
