//! What a client reads when something does not work.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use http::{Response, StatusCode};
use tokio::io::AsyncWriteExt;

use super::{
    fakes::{FakeAuth, FakeTunnel, TOKEN},
    support::{BOTH_VERSIONS, Bed, ClientVersion, empty, ok, read_until, status_of, text},
};
use crate::{
    Error, ErrorKind,
    auth::{AccessToken, Freshness},
};

async fn answer_of(bed: &Bed, version: ClientVersion) -> (StatusCode, String, String) {
    let mut client = bed.client(version).await;
    let request = bed.request("GET", "/api").body(empty()).expect("a request");
    status_of(client.send(request).await.expect("an answer")).await
}

#[tokio::test]
async fn no_agent_is_a_503_that_says_what_to_do() {
    let tunnel = FakeTunnel::failing(|| {
        Error::new(
            ErrorKind::NotFound,
            "relay.example has no listener for edge",
        )
        .with_status(404)
    });
    let bed = Bed::with(tunnel, FakeAuth::fixed(), |proxy| proxy).await;
    for version in BOTH_VERSIONS {
        let (code, reason, message) = answer_of(&bed, version).await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(reason, "ServiceUnavailable");
        assert!(message.starts_with("no agent is connected"), "{message}");
        assert!(
            message.contains("relay.example has no listener for edge"),
            "{message}"
        );
        assert!(message.contains("check that the agent"), "{message}");
    }
}

#[tokio::test]
async fn no_token_is_a_401_and_opens_no_stream() {
    let auth = FakeAuth::new(|_| {
        Err(Error::new(ErrorKind::Unauthorized, "the login has expired")
            .with_help("run `az login`"))
    });
    let bed = Bed::with(FakeTunnel::raw(), auth, |proxy| proxy).await;
    let (code, reason, message) = answer_of(&bed, ClientVersion::Http2).await;
    assert_eq!(
        (code, reason.as_str()),
        (StatusCode::UNAUTHORIZED, "Unauthorized")
    );
    assert!(
        message.ends_with("the login has expired; run `az login`"),
        "{message}"
    );
    assert_eq!(bed.tunnel.opened(), 0);
}

#[tokio::test]
async fn no_new_token_after_a_refusal_is_a_401_that_says_why() {
    let tunnel = FakeTunnel::serving(|_| async {
        let mut response = ok("refused");
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        response
    });
    let auth = FakeAuth::new(|freshness| match freshness {
        Freshness::Cached => Ok(AccessToken::new("stale", None)),
        Freshness::Fresh => Err(Error::new(ErrorKind::Unauthorized, "the login has expired")),
    });
    let bed = Bed::with(tunnel, auth, |proxy| proxy).await;
    let (code, _, message) = answer_of(&bed, ClientVersion::Http1).await;
    assert_eq!(code, StatusCode::UNAUTHORIZED);
    assert!(message.contains("the login has expired"), "{message}");
}

#[tokio::test]
async fn a_token_that_is_none_is_refused_without_being_shown() {
    let auth = FakeAuth::new(|_| Ok(AccessToken::new("two\r\nlines", None)));
    let bed = Bed::with(FakeTunnel::raw(), auth, |proxy| proxy).await;
    let (code, _, message) = answer_of(&bed, ClientVersion::Http1).await;
    assert_eq!(code, StatusCode::UNAUTHORIZED);
    assert!(!message.contains("lines"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_does_not_open_is_a_504() {
    let bed = Bed::with(FakeTunnel::hanging(), FakeAuth::fixed(), |proxy| proxy).await;
    let (code, reason, message) = answer_of(&bed, ClientVersion::Http2).await;
    assert_eq!(
        (code, reason.as_str()),
        (StatusCode::GATEWAY_TIMEOUT, "Timeout")
    );
    assert!(message.contains("30 seconds"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_does_not_come_is_a_504() {
    let bed = Bed::with(FakeTunnel::raw(), FakeAuth::hanging(), |proxy| proxy).await;
    let (code, _, message) = answer_of(&bed, ClientVersion::Http2).await;
    assert_eq!(code, StatusCode::GATEWAY_TIMEOUT);
    assert!(message.contains("no token for you within 30"), "{message}");
    assert_eq!(bed.tunnel.opened(), 0);
}

#[tokio::test]
async fn an_agent_that_breaks_before_it_answers_is_a_502() {
    for before in ["", "HTTP/1.1 2", "nonsense\r\n\r\n"] {
        let bed = Bed::with(FakeTunnel::raw(), FakeAuth::fixed(), |proxy| proxy).await;
        let agent = async {
            let mut agent = bed.tunnel.raw_stream().await;
            read_until(&mut agent, "\r\n\r\n").await;
            agent.write_all(before.as_bytes()).await.expect("written");
        };
        let (answer, ()) = tokio::join!(answer_of(&bed, ClientVersion::Http2), agent);
        let (code, reason, message) = answer;
        assert_eq!(
            (code, reason.as_str()),
            (StatusCode::BAD_GATEWAY, "BadGateway")
        );
        assert!(
            message.starts_with("the agent beside the cluster gave no answer"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn the_agents_own_refusals_pass_untouched() {
    let bed = Bed::start(|_| async {
        Response::builder()
            .status(StatusCode::FORBIDDEN)
            .header("content-type", "application/json")
            .header("warning", "299 - \"soon\"")
            .body(super::support::body("{\"kind\":\"Status\"}"))
            .expect("a response")
    })
    .await;
    let mut client = bed.client(ClientVersion::Http2).await;
    let request = bed.request("GET", "/api").body(empty()).expect("a request");
    let response = client.send(request).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(response.headers()["warning"], "299 - \"soon\"");
    assert_eq!(text(response.into_body()).await, "{\"kind\":\"Status\"}");
}

#[tokio::test]
async fn connect_is_refused() {
    let bed = Bed::start(|_| async { ok("pods") }).await;
    let mut stream = bed.connect(crate::net::Alpn::Http1).await;
    let answer = super::support::raw_exchange(
        &mut stream,
        &format!(
            "CONNECT 127.0.0.1:{0} HTTP/1.1\r\nHost: 127.0.0.1:{0}\r\nAuthorization: Bearer {1}\r\nConnection: \
             close\r\n\r\n",
            bed.port(),
            bed.endpoint().secret()
        ),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 40"), "{answer}");
    assert_eq!(bed.tunnel.opened(), 0);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .expect("not poisoned")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_in_any_log_or_status() {
    // With one subscriber alone, tracing decides once for all by whichever thread meets an event first, and other
    // tests' threads have none.
    let _second = tracing::Dispatch::new(
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(std::io::sink)
            .finish(),
    );
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);

    let mut statuses = String::new();
    let good = Bed::start(|_| async { ok("pods") }).await;
    let bad = Bed::with(
        FakeTunnel::failing(|| Error::new(ErrorKind::Network, "lost")),
        FakeAuth::fixed(),
        |proxy| proxy,
    )
    .await;
    let mut secrets = vec![TOKEN.to_owned()];
    for bed in [&good, &bad] {
        secrets.push(bed.endpoint().secret().to_owned());
        for version in BOTH_VERSIONS {
            let mut client = bed.client(version).await;
            for request in [
                bed.request("GET", "/api?access_token=query-secret"),
                bed.request("GET", "/api")
                    .header("origin", "https://evil.example"),
                bed.request("GET", "/api")
                    .header("authorization", format!("Bearer {TOKEN}")),
            ] {
                let request = request.body(empty()).expect("a request");
                let response = client.send(request).await.expect("an answer");
                statuses.push_str(&format!("{:?}", response.headers()));
                statuses.push_str(&text(response.into_body()).await);
            }
        }
    }
    let log = String::from_utf8(log.0.lock().expect("not poisoned").clone()).expect("text");
    let own: String = log
        .lines()
        .filter(|line| line.contains("arc_cluster_connect"))
        .collect();
    assert!(own.contains("proxy.request"), "the log was captured");
    assert!(!own.contains("query-secret"));
    for secret in secrets {
        assert!(!own.contains(&secret));
        assert!(!statuses.contains(&secret));
    }
}
