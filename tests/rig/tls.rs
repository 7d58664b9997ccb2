//! The other end of TLS, by rustls: it shows the certificate it is given, would like to see one, tells what it saw of
//! whoever connected, and hands what comes on to a port behind it. It ends when it is dropped.

use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::certificate::Certificate;
use super::eventually;

pub struct TlsEnd {
    pub port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Dropping it ends the thread.
    _hold: oneshot::Sender<()>,
}

/// What a client showed and agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub alpn: Option<String>,
    /// Its certificate in DER.
    pub certificate: Option<Vec<u8>>,
    /// `tls-exporter` (RFC 9266).
    pub exporter: Vec<u8>,
}

impl TlsEnd {
    /// `behind` is a port on this machine; without one nothing is said.
    pub fn start(certificate: &Certificate, version: &'static SupportedProtocolVersion, behind: Option<u16>) -> TlsEnd {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let port = listener.local_addr().expect("bound").port();
        let acceptor = TlsAcceptor::from(Arc::new(config(certificate, version)));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (hold, held) = oneshot::channel();
        let ours = seen.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
                let serve = async {
                    while let Ok((socket, _)) = listener.accept().await {
                        tokio::spawn(converse(acceptor.clone(), socket, behind, ours.clone()));
                    }
                };
                tokio::select! {
                    () = serve => {}
                    _ = held => {}
                }
            });
        });
        TlsEnd { port, seen, _hold: hold }
    }

    /// What the last client showed.
    pub fn seen(&self) -> Seen {
        eventually("a client ends its handshake", || self.seen.lock().expect("nobody panics with it").pop())
    }
}

async fn converse(acceptor: TlsAcceptor, socket: TcpStream, behind: Option<u16>, seen: Arc<Mutex<Vec<Seen>>>) {
    // A client that does not like the certificate is what some tests are about.
    let Ok(mut stream) = acceptor.accept(socket).await else { return };
    let connection = stream.get_ref().1;
    let exporter = connection.export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", Some(b""));
    let alpn = connection.alpn_protocol().map(|alpn| String::from_utf8_lossy(alpn).into_owned());
    let certificate = connection.peer_certificates().and_then(|chain| chain.first()).map(|der| der.to_vec());
    let shown = Seen { alpn, certificate, exporter: exporter.expect("the handshake is over") };
    seen.lock().expect("nobody panics with it").push(shown);
    match behind {
        Some(port) => {
            let mut server = TcpStream::connect(("127.0.0.1", port)).await.expect("the server behind is up");
            // Either side may go without a word.
            let _ = copy_bidirectional(&mut stream, &mut server).await;
        }
        None => {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }
}

fn config(certificate: &Certificate, version: &'static SupportedProtocolVersion) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(read(&certificate.authority));
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let clients = clients.allow_unauthenticated().build().expect("an authority");
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]).expect("a version");
    let key = PrivateKeyDer::from_pem_file(&certificate.key).expect("a key");
    let chain = read(&certificate.chain);
    let mut config = builder.with_client_cert_verifier(clients).with_single_cert(chain, key).expect("they fit");
    config.alpn_protocols = vec![b"xmpp-client".to_vec()];
    config
}

/// The certificates of a PEM file.
pub fn read(file: &Path) -> Vec<CertificateDer<'static>> {
    let found = CertificateDer::pem_file_iter(file).expect("a file").collect::<Result<Vec<_>, _>>();
    found.expect("certificates")
}
