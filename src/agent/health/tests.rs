use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::agent::test_bed::{Bed, unreachable_agent};

fn ask(agent: &Agent, method: Method, target: &str) -> Response<Full<Bytes>> {
    let request = Request::builder()
        .method(method)
        .uri(target)
        .body(())
        .expect("a request");
    answer(&agent.core, &request)
}

async fn body(response: Response<Full<Bytes>>) -> (StatusCode, String) {
    use http_body_util::BodyExt;

    let status = response.status();
    let bytes = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    (status, String::from_utf8(bytes.to_vec()).expect("text"))
}

#[tokio::test]
async fn nothing_but_three_paths_and_two_methods_is_served() {
    let bed = Bed::new();
    for target in [
        "/",
        "/debug/pprof/",
        "/healthz",
        "/metrics/",
        "//metrics",
        "/livez/x",
        "/readyz/api-server",
        "/METRICS",
        "/%6detrics",
        "/livez/../metrics",
        "*",
    ] {
        for method in [Method::GET, Method::POST, Method::OPTIONS] {
            assert_eq!(ask(&bed.agent, method, target).status(), 404, "{target}");
        }
    }
    for target in ["/livez", "/readyz", "/metrics"] {
        for method in [
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::OPTIONS,
            Method::TRACE,
        ] {
            let response = ask(&bed.agent, method, target);
            assert_eq!(response.status(), 405, "{target}");
            assert_eq!(response.headers()[header::ALLOW], "GET, HEAD");
        }
        assert_ne!(ask(&bed.agent, Method::HEAD, target).status(), 405);
    }
}

#[tokio::test]
async fn readyz_says_why_not() {
    let bed = Bed::new();
    let (status, text) = body(ask(&bed.agent, Method::GET, "/readyz")).await;
    assert_eq!(status, 503);
    assert_eq!(
        text,
        "[-]tunnels failed: the agent serves no relay and no socket\n\
         [-]api-server failed: not checked yet\n\
         [+]shutdown ok\nreadyz check failed\n"
    );
    let readiness = &bed.agent.core.readiness;
    readiness.set_api_server(Ok(()));
    let serving = readiness.socket("127.0.0.1:1".to_owned());
    let (status, text) = body(ask(&bed.agent, Method::GET, "/readyz")).await;
    assert_eq!((status.as_u16(), text.as_str()), (200, "ok\n"));
    for query in ["verbose", "a=b&verbose=1"] {
        let (status, text) = body(ask(&bed.agent, Method::GET, &format!("/readyz?{query}"))).await;
        assert_eq!(status, 200);
        assert!(
            text.ends_with("[+]shutdown ok\nreadyz check passed\n"),
            "{text}"
        );
    }
    serving.set_draining();
    assert_eq!(ask(&bed.agent, Method::GET, "/readyz").status(), 503);
    assert_eq!(ask(&bed.agent, Method::GET, "/livez").status(), 200);
}

#[tokio::test(start_paused = true)]
async fn the_api_server_is_checked_from_time_to_time() {
    let bed = Bed::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let agent = bed.agent.clone();
    let serving =
        tokio::spawn(async move { agent.serve_health(listener, std::future::pending()).await });
    sleep(CHECK_INTERVAL * 10 + CHECK_INTERVAL / 2).await;
    assert_eq!(bed.api.dialled(), 11);
    serving.abort();

    let agent = unreachable_agent(ErrorKind::Network);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let served = agent.clone();
    let serving =
        tokio::spawn(async move { served.serve_health(listener, std::future::pending()).await });
    sleep(Duration::from_millis(1)).await;
    let (_, text) = body(ask(&agent, Method::GET, "/readyz")).await;
    assert!(
        text.contains("[-]api-server failed: the API server at api.example:6443 can not be used: can not connect"),
        "{text}"
    );
    serving.abort();
}

#[tokio::test]
async fn a_socket_serves_health_until_told_to_stop() {
    let bed = Bed::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let serving = {
        let (agent, stop) = (bed.agent.clone(), stop.clone());
        tokio::spawn(async move { agent.serve_health(listener, stop.cancelled_owned()).await })
    };
    let ask = async |request: &str| {
        let mut tcp = TcpStream::connect(address).await.expect("accepted");
        tcp.write_all(request.as_bytes()).await.expect("open");
        let mut text = String::new();
        let _ = tcp.read_to_string(&mut text).await;
        text
    };
    let text = ask("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nok\n"),
        "{text}"
    );
    let text = ask("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n"),
        "{text}"
    );
    let many = "x: y\r\n".repeat(MAX_FIELDS + 1);
    let text = ask(&format!("GET /livez HTTP/1.1\r\nHost: x\r\n{many}\r\n")).await;
    assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    let long = "y".repeat(MAX_HEAD);
    let text = ask(&format!(
        "GET /livez HTTP/1.1\r\nHost: x\r\nx: {long}\r\n\r\n"
    ))
    .await;
    assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    stop.cancel();
    serving.await.expect("no panic").expect("served");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed() {
    let bed = Bed::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("an address");
    let agent = bed.agent.clone();
    let serving =
        tokio::spawn(async move { agent.serve_health(listener, std::future::pending()).await });
    let mut idle = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        idle.push(TcpStream::connect(address).await.expect("accepted"));
    }
    let mut refused = TcpStream::connect(address).await.expect("accepted");
    let _ = refused
        .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    let mut text = Vec::new();
    let _ = refused.read_to_end(&mut text).await;
    assert_eq!(text, b"");
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed() {
    let bed = Bed::new();
    let (near, mut far) = loopback().await;
    let core = Arc::clone(&bed.agent.core);
    let start = Instant::now();
    serve(core, near).await;
    assert_eq!(start.elapsed(), CONNECTION_LIMIT);
    assert_eq!(far.read(&mut [0]).await.expect("closed"), 0);
}

async fn loopback() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("an address");
    let (near, far) = tokio::join!(listener.accept(), TcpStream::connect(address));
    (near.expect("accepted").0, far.expect("connected"))
}
