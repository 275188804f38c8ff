//! [`Way`]: how a request gets to the API server.

use std::{convert::Infallible, time::Duration};

use arc_cluster_connect::net::{Alpn, Connector, Endpoint, NetStream, Security, TrustRoots};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Uri, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Response,
    body::{Frame, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use super::{
    answer::Answer,
    cases::{Body, Case},
    support::{api_server::StandIn, embedded::Embedded},
};

/// The header by which a request is found again in the API server's log. An ordinary one: it has to pass.
pub const MARK: &str = "x-differential-mark";

/// Nothing here takes as long.
const LIMIT: Duration = Duration::from_secs(60);

type RequestBody = UnsyncBoxBody<Bytes, Infallible>;

/// One of the ways, with one HTTP version.
pub struct Way<'a> {
    pub name: &'static str,
    /// The straight way with the same HTTP version, which this one is compared with.
    pub reference: &'static str,
    hops: Hops<'a>,
    /// What stands before every path.
    base: String,
    host: String,
    token: String,
}

enum Hops<'a> {
    /// To an HTTPS endpoint: the API server's own, or the proxy's.
    Tls(Endpoint, TrustRoots, Alpn),
    /// On a stream of the tunnel, past the proxy.
    Stream(&'a Embedded),
}

impl<'a> Way<'a> {
    pub fn all(stand_in: &StandIn, token: &str, path: &'a Embedded) -> Vec<Self> {
        let server = format!("https://{}", stand_in.address());
        let straight =
            |name, alpn| Self::over_tls(name, name, alpn, &server, stand_in.ca_pem(), token);
        let endpoint = path.endpoint();
        let through = |name, reference, alpn| {
            Self::over_tls(
                name,
                reference,
                alpn,
                endpoint.server(),
                endpoint.certificate_authority_pem(),
                endpoint.secret(),
            )
        };
        vec![
            straight("straight-h1", Alpn::Http1),
            straight("straight-h2", Alpn::Http2),
            through("proxy-h1", "straight-h1", Alpn::Http1),
            through("proxy-h2", "straight-h2", Alpn::Http2),
            Self {
                name: "stream-h1",
                reference: "straight-h1",
                hops: Hops::Stream(path),
                base: String::new(),
                host: "kubernetes".to_owned(),
                token: token.to_owned(),
            },
        ]
    }

    fn over_tls(
        name: &'static str,
        reference: &'static str,
        alpn: Alpn,
        server: &str,
        ca_pem: &str,
        token: &str,
    ) -> Self {
        let server: Uri = server.parse().expect("a URL");
        let authority = server.authority().expect("it has a host");
        let endpoint = Endpoint::new(
            authority.host(),
            authority.port_u16().expect("it has a port"),
            Security::Tls,
        );
        let roots = TrustRoots::only_pem(ca_pem.as_bytes()).expect("a certificate");
        Self {
            name,
            reference,
            hops: Hops::Tls(endpoint, roots, alpn),
            base: server.path().trim_end_matches('/').to_owned(),
            host: authority.to_string(),
            token: token.to_owned(),
        }
    }

    /// Sends a request on a connection of its own and reads the answer to its end.
    pub async fn send(&self, case: &Case, mark: &str) -> Result<Answer, String> {
        let answer = timeout(LIMIT, async {
            let response = match &self.hops {
                Hops::Tls(endpoint, roots, alpn) => {
                    let stream = Connector::new(roots.clone())
                        .expect("the roots were read")
                        .connect(endpoint, *alpn)
                        .await
                        .map_err(|error| error.report().to_string())?;
                    self.send_over(stream, *alpn, case, mark).await
                }
                Hops::Stream(path) => {
                    let io = TokioIo::new(path.stream().await);
                    let (sender, connection) = http1::handshake(io)
                        .await
                        .map_err(|error| error.to_string())?;
                    tokio::spawn(connection);
                    self.send_http1(sender, case, mark).await
                }
            };
            let (head, body) = response.map_err(|error| format!("{error:?}"))?.into_parts();
            let collected = body.collect().await.map_err(|error| format!("{error:?}"))?;
            Ok(Answer {
                status: head.status,
                headers: self.without_base(head.headers),
                trailers: collected.trailers().cloned(),
                body: self.without_mark(collected.to_bytes(), mark),
            })
        });
        answer
            .await
            .unwrap_or_else(|_| Err("it takes for ever".to_owned()))
    }

    async fn send_over(
        &self,
        stream: NetStream,
        alpn: Alpn,
        case: &Case,
        mark: &str,
    ) -> hyper::Result<Response<Incoming>> {
        if alpn != Alpn::Http2 {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            return self.send_http1(sender, case, mark).await;
        }
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let origin = format!("https://{}", self.host);
        sender.send_request(self.request(case, mark, &origin)).await
    }

    async fn send_http1(
        &self,
        mut sender: http1::SendRequest<RequestBody>,
        case: &Case,
        mark: &str,
    ) -> hyper::Result<Response<Incoming>> {
        let mut request = self.request(case, mark, "");
        let host = self.host.parse().expect("a host is a header value");
        request.headers_mut().insert(header::HOST, host);
        sender.send_request(request).await
    }

    fn request(&self, case: &Case, mark: &str, origin: &str) -> Request<RequestBody> {
        let (method, path) = case.line.split_once(' ').expect("a method and a path");
        let path = path.replace("MARK", mark);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{origin}{}{path}", self.base))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(MARK, mark);
        for (name, value) in &case.headers {
            request = request.header(*name, value.as_bytes());
        }
        let body = match &case.body {
            Body::None => Full::default().boxed_unsync(),
            Body::Sized(text) => Full::from(text.replace("MARK", mark)).boxed_unsync(),
            Body::Pieces(pieces) => {
                let frames: Vec<_> = pieces
                    .iter()
                    .map(|piece| Ok(Frame::data(Bytes::from(piece.replace("MARK", mark)))))
                    .collect();
                StreamBody::new(stream::iter(frames)).boxed_unsync()
            }
        };
        request.body(body).expect("the case is a request")
    }

    /// A redirect below the proxy's own path is one below the API server's root.
    fn without_base(&self, mut headers: HeaderMap) -> HeaderMap {
        if let Some(location) = headers.get(header::LOCATION)
            && let Ok(text) = location.to_str()
            && let Some(path) = text.strip_prefix(&self.base)
        {
            let path = path.parse().expect("a part of a header value");
            headers.insert(header::LOCATION, path);
        }
        headers
    }

    fn without_mark(&self, body: Bytes, mark: &str) -> Bytes {
        match std::str::from_utf8(&body) {
            Ok(text) if text.contains(mark) => text.replace(mark, "MARK").into(),
            _ => body,
        }
    }
}
