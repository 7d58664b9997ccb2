//! A name server (dnsmasq) that knows the SRV records it is given, and nothing else.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use super::leash::{Leash, directory};
use super::{eventually, port, program};

pub struct NameServer {
    pub address: SocketAddr,
    _leash: Leash,
}

impl NameServer {
    /// `records` as dnsmasq's `srv-host` takes them: `_service._tcp.domain,target,port,priority,weight`, or without a
    /// target where there is no such service.
    pub fn start(records: &[&str]) -> NameServer {
        port::retrying("dnsmasq", || try_start(records))
    }
}

fn try_start(records: &[&str]) -> Result<NameServer, String> {
    let [port] = port::free();
    let mut command = Command::new(program("dnsmasq", "dnsmasq-base"));
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=", "--group="]);
    command.args(["--listen-address=127.0.0.1", "--bind-interfaces", "--local=/test/", "--pid-file="]);
    command.arg(format!("--port={port}")).args(records.iter().map(|record| format!("--srv-host={record}")));
    let mut leash = Leash::start(directory("dns"), None, &mut command, &[]);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let up = eventually("dnsmasq answers or ends", || {
        let ended = leash.ended().map(|code| Err(format!("exit {code}\n{}", leash.log())));
        ended.or_else(|| answers(address).then_some(Ok(())))
    });
    up.map(|()| NameServer { address, _leash: leash })
}

/// Asks for the root's name servers, which it refuses or knows, but answers.
fn answers(address: SocketAddr) -> bool {
    const QUERY: [u8; 17] = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    let Ok(socket) = UdpSocket::bind("127.0.0.1:0") else { return false };
    let asked =
        socket.set_read_timeout(Some(Duration::from_millis(200))).and_then(|()| socket.send_to(&QUERY, address));
    asked.is_ok() && socket.recv(&mut [0; 512]).is_ok()
}
