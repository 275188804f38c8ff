//! On virtual time, with a source that the test scripts.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;

use super::{super::test_issuer::SigningKey, *};
use crate::Error;

const RS256: SignatureAlgorithm = SignatureAlgorithm::Rs256;

#[derive(Default)]
struct Script {
    fetches: AtomicUsize,
    fails: AtomicBool,
    /// Which of the two keys is published.
    rotated: AtomicBool,
    /// Whether an answer shows what was published when it was asked for, and not when it arrives.
    answers_as_of_the_beginning: AtomicBool,
}

struct Scripted(Arc<Script>);

#[async_trait]
impl KeySource for Scripted {
    async fn fetch(&self) -> Result<KeySet> {
        self.0.fetches.fetch_add(1, Ordering::SeqCst);
        let at_the_beginning = self.0.rotated.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
        if self.0.fails.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Network, "the issuer is gone"));
        }
        let rotated = if self.0.answers_as_of_the_beginning.load(Ordering::SeqCst) {
            at_the_beginning
        } else {
            self.0.rotated.load(Ordering::SeqCst)
        };
        let key = if rotated {
            SigningKey::second()
        } else {
            SigningKey::first()
        };
        let set = json!({"keys": [key.jwk()]}).to_string();
        Ok(KeySet::parse(set.as_bytes()).unwrap())
    }
}

fn store() -> (Arc<KeyStore>, Arc<Script>) {
    let script = Arc::<Script>::default();
    let store = KeyStore::new(Box::new(Scripted(Arc::clone(&script))));
    (Arc::new(store), script)
}

impl Script {
    fn count(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

async fn wait(time: Duration) {
    tokio::time::sleep(time).await;
}

fn has(store: &KeyStore, id: &str) -> bool {
    let state = store.shared.state();
    let held = state.held.as_ref().expect("keys");
    !held.keys.candidates(Some(id), RS256).is_empty()
}

fn rejected(outcome: Result<Arc<KeySet>, Failure>) -> bool {
    matches!(outcome, Err(Failure::Rejected(_)))
}

fn unavailable(outcome: Result<Arc<KeySet>, Failure>) -> bool {
    matches!(outcome, Err(Failure::Unavailable(_)))
}

#[tokio::test(start_paused = true)]
async fn j4_a_storm_at_the_start_is_one_fetch() {
    let (store, script) = store();
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.keys_for(Some("first"), RS256).await.is_ok() })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap());
    }
    assert_eq!(script.count(), 1);
}

/// Asks for keys that nobody has, all at once.
async fn storm(store: &Arc<KeyStore>) {
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let (store, id) = (Arc::clone(store), format!("made-up-{number}"));
            tokio::spawn(async move { rejected(store.keys_for(Some(&id), RS256).await) })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn j4_unknown_keys_cause_a_few_fetches_at_once_and_then_one_in_a_pause() {
    let (store, script) = store();
    store.preload().await.unwrap();
    let start = Instant::now();
    for _ in 0..100 {
        storm(&store).await;
        // Known keys are not held up by it.
        assert!(store.keys_for(Some("first"), RS256).await.is_ok());
    }
    // What the time that the fetches took has given back is less than one.
    assert!(start.elapsed() < UNKNOWN_KEY_PAUSE);
    let burst = UNKNOWN_KEY_BURST as usize;
    assert_eq!(script.count() - 1, burst);
    for round in 1..=5 {
        wait(UNKNOWN_KEY_PAUSE).await;
        storm(&store).await;
        storm(&store).await;
        assert_eq!(script.count() - 1, burst + round);
    }
}

/// The regression: such a token was refused, and its owner told to log in again, for ten seconds.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_rotated_right_after_a_fetch_is_found_at_once() {
    let (store, script) = store();
    store.preload().await.unwrap();
    for rotated in [true, false, true] {
        script.rotated.store(rotated, Ordering::SeqCst);
        let (new, old) = if rotated {
            ("second", "first")
        } else {
            ("first", "second")
        };
        assert!(store.keys_for(Some(new), RS256).await.is_ok());
        assert!(store.keys_for(Some(new), RS256).await.is_ok());
        assert!(!has(&store, old));
    }
    assert_eq!(script.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_published_while_a_fetch_is_under_way_is_found_by_the_next() {
    let (store, script) = store();
    store.preload().await.unwrap();
    script
        .answers_as_of_the_beginning
        .store(true, Ordering::SeqCst);
    let other = Arc::clone(&store);
    let asking =
        tokio::spawn(async move { rejected(other.keys_for(Some("made-up"), RS256).await) });
    wait(Duration::from_millis(50)).await;
    script.rotated.store(true, Ordering::SeqCst);
    assert!(store.keys_for(Some("second"), RS256).await.is_ok());
    assert!(asking.await.unwrap());
    assert_eq!(script.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn forged_keys_cost_a_rotation_one_pause_at_most() {
    let (store, script) = store();
    store.preload().await.unwrap();
    for _ in 0..100 {
        storm(&store).await;
    }
    script.rotated.store(true, Ordering::SeqCst);
    wait(UNKNOWN_KEY_PAUSE).await;
    assert!(store.keys_for(Some("second"), RS256).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn r28_keys_are_read_again_within_an_hour_in_the_background() {
    let (store, script) = store();
    store.preload().await.unwrap();
    wait(REFRESH_AFTER - REFRESH_JITTER - Duration::from_secs(1)).await;
    store.keys_for(Some("first"), RS256).await.unwrap();
    wait(Duration::from_secs(1)).await;
    assert_eq!(script.count(), 1);
    script.rotated.store(true, Ordering::SeqCst);
    wait(REFRESH_JITTER).await;
    // Served at once with what is there; the renewal follows.
    let before = Instant::now();
    store.keys_for(Some("first"), RS256).await.unwrap();
    assert_eq!(Instant::now(), before);
    wait(Duration::from_secs(1)).await;
    assert_eq!(script.count(), 2);
    assert!(rejected(store.keys_for(Some("first"), RS256).await));
}

#[tokio::test(start_paused = true)]
async fn the_last_good_keys_stay_in_use_for_three_days() {
    let (store, script) = store();
    store.preload().await.unwrap();
    script.fails.store(true, Ordering::SeqCst);
    for _ in 0..71 {
        wait(Duration::from_secs(3600)).await;
        assert!(store.keys_for(Some("first"), RS256).await.is_ok());
    }
    assert!(script.count() > 10);
    wait(Duration::from_secs(3600)).await;
    assert!(unavailable(store.keys_for(Some("first"), RS256).await));
    script.fails.store(false, Ordering::SeqCst);
    wait(FAILURE_PAUSE).await;
    assert!(store.keys_for(Some("first"), RS256).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn renewals_that_fail_are_a_minute_apart() {
    let (store, script) = store();
    store.preload().await.unwrap();
    script.fails.store(true, Ordering::SeqCst);
    wait(REFRESH_AFTER).await;
    for _ in 0..600 {
        assert!(store.keys_for(Some("first"), RS256).await.is_ok());
        wait(Duration::from_secs(1)).await;
    }
    assert!(
        (9..=11).contains(&(script.count() - 1)),
        "{}",
        script.count()
    );
}

#[tokio::test(start_paused = true)]
async fn while_the_issuer_is_gone_nobody_is_told_that_a_key_does_not_exist() {
    let (store, script) = store();
    script.fails.store(true, Ordering::SeqCst);
    for _ in 0..100 {
        assert!(unavailable(store.keys_for(Some("first"), RS256).await));
    }
    assert_eq!(script.count(), 1);
    wait(FAILURE_PAUSE).await;
    assert!(unavailable(store.keys_for(Some("first"), RS256).await));
    assert_eq!(script.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_does_not_cost_the_others_the_fetch() {
    let (store, script) = store();
    let impatient = store.keys_for(Some("first"), RS256);
    assert!(
        tokio::time::timeout(Duration::from_millis(10), impatient)
            .await
            .is_err()
    );
    assert!(store.keys_for(Some("first"), RS256).await.is_ok());
    assert_eq!(script.count(), 1);
}
