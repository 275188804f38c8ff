//! Through the embedded relay, sockets and all.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, split},
    net::TcpListener,
    task::JoinHandle,
};

use super::*;
use crate::{
    ErrorKind,
    net::{Connector, TrustRoots},
    relay::{
        ConnectionString, RelayListener, SasRule,
        server::{RelayServer, Rights},
    },
    tunnel::{TunnelServer, TunnelState},
};

/// A relay on `port`, or on any free one for 0.
async fn relay(port: u16) -> RelayServer {
    RelayServer::builder()
        .hybrid_connection("cluster")
        .rule(
            SasRule::new("root", "an-example-key").unwrap(),
            Rights::LISTEN | Rights::SEND,
        )
        .start(TcpListener::bind(("127.0.0.1", port)).await.unwrap())
        .unwrap()
}

fn connection_string(relay: &RelayServer) -> ConnectionString {
    let text = relay.connection_string("root", "cluster").unwrap();
    ConnectionString::parse(&text).unwrap()
}

fn connector() -> Connector {
    Connector::new(TrustRoots::platform()).unwrap()
}

fn tunnel(connection_string: &ConnectionString) -> RelayTunnel {
    RelayTunnel::new(RelaySender::new(
        connector(),
        connection_string.hybrid_connection().unwrap(),
        connection_string.credential(),
    ))
}

/// An agent that echoes every stream of every connection.
async fn agent(connection_string: &ConnectionString) -> JoinHandle<()> {
    let mut listener = RelayListener::start(
        connector(),
        connection_string.hybrid_connection().unwrap(),
        connection_string.credential(),
    );
    listener.online().await.unwrap();
    tokio::spawn(async move {
        while let Some(connection) = listener.accept().await {
            let Ok(stream) = connection.accept().await else {
                continue;
            };
            let mut server = TunnelServer::start(stream, mux::Config::default());
            tokio::spawn(async move {
                while let Some(stream) = server.accept().await {
                    let (mut reader, mut writer) = split(stream.accept());
                    tokio::spawn(async move {
                        let _ = copy(&mut reader, &mut writer).await;
                        let _ = writer.shutdown().await;
                    });
                }
            });
        }
    })
}

async fn echo(tunnel: &RelayTunnel, text: &str) -> Result<()> {
    let stream = tunnel
        .open(&Target::api_server(), OpenOptions::new())
        .await?;
    let (mut reader, mut writer) = split(stream);
    let mut answer = String::new();
    let (written, read) = tokio::join!(
        async {
            writer.write_all(text.as_bytes()).await?;
            writer.shutdown().await
        },
        reader.read_to_string(&mut answer)
    );
    written.unwrap();
    read.unwrap();
    assert!(answer == text);
    Ok(())
}

#[tokio::test]
async fn streams_go_through_the_relay_many_at_once() {
    let relay = relay(0).await;
    let connection_string = connection_string(&relay);
    let agent = agent(&connection_string).await;
    let tunnel = tunnel(&connection_string);
    let long = "0123456789abcdef".repeat(64 * 1024);
    let texts = ["short".to_owned(), long];
    let echoes = (0..20).map(|index| echo(&tunnel, &texts[index % 2]));
    for result in join_all(echoes).await {
        result.unwrap();
    }
    let status = tunnel.status();
    assert_eq!(status.bytes_sent, 10 * (5 + 1024 * 1024));
    assert_eq!(status.bytes_sent, status.bytes_received);
    assert_eq!(
        status.peer,
        connection_string.hybrid_connection().unwrap().to_string()
    );
    tunnel.shutdown().await.unwrap();
    agent.abort();
}

#[tokio::test]
async fn agent_and_client_are_back_by_themselves_when_the_relay_is() {
    let first = relay(0).await;
    let connection_string = connection_string(&first);
    let agent = agent(&connection_string).await;
    let tunnel = tunnel(&connection_string);
    echo(&tunnel, "before").await.unwrap();
    let port = first.local_addr().port();
    first.shutdown().await;
    let second = relay(port).await;
    echo(&tunnel, "after").await.unwrap();
    assert!(matches!(tunnel.status().state, TunnelState::Connected));
    tunnel.shutdown().await.unwrap();
    agent.abort();
    second.shutdown().await;
}

#[tokio::test]
async fn a_wrong_key_is_said_at_once() {
    let relay = relay(0).await;
    let text = relay.connection_string("root", "cluster").unwrap();
    let wrong = text.replace("an-example-key", "another-key");
    let tunnel = tunnel(&ConnectionString::parse(&wrong).unwrap());
    let error = echo(&tunnel, "never").await.unwrap_err();
    assert!(error.is_unauthorized(), "{}", error.report());
    assert_eq!(error.status(), Some(401));
    assert!(error.help().is_some());
    assert!(error.tracking_id().is_some());
    assert!(!error.report().contains("another-key"));
}

#[tokio::test]
async fn no_agent_is_waited_for_and_then_said() {
    let relay = relay(0).await;
    let tunnel = tunnel(&connection_string(&relay));
    let options = OpenOptions::new().with_wait_limit(Duration::from_millis(300));
    let error = tunnel
        .open(&Target::api_server(), options)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.help().is_some());
}
