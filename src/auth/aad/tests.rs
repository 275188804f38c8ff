use std::{collections::VecDeque, sync::Mutex, time::Duration};

use azure_core::{
    credentials::{AccessToken as AzureToken, TokenRequestOptions},
    http::StatusCode,
};
use tokio::sync::Semaphore;

use super::*;
use crate::{Error, auth::Freshness, clock::ManualClock};

const START: u64 = 1_000_000;
const HOUR: u64 = 3600;

/// Answers as scripted; each call waits for a permit.
struct Scripted {
    answers: Mutex<VecDeque<azure_core::Result<AzureToken>>>,
    scopes: Mutex<Vec<String>>,
    permits: Semaphore,
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hush")
    }
}

#[async_trait]
impl TokenCredential for Scripted {
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AzureToken> {
        self.scopes.lock().unwrap().push(scopes.join(" "));
        self.permits.acquire().await.unwrap().forget();
        let answer = self.answers.lock().unwrap().pop_front();
        answer.expect("the script has an answer")
    }
}

struct Bed {
    credential: Arc<Scripted>,
    time: ManualClock,
    auth: Arc<AadAuth>,
}

impl Bed {
    fn new(answers: impl IntoIterator<Item = azure_core::Result<AzureToken>>) -> Self {
        let bed = Self::gated(answers);
        bed.credential.permits.add_permits(1000);
        bed
    }

    fn gated(answers: impl IntoIterator<Item = azure_core::Result<AzureToken>>) -> Self {
        let credential = Arc::new(Scripted {
            answers: Mutex::new(answers.into_iter().collect()),
            scopes: Mutex::default(),
            permits: Semaphore::new(0),
        });
        let time = ManualClock::starting_at(START);
        let auth = AadAuth::assemble(
            Arc::clone(&credential) as _,
            ARC_SERVER_SCOPE.to_owned(),
            time.clock(),
        );
        Self {
            credential,
            time,
            auth: Arc::new(auth),
        }
    }

    fn calls(&self) -> usize {
        self.credential.scopes.lock().unwrap().len()
    }

    fn advance(&self, seconds: u64) {
        self.time.advance(Duration::from_secs(seconds));
    }

    async fn token(&self, freshness: Freshness) -> Result<String> {
        let request = TokenRequest::new().with_freshness(freshness);
        let token = self.auth.token(&request).await?;
        Ok(token.secret().to_owned())
    }

    async fn cached(&self) -> Result<String> {
        self.token(Freshness::Cached).await
    }
}

/// A token that ends `seconds` after the start.
fn token(text: &'static str, seconds: u64) -> azure_core::Result<AzureToken> {
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(START + seconds);
    Ok(AzureToken::new(text, end.into()))
}

/// As `azure_identity` reports a refusal: the status is on the cause.
fn refusal(status: StatusCode, description: &'static str) -> azure_core::Result<AzureToken> {
    let kind = AzureErrorKind::HttpResponse {
        status,
        error_code: None,
        raw_response: None,
    };
    let cause = azure_core::Error::with_message(kind, description);
    Err(azure_core::Error::with_error(
        AzureErrorKind::Credential,
        cause,
        description,
    ))
}

async fn let_background_tasks_run() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_fetch_serves_everybody() {
    let bed = Bed::gated([token("one", HOUR)]);
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let auth = Arc::clone(&bed.auth);
            tokio::spawn(async move { auth.token(&TokenRequest::new()).await })
        })
        .collect();
    let_background_tasks_run().await;
    bed.credential.permits.add_permits(1);
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().secret(), "one");
    }
    assert_eq!(bed.calls(), 1);
    assert_eq!(bed.credential.scopes.lock().unwrap()[0], ARC_SERVER_SCOPE);
}

#[tokio::test]
async fn one_failure_is_shared_by_all_who_waited_and_not_kept() {
    let bed = Bed::gated([
        refusal(StatusCode::BadRequest, "AADSTS50076: hush"),
        token("two", HOUR),
    ]);
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let auth = Arc::clone(&bed.auth);
            tokio::spawn(async move { auth.token(&TokenRequest::new()).await })
        })
        .collect();
    let_background_tasks_run().await;
    bed.credential.permits.add_permits(1);
    for caller in callers {
        assert!(caller.await.unwrap().is_err());
    }
    assert_eq!(bed.calls(), 1);
    bed.credential.permits.add_permits(1);
    assert_eq!(bed.cached().await.unwrap(), "two");
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_the_fetch_to_the_next() {
    let bed = Bed::gated([token("one", HOUR)]);
    let auth = Arc::clone(&bed.auth);
    let first = tokio::spawn(async move { auth.token(&TokenRequest::new()).await });
    let_background_tasks_run().await;
    let auth = Arc::clone(&bed.auth);
    let second = tokio::spawn(async move { auth.token(&TokenRequest::new()).await });
    let_background_tasks_run().await;
    first.abort();
    let_background_tasks_run().await;
    bed.credential.permits.add_permits(1);
    assert_eq!(second.await.unwrap().unwrap().secret(), "one");
    assert_eq!(bed.calls(), 2);
}

#[tokio::test]
async fn a_token_is_renewed_ahead_without_anybody_waiting() {
    let bed = Bed::gated([token("one", HOUR), token("two", 2 * HOUR)]);
    bed.credential.permits.add_permits(1);
    assert_eq!(bed.cached().await.unwrap(), "one");
    bed.advance(HOUR - 301);
    assert_eq!(bed.cached().await.unwrap(), "one");
    let_background_tasks_run().await;
    assert_eq!(bed.calls(), 1);
    bed.advance(1);
    // The renewal hangs: callers go on with the present token, and only one renewal runs.
    for _ in 0..3 {
        assert_eq!(bed.cached().await.unwrap(), "one");
        let_background_tasks_run().await;
    }
    assert_eq!(bed.calls(), 2);
    bed.credential.permits.add_permits(1);
    let_background_tasks_run().await;
    assert_eq!(bed.cached().await.unwrap(), "two");
}

#[tokio::test]
async fn a_failed_renewal_leaves_the_valid_token_in_use_until_its_end() {
    let bed = Bed::new([
        token("one", HOUR),
        refusal(StatusCode::ServiceUnavailable, "down"),
        refusal(StatusCode::ServiceUnavailable, "down"),
        refusal(StatusCode::ServiceUnavailable, "down"),
    ]);
    assert_eq!(bed.cached().await.unwrap(), "one");
    bed.advance(HOUR - 200);
    for _ in 0..10 {
        assert_eq!(bed.cached().await.unwrap(), "one");
        let_background_tasks_run().await;
    }
    assert_eq!(bed.calls(), 2, "one attempt, then the pause");
    bed.advance(30);
    assert_eq!(bed.cached().await.unwrap(), "one");
    let_background_tasks_run().await;
    assert_eq!(bed.calls(), 3);
    bed.advance(160);
    let error = bed.cached().await.expect_err("too little time left");
    assert_eq!(error.status(), Some(503));
    assert!(error.is_retryable());
}

#[tokio::test]
async fn short_lived_tokens_are_cached_too() {
    let bed = Bed::new([token("one", 60)]);
    for _ in 0..5 {
        assert_eq!(bed.cached().await.unwrap(), "one");
        let_background_tasks_run().await;
    }
    assert_eq!(bed.calls(), 1);
}

#[tokio::test]
async fn fresh_means_another_fetch_but_not_a_storm() {
    let bed = Bed::new([
        token("one", HOUR),
        token("two", HOUR),
        refusal(StatusCode::Forbidden, ""),
    ]);
    assert_eq!(bed.cached().await.unwrap(), "one");
    assert_eq!(bed.token(Freshness::Fresh).await.unwrap(), "one");
    bed.advance(10);
    assert_eq!(bed.token(Freshness::Fresh).await.unwrap(), "two");
    assert_eq!(bed.token(Freshness::Fresh).await.unwrap(), "two");
    assert_eq!(bed.calls(), 2);
    bed.advance(10);
    let error = bed.token(Freshness::Fresh).await.expect_err("refused");
    assert!(error.is_unauthorized());
    assert_eq!(bed.cached().await.unwrap(), "two");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_hangs_ends_in_a_timeout() {
    let bed = Bed::gated([]);
    let error = bed.cached().await.expect_err("nobody answers");
    assert!(error.is_timeout());
}

#[tokio::test]
async fn another_scope() {
    let bed = Bed::new([token("one", HOUR)]);
    let credential = Arc::clone(&bed.credential);
    let auth = AadAuth::new(credential as _).with_scope("mine/.default");
    auth.token(&TokenRequest::new()).await.unwrap();
    assert_eq!(bed.credential.scopes.lock().unwrap()[0], "mine/.default");
}

async fn error_of(answer: azure_core::Result<AzureToken>) -> Error {
    Bed::new([answer]).cached().await.expect_err("no token")
}

#[tokio::test]
async fn errors_tell_the_code_and_never_the_description() {
    let error = error_of(refusal(
        StatusCode::BadRequest,
        "AADSTS700016: hush was not found in the directory hush",
    ))
    .await;
    assert!(error.is_unauthorized());
    assert!(
        error.to_string().contains("AADSTS700016, HTTP status 400"),
        "{error}"
    );
    assert!(!format!("{error:?} {}", error.report()).contains("hush"));

    let error = error_of(refusal(StatusCode::TooManyRequests, "hush")).await;
    assert!(error.is_retryable());
    assert_eq!(error.status(), Some(429));

    let unreachable = azure_core::Error::with_message(AzureErrorKind::Connection, "hush");
    let unreachable =
        azure_core::Error::with_error(AzureErrorKind::Credential, unreachable, "hush");
    let error = error_of(Err(unreachable)).await;
    assert_eq!(error.kind(), ErrorKind::Network);

    let no_cli = azure_core::Error::with_message(AzureErrorKind::Credential, "hush");
    let error = error_of(Err(no_cli)).await;
    assert!(error.is_unauthorized() && error.help().unwrap().contains("az login"));
    assert!(!format!("{error:?}").contains("hush"));
}

#[tokio::test]
async fn a_token_that_would_break_a_header_is_not_passed_on() {
    let error = error_of(token("hush\r\nX: y", HOUR)).await;
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(!format!("{error:?}").contains("hush"));
}

#[tokio::test]
async fn debug_shows_neither_token_nor_credential() {
    let bed = Bed::new([token("hush", HOUR)]);
    bed.cached().await.unwrap();
    assert!(!format!("{:?}", bed.auth).contains("hush"));
}
