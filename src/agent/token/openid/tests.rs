//! Any issuer's tokens, against a site on loopback.

use serde_json::json;

use super::{
    super::test_issuer::{NOW, SigningKey, Site, Verdict, clock, reading, verdict, with},
    *,
};

struct Bed {
    site: Site,
    key: SigningKey,
    issuer: String,
}

impl Bed {
    async fn new() -> Self {
        let site = Site::start().await;
        let (key, issuer) = (SigningKey::first(), format!("{}/dex", site.base));
        site.publish("/dex", &issuer, &[key.jwk()]);
        Self { site, key, issuer }
    }

    fn builder(&self) -> OpenIdAuthenticatorBuilder {
        OpenIdAuthenticator::builder(&self.issuer, "kubernetes")
            .trust_roots(self.site.trust_roots())
            .clock(reading(&clock()))
    }

    fn token(&self, changes: &Value) -> String {
        let claims = json!({
            "iss": self.issuer,
            "aud": "kubernetes",
            "sub": "1234",
            "email": "alice@example.com",
            "email_verified": true,
            "groups": ["dev", "ops"],
            "exp": NOW + 3600,
            "iat": NOW,
        });
        self.key.token(&with(claims, changes))
    }
}

#[tokio::test]
async fn the_subject_is_the_user_and_there_are_no_groups_unless_asked_for() {
    let bed = Bed::new().await;
    let plain = bed.builder().build().unwrap();
    let identity = verdict(&plain, &bed.token(&json!({}))).await.identity();
    assert_eq!((identity.user(), identity.groups().len()), ("1234", 0));
    assert!(identity.extra().is_empty());
}

/// A changed prefix is another user: these texts are a contract.
#[tokio::test]
async fn r35_prefixes_are_literal_and_none_by_default() {
    let bed = Bed::new().await;
    let builder = || bed.builder().username_claim("sub").groups_claim("groups");
    for (builder, user, groups) in [
        (builder(), "1234", ["dev", "ops"]),
        (
            builder().username_prefix("").groups_prefix(""),
            "1234",
            ["dev", "ops"],
        ),
        (
            builder().username_prefix("-").groups_prefix("-"),
            "-1234",
            ["-dev", "-ops"],
        ),
        (
            builder().username_prefix("oidc:"),
            "oidc:1234",
            ["dev", "ops"],
        ),
        (
            builder().groups_prefix("oidc#"),
            "1234",
            ["oidc#dev", "oidc#ops"],
        ),
    ] {
        let identity = verdict(&builder.build().unwrap(), &bed.token(&json!({})))
            .await
            .identity();
        assert_eq!(identity.user(), user);
        assert_eq!(identity.groups(), groups);
    }
}

#[tokio::test]
async fn an_email_has_to_be_verified_to_be_a_name() {
    let bed = Bed::new().await;
    let by_email = bed.builder().username_claim("email").build().unwrap();
    let identity = verdict(&by_email, &bed.token(&json!({}))).await.identity();
    assert_eq!(identity.user(), "alice@example.com");
    for verified in [json!(false), json!("true"), json!(1), Value::Null] {
        let changes = json!({"email_verified": verified});
        let refused = verdict(&by_email, &bed.token(&changes)).await;
        assert_eq!(
            refused,
            Verdict::Rejected(RejectReason::Claims),
            "{verified}"
        );
        // It matters for no other name.
        let by_subject = bed.builder().build().unwrap();
        verdict(&by_subject, &bed.token(&changes)).await.identity();
    }
}

#[tokio::test]
async fn names_have_to_be_there_and_to_be_names() {
    let bed = Bed::new().await;
    let openid = bed
        .builder()
        .username_prefix("oidc:")
        .groups_claim("groups")
        .build()
        .unwrap();
    for changes in [
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": " a"}),
        json!({"sub": "  "}),
        json!({"sub": 1}),
        json!({"groups": [1]}),
        json!({"groups": {"a": 1}}),
    ] {
        let verdict = verdict(&openid, &bed.token(&changes)).await;
        assert_eq!(
            verdict,
            Verdict::Rejected(RejectReason::Claims),
            "{changes}"
        );
    }
    let one = verdict(&openid, &bed.token(&json!({"groups": "dev"})))
        .await
        .identity();
    assert_eq!(one.groups(), ["dev"]);
    let left_out = json!({"groups": null, "_claim_names": {"groups": "s"}, "_claim_sources": {"s": {"endpoint": "https://127.0.0.1:1/"}}});
    let refused = verdict(&openid, &bed.token(&left_out)).await;
    assert_eq!(refused, Verdict::Rejected(RejectReason::GroupsUnresolved));
    let without_prefix = bed.builder().build().unwrap();
    let system = verdict(&without_prefix, &bed.token(&json!({"sub": "system:admin"}))).await;
    assert_eq!(system, Verdict::Rejected(RejectReason::IdentityRefused));
}

#[tokio::test]
async fn the_shared_rules_hold_here_too() {
    let bed = Bed::new().await;
    let openid = bed.builder().build().unwrap();
    for (changes, expected) in [
        (json!({"iss": format!("{}/", bed.issuer)}), Verdict::NotMine),
        (json!({"iss": null}), Verdict::NotMine),
        (
            json!({"aud": "other"}),
            Verdict::Rejected(RejectReason::Audience),
        ),
        (
            json!({"aud": ["kubernetes", "other"]}),
            Verdict::Rejected(RejectReason::Audience),
        ),
        (
            json!({"exp": NOW - 60, "iat": NOW - 90}),
            Verdict::Rejected(RejectReason::Expired),
        ),
        (
            json!({"nbf": NOW + 61}),
            Verdict::Rejected(RejectReason::NotYetValid),
        ),
        (
            json!({"cnf": {"kid": "x"}}),
            Verdict::Rejected(RejectReason::ProofRequired),
        ),
    ] {
        assert_eq!(
            verdict(&openid, &bed.token(&changes)).await,
            expected,
            "{changes}"
        );
    }
    let forged = SigningKey::second().sign(
        &bed.key.header(),
        &json!({"iss": bed.issuer, "aud": "kubernetes", "sub": "root", "exp": NOW + 60}),
    );
    let refused = verdict(&openid, &forged).await;
    assert_eq!(refused, Verdict::Rejected(RejectReason::Signature));
    assert_eq!(verdict(&openid, "opaque").await, Verdict::NotMine);
}

#[tokio::test]
async fn an_issuer_that_can_not_be_trusted_or_reached_is_a_503() {
    let bed = Bed::new().await;
    let platform = bed
        .builder()
        .trust_roots(TrustRoots::platform())
        .build()
        .unwrap();
    assert_eq!(
        verdict(&platform, &bed.token(&json!({}))).await,
        Verdict::Unavailable
    );
    let error = platform.preload().await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("/dex/.well-known/openid-configuration"),
        "{error}"
    );
    bed.site.publish("/dex", "https://other", &[bed.key.jwk()]);
    let openid = bed.builder().build().unwrap();
    assert_eq!(
        verdict(&openid, &bed.token(&json!({}))).await,
        Verdict::Unavailable
    );
}

#[test]
fn settings_that_can_not_work_are_refused() {
    for issuer in [
        "",
        "http://x",
        "x",
        "https://x?y",
        "https://x#y",
        "https://a@x",
    ] {
        let error = OpenIdAuthenticator::builder(issuer, "a")
            .build()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{issuer}");
    }
    let builder = || OpenIdAuthenticator::builder("https://x", "a");
    assert!(
        OpenIdAuthenticator::builder("https://x", "")
            .build()
            .is_err()
    );
    assert!(builder().username_claim("").build().is_err());
    assert!(builder().groups_claim("").build().is_err());
    assert!(builder().algorithms([]).build().is_err());
}
