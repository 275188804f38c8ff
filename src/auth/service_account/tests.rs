//! Against a scripted API server and a clock that the test sets.

use std::{collections::VecDeque, sync::Mutex};

use serde_json::Value;

use super::*;
use crate::{
    auth::{AuthProvider, BearerAuth, Freshness, TokenRequest},
    clock::ManualClock,
};

/// 2027-01-15T08:00:00Z.
const NOW: u64 = 1_800_000_000;

/// Answers as scripted; remembers what was asked.
#[derive(Default)]
struct ApiServer {
    answers: Mutex<VecDeque<Result<(u16, String)>>>,
    asked: Mutex<Vec<(String, Value)>>,
}

impl ApiServer {
    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn answers(&self, answer: Result<(u16, String)>) {
        self.answers.lock().unwrap().push_back(answer);
    }

    fn grants(&self, token: &str, end: &str) {
        let answer = json!({
            "kind": "TokenRequest",
            "status": {"token": token, "expirationTimestamp": end},
        });
        self.answers(Ok((201, answer.to_string())));
    }
}

#[async_trait]
impl HttpSender for ApiServer {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        let body = serde_json::from_slice(request.body()).unwrap();
        let line = format!("{} {}", request.method(), request.uri());
        self.asked.lock().unwrap().push((line, body));
        // As long as any network: others get a chance to come in between.
        tokio::task::yield_now().await;
        let (status, body) = self.answers.lock().unwrap().pop_front().unwrap()?;
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Ok(response)
    }
}

struct Bed {
    server: Arc<ApiServer>,
    time: ManualClock,
    auth: Arc<BearerAuth>,
}

impl Bed {
    fn new() -> Self {
        let server = Arc::<ApiServer>::default();
        let time = ManualClock::starting_at(NOW);
        let source = ServiceAccountSource::new(Arc::clone(&server) as _, "ci", "deployer");
        let auth = BearerAuth::service_account_with(source, time.clock());
        Self {
            server,
            time,
            auth: Arc::new(auth),
        }
    }

    async fn token(&self, freshness: Freshness) -> Result<String> {
        let request = TokenRequest::new().with_freshness(freshness);
        let token = self.auth.token(&request).await?;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        Ok(token.secret().to_owned())
    }

    async fn cached(&self) -> String {
        self.token(Freshness::Cached).await.unwrap()
    }

    fn advance(&self, seconds: u64) {
        self.time.advance(Duration::from_secs(seconds));
    }
}

#[tokio::test]
async fn the_request_is_that_of_the_api() {
    let server = Arc::<ApiServer>::default();
    server.grants("one", "2027-01-15T08:30:00Z");
    let source = ServiceAccountSource::new(Arc::clone(&server) as _, "ci", "a/../b")
        .with_audiences(["https://one", "two"])
        .with_lifetime(Duration::from_secs(1800))
        .unwrap();
    let token = source.token().await.unwrap();
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + 1800);
    assert_eq!((token.secret(), token.expires_at()), ("one", Some(end)));
    let (line, body) = server.asked.lock().unwrap()[0].clone();
    assert_eq!(
        line,
        "POST /api/v1/namespaces/ci/serviceaccounts/a%2F..%2Fb/token"
    );
    assert_eq!(body["kind"], "TokenRequest");
    assert_eq!(
        body["spec"],
        json!({"audiences": ["https://one", "two"], "expirationSeconds": 1800})
    );
}

#[tokio::test]
async fn one_request_serves_everybody() {
    let bed = Bed::new();
    bed.server.grants("one", "2027-01-15T09:00:00Z");
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let auth = Arc::clone(&bed.auth);
            tokio::spawn(async move { auth.token(&TokenRequest::new()).await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().secret(), "one");
    }
    assert_eq!(bed.server.asked(), 1);
}

#[tokio::test]
async fn a_token_is_renewed_at_four_fifths_of_its_life_without_anybody_waiting() {
    let bed = Bed::new();
    bed.server.grants("one", "2027-01-15T09:00:00Z");
    bed.cached().await;
    bed.advance(2879);
    assert_eq!(bed.cached().await, "one");
    assert_eq!(bed.server.asked(), 1);
    bed.advance(1);
    bed.server.grants("two", "2027-01-15T10:00:00Z");
    assert_eq!(bed.cached().await, "one");
    assert_eq!(bed.server.asked(), 2);
    assert_eq!(bed.cached().await, "two");
    // A long-lived one too: no fixed time ahead.
    bed.server.grants("long", "2027-01-17T08:00:00Z");
    bed.advance(60);
    assert_eq!(bed.token(Freshness::Fresh).await.unwrap(), "long");
    bed.advance(160_000);
    bed.server.grants("next", "2027-01-18T08:00:00Z");
    assert_eq!(bed.cached().await, "long");
    assert_eq!(bed.cached().await, "next");
}

#[tokio::test]
async fn the_old_token_is_served_while_the_renewal_fails() {
    let bed = Bed::new();
    bed.server.grants("one", "2027-01-15T09:00:00Z");
    bed.cached().await;
    bed.advance(3000);
    bed.server
        .answers(Err(Error::new(ErrorKind::Network, "no way")));
    bed.server.answers(Ok((500, String::new())));
    assert_eq!(bed.cached().await, "one");
    assert_eq!(bed.cached().await, "one");
    assert_eq!(bed.server.asked(), 2, "a pause between two tries");
    bed.advance(31);
    assert_eq!(bed.cached().await, "one");
    assert_eq!(bed.server.asked(), 3);
    // At its end there is nothing to serve.
    bed.advance(600);
    bed.server
        .answers(Err(Error::new(ErrorKind::Network, "no way")));
    let error = bed.token(Freshness::Cached).await.expect_err("over");
    assert_eq!(error.kind(), ErrorKind::Network);
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    for (status, kind, word) in [
        (401, ErrorKind::Unauthorized, "serviceaccounts/token"),
        (403, ErrorKind::Unauthorized, "auth can-i"),
        (
            404,
            ErrorKind::InvalidInput,
            "kubectl create serviceaccount",
        ),
        (422, ErrorKind::Refused, "audiences"),
        (503, ErrorKind::Refused, "later"),
    ] {
        let bed = Bed::new();
        bed.server.answers(Ok((status, "hush".to_owned())));
        let error = bed.token(Freshness::Cached).await.expect_err("refused");
        assert_eq!((error.kind(), error.status()), (kind, Some(status)));
        assert!(error.help().unwrap().contains(word), "{error:?}");
        assert!(error.report().contains("ci/deployer"));
        assert!(!format!("{error:?}").contains("hush"));
    }
}

#[tokio::test]
async fn an_answer_that_is_no_token_is_not_quoted() {
    let status = |token: &str, end: &str| {
        json!({"status": {"token": token, "expirationTimestamp": end}}).to_string()
    };
    for body in [
        String::new(),
        "hush".to_owned(),
        "{}".to_owned(),
        status("hush hush", "2027-01-15T09:00:00Z"),
        status("", "2027-01-15T09:00:00Z"),
        status("hush", "soon"),
        status(&"x".repeat(MAX_ANSWER), "2027-01-15T09:00:00Z"),
    ] {
        let bed = Bed::new();
        bed.server.answers(Ok((201, body)));
        let error = bed.token(Freshness::Cached).await.expect_err("no token");
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    }
}

#[tokio::test]
async fn lifetimes_that_no_api_server_grants_are_refused() {
    let source = |seconds| {
        let sender = |_| async { Err(Error::new(ErrorKind::Network, "unused")) };
        ServiceAccountSource::new(Arc::new(sender), "n", "a")
            .with_lifetime(Duration::from_secs(seconds))
    };
    for seconds in [0, 599, (1 << 32) + 1] {
        assert!(source(seconds).is_err(), "{seconds}");
    }
    for seconds in [600, 3600, 1 << 32] {
        assert!(source(seconds).is_ok(), "{seconds}");
    }
    let shown = format!("{:?}", source(600).unwrap());
    assert!(shown.contains("ServiceAccountSource"));
}
