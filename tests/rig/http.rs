//! HTTP as bytes: one request on one connection, and the answer taken apart. It sends what it is told, also what a
//! careful client would not.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use super::PATIENCE;

pub struct Request {
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Request {
        Request { head: format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n").into_bytes(), body: Vec::new() }
    }

    pub fn get(target: &str) -> Request {
        Request::new("GET", target)
    }

    pub fn post(target: &str, content_type: &str, body: &str) -> Request {
        let request = Request::new("POST", target).header("Content-Type", content_type);
        Request { body: body.into(), ..request.header("Content-Length", &body.len().to_string()) }
    }

    pub fn header(self, name: &str, value: &str) -> Request {
        self.raw_header(format!("{name}: {value}").as_bytes())
    }

    /// A header line whose bytes need not be text.
    pub fn raw_header(mut self, line: &[u8]) -> Request {
        self.head.extend_from_slice(line);
        self.head.extend_from_slice(b"\r\n");
        self
    }

    /// Sends it to a port on loopback and reads the whole answer.
    pub fn send(self, port: u16) -> Answer {
        self.send_to(Ipv4Addr::LOCALHOST, port)
    }

    pub fn send_to(self, host: Ipv4Addr, port: u16) -> Answer {
        let mut stream = TcpStream::connect((host, port)).expect("the web server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let head_only = self.head.starts_with(b"HEAD ");
        let request = [&self.head[..], b"Connection: close\r\n\r\n", &self.body].concat();
        stream.write_all(&request).expect("the web server reads");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("the web server answers");
        Answer::from_http(&bytes, head_only)
    }
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// In the order they came.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What a CGI program prints (RFC 3875, 6): the status is one of the headers.
    pub fn from_cgi(bytes: &[u8]) -> Answer {
        let (_, headers, body) = split(bytes, false);
        let status = headers.iter().find(|(name, _)| name == "Status").map(|(_, value)| value.clone());
        let code = status.as_deref().and_then(|status| status.split(' ').next()?.parse().ok());
        let status = code.unwrap_or_else(|| panic!("no Status in {:?}", String::from_utf8_lossy(bytes)));
        Answer { status, headers, body }
    }

    pub fn from_http(bytes: &[u8], head_only: bool) -> Answer {
        let (first, headers, body) = split(bytes, true);
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {first:?}"));
        let mut answer = Answer { status, headers, body };
        if answer.header("Transfer-Encoding") == Some("chunked") {
            answer.body = if head_only { Vec::new() } else { unchunked(&answer.body) };
        }
        answer
    }
}

/// First line (where there is one), headers, body.
fn split(bytes: &[u8], has_first_line: bool) -> (String, Vec<(String, String)>, Vec<u8>) {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no end of headers in {:?}", String::from_utf8_lossy(bytes)));
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let first = if has_first_line { lines.next().unwrap_or_default() } else { "" };
    let headers = lines.map(|line| line.split_once(": ").unwrap_or((line, "")));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    (first.to_owned(), headers, bytes[end + 4..].to_vec())
}

/// RFC 9112, 7.1, without extensions and trailers.
fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n").expect("a chunk's size");
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
        let size = size.expect("a chunk's size is hexadecimal");
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 2 + size + 2..];
    }
}
