//! A person with a browser elsewhere.

use std::time::Duration;

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    auth::{AzureCredential, ClientId, CredentialKind},
};

use crate::{
    authority::{
        Asked, Scripted, TENANT,
        token_endpoint::{DECLINED, EXPIRED_CODE, PENDING, SLOW_DOWN, UNKNOWN_TENANT},
    },
    bed::{Bed, assert_is_for_the_cluster, assert_says_nothing, refusal, tenant, token},
};

/// Signs in; gives what was shown, too.
async fn sign_in(bed: &Bed) -> (Result<AzureCredential>, Vec<String>) {
    let mut shown = Vec::new();
    let outcome = AzureCredential::device_code(&bed.settings(), ClientId::azure_cli(), |prompt| {
        shown.push(prompt.to_string());
    })
    .await;
    (outcome, shown)
}

async fn failure(bed: &Bed) -> Error {
    let error = sign_in(bed).await.0.expect_err("not signed in");
    assert_says_nothing(&error);
    error
}

/// The grant types that the token endpoint was asked for.
fn grants(bed: &Bed) -> Vec<String> {
    let of = |asked: &Asked| asked.form.get("grant_type").cloned();
    bed.requests().iter().filter_map(of).collect()
}

const CODE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The answer to the first question: the code itself.
fn code() -> Scripted {
    Scripted::Text(
        r#"{"device_code":"device","user_code":"ABCD-EFGH","interval":1,"expires_in":900,
            "verification_uri":"https://microsoft.com/devicelogin"}"#,
    )
}

#[tokio::test]
async fn a_person_signs_in_once_and_tokens_are_renewed_in_silence() {
    let bed = Bed::new().await;
    bed.script([code(), Scripted::Refusal(PENDING)]);
    let (credential, shown) = sign_in(&bed).await;
    let credential = credential.unwrap();
    assert_eq!(credential.kind(), CredentialKind::DeviceCode);
    assert_eq!(shown.len(), 1);
    assert!(shown[0].contains("https://microsoft.com/devicelogin"));
    assert!(shown[0].contains("ABCD-EFGH"));
    let first = &bed.requests()[0];
    assert_eq!(first.path, "/organizations/oauth2/v2.0/devicecode");
    assert!(first.form["scope"].contains("offline_access"));

    // Each renewal uses the refresh token that the one before gave.
    for _ in 0..3 {
        assert_is_for_the_cluster(&token(&credential).await.unwrap());
    }
    assert_eq!(
        grants(&bed),
        [
            CODE_GRANT,
            CODE_GRANT,
            "refresh_token",
            "refresh_token",
            "refresh_token"
        ]
    );

    bed.authority.token_endpoint(|endpoint| endpoint.sign_out());
    let error = refusal(&credential).await;
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.report().contains("AADSTS700082"));
    assert!(!format!("{credential:?}").contains("refresh-"));
}

#[tokio::test]
async fn the_tenant_may_be_chosen() {
    let bed = Bed::new().await;
    let settings = bed.settings().with_tenant(tenant());
    AzureCredential::device_code(&settings, ClientId::arc_kubernetes(), |_| {})
        .await
        .unwrap();
    let first = &bed.requests()[0];
    assert_eq!(first.path, format!("/{TENANT}/oauth2/v2.0/devicecode"));
    assert_eq!(
        first.form["client_id"],
        ClientId::arc_kubernetes().to_string()
    );
}

#[tokio::test]
async fn slow_down_is_heeded_and_does_not_end_the_wait() {
    let bed = Bed::new().await;
    bed.script([
        code(),
        Scripted::Refusal(SLOW_DOWN),
        Scripted::Refusal(PENDING),
    ]);
    let started = std::time::Instant::now();
    sign_in(&bed).await.0.unwrap();
    // One second, then twice six. Only the lower bound is fixed.
    assert!(started.elapsed() >= Duration::from_secs(13));
    assert_eq!(grants(&bed).len(), 3);
}

#[tokio::test]
async fn the_wait_ends_when_the_person_declines_or_the_code_expires() {
    let bed = Bed::new().await;
    bed.script([code(), Scripted::Refusal(DECLINED)]);
    let error = failure(&bed).await;
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.report().contains("declined"));

    bed.script([code(), Scripted::Refusal(EXPIRED_CODE)]);
    let error = failure(&bed).await;
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.help().unwrap().contains("start again"));

    // The authority says nothing of it, and would be asked for ever.
    bed.authority
        .token_endpoint(|endpoint| endpoint.code_life = 2);
    let pending = std::iter::repeat_n(Scripted::Refusal(PENDING), 10);
    bed.script([Scripted::Text(
        r#"{"device_code":"device","user_code":"A","interval":1,"expires_in":2,
            "verification_uri":"https://microsoft.com/devicelogin"}"#,
    )]);
    bed.script(pending);
    assert_eq!(failure(&bed).await.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn what_is_no_code_is_not_shown() {
    let bed = Bed::new().await;
    bed.script([Scripted::Refusal(UNKNOWN_TENANT)]);
    assert!(failure(&bed).await.report().contains("AADSTS90002"));
    for text in ["<html>hush</html>", "{}", r#"{"user_code":"A"}"#] {
        bed.script([Scripted::Text(text)]);
        let (outcome, shown) = sign_in(&bed).await;
        let error = outcome.expect_err("no code");
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert_says_nothing(&error);
        assert!(shown.is_empty());
    }
}
