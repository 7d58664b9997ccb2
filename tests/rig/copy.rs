//! What goes on between two sockets, for those who stand in the middle and look.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

/// Hands on what `heed` has dealt with; ends both sides as soon as one has ended.
pub fn copy(mut from: TcpStream, mut to: TcpStream, heed: impl Fn(&[u8])) {
    to.set_nodelay(true).expect("an open socket");
    let mut buffer = [0; 65536];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        heed(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
