//! Many machines and one Redis, or a cluster of three: they have one cache, one lookup for each person, and one session of
//! an identity. Redis is killed, stopped, full, of another mind, and comes back: the answers are right all the while.

mod hub;
mod machines;
