//! Any OpenID Connect issuer: the local authority as one, and a real one that npm installs.

use std::{path::Path, process::Stdio, time::Duration};

use arc_cluster_connect::{agent::OpenIdAuthenticator, net::TrustRoots};
use http::StatusCode;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use super::{
    bed::{Bed, GROUP, USER, USER_ID, roots},
    support::{
        api_server::ImpersonationRights,
        authority::{AUDIENCE, Authority, certificate::Certificate},
    },
};

#[tokio::test]
async fn claims_become_names_as_they_are_configured() {
    let authority = Authority::start().await.expect("a free port");
    let openid = OpenIdAuthenticator::builder(authority.issuer_v2(), AUDIENCE)
        .username_claim("upn")
        .groups_claim("groups")
        .trust_roots(roots(&authority))
        .build()
        .expect("it is well configured");
    let bed = Bed::assemble(authority, ImpersonationRights::Everyone, |agent| {
        agent.authenticator(openid)
    })
    .await;
    let user = || bed.authority.user(USER, USER_ID).groups(&[GROUP]);
    assert_eq!(bed.get(&user().sign()).await.status, StatusCode::OK);
    let seen = bed
        .last_arrival()
        .and_then(|arrival| arrival.user)
        .expect("the caller");
    assert_eq!(seen.name, USER);
    assert_eq!(seen.groups, [GROUP, "system:authenticated"]);

    for (name, token) in [
        ("no name", user().without("upn").sign()),
        ("another audience", user().claim("aud", "x").sign()),
        (
            "another issuer",
            user().claim("iss", bed.authority.issuer_v1()).sign(),
        ),
        ("unsigned", user().unsigned()),
        (
            "the public key as a secret",
            user().signed_with_the_public_key(),
        ),
    ] {
        assert_eq!(
            bed.get(&token).await.status,
            StatusCode::UNAUTHORIZED,
            "{name}"
        );
    }
}

/// R35: a prefix is what is configured, character by character, and there is none by default.
#[tokio::test]
async fn r35_prefixes_are_literal() {
    for (prefix, expected) in [("oidc:", format!("oidc:{USER}")), ("-", format!("-{USER}"))] {
        let authority = Authority::start().await.expect("a free port");
        let openid = OpenIdAuthenticator::builder(authority.issuer_v2(), AUDIENCE)
            .username_claim("upn")
            .username_prefix(prefix)
            .groups_claim("groups")
            .groups_prefix(prefix)
            .trust_roots(roots(&authority))
            .build()
            .expect("it is well configured");
        let bed = Bed::assemble(authority, ImpersonationRights::Everyone, |agent| {
            agent.authenticator(openid)
        })
        .await;
        let token = bed.authority.user(USER, USER_ID).groups(&["devs"]).sign();
        bed.get(&token).await;
        let seen = bed
            .last_arrival()
            .and_then(|arrival| arrival.user)
            .expect("the caller");
        assert_eq!(seen.name, expected);
        assert_eq!(seen.groups[0], format!("{prefix}devs"));
    }
}

/// A certified provider, whose tokens owe nothing to this test bed.
#[tokio::test]
async fn tokens_of_oidc_provider_are_taken() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/oidc-provider");
    if !folder.join("node_modules/oidc-provider").exists() {
        let hint =
            "oidc-provider is not installed: run `npm ci --prefix tests/interop/oidc-provider`";
        assert!(std::env::var_os("CI").is_none(), "{hint}");
        eprintln!("skipped: {hint}");
        return;
    }
    let certificate = Certificate::generate();
    let files = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).expect("the directory is writable");
        path
    };
    let mut provider = Command::new("node")
        .arg(folder.join("provider.mjs"))
        .arg(write("certificate", &certificate.chain_pem))
        .arg(write("key", &certificate.key_pem))
        .arg(write("ca", &certificate.ca_pem))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node is installed");
    let stdout = provider.stdout.take().expect("it is piped");
    let mut lines = BufReader::new(stdout).lines();
    // Before that the provider talks of its default settings.
    let line = timeout(Duration::from_secs(30), async {
        loop {
            let line = lines.next_line().await.expect("it can be read");
            match line.expect("the provider says where it is") {
                line if line.starts_with('{') => break line,
                _ => {}
            }
        }
    })
    .await
    .expect("the provider starts in time");
    let said: Value = serde_json::from_str(&line).expect("a line of JSON");
    let text = |name: &str| said[name].as_str().expect("a string").to_owned();

    let roots = TrustRoots::only_pem(certificate.ca_pem.as_bytes()).expect("a certificate");
    let openid = OpenIdAuthenticator::builder(text("issuer"), text("audience"))
        .username_claim("email")
        .groups_claim("groups")
        .groups_prefix("oidc:")
        .trust_roots(roots)
        .build()
        .expect("it is well configured");
    let authority = Authority::start().await.expect("a free port");
    let bed = Bed::assemble(authority, ImpersonationRights::Everyone, |agent| {
        agent.authenticator(openid)
    })
    .await;
    // Known, but bound to nothing.
    let answer = bed.get(&text("token")).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{answer:?}");
    let seen = bed
        .last_arrival()
        .and_then(|arrival| arrival.user)
        .expect("the caller");
    assert_eq!(seen.name, "robot@example.com");
    assert_eq!(seen.groups, ["oidc:robots", "system:authenticated"]);

    let mut broken = text("token");
    let last = broken.pop().expect("a token");
    broken.insert(broken.len() - 10, last);
    assert_eq!(bed.get(&broken).await.status, StatusCode::UNAUTHORIZED);
}
