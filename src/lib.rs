//! webpresence shows on a web page whether somebody on XMPP is there.

pub mod cache;
pub mod config;
pub mod gateway;
pub mod presence;
pub mod probe;
pub mod web;
