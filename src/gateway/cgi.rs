//! CGI (RFC 3875): one request from the process's environment and standard input, and the bytes of an answer, which
//! FastCGI sends too. Nothing here panics on a variable that is not UTF-8, and nothing is written to stderr: mini_httpd
//! puts that into the page.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::time::Instant;

use super::{MAX_BODY_BYTES, MAX_PARAMS_BYTES};
use crate::web::request::{Excess, Request};
use crate::web::response::Response;
use crate::web::vars::Vars;

/// How much of a body that is too long is read all the same, so that the web server finds somebody listening while it
/// writes. All of them live with a program that stops reading; most log a line about it.
const MAX_DRAINED_BYTES: u64 = 1024 * 1024;

/// The environment variables that describe a request: RFC 3875 (4.1), what Apache, nginx and lighttpd add to it, and
/// the one our own snippets set. The rest of the environment is the process's own (fcgiwrap hands down all of its own).
const NAMES: [&str; 13] = [
    "AUTH_TYPE",
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "DOCUMENT_ROOT",
    "DOCUMENT_URI",
    "GATEWAY_INTERFACE",
    "HTTPS",
    "PATH_INFO",
    "PATH_TRANSLATED",
    "QUERY_STRING",
    "SCRIPT_FILENAME",
    "SCRIPT_NAME",
    "WEBPRESENCE_AUTH",
];
const PREFIXES: [&str; 6] = ["HTTP_", "REDIRECT_", "REMOTE_", "REQUEST_", "SERVER_", "SSL_"];

/// How long the body of a request may take: what comes later than that would come too late for an answer.
const BODY_TIME: Duration = Duration::from_secs(2);

/// The request this process was started for. Blocks while the web server sends the body of a POST.
pub fn request(now: Instant) -> Request {
    let deadline = std::time::Instant::now() + BODY_TIME;
    match io::stdin().as_fd().try_clone_to_owned() {
        Ok(stdin) => {
            let mut stdin = Punctual { input: File::from(stdin), deadline };
            read_request(std::env::vars_os(), &mut stdin, now)
        }
        Err(_) => read_request(std::env::vars_os(), &mut io::empty(), now),
    }
}

/// Input that fails at its deadline instead of waiting on.
struct Punctual<T> {
    input: T,
    deadline: std::time::Instant,
}

impl<T: Read + AsFd> Read for Punctual<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.deadline.saturating_duration_since(std::time::Instant::now());
        let rest = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: i64::from(rest.subsec_nanos()) };
        let ready = poll(&mut [PollFd::new(&self.input, PollFlags::IN)], Some(&rest))?;
        if ready == 0 { Err(io::ErrorKind::TimedOut.into()) } else { self.input.read(buffer) }
    }
}

/// As [`request`], from any environment and input.
pub fn read_request(
    environment: impl Iterator<Item = (OsString, OsString)>,
    stdin: &mut impl Read,
    now: Instant,
) -> Request {
    let mut request = Request { vars: Vars::default(), body: Vec::new(), excess: None, arrived: now };
    let mut size = 0;
    for (name, value) in environment {
        let Ok(name) = name.into_string() else { continue };
        if !describes_request(&name) {
            continue;
        }
        let value = value.into_vec();
        size += name.len() + value.len();
        if size > MAX_PARAMS_BYTES {
            return Request { vars: Vars::default(), excess: Some(Excess::Params), ..request };
        }
        request.vars.insert(name.as_bytes(), &value);
    }
    if request.var("REQUEST_METHOD") == Some(b"POST") {
        read_body(&mut request, stdin);
    }
    request
}

/// Writes an answer to standard output in one write.
pub fn write_response(response: &Response) -> io::Result<()> {
    // `Stdout` would cut the bytes at their last line feed into two writes.
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    stdout.write_all(&serialise(response))
}

/// An answer as a CGI program writes it (RFC 3875, 6): `Status`, the headers, an empty line, the body.
pub fn serialise(response: &Response) -> Vec<u8> {
    let lines = response.headers.iter().map(|(name, value)| name.len() + value.len() + ": \r\n".len());
    let mut head = String::with_capacity(STATUS_LINE_BYTES + lines.sum::<usize>() + response.body.len());
    head.push_str("Status: ");
    head.push_str(&response.status.to_string());
    if let Some(reason) = reason(response.status) {
        head.push(' ');
        head.push_str(reason);
    }
    head.push_str("\r\n");
    for (name, value) in &response.headers {
        head.push_str(name);
        head.push_str(": ");
        // The last line of defence: whatever a value is made of, it cannot end its line.
        match value {
            Cow::Borrowed(ours) => head.push_str(ours),
            Cow::Owned(made) if made.bytes().all(|byte| matches!(byte, b' '..=b'~')) => head.push_str(made),
            Cow::Owned(made) => head.extend(made.chars().filter(|c| !c.is_control())),
        }
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(&response.body);
    bytes
}

/// More than it has, with the empty line.
const STATUS_LINE_BYTES: usize = 48;

/// RFC 9110, 15; for 429 RFC 6585. Web servers take a status without its phrase, people like to read it.
fn reason(status: u16) -> Option<&'static str> {
    Some(match status {
        200 => "OK",
        204 => "No Content",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => return None,
    })
}

fn describes_request(name: &str) -> bool {
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Reads what CONTENT_LENGTH announces. A body that ends early is dropped: cut short, a form may name somebody else.
fn read_body(request: &mut Request, stdin: &mut impl Read) {
    let Some(length) = request.content_length() else { return read_chunked(request, stdin) };
    if length > MAX_BODY_BYTES as u64 {
        request.excess = Some(Excess::Body);
        // Whether there was so much to drain changes nothing for the answer.
        let _ = io::copy(&mut stdin.take(length.min(MAX_DRAINED_BYTES)), &mut io::sink());
        return;
    }
    let mut body = vec![0; length as usize];
    if stdin.read_exact(&mut body).is_ok() {
        request.body = body;
    }
}

/// COMPAT: Apache's mod_cgid and mod_cgi hand over a chunked body without its length; it ends where the input does.
fn read_chunked(request: &mut Request, stdin: &mut impl Read) {
    if !request.var("HTTP_TRANSFER_ENCODING").is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked")) {
        return;
    }
    let mut body = Vec::new();
    match stdin.take(MAX_BODY_BYTES as u64 + 1).read_to_end(&mut body) {
        Ok(length) if length > MAX_BODY_BYTES => request.excess = Some(Excess::Body),
        Ok(_) => request.body = body,
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_chunked_body_ends_where_the_input_does() {
        let long = vec![b'b'; MAX_BODY_BYTES + 1];
        for (coding, stdin, body, excess) in [
            ("chunked", &b"jid=a"[..], 5, None),
            ("Chunked", &long[1..], MAX_BODY_BYTES, None),
            ("chunked", &long, 0, Some(Excess::Body)),
            ("gzip", b"jid=a", 0, None),
        ] {
            let vars: [(&[u8], &[u8]); 2] =
                [(b"REQUEST_METHOD", b"POST"), (b"HTTP_TRANSFER_ENCODING", coding.as_bytes())];
            let (request, _) = read(&vars, stdin);
            assert_eq!((request.body.len(), request.excess), (body, excess), "{coding}");
        }
    }

    #[test]
    fn a_body_that_does_not_come_is_not_waited_for() {
        let (silent, _other) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
        let mut stdin = Punctual { input: silent, deadline: std::time::Instant::now() };
        let vars = [("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "5")];
        let vars = vars.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let request = read_request(vars.into_iter(), &mut stdin, Instant::now());
        assert_eq!((request.body.len(), request.excess), (0, None));
    }

    fn environment(vars: &[(&[u8], &[u8])]) -> impl Iterator<Item = (OsString, OsString)> {
        let os = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        vars.iter().map(|(name, value)| (os(name), os(value))).collect::<Vec<_>>().into_iter()
    }

    fn read(vars: &[(&[u8], &[u8])], mut stdin: &[u8]) -> (Request, usize) {
        let request = read_request(environment(vars), &mut stdin, Instant::now());
        (request, stdin.len())
    }

    #[test]
    fn the_environment_is_bytes_and_only_the_requests_variables_count() {
        let (request, _) = read(
            &[
                (b"REQUEST_METHOD", b"GET"),
                (b"QUERY_STRING", b"jid=\xff"),
                (b"HTTP_X_\xff", b"dropped"),
                (b"HTTP_USER_AGENT", b"\xc3\x28"),
                (b"WEBPRESENCE_AUTH", b"1"),
                (b"WEBPRESENCE_CONFIG", b"/somewhere"),
                (b"PATH", b"/bin"),
                (b"\xff", b""),
            ],
            b"",
        );
        let vars: BTreeMap<_, _> = request.vars.iter().collect();
        let expected: [(&str, &[u8]); 4] = [
            ("HTTP_USER_AGENT", b"\xc3\x28"),
            ("QUERY_STRING", b"jid=\xff"),
            ("REQUEST_METHOD", b"GET"),
            ("WEBPRESENCE_AUTH", b"1"),
        ];
        assert_eq!(vars, expected.map(|(name, value)| (name.as_bytes(), value)).into());
        assert_eq!(request.excess, None);
    }

    #[test]
    fn params_limit_counts_on_both_sides() {
        let value = vec![b'v'; MAX_PARAMS_BYTES - "HTTP_X".len() + 1];
        let elsewhere = [b'v'; MAX_PARAMS_BYTES];
        let (within, _) = read(&[(b"HTTP_X", &value[1..]), (b"LS_COLORS", &elsewhere)], b"");
        assert_eq!((within.vars.iter().count(), within.excess), (1, None));
        let (over, _) = read(&[(b"QUERY_STRING", b""), (b"HTTP_X", &value)], b"");
        assert_eq!((over.vars.iter().count(), over.excess), (0, Some(Excess::Params)));
    }

    #[test]
    fn the_body_of_a_post_is_read_up_to_its_content_length() {
        let stdin = b"jid=a&more";
        let table = [
            ("POST", &b"5"[..], "jid=a"),
            ("POST", b" 5 ", "jid=a"),
            ("POST", b"0", ""),
            ("POST", b"", ""),
            ("POST", b"five", ""),
            ("POST", b"-5", ""),
            ("POST", b"5\xff", ""),
            ("POST", b"99999999999999999999999999", ""),
            ("GET", b"5", ""),
            ("PUT", b"5", ""),
        ];
        for (method, length, body) in table {
            let (request, unread) = read(&[(b"REQUEST_METHOD", method.as_bytes()), (b"CONTENT_LENGTH", length)], stdin);
            let found = (&request.body[..], stdin.len() - unread, request.excess);
            assert_eq!(found, (body.as_bytes(), body.len(), None), "{method} {}", length.escape_ascii());
        }
    }

    #[test]
    fn a_body_that_ends_early_is_no_body() {
        let (request, _) = read(&[(b"REQUEST_METHOD", b"POST"), (b"CONTENT_LENGTH", b"11")], b"jid=a&more");
        assert_eq!((request.body.len(), request.excess), (0, None));
    }

    #[test]
    fn body_limit_counts_on_both_sides_and_what_is_over_is_drained() {
        let stdin = vec![b'b'; 2 * MAX_DRAINED_BYTES as usize];
        let table = [
            ("16384", MAX_BODY_BYTES, MAX_BODY_BYTES, None),
            ("16385", 0, 16385, Some(Excess::Body)),
            ("2000000", 0, MAX_DRAINED_BYTES as usize, Some(Excess::Body)),
            ("18446744073709551615", 0, MAX_DRAINED_BYTES as usize, Some(Excess::Body)),
        ];
        for (length, body, drained, excess) in table {
            let vars: [(&[u8], &[u8]); 2] = [(b"REQUEST_METHOD", b"POST"), (b"CONTENT_LENGTH", length.as_bytes())];
            let (request, unread) = read(&vars, &stdin);
            let found = (request.body.len(), stdin.len() - unread, request.excess);
            assert_eq!(found, (body, drained, excess), "{length}");
        }
    }

    #[test]
    fn answers_open_with_their_status() {
        let statuses = [
            (200, "200 OK"),
            (204, "204 No Content"),
            (302, "302 Found"),
            (304, "304 Not Modified"),
            (400, "400 Bad Request"),
            (403, "403 Forbidden"),
            (405, "405 Method Not Allowed"),
            (503, "503 Service Unavailable"),
            (299, "299"),
        ];
        for (status, expected) in statuses {
            let response = Response {
                status,
                headers: vec![("Content-Length", "3".into())],
                body: Bytes::from_static(b"a\n\xff"),
                version: None,
            };
            let expected = [b"Status: ", expected.as_bytes(), b"\r\nContent-Length: 3\r\n\r\na\n\xff"].concat();
            assert_eq!(serialise(&response).escape_ascii().to_string(), expected.escape_ascii().to_string());
        }
    }

    #[test]
    fn no_header_can_end_its_line() {
        let value = "a\r\nSet-Cookie: b\n\u{85}\0c".to_owned();
        let response =
            Response { status: 200, headers: vec![("Location", value.into())], body: Bytes::new(), version: None };
        let bytes = serialise(&response);
        assert_eq!(bytes.escape_ascii().to_string(), r"Status: 200 OK\r\nLocation: aSet-Cookie: bc\r\n\r\n");
    }
}
