//! [`Certificate`]: the authority's own, under a certificate authority of this run.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

pub struct Certificate {
    pub ca_pem: String,
    pub chain_pem: String,
    pub key_pem: String,
}

impl Certificate {
    pub fn generate() -> Self {
        Self::try_generate().expect("fixed, well-formed certificate parameters can be signed")
    }

    fn try_generate() -> Result<Self, rcgen::Error> {
        let mut authority = CertificateParams::default();
        authority
            .distinguished_name
            .push(DnType::CommonName, "CA of a local token authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority_key = KeyPair::generate()?;
        let ca_pem = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);

        let mut server =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        server.use_authority_key_identifier_extension = true;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        Ok(Self {
            ca_pem,
            chain_pem: server.signed_by(&key, &issuer)?.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}
