//! webpresence shows on a web page whether somebody on XMPP is there.

pub mod access;
pub mod cache;
pub mod config;
pub mod presence;
pub mod render;
pub mod web;
