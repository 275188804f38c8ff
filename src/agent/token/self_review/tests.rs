//! Both far ends of an agent: what is asked first, in whose name, and what follows.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{
    agent::{
        ServiceAccountTokens,
        test_bed::{Bed, FarEnd, TOKEN},
    },
    clock::ManualClock,
};

const WHO: &str = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews HTTP/1.1";
const MAY: &str = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews HTTP/1.1";
const ASKED: &str = "GET /api/v1/pods HTTP/1.1";

fn bed() -> Bed {
    Bed::with(|builder| builder.service_account_tokens(ServiceAccountTokens::Review))
}

fn robot() -> String {
    let user = json!({ "username": "system:serviceaccount:a:robot", "groups": ["g", "h"] });
    json!({ "kind": "SelfSubjectReview", "status": { "userInfo": user } }).to_string()
}

/// The agent's next request: on `api`, which may be free again by now, or on a new connection.
async fn next(bed: &mut Bed, api: &mut FarEnd) -> (String, String) {
    tokio::select! {
        request = api.next_request() => match request {
            Some(request) => request,
            None => {
                *api = bed.api.connection().await;
                api.request().await
            }
        },
        other = bed.api.connection() => {
            *api = other;
            api.request().await
        }
    }
}

/// Of the head: in whose name it goes out.
fn names(head: &str) -> Vec<&str> {
    head.lines()
        .filter(|line| line.starts_with("authorization") || line.starts_with("impersonate"))
        .collect()
}

#[tokio::test]
async fn the_question_is_the_callers_own_and_comes_first() {
    let mut bed = bed();
    let mut caller = bed.asks(ASKED).await;
    let mut api = bed.api.connection().await;
    let (head, body) = api.request().await;
    assert!(head.starts_with(WHO), "{head}");
    assert_eq!(names(&head), [format!("authorization: {TOKEN}")]);
    let question: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(question["kind"], "SelfSubjectReview");
    api.answer("201 Created", &robot()).await;

    let (head, _) = next(&mut bed, &mut api).await;
    assert!(head.starts_with(ASKED), "{head}");
    assert_eq!(names(&head), [format!("authorization: {TOKEN}")]);
    api.answer("200 OK", "{}").await;
    assert!(caller.head().await.starts_with("HTTP/1.1 200"));

    // The answer is still known.
    let mut again = bed.asks(ASKED).await;
    let (head, _) = next(&mut bed, &mut api).await;
    assert!(head.starts_with(ASKED), "{head}");
    api.answer("200 OK", "{}").await;
    assert!(again.head().await.starts_with("HTTP/1.1 200"));
    assert_eq!(bed.impersonated.dialled(), 0);
}

#[tokio::test]
async fn whatever_is_no_yes_keeps_the_request_away_from_the_api_server() {
    let anonymous = robot().replace("system:serviceaccount:a:robot", "system:anonymous");
    for (status, body, code) in [
        ("401 Unauthorized", "{}", 401),
        ("403 Forbidden", "{}", 403),
        ("201 Created", &*anonymous, 401),
        (
            "201 Created",
            r#"{"status":{"userInfo":{"username":""}}}"#,
            503,
        ),
        ("201 Created", r#"{"status":{}}"#, 503),
        ("200 OK", "no JSON", 503),
        ("429 Too Many Requests", "{}", 503),
        ("500 Internal Server Error", "{}", 503),
        ("302 Found", "{}", 503),
    ] {
        let mut bed = bed();
        let mut caller = bed.asks(ASKED).await;
        let mut api = bed.api.connection().await;
        let (head, _) = api.request().await;
        assert!(head.starts_with(WHO), "{head}");
        api.answer(status, body).await;
        assert_eq!(caller.status().await.0, code, "{status} {body}");
        drop(bed.agent);
        // Nothing more was sent on that connection, and there is no other.
        assert_eq!(api.next_request().await, None, "{status} {body}");
        assert_eq!(bed.api.dialled(), 1);
    }
}

#[tokio::test]
async fn a_no_is_remembered_and_an_outage_is_not() {
    for (status, code, asked_again) in [
        ("401 Unauthorized", 401, false),
        ("500 Internal Server Error", 503, true),
    ] {
        let mut bed = bed();
        let mut first = bed.asks(ASKED).await;
        let mut api = bed.api.connection().await;
        api.request().await;
        api.answer(status, "{}").await;
        assert_eq!(first.status().await.0, code);
        let mut second = bed.asks(ASKED).await;
        if asked_again {
            let (head, _) = next(&mut bed, &mut api).await;
            assert!(head.starts_with(WHO), "{head}");
            api.answer("401 Unauthorized", "{}").await;
            assert_eq!(second.status().await.0, 401);
        } else {
            assert_eq!(second.status().await.0, code);
        }
    }
}

#[tokio::test]
async fn an_api_server_that_tells_no_names_is_asked_whether_it_lets_the_caller_in() {
    for (status, body, code) in [
        ("201 Created", r#"{"status":{"allowed":false}}"#, 200),
        ("401 Unauthorized", "{}", 401),
        ("404 Not Found", "{}", 503),
        ("201 Created", r#"{"status":{}}"#, 503),
    ] {
        let mut bed = bed();
        let mut caller = bed.asks(ASKED).await;
        let mut api = bed.api.connection().await;
        api.request().await;
        api.answer("404 Not Found", "{}").await;
        let (head, _) = next(&mut bed, &mut api).await;
        assert!(head.starts_with(MAY), "{head}");
        assert_eq!(names(&head), [format!("authorization: {TOKEN}")]);
        api.answer(status, body).await;
        if code == 200 {
            let (head, _) = next(&mut bed, &mut api).await;
            assert!(head.starts_with(ASKED), "{head}");
            api.answer("200 OK", "{}").await;
            assert!(caller.head().await.starts_with("HTTP/1.1 200"));
        } else {
            assert_eq!(caller.status().await.0, code, "{status} {body}");
        }
    }
}

#[tokio::test]
async fn a_yes_is_believed_for_ten_seconds() {
    let time = ManualClock::starting_at(1_800_000_000);
    let reviews = SelfReviews::new(time.clock());
    let asked = Arc::new(AtomicUsize::new(0));
    for (passed, expected) in [(0, 1), (9, 1), (1, 2), (9, 2)] {
        time.advance(Duration::from_secs(passed));
        let until = time.clock().now() + BELIEVED;
        let count = Arc::clone(&asked);
        let asking = async move {
            count.fetch_add(1, Ordering::SeqCst);
            Ok((Arc::<Holder>::default(), until))
        };
        let verdict = reviews.verdicts.of("token", asking).await;
        assert_eq!(*verdict.expect("a yes"), Holder::default());
        assert_eq!(asked.load(Ordering::SeqCst), expected);
    }
}
