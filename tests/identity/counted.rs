//! What the health port tells of identities.

use arc_cluster_connect::agent::Agent;
use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    bed::{Bed, USER, USER_ID},
    support::authority::{Fault, SigningKey},
};

async fn metrics(agent: &Agent) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let agent = agent.clone();
    let serving =
        tokio::spawn(async move { agent.serve_health(listener, std::future::pending()).await });
    let mut port = TcpStream::connect(address).await.expect("it listens");
    port.write_all(b"GET /metrics HTTP/1.1\r\nHost: agent\r\n\r\n")
        .await
        .expect("it reads");
    let mut text = String::new();
    port.read_to_string(&mut text).await.expect("text");
    serving.abort();
    text
}

#[tokio::test]
async fn readings_of_keys_and_new_tokens_of_the_agent_are_counted() {
    let bed = Bed::start().await;
    let shows = async |lines: [&str; 4]| {
        let text = metrics(&bed.agent).await;
        for line in lines {
            assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
        }
    };
    // At its start the agent reads the cluster's front-proxy headers: its token is in use before the first caller.
    bed.front_proxy_headers_are_asked_for().await;
    shows([
        r#"acc_jwks_refresh_total{outcome="success"} 0"#,
        r#"acc_jwks_refresh_total{outcome="failure"} 0"#,
        r#"acc_token_refresh_total{outcome="success"} 1"#,
        r#"acc_token_refresh_total{outcome="failure"} 0"#,
    ])
    .await;
    for number in 0..3 {
        let token = bed.authority.user(USER, USER_ID).claim("n", number).sign();
        assert_eq!(bed.get(&token).await.status, StatusCode::OK);
    }
    bed.authority.set_fault(Some(Fault::Down));
    let unknown = bed.authority.user(USER, USER_ID);
    let unknown = unknown
        .with_key(SigningKey::rsa(2))
        .header("kid", "unknown");
    assert!(!bed.get(&unknown.sign()).await.status.is_success());
    shows([
        r#"acc_jwks_refresh_total{outcome="success"} 1"#,
        r#"acc_jwks_refresh_total{outcome="failure"} 1"#,
        r#"acc_token_refresh_total{outcome="success"} 1"#,
        r#"acc_token_refresh_total{outcome="failure"} 0"#,
    ])
    .await;
}
