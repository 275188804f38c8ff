//! What every request goes through: authentication, the headers of every answer, and the record.

use arc_cluster_connect::net::Alpn;
use http::{StatusCode, Version, header};
use http_body_util::Full;

use super::client::{ADMIN, PODS, TOKEN, body, get, request, send, start};

#[tokio::test]
async fn a_request_without_a_known_token_is_a_401_status() {
    let stand_in = start().await;
    for token in [None, Some("unknown")] {
        let response = get(&stand_in, PODS, token).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let status = body(response).await;
        assert_eq!(status["kind"], "Status");
        assert_eq!(status["reason"], "Unauthorized");
    }
    let healthy = get(&stand_in, "/readyz", None).await;
    assert_eq!(healthy.status(), StatusCode::OK);
    let callers: Vec<_> = stand_in
        .requests()
        .into_iter()
        .map(|request| request.caller)
        .collect();
    assert_eq!(callers, [None, None, None]);
}

#[tokio::test]
async fn audit_id_comes_back_and_one_path_warns() {
    let stand_in = start().await;
    let path = "/api/v1/namespaces/kube-system/services";
    let request = request("GET", path, Some(TOKEN))
        .header("Audit-ID", "11111111-2222-4333-8444-555555555555")
        .body(Full::default())
        .unwrap();
    let response = send(&stand_in, Alpn::Http1, request).await;
    assert_eq!(
        response.headers()["audit-id"],
        "11111111-2222-4333-8444-555555555555"
    );
    assert!(
        response.headers()[header::WARNING]
            .to_str()
            .unwrap()
            .starts_with("299 ")
    );
    let other = get(&stand_in, PODS, Some(TOKEN)).await;
    assert_eq!(other.headers()["audit-id"].len(), 36);
    assert!(!other.headers().contains_key(header::WARNING));
}

#[tokio::test]
async fn requests_are_recorded_byte_for_byte_on_both_http_versions() {
    let stand_in = start().await;
    let odd = "/api/v1/namespaces/default/pods?&limit=5&labelSelector=app%3Dweb";
    for alpn in [Alpn::Http1, Alpn::Http2] {
        let request = request("GET", odd, Some(TOKEN))
            .body(Full::default())
            .unwrap();
        let list = body(send(&stand_in, alpn, request).await).await;
        assert_eq!(list["items"][0]["metadata"]["name"], "web");
    }
    let requests = stand_in.requests();
    assert!(requests.iter().all(|request| request.path_and_query == odd));
    assert_eq!(requests[0].version, Version::HTTP_11);
    assert_eq!(requests[1].version, Version::HTTP_2);
    assert_ne!(requests[0].connection, requests[1].connection);
    assert_eq!(requests[0].user.as_ref().unwrap().name, ADMIN);
}
