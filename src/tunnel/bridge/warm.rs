//! [`Warm`]: bridged connections that wait for an opening, so that it need not wait for them.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::BytesMut;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::AsyncReadExt,
    sync::Notify,
    time::{Instant, sleep_until},
};
use tracing::debug;

use super::{BridgePort, line::Line, lock, stream::put_back};
use crate::{
    net::{Backoff, random_jitter},
    tunnel::stream::BytePipe,
};

/// The most connections that are kept. Each holds a socket here, a relayed connection (of which a namespace has 5,000)
/// and a connection to the target; a burst of `kubectl` needs a few.
pub(super) const MAX_WARM: usize = 16;

/// How long one is kept unless told otherwise: less than the 32 seconds in which the API server of Kubernetes closes a
/// connection that asks for nothing, so that none is handed out while its end is on the way.
pub(super) const MAX_AGE: Duration = Duration::from_secs(25);

/// How long after the last opening they are replaced. Nobody's laptop dials all night.
const WITHOUT_USE: Duration = Duration::from_secs(300);

/// How much a target that speaks first may say before anybody listens.
const MAX_FIRST: usize = 16 * 1024;

/// The waiting connections to one port.
pub(super) struct Warm {
    port: BridgePort,
    size: usize,
    max_age: Duration,
    inner: Mutex<Inner>,
    /// An opening came by.
    used: Notify,
}

struct Inner {
    /// Oldest first.
    idle: VecDeque<Idle>,
    last_use: Option<Instant>,
}

struct Idle {
    io: Box<dyn BytePipe>,
    /// What the target has said.
    first: BytesMut,
    born: Instant,
}

impl Warm {
    pub(super) fn new(port: BridgePort, size: usize, max_age: Duration) -> Self {
        Self {
            port,
            size: size.min(MAX_WARM),
            max_age,
            inner: Mutex::new(Inner {
                idle: VecDeque::new(),
                last_use: None,
            }),
            used: Notify::new(),
        }
    }

    pub(super) fn port(&self) -> &BridgePort {
        &self.port
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.inner).idle.len()
    }

    /// One for an opening, if one is there, and alive as far as can be told.
    pub(super) fn take(&self) -> Option<Box<dyn BytePipe>> {
        let now = Instant::now();
        let mut inner = lock(&self.inner);
        inner.last_use = Some(now);
        self.used.notify_one();
        let mut cx = Context::from_waker(Waker::noop());
        while let Some(mut idle) = inner.idle.pop_front() {
            if now < idle.born + self.max_age && idle.poll_end(&mut cx).is_pending() {
                return Some(put_back(idle.first.freeze(), idle.io));
            }
        }
        None
    }

    /// Keeps them until the tunnel is shut down or dropped.
    pub(super) async fn keep(self: Arc<Self>, line: Line) {
        let dial = async || line.bridge(&self.port, &mut None).await;
        let mut dials = FuturesUnordered::new();
        let mut backoff = Backoff::new(random_jitter);
        let mut resume_at = Instant::now();
        loop {
            let now = Instant::now();
            let missing = self.missing(now);
            if missing == 0 {
                dials.clear();
            }
            if now >= resume_at {
                for _ in dials.len()..missing {
                    dials.push(dial());
                }
            }
            let wake_at = self.next_change(now, resume_at);
            tokio::select! {
                biased;
                () = line.shared.left() => break,
                Some(outcome) = dials.next() => match outcome {
                    Ok(io) => self.put(io),
                    Err(error) => {
                        debug!(reason = %error.report(), "no warm connection");
                        resume_at = Instant::now() + backoff.after_refusal();
                    }
                },
                lifetime = self.lost() => {
                    resume_at = Instant::now() + backoff.after_loss(lifetime);
                    debug!(?lifetime, "a warm connection ended");
                }
                () = self.used.notified() => backoff = Backoff::new(random_jitter),
                () = sleep_until(wake_at) => {}
            }
        }
        lock(&self.inner).idle.clear();
    }

    fn put(&self, io: Box<dyn BytePipe>) {
        lock(&self.inner).idle.push_back(Idle {
            io,
            first: BytesMut::new(),
            born: Instant::now(),
        });
    }

    /// How many there should be more, those on the way included; lets go of the aged ones.
    fn missing(&self, now: Instant) -> usize {
        let mut inner = lock(&self.inner);
        inner.idle.retain(|idle| now < idle.born + self.max_age);
        match inner.last_use {
            Some(last) if now < last + WITHOUT_USE => self.size.saturating_sub(inner.idle.len()),
            _ => 0,
        }
    }

    /// When there may be something to do though nothing happens.
    fn next_change(&self, now: Instant, resume_at: Instant) -> Instant {
        let inner = lock(&self.inner);
        let aged = inner.idle.front().map(|idle| idle.born + self.max_age);
        let unused = inner.last_use.map(|last| last + WITHOUT_USE);
        [aged, unused, Some(resume_at)]
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .min()
            .unwrap_or(now + WITHOUT_USE)
    }

    /// Resolves when one has ended, with how long it lived. Reading them all the while is what keeps the others alive.
    async fn lost(&self) -> Duration {
        poll_fn(|cx| {
            let mut inner = lock(&self.inner);
            let ended = inner
                .idle
                .iter_mut()
                .position(|idle| idle.poll_end(cx).is_ready());
            match ended.and_then(|index| inner.idle.remove(index)) {
                Some(idle) => Poll::Ready(idle.born.elapsed()),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl Idle {
    /// Ready when the far end has closed, or is gone. What it says before that is kept.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.first.len() < MAX_FIRST {
            match pin!(self.io.read_buf(&mut self.first)).poll(cx) {
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }
}
