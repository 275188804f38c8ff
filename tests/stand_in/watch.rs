//! Watches.

use arc_cluster_connect::net::Alpn;
use http::{StatusCode, header};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::client::{LIMIT, PODS, TOKEN, body, get, request, send, start};

#[tokio::test]
async fn events_come_one_by_one_and_the_watch_ends_in_time() {
    let stand_in = start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let list = body(get(&stand_in, maps, Some(TOKEN)).await).await;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("{maps}?watch=true&resourceVersion={version}&timeoutSeconds=2");
    let mut events = get(&stand_in, &path, Some(TOKEN)).await.into_body();
    assert_eq!(stand_in.live_requests(), 1);

    let map = json!({ "metadata": { "name": "seen" }, "data": { "a": "b" } });
    let create = request("POST", maps, Some(TOKEN))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::from(map.to_string()))
        .unwrap();
    let created = send(&stand_in, Alpn::Http1, create).await;
    assert_eq!(created.status(), StatusCode::CREATED);

    let event = timeout(LIMIT, events.frame())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let event: Value = serde_json::from_slice(event.data_ref().unwrap()).unwrap();
    assert_eq!(event["type"], "ADDED");
    assert_eq!(event["object"]["metadata"]["name"], "seen");
    let end = timeout(LIMIT, events.frame()).await.unwrap();
    assert!(end.is_none(), "a watch that is over ends cleanly");
}

#[tokio::test]
async fn a_bookmark_comes_to_who_asks_for_it() {
    let stand_in = start().await;
    let path = format!("{PODS}?watch=1&resourceVersion=9&allowWatchBookmarks=true");
    let mut events = get(&stand_in, &path, Some(TOKEN)).await.into_body();
    let event = timeout(LIMIT, events.frame())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let event: Value = serde_json::from_slice(event.data_ref().unwrap()).unwrap();
    assert_eq!(event["type"], "BOOKMARK");
}
