use async_trait::async_trait;
use http::{Method, Uri};

use super::*;
use crate::agent::{ServiceAccountAuthenticator, test_bed::TokenBook};

fn with(values: &[&[u8]]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(
            header::AUTHORIZATION,
            HeaderValue::from_bytes(value).expect("a header value"),
        );
    }
    headers
}

#[test]
fn a_bearer_token_is_kept_byte_for_byte() {
    for value in [&b"Bearer a"[..], b"bEARER eyJ.e30.x-_~+/=="] {
        let token = CallerToken::of(&with(&[value])).expect("accepted");
        assert_eq!(token.to_header().as_bytes(), value);
        assert!(token.to_header().is_sensitive());
    }
}

#[test]
fn r14_anything_but_one_bearer_token_is_401() {
    let too_long = [&b"Bearer "[..], &b"a".repeat(MAX_CREDENTIAL)].concat();
    for values in [
        &[][..],
        &[&b""[..]],
        &[b"Bearer"],
        &[b"Bearer "],
        &[b"Bearer ="],
        &[b"Bearer  a"],
        &[b"Bearer\ta"],
        &[b"Bearer a b"],
        &[b"Bearer a,b"],
        &[b"Bearer a=b"],
        &[b"Bearer \xff"],
        &[b"Basic dTpw"],
        &[b"Bearera"],
        &[b"Bearer a", b"Bearer a"],
        &[b"Bearer a", b""],
        &[&too_long],
    ] {
        let refusal = CallerToken::of(&with(values)).expect_err("refused");
        assert_eq!(refusal.code(), 401, "{values:?}");
    }
}

#[test]
fn the_longest_credential_still_passes() {
    let longest = [&b"Bearer "[..], &b"a".repeat(MAX_CREDENTIAL - 7)].concat();
    assert!(CallerToken::of(&with(&[&longest])).is_ok());
}

#[test]
fn a_second_token_in_the_websocket_handshake_is_401() {
    let mut headers = with(&[b"Bearer a"]);
    headers.append(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(
            "v5.channel.k8s.io, Base64url.bearer.authorization.k8s.io.dG9rZW4",
        ),
    );
    assert_eq!(CallerToken::of(&headers).expect_err("refused").code(), 401);
}

fn head(authorization: &str) -> RequestHead {
    RequestHead {
        method: Method::GET,
        target: Uri::from_static("/api"),
        headers: with(&[authorization.as_bytes()]),
    }
}

fn chain(last: ServiceAccountAuthenticator) -> Callers {
    Callers::new(vec![Arc::new(TokenBook), Arc::new(last)])
}

#[tokio::test]
async fn the_first_authenticator_that_knows_a_token_decides() {
    let callers = chain(ServiceAccountAuthenticator::new());
    let caller = callers
        .identify(&head("Bearer known.ada"), TunnelId::generate())
        .await
        .expect("known");
    assert!(caller.expires_at.is_some());
    let Standing::Known(identity) = caller.standing else {
        panic!("unknown");
    };
    assert_eq!(identity.user(), "ada");
    let caller = callers
        .identify(&head("Bearer opaque"), TunnelId::generate())
        .await
        .expect("passed on");
    assert!(matches!(caller.standing, Standing::OwnToken(token) if token.text() == "opaque"));
}

/// What fails at one authenticator never gets a second chance at the next one.
#[tokio::test]
async fn a_rejection_and_an_outage_are_final() {
    let callers = chain(ServiceAccountAuthenticator::new());
    let refusal = callers
        .identify(&head("Bearer rejected"), TunnelId::generate())
        .await
        .expect_err("final");
    assert_eq!(refusal.code(), 401);
    assert_eq!(refusal.reason(), RejectReason::Expired.label());
    let refusal = callers
        .identify(&head("Bearer down"), TunnelId::generate())
        .await
        .expect_err("final");
    assert_eq!(refusal.code(), 503);
    assert!(
        !format!("{refusal:?}").contains("secret-issuer"),
        "{refusal:?}"
    );
    let refusal = callers
        .identify(&head("Bearer system"), TunnelId::generate())
        .await
        .expect_err("final");
    assert_eq!(refusal.code(), 403);
    assert_eq!(refusal.reason(), RejectReason::IdentityRefused.label());
}

#[tokio::test]
async fn r14_nobodys_token_is_401() {
    let callers = chain(ServiceAccountAuthenticator::new().issuer("https://cluster.example"));
    for token in [
        "opaque",
        "e30.e30.c2ln",
        "e30.eyJpc3MiOiJodHRwczovL290aGVyIn0.c2ln",
    ] {
        let refusal = callers
            .identify(&head(&format!("Bearer {token}")), TunnelId::generate())
            .await
            .expect_err(token);
        assert_eq!(refusal.code(), 401);
        assert_eq!(refusal.reason(), RejectReason::NotAccepted.label());
    }
    // {"iss":"https://cluster.example","exp":2000000000}
    let own = "Bearer e30.eyJpc3MiOiJodHRwczovL2NsdXN0ZXIuZXhhbXBsZSIsImV4cCI6MjAwMDAwMDAwMH0.c2ln";
    let caller = callers
        .identify(&head(own), TunnelId::generate())
        .await
        .expect("the cluster's own");
    assert!(matches!(caller.standing, Standing::OwnToken(_)));
    assert_eq!(
        caller.expires_at,
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000))
    );
}

struct Hanging;

#[async_trait]
impl Authenticator for Hanging {
    async fn authenticate(&self, _: &Credential) -> Result<Authentication, AuthenticationError> {
        std::future::pending().await
    }

    fn name(&self) -> &'static str {
        "hanging"
    }
}

#[tokio::test(start_paused = true)]
async fn an_authenticator_that_hangs_is_an_outage() {
    let callers = Callers::new(vec![Arc::new(Hanging)]);
    let start = tokio::time::Instant::now();
    let refusal = callers
        .identify(&head("Bearer a"), TunnelId::generate())
        .await
        .expect_err("too late");
    assert_eq!(refusal.code(), 503);
    assert_eq!(start.elapsed(), AUTHENTICATION_LIMIT);
}

#[test]
fn every_reason_has_a_label_of_its_own_and_a_public_text() {
    let mut labels: Vec<_> = RejectReason::ALL
        .iter()
        .map(|reason| reason.label())
        .collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), RejectReason::ALL.len());
    for &reason in RejectReason::ALL {
        let code = refused(reason).code().as_u16();
        assert_eq!(
            code,
            if reason.is_forbidden() { 403 } else { 401 },
            "{reason:?}"
        );
    }
}

#[test]
fn a_repeated_issuer_is_none() {
    let claims = |json: &str| {
        use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
        let token = format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(json));
        let credential = Credential::new(&token, Method::GET, Uri::default()).expect("token68");
        credential.unverified_issuer().map(str::to_owned)
    };
    assert_eq!(claims(r#"{"iss":"a"}"#).as_deref(), Some("a"));
    assert_eq!(claims(r#"{"iss":"a","iss":"b"}"#), None);
    assert_eq!(claims(r#"{"iss":["a"]}"#), None);
    let deep = format!(r#"{{"iss":"a","x":{}}}"#, "[".repeat(10_000));
    assert_eq!(claims(&deep), None);
}

#[test]
fn a_token_is_never_printed() {
    let token = CallerToken::of(&with(&[b"Bearer hunter2"])).expect("accepted");
    assert!(!format!("{:?}", Standing::OwnToken(token)).contains("hunter2"));
    let credential = Credential::new("hunter2", Method::GET, Uri::default()).expect("token68");
    assert!(!format!("{credential:?}").contains("hunter2"));
}
