//! A component session (XEP-0114) by hand, with no code of the project: it shows that an XMPP server is up and is the
//! one that was started, and what the server itself answers.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ring::digest;

pub struct Component {
    stream: TcpStream,
    /// What came and was not handed out yet.
    heard: String,
}

impl Component {
    /// Connects and proves the secret.
    pub fn connect(port: u16, domain: &str, secret: &str) -> io::Result<Component> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut component = Component { stream, heard: String::new() };
        let namespaces = "xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'";
        component.send(&format!("<stream:stream {namespaces} to='{domain}'>"))?;
        component.read_until("<stream:stream")?;
        let header = component.read_until(">")?.replace('"', "'");
        let id = header.split(" id='").nth(1).and_then(|rest| rest.split('\'').next()).unwrap_or_default();
        let proof = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{id}{secret}").as_bytes());
        let hex: String = proof.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        component.send(&format!("<handshake>{hex}</handshake>"))?;
        component.read_until("<handshake")?;
        component.read_until(">")?;
        Ok(component)
    }

    pub fn send(&mut self, xml: &str) -> io::Result<()> {
        self.stream.write_all(xml.as_bytes())
    }

    /// Everything up to and with `mark`.
    pub fn read_until(&mut self, mark: &str) -> io::Result<String> {
        loop {
            if let Some(at) = self.heard.find(mark) {
                let rest = self.heard.split_off(at + mark.len());
                return Ok(std::mem::replace(&mut self.heard, rest));
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes)? {
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, self.heard.clone())),
                n => self.heard.push_str(&String::from_utf8_lossy(&bytes[..n])),
            }
        }
    }
}
