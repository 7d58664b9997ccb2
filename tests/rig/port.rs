//! Ports for servers that cannot take a listening socket from us. They come from below the range the kernel gives to
//! outgoing connections, so that only another program that wants this very port can be in the way; servers are
//! started again with others then.

use std::net::TcpListener;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

/// Ports on 127.0.0.1 nobody listens on, none of which this process has given out lately.
pub fn free<const N: usize>() -> [u16; N] {
    std::array::from_fn(|_| one())
}

fn one() -> u16 {
    // Test processes that run side by side start at different places.
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU32::new(std::process::id().wrapping_mul(97)));
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut candidates = (0..COUNT).map(|_| (FIRST + next.fetch_add(1, Ordering::Relaxed) % COUNT) as u16);
    candidates.find(is_free).expect("some port is free")
}

/// Starts a server with ports of its choice, and with others when somebody was faster.
pub fn retrying<T>(name: &str, start: impl Fn() -> Result<T, String>) -> T {
    let mut troubles = Vec::new();
    for _ in 0..3 {
        match start() {
            Ok(server) => return server,
            Err(trouble) => troubles.push(trouble),
        }
    }
    panic!("{name} does not start:\n{}", troubles.join("\n-- again --\n"));
}
