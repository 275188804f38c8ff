//! An authority that is busy, redirects, breaks off or is gone.

use arc_cluster_connect::ErrorKind;

use crate::{
    authority::{Fault, Scripted, TextOrNumber},
    bed::{Bed, SECRET, refusal, token},
};

#[tokio::test]
async fn a_busy_authority_is_asked_again_when_it_says() {
    let bed = Bed::new().await;
    bed.script([
        Scripted::Busy(429, Some("1")),
        Scripted::Busy(503, Some("0")),
    ]);
    let started = std::time::Instant::now();
    token(&bed.secret(SECRET)).await.unwrap();
    assert!(started.elapsed() >= std::time::Duration::from_secs(1));
    assert_eq!(bed.requests().len(), 3);
}

#[tokio::test]
async fn an_authority_that_stays_busy_is_left_alone() {
    let bed = Bed::new().await;
    bed.script(std::iter::repeat_n(Scripted::Busy(500, None), 3));
    let error = refusal(&bed.secret(SECRET)).await;
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::Refused, Some(500))
    );
    assert!(error.is_retryable());
    assert_eq!(bed.requests().len(), 3);

    // Longer than anybody waits: told at once, and not asked again.
    bed.script([Scripted::Busy(429, Some("3600"))]);
    let error = refusal(&bed.secret(SECRET)).await;
    assert_eq!(error.status(), Some(429));
    assert_eq!(bed.requests().len(), 4);
}

#[tokio::test]
async fn a_redirect_is_refused_and_no_secret_follows_it() {
    let bed = Bed::new().await;
    for status in [301, 302, 307, 308] {
        bed.script([Scripted::Redirect(status)]);
        let error = refusal(&bed.secret(SECRET)).await;
        assert_eq!(
            (error.kind(), error.status()),
            (ErrorKind::Protocol, Some(status))
        );
        assert!(error.report().contains("redirect"));
    }
    assert_eq!(bed.requests().len(), 4);
}

#[tokio::test]
async fn a_truncated_answer_is_none() {
    let bed = Bed::new().await;
    bed.script([Scripted::Truncated]);
    token(&bed.secret(SECRET)).await.unwrap();
    assert_eq!(bed.requests().len(), 2);
    bed.script(std::iter::repeat_n(Scripted::Truncated, 3));
    let error = refusal(&bed.secret(SECRET)).await;
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(
        error.report().contains("no answer from https://localhost"),
        "{}",
        error.report()
    );
}

#[tokio::test]
async fn an_authority_that_is_gone_is_a_matter_of_the_network() {
    let bed = Bed::new().await;
    bed.script(std::iter::repeat_n(Scripted::Gone, 3));
    let error = refusal(&bed.secret(SECRET)).await;
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.is_retryable());
}

#[tokio::test]
async fn an_answer_that_is_no_token_is_not_quoted() {
    let bed = Bed::new().await;
    for text in [
        "<html>hush</html>",
        "{}",
        r#"{"token_type":"Bearer","access_token":7}"#,
        r#"{"token_type":"Bearer","access_token":"hush hush","expires_in":3600}"#,
        r#"{"token_type":"Bearer","access_token":"","expires_in":3600}"#,
        r#"{"token_type":"mac","access_token":"hush","expires_in":3600}"#,
    ] {
        bed.script([Scripted::Text(text)]);
        let error = refusal(&bed.secret(SECRET)).await;
        assert!(!error.is_retryable(), "{text}: {error:?}");
    }
}

#[tokio::test]
async fn an_endless_answer_ends_at_the_limit() {
    let bed = Bed::new().await;
    bed.authority.set_fault(Some(Fault::Endless));
    let error = refusal(&bed.secret(SECRET)).await;
    assert_eq!(error.kind(), ErrorKind::LimitReached);
}

#[tokio::test]
async fn a_lifetime_may_be_a_number_or_a_text_and_is_bounded() {
    let bed = Bed::new().await;
    for (life, form, least, most) in [
        (1200, TextOrNumber::Text, 1100, 1200),
        (1200, TextOrNumber::Number, 1100, 1200),
        (u64::MAX, TextOrNumber::Number, 600_000, 7 * 24 * 3600),
    ] {
        bed.authority
            .token_endpoint(|endpoint| endpoint.token_life = Some((life, form)));
        let token = token(&bed.secret(SECRET)).await.unwrap();
        let left = token
            .expires_at()
            .unwrap()
            .duration_since(std::time::SystemTime::now());
        let left = left.unwrap().as_secs();
        assert!((least..=most).contains(&left), "{left}");
    }
}
