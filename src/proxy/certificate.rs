//! [`Certificate`]: the TLS identity of one run of the proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use time::{Duration, OffsetDateTime};

use crate::{
    Error, ErrorKind, Result,
    net::{Alpn, TlsAcceptor},
};

/// The clock of a virtual machine or a WSL guest may lag behind the clock of the tool that talks to it.
const STARTS_BEFORE_NOW: Duration = Duration::hours(1);

/// Longer than a proxy is left running, short enough that a stolen key is worth little.
const LIFE: Duration = Duration::days(30);

/// A self-signed leaf for the loopback names.
///
/// It is no authority (`CA:FALSE`): what a kubeconfig trusts is this one certificate, and its key, which never leaves
/// the process, could not vouch for any other server.
pub(super) struct Certificate {
    pem: String,
    acceptor: TlsAcceptor,
}

impl Certificate {
    pub(super) fn generate(now: OffsetDateTime) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(certificate_error)?;
        let pem = parameters(now)
            .map_err(certificate_error)?
            .self_signed(&key)
            .map_err(certificate_error)?
            .pem();
        let acceptor = TlsAcceptor::from_pem(
            pem.as_bytes(),
            key.serialize_pem().as_bytes(),
            Alpn::Http2OrHttp1,
        )?;
        Ok(Self { pem, acceptor })
    }

    /// The certificate alone, as `certificate-authority-data` wants it before base64.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }
}

fn parameters(now: OffsetDateTime) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "arc-cluster-connect local endpoint");
    parameters.distinguished_name = name;
    parameters.subject_alt_names = vec![
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        SanType::DnsName("localhost".try_into()?),
    ];
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.not_before = now - STARTS_BEFORE_NOW;
    parameters.not_after = now + LIFE;
    Ok(parameters)
}

fn certificate_error(error: rcgen::Error) -> Error {
    Error::new(
        ErrorKind::Tls,
        "can not make the certificate of the local endpoint",
    )
    .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_validity_surrounds_now() {
        let now = OffsetDateTime::now_utc();
        let parameters = parameters(now).expect("static names are valid");
        assert!(parameters.not_before <= now - Duration::minutes(30));
        assert!(parameters.not_after >= now + Duration::days(7));
        assert_eq!(parameters.is_ca, IsCa::ExplicitNoCa);
    }

    #[test]
    fn every_run_has_its_own() {
        let now = OffsetDateTime::now_utc();
        let one = Certificate::generate(now).expect("a certificate");
        let other = Certificate::generate(now).expect("a certificate");
        assert_ne!(one.pem(), other.pem());
        assert!(!one.pem().contains("PRIVATE KEY"));
        assert_eq!(one.pem().matches("BEGIN CERTIFICATE").count(), 1);
    }
}
