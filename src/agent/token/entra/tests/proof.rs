//! Proofs of possession, case by case.

use http::Method;

use super::{
    super::super::{keys::Key, pop::Replays},
    *,
};

const HOST: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Kubernetes/connectedClusters/c";

/// A caller with a key of their own, and a token that is bound to it.
struct Holder {
    bed: Bed,
    key: SigningKey,
    entra: EntraAuthenticator,
}

impl Holder {
    async fn new(policy: PopPolicy) -> Self {
        let bed = Bed::new().await;
        let entra = bed.builder().pop(policy).build().unwrap();
        Self {
            bed,
            key: SigningKey::second(),
            entra,
        }
    }

    fn thumbprint(&self) -> String {
        thumbprint(&self.key)
    }

    fn access_token(&self, confirmation: &Value) -> String {
        self.bed.token(&json!({"cnf": confirmation}))
    }

    fn header(&self) -> Value {
        json!({"alg": "RS256", "typ": "pop", "kid": self.thumbprint()})
    }

    fn claims(&self) -> Value {
        let kid = self.thumbprint();
        json!({
            "at": self.access_token(&json!({"kid": kid, "xms_ksl": "sw"})),
            "ts": unix(&self.bed.time),
            "u": HOST,
            "cnf": {"jwk": with(self.key.jwk(), &json!({"kid": kid, "alg": "RS256"}))},
            "nonce": crate::crypto::hex(&crate::crypto::random::<16>()),
        })
    }

    fn proof(&self, changes: &Value) -> String {
        self.key.sign(&self.header(), &with(self.claims(), changes))
    }

    async fn verdict(&self, token: &str) -> Verdict {
        verdict(&self.entra, token).await
    }

    async fn refused(&self, changes: &Value, reason: RejectReason) {
        let verdict = self.verdict(&self.proof(changes)).await;
        assert_eq!(verdict, Verdict::Rejected(reason), "{changes}");
    }
}

fn thumbprint(key: &SigningKey) -> String {
    let jwk = key.jwk();
    Key::parse(jwk.as_object().unwrap()).unwrap().thumbprint()
}

#[tokio::test]
async fn a_proof_is_good_for_one_request() {
    let holder = Holder::new(PopPolicy::required(HOST)).await;
    let proof = holder.proof(&json!({}));
    let identity = holder.verdict(&proof).await.identity();
    assert_eq!(identity.user(), "alice@contoso.com");
    for _ in 0..3 {
        let again = holder.verdict(&proof).await;
        assert_eq!(again, Verdict::Rejected(RejectReason::Replayed));
    }
    // Another proof around the same token is another request.
    holder.verdict(&holder.proof(&json!({}))).await.identity();
}

#[tokio::test]
async fn a_proof_may_serve_a_session_where_that_is_allowed() {
    let policy = PopPolicy::required(HOST).replays(Replays::Allow);
    let holder = Holder::new(policy).await;
    let proof = holder.proof(&json!({"nonce": null}));
    for _ in 0..3 {
        holder.verdict(&proof).await.identity();
    }
    holder.bed.time.advance(Duration::from_secs(301));
    let late = holder.verdict(&proof).await;
    assert_eq!(late, Verdict::Rejected(RejectReason::ProofTime));
}

#[tokio::test]
async fn a_bound_token_without_its_proof_is_refused_under_every_policy() {
    for (policy, takes_bare, takes_proofs) in [
        (PopPolicy::required(HOST), false, true),
        (PopPolicy::accepted(HOST), true, true),
        (PopPolicy::refused(), true, false),
    ] {
        let holder = Holder::new(policy).await;
        for confirmation in [
            json!({"kid": holder.thumbprint()}),
            json!({"x5t#S256": "AAAA"}),
            json!({}),
            json!("x"),
        ] {
            let verdict = holder.verdict(&holder.access_token(&confirmation)).await;
            assert_eq!(verdict, Verdict::Rejected(RejectReason::ProofRequired));
        }
        match holder.verdict(&holder.bed.token(&json!({}))).await {
            Verdict::Accepted(_) => assert!(takes_bare),
            verdict => assert_eq!(
                (takes_bare, verdict),
                (false, Verdict::Rejected(RejectReason::ProofRequired))
            ),
        }
        match holder.verdict(&holder.proof(&json!({}))).await {
            Verdict::Accepted(_) => assert!(takes_proofs),
            verdict => assert_eq!(
                (takes_proofs, verdict),
                (false, Verdict::Rejected(RejectReason::NotAccepted))
            ),
        }
    }
}

#[tokio::test]
async fn r21_the_token_has_to_be_bound_to_the_proofs_key() {
    let holder = Holder::new(PopPolicy::required(HOST)).await;
    for token in [
        holder.bed.token(&json!({})),
        holder.access_token(&json!({"kid": thumbprint(&SigningKey::first())})),
        holder.access_token(&json!({"kid": ""})),
        holder.access_token(&json!({"kid": [holder.thumbprint()]})),
        holder.access_token(&json!({"jwk": holder.key.jwk()})),
        holder.access_token(&json!(holder.thumbprint())),
    ] {
        holder
            .refused(&json!({"at": token}), RejectReason::Proof)
            .await;
    }
}

#[tokio::test]
async fn r22_a_proof_is_of_now() {
    let holder = Holder::new(PopPolicy::required(HOST)).await;
    for ts in [NOW, NOW - 300, NOW + 60] {
        let proof = holder.proof(&json!({"ts": ts}));
        holder.verdict(&proof).await.identity();
    }
    for ts in [
        NOW - 301,
        NOW - 15 * 60,
        NOW + 61,
        NOW + 3600,
        0,
        i64::MAX as u64,
        u64::MAX,
        // Milliseconds for seconds.
        NOW * 1000,
    ] {
        holder
            .refused(&json!({"ts": ts}), RejectReason::ProofTime)
            .await;
    }
    for ts in [
        Value::Null,
        json!("1800000000"),
        json!(-1),
        json!(1.5),
        json!([NOW]),
    ] {
        holder
            .refused(&json!({"ts": ts}), RejectReason::Proof)
            .await;
    }
}

#[tokio::test]
async fn a_proof_is_bound_to_host_method_and_path() {
    let holder = Holder::new(PopPolicy::required(HOST)).await;
    for good in [
        json!({"u": HOST.to_uppercase()}),
        json!({"m": "GET"}),
        json!({"p": "/api/v1/pods"}),
        json!({"m": "GET", "p": "/api/v1/pods"}),
    ] {
        holder.verdict(&holder.proof(&good)).await.identity();
    }
    for bad in [
        json!({"u": format!("{HOST}x")}),
        json!({"m": "POST"}),
        json!({"m": "get"}),
        json!({"p": "/api/v1/secrets"}),
        json!({"p": "/api/v1/pods?limit=5"}),
        json!({"q": [["limit"], "x"]}),
        json!({"h": [["accept"], "x"]}),
        json!({"b": "x"}),
    ] {
        holder.refused(&bad, RejectReason::Proof).await;
    }
    holder
        .refused(&json!({"u": null}), RejectReason::Claims)
        .await;
    let strict = Holder::new(PopPolicy::required(HOST).bound_to_request()).await;
    strict.refused(&json!({}), RejectReason::Proof).await;
    strict
        .refused(&json!({"m": "GET"}), RejectReason::Proof)
        .await;
    let bound = strict.proof(&json!({"m": "DELETE", "p": "/api/v1/pods/a"}));
    verdict_on(&strict.entra, &bound, Method::DELETE, "/api/v1/pods/a")
        .await
        .identity();
}

#[tokio::test]
async fn the_key_of_a_proof_is_named_by_its_thumbprint_and_is_strong() {
    let holder = Holder::new(PopPolicy::required(HOST)).await;
    let jwk = |changes: Value| json!({"cnf": {"jwk": with(holder.key.jwk(), &changes)}});
    for changes in [
        jwk(json!({"kid": "second"})),
        jwk(json!({"kid": null, "n": SigningKey::first().jwk()["n"]})),
        // Shorter than three bytes, longer, even, one, empty: such exponents have made verifiers panic or worse.
        jwk(json!({"kid": null, "e": "Aw"})),
        jwk(json!({"kid": null, "e": "AQ"})),
        jwk(json!({"kid": null, "e": ""})),
        jwk(json!({"kid": null, "e": "AQAC"})),
        jwk(json!({"kid": null, "e": "A".repeat(1000)})),
        jwk(json!({"kid": null, "n": "AQAB"})),
        jwk(json!({"kid": null, "n": null})),
        jwk(json!({"kid": null, "kty": "oct"})),
        json!({"cnf": {"jwk": "x"}}),
        json!({"cnf": {"kid": holder.thumbprint()}}),
        json!({"cnf": "x"}),
        json!({"cnf": null}),
    ] {
        holder.refused(&changes, RejectReason::Proof).await;
    }
    let unnamed = holder.proof(&jwk(json!({"kid": holder.thumbprint()})));
    holder.verdict(&unnamed).await.identity();
    for kid in [Value::Null, json!("second"), json!("")] {
        let header = with(holder.header(), &json!({"kid": kid}));
        let proof = holder.key.sign(&header, &holder.claims());
        let verdict = holder.verdict(&proof).await;
        assert_eq!(verdict, Verdict::Rejected(RejectReason::Proof), "{kid}");
    }
    // Signed by another key than the one it shows.
    let forged = SigningKey::first().sign(&holder.header(), &holder.claims());
    let verdict = holder.verdict(&forged).await;
    assert_eq!(verdict, Verdict::Rejected(RejectReason::Signature));
}

#[tokio::test]
async fn the_inner_token_is_held_to_every_rule() {
    let holder = Holder::new(PopPolicy::required(HOST)).await;
    let bound = json!({"cnf": {"kid": holder.thumbprint()}});
    for (changes, reason) in [
        (json!({"aud": "other"}), RejectReason::Audience),
        (json!({"exp": NOW - 61}), RejectReason::Expired),
        (json!({"tid": OTHER_TENANT}), RejectReason::Issuer),
    ] {
        let token = holder.bed.token(&with(changes, &bound));
        holder.refused(&json!({"at": token}), reason).await;
    }
    let claims = with(holder.bed.claims(TokenVersion::V1), &bound);
    let forged = SigningKey::second().sign(&holder.bed.key.header(), &claims);
    holder
        .refused(&json!({"at": forged}), RejectReason::Signature)
        .await;
    // A proof in a proof is no token.
    let nested = holder.proof(&json!({"iss": holder.bed.issuer(TokenVersion::V1)}));
    holder
        .refused(&json!({"at": nested}), RejectReason::Malformed)
        .await;
    let foreign = holder
        .bed
        .token(&with(json!({"iss": "https://elsewhere"}), &bound));
    let verdict = holder.verdict(&holder.proof(&json!({"at": foreign}))).await;
    assert_eq!(verdict, Verdict::NotMine);
}

#[tokio::test]
async fn a_nonce_is_needed_and_short() {
    let holder = Holder::new(PopPolicy::required(HOST)).await;
    for nonce in [Value::Null, json!(""), json!("x".repeat(257))] {
        holder
            .refused(&json!({"nonce": nonce}), RejectReason::Proof)
            .await;
    }
    holder
        .refused(&json!({"nonce": 7}), RejectReason::Claims)
        .await;
}
