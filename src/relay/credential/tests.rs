use azure_core::{
    credentials::{AccessToken, TokenRequestOptions},
    time::OffsetDateTime,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    net::{Endpoint, Security},
    relay::{RelayListener, RelaySender, tests::connector},
};

/// Gives numbered tokens, and counts them.
#[derive(Debug, Default)]
struct Numbered(std::sync::atomic::AtomicU32);

#[async_trait]
impl TokenCredential for Numbered {
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        assert_eq!(scopes, ["https://relay.azure.net/.default"]);
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        let end = OffsetDateTime::now_utc() + Duration::from_secs(3_600);
        Ok(AccessToken::new(format!("jwt.number.{number}"), end))
    }
}

#[tokio::test]
async fn a_token_of_entra_is_bare_and_serves_every_dial() {
    let credential = RelayCredential::entra(Arc::new(Numbered::default()));
    let grant = async || {
        let now = SystemTime::now();
        credential.grant(&hybrid_connection(), now).await.unwrap()
    };
    let first = grant().await;
    assert_eq!(first.hybrid_connection(), &hybrid_connection());
    assert_eq!(first.token().secret(), "jwt.number.0");
    assert!(first.token().expires_at() > Some(SystemTime::now()));
    assert_eq!(grant().await.token().secret(), "jwt.number.0");
    assert!(!format!("{credential:?} {first:?}").contains("jwt"));
    assert_eq!(credential.refused(&first), Renewable::Yes);
    // A token that is this young is not fetched again: a relay that refuses everything must not make us ask
    // Entra ID at each dial. What is asked for is a fresh one all the same.
    assert_eq!(grant().await.token().secret(), "jwt.number.0");
}

#[derive(Debug)]
struct LoggedOut;

#[async_trait]
impl TokenCredential for LoggedOut {
    async fn get_token(
        &self,
        _scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let kind = azure_core::error::ErrorKind::Credential;
        Err(azure_core::Error::with_message(kind, "AADSTS700082: hush"))
    }
}

#[tokio::test]
async fn an_identity_that_gets_no_token_says_for_what_and_why() {
    let credential = RelayCredential::entra(Arc::new(LoggedOut));
    let error = credential
        .grant(&hybrid_connection(), SystemTime::now())
        .await
        .unwrap_err();
    assert!(error.is_unauthorized());
    let report = error.report();
    assert!(report.contains("for the relay") && report.contains("AADSTS700082"));
    assert!(!report.contains("hush"));
    assert!(error.help().is_some());
}

fn hybrid_connection() -> HybridConnection {
    let endpoint = Endpoint::new("contoso.servicebus.windows.net", 443, Security::Tls);
    HybridConnection::new(endpoint, "hyco").unwrap()
}

#[tokio::test]
async fn a_rule_makes_tokens_of_one_hour() {
    let credential = RelayCredential::from(SasRule::new("rule", "key").unwrap());
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let grant = credential.grant(&hybrid_connection(), now).await.unwrap();
    assert_eq!(grant.hybrid_connection(), &hybrid_connection());
    let token = grant.token();
    assert_eq!(token.expires_at(), Some(now + TOKEN_LIFETIME));
    assert!(token.secret().starts_with("SharedAccessSignature sr="));
}

#[tokio::test]
async fn a_finished_token_is_used_until_it_expires() {
    let expires_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let token = SasRule::new("rule", "key")
        .unwrap()
        .sign(&hybrid_connection(), expires_at);
    let credential = RelayCredential::sas_token(token.secret()).unwrap();

    let before = expires_at - Duration::from_secs(1);
    let used = credential
        .grant(&hybrid_connection(), before)
        .await
        .unwrap();
    assert_eq!(used.token().secret(), token.secret());
    assert_eq!(used.token().expires_at(), Some(expires_at));

    let error = credential
        .grant(&hybrid_connection(), expires_at)
        .await
        .unwrap_err();
    assert!(error.is_unauthorized());
    assert!(error.to_string().contains("has expired"));
    assert!(!error.is_retryable());
}

#[test]
fn a_text_that_is_no_token_is_refused_without_repeating_it() {
    let error = RelayCredential::sas_token("hunter2").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(!format!("{error:?} {}", error.report()).contains("hunter2"));
}

#[test]
fn nothing_secret_is_printed() {
    let rule = SasRule::new("rule", "top-secret-key").unwrap();
    let token = rule.sign(&hybrid_connection(), SystemTime::now());
    let finished = RelayCredential::sas_token(token.secret()).unwrap();
    let printed = format!("{token:?} {finished:?} {:?}", RelayCredential::from(rule));
    assert!(!printed.contains("top-secret-key"));
    assert!(!printed.contains("sig="));
}

/// Reads the head of a request, and refuses it.
async fn refused_head(relay: &TcpListener) -> String {
    let (mut socket, _) = relay.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    let refusal = b"HTTP/1.1 401 InvalidToken\r\nContent-Length: 0\r\n\r\n";
    socket.write_all(refusal).await.unwrap();
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

#[tokio::test]
async fn both_parties_show_the_token_of_entra_without_a_scheme() {
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = relay.local_addr().unwrap().port();
    let endpoint = Endpoint::new("127.0.0.1", port, Security::Plain);
    let hybrid_connection = HybridConnection::new(endpoint, "hyco").unwrap();
    let credential = RelayCredential::entra(Arc::new(Numbered::default()));
    let sender = RelaySender::new(connector(), hybrid_connection.clone(), credential.clone());
    let (head, connected) = tokio::join!(refused_head(&relay), sender.connect());
    assert!(connected.unwrap_err().is_unauthorized());
    assert!(
        head.contains("\r\nservicebusauthorization: jwt.number.0\r\n"),
        "{head}"
    );

    let listener = RelayListener::start(connector(), hybrid_connection, credential);
    let (head, online) = tokio::join!(refused_head(&relay), listener.online());
    assert!(online.unwrap_err().is_unauthorized());
    assert!(head.contains("sb-hc-action=listen"), "{head}");
    assert!(
        head.contains("\r\nservicebusauthorization: jwt.number.0\r\n"),
        "{head}"
    );
}
