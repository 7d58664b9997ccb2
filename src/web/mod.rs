//! The web side: a map of CGI variables becomes a response. `answer` is the product on one page.

pub mod answer;
mod caching;
mod languages;
mod origins;
mod params;
pub mod redirect;
pub mod refusal;
pub mod request;
mod requester;
pub mod response;
pub mod signed;
pub mod vars;
