//! TLS by rustls. Its verifier is asked, with two exceptions: a certificate that stands itself in `ca_file` is taken
//! although it is made for issuing others, and with `verify = no` whoever answers is taken for the server.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, OtherError, ProtocolVersion,
    RootCertStore, SignatureScheme,
};
use tokio_rustls::TlsConnector;

use super::{ALPN, Beginning, Secured, Socket, TlsFault, of_file, read};
use crate::config::Identity;
use crate::probe::certificate;

/// The label and the length of `tls-exporter` (RFC 9266, 2).
const EXPORTER: (&[u8], usize) = (b"EXPORTER-Channel-Binding", 32);

pub async fn secure(
    identity: &Identity,
    name: &str,
    beginning: Beginning,
    socket: Box<dyn Socket>,
) -> Result<Secured, TlsFault> {
    let no_name = |_| TlsFault::Handshake(format!("{name} is not a DNS name"));
    let server = ServerName::try_from(name.to_owned()).map_err(no_name)?;
    let mut config = client_config(identity)?;
    if beginning == Beginning::AtOnce {
        config.alpn_protocols = vec![ALPN.as_bytes().to_vec()];
    }
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(server, socket).await.map_err(|error| fault(&error))?;
    let connection = stream.get_ref().1;
    let certificate = connection.peer_certificates().and_then(|chain| chain.first()).map(|der| der.to_vec());
    let exporter = exporter(connection);
    let version = version(connection);
    Ok(Secured { version, ..Secured::new(stream, certificate, exporter) })
}

fn version(connection: &ClientConnection) -> Option<&'static str> {
    match connection.protocol_version()? {
        ProtocolVersion::TLSv1_2 => Some("1.2"),
        ProtocolVersion::TLSv1_3 => Some("1.3"),
        _ => None,
    }
}

/// TLS 1.2 would need the extended master secret (RFC 9266, 4.1), and rustls does not tell whether it has it.
fn exporter(connection: &ClientConnection) -> Option<Vec<u8>> {
    let (label, length) = EXPORTER;
    let exported = || connection.export_keying_material(vec![0; length], label, Some(&[])).ok();
    (connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)).then(exported).flatten()
}

fn fault(error: &io::Error) -> TlsFault {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(wrong)) => match wrong {
            CertificateError::ExpiredContext { time, not_after } => {
                TlsFault::Expired { until: Some(time_of(*not_after)), now: time_of(*time) }
            }
            CertificateError::NotValidYetContext { time, not_before } => {
                TlsFault::NotYetValid { from: Some(time_of(*not_before)), now: time_of(*time) }
            }
            // Of one whose end is before its beginning.
            CertificateError::Expired => TlsFault::Expired { until: None, now: SystemTime::now() },
            CertificateError::UnknownIssuer => TlsFault::UnknownIssuer,
            CertificateError::Other(OtherError(ours)) => {
                ours.downcast_ref::<TlsFault>().cloned().unwrap_or_else(|| TlsFault::Handshake(error.to_string()))
            }
            _ => TlsFault::Handshake(error.to_string()),
        },
        _ => TlsFault::Handshake(error.to_string()),
    }
}

fn time_of(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

fn client_config(identity: &Identity) -> Result<ClientConfig, TlsFault> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsFault::Handshake(error.to_string()))?;
    let verifier: Arc<dyn ServerCertVerifier> = match &identity.ca_file {
        _ if !identity.verify => Arc::new(Unverified(provider)),
        Some(file) => Arc::new(Verified::new(certificates("ca_file", file)?, provider)?),
        None => Arc::new(Verified::new(certificates_of_system(), provider)?),
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let Some(own) = &identity.client_certificate else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates("cert", &own.cert)?;
    let key = PrivateKeyDer::from_pem_slice(&read("key", &own.key)?);
    let key = key.map_err(|error| of_file("key", &own.key, &error))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| of_file("key", &own.key, &error))
}

/// Those of a PEM file: at least one.
fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let text = read(key, file)?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    match found.map_err(|error| of_file(key, file, &error))? {
        none if none.is_empty() => Err(of_file(key, file, &"no certificate in it")),
        found => Ok(found),
    }
}

fn certificates_of_system() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

/// Somebody who is trusted must vouch for the server.
#[derive(Debug)]
struct Verified {
    webpki: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl Verified {
    fn new(trusted: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Result<Verified, TlsFault> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.iter().cloned());
        let nobody = "no certificate here can be trusted: install the system's (ca-certificates), or set ca_file";
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let webpki = webpki.map_err(|_| TlsFault::Own(nobody.to_owned()))?;
        Ok(Verified { webpki, trusted })
    }

    /// The admin has named this very certificate: that it may issue others too says nothing against it. What webpki
    /// leaves unlooked at then is looked at here: whom it is for, and when it is valid.
    fn verify_named(
        &self,
        certificate: &CertificateDer<'_>,
        server: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.trusted.contains(certificate) {
            return Err(ours(TlsFault::Issuer));
        }
        let (from, until) = certificate::validity(certificate).ok_or(CertificateError::BadEncoding)?;
        let (from, until, now) = (SystemTime::from(from.0), SystemTime::from(until.0), time_of(now));
        if now < from {
            return Err(ours(TlsFault::NotYetValid { from: Some(from), now }));
        }
        if until < now {
            return Err(ours(TlsFault::Expired { until: Some(until), now }));
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, server)?;
        Ok(ServerCertVerified::assertion())
    }
}

fn ours(fault: TlsFault) -> Error {
    CertificateError::Other(OtherError(Arc::new(fault))).into()
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = match self.webpki.verify_server_cert(certificate, chain, server, ocsp, now) {
            // webpki's own error, which only its words tell apart.
            Err(Error::InvalidCertificate(CertificateError::Other(why)))
                if format!("{why:?}").contains("CaUsedAsEndEntity") =>
            {
                self.verify_named(certificate, server, now)
            }
            // The server's very certificate is trusted, whoever issued it.
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) if self.trusted.contains(certificate) => {
                self.verify_named(certificate, server, now)
            }
            verified => verified,
        };
        verified.map_err(|error| match error {
            // Somebody of the same name is trusted, but he has another key.
            Error::InvalidCertificate(CertificateError::BadSignature) => CertificateError::UnknownIssuer.into(),
            Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }) => {
                let expected = server.to_str().into_owned();
                ours(TlsFault::WrongName { expected, offered: certificate::names(certificate) })
            }
            error => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
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
