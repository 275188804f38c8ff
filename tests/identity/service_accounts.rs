//! Tokens of service accounts: passed through untouched, and reviewed before that where it is asked for.

use std::sync::{Arc, Mutex};

use arc_cluster_connect::agent::{AuditEvent, AuditSink, ServiceAccountTokens};
use http::StatusCode;

use super::{
    bed::{Bed, FRONT_PROXY_HEADERS, ROBOT, ROBOT_TOKEN, USER, USER_ID, entra},
    support::{api_server::ImpersonationRights, authority::Authority},
};

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// Keeps what is written.
#[derive(Debug, Default)]
struct Notes(Mutex<Vec<AuditEvent>>);

impl AuditSink for Notes {
    fn record(&self, event: &AuditEvent) {
        self.0.lock().expect("not poisoned").push(event.clone());
    }
}

async fn bed(tokens: ServiceAccountTokens) -> (Bed, Arc<Notes>) {
    let authority = Authority::start().await.expect("a free port");
    let entra = entra(&authority).build().expect("it is well configured");
    let notes = Arc::<Notes>::default();
    let sink = Arc::clone(&notes);
    let bed = Bed::assemble(authority, ImpersonationRights::Everyone, |agent| {
        agent
            .authenticator(entra)
            .service_account_tokens(tokens)
            .audit(sink)
    })
    .await;
    (bed, notes)
}

fn reviews(bed: &Bed) -> usize {
    let requests = bed.stand_in.requests();
    requests
        .iter()
        .filter(|request| request.path_and_query == REVIEWS)
        .count()
}

#[tokio::test]
async fn a_token_is_reviewed_as_its_own_holder_and_then_passed_through() {
    let (bed, notes) = bed(ServiceAccountTokens::Review).await;
    for _ in 0..3 {
        let answer = bed.get(ROBOT_TOKEN).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    let mut requests = bed.stand_in.requests();
    // At its start, and on its own account.
    requests.retain(|request| request.path_and_query != FRONT_PROXY_HEADERS);
    let review = &requests[0];
    assert_eq!(review.path_and_query, REVIEWS);
    assert_eq!(reviews(&bed), 1, "the answer is believed for a moment");
    for request in &requests {
        let caller = request.caller.as_ref().expect("a caller");
        assert_eq!(caller.name, ROBOT, "never the agent: {request:?}");
        assert_eq!(request.user.as_ref(), Some(caller), "and as nobody else");
    }
    // Callers whom the agent knows itself cost no question.
    let token = bed.authority.user(USER, USER_ID).sign();
    assert_eq!(bed.get(&token).await.status, StatusCode::OK);
    assert_eq!(reviews(&bed), 1);

    let notes = notes.0.lock().expect("not poisoned");
    let robots = notes
        .iter()
        .filter(|note| note.caller.user.as_deref() == Some(ROBOT))
        .count();
    assert!(robots >= 3, "{notes:?}");
}

#[tokio::test]
async fn a_token_that_the_api_server_does_not_take_ends_at_the_agent() {
    let (bed, _) = bed(ServiceAccountTokens::Review).await;
    for _ in 0..3 {
        let answer = bed.get("not-a-token-of-anybody").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{answer:?}");
        let status = answer.status_object();
        assert_eq!(status["details"]["causes"][0]["message"], "agent");
    }
    assert!(bed.last_arrival().is_none());
    assert_eq!(reviews(&bed), 1, "a no is remembered too");
}

#[tokio::test]
async fn without_a_review_the_api_server_itself_says_no() {
    let (bed, _) = bed(ServiceAccountTokens::PassThrough).await;
    assert_eq!(bed.get(ROBOT_TOKEN).await.status, StatusCode::OK);
    let refused = bed.get("not-a-token-of-anybody").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(reviews(&bed), 0);
    assert!(bed.last_arrival().is_some());
}
