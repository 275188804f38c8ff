//! An authority, one application, and how to ask for a token.

use std::sync::Arc;

use arc_cluster_connect::{
    AuthProvider, Error, Result,
    auth::{
        AadAuth, AccessToken, AzureCredential, ClientId, Cloud, CredentialSettings, TenantId,
        TokenRequest,
    },
    net::{Connector, TrustRoots},
};

use crate::authority::{AUDIENCE, Asked, Authority, Scripted, TENANT};

pub const CLIENT: &str = "b2b1c1f7-7d3f-4d7c-8ff2-6f5ec3f1b1aa";
pub const SECRET: &str = "hush~secret+with/signs&more=";
pub const CORRELATION_ID: &str = "6f4a3c1e-0000-4000-8000-000000000001";

pub struct Bed {
    pub authority: Authority,
}

impl Bed {
    pub async fn new() -> Self {
        let authority = Authority::start().await.expect("a free port");
        authority.token_endpoint(|endpoint| {
            endpoint.application(CLIENT, SECRET);
            endpoint.interval = 1;
            endpoint.code_life = 900;
        });
        Self { authority }
    }

    pub fn settings(&self) -> CredentialSettings {
        let roots = TrustRoots::only_pem(self.authority.ca_pem().as_bytes());
        let connector = Connector::new(roots.expect("a certificate")).expect("usable roots");
        CredentialSettings::new(connector)
            .with_cloud(Cloud::custom(self.authority.url()).expect("a URL"))
            .with_correlation_id(CORRELATION_ID)
            .expect("a UUID")
    }

    /// A credential of the application with its secret.
    pub fn secret(&self, secret: &str) -> AzureCredential {
        AzureCredential::client_secret(&self.settings(), tenant(), client(), secret)
            .expect("it is well-formed")
    }

    pub fn script(&self, answers: impl IntoIterator<Item = Scripted>) {
        self.authority
            .token_endpoint(|endpoint| endpoint.script(answers));
    }

    pub fn requests(&self) -> Vec<Asked> {
        self.authority
            .token_endpoint(|endpoint| endpoint.requests())
    }
}

pub fn tenant() -> TenantId {
    TenantId::parse(TENANT).expect("a UUID")
}

pub fn client() -> ClientId {
    ClientId::parse(CLIENT).expect("a UUID")
}

/// A token for the cluster, as the proxy asks for it.
pub async fn token(credential: &AzureCredential) -> Result<AccessToken> {
    AadAuth::new(Arc::new(credential.clone()))
        .token(&TokenRequest::new())
        .await
}

pub async fn refusal(credential: &AzureCredential) -> Error {
    let error = token(credential).await.expect_err("no token");
    assert_says_nothing(&error);
    error
}

/// Neither secrets nor the authority's own words get into errors: those travel to Kubernetes clients.
pub fn assert_says_nothing(error: &Error) {
    let shown = format!("{error:?} {error} {} {:?}", error.report(), error.help());
    for secret in [
        SECRET,
        "hush",
        TENANT,
        CLIENT,
        "words of the authority",
        "refresh-",
    ] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

/// Whether the token is one of the authority's for the cluster's application.
pub fn assert_is_for_the_cluster(token: &AccessToken) {
    let claims = claims(token.secret());
    assert_eq!(claims["aud"], AUDIENCE);
}

pub fn claims(token: &str) -> serde_json::Value {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

    let claims = token.split('.').nth(1).expect("a JWT");
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).expect("base64url");
    serde_json::from_slice(&claims).expect("JSON")
}
