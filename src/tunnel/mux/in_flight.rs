//! [`InFlight`]: how much may be under way to this side, on all streams together.
//!
//! Too little, and a long path stands empty most of the time. Too much, and it waits: in the buffers of kernels and
//! relays, where it delays every keystroke and leaves the processor's cache. The right amount is what the path holds
//! (its rate times its shortest round trip) and a little more, so that the path never runs dry. Nobody tells either
//! number, so they are measured, in rounds: a round is a PING and its PONG while data comes in.
//!
//! The documentation of [`mux`](super) has the picture.
//!
//! * The sender says when credit was all that it lacked (the flag WAITING of DATA). A round without that, and with
//!   little received, says nothing about the target: there was no more to send.
//! * In **startup** the target doubles while the round trip stays short.
//! * In **steady** state `target × (shortest + headroom) / round trip` is the next target: it comes to rest where
//!   bytes wait for just the headroom, whatever the rate is, and follows when the rate changes. It falls no lower than
//!   what the round itself delivered, so that an old queue is not answered twice. By how much round trips differ when
//!   nothing changes is part of the headroom: a path that trembles (a radio link) is not taken for a full one.
//! * A queue of our own may hide how short the path is. So after some seconds without a look at it the path is
//!   **drained** for two rounds. The same is done when a queue stays though the target falls: then the path has become
//!   longer, or the queue is somebody else's, and all that was known of it is learnt anew.
//!
//! Each stream that uses what it has gets its share by weight. Credit is never taken back: a target that falls shows
//! as credit that is not renewed.

use std::time::{Duration, Instant};

use super::{
    activity::{Activity, CurrentRound, RoundMark},
    config::{RECEIVE_FLOOR, SHARED_FRAME},
    path::{HighestRate, Period, Rate, ShortestRoundTrip, Train},
    priority::Weight,
};

/// The rule and what it has measured.
#[derive(Debug)]
pub(super) struct InFlight {
    shortest: ShortestRoundTrip,
    highest: HighestRate,
    train: Train,
    received: u64,
    phase: Phase,
    target: u64,
    largest: u64,
    /// While the path is drained.
    drained: u64,
    /// Rounds in a row that used the target and met no queue.
    calm_rounds: u32,
    /// Rounds in a row that met one.
    queued_rounds: u32,
    /// Whether a sender lacked credit since the last round began.
    waited: bool,
    round: Option<Round>,
    round_trip: Option<Duration>,
    round_trip_before: Option<Duration>,
    /// By how much one round trip differs from the next, on average.
    trembling: Duration,
    /// Looks at the path that are left to take before there is anything on it.
    first_looks: u32,
    next_round: Instant,
    received_at_round: u64,
    activity: Activity,
    allotment: Allotment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Startup,
    Steady,
    Draining { rounds: u32, then: Then },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    GoOn,
    StartUp,
}

impl Then {
    fn phase(self) -> Phase {
        match self {
            Self::GoOn => Phase::Steady,
            Self::StartUp => Phase::Startup,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Round {
    began: Instant,
    received: u64,
}

/// What a round has shown.
#[derive(Clone, Copy, Debug)]
struct RoundSeen {
    round_trip: Duration,
    shortest: Duration,
    received: u64,
}

impl RoundSeen {
    /// How long bytes waited.
    fn queue(self) -> Duration {
        self.round_trip.saturating_sub(self.shortest)
    }
}

/// What one stream may have under way or unread, as things are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allotment {
    /// Of a stream of weight 1 that uses what it has.
    pub(super) share: u64,
    /// Of a stream that has not shown yet that it does.
    pub(super) advance: u64,
    /// More credit than this is worth a frame, even if it is little of the window.
    pub(super) step: u64,
    pub(super) round: CurrentRound,
}

/// Below this a path of this machine only has more wake-ups, above it what is under way leaves the cache.
const SHORT_TARGET: u64 = 256 * 1024;

/// The least that is ever aimed at: a few frames, 40 ms of the slowest path that is worth a tunnel.
const SMALLEST_TARGET: u64 = 64 * 1024;

/// The first target on a path of some ten milliseconds: at a gigabit it is just enough to see the rate of the path
/// while it arrives; at 14 Mbit/s it waits for three quarters of a second, once.
const LONG_SEED: u64 = 1280 * 1024;

/// The first target in between.
const MIDDLE_SEED: u64 = 512 * 1024;

/// From here on a path is not within one machine or rack: what is not granted ahead costs a round trip.
const SHORT_PATH: Duration = Duration::from_millis(1);

/// From here on a round trip is felt.
const LONG_PATH: Duration = Duration::from_millis(10);

/// The queue that is aimed at, as a part of the shortest round trip. It covers what the granularity of credit takes
/// from the target.
const HEADROOM_PART: u32 = 32;
/// What is added to a promise, since a short train tells little exactly, and too little costs a gap right away.
const PROMISE_PART: u32 = 16;
/// Below this, the sample of a round trip is noise of schedulers.
const LEAST_HEADROOM: Duration = Duration::from_micros(50);
/// A path that trembles gets as much more, up to this part of the round trip: what looks like a queue may be none.
const TREMBLING_PART: u32 = 4;
/// What nobody feels.
const MOST_HEADROOM: Duration = Duration::from_millis(5);
/// On a slow path one frame is longer than all that: two of them fit.
const HEADROOM_BYTES: u64 = 2 * SHARED_FRAME as u64;
const MOST_FOR_FRAMES: Duration = Duration::from_millis(20);

/// What is under way in so little time nobody minds.
const SMALLEST_TIME: Duration = Duration::from_millis(5);

/// What may be added to the target of a fast path, in time of its rate.
const SPREAD_TIME: Duration = Duration::from_micros(250);
/// Of many streams: 64 KiB each make fewer wake-ups.
const SPREAD_BYTES: u64 = 64 * 1024;
/// Of few: one side fills and encrypts the next batch while the other is busy with the last one. With a single batch
/// they would take turns, and that looks like a path on which bytes wait.
const OVERLAP_BYTES: u64 = 512 * 1024;

/// Granted ahead to each new stream of a long path: an ordinary list comes without waiting for credit, and eight of them
/// make no long queue on a relay.
const ADVANCE: u64 = 128 * 1024;

/// Growth in one round of steady state.
const STEADY_GROWTH_PERCENT: u64 = 125;
/// After this many rounds without a queue the path has become faster.
const CALM_ROUNDS: u32 = 3;
const CALM_GROWTH_PERCENT: u64 = 150;

/// After this many rounds a queue is not ours, or the path is longer than we think. Small ones are left to the next
/// look at the path.
const STUBBORN_ROUNDS: u32 = 4;
const STUBBORN_PART: u32 = 4;

/// A round of this part of the target is busy, whether its sender lacked credit or the path had no room.
const BUSY_PART: u64 = 4;

/// A round of fewer bytes says nothing.
const ROUND_BYTES: u64 = 32 * 1024;
/// Pings are cheap, but not free.
const ROUND_PAUSE: Duration = Duration::from_millis(2);

/// One look may meet a busy scheduler.
const FIRST_LOOKS: u32 = 3;

const DRAIN_ROUNDS: u32 = 2;

impl InFlight {
    /// A rule that never aims at more than `largest` bytes.
    pub(super) fn new(now: Instant, largest: u64) -> Self {
        let mut new = Self {
            shortest: ShortestRoundTrip::new(),
            highest: HighestRate::default(),
            train: Train::default(),
            received: 0,
            phase: Phase::Startup,
            target: SHORT_TARGET,
            largest: largest.max(SHORT_TARGET),
            drained: 0,
            calm_rounds: 0,
            queued_rounds: 0,
            waited: false,
            round: None,
            round_trip: None,
            round_trip_before: None,
            trembling: Duration::ZERO,
            first_looks: FIRST_LOOKS,
            next_round: now,
            received_at_round: 0,
            activity: Activity::new(),
            allotment: Allotment {
                share: 0,
                advance: 0,
                step: 0,
                round: CurrentRound::FIRST,
            },
        };
        new.allot();
        new
    }

    /// The share of a stream, until the next call of any other method.
    pub(super) fn allotment(&self) -> Allotment {
        self.allotment
    }

    /// Whether the peer is within this machine or rack.
    pub(super) fn is_short(&self) -> bool {
        let shortest = self.shortest.get();
        shortest.is_some_and(|shortest| shortest < SHORT_PATH)
    }

    /// Bytes have arrived, of whatever kind.
    pub(super) fn handle_received(&mut self, now: Instant, bytes: u64) {
        self.received += bytes;
        let Some(rate) = self.train.observe(now, bytes) else {
            return;
        };
        self.highest.observe(now, rate);
        if self.phase == Phase::Startup
            && let Some(shortest) = self.shortest.get()
            && shortest >= SHORT_PATH
        {
            let promised =
                rate.bytes_in(shortest + self.headroom(shortest) + shortest / PROMISE_PART);
            self.target = self.target.max(promised).min(self.largest);
            self.allot();
        }
    }

    /// Whether a round should begin: a PING is wanted.
    pub(super) fn wants_round(&self, now: Instant) -> bool {
        if self.round.is_some() {
            return false;
        }
        let is_loaded = self.received - self.received_at_round >= ROUND_BYTES;
        (self.first_looks > 0 && self.shortest.get().is_some())
            || (is_loaded && now >= self.next_round)
    }

    /// A PING leaves.
    pub(super) fn handle_ping(&mut self, now: Instant) {
        self.waited = false;
        self.round = Some(Round {
            began: now,
            received: self.received,
        });
    }

    /// Its PONG has come.
    pub(super) fn handle_pong(&mut self, now: Instant) {
        let Some(round) = self.round.take() else {
            return;
        };
        let round_trip = now.saturating_duration_since(round.began);
        let received = self.received - round.received;
        self.first_looks = self.first_looks.saturating_sub(1);
        self.next_round = now + ROUND_PAUSE;
        self.received_at_round = self.received;
        self.round_trip_before = self.round_trip.replace(round_trip);
        let period = self.shortest.observe(now, round_trip);
        let Some(shortest) = self.shortest.get() else {
            return;
        };
        // A queue that comes or goes is no trembling.
        if let Some(before) = self.round_trip_before
            && round_trip.max(before) <= 2 * shortest
        {
            self.trembling = (self.trembling * 7 + round_trip.abs_diff(before)) / 8;
        }
        if let Some(rate) = Rate::of(received, round_trip)
            && received >= ROUND_BYTES
        {
            self.highest.observe(now, rate);
        }
        if self.received < ROUND_BYTES {
            self.target = seed(shortest);
        } else {
            let seen = RoundSeen {
                round_trip,
                shortest,
                received,
            };
            self.end_round(period, seen);
        }
        self.activity.end_round();
        self.allot();
    }

    /// The sender of a stream has more and lacks credit.
    pub(super) fn handle_waiting(&mut self) {
        self.waited = true;
    }

    /// A stream of `weight` has used what it was granted; `seen` is what this left in it the last time.
    pub(super) fn handle_use(&mut self, seen: &mut RoundMark, weight: Weight) {
        if self.activity.count(seen, weight) {
            self.allot();
        }
    }

    #[cfg(test)]
    pub(super) fn target(&self) -> u64 {
        self.target
    }

    fn end_round(&mut self, period: Period, seen: RoundSeen) {
        if let Phase::Draining { rounds, then } = self.phase {
            self.phase = match rounds {
                0..=1 => then.phase(),
                rounds => Phase::Draining {
                    rounds: rounds - 1,
                    then,
                },
            };
            return;
        }
        if !self.waited && seen.received < self.target / BUSY_PART {
            // The sender had no more.
            self.calm_rounds = 0;
            self.queued_rounds = 0;
            return;
        }
        let headroom = self.headroom(seen.shortest);
        if self.phase == Phase::Startup {
            if seen.queue() <= headroom / 2 {
                if self.waited {
                    self.target = (2 * self.target).min(self.largest);
                }
                return;
            }
            self.phase = Phase::Steady;
        }
        self.target = self
            .next_target(seen, headroom)
            .clamp(self.smallest_target(), self.largest);
        if self.queued_rounds >= STUBBORN_ROUNDS {
            self.queued_rounds = 0;
            self.drain(seen, Then::StartUp);
            self.shortest.forget();
        } else if period == Period::EndedUnconfirmed {
            self.drain(seen, Then::GoOn);
        }
    }

    fn next_target(&mut self, seen: RoundSeen, headroom: Duration) -> u64 {
        // One round is enough to stop growing, two are asked for to shrink: single answers may be held up.
        let steady = self.steady_round_trip(seen);
        let is_calm = seen.queue() < headroom / 2;
        let is_queued = steady > seen.shortest + seen.shortest / STUBBORN_PART + 2 * headroom;
        self.calm_rounds = if is_calm { self.calm_rounds + 1 } else { 0 };
        // A queue that is left on purpose is not stubborn.
        let could_do_more = self.target > self.smallest_target();
        self.queued_rounds = if is_queued && could_do_more {
            self.queued_rounds + 1
        } else {
            0
        };
        let smaller = scaled(self.target, seen.shortest + headroom, steady);
        if smaller < self.target {
            let delivered = scaled(seen.received, seen.shortest, seen.round_trip);
            return smaller.max(delivered).min(self.target);
        }
        let larger = scaled(self.target, seen.shortest + headroom, seen.round_trip);
        if !self.waited || larger < self.target {
            return self.target;
        }
        if self.calm_rounds > CALM_ROUNDS {
            return self.target * CALM_GROWTH_PERCENT / 100;
        }
        larger.min(self.target * STEADY_GROWTH_PERCENT / 100)
    }

    /// The round trip without what only trembles: a queue shows in several rounds, or is as long as the path.
    fn steady_round_trip(&self, seen: RoundSeen) -> Duration {
        if seen.round_trip > 2 * seen.shortest {
            return seen.round_trip;
        }
        let before = self.round_trip_before.unwrap_or(Duration::MAX);
        seen.round_trip.min(before)
    }

    /// Keeps less under way than the path holds, so that the next but one round sees it empty.
    fn drain(&mut self, seen: RoundSeen, then: Then) {
        self.phase = Phase::Draining {
            rounds: DRAIN_ROUNDS,
            then,
        };
        self.drained = scaled(seen.received, seen.shortest * 3 / 4, seen.round_trip);
    }

    /// How long bytes may wait on the path.
    fn headroom(&self, shortest: Duration) -> Duration {
        let part = (shortest / HEADROOM_PART).clamp(LEAST_HEADROOM, MOST_HEADROOM);
        let frames = self.highest.get().time_for(HEADROOM_BYTES);
        part + frames.min(MOST_FOR_FRAMES) + self.trembling.min(shortest / TREMBLING_PART)
    }

    fn smallest_target(&self) -> u64 {
        let rate = self.highest.get();
        rate.bytes_in(SMALLEST_TIME)
            .clamp(SMALLEST_TARGET, SHORT_TARGET)
    }

    fn allot(&mut self) {
        let weights = u64::from(self.activity.weights());
        let rate = self.highest.get();
        let target = match self.phase {
            Phase::Draining { .. } => self.drained.min(self.target),
            _ => {
                let spread = (weights * SPREAD_BYTES).max(OVERLAP_BYTES);
                self.target.max(spread.min(rate.bytes_in(SPREAD_TIME)))
            }
        };
        let share = target / weights;
        let (advance, step) = if self.is_short() {
            (0, share / 4)
        } else {
            (share.min(ADVANCE), share / 8)
        };
        self.allotment = Allotment {
            share,
            advance,
            step: step.clamp(RECEIVE_FLOOR, LARGEST_STEP),
            round: self.activity.round(),
        };
    }
}

/// Finer credit would only make more frames.
const LARGEST_STEP: u64 = 128 * 1024;

fn seed(shortest: Duration) -> u64 {
    if shortest < SHORT_PATH {
        SHORT_TARGET
    } else if shortest < LONG_PATH {
        MIDDLE_SEED
    } else {
        LONG_SEED
    }
}

/// `value × numerator / denominator`.
fn scaled(value: u64, numerator: Duration, denominator: Duration) -> u64 {
    let scaled = u128::from(value) * numerator.as_nanos() / denominator.as_nanos().max(1);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}
