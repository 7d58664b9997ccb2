//! The ways a request comes in: a command, plain CGI, nginx with FastCGI on a socket, and Apache, which starts the
//! executable itself.

use crate::rig::apache::{Apache, Snippet, web_user};
use crate::rig::http::{Answer, Request};
use crate::rig::nginx::{self, Nginx};
use crate::rig::webpresence::{Serve, Webpresence};

/// Openfire's path, and the short one.
pub const STATUS: &str = "/plugins/presence/status";
pub const SHORT: &str = "/presence/";

#[derive(Clone, Copy, Debug)]
pub enum Door {
    Get,
    Cgi,
    Nginx,
    Fcgid,
    Cgid,
}

/// An installation behind a door.
pub enum Open {
    Get(Webpresence),
    Cgi(Webpresence),
    Nginx { nginx: Nginx, serve: Serve, installed: Webpresence },
    Apache { apache: Apache, installed: Webpresence },
}

impl Door {
    pub fn open(self, installed: Webpresence) -> Open {
        match self {
            Door::Get => Open::Get(installed),
            Door::Cgi => Open::Cgi(installed),
            Door::Nginx => nginx(nginx::Snippet::Public, installed),
            Door::Fcgid => apache(Snippet::Fcgid, installed),
            Door::Cgid => apache(Snippet::Cgid, installed),
        }
    }
}

pub fn nginx(snippet: nginx::Snippet, installed: Webpresence) -> Open {
    let serve = installed.serve();
    Open::Nginx { nginx: Nginx::with(&serve.socket, snippet), serve, installed }
}

pub fn apache(snippet: Snippet, installed: Webpresence) -> Open {
    let is_cgi = matches!(snippet, Snippet::Cgid | Snippet::Uncached);
    let executable = installed.executable(if is_cgi { "webpresence.cgi" } else { "webpresence.fcgi" });
    if let Some(user) = web_user() {
        installed.hand_over(user);
    }
    Open::Apache { apache: Apache::start(snippet, &executable, &installed.config), installed }
}

impl Open {
    /// Asks at a path, which the command does not have.
    pub fn ask(&self, path: &str, query: &str) -> Answer {
        match self {
            Open::Get(installed) => installed.get(query),
            Open::Cgi(installed) => {
                let uri = format!("{path}?{query}");
                installed.cgi(&[("REQUEST_METHOD", "GET"), ("REQUEST_URI", &uri), ("QUERY_STRING", query)], b"")
            }
            web => web.send(Request::get(&format!("{path}?{query}"))),
        }
    }

    /// Sends a request to the web server in front.
    pub fn send(&self, request: Request) -> Answer {
        match self {
            Open::Nginx { nginx, .. } => nginx.send(request),
            Open::Apache { apache, .. } => apache.send(request),
            Open::Get(_) | Open::Cgi(_) => panic!("there is no web server here"),
        }
    }
}
