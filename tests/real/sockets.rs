//! A component whose server listens on a Unix socket.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use crate::cases::cases;
use crate::rig::leash::directory;
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{Identity, Kind};
use crate::world::visit;

/// Hands one connection on to a port of this machine, to its end.
fn relay(listener: &UnixListener, port: u16) -> io::Result<()> {
    let (ours, _) = listener.accept()?;
    let server = TcpStream::connect(("127.0.0.1", port))?;
    let (from, to): (UnixStream, TcpStream) = (ours.try_clone()?, server.try_clone()?);
    let upwards = thread::spawn(move || {
        io::copy(&mut &from, &mut &to)?;
        to.shutdown(Shutdown::Write)
    });
    io::copy(&mut &server, &mut &ours)?;
    ours.shutdown(Shutdown::Write)?;
    upwards.join().expect("it does not panic")
}

#[test]
fn prosody_component_by_unix_socket() {
    let (world, dir) = (visit(Kind::Prosody), directory("socket"));
    let path = dir.path().join("component");
    let port = world.server.ports.component;
    let listener = UnixListener::bind(&path).expect("the directory is ours");
    let installed = Webpresence::new(&world.server, Identity::Component(14));
    let tcp = format!("host = 127.0.0.1\nport = {port}\n");
    let before = installed.configuration();
    assert!(before.contains(&tcp), "{before}");
    installed.configure(&before.replace(&tcp, &format!("host = unix:{}\n", path.display())));
    let case = cases().into_iter().find(|case| case.state == "away").expect("somebody is away");
    thread::scope(|scope| {
        let relayed = scope.spawn(|| relay(&listener, port));
        case.check("json", &installed.get(&format!("jid={}&type=json", case.jid)));
        relayed.join().expect("it does not panic").expect("both ends close in order");
    });
}
