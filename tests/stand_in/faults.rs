//! What the stand-in does wrong on demand.

use arc_cluster_connect::net::Alpn;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    client::{
        BIG, LIMIT, PODS, TOKEN, body, builder, connect, get, http2_client, none_live, request,
        send, start,
    },
    support::api_server::{ListFault, LogFollow, UpgradeAnswer},
};

#[tokio::test]
async fn a_cut_list_is_no_clean_end_on_either_http_version() {
    let stand_in = start().await;
    stand_in
        .faults()
        .set_list(Some(ListFault::AbortAfter(100_000)));
    for alpn in [Alpn::Http1, Alpn::Http2] {
        let request = request("GET", BIG, Some(TOKEN))
            .body(Full::default())
            .unwrap();
        let response = send(&stand_in, alpn, request).await;
        assert_eq!(response.status(), StatusCode::OK);
        let end = timeout(LIMIT, response.into_body().collect())
            .await
            .unwrap();
        assert!(end.is_err(), "{alpn:?}");
    }
    stand_in.faults().set_list(None);
    let whole = body(get(&stand_in, BIG, Some(TOKEN)).await).await;
    assert_eq!(whole["items"].as_array().unwrap().len(), 500);
}

#[tokio::test]
async fn killed_in_the_middle_of_a_list_and_started_again_on_the_same_port() {
    let stand_in = start().await;
    let (port, authority) = (stand_in.address().port(), stand_in.authority().clone());
    stand_in
        .faults()
        .set_list(Some(ListFault::StallAfter(50_000)));
    let mut list = get(&stand_in, BIG, Some(TOKEN)).await.into_body();
    assert!(list.frame().await.unwrap().is_ok());
    stand_in.kill().await;
    let rest = timeout(LIMIT, list.collect()).await.unwrap();
    assert!(rest.is_err());

    let again = builder()
        .port(port)
        .authority(authority)
        .start()
        .await
        .unwrap();
    assert_eq!(
        get(&again, PODS, Some(TOKEN)).await.status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn go_away_lets_the_request_under_way_end() {
    let stand_in = start().await;
    let (mut client, connection) = http2_client(&stand_in).await;
    let path = format!("{PODS}?watch=1&resourceVersion=9&timeoutSeconds=1");
    let request = request("GET", &path, Some(TOKEN))
        .body(Full::default())
        .unwrap();
    let watch = client.send_request(request).await.unwrap();
    stand_in.faults().go_away();
    assert!(watch.into_body().collect().await.is_ok());
    timeout(LIMIT, connection).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn upgrades_are_answered_as_set() {
    let stand_in = start().await;
    let cases = [
        (UpgradeAnswer::Ok, 200),
        (UpgradeAnswer::Redirect, 302),
        (UpgradeAnswer::Forbidden, 403),
        (UpgradeAnswer::InternalError, 500),
    ];
    for (answer, code) in cases {
        stand_in.faults().set_upgrade_answer(Some(answer));
        for path in [
            &format!("{PODS}/web/exec?command=true&stdout=1"),
            "/stand-in/echo",
        ] {
            let response = get(&stand_in, path, Some(TOKEN)).await;
            assert_eq!(response.status(), code);
        }
    }
}

#[tokio::test]
async fn early_bytes_share_the_segment_of_the_101_and_echo_goes_on() {
    let stand_in = start().await;
    stand_in
        .faults()
        .set_early_bytes(Some(Bytes::from_static(b"early")));
    let mut stream = connect(&stand_in, Alpn::Http1).await;
    let head = format!(
        "GET /stand-in/echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut segment = vec![0; 4_096];
    let length = timeout(LIMIT, stream.read(&mut segment))
        .await
        .unwrap()
        .unwrap();
    let segment = String::from_utf8_lossy(&segment[..length]).into_owned();
    assert!(segment.starts_with("HTTP/1.1 101 "), "{segment}");
    assert!(segment.ends_with("\r\n\r\nearly"), "{segment}");
    assert_eq!(stand_in.live_requests(), 1);

    stream.write_all(b"ping").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    timeout(LIMIT, stream.read_to_string(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rest, "ping");
    none_live(&stand_in).await;
}

#[tokio::test]
async fn a_silent_log_is_live_until_its_reader_goes() {
    let stand_in = start().await;
    stand_in.faults().set_log_follow(LogFollow::Silent);
    let path = format!("{PODS}/web/log?follow=true&tailLines=1");
    let mut log = get(&stand_in, &path, Some(TOKEN)).await.into_body();
    let line = log.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(line, "line 20 of web\n");
    assert_eq!(stand_in.live_requests(), 1);
    drop(log);
    none_live(&stand_in).await;
}
