//! [`Refresher`]: the task that gets the next credential in time, and notices that the machine was asleep.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep};
use tracing::{Instrument, debug, info, info_span, warn};

use super::Keeper;
use crate::{
    clock::Clock,
    net::{Backoff, Jitter},
    telemetry,
    tunnel::supervise::Handle,
};

/// How often the clocks are looked at. A machine that wakes up is noticed so much later at most, and a laptop's
/// battery does not notice.
const TICK: Duration = Duration::from_secs(5);

/// By how much more than the time waited for the wall clock may have moved before the machine counts as having slept.
/// Clocks are set by seconds while a machine runs; a machine under load is late by less.
const SLEPT_AFTER: Duration = Duration::from_secs(10);

/// How long a connection may take for a sign of life after the machine slept. Wireless networks need some seconds to be
/// back; the multiplexer alone would take three quarters of a minute.
pub(super) const PROBE_LIMIT: Duration = Duration::from_secs(10);

pub(super) struct Refresher {
    keeper: Arc<Keeper>,
    tunnel: Handle,
    clock: Clock,
    jitter: Jitter,
    backoff: Backoff,
    /// No attempt before this: the last one failed.
    pause_until: Option<Instant>,
}

impl Refresher {
    pub(super) fn new(keeper: Arc<Keeper>, tunnel: Handle, clock: Clock, jitter: Jitter) -> Self {
        Self {
            keeper,
            tunnel,
            clock,
            jitter,
            backoff: Backoff::new(jitter),
            pause_until: None,
        }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let span = info_span!(telemetry::SPAN_TUNNEL, task = "credential");
        async {
            loop {
                let wait = self.wait();
                let before = self.clock.now();
                sleep(wait).await;
                if has_slept(before, self.clock.now(), wait) {
                    info!("this machine was asleep: looking after the connection");
                    self.forget_failures();
                    let tunnel = self.tunnel.clone();
                    tokio::join!(tunnel.doubt(PROBE_LIMIT), self.refresh_if_due());
                } else {
                    self.refresh_if_due().await;
                }
            }
        }
        .instrument(span)
        .await;
    }

    /// Until the next look: at the clocks, or at what is due before.
    fn wait(&self) -> Duration {
        let due = match (self.pause_until, self.keeper.refresh_due_at()) {
            (Some(pause), _) => pause.saturating_duration_since(Instant::now()),
            (None, Some(due)) => due.duration_since(self.clock.now()).unwrap_or_default(),
            (None, None) => Duration::ZERO,
        };
        due.clamp(SHORTEST_WAIT, TICK)
    }

    async fn refresh_if_due(&mut self) {
        let due = self.keeper.refresh_due_at();
        if due.is_some_and(|due| due > self.clock.now()) {
            // A dial may have got one meanwhile.
            self.pause_until = None;
            return;
        }
        if self.pause_until.is_some_and(|pause| pause > Instant::now()) {
            return;
        }
        match self.keeper.refresh().await {
            Ok(_) => {
                debug!("have a new credential for the relay");
                self.forget_failures();
                self.tunnel.renew();
            }
            Err(error) => {
                let retry_in = if error.is_retryable() {
                    self.backoff.after_failure()
                } else {
                    self.backoff.after_refusal()
                };
                self.pause_until = Some(Instant::now() + retry_in);
                warn!(
                    error = error.report(),
                    help = error.help(),
                    ?retry_in,
                    "no new credential for the relay yet; the present one stays in use until it ends"
                );
            }
        }
    }

    fn forget_failures(&mut self) {
        self.backoff = Backoff::new(self.jitter);
        self.pause_until = None;
    }
}

/// Whether the wall clock moved on by much more than was waited for. Some systems' other clock stands still while the
/// machine sleeps, some systems' does not: this one says it on all.
fn has_slept(before: SystemTime, after: SystemTime, waited: Duration) -> bool {
    after
        .duration_since(before)
        .is_ok_and(|moved| moved > waited + SLEPT_AFTER)
}

/// What is due at once, and fails at once, is no reason for a busy loop.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
