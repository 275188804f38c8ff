//! The agent against an API server behind real TLS.

use std::path::Path;

use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    agent::{
        Agent, ApiServer, ServiceAccountTokens,
        test_bed::{TOKEN, pipe, with_token},
    },
    kubeconfig::Kubeconfig,
    net::{Alpn, TlsAcceptor},
};

/// A certificate that only its own key vouches for, in the name that API servers have inside their cluster.
fn certificate() -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params =
        rcgen::CertificateParams::new(vec!["kubernetes.default".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

/// An agent for the API server at `port`, by way of a kubeconfig.
fn agent(port: u16, trusted_pem: &str, server_name: &str) -> Agent {
    let text = format!(
        "current-context: c\n\
         contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         users: [{{name: u, user: {{token: the-agents-own}}}}]\n\
         clusters: [{{name: k, cluster: {{server: 'https://127.0.0.1:{port}', \
         certificate-authority-data: {}{server_name}}}}}]\n",
        BASE64_STANDARD.encode(trusted_pem)
    );
    let kubeconfig = Kubeconfig::parse(&text).expect("a kubeconfig");
    let api_server = ApiServer::from_kubeconfig(&kubeconfig, None, Path::new("")).expect("usable");
    Agent::builder(api_server)
        .service_account_tokens(ServiceAccountTokens::PassThrough)
        .build()
        .expect("an agent")
}

#[tokio::test]
async fn a_kubeconfigs_trust_and_server_name_hold_and_its_token_is_not_used() {
    let (certificate, key) = certificate();
    let acceptor = TlsAcceptor::from_pem(certificate.as_bytes(), key.as_bytes(), Alpn::Http1)
        .expect("an acceptor");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    let api = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.expect("a connection");
        let mut tls = acceptor.accept(tcp).await.expect("a handshake");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tls.read_u8().await.expect("more"));
        }
        tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            .await
            .expect("open");
        (tls.alpn(), String::from_utf8(head).expect("text"))
    });
    let agent = agent(port, &certificate, ", tls-server-name: kubernetes.default");
    let (mut caller, near) = pipe();
    let serving = tokio::spawn(async move { agent.serve_stream(near).await });
    caller.send(with_token("GET /version HTTP/1.1")).await;
    let (text, _) = caller.rest().await;
    assert!(text.ends_with("\r\n\r\n{}"), "{text}");
    let (alpn, head) = api.await.expect("no panic");
    assert_eq!(alpn, Some(Alpn::Http1));
    assert!(
        head.contains(&format!("\r\nauthorization: {TOKEN}\r\n")),
        "{head}"
    );
    assert!(!head.contains("the-agents-own"), "{head}");
    serving.await.expect("no panic");
}

#[tokio::test]
async fn an_api_server_that_nobody_vouches_for_is_a_502() {
    let (certificate_shown, key) = certificate();
    let (certificate_trusted, _) = certificate();
    for (trusted, server_name) in [
        // Another authority.
        (
            &certificate_trusted,
            ", tls-server-name: kubernetes.default",
        ),
        // The right one, but the certificate has no name of the address that was dialled.
        (&certificate_shown, ""),
    ] {
        let acceptor =
            TlsAcceptor::from_pem(certificate_shown.as_bytes(), key.as_bytes(), Alpn::Http1)
                .expect("an acceptor");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        let api = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.expect("a connection");
            acceptor.accept(tcp).await.map(|_| ())
        });
        let agent = agent(port, trusted, server_name);
        let (mut caller, near) = pipe();
        let serving = tokio::spawn(async move { agent.serve_stream(near).await });
        caller.send(with_token("GET /version HTTP/1.1")).await;
        let (code, status) = caller.status().await;
        assert_eq!(code, 502);
        let message = status["message"].as_str().expect("a message");
        assert!(message.contains("certificate"), "{message}");
        assert!(message.contains(&port.to_string()), "{message}");
        serving.await.expect("no panic");
        assert!(api.await.expect("no panic").is_err());
    }
}
