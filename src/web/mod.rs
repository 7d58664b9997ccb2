//! The web side: a map of CGI variables becomes a response. `answer` is the product on one page.

pub mod request;
pub mod response;
