//! [`Bed`]: a relay, and what stands around it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_cluster_connect::{
    Error,
    net::{Connector, TrustRoots},
    relay::{
        ConnectionString, RelaySender, SasRule,
        server::{RelayServer, Rights},
    },
    tunnel::{BridgePort, BridgeTunnel, OpenOptions, Target, Tunnel, TunnelStream},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};

use super::{
    listener::{Forward, Listener},
    support::api_server::random_token,
};

/// Only a failing test reaches it.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Bed {
    pub string: ConnectionString,
    pub text: String,
    pub connector: Connector,
    _relay: RelayServer,
}

impl Bed {
    pub async fn start() -> Self {
        let rule = SasRule::new("root", random_token()).expect("a rule");
        let relay = RelayServer::builder()
            .hybrid_connection("bridged")
            .rule(rule, Rights::LISTEN | Rights::SEND)
            .start(loopback().await)
            .expect("the relay starts");
        let text = relay
            .connection_string("root", "bridged")
            .expect("both exist");
        Self {
            string: ConnectionString::parse(&text).expect("it is well formed"),
            text,
            connector: Connector::new(TrustRoots::platform()).expect("roots can be read"),
            _relay: relay,
        }
    }

    pub async fn listener(&self, ports: &[(&str, Forward)]) -> Listener {
        Listener::start(self.connector.clone(), &self.string, ports).await
    }

    /// A tunnel whose streams to the API server lead to `port`.
    pub fn tunnel(&self, port: &str) -> BridgeTunnel {
        let sender = RelaySender::new(
            self.connector.clone(),
            self.string.hybrid_connection().expect("it names one"),
            self.string.credential(),
        );
        BridgeTunnel::new(sender, BridgePort::new(port).expect("a name"))
    }
}

pub async fn open(tunnel: &dyn Tunnel) -> TunnelStream {
    tunnel
        .open(&Target::api_server(), OpenOptions::new())
        .await
        .expect("it opens")
}

/// Why it does not open.
pub async fn refusal(tunnel: &dyn Tunnel) -> Error {
    tunnel
        .open(&Target::api_server(), OpenOptions::new())
        .await
        .expect_err("it is refused")
}

/// What comes back for `text`, by way of a half-close.
pub async fn echo(tunnel: &dyn Tunnel, text: &[u8]) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(open(tunnel).await);
    let mut answer = Vec::new();
    let writing = async {
        writer.write_all(text).await?;
        writer.shutdown().await
    };
    let (written, read) = tokio::join!(writing, reader.read_to_end(&mut answer));
    written.expect("it is written");
    read.expect("it is read to its end");
    answer
}

pub async fn loopback() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

/// A TCP server; each of its connections is given to `serve`.
pub async fn tcp_server<F>(serve: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = loopback().await;
    let address = listener.local_addr().expect("it is bound");
    let serve = Arc::new(serve);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(tcp));
        }
    });
    address
}

pub async fn echo_server() -> SocketAddr {
    tcp_server(|mut tcp| async move {
        let (mut reader, mut writer) = tcp.split();
        let _ = copy(&mut reader, &mut writer).await;
        let _ = writer.shutdown().await;
    })
    .await
}
