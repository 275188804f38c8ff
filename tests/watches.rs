//! A thousand watches of one client, over one tunnel: straight from a program, and through the loopback endpoint.

mod support;

use std::{future::poll_fn, sync::Arc, time::Duration};

use arc_cluster_connect::{
    agent::{Agent, ServiceAccountTokens},
    auth::BearerAuth,
    net::{Alpn, Connector, Endpoint, Security, TrustRoots},
    tunnel::{OpenOptions, Target, TunnelConnector},
};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::time::timeout;

use support::{
    api_server::{StandIn, User},
    embedded::{self, Embedded},
};

const TOKEN: &str = "the-callers-token";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const WATCHES: usize = 1_000;
/// What a tunnel lets its client have open.
const MAX_STREAMS: usize = 1_024;
/// A bound on everything that should happen at once. Only a failing test reaches it.
const AT_ONCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watches_over_one_tunnel() {
    let bed = Bed::start().await;
    let tunnel = &bed.path.tunnel();
    let client = Direct(
        Client::builder(TokioExecutor::new()).build(TunnelConnector::new(
            Arc::clone(tunnel),
            Target::api_server(),
        )),
    );
    let watch = watch_path(&client).await;
    let mut watches = open_all(&client, &watch, WATCHES).await;
    assert_eq!(bed.stand_in.live_requests(), WATCHES);
    let answers = join_all((0..20).map(|_| client.get("/version"))).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.status() == StatusCode::OK)
    );
    drop(answers);

    // Up to the limit there is room; beyond it an opening waits, and says why when it may wait no longer.
    let more = MAX_STREAMS - WATCHES;
    settled(|| tunnel.status().live_streams == WATCHES).await;
    watches.extend(open_all(&client, &watch, more).await);
    let impatient = OpenOptions::new().with_wait_limit(Duration::from_millis(100));
    let refused = tunnel.open(&Target::api_server(), impatient).await;
    let error = refused.expect_err("there is no room");
    assert!(error.is_timeout(), "{error}");
    assert!(
        error
            .help()
            .is_some_and(|help| help.contains("second tunnel"))
    );
    let (late, ()) = tokio::join!(client.get("/version"), async {
        drop(watches.pop());
    });
    assert_eq!(late.status(), StatusCode::OK);
    late.into_body().collect().await.expect("whole");

    announce(&client).await;
    see_all(&mut watches).await;
    bed.stays_empty_after(watches).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watches_through_the_endpoint_over_http2() {
    const PER_CONNECTION: usize = 90;
    let bed = Bed::start().await;
    let mut connections = Vec::new();
    for _ in 0..WATCHES.div_ceil(PER_CONNECTION) {
        connections.push(bed.http2().await);
    }
    let watch = watch_path(&connections[0]).await;
    let mut watches = Vec::new();
    for connection in &connections {
        let count = PER_CONNECTION.min(WATCHES - watches.len());
        watches.extend(open_all(connection, &watch, count).await);
    }
    assert_eq!(bed.stand_in.live_requests(), WATCHES);
    assert!(
        watches
            .iter()
            .all(|watch| watch.version() == Version::HTTP_2)
    );
    announce(&connections[0]).await;
    see_all(&mut watches).await;
    bed.stays_empty_after(watches).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watches_through_the_endpoint_over_http1() {
    if !raise_descriptors() {
        return;
    }
    let bed = Bed::start().await;
    let client = bed.http1();
    let watch = watch_path(&client).await;
    let mut watches = Vec::new();
    while watches.len() < WATCHES {
        watches.extend(open_all(&client, &watch, 50).await);
    }
    assert_eq!(bed.stand_in.live_requests(), WATCHES);
    announce(&client).await;
    see_all(&mut watches).await;
    bed.stays_empty_after(watches).await;
}

/// The whole path in this process, and the agent to ask whether it has forgotten everything.
struct Bed {
    stand_in: StandIn,
    agent: Agent,
    path: Embedded,
}

impl Bed {
    async fn start() -> Self {
        let user = User::service_account("default", "robot");
        let stand_in = StandIn::builder().token(TOKEN, user).start().await;
        let stand_in = stand_in.expect("a stand-in");
        let agent = embedded::agent_for(&stand_in)
            .service_account_tokens(ServiceAccountTokens::PassThrough)
            .build()
            .expect("an agent");
        let auth = Arc::new(BearerAuth::fixed(TOKEN).expect("a token"));
        let path = Embedded::with(agent.clone(), auth).await;
        Self {
            stand_in,
            agent,
            path,
        }
    }

    fn http1(&self) -> EndpointHttp1<'_> {
        EndpointHttp1(self)
    }

    async fn http2(&self) -> EndpointHttp2<'_> {
        let io = TokioIo::new(self.connect(Alpn::Http2).await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io)
            .await
            .expect("HTTP/2");
        tokio::spawn(connection);
        EndpointHttp2(self, sender)
    }

    async fn connect(&self, alpn: Alpn) -> arc_cluster_connect::net::NetStream {
        let endpoint = self.path.endpoint();
        let server: Uri = endpoint.server().parse().expect("a URL");
        let address = Endpoint::new(
            server.host().expect("a host"),
            server.port_u16().expect("a port"),
            Security::Tls,
        );
        let roots = TrustRoots::only_pem(endpoint.certificate_authority_pem().as_bytes());
        Connector::new(roots.expect("a certificate"))
            .expect("usable")
            .connect(&address, alpn)
            .await
            .expect("the endpoint is there")
    }

    fn endpoint_request(&self, method: Method, path: &str, body: &str) -> Request<Full<Bytes>> {
        let endpoint = self.path.endpoint();
        let base = endpoint.server().trim_end_matches('/');
        request(method, format!("{base}{path}"), endpoint.secret(), body)
    }

    /// Nobody holds anything for watches that were dropped.
    async fn stays_empty_after(&self, watches: Vec<Response<Incoming>>) {
        drop(watches);
        timeout(AT_ONCE, self.agent.idle())
            .await
            .expect("the agent has no request any more");
        settled(|| self.stand_in.live_requests() == 0).await;
        settled(|| self.path.tunnel().status().live_streams == 0).await;
    }
}

/// One way to the API server.
trait Way: Sync {
    fn ask(
        &self,
        method: Method,
        path: &str,
        body: &str,
    ) -> impl Future<Output = Response<Incoming>> + Send;

    fn get(&self, path: &str) -> impl Future<Output = Response<Incoming>> + Send {
        self.ask(Method::GET, path, "")
    }
}

/// A program that has the tunnel itself.
struct Direct(Client<TunnelConnector, Full<Bytes>>);

impl Way for Direct {
    async fn ask(&self, method: Method, path: &str, body: &str) -> Response<Incoming> {
        let request = request(method, format!("http://kubernetes{path}"), TOKEN, body);
        let answer = timeout(AT_ONCE, self.0.request(request)).await;
        answer.expect("in time").expect("an answer")
    }
}

/// A connection for each request, as a client without HTTP/2 needs them for watches.
struct EndpointHttp1<'a>(&'a Bed);

impl Way for EndpointHttp1<'_> {
    async fn ask(&self, method: Method, path: &str, body: &str) -> Response<Incoming> {
        let io = TokioIo::new(self.0.connect(Alpn::Http1).await);
        let (mut sender, connection) = http1::handshake(io).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        let request = self.0.endpoint_request(method, path, body);
        let answer = timeout(AT_ONCE, sender.send_request(request)).await;
        answer.expect("in time").expect("an answer")
    }
}

struct EndpointHttp2<'a>(&'a Bed, http2::SendRequest<Full<Bytes>>);

impl Way for EndpointHttp2<'_> {
    async fn ask(&self, method: Method, path: &str, body: &str) -> Response<Incoming> {
        let mut sender = self.1.clone();
        poll_fn(|cx| sender.poll_ready(cx)).await.expect("open");
        let request = self.0.endpoint_request(method, path, body);
        let answer = timeout(AT_ONCE, sender.send_request(request)).await;
        answer.expect("in time").expect("an answer")
    }
}

fn request(method: Method, uri: String, token: &str, body: &str) -> Request<Full<Bytes>> {
    let host = uri.parse::<Uri>().expect("a URL");
    Request::builder()
        .method(method)
        .header(header::HOST, host.authority().expect("a host").as_str())
        .uri(uri)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_owned())))
        .expect("well-formed")
}

/// The path of a watch for whatever happens from now on.
async fn watch_path(way: &impl Way) -> String {
    let list = way.get(MAPS).await.into_body();
    let list = list.collect().await.expect("whole").to_bytes();
    let list: serde_json::Value = serde_json::from_slice(&list).expect("a list");
    let version = list["metadata"]["resourceVersion"].as_str();
    format!(
        "{MAPS}?watch=true&resourceVersion={}",
        version.expect("a version")
    )
}

async fn open_all(way: &impl Way, watch: &str, count: usize) -> Vec<Response<Incoming>> {
    let watches = join_all((0..count).map(|_| way.get(watch))).await;
    for watch in &watches {
        assert_eq!(watch.status(), StatusCode::OK);
    }
    watches
}

/// Makes something happen.
async fn announce(way: &impl Way) {
    let created = way
        .ask(Method::POST, MAPS, r#"{"metadata": {"name": "seen"}}"#)
        .await;
    assert_eq!(created.status(), StatusCode::CREATED);
    created.into_body().collect().await.expect("whole");
}

/// Each of them hears of it.
async fn see_all(watches: &mut [Response<Incoming>]) {
    for watch in watches {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let piece = timeout(AT_ONCE, watch.body_mut().frame()).await;
            let piece = piece.expect("in time").expect("an event").expect("whole");
            line.extend_from_slice(piece.data_ref().expect("data"));
        }
        let text = String::from_utf8_lossy(&line);
        assert!(text.contains("ADDED") && text.contains("seen"), "{text}");
    }
}

/// Waits for what comes by itself.
async fn settled(holds: impl Fn() -> bool) {
    timeout(AT_ONCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it comes to rest");
}

/// Both ends of a thousand connections are in this process, and a shell commonly gives it 1024 descriptors.
fn raise_descriptors() -> bool {
    const NEEDED: u64 = 4_096;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= NEEDED) {
        return true;
    }
    let wider = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let enough = limit.maximum.is_none_or(|maximum| maximum >= NEEDED)
        && setrlimit(Resource::Nofile, wider).is_ok();
    if !enough {
        assert!(std::env::var("CI").is_err(), "too few descriptors");
        eprintln!("skipped: this process may not have {NEEDED} descriptors");
    }
    enough
}
