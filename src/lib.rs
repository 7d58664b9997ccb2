//! webpresence shows on a web page whether somebody on XMPP is there. This is the map of the house; the library exists
//! for tests, fuzzing and benches and promises no API.
//!
//! A request comes in through [`gateway`], is answered on one page by [`web::answer`], which asks [`access`] whether it
//! may, [`cache`] what is known, and [`render`] for the body. What is not known is found out by [`probe`], the XMPP
//! side. Both sides meet in [`presence`]. [`site`] holds what lives as long as one configuration ([`config`]); [`cli`]
//! is for people.

#[cfg(not(any(feature = "rustls", feature = "native-tls")))]
compile_error!("an XMPP server is reached by TLS: build with the feature rustls or native-tls");

pub mod access;
pub mod cache;
pub mod cli;
pub mod config;
pub mod gateway;
#[cfg(feature = "redis")]
pub mod hub;
pub mod logging;
pub mod presence;
pub mod probe;
pub mod render;
pub mod signature;
pub mod site;
pub mod strangers;
mod turns;
pub mod viewers;
pub mod web;
