//! What the gateway hands in.

use std::collections::HashMap;

use tokio::time::Instant;

/// One request as the web server described it, whichever door it came through.
#[derive(Debug)]
pub struct Request {
    /// The CGI variables (RFC 3875, 4.1). Values are bytes: whoever sends a header chooses them.
    pub vars: HashMap<String, Vec<u8>>,
    pub body: Vec<u8>,
    /// The gateway's limit this request broke, if any; what was over the limit is not here.
    pub excess: Option<Excess>,
    /// When it came in: its deadline counts from here.
    pub arrived: Instant,
}

/// A limit of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// More than 64 KiB of CGI variables.
    Params,
    /// More than 16 KiB of request body.
    Body,
}

impl Request {
    /// A variable that is there and not empty.
    pub fn var(&self, name: &str) -> Option<&[u8]> {
        self.vars.get(name).map(Vec::as_slice).filter(|value| !value.is_empty())
    }
}
