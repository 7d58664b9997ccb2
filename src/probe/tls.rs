//! TLS toward the XMPP server, by rustls. The name that the certificate must prove is the XMPP domain, whatever host
//! DNS led to (RFC 6120, 13.7.2). Certificates are loaded only when a session is really opened: it costs milliseconds.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Failure;
use crate::config::Identity;

/// Begins TLS on `socket` as a client of `name`; `direct` says so by ALPN (XEP-0368).
pub async fn secure<S>(identity: &Identity, name: &str, direct: bool, socket: S) -> Result<TlsStream<S>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failure = |reason: String| Failure::Tls { host: name.to_owned(), reason };
    let server = ServerName::try_from(name.to_owned()).map_err(|_| failure("not a DNS name".to_owned()))?;
    let mut config = client_config(identity).map_err(failure)?;
    if direct {
        config.alpn_protocols = vec![b"xmpp-client".to_vec()];
    }
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(server, socket).await.map_err(|error| failure(explained(&error.to_string())))
}

/// rustls' words, and what they mean where they leave an admin alone.
fn explained(error: &str) -> String {
    match error {
        error if error.contains("CaUsedAsEndEntity") => {
            "the server shows a certificate that is made for issuing others; it needs one of its own".to_owned()
        }
        error => error.to_owned(),
    }
}

fn client_config(identity: &Identity) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    if !identity.verify {
        let verifier = Arc::new(Unverified(provider));
        return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    }
    let roots = match &identity.ca_file {
        Some(file) => roots_of_file(file)?,
        None => roots_of_system()?,
    };
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn roots_of_file(file: &Path) -> Result<RootCertStore, String> {
    let failed = |error: String| format!("ca_file {}: {error}", file.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| failed(error.to_string()))? {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() { Err(failed("no certificate in it".to_owned())) } else { Ok(roots) }
}

fn roots_of_system() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err("the system has no trusted certificates; install them or set ca_file".to_owned());
    }
    Ok(roots)
}

/// `verify = no`: whoever answers is taken for the server.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
