//! [`DelayLine`]: the way from one end of a relayed connection to the other.

use std::{
    collections::VecDeque,
    num::NonZeroU64,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::relay::websocket::{CloseReason, MessageEnd, MessageKind};

/// What one end sent and the other is not to have yet, in its order.
///
/// ```text
///  push ──► [ on its way: `delay` each, side by side ] ──► [ leaves one after the other, at `rate` ] ──► pop
///           └──────────────────────────── `buffer` bytes at most ────────────────────────────────┘
/// ```
///
/// Each piece has the time at which it may leave, so many are on their way at once and a delay costs no throughput. All
/// of them count towards the buffer; when it is full nothing more is read from the end that sends, and so it stalls.
pub(in crate::relay::server) struct DelayLine {
    delay: Duration,
    /// Bits per second.
    rate: Option<NonZeroU64>,
    buffer: usize,
    queue: VecDeque<Queued>,
    held: Held,
    /// What has left occupies the way until then.
    free_at: Instant,
    /// The receiver would not take what was due: time that passes then is no credit for a burst.
    is_blocked: bool,
    /// Behind a loss comes nothing.
    has_loss: bool,
    timer: Pin<Box<Sleep>>,
}

/// What passes through.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::relay::server) enum Cargo {
    /// A piece of a message.
    Data {
        kind: MessageKind,
        /// A copy: a slice of what was read at once would keep all of that in memory.
        payload: Box<[u8]>,
        end: MessageEnd,
    },
    Close(Option<CloseReason>),
    /// The end that sends was lost.
    Loss,
}

struct Queued {
    /// When it is at the far end, if it is alone.
    ready_at: Instant,
    cargo: Cargo,
}

/// The bytes in one line, and in all lines of the relay.
struct Held {
    here: usize,
    everywhere: Arc<AtomicUsize>,
}

/// All lines of a relay together. It is 68 directions with a stalled receiver and a buffer as large as Azure's each; beyond it
/// the next ones hold one piece at a time.
pub(in crate::relay::server) const MAX_HELD: usize = 1 << 30;

/// What a piece costs beside its bytes: its entry, twice because a queue grows by doubling, and its allocation. So that
/// empty messages fill a buffer too.
const PIECE_OVERHEAD: usize = 192;
const _: () = assert!(2 * size_of::<Queued>() <= PIECE_OVERHEAD - 32);

impl DelayLine {
    pub(super) fn new(
        delay: Duration,
        rate: Option<NonZeroU64>,
        buffer: usize,
        everywhere: Arc<AtomicUsize>,
    ) -> Self {
        let now = Instant::now();
        Self {
            delay,
            rate,
            buffer,
            queue: VecDeque::new(),
            held: Held {
                here: 0,
                everywhere,
            },
            free_at: now,
            is_blocked: false,
            has_loss: false,
            timer: Box::pin(sleep_until(now)),
        }
    }

    /// Whether a piece may be pushed. One always may when there is none, so that nothing stands still.
    pub(in crate::relay::server) fn has_room(&self) -> bool {
        let everywhere = self.held.everywhere.load(Ordering::Relaxed);
        self.queue.is_empty() || (self.held.here < self.buffer && everywhere < MAX_HELD)
    }

    /// Ask [`has_room`](Self::has_room) before; otherwise the buffer grows by the piece.
    pub(in crate::relay::server) fn push(&mut self, cargo: Cargo) {
        if self.has_loss {
            return;
        }
        self.has_loss = cargo == Cargo::Loss;
        self.held.add(cargo.size());
        let ready_at = Instant::now() + self.delay;
        self.queue.push_back(Queued { ready_at, cargo });
    }

    pub(in crate::relay::server) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What [`pop`](Self::pop) takes next, when it is due. Nothing wakes the task when the line is empty but what pushes.
    pub(in crate::relay::server) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<&Cargo> {
        let Some(due_at) = self.due_at() else {
            return Poll::Pending;
        };
        if self.timer.deadline() != due_at {
            self.timer.as_mut().reset(due_at);
        }
        // The timer by itself would wait for a whole millisecond.
        if due_at > Instant::now() {
            ready!(self.timer.as_mut().poll(cx));
        }
        self.queue
            .front()
            .map_or(Poll::Pending, |next| Poll::Ready(&next.cargo))
    }

    /// What is due can not be delivered now.
    pub(in crate::relay::server) fn blocked(&mut self) {
        self.is_blocked = true;
    }

    /// Takes what [`poll_due`](Self::poll_due) was ready with.
    pub(in crate::relay::server) fn pop(&mut self) -> Option<Cargo> {
        let due_at = self.due_at()?;
        let Queued { cargo, .. } = self.queue.pop_front()?;
        self.held.remove(cargo.size());
        // Not now: a timer that comes late must not slow the rate.
        self.free_at = if self.is_blocked {
            Instant::now()
        } else {
            due_at
        };
        self.is_blocked = false;
        Some(cargo)
    }

    fn due_at(&self) -> Option<Instant> {
        let next = self.queue.front()?;
        Some(next.ready_at.max(self.free_at) + self.time_of(&next.cargo))
    }

    /// How long a piece occupies the way.
    fn time_of(&self, cargo: &Cargo) -> Duration {
        let (Cargo::Data { payload, .. }, Some(rate)) = (cargo, self.rate) else {
            return Duration::ZERO;
        };
        // A piece is what was read at once; even at one bit per second the product is far from overflow.
        let bits = payload.len() as u64 * 8;
        Duration::from_nanos(bits * 1_000_000_000 / rate)
    }
}

impl Cargo {
    /// A copy of a piece.
    pub(in crate::relay::server) fn data(
        kind: MessageKind,
        payload: &[u8],
        end: MessageEnd,
    ) -> Self {
        Self::Data {
            kind,
            payload: payload.into(),
            end,
        }
    }

    fn size(&self) -> usize {
        let payload = match self {
            Self::Data { payload, .. } => payload.len(),
            Self::Close(_) | Self::Loss => 0,
        };
        payload + PIECE_OVERHEAD
    }
}

impl Held {
    fn add(&mut self, size: usize) {
        self.here += size;
        self.everywhere.fetch_add(size, Ordering::Relaxed);
    }

    fn remove(&mut self, size: usize) {
        self.here -= size;
        self.everywhere.fetch_sub(size, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.remove(self.here);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn line(delay: Duration, bits_per_second: u64, buffer: usize) -> DelayLine {
        let rate = NonZeroU64::new(bits_per_second);
        DelayLine::new(delay, rate, buffer, Arc::default())
    }

    fn piece(size: usize) -> Cargo {
        Cargo::data(MessageKind::Binary, &vec![7; size], MessageEnd::Last)
    }

    async fn pop(line: &mut DelayLine) -> Cargo {
        poll_fn(|cx| line.poll_due(cx).map(drop)).await;
        line.pop().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_are_on_their_way_side_by_side() {
        let mut line = line(30 * MS, 0, 1000);
        let start = Instant::now();
        for _ in 0..3 {
            line.push(piece(1));
            tokio::time::sleep(MS).await;
        }
        for after in 30..33 {
            assert_eq!(pop(&mut line).await, piece(1));
            assert_eq!(start.elapsed(), after * MS);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn they_leave_one_after_the_other_at_the_rate() {
        // A byte per millisecond.
        let mut line = line(30 * MS, 8000, 1 << 20);
        let start = Instant::now();
        for size in [5, 1, 4] {
            line.push(piece(size));
        }
        line.push(Cargo::Close(None));
        for after in [35, 36, 40, 40] {
            pop(&mut line).await;
            assert_eq!(start.elapsed(), after * MS);
        }
        // A pause is no credit.
        tokio::time::sleep(1000 * MS).await;
        let start = Instant::now();
        line.push(piece(10));
        pop(&mut line).await;
        assert_eq!(start.elapsed(), 40 * MS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_timer_costs_no_rate_and_a_receiver_that_stops_earns_none() {
        for (is_blocked, after) in [(false, 100), (true, 110)] {
            let mut line = line(Duration::ZERO, 8000, 1 << 20);
            let start = Instant::now();
            line.push(piece(10));
            line.push(piece(10));
            tokio::time::sleep(100 * MS).await;
            if is_blocked {
                line.blocked();
            }
            pop(&mut line).await;
            assert_eq!(start.elapsed(), 100 * MS);
            pop(&mut line).await;
            assert_eq!(start.elapsed(), after * MS);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_sizes_hold_the_rate_to_the_microsecond() {
        let mut line = line(Duration::ZERO, 14_000_000, usize::MAX);
        let start = Instant::now();
        let mut bytes = 0;
        for size in 0..1000 {
            line.push(piece(size * 7));
            bytes += size * 7;
        }
        for _ in 0..1000 {
            pop(&mut line).await;
        }
        let expected = bytes as f64 * 8.0 / 14e6;
        let off = line.free_at.duration_since(start).as_secs_f64() - expected;
        assert!(off.abs() < 1e-6, "{off}");
    }

    #[tokio::test(start_paused = true)]
    async fn empty_pieces_fill_the_buffer_too() {
        let mut line = line(MS, 0, 10 * PIECE_OVERHEAD);
        for _ in 0..10 {
            assert!(line.has_room());
            line.push(piece(0));
        }
        assert!(!line.has_room());
        pop(&mut line).await;
        assert!(line.has_room());
    }

    #[tokio::test(start_paused = true)]
    async fn all_lines_together_have_a_limit_and_none_stands_still() {
        let everywhere = Arc::new(AtomicUsize::new(MAX_HELD));
        let mut line = DelayLine::new(MS, None, usize::MAX, Arc::clone(&everywhere));
        for _ in 0..3 {
            assert!(line.has_room());
            line.push(piece(100));
            assert!(!line.has_room());
            pop(&mut line).await;
        }
        line.push(piece(100));
        drop(line);
        assert_eq!(everywhere.load(Ordering::Relaxed), MAX_HELD);
    }

    #[tokio::test(start_paused = true)]
    async fn behind_a_loss_comes_nothing() {
        let mut line = line(MS, 0, 0);
        line.push(Cargo::Loss);
        line.push(piece(1));
        assert_eq!(pop(&mut line).await, Cargo::Loss);
        assert!(line.is_empty());
    }
}
