//! webpresence between real servers: Prosody, ejabberd and jabberd2 on one side, nginx, Apache and plain CGI on the
//! other, people kept online by a client that is not ours. Nothing is skipped: a missing program fails with the command
//! that installs it.

mod access;
mod avatars;
mod cases;
mod check;
mod commands;
mod company;
mod doors;
mod failures;
mod guests;
mod jabberd2;
mod life;
mod logins;
mod matrix;
mod names;
mod origins;
mod people;
mod ports;
mod privileges;
#[cfg(feature = "redis")]
mod redis;
mod relay;
mod requesters;
#[path = "../rig/mod.rs"]
mod rig;
mod rosters;
mod shared;
mod sites;
mod sockets;
mod stampede;
mod stand;
mod strangers;
mod tls;
mod traces;
mod turns;
mod watched;
mod web;
mod webcache;
mod world;
