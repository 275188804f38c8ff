//! [`Health`]: whether the way to the bridge listener works, and who may try it when. Does no I/O.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    Error,
    net::{Backoff, Jitter},
    tunnel::TunnelState,
};

/// The least time between the starts of two dials that openings asked for while the way does not work. A program that
/// retries in a tight loop does not make the tunnel hammer the relay.
pub(super) const MIN_DIAL_INTERVAL: Duration = Duration::from_secs(1);

/// What is known from the dials so far.
///
/// While the way works everybody dials at will. After a failure one dial at a time tries it, and what it learns holds
/// for all that wait: a hundred openings do not make a hundred dials.
pub(super) struct Health {
    jitter: Jitter,
    backoff: Backoff,
    /// Dials that have begun and not ended.
    dialling: usize,
    /// The one of them that tries for all, while the way does not work.
    trial: Option<Trial>,
    next_trial: u64,
    /// How often the listener has answered.
    answers: u64,
    /// Of those in a row that count, so zero means that the way works, as far as is known.
    failures: u32,
    /// Of all that ever counted.
    failure_number: u64,
    last_failure: Option<Failure>,
    last_dial: Option<Instant>,
    ending: Ending,
}

/// The number of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trial(u64);

struct Failure {
    reason: Arc<Error>,
    retry_in: Duration,
    due: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Open,
    Draining,
    Closed,
}

/// A dial that may begin. To be given back to one of [`Health`]'s methods.
#[derive(Debug)]
pub(super) struct Attempt {
    trial: Option<Trial>,
    /// [`Health::answers`] when it began.
    answers: u64,
}

/// What an opening knew when it came: later failures are news.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen(u64);

/// What somebody who wants to dial has to do.
#[derive(Debug)]
pub(super) enum Turn {
    Dial(Attempt),
    /// Ask again when something has changed, or it is this late.
    Wait(Option<Instant>),
    /// The dial that was waited for failed in a way that does not pass.
    Failed(Arc<Error>),
    Closed,
}

impl Health {
    pub(super) fn new(jitter: Jitter) -> Self {
        Self {
            jitter,
            backoff: Backoff::new(jitter),
            dialling: 0,
            trial: None,
            next_trial: 0,
            answers: 0,
            failures: 0,
            failure_number: 0,
            last_failure: None,
            last_dial: None,
            ending: Ending::Open,
        }
    }

    pub(super) fn seen(&self) -> Seen {
        Seen(self.failure_number)
    }

    pub(super) fn turn(&mut self, now: Instant, seen: Seen) -> Turn {
        if self.ending != Ending::Open {
            return Turn::Closed;
        }
        let trial = match &self.last_failure {
            None => None,
            Some(_) if self.trial.is_some() => return Turn::Wait(None),
            Some(failure) => {
                // A failure from before the call says nothing about now.
                let is_news = self.failure_number > seen.0;
                if is_news && !failure.reason.is_retryable() {
                    return Turn::Failed(Arc::clone(&failure.reason));
                }
                let begin = match self.last_dial {
                    Some(last) if !is_news => failure.due.min(last + MIN_DIAL_INTERVAL),
                    _ => failure.due,
                };
                if now < begin {
                    return Turn::Wait(Some(begin));
                }
                self.next_trial += 1;
                Some(Trial(self.next_trial))
            }
        };
        self.trial = trial;
        self.dialling += 1;
        self.last_dial = Some(now);
        Turn::Dial(Attempt {
            trial,
            answers: self.answers,
        })
    }

    /// The listener answered, be it with a refusal of this one stream.
    pub(super) fn answered(&mut self, attempt: Attempt) {
        self.end(&attempt);
        // Whoever still tries for all is one of many now.
        self.trial = None;
        self.answers += 1;
        self.failures = 0;
        self.last_failure = None;
        self.backoff = Backoff::new(self.jitter);
    }

    /// The dial failed before anybody at the far end answered.
    pub(super) fn failed(&mut self, attempt: Attempt, reason: &Arc<Error>, now: Instant) {
        let tried_for_all = self.end(&attempt);
        // Somebody got through since this dial began, or it is one of many that fail together.
        let is_old = self.answers != attempt.answers;
        let is_one_of_many = self.failures > 0 && !tried_for_all;
        if is_old || is_one_of_many {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        self.failure_number += 1;
        let retry_in = if reason.is_retryable() {
            self.backoff.after_failure()
        } else {
            self.backoff.after_refusal()
        };
        self.last_failure = Some(Failure {
            reason: Arc::clone(reason),
            retry_in,
            due: now + retry_in,
        });
    }

    /// Whoever dialled does not want it any more.
    pub(super) fn abandoned(&mut self, attempt: Attempt) {
        self.end(&attempt);
    }

    /// Whether it was the trial.
    fn end(&mut self, attempt: &Attempt) -> bool {
        self.dialling -= 1;
        let tried_for_all = attempt.trial.is_some() && attempt.trial == self.trial;
        if tried_for_all {
            self.trial = None;
        }
        tried_for_all
    }

    /// Whether `attempt` was granted when the way worked, and now does not.
    pub(super) fn is_stale(&self, attempt: &Attempt) -> bool {
        self.failures > 0 && (attempt.trial.is_none() || attempt.trial != self.trial)
    }

    /// Whether the last dials that count were answered.
    pub(super) fn is_good(&self) -> bool {
        self.failures == 0
    }

    pub(super) fn last_failure(&self) -> Option<&Arc<Error>> {
        Some(&self.last_failure.as_ref()?.reason)
    }

    /// Takes no more dials.
    pub(super) fn drain(&mut self) {
        if self.ending == Ending::Open {
            self.ending = Ending::Draining;
        }
    }

    pub(super) fn close(&mut self) {
        self.ending = Ending::Closed;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.ending == Ending::Closed
    }

    pub(super) fn state(&self) -> TunnelState {
        match self.ending {
            Ending::Closed => return TunnelState::Closed,
            Ending::Draining => return TunnelState::Draining,
            Ending::Open => {}
        }
        match &self.last_failure {
            Some(failure) if self.dialling == 0 => TunnelState::Waiting {
                retry_in: failure.retry_in,
                reason: Arc::clone(&failure.reason),
            },
            Some(_) => TunnelState::Connecting {
                attempt: self.failures.saturating_add(1),
            },
            None if self.answers > 0 => TunnelState::Connected,
            None if self.dialling > 0 => TunnelState::Connecting { attempt: 1 },
            None => TunnelState::Idle,
        }
    }

    /// Equal where [`state`](Self::state) is the same.
    pub(super) fn version(&self) -> (u8, u32, u64) {
        let kind = match self.state() {
            TunnelState::Idle => 0,
            TunnelState::Connecting { .. } => 1,
            TunnelState::Connected => 2,
            TunnelState::Waiting { .. } => 3,
            TunnelState::Draining => 4,
            TunnelState::Closed => 5,
        };
        // Neither counts while the way works or the end has come.
        let failures = if kind == 1 || kind == 3 {
            self.failures
        } else {
            0
        };
        let number = if kind == 3 { self.failure_number } else { 0 };
        (kind, failures, number)
    }
}

#[cfg(test)]
mod tests;
