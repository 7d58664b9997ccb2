//! What the gateway sends back.

/// A CGI answer (RFC 3875, 6). The headers are complete; the body is already empty for HEAD, 204 and 304.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}
