//! Upgraded connections, seen by a plain WebSocket client.

use arc_cluster_connect::net::{Alpn, NetStream};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderName, HeaderValue, header};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use super::{
    client::{LIMIT, PODS, TOKEN, connect, get, none_live, start},
    support::api_server::StandIn,
};

#[tokio::test]
async fn exec_carries_input_to_its_end_output_and_exit_code() {
    let stand_in = start().await;
    let query =
        "command=sh&command=-c&command=cat;echo+bad+%3E%262;exit+7&stdin=1&stdout=1&stderr=1";
    let mut exec = exec(&stand_in, query).await;
    exec.send(Message::binary(&b"\x00to cat"[..]))
        .await
        .unwrap();
    // The end of the input has a message of its own since v5.
    exec.send(Message::binary(&b"\xff\x00"[..])).await.unwrap();

    let mut channels = [const { Vec::new() }; 4];
    while let Some(message) = timeout(LIMIT, exec.next()).await.unwrap() {
        let message = message.unwrap();
        if let Some((channel, content)) = message.as_payload().split_first()
            && message.is_binary()
        {
            channels[usize::from(*channel)].extend_from_slice(content);
        }
    }
    let [_, stdout, stderr, error] = channels;
    assert_eq!(String::from_utf8_lossy(&stdout), "to cat");
    assert_eq!(String::from_utf8_lossy(&stderr), "bad\n");
    let status: Value = serde_json::from_slice(&error).unwrap();
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(status["details"]["causes"][0]["message"], "7");
    none_live(&stand_in).await;
}

#[tokio::test]
async fn a_command_ends_with_its_client() {
    let stand_in = start().await;
    let exec = exec(&stand_in, "command=sleep&command=1000&stdout=1").await;
    assert_eq!(stand_in.live_requests(), 1);
    drop(exec);
    none_live(&stand_in).await;
}

#[tokio::test]
async fn what_can_not_be_upgraded_is_told_why() {
    let stand_in = start().await;
    let exec = format!("{PODS}/web/exec?stdout=1&command=true");
    let cases = [
        (exec.as_str(), 400),
        (&exec.replace("web", "gone"), 404),
        (&exec.replace("stdout=1", ""), 400),
        (&exec.replace("stdout", "container=other&stdout"), 400),
    ];
    for (path, code) in cases {
        assert_eq!(
            get(&stand_in, path, Some(TOKEN)).await.status(),
            code,
            "{path}"
        );
    }
}

#[tokio::test]
async fn with_early_bytes_set_the_first_frame_of_exec_shares_the_segment_of_the_101() {
    let stand_in = start().await;
    stand_in
        .faults()
        .set_early_bytes(Some(Bytes::from_static(b"any")));
    let mut stream = connect(&stand_in, Alpn::Http1).await;
    let head = format!(
        "GET {PODS}/web/exec?command=echo&command=hi&stdout=1 HTTP/1.1\r\nHost: x\r\n\
         Authorization: Bearer {TOKEN}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut segment = vec![0; 4_096];
    let length = timeout(LIMIT, stream.read(&mut segment))
        .await
        .unwrap()
        .unwrap();
    let segment = &segment[..length];
    assert!(segment.starts_with(b"HTTP/1.1 101 "));
    // A whole binary message of one byte: nothing yet, on standard output.
    assert!(segment.ends_with(b"\r\n\r\n\x82\x01\x01"), "{segment:?}");
}

async fn exec(stand_in: &StandIn, query: &str) -> WebSocketStream<NetStream> {
    let stream = connect(stand_in, Alpn::Http1).await;
    let uri = format!("wss://localhost{PODS}/web/exec?{query}");
    let add = |builder: ClientBuilder<'static>, name: HeaderName, value: &str| {
        let value = HeaderValue::from_str(value).unwrap();
        builder.add_header(name, value).unwrap()
    };
    let builder = ClientBuilder::new().uri(&uri).unwrap();
    let builder = add(builder, header::AUTHORIZATION, &format!("Bearer {TOKEN}"));
    let builder = add(builder, header::SEC_WEBSOCKET_PROTOCOL, "v5.channel.k8s.io");
    let (websocket, response) = builder.connect_on(stream).await.unwrap();
    assert_eq!(
        response.headers()[header::SEC_WEBSOCKET_PROTOCOL],
        "v5.channel.k8s.io"
    );
    websocket
}
