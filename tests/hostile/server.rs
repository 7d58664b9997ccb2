//! An XMPP server that does as it is told: a list of acts for each connection, and what it was sent is written down. It
//! knows no XMPP; the lists do.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::rig::certificate::Certificate;
use crate::rig::xmpp::DOMAIN;
use crate::rig::{PATIENCE, certificate};

/// What the server does next. Behind its last act it is silent until the client goes.
#[derive(Clone)]
pub enum Act {
    /// Waits until this has come in.
    Hear(&'static str),
    /// `OURS` stands for the full address that a component has given itself.
    Say(String),
    /// A SASL element whose data is this; `@` stands for the client's nonce.
    Sasl(&'static str, String),
    /// The same for SASL2 (XEP-0388), where it is a challenge.
    Challenge2(&'static str),
    /// The same again and again until the client goes; `#` stands for a number.
    Flood(&'static str),
    /// A byte each second.
    Drip(&'static str),
    /// Puts TLS around the rest.
    Tls(Shown),
    /// Ends its side.
    Close,
}

/// Which certificate the server shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Good,
    /// By an authority that nobody trusts.
    Untrusted,
    Expired,
    OtherName,
}

impl Shown {
    /// The file that the client is to trust, beside what the system trusts where there is none.
    pub fn authority(self) -> Option<PathBuf> {
        (self != Shown::Untrusted).then(|| self.certificate().authority.clone())
    }

    fn certificate(self) -> &'static Certificate {
        let certificates = certificates();
        match self {
            Shown::Good => &certificates.good,
            Shown::Untrusted => &certificates.untrusted,
            Shown::Expired => &certificates.expired,
            Shown::OtherName => &certificates.other,
        }
    }
}

struct Certificates {
    good: Certificate,
    untrusted: Certificate,
    expired: Certificate,
    other: Certificate,
}

/// All of them, made once.
fn certificates() -> &'static Certificates {
    static MADE: OnceLock<Certificates> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("certificates");
        let strange = dir.join("untrusted");
        std::fs::create_dir_all(&strange).expect("a writable directory");
        Certificates {
            good: certificate::make(&dir, DOMAIN),
            untrusted: certificate::make(&strange, DOMAIN),
            expired: certificate::expired(&dir, "expired", &[DOMAIN]),
            other: certificate::signed(&dir, "other", &["elsewhere.test"], ""),
        }
    })
}

/// What the connections have been told, and how many of them are open.
#[derive(Default)]
struct Book {
    heard: String,
    open: usize,
    ever: usize,
}

pub struct Server {
    pub port: u16,
    book: Arc<Mutex<Book>>,
}

impl Server {
    /// Every connection gets the same acts, but for the first one where `first` has any.
    pub fn start(first: Vec<Act>, acts: Vec<Act>) -> Server {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let server = Server { port: listener.local_addr().expect("bound").port(), book: Arc::default() };
        let book = server.book.clone();
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let acts = if number == 0 && !first.is_empty() { &first } else { &acts };
                let (acts, book) = (acts.clone(), book.clone());
                on(&book, |book| (book.open, book.ever) = (book.open + 1, book.ever + 1));
                thread::spawn(move || {
                    let mut talk = Talk::new(client.expect("a connection"), book.clone());
                    // A client that goes in the middle of an act has done what it should.
                    let _ = talk.play(acts);
                    on(&book, |book| book.open -= 1);
                });
            }
        });
        server
    }

    /// Somebody came, and all have gone.
    pub fn is_left(&self) -> bool {
        on(&self.book, |book| book.ever > 0 && book.open == 0)
    }

    /// How many connections there were.
    pub fn visits(&self) -> usize {
        on(&self.book, |book| book.ever)
    }

    /// All that clients have said in clear, or behind our TLS.
    pub fn heard(&self) -> String {
        on(&self.book, |book| book.heard.clone())
    }
}

fn on<T>(book: &Mutex<Book>, act: impl FnOnce(&mut Book) -> T) -> T {
    act(&mut book.lock().unwrap_or_else(PoisonError::into_inner))
}

trait Channel: Read + Write {}
impl<T: Read + Write> Channel for T {}

struct Talk {
    tcp: TcpStream,
    channel: Box<dyn Channel>,
    /// What came and was not asked for yet.
    ahead: String,
    /// What came with the last thing that was waited for.
    last: String,
    book: Arc<Mutex<Book>>,
}

impl Talk {
    fn new(tcp: TcpStream, book: Arc<Mutex<Book>>) -> Talk {
        tcp.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let channel = Box::new(tcp.try_clone().expect("a descriptor"));
        Talk { tcp, channel, ahead: String::new(), last: String::new(), book }
    }

    fn play(&mut self, acts: Vec<Act>) -> io::Result<()> {
        for act in acts {
            match act {
                Act::Hear(mark) => self.hear(mark)?,
                Act::Say(text) => self.say(text.replace("OURS", &self.address()).as_bytes())?,
                Act::Sasl(element, data) => self.sasl(element, &data)?,
                Act::Challenge2(data) => {
                    let data = BASE64.encode(data.replace('@', &self.nonce()));
                    self.say(format!("<challenge xmlns='urn:xmpp:sasl:2'>{data}</challenge>").as_bytes())?;
                }
                Act::Flood(text) => self.flood(text)?,
                Act::Drip(text) => self.drip(text)?,
                Act::Tls(shown) => self.secure(shown)?,
                Act::Close => self.tcp.shutdown(Shutdown::Write)?,
            }
        }
        while self.read()? > 0 {}
        Ok(())
    }

    fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.channel.write_all(bytes)?;
        self.channel.flush()
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 4096];
        let length = self.channel.read(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes[..length]);
        on(&self.book, |book| book.heard.push_str(&text));
        self.ahead.push_str(&text);
        Ok(length)
    }

    fn hear(&mut self, mark: &str) -> io::Result<()> {
        loop {
            if let Some(at) = self.ahead.find(mark) {
                let rest = self.ahead.split_off(at + mark.len());
                self.last = std::mem::replace(&mut self.ahead, rest);
                return Ok(());
            }
            if self.read()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// On every stanza of the component (XEP-0114).
    fn address(&self) -> String {
        let heard = on(&self.book, |book| book.heard.clone());
        let stanza = heard.split("<presence").nth(1).and_then(|stanza| stanza.split("from=").nth(1));
        stanza.and_then(|rest| rest.get(1..)?.split(['\'', '"']).next()).unwrap_or_default().to_owned()
    }

    fn sasl(&mut self, element: &str, data: &str) -> io::Result<()> {
        let data = BASE64.encode(data.replace('@', &self.nonce()));
        self.say(format!("<{element} xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{data}</{element}>").as_bytes())
    }

    /// The client's (RFC 5802, 5.1), out of its `<auth/>` or `<initial-response/>` if that was heard last.
    fn nonce(&self) -> String {
        let said = ["</auth>", "</initial-response>"].into_iter().find_map(|end| self.last.strip_suffix(end));
        let data = said.and_then(|text| text.rsplit('>').next()).unwrap_or_default();
        let message = String::from_utf8(BASE64.decode(data).unwrap_or_default()).unwrap_or_default();
        message.split(",r=").nth(1).unwrap_or_default().to_owned()
    }

    fn flood(&mut self, text: &str) -> io::Result<()> {
        for first in (0..).step_by(1000) {
            let chunk: String =
                (first..first + 1000).map(|number: u64| text.replace('#', &number.to_string())).collect();
            self.say(chunk.as_bytes())?;
        }
        Ok(())
    }

    fn drip(&mut self, text: &str) -> io::Result<()> {
        self.tcp.set_read_timeout(Some(Duration::from_secs(1)))?;
        for byte in text.bytes() {
            self.say(&[byte])?;
            match self.read() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
            }
        }
        self.tcp.set_read_timeout(Some(PATIENCE))
    }

    fn secure(&mut self, shown: Shown) -> io::Result<()> {
        let certificate = shown.certificate();
        let chain = vec![CertificateDer::from_pem_file(&certificate.chain).expect("openssl made it")];
        let key = PrivateKeyDer::from_pem_file(&certificate.key).expect("openssl made it");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        let tls = ServerConnection::new(Arc::new(config.expect("a key and its certificate"))).expect("a configuration");
        self.channel = Box::new(StreamOwned::new(tls, self.tcp.try_clone()?));
        self.ahead.clear();
        Ok(())
    }
}
