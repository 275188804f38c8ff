//! Any OpenID Connect issuer: the local authority as one, and a real one that npm installs.

use arc_cluster_connect::agent::OpenIdAuthenticator;
use http::StatusCode;

use super::{
    bed::{Bed, GROUP, USER, USER_ID, roots},
    support::{
        api_server::ImpersonationRights,
        authority::{AUDIENCE, Authority},
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
