//! [`Authority`]: the stand-in's certificate authority and the server certificate under it.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// A certificate authority of one run, and a certificate for loopback that it signed.
#[derive(Clone)]
pub struct Authority {
    ca_pem: String,
    chain_pem: String,
    key_pem: String,
}

impl Authority {
    /// Fresh keys and certificates.
    pub fn generate() -> Self {
        Self::try_generate().expect("fixed, well-formed certificate parameters can be signed")
    }

    fn try_generate() -> Result<Self, rcgen::Error> {
        let mut ca_params = CertificateParams::default();
        ca_params
            .distinguished_name
            .push(DnType::CommonName, "stand-in cluster CA");
        ca_params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca_params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let ca_key = KeyPair::generate()?;
        let ca_pem = ca_params.self_signed(&ca_key)?.pem();
        let issuer = Issuer::new(ca_params, ca_key);

        // The names that a real API server's certificate carries, and loopback.
        let mut params = CertificateParams::new(vec![
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
            "kubernetes".to_owned(),
            "kubernetes.default.svc".to_owned(),
        ])?;
        params
            .distinguished_name
            .push(DnType::CommonName, "kube-apiserver");
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let chain_pem = params.signed_by(&key, &issuer)?.pem();
        Ok(Self {
            ca_pem,
            chain_pem,
            key_pem: key.serialize_pem(),
        })
    }

    /// The authority's certificate, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub(super) fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    pub(super) fn key_pem(&self) -> &str {
        &self.key_pem
    }
}
