//! Who issued a server's certificate, whether it is trusted or not. The handshake is never completed: nothing is sent over
//! a connection that was not verified.

use std::sync::{Arc, Mutex, PoisonError};

use arc_cluster_connect::{Error, net::NetStream};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::certificate;

/// The issuer of what the server at the other end of `stream` shows for `host`.
pub async fn issuer(host: &str, stream: NetStream) -> Option<String> {
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let provider = provider();
    let onlooker = Arc::new(Onlooker {
        algorithms: provider.signature_verification_algorithms,
        seen: Mutex::default(),
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&onlooker) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // It fails by design.
    let _ = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await;
    let seen = onlooker.seen.lock().unwrap_or_else(PoisonError::into_inner);
    certificate::issuer(seen.as_deref()?)
}

/// Whether a handshake failed because nobody vouches for the certificate: not for its dates or its name.
pub fn is_untrusted(error: &Error) -> bool {
    use CertificateError as Problem;

    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        let inner = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::InvalidCertificate(problem)) = inner {
            return !matches!(
                problem,
                Problem::Expired
                    | Problem::ExpiredContext { .. }
                    | Problem::NotValidYet
                    | Problem::NotValidYetContext { .. }
                    | Problem::NotValidForName
                    | Problem::NotValidForNameContext { .. }
            );
        }
        next = cause.source();
    }
    false
}

/// Looks at the certificate, and refuses it.
#[derive(Debug)]
struct Onlooker {
    algorithms: WebPkiSupportedAlgorithms,
    /// The leaf, as DER.
    seen: Mutex<Option<Vec<u8>>>,
}

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.to_vec());
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "aws-lc-rs")]
    return Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return Arc::new(rustls::crypto::ring::default_provider());
}

#[cfg(test)]
mod tests {
    use arc_cluster_connect::ErrorKind;

    use super::*;

    #[test]
    fn only_a_missing_authority_is_a_lack_of_trust() {
        let untrusted = |problem: CertificateError| {
            let cause = std::io::Error::other(rustls::Error::InvalidCertificate(problem));
            is_untrusted(&Error::new(ErrorKind::Tls, "no").with_source(cause))
        };
        assert!(untrusted(CertificateError::UnknownIssuer));
        assert!(!untrusted(CertificateError::Expired));
        assert!(!untrusted(CertificateError::NotValidForName));
        assert!(!is_untrusted(&Error::new(ErrorKind::Tls, "no")));
    }
}
