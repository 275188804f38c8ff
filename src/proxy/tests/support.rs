//! A running proxy, its clients, and what they say to each other.

use std::{convert::Infallible, future::Future, io, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use super::fakes::{FakeAuth, FakeTunnel};
use crate::{
    Tunnel,
    kubeconfig::ProxyEndpoint,
    net::{Alpn, Connector, Endpoint, NetStream, Security, TrustRoots},
    proxy::{Proxy, ProxyBuilder, ProxyId, endpoint::Limits},
};

pub(super) type TestBody = UnsyncBoxBody<Bytes, io::Error>;

/// A proxy with one cluster.
pub(super) struct Bed {
    pub(super) proxy: Proxy,
    pub(super) id: ProxyId,
    pub(super) tunnel: Arc<FakeTunnel>,
    secret: String,
    certificate_pem: String,
}

impl Bed {
    /// A proxy whose agent answers with `handler`.
    pub(super) async fn start<F, A>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
        A: Future<Output = Response<TestBody>> + Send + 'static,
    {
        Self::with(FakeTunnel::serving(handler), FakeAuth::fixed(), |proxy| {
            proxy
        })
        .await
    }

    pub(super) async fn with(
        tunnel: FakeTunnel,
        auth: FakeAuth,
        configure: impl FnOnce(ProxyBuilder) -> ProxyBuilder,
    ) -> Self {
        let id = ProxyId::from_name("edge");
        let tunnel = Arc::new(tunnel);
        let builder =
            Proxy::builder().cluster(id, Arc::clone(&tunnel) as Arc<dyn Tunnel>, Arc::new(auth));
        let proxy = configure(builder).start().await.expect("the proxy starts");
        Self::of(proxy, id, tunnel)
    }

    /// A bed around a proxy that serves the cluster `id`.
    pub(super) fn of(proxy: Proxy, id: ProxyId, tunnel: Arc<FakeTunnel>) -> Self {
        let endpoint = proxy.endpoint(&id).expect("the cluster is there");
        Self {
            secret: endpoint.secret().to_owned(),
            certificate_pem: endpoint.certificate_authority_pem().to_owned(),
            proxy,
            id,
            tunnel,
        }
    }

    pub(super) fn endpoint(&self) -> ProxyEndpoint {
        self.proxy.endpoint(&self.id).expect("the cluster is there")
    }

    pub(super) fn port(&self) -> u16 {
        self.proxy.local_addr().port()
    }

    /// A request to the API server's path `rest`, with the secret.
    pub(super) fn request(&self, method: &str, rest: &str) -> request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{rest}", self.endpoint().server()))
            .header(
                header::AUTHORIZATION,
                format!("Bearer {}", self.endpoint().secret()),
            )
    }

    /// The same for any cluster, whether it is there or not.
    pub(super) fn request_at(&self, id: &ProxyId, method: &str, rest: &str) -> request::Builder {
        let port = self.port();
        Request::builder()
            .method(method)
            .uri(format!("https://127.0.0.1:{port}/proxies/{id}{rest}"))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.secret))
    }

    /// A request to any path of the endpoint, with whatever stands for the secret.
    pub(super) fn request_to(
        &self,
        method: &str,
        path: &str,
        secret: Option<&str>,
    ) -> Request<TestBody> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://127.0.0.1:{}{path}", self.port()));
        if let Some(secret) = secret {
            request = request.header(header::AUTHORIZATION, format!("Bearer {secret}"));
        }
        request.body(empty()).expect("a request")
    }

    /// The same as text, for a raw connection; `more` are header lines, each with its line end.
    pub(super) fn request_text(&self, method: &str, rest: &str, more: &str) -> String {
        format!(
            "{method} /proxies/{}{rest} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: Bearer {}\r\n{more}\r\n",
            self.id,
            self.port(),
            self.endpoint().secret()
        )
    }

    pub(super) async fn connect(&self, alpn: Alpn) -> NetStream {
        let roots = TrustRoots::only_pem(self.certificate_pem.as_bytes()).expect("a certificate");
        Connector::new(roots)
            .expect("a connector")
            .connect(
                &Endpoint::new("127.0.0.1", self.port(), Security::Tls),
                alpn,
            )
            .await
            .expect("the endpoint's certificate is trusted")
    }

    pub(super) async fn client(&self, version: ClientVersion) -> Client {
        let stream = TokioIo::new(self.connect(version.alpn()).await);
        match version {
            ClientVersion::Http1 => {
                let (sender, connection) = http1::handshake(stream).await.expect("HTTP/1.1 starts");
                tokio::spawn(connection.with_upgrades());
                Client::Http1(sender)
            }
            ClientVersion::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
                    .await
                    .expect("HTTP/2 starts");
                tokio::spawn(connection);
                Client::Http2(sender)
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ClientVersion {
    Http1,
    Http2,
}

pub(super) const BOTH_VERSIONS: [ClientVersion; 2] = [ClientVersion::Http1, ClientVersion::Http2];

impl ClientVersion {
    fn alpn(self) -> Alpn {
        match self {
            Self::Http1 => Alpn::Http1,
            Self::Http2 => Alpn::Http2,
        }
    }
}

pub(super) enum Client {
    Http1(http1::SendRequest<TestBody>),
    Http2(http2::SendRequest<TestBody>),
}

impl Client {
    pub(super) async fn send(
        &mut self,
        mut request: Request<TestBody>,
    ) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                if let Some(authority) = request.uri().authority().cloned() {
                    let host = authority.as_str().parse().expect("a header value");
                    request.headers_mut().entry(header::HOST).or_insert(host);
                    let target = request.uri().path_and_query().cloned();
                    *request.uri_mut() = target.expect("a path").into();
                }
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}

impl Client {
    /// Sends over HTTP/2 without holding the client.
    pub(super) fn start(
        &self,
        request: Request<TestBody>,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + Send + 'static {
        let Self::Http2(sender) = self else {
            panic!("HTTP/1.1 carries one request at a time")
        };
        let mut sender = sender.clone();
        async move { sender.send_request(request).await }
    }
}

pub(super) fn empty() -> TestBody {
    body("")
}

pub(super) fn body(text: impl Into<Bytes>) -> TestBody {
    Full::new(text.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

pub(super) fn ok(text: impl Into<Bytes>) -> Response<TestBody> {
    Response::new(body(text))
}

pub(super) type FrameSender = mpsc::UnboundedSender<io::Result<Frame<Bytes>>>;

/// A body that the test writes while it is sent. Dropping the sender ends it.
pub(super) fn channel() -> (FrameSender, TestBody) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let frames = stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    });
    (sender, StreamBody::new(frames).boxed_unsync())
}

pub(super) fn data(text: &'static str) -> io::Result<Frame<Bytes>> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// The next piece of a body, which must be data.
pub(super) async fn next_data(incoming: &mut Incoming) -> Bytes {
    incoming
        .frame()
        .await
        .expect("another frame")
        .expect("no error")
        .into_data()
        .expect("data")
}

/// Whether a body ends here, without an error. HTTP/2 may carry the end in an empty frame.
pub(super) async fn is_ended(incoming: &mut Incoming) -> bool {
    while let Some(frame) = incoming.frame().await {
        if !frame.is_ok_and(|frame| frame.data_ref().is_some_and(Bytes::is_empty)) {
            return false;
        }
    }
    true
}

pub(super) async fn text(incoming: Incoming) -> String {
    let bytes = incoming.collect().await.expect("a whole body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Checks that a response is a `Status` in all its parts, and gives the reason and message.
pub(super) async fn status_of(response: Response<Incoming>) -> (StatusCode, String, String) {
    let code = response.status();
    assert_eq!(response.headers()["content-type"], "application/json");
    let correlation_id = response.headers()["x-ms-correlation-request-id"].clone();
    let status: serde_json::Value =
        serde_json::from_str(&text(response.into_body()).await).expect("JSON");
    assert_eq!(status["kind"], "Status");
    assert_eq!(status["apiVersion"], "v1");
    assert_eq!(status["status"], "Failure");
    assert_eq!(status["code"], code.as_u16());
    assert_eq!(
        status["details"]["causes"][0]["message"].as_str(),
        correlation_id.to_str().ok()
    );
    let field = |name: &str| status[name].as_str().expect("a text").to_owned();
    (code, field("reason"), field("message"))
}

pub(super) fn headers_of(request: &Request<Incoming>) -> HeaderMap {
    request.headers().clone()
}

/// Small limits, for tests that reach them.
pub(super) fn limits(connections: usize, requests: usize) -> Limits {
    Limits {
        connections,
        requests,
    }
}

/// Writes `request` and reads until the peer closes, with or without a clean end of TLS.
pub(super) async fn raw_exchange(stream: &mut NetStream, request: &str) -> String {
    stream
        .write_all(request.as_bytes())
        .await
        .expect("the request is written");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads up to and including `end`.
pub(super) async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut read = String::new();
    while !read.ends_with(end) {
        read.push(char::from(stream.read_u8().await.expect("more bytes")));
    }
    read
}
