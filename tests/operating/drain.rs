//! A shutdown with many shells open, through all of the path: endpoint, tunnel, relay, agent and API server.

use std::sync::Arc;

use arc_cluster_connect::{
    Tunnel,
    auth::BearerAuth,
    net::{Alpn, Connector, Endpoint, NetStream, Security, TrustRoots},
    proxy::{Proxy, ProxyId},
    tunnel::{OpenOptions, Target},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{PATIENCE, Site, events, tunnel as tunnel_of};
use crate::support::installation::POD;

/// More shells than people have open, and fewer than make a test slow: each is a process in the stand-in.
const EXECS: usize = 50;
/// Of `v5.channel.k8s.io`: the client's input is over.
const CLOSE_INPUT: &[u8] = &[255, 0];

/// A shell's connection, with what was read and not yet looked at.
struct Session {
    stream: NetStream,
    read: Vec<u8>,
}

impl Session {
    /// A client of the endpoint that has `cat` run in a pod.
    async fn start(proxy: &Proxy, id: &ProxyId) -> Self {
        let endpoint = proxy.endpoint(id).expect("it was registered");
        let server: http::Uri = endpoint.server().parse().expect("a URL");
        let pem = endpoint.certificate_authority_pem().as_bytes();
        let port = server.port_u16().expect("a port");
        let mut stream = Connector::new(TrustRoots::only_pem(pem).expect("a certificate"))
            .expect("usable roots")
            .connect(
                &Endpoint::new("127.0.0.1", port, Security::Tls),
                Alpn::Http1,
            )
            .await
            .expect("the proxy is there");
        let request = format!(
            "GET {}/api/v1/namespaces/default/pods/{POD}/exec?command=cat&stdin=true&stdout=true HTTP/1.1\r\n\
             Host: {}\r\nAuthorization: Bearer {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n",
            server.path().trim_end_matches('/'),
            server.authority().expect("a host"),
            endpoint.secret(),
        );
        stream.write_all(request.as_bytes()).await.expect("open");
        stream.flush().await.expect("open");
        let mut session = Self {
            stream,
            read: Vec::new(),
        };
        session.until(b"HTTP/1.1 101 ").await;
        session.until(b"\r\n\r\n").await;
        session
    }

    /// Sends a binary message, masked with zeroes.
    async fn send(&mut self, message: &[u8]) {
        let length = u8::try_from(message.len()).expect("short") | 0x80;
        let frame = [&[0x82, length, 0, 0, 0, 0], message].concat();
        self.stream.write_all(&frame).await.expect("open");
        self.stream.flush().await.expect("open");
    }

    /// Reads up to and with `marker`.
    async fn until(&mut self, marker: &[u8]) {
        loop {
            let found = self
                .read
                .windows(marker.len())
                .position(|window| window == marker);
            if let Some(at) = found {
                self.read.drain(..at + marker.len());
                return;
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
            let count = read.expect("in time").expect("open");
            let (marker, read) = (
                String::from_utf8_lossy(marker),
                String::from_utf8_lossy(&self.read),
            );
            assert!(count > 0, "ended before {marker}: {read}");
        }
    }

    /// `cat` says what it is told.
    async fn echoes(&mut self, text: &str) {
        self.send(format!("\0{text}").as_bytes()).await;
        self.until(text.as_bytes()).await;
    }
}

#[tokio::test]
async fn fifty_execs_outlive_a_shutdown_until_they_end_by_themselves() {
    let site = Site::new().await;
    let tunnel = Arc::clone(&site.tunnel) as Arc<dyn Tunnel>;
    let id = ProxyId::from_name("drain");
    let auth = BearerAuth::fixed(&site.installation.token).expect("a token");
    let proxy = Proxy::builder()
        .port(0)
        .cluster(id, tunnel, Arc::new(auth))
        .start()
        .await
        .expect("the proxy starts");
    let mut sessions = Vec::new();
    for number in 0..EXECS {
        let mut session = Session::start(&proxy, &id).await;
        session.echoes(&format!("first-{number}")).await;
        sessions.push(session);
    }
    site.until_metrics_show(&format!("acc_upgraded_streams {EXECS}"))
        .await;

    site.agent.ask_to_terminate();
    site.until_metrics_show(&format!("acc_drain_remaining_streams {EXECS}"))
        .await;
    assert_eq!(site.health("/readyz").await.0, 503);
    assert_eq!(site.health("/livez").await.0, 200);
    // Nobody new: there is no other agent.
    let late = OpenOptions::new().with_wait_limit(std::time::Duration::from_millis(200));
    let fresh = tunnel_of(&site.installation);
    assert!(fresh.open(&Target::api_server(), late).await.is_err());

    // Everybody works on, and ends when they want to, with their exit status.
    for (number, session) in sessions.iter_mut().enumerate() {
        session.echoes(&format!("second-{number}")).await;
    }
    let mut last = sessions.pop().expect("fifty");
    for mut session in sessions {
        session.send(CLOSE_INPUT).await;
        session.until(br#""status":"Success""#).await;
    }
    site.until_metrics_show("acc_drain_remaining_streams 1")
        .await;
    last.echoes("the last one").await;
    last.send(CLOSE_INPUT).await;
    last.until(br#""status":"Success""#).await;
    drop(last);

    let Site {
        installation,
        agent,
        ..
    } = site;
    let ended = agent.ended().await;
    assert!(ended.status.success(), "{ended:?}");
    let outcomes: Vec<_> = events(&installation.path("audit.log"))
        .into_iter()
        .filter(|event| event["stage"] == "ResponseComplete")
        .map(|event| {
            (
                event["objectRef"]["subresource"].clone(),
                event["outcome"].clone(),
            )
        })
        .collect();
    assert_eq!(outcomes, vec![("exec".into(), "answered".into()); EXECS]);
}
