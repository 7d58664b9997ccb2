//! TLS by the system's own library, through native-tls. It gives no `tls-exporter`, and of a certificate that it
//! refuses it shows nothing but a word of OpenSSL.

use std::time::SystemTime;

use native_tls::{Certificate, Error, Identity as Own, TlsConnector};

use super::{ALPN, Beginning, Secured, Socket, TlsFault, of_file, read};
use crate::config::Identity;

/// The last is that of somebody with the name of one who is trusted, and another key.
const UNKNOWN_ISSUER: [&str; 5] = [
    "self-signed certificate",
    "self signed certificate",
    "local issuer certificate",
    "verify the first certificate",
    "certificate signature failure",
];

pub async fn secure(
    identity: &Identity,
    name: &str,
    beginning: Beginning,
    socket: Box<dyn Socket>,
) -> Result<Secured, TlsFault> {
    let connector = tokio_native_tls::TlsConnector::from(connector(identity, beginning)?);
    let stream = connector.connect(name, socket).await.map_err(|error| fault(name, &error))?;
    let certificate = stream.get_ref().peer_certificate().ok().flatten();
    let certificate = certificate.and_then(|certificate| certificate.to_der().ok());
    Ok(Secured::new(stream, certificate, None))
}

fn connector(identity: &Identity, beginning: Beginning) -> Result<TlsConnector, TlsFault> {
    let mut builder = TlsConnector::builder();
    if beginning == Beginning::AtOnce {
        builder.request_alpns(&[ALPN]);
    }
    if !identity.verify {
        builder.danger_accept_invalid_certs(true).danger_accept_invalid_hostnames(true);
    } else if let Some(file) = &identity.ca_file {
        let trusted = Certificate::stack_from_pem(&read("ca_file", file)?);
        let trusted = trusted.map_err(|error| of_file("ca_file", file, &error))?;
        if trusted.is_empty() {
            return Err(of_file("ca_file", file, &"no certificate in it"));
        }
        builder.disable_built_in_roots(true);
        for certificate in trusted {
            builder.add_root_certificate(certificate);
        }
    }
    if let Some(own) = &identity.client_certificate {
        let (chain, key) = (read("cert", &own.cert)?, read("key", &own.key)?);
        builder.identity(Own::from_pkcs8(&chain, &key).map_err(|error| of_file("key", &own.key, &error))?);
    }
    builder.build().map_err(|error| TlsFault::Own(error.to_string()))
}

/// OpenSSL tells what a certificate lacks as text (`X509_verify_cert_error_string`). Other words stay as they are.
fn fault(name: &str, error: &Error) -> TlsFault {
    let said = error.to_string();
    let lower = said.to_lowercase();
    let now = SystemTime::now();
    let is = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    match () {
        () if is(&["hostname mismatch", "ip address mismatch"]) => {
            TlsFault::WrongName { expected: name.to_owned(), offered: Vec::new() }
        }
        () if is(&["certificate has expired"]) => TlsFault::Expired { until: None, now },
        () if is(&["certificate is not yet valid"]) => TlsFault::NotYetValid { from: None, now },
        () if is(&UNKNOWN_ISSUER) => TlsFault::UnknownIssuer,
        () => TlsFault::Handshake(said),
    }
}
