//! The same over the real multiplexer, whose resets are no plain ends.

use std::{convert::Infallible, io, sync::Arc};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};

use super::{
    fakes::{FakeAuth, FakeTunnel},
    support::{
        BOTH_VERSIONS, Bed, FrameSender, TestBody, channel, data, empty, next_data, read_until,
    },
};
use crate::{
    Tunnel,
    net::{Alpn, Connector, Endpoint, Security, TrustRoots},
    proxy::{Proxy, ProxyId},
    tunnel::{DirectTunnel, TunnelServer, TunnelStream, mux},
};

/// A proxy in front of a tunnel over loopback TCP; the far ends of its streams come out of the channel.
async fn start() -> (Bed, mpsc::UnboundedReceiver<TunnelStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (streams, far_ends) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.expect("the tunnel dials");
        let mut server = TunnelServer::start(tcp, mux::Config::default());
        while let Some(stream) = server.accept().await {
            if streams.send(stream.accept()).is_err() {
                return;
            }
        }
    });
    let connector = Connector::new(TrustRoots::platform()).expect("a connector");
    let endpoint = Endpoint::new("127.0.0.1", port, Security::Plain);
    let tunnel: Arc<dyn Tunnel> = Arc::new(DirectTunnel::new(connector, endpoint));
    let id = ProxyId::from_name("edge");
    let proxy = Proxy::builder()
        .cluster(id, tunnel, Arc::new(FakeAuth::fixed()))
        .start()
        .await
        .expect("the proxy starts");
    let bed = Bed::of(proxy, id, Arc::new(FakeTunnel::raw()));
    (bed, far_ends)
}

/// Answers the next stream's request with a body that the test writes.
async fn answer(far_ends: &mut mpsc::UnboundedReceiver<TunnelStream>) -> FrameSender {
    let stream = far_ends.recv().await.expect("a stream");
    let (frames, body) = channel();
    let body = std::sync::Mutex::new(Some(body));
    let service = service_fn(move |_: Request<Incoming>| {
        let body: Option<TestBody> = body.lock().expect("not poisoned").take();
        async { Ok::<_, Infallible>(Response::new(body.expect("one request"))) }
    });
    tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(stream, service));
    frames
}

#[tokio::test]
async fn events_pass_and_the_end_of_a_watch_reaches_the_agent() {
    let (bed, mut far_ends) = start().await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        let request = bed.request("GET", "/").body(empty()).expect("a request");
        let (response, frames) = tokio::join!(client.send(request), answer(&mut far_ends));
        let mut events = response.expect("a head").into_body();
        frames.send(data("event")).expect("the watch runs");
        assert_eq!(next_data(&mut events).await, "event");
        drop((events, client));
        // Resolves when the agent's connection lets go of the response body.
        frames.closed().await;
    }
}

#[tokio::test]
async fn a_response_that_breaks_in_the_tunnel_is_an_error() {
    let (bed, mut far_ends) = start().await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        let request = bed.request("GET", "/").body(empty()).expect("a request");
        let (response, frames) = tokio::join!(client.send(request), answer(&mut far_ends));
        let mut list = response.expect("a head").into_body();
        frames.send(data("[1,2")).expect("the list runs");
        assert_eq!(next_data(&mut list).await, "[1,2");
        frames
            .send(Err(io::Error::other("killed")))
            .expect("the list runs");
        let end = http_body_util::BodyExt::frame(&mut list).await;
        assert!(end.is_some_and(|end| end.is_err()), "{version:?}");
    }
}

#[tokio::test]
async fn an_upgraded_stream_ends_as_its_peer_ended_it() {
    let (bed, mut far_ends) = start().await;
    for is_clean in [true, false] {
        let mut client = bed.connect(Alpn::Http1).await;
        let ask = bed.request_text(
            "POST",
            "/exec",
            "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n",
        );
        client.write_all(ask.as_bytes()).await.expect("written");
        let mut agent = far_ends.recv().await.expect("a stream");
        read_until(&mut agent, "\r\n\r\n").await;
        let agreement =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";
        agent
            .write_all(agreement.as_bytes())
            .await
            .expect("written");
        read_until(&mut client, "\r\n\r\n").await;
        agent.write_all(b"output").await.expect("written");
        let mut output = [0; 6];
        client.read_exact(&mut output).await.expect("read");
        assert_eq!(&output, b"output");
        if is_clean {
            agent.shutdown().await.expect("half-closed");
        } else {
            // Dropped before its end: a reset.
            drop(agent);
        }
        // TLS tells a clean end from a connection that was cut.
        let end = client.read_to_end(&mut Vec::new()).await;
        assert_eq!(end.is_ok(), is_clean, "{end:?}");
    }
}
