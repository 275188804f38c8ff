//! Tokens, bodies that are none, and a namespace's end.

use arc_cluster_connect::net::Alpn;
use http::{StatusCode, header};
use http_body_util::Full;
use serde_json::json;

use super::client::{PODS, TOKEN, get, post, request, send, start};

#[tokio::test]
async fn a_requested_token_is_that_service_account() {
    let stand_in = start().await;
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let answer = post(
        &stand_in,
        path,
        json!({ "spec": { "expirationSeconds": 900 } }),
    )
    .await;
    let token = answer["status"]["token"].as_str().unwrap();
    assert_eq!(token.split('.').count(), 3);

    let review = json!({ "spec": { "token": token } });
    let reviewed = post(
        &stand_in,
        "/apis/authentication.k8s.io/v1/tokenreviews",
        review,
    )
    .await;
    assert_eq!(reviewed["status"]["authenticated"], true);
    assert_eq!(
        reviewed["status"]["user"]["username"],
        "system:serviceaccount:default:default"
    );

    get(&stand_in, PODS, Some(token)).await;
    let last = stand_in.requests().pop().unwrap();
    assert_eq!(
        last.user.unwrap().name,
        "system:serviceaccount:default:default"
    );
}

#[tokio::test]
async fn a_token_secret_is_filled() {
    let stand_in = start().await;
    let secret = json!({
        "metadata": {
            "name": "t",
            "annotations": { "kubernetes.io/service-account.name": "default" },
        },
        "type": "kubernetes.io/service-account-token",
    });
    let secret = post(&stand_in, "/api/v1/namespaces/default/secrets", secret).await;
    assert!(secret["data"]["token"].as_str().unwrap().len() > 100);
}

#[tokio::test]
async fn unknown_and_malformed_bodies_are_refused() {
    let stand_in = start().await;
    let cases = [
        ("application/json", "[1]", 400),
        ("application/json", "{\"spec\":", 400),
        ("text/csv", "a,b", 415),
    ];
    for (content_type, text, code) in cases {
        let request = request("POST", PODS, Some(TOKEN))
            .header(header::CONTENT_TYPE, content_type)
            .body(Full::from(text))
            .unwrap();
        let response = send(&stand_in, Alpn::Http1, request).await;
        assert_eq!(response.status(), code, "{text}");
    }
    let long = Full::from(vec![b' '; (3 << 20) + 1]);
    let request = request("POST", PODS, Some(TOKEN)).body(long).unwrap();
    let response = send(&stand_in, Alpn::Http2, request).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_deleted_namespace_takes_its_objects_along() {
    let stand_in = start().await;
    let team = json!({ "metadata": { "name": "team" } });
    post(&stand_in, "/api/v1/namespaces", team).await;
    let map = json!({ "metadata": { "name": "settings" } });
    post(&stand_in, "/api/v1/namespaces/team/configmaps", map).await;
    let delete = request("DELETE", "/api/v1/namespaces/team", Some(TOKEN));
    let deleted = send(
        &stand_in,
        Alpn::Http1,
        delete.body(Full::default()).unwrap(),
    )
    .await;
    assert_eq!(deleted.status(), StatusCode::OK);
    let left = get(
        &stand_in,
        "/api/v1/namespaces/team/configmaps/settings",
        Some(TOKEN),
    )
    .await;
    assert_eq!(left.status(), StatusCode::NOT_FOUND);
}
