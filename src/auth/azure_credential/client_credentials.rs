//! Applications: the client credentials grant (RFC 6749 section 4.4), by a secret or by a signed assertion (RFC 7523).

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::{
    ClientId, CredentialKind, CredentialSettings, Flow, Grant, certificate::Certificate,
    token_endpoint::TokenEndpoint,
};
use crate::{
    Error, ErrorKind, Result,
    auth::{AccessToken, TenantId},
};

struct ClientCredentials {
    endpoint: TokenEndpoint,
    client: String,
    evidence: Evidence,
}

/// How the application shows who it is.
enum Evidence {
    Secret(SecretString),
    Certificate(Box<Certificate>),
}

pub(super) fn with_secret(
    settings: &CredentialSettings,
    tenant: TenantId,
    client: ClientId,
    secret: String,
) -> Result<Arc<dyn Flow>> {
    if secret.is_empty() {
        return Err(
            Error::new(ErrorKind::InvalidInput, "the client secret is empty")
                .with_help("give the secret's value, which Azure shows only when it is made"),
        );
    }
    let kind = CredentialKind::ClientSecret;
    let evidence = Evidence::Secret(secret.into());
    Ok(flow(kind, settings, tenant, client, evidence))
}

pub(super) fn with_certificate(
    settings: &CredentialSettings,
    tenant: TenantId,
    client: ClientId,
    pem: &str,
) -> Result<Arc<dyn Flow>> {
    let kind = CredentialKind::ClientCertificate;
    let evidence = Evidence::Certificate(Box::new(Certificate::from_pem(pem)?));
    Ok(flow(kind, settings, tenant, client, evidence))
}

fn flow(
    kind: CredentialKind,
    settings: &CredentialSettings,
    tenant: TenantId,
    client: ClientId,
    evidence: Evidence,
) -> Arc<dyn Flow> {
    Arc::new(ClientCredentials {
        endpoint: TokenEndpoint::new(kind, settings, &tenant.to_string()),
        client: client.to_string(),
        evidence,
    })
}

#[async_trait]
impl Flow for ClientCredentials {
    async fn token(&self, grant: &Grant<'_>) -> Result<AccessToken> {
        let mut fields = vec![
            ("grant_type", "client_credentials"),
            ("client_id", self.client.as_str()),
            ("scope", grant.scope),
        ];
        let assertion;
        match &self.evidence {
            Evidence::Secret(secret) => fields.push(("client_secret", secret.expose_secret())),
            Evidence::Certificate(certificate) => {
                let now = self.endpoint.now();
                assertion = certificate.assertion(&self.client, &self.endpoint.url(), now)?;
                fields.extend([
                    (
                        "client_assertion_type",
                        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                    ),
                    ("client_assertion", assertion.expose_secret()),
                ]);
            }
        }
        let granted = self.endpoint.token(grant, &fields).await?;
        Ok(granted.token)
    }

    fn can_bind(&self) -> bool {
        true
    }
}
