use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

fn no_jitter() -> u8 {
    0
}

fn health() -> Health {
    Health::new(no_jitter)
}

fn lost() -> Arc<Error> {
    Arc::new(Error::new(ErrorKind::Network, "no way"))
}

fn forbidden() -> Arc<Error> {
    Arc::new(Error::new(ErrorKind::Unauthorized, "a wrong key"))
}

fn dial(health: &mut Health, now: Instant) -> Attempt {
    let seen = health.seen();
    match health.turn(now, seen) {
        Turn::Dial(attempt) => attempt,
        other => panic!("{other:?}"),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn while_the_way_works_everybody_dials_at_once() {
    let (mut health, now) = (health(), Instant::now());
    assert!(matches!(health.state(), TunnelState::Idle));
    let attempts: Vec<_> = (0..50).map(|_| dial(&mut health, now)).collect();
    assert!(matches!(
        health.state(),
        TunnelState::Connecting { attempt: 1 }
    ));
    for attempt in attempts {
        health.answered(attempt);
        assert!(matches!(health.state(), TunnelState::Connected));
    }
    let attempt = dial(&mut health, now);
    assert!(matches!(health.state(), TunnelState::Connected));
    health.abandoned(attempt);
    assert!(matches!(health.state(), TunnelState::Connected));
}

#[test]
fn after_a_failure_one_dial_tries_for_all() {
    let (mut health, start) = (health(), Instant::now());
    let seen = health.seen();
    let burst: Vec<_> = (0..20).map(|_| dial(&mut health, start)).collect();
    for attempt in burst {
        health.failed(attempt, &lost(), start);
    }
    // Twenty together count once.
    let TunnelState::Waiting { retry_in, .. } = health.state() else {
        panic!("{:?}", health.state());
    };
    assert_eq!(retry_in, seconds(1));
    assert!(matches!(health.turn(start, seen), Turn::Wait(Some(at)) if at == start + seconds(1)));
    let now = start + seconds(1);
    let Turn::Dial(probe) = health.turn(now, seen) else {
        panic!("it is due");
    };
    assert!(matches!(
        health.state(),
        TunnelState::Connecting { attempt: 2 }
    ));
    assert!(matches!(health.turn(now, seen), Turn::Wait(None)));
    health.failed(probe, &lost(), now);
    assert!(
        matches!(health.state(), TunnelState::Waiting { retry_in, .. } if retry_in == seconds(2))
    );
    let now = now + seconds(2);
    let Turn::Dial(probe) = health.turn(now, seen) else {
        panic!("it is due");
    };
    health.answered(probe);
    assert!(matches!(health.state(), TunnelState::Connected));
    // And the waits begin anew.
    let attempt = dial(&mut health, now);
    health.failed(attempt, &lost(), now);
    assert!(
        matches!(health.state(), TunnelState::Waiting { retry_in, .. } if retry_in == seconds(1))
    );
}

#[test]
fn a_new_opening_does_not_wait_for_the_others_delay() {
    let (mut health, start) = (health(), Instant::now());
    let mut now = start;
    // Until the wait is a long one.
    for _ in 0..5 {
        let attempt = dial(&mut health, now);
        health.failed(attempt, &lost(), now);
        now += seconds(31);
    }
    let attempt = dial(&mut health, now);
    health.failed(attempt, &lost(), now);
    let seen = health.seen();
    let begin = now + MIN_DIAL_INTERVAL;
    assert!(matches!(health.turn(now, seen), Turn::Wait(Some(at)) if at == begin));
    assert!(matches!(health.turn(begin, seen), Turn::Dial(_)));
}

#[test]
fn what_does_not_pass_is_said_to_those_who_waited_only() {
    let (mut health, now) = (health(), Instant::now());
    let before = health.seen();
    let attempt = dial(&mut health, now);
    health.failed(attempt, &forbidden(), now);
    assert!(matches!(health.turn(now, before), Turn::Failed(_)));
    let after = health.seen();
    assert!(matches!(
        health.turn(now + seconds(1), after),
        Turn::Dial(_)
    ));
}

#[test]
fn a_dial_that_fails_after_another_was_answered_says_nothing() {
    let (mut health, now) = (health(), Instant::now());
    let slow = dial(&mut health, now);
    let quick = dial(&mut health, now);
    health.answered(quick);
    health.failed(slow, &lost(), now);
    assert!(matches!(health.state(), TunnelState::Connected));
    assert!(health.is_good());
}

#[test]
fn one_who_leaves_takes_the_trial_with_nobody() {
    let (mut health, now) = (health(), Instant::now());
    let attempt = dial(&mut health, now);
    health.failed(attempt, &lost(), now);
    let later = now + seconds(2);
    let probe = dial(&mut health, later);
    health.abandoned(probe);
    assert!(matches!(health.state(), TunnelState::Waiting { .. }));
    // The next may: what was due is due.
    dial(&mut health, later + seconds(1));
}

#[test]
fn a_trial_ends_with_somebody_elses_answer() {
    let (mut health, now) = (health(), Instant::now());
    let (first, second) = (dial(&mut health, now), dial(&mut health, now));
    health.failed(first, &lost(), now);
    let later = now + seconds(2);
    let old_trial = dial(&mut health, later);
    health.answered(second);
    // Nobody has to wait for it any more, and what it finds counts for nothing.
    let third = dial(&mut health, later);
    health.failed(third, &lost(), later);
    let seen = health.seen();
    let trial = dial(&mut health, later + seconds(2));
    assert!(health.is_stale(&old_trial) && !health.is_stale(&trial));
    health.failed(old_trial, &lost(), later + seconds(2));
    assert!(matches!(
        health.turn(later + seconds(2), seen),
        Turn::Wait(None)
    ));
    health.answered(trial);
    assert!(matches!(health.state(), TunnelState::Connected));
}

#[test]
fn nothing_leads_back_out_of_a_shutdown() {
    let (mut health, now) = (health(), Instant::now());
    let attempt = dial(&mut health, now);
    health.drain();
    health.answered(attempt);
    assert!(matches!(health.state(), TunnelState::Draining));
    let seen = health.seen();
    assert!(matches!(health.turn(now, seen), Turn::Closed));
    health.close();
    health.drain();
    assert!(matches!(health.state(), TunnelState::Closed));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Turn,
    Answered,
    Failed,
    Forbidden,
    Abandoned,
}

proptest! {
    /// In whatever order dials begin and end: the counts fit, there is at most one trial, and nobody waits for nothing.
    #[test]
    fn nobody_waits_for_a_dial_that_nobody_makes(
        steps in proptest::collection::vec((0..3_u64, prop::sample::select(vec![
            Step::Turn, Step::Turn, Step::Answered, Step::Failed, Step::Forbidden, Step::Abandoned,
        ]), any::<prop::sample::Index>()), 1..80),
    ) {
        let mut health = health();
        let mut now = Instant::now();
        let mut attempts = Vec::new();
        for (wait, step, which) in steps {
            now += seconds(wait);
            if matches!(step, Step::Turn) || attempts.is_empty() {
                let seen = health.seen();
                match health.turn(now, seen) {
                    Turn::Dial(attempt) => attempts.push(attempt),
                    Turn::Wait(None) => prop_assert!(health.trial.is_some()),
                    Turn::Wait(Some(at)) => prop_assert!(at > now && at <= now + MIN_DIAL_INTERVAL),
                    other => prop_assert!(false, "{:?}", other),
                }
            } else {
                let attempt = attempts.swap_remove(which.index(attempts.len()));
                match step {
                    Step::Answered => health.answered(attempt),
                    Step::Failed => health.failed(attempt, &lost(), now),
                    Step::Forbidden => health.failed(attempt, &forbidden(), now),
                    _ => health.abandoned(attempt),
                }
            }
            if health.trial.is_some() {
                prop_assert!(!health.is_good());
                prop_assert!(attempts.iter().any(|attempt| attempt.trial == health.trial));
            }
            prop_assert_eq!(health.dialling, attempts.len());
        }
    }
}
