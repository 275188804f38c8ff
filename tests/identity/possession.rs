//! Proofs of possession, strictly (2.7, R21, R22).

use arc_cluster_connect::agent::{PopPolicy, Replays, SignatureAlgorithm};
use http::StatusCode;

use super::{
    bed::{Bed, USER, USER_ID, get_over},
    support::authority::{SigningKey, now},
};

const CLUSTER: &str = "/subscriptions/b1d3d3f8-9e4b-4f7c-9a39-000000000001/resourceGroups/rg/providers/Microsoft.Kubernetes/connectedClusters/edge";

async fn bed() -> Bed {
    Bed::with(|entra| {
        entra
            .algorithms([SignatureAlgorithm::Rs256, SignatureAlgorithm::Es256])
            .pop(PopPolicy::required(CLUSTER))
    })
    .await
}

/// What kubectl does with what kubelogin gives it: one proof for all requests of a while.
#[tokio::test]
async fn a_proof_counts_in_one_tunnel_connection_and_in_no_other() {
    let bed = bed().await;
    let other = bed.path.another_tunnel();
    for key in [SigningKey::rsa(1), SigningKey::p256("own")] {
        let token = bed.authority.user(USER, USER_ID).bound_to(&key);
        let proof = token.clone().proof(&key, CLUSTER).sign();
        let first = bed.get(&proof).await;
        assert_eq!(first.status, StatusCode::OK, "{first:?}");
        for _ in 0..3 {
            let replayed = get_over(&*other, &proof).await;
            assert_eq!(replayed.status, StatusCode::UNAUTHORIZED, "{replayed:?}");
            replayed.status_object();
            // It is still its owner's.
            let again = bed.get(&proof).await;
            assert_eq!(again.status, StatusCode::OK, "{again:?}");
        }
        // The other client is no worse off for it: a proof of its own counts there.
        let own = token.proof(&key, CLUSTER).sign();
        let answer = get_over(&*other, &own).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(bed.get(&own).await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_proof_counts_everywhere_where_replays_are_allowed() {
    let bed = Bed::with(|entra| {
        entra
            .algorithms([SignatureAlgorithm::Rs256, SignatureAlgorithm::Es256])
            .pop(PopPolicy::required(CLUSTER).replays(Replays::Allow))
    })
    .await;
    let key = SigningKey::p256("own");
    let token = bed.authority.user(USER, USER_ID).bound_to(&key);
    let proof = token.proof(&key, CLUSTER).sign();
    assert_eq!(bed.get(&proof).await.status, StatusCode::OK);
    let other = bed.path.another_tunnel();
    let answer = get_over(&*other, &proof).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

#[tokio::test]
async fn r21_r22_every_other_proof_is_a_401() {
    let bed = bed().await;
    let own = SigningKey::p256("own");
    let other = SigningKey::p256("other");
    let token = || bed.authority.user(USER, USER_ID).bound_to(&own);
    let proofs = [
        ("a token without its proof", token().sign()),
        (
            "a token that is bound to nothing",
            bed.authority.user(USER, USER_ID).sign(),
        ),
        (
            "a proof around a token that is bound to nothing",
            bed.authority
                .user(USER, USER_ID)
                .proof(&own, CLUSTER)
                .sign(),
        ),
        (
            "a proof with another key than the token's",
            token().proof(&other, CLUSTER).sign(),
        ),
        (
            "a proof signed with another key than it shows",
            token().proof(&own, CLUSTER).with_key(other.clone()).sign(),
        ),
        (
            "a proof for another cluster",
            token().proof(&own, "https://other.example").sign(),
        ),
        (
            "a proof for nobody",
            token().proof(&own, CLUSTER).without("u").sign(),
        ),
        (
            "a proof of an hour ago",
            token()
                .proof(&own, CLUSTER)
                .claim("ts", now() - 3_600)
                .sign(),
        ),
        (
            "a proof of the future",
            token().proof(&own, CLUSTER).claim("ts", now() + 600).sign(),
        ),
        (
            "a proof without a time",
            token().proof(&own, CLUSTER).without("ts").sign(),
        ),
        (
            "a proof for another method",
            token().proof(&own, CLUSTER).claim("m", "DELETE").sign(),
        ),
        (
            "a proof for another path",
            token()
                .proof(&own, CLUSTER)
                .claim("p", "/api/v1/secrets")
                .sign(),
        ),
        (
            "a proof without a key",
            token().proof(&own, CLUSTER).without("cnf").sign(),
        ),
        (
            "a proof without a token",
            token().proof(&own, CLUSTER).without("at").sign(),
        ),
        (
            "a proof without a signature",
            token().proof(&own, CLUSTER).unsigned(),
        ),
        (
            "a proof with a broken signature",
            token().proof(&own, CLUSTER).with_broken_signature(),
        ),
        (
            "a proof around an expired token",
            token()
                .claim("exp", now() - 600)
                .proof(&own, CLUSTER)
                .sign(),
        ),
        (
            "a proof around a token of another audience",
            token().claim("aud", "x").proof(&own, CLUSTER).sign(),
        ),
    ];
    for (name, proof) in &proofs {
        let answer = bed.get(proof).await;
        assert_eq!(
            answer.status,
            StatusCode::UNAUTHORIZED,
            "{name}: {answer:?}"
        );
        answer.status_object();
    }
    assert!(bed.last_arrival().is_none(), "one of them arrived");
}
