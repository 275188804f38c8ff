//! An authority that rotates its keys, is down, slow or lies.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use tokio::task::JoinSet;

use super::{
    bed::{Bed, USER, USER_ID},
    support::authority::{Fault, SigningKey},
};

/// Rotation as Entra ID does it: the new key is published, then tokens are signed with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_rotate_under_load_without_a_failed_request() {
    const CALLERS: usize = 8;
    let bed = Arc::new(Bed::start().await);
    let done = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (bed, done, sent) = (Arc::clone(&bed), Arc::clone(&done), Arc::clone(&sent));
        callers.spawn(async move {
            while !done.load(Ordering::Relaxed) {
                // A new token each time, signed with the key of the moment.
                let token = bed
                    .authority
                    .user(USER, USER_ID)
                    .claim("n", sent.load(Ordering::Relaxed));
                let answer = bed.get(&token.sign()).await;
                assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let served = |count: usize| {
        let sent = Arc::clone(&sent);
        async move {
            let enough = sent.load(Ordering::Relaxed) + count;
            let load = async {
                while sent.load(Ordering::Relaxed) < enough {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            // Callers that fail send no more; who they are is said when they are joined.
            let _ = tokio::time::timeout(Duration::from_secs(20), load).await;
        }
    };
    served(100).await;
    // Twice, one right after the other, and both long before the keys would be read again by themselves.
    for key in [1, 2] {
        bed.authority.rotate(SigningKey::rsa(key));
        served(150).await;
    }
    done.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller.expect("no request failed");
    }
    // One question for the first keys, one or two for each new key; not one for each request.
    let asked = bed.authority.key_requests();
    assert!(
        (3..=5).contains(&asked),
        "{asked} questions for {} requests",
        sent.load(Ordering::Relaxed)
    );
}

#[tokio::test]
async fn unknown_keys_do_not_make_the_agent_ask_for_ever() {
    let bed = Bed::start().await;
    for number in 0..50 {
        let token = bed
            .authority
            .user(USER, USER_ID)
            .with_key(SigningKey::rsa(2))
            .header("kid", format!("made-up-{number}"));
        assert_eq!(
            bed.get(&token.sign()).await.status,
            StatusCode::UNAUTHORIZED
        );
    }
    let asked = bed.authority.key_requests();
    assert!(asked <= 15, "{asked} questions");
    assert_eq!(
        bed.get(&bed.authority.user(USER, USER_ID).sign())
            .await
            .status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn known_keys_outlive_their_authority() {
    for fault in [
        Fault::Down,
        Fault::Gone,
        Fault::Garbage,
        Fault::NoKeys,
        Fault::WrongIssuer,
    ] {
        let bed = Bed::start().await;
        assert_eq!(
            bed.get(&bed.authority.user(USER, USER_ID).sign())
                .await
                .status,
            StatusCode::OK
        );
        bed.authority.set_fault(Some(fault));
        // An unknown key makes the agent ask, in vain.
        let unknown = bed
            .authority
            .user(USER, USER_ID)
            .with_key(SigningKey::rsa(2))
            .header("kid", "x");
        assert!(!bed.get(&unknown.sign()).await.status.is_success());
        let token = bed.authority.user(USER, USER_ID).claim("n", 2);
        assert_eq!(
            bed.get(&token.sign()).await.status,
            StatusCode::OK,
            "{fault:?}"
        );
    }
}

/// Nobody can be let in, and nobody can be said to be wrong: 503, so that clients come again.
#[tokio::test]
async fn without_keys_callers_hear_to_come_again() {
    for fault in [
        Fault::Down,
        Fault::Gone,
        Fault::Garbage,
        Fault::NoKeys,
        Fault::WrongIssuer,
        Fault::ForeignKeys,
        Fault::Endless,
    ] {
        let bed = Bed::start().await;
        bed.authority.set_fault(Some(fault));
        let answer = bed.get(&bed.authority.user(USER, USER_ID).sign()).await;
        assert_eq!(
            answer.status,
            StatusCode::SERVICE_UNAVAILABLE,
            "{fault:?}: {answer:?}"
        );
        answer.status_object();
        assert!(bed.last_arrival().is_none());
    }
}

#[tokio::test]
async fn a_slow_authority_delays_the_first_caller_only() {
    let bed = Bed::start().await;
    bed.authority
        .set_fault(Some(Fault::Slow(Duration::from_millis(500))));
    let first = bed.authority.user(USER, USER_ID).sign();
    let second = bed.authority.user(USER, USER_ID).claim("n", 2).sign();
    let (first, second) = tokio::join!(bed.get(&first), bed.get(&second));
    assert_eq!(
        (first.status, second.status),
        (StatusCode::OK, StatusCode::OK)
    );
    assert_eq!(
        bed.authority.key_requests(),
        1,
        "both wait for one question"
    );
}
