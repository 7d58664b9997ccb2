//! Tells systemd how things stand (sd_notify(3)): ready, reading the configuration again, stopping. Without
//! $NOTIFY_SOCKET nobody wants to know, and a manager that cannot be reached is no reason to stop: it gets one log line.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The service manager, if there is one.
#[derive(Debug)]
pub struct Manager {
    socket: Option<OsString>,
}

impl Manager {
    /// The manager that $NOTIFY_SOCKET names.
    pub fn from_env() -> Manager {
        Manager::at(env::var_os("NOTIFY_SOCKET"))
    }

    /// `socket` is a path, or `@` and a name without a file (Linux).
    pub fn at(socket: Option<OsString>) -> Manager {
        Manager { socket: socket.filter(|socket| !socket.is_empty()) }
    }

    /// Requests are being accepted.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The configuration is being read again; [`ready`](Manager::ready) says when that is done.
    pub fn reloading(&self) {
        self.tell("RELOADING=1");
    }

    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, state: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket, state) {
            log::warn!("cannot tell the service manager {state} at {}: {error}", socket.display());
        }
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let datagram = UnixDatagram::unbound()?;
    datagram.send_to_addr(state.as_bytes(), &address(socket)?)?;
    Ok(())
}

fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name),
        _ => SocketAddr::from_pathname(socket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(manager: &Manager, heard: &UnixDatagram) {
        manager.ready();
        manager.reloading();
        manager.stopping();
        for expected in ["READY=1", "RELOADING=1", "STOPPING=1"] {
            let mut message = [0; 64];
            let len = heard.recv(&mut message).unwrap();
            assert_eq!(message[..len].escape_ascii().to_string(), expected);
        }
    }

    #[test]
    fn the_manager_hears_at_a_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let heard = UnixDatagram::bind(&path).unwrap();
        check(&Manager::at(Some(path.into())), &heard);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_manager_hears_at_an_abstract_name() {
        let name = format!("@webpresence-test-{}", std::process::id());
        let heard = UnixDatagram::bind_addr(&address(OsStr::new(&name)).unwrap()).unwrap();
        check(&Manager::at(Some(name.into())), &heard);
    }

    #[test]
    fn nobody_to_tell_is_no_fault() {
        Manager::at(None).ready();
        Manager::at(Some("".into())).ready();
        Manager::at(Some("/nowhere/notify".into())).ready();
        Manager::at(Some("/".repeat(300).into())).ready();
    }
}
