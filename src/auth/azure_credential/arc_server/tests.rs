//! Against a stand-in for the agent's endpoint, over plain HTTP on loopback.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::net::{Connector, TrustRoots};

const TOKEN: &str = r#"{"access_token":"token-of-the-machine","expires_on":"4000000000"}"#;

/// Gives `challenge` to whoever brings no answer, and a token to whoever brings this one.
async fn endpoint(
    challenge: String,
    wanted: &'static str,
) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let (asked, questions) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut request = vec![0; 64 * 1024];
            let length = tcp.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let (status, header, body) = if request.contains(&format!("Basic {wanted}\r\n")) {
                ("200 OK", "x: y".to_owned(), TOKEN)
            } else {
                let header = format!("WWW-Authenticate: {challenge}");
                ("401 Unauthorized", header, "")
            };
            let _ = asked.send(request);
            let answer = format!(
                "HTTP/1.1 {status}\r\n{header}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = tcp.write_all(answer.as_bytes()).await;
            let _ = tcp.shutdown().await;
        }
    });
    (url, questions)
}

fn flow(endpoint: String, challenges: &Path) -> ArcServer {
    let connector = Connector::new(TrustRoots::platform()).unwrap();
    let settings = CredentialSettings::new(connector);
    ArcServer::new(&settings, endpoint, challenges.to_owned())
}

#[tokio::test]
async fn the_challenge_is_answered_with_the_files_content() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.key");
    std::fs::write(&file, "content").unwrap();
    let challenge = format!("Basic realm={}", file.display());
    let (url, mut questions) = endpoint(challenge, "content").await;
    let grant = Grant::bearer("https://management.azure.com/.default");
    let token = flow(url, directory.path()).token(&grant).await.unwrap();
    assert_eq!(token.secret(), "token-of-the-machine");
    let end = token.expires_at().unwrap().duration_since(UNIX_EPOCH);
    assert_eq!(end.unwrap().as_secs(), 4_000_000_000);
    let question = questions.recv().await.unwrap();
    assert!(
        question.contains("resource=https%3A%2F%2Fmanagement.azure.com "),
        "{question}"
    );
    assert!(question.contains("metadata: true\r\n"));
    assert!(!question.contains("Basic"));
}

#[tokio::test]
async fn no_other_file_is_ever_sent() {
    let elsewhere = tempfile::tempdir().unwrap();
    let secret = elsewhere.path().join("secret.key");
    std::fs::write(&secret, "hush").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().display();
    std::fs::write(directory.path().join("a.txt"), "hush").unwrap();
    std::fs::create_dir(directory.path().join("sub")).unwrap();
    std::fs::write(directory.path().join("sub/a.key"), "hush").unwrap();
    std::fs::write(directory.path().join("big.key"), "x".repeat(4097)).unwrap();
    for challenge in [
        format!("Basic realm={}", secret.display()),
        format!("Basic realm={own}/../secret.key"),
        format!("Basic realm={own}/a.txt"),
        format!("Basic realm={own}/sub/a.key"),
        format!("Basic realm={own}/big.key"),
        format!("Basic realm={own}/missing.key"),
        format!("Bearer realm={own}/a.key"),
        "Basic".to_owned(),
        "Basic realm=".to_owned(),
    ] {
        let (url, mut questions) = endpoint(challenge.clone(), "hush").await;
        let outcome = flow(url, directory.path()).token(&Grant::bearer("x")).await;
        let error = outcome.expect_err(&challenge);
        assert!(
            matches!(error.kind(), ErrorKind::Protocol | ErrorKind::File),
            "{challenge}: {error:?}"
        );
        assert!(!questions.recv().await.unwrap().contains("Basic"));
        assert!(questions.try_recv().is_err(), "{challenge}");
    }
}

#[tokio::test]
async fn a_refusal_after_the_answer_is_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.key");
    std::fs::write(&file, "stale").unwrap();
    let challenge = format!("Basic realm={}", file.display());
    let (url, _questions) = endpoint(challenge, "content").await;
    let outcome = flow(url, directory.path()).token(&Grant::bearer("x")).await;
    let error = outcome.expect_err("refused");
    assert_eq!(error.status(), Some(401));
    assert!(error.help().unwrap().contains("azcmagent"));
}

#[test]
fn the_environment_says_whether_this_is_an_arc_server() {
    let connector = Connector::new(TrustRoots::platform()).unwrap();
    let of = |variables: &[(&str, &str)], identity: &ManagedIdentity| {
        let settings = CredentialSettings::new(connector.clone()).with_environment(variables);
        on_this_machine(&settings, identity)
    };
    let endpoint = ("IDENTITY_ENDPOINT", "http://localhost:40342/x");
    let imds = ("IMDS_ENDPOINT", "http://localhost:40342");
    let own = ManagedIdentity::SystemAssigned;
    assert!(of(&[endpoint, imds], &own).unwrap().is_some());
    // App Service, and nothing at all.
    let app_service = [endpoint, ("IDENTITY_HEADER", "hush"), imds];
    assert!(of(&app_service, &own).unwrap().is_none());
    assert!(of(&[endpoint], &own).unwrap().is_none());
    let other = ManagedIdentity::ObjectId("x".to_owned());
    assert!(of(&[endpoint, imds], &other).is_err());
}
