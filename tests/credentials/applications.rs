//! Applications: secrets and certificates.

use arc_cluster_connect::{
    ErrorKind,
    auth::{AzureCredential, ClientId, CredentialKind, TenantId},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair};

use crate::{
    authority::{
        Scripted, SigningKey, TENANT,
        token_endpoint::{EXPIRED_SECRET, UNKNOWN_APPLICATION},
    },
    bed::{
        Bed, CLIENT, CORRELATION_ID, SECRET, assert_is_for_the_cluster, client, refusal, tenant,
        token,
    },
};

/// One of the authority's committed keys; here it is the application's.
const KEY: &str = include_str!("../support/authority/keys/rsa-2.pem");

#[tokio::test]
async fn an_application_signs_in_with_its_secret() {
    let bed = Bed::new().await;
    let credential = bed.secret(SECRET);
    assert_eq!(credential.kind(), CredentialKind::ClientSecret);
    let token = token(&credential).await.unwrap();
    assert_is_for_the_cluster(&token);
    assert!(token.expires_at().is_some());
    let asked = &bed.requests()[0];
    assert_eq!(asked.path, format!("/{TENANT}/oauth2/v2.0/token"));
    assert_eq!(asked.headers["client-request-id"], CORRELATION_ID);
    assert_eq!(asked.headers["x-ms-correlation-request-id"], CORRELATION_ID);
    assert!(!format!("{credential:?}").contains("hush"));
}

#[tokio::test]
async fn refusals_say_what_to_do_and_nothing_else() {
    let bed = Bed::new().await;
    let error = refusal(&bed.secret("hush-wrong")).await;
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert_eq!(error.status(), Some(401));
    assert!(
        error.report().contains("AADSTS7000215"),
        "{}",
        error.report()
    );
    assert!(error.help().unwrap().contains("not its id"));

    bed.script([Scripted::Refusal(EXPIRED_SECRET)]);
    let error = refusal(&bed.secret(SECRET)).await;
    assert!(error.help().unwrap().contains("az ad app credential reset"));

    bed.script([Scripted::Refusal(UNKNOWN_APPLICATION)]);
    let error = refusal(&bed.secret(SECRET)).await;
    assert!(error.help().unwrap().contains("no such application"));

    let elsewhere = TenantId::parse("11111111-86f1-41af-91ab-2d7cd011db47").unwrap();
    let credential =
        AzureCredential::client_secret(&bed.settings(), elsewhere, client(), SECRET).unwrap();
    let error = refusal(&credential).await;
    assert!(error.report().contains("AADSTS90002"));
    assert!(error.help().unwrap().contains("tenant"));
}

#[tokio::test]
async fn an_empty_secret_is_refused_before_anybody_is_asked() {
    let bed = Bed::new().await;
    let error =
        AzureCredential::client_secret(&bed.settings(), tenant(), client(), "").expect_err("empty");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(ClientId::parse("not-a-uuid").is_err());
    assert!(bed.requests().is_empty());
}

#[tokio::test]
async fn an_application_signs_in_with_its_certificate() {
    let bed = Bed::new().await;
    let (pem, thumbprint) = certificate();
    bed.authority.token_endpoint(|endpoint| {
        endpoint.certificate(CLIENT, &thumbprint, SigningKey::rsa(1));
    });
    let credential =
        AzureCredential::client_certificate(&bed.settings(), tenant(), client(), &pem).unwrap();
    assert_is_for_the_cluster(&token(&credential).await.unwrap());

    // Registered with another key: the signature does not hold.
    bed.authority.token_endpoint(|endpoint| {
        endpoint.certificate(CLIENT, &thumbprint, SigningKey::rsa(2));
    });
    let error = refusal(&credential).await;
    assert!(error.report().contains("AADSTS700027"));
    assert!(error.help().unwrap().contains("certificate"));
}

#[tokio::test]
async fn a_certificate_that_is_none_is_refused_and_not_shown() {
    let bed = Bed::new().await;
    let (pem, _) = certificate();
    let (certificate_alone, _) = pem.split_once("-----BEGIN PRIVATE").unwrap();
    for text in ["", "hush", KEY, certificate_alone] {
        let error = AzureCredential::client_certificate(&bed.settings(), tenant(), client(), text)
            .expect_err("not usable");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.help().unwrap().contains("openssl pkcs12"));
        assert!(!format!("{error:?}").contains("hush"));
    }
}

/// Certificate and key in one PEM text, and the certificate's thumbprint.
fn certificate() -> (String, String) {
    let key = KeyPair::from_pem(KEY).expect("a committed key");
    let certificate = CertificateParams::new(vec!["app.example".to_owned()])
        .and_then(|parameters| parameters.self_signed(&key))
        .expect("it can be signed");
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate.der());
    (
        format!("{}{KEY}", certificate.pem()),
        BASE64_URL_SAFE_NO_PAD.encode(digest.as_ref()),
    )
}
