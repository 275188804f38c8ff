//! Whoever sends bytes that two hops could read differently, or more of them than any client needs, gets an error and
//! takes nobody along. Raw bytes to the proxy's TLS port and on streams of the tunnel to the agent (R17, R18).
//!
//! Two things decide every case: the API server never sees a request that a hop did not mean to send, and the next
//! honest client is served.

mod support;

#[path = "smuggling/corpus.rs"]
mod corpus;
#[path = "smuggling/floods.rs"]
mod floods;
#[path = "smuggling/hpack.rs"]
mod hpack;

use std::time::Duration;

use arc_cluster_connect::net::{Alpn, Connector, Endpoint, NetStream, Security, TrustRoots};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use corpus::{Attack, Outcome};
use support::{
    api_server::{StandIn, User},
    embedded::Embedded,
};

const TOKEN: &str = "token-of-the-smuggling-run";
/// What every forged request asks for. No hop may ever ask the API server for it.
const FORGED: &str = "/forged-000";
/// How long the end of an answer may take: an endpoint that waits for more of a request is cut off here.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

struct Bed {
    stand_in: StandIn,
    path: Embedded,
}

impl Bed {
    async fn start() -> Self {
        let stand_in = StandIn::builder()
            .token(TOKEN, User::service_account("default", "admin-user"))
            .pod("default", "web-0")
            .big_namespace_pods(1)
            .start()
            .await
            .expect("the stand-in starts");
        let path = Embedded::start(&stand_in, TOKEN).await;
        Self { stand_in, path }
    }

    /// A connection to the proxy.
    async fn proxy(&self, alpn: Alpn) -> NetStream {
        let endpoint = self.path.endpoint();
        let server: http::Uri = endpoint.server().parse().expect("a URL");
        let port = server.port_u16().expect("a port");
        let pem = endpoint.certificate_authority_pem().as_bytes();
        Connector::new(TrustRoots::only_pem(pem).expect("a certificate"))
            .expect("the roots are usable")
            .connect(&Endpoint::new("127.0.0.1", port, Security::Tls), alpn)
            .await
            .expect("the proxy is there")
    }

    /// Host and path of a request to the proxy, and what proves who asks.
    fn proxy_address(&self) -> (String, String, String) {
        let endpoint = self.path.endpoint();
        let server: http::Uri = endpoint.server().parse().expect("a URL");
        (
            server.authority().expect("a host").to_string(),
            server.path().trim_end_matches('/').to_owned(),
            endpoint.secret().to_owned(),
        )
    }

    /// An honest request by either way is served.
    async fn still_serves(&self, after: &str) {
        let (host, base, secret) = self.proxy_address();
        let honest = |host: &str, base: &str, secret: &str| {
            format!(
                "GET {base}/version HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {secret}\r\nConnection: close\r\n\r\n"
            )
        };
        let mut stream = self.proxy(Alpn::Http1).await;
        let answer = exchange(&mut stream, honest(&host, &base, &secret).as_bytes()).await;
        assert_eq!(codes(&answer), [200], "the proxy after {after}");
        let mut stream = self.path.stream().await;
        let answer = exchange(&mut stream, honest("kubernetes", "", TOKEN).as_bytes()).await;
        assert_eq!(codes(&answer), [200], "the agent after {after}");
    }

    fn assert_nothing_forged(&self, after: &str) {
        self.assert_not_asked_for(FORGED, after);
    }

    fn assert_not_asked_for(&self, path: &str, after: &str) {
        let forged = self
            .stand_in
            .requests()
            .into_iter()
            .find(|request| request.path_and_query.contains(path));
        assert!(forged.is_none(), "{after}: {forged:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_the_agent_refuses_what_two_hops_could_read_differently() {
    let bed = Bed::start().await;
    let corpus = corpus::all("kubernetes", "", TOKEN);
    let rounds = corpus.iter().map(|attack| async {
        let mut stream = bed.path.stream().await;
        let answer = exchange(&mut stream, &attack.bytes).await;
        check("the agent", attack, attack.agent, &answer);
        bed.assert_not_asked_for(&attack.forged, attack.name);
    });
    futures_util::future::join_all(rounds).await;
    bed.still_serves("the corpus").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_the_proxy_refuses_what_two_hops_could_read_differently() {
    let bed = Bed::start().await;
    let (host, base, secret) = bed.proxy_address();
    let corpus = corpus::all(&host, &base, &secret);
    let rounds = corpus.iter().map(|attack| async {
        let mut stream = bed.proxy(Alpn::Http1).await;
        let answer = exchange(&mut stream, &attack.bytes).await;
        check("the proxy", attack, attack.proxy, &answer);
        bed.assert_not_asked_for(&attack.forged, attack.name);
    });
    futures_util::future::join_all(rounds).await;
    bed.still_serves("the corpus").await;
}

/// A stream to the agent carries one request: what follows it is nobody's request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_the_agent_answers_one_request_a_stream() {
    let bed = Bed::start().await;
    let first =
        format!("GET /version HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    let second =
        format!("GET {FORGED} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    let mut stream = bed.path.stream().await;
    let answer = exchange(&mut stream, [first, second].concat().as_bytes()).await;
    assert_eq!(codes(&answer), [200]);
    bed.assert_nothing_forged("a pipelined request");
}

/// The proxy's HTTP/1.1 is kept alive: pipelined requests are two requests, in order, each with its own proof.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_each_pipelined_request_to_the_proxy_proves_who_asks() {
    let bed = Bed::start().await;
    let (host, base, secret) = bed.proxy_address();
    let requests = format!(
        "GET {base}/version HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {secret}\r\n\r\n\
         GET {base}{FORGED} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    );
    let mut stream = bed.proxy(Alpn::Http1).await;
    let answer = exchange(&mut stream, requests.as_bytes()).await;
    assert_eq!(codes(&answer), [200, 401], "{answer}");
    bed.assert_nothing_forged("a pipelined request");
}

/// R11: a refused upgrade is the last answer of its stream; nothing behind it is looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_nothing_follows_a_refused_upgrade() {
    use support::api_server::{ECHO_PATH, UpgradeAnswer};

    let bed = Bed::start().await;
    let (host, base, secret) = bed.proxy_address();
    for (refusal, expected) in [
        (UpgradeAnswer::Forbidden, 403),
        (UpgradeAnswer::InternalError, 500),
        (UpgradeAnswer::Ok, 502),
        (UpgradeAnswer::Redirect, 502),
    ] {
        bed.stand_in.faults().set_upgrade_answer(Some(refusal));
        let attack = |host: &str, base: &str, secret: &str| {
            format!(
                "GET {base}{ECHO_PATH} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {secret}\r\n\
                 Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n\
                 GET {base}{FORGED} HTTP/1.1\r\nHost: {host}\r\n\r\n"
            )
        };
        let mut stream = bed.path.stream().await;
        let answer = exchange(&mut stream, attack("kubernetes", "", TOKEN).as_bytes()).await;
        assert_eq!(
            codes(&answer),
            [expected],
            "the agent, {refusal:?}: {answer}"
        );
        let mut stream = bed.proxy(Alpn::Http1).await;
        let answer = exchange(&mut stream, attack(&host, &base, &secret).as_bytes()).await;
        assert_eq!(
            codes(&answer).first(),
            Some(&expected),
            "the proxy, {refusal:?}: {answer}"
        );
        bed.assert_nothing_forged("a refused upgrade");
    }
}

/// Heads that come a byte at a time hold a place and nothing more: others are served meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_slow_heads_leave_room_for_others() {
    const SLOW: usize = 100;
    let bed = Bed::start().await;
    let mut held = Vec::new();
    for _ in 0..SLOW {
        let mut stream = bed.path.stream().await;
        stream
            .write_all(b"GET /version HTTP/1.1\r\nX: ")
            .await
            .expect("the agent reads");
        held.push(stream);
    }
    let mut slow_proxies = Vec::new();
    for _ in 0..SLOW {
        let mut stream = bed.proxy(Alpn::Http1).await;
        stream
            .write_all(b"GET /version HTTP/1.1\r\nX: ")
            .await
            .expect("the proxy reads");
        slow_proxies.push(stream);
    }
    for stream in &mut held {
        stream.write_all(b"a").await.expect("the agent still reads");
    }
    bed.still_serves("slow heads").await;
}

fn check(hop: &str, attack: &Attack, expected: Outcome, answer: &str) {
    let codes = codes(answer);
    let fits = match expected {
        Outcome::Refused => codes.len() <= 1 && codes.iter().all(|code| (400..=505).contains(code)),
        Outcome::One => codes.len() == 1 && codes[0] < 500,
    };
    assert!(
        fits,
        "{hop}, {}: expected {expected:?}, got {codes:?}: {answer}",
        attack.name
    );
}

/// Sends, and reads until the other side has nothing more to say.
async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) -> String {
    let mut answer = Vec::new();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let send = async {
        // The other side may have heard enough before all of it is sent.
        let _ = writer.write_all(bytes).await;
        let _ = writer.flush().await;
    };
    let receive = timeout(ANSWER_LIMIT, reader.read_to_end(&mut answer));
    // Neither the limit nor a reset takes back what was said before.
    let _ = tokio::join!(timeout(ANSWER_LIMIT, send), receive);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status codes of all answers in there.
fn codes(answer: &str) -> Vec<u16> {
    answer
        .split("HTTP/1.1 ")
        .skip(1)
        .filter_map(|rest| rest.get(..3)?.parse().ok())
        .collect()
}
