//! Against scripted servers on loopback.

use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::net::{TlsAcceptor, TrustRoots};

/// Serves `answer` to each connection and gives back what was asked.
async fn server(
    answer: Vec<u8>,
) -> (
    HttpClient,
    String,
    tokio::sync::mpsc::UnboundedReceiver<String>,
) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let acceptor = TlsAcceptor::from_pem(
        certificate.pem().as_bytes(),
        key.serialize_pem().as_bytes(),
        Alpn::Http1,
    )
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://{}", listener.local_addr().unwrap());
    let (asked, questions) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(tcp).await else {
                continue;
            };
            let mut request = vec![0; 64 * 1024];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let _ = asked.send(String::from_utf8_lossy(&request[..length]).into_owned());
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        }
    });
    let roots = TrustRoots::only_pem(certificate.pem().as_bytes()).unwrap();
    (
        HttpClient::new(Connector::new(roots).unwrap()),
        base,
        questions,
    )
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[tokio::test]
async fn a_request_is_sent_and_its_answer_read() {
    let (client, base, mut questions) = server(answer("200 OK", r#"{"a":1}"#)).await;
    let request = HttpRequest::post_json(format!("{base}/p?q=1"), &serde_json::json!({"b": 2}))
        .with_bearer("hush")
        .unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(&response.body[..], br#"{"a":1}"#);
    let question = questions.recv().await.unwrap();
    assert!(
        question.starts_with("POST /p?q=1 HTTP/1.1\r\n"),
        "{question}"
    );
    assert!(question.contains("authorization: Bearer hush\r\n"));
    assert!(question.contains("content-type: application/json\r\n"));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let moved =
        b"HTTP/1.1 302 Found\r\nlocation: https://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let (client, base, _questions) = server(moved.to_vec()).await;
    let response = client.send(HttpRequest::get(base)).await.unwrap();
    assert_eq!(response.status, StatusCode::FOUND);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_and_at_the_limit_read() {
    let (client, base, _questions) = server(answer("200 OK", &"x".repeat(100))).await;
    let request = |limit| HttpRequest::get(format!("{base}/?secret=1")).with_max_body(limit);
    assert_eq!(client.send(request(100)).await.unwrap().body.len(), 100);
    let error = client.send(request(99)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::LimitReached);
    assert!(!error.report().contains("secret"), "{}", error.report());
}

#[tokio::test]
async fn a_truncated_answer_is_an_error() {
    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".to_vec();
    let (client, base, _questions) = server(cut).await;
    let error = client.send(HttpRequest::get(base)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Network);
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/x?secret=1", listener.local_addr().unwrap());
    let client = HttpClient::new(Connector::new(TrustRoots::platform()).unwrap());
    let request = HttpRequest::get(url).with_deadline(Duration::from_millis(50));
    let error = client.send(request).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(!error.report().contains("secret"));
}

#[tokio::test]
async fn headers_go_both_ways_and_a_form_is_encoded() {
    let limited = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\ncontent-length: 0\r\n\r\n";
    let (client, base, mut questions) = server(limited.to_vec()).await;
    let request = HttpRequest::post_form(base, &[("a", "1 2&3=é+"), ("b", "~x")]).with_header(
        http::HeaderName::from_static("client-request-id"),
        http::HeaderValue::from_static("id"),
    );
    let response = client.send(request).await.unwrap();
    assert_eq!(response.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers["retry-after"], "7");
    let question = questions.recv().await.unwrap();
    assert!(question.contains("client-request-id: id\r\n"));
    assert!(question.contains("content-type: application/x-www-form-urlencoded\r\n"));
    assert!(
        question.ends_with("\r\n\r\na=1%202%263%3D%C3%A9%2B&b=~x"),
        "{question}"
    );
}

#[tokio::test]
async fn plain_http_is_spoken_with_this_machine_where_the_request_allows_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        assert_ne!(tcp.read(&mut request).await.unwrap(), 0);
        tcp.write_all(&answer("200 OK", "plain")).await.unwrap();
    });
    let client = HttpClient::new(Connector::new(TrustRoots::platform()).unwrap());
    let error = client.send(HttpRequest::get(&url)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let request = HttpRequest::get(url).or_plain_on_this_machine();
    assert_eq!(&client.send(request).await.unwrap().body[..], b"plain");
}
