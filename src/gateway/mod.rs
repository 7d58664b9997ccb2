//! The web server's side: the only place that knows CGI and FastCGI. It turns whatever came through the door into a
//! [`Request`](crate::web::request::Request) and a [`Response`](crate::web::response::Response) into bytes. It never
//! looks into a query string; what is asked for is the business of `web`.
//!
//! | file | what it does |
//! | --- | --- |
//! | [`door`] | how was this process started: by a person, with sockets, as CGI? |
//! | [`cgi`] | one request from the environment; the bytes of an answer, for both doors |
//! | [`records`] | the FastCGI record layer: bytes in, requests out. Pure: no socket, no clock |
//! | [`listen`] | addresses, sockets of our own and sockets handed over |
//! | [`serve`] | the accept loop, connections, deadlines, the graceful stop |
//! | [`ready`] | tells systemd how things stand |
//! | [`signals`] | SIGTERM, SIGUSR1 and SIGHUP |

pub mod cgi;
pub mod door;
pub mod listen;
pub mod ready;
pub mod records;
pub mod serve;
pub mod signals;

pub use door::Door;
pub use listen::{Address, Listener};
pub use serve::{Limits, serve};

/// CGI variables of one request, names and values together; in FastCGI the PARAMS stream with its lengths. Beyond it
/// the request is [`Excess::Params`](crate::web::request::Excess::Params). Apache passes 16 KiB records of whole
/// pairs, nginx one record: a browser's headers stay far below.
pub const MAX_PARAMS_BYTES: usize = 64 * 1024;

/// The body of one request. Beyond it the request is [`Excess::Body`](crate::web::request::Excess::Body).
pub const MAX_BODY_BYTES: usize = 16 * 1024;
