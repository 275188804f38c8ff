//! An emulated link: a rate, a delay and a queue for each direction. (The kernels of shared machines lack `tc netem`.)

use std::{collections::VecDeque, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf},
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// One direction of a link.
#[derive(Clone, Copy)]
pub struct Link {
    /// Bytes a second.
    rate: f64,
    /// From one end to the other, without queueing.
    delay: Duration,
    /// What may wait for the link before its sender has to.
    queue: usize,
}

pub const WAN: Link = Link {
    rate: 1e9 / 8.0,
    delay: Duration::from_millis(25),
    queue: 625_000,
};

pub const RELAY: Link = Link {
    rate: 14e6 / 8.0,
    delay: Duration::from_millis(50),
    queue: 15 << 20,
};

impl Link {
    /// The most that the link moves, in MiB/s.
    pub const fn mebibytes_per_second(self) -> f64 {
        self.rate / (1 << 20) as f64
    }
}

/// Between a multiplexer and the link; small beside the link's own queue.
const EDGE_BYTES: usize = 64 * 1024;
const PIECE_BYTES: usize = 16 * 1024;

/// Both ends of a link that is the same in either direction.
pub fn open(link: Link) -> (DuplexStream, DuplexStream) {
    let (near, near_inner) = tokio::io::duplex(EDGE_BYTES);
    let (far, far_inner) = tokio::io::duplex(EDGE_BYTES);
    let (near_read, near_write) = tokio::io::split(near_inner);
    let (far_read, far_write) = tokio::io::split(far_inner);
    tokio::spawn(carry(link, near_read, far_write));
    tokio::spawn(carry(link, far_read, near_write));
    (near, far)
}

/// One direction: pieces leave in turn at the link's rate and arrive after its delay.
async fn carry(link: Link, mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>) {
    let (sender, mut flying) = mpsc::unbounded_channel::<(Instant, Bytes)>();
    let delivering = async move {
        while let Some((arrival, piece)) = flying.recv().await {
            sleep_until(arrival).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    let sending = async move {
        let mut waiting = VecDeque::<(Instant, usize)>::new();
        let mut queued = 0;
        let mut free_at = Instant::now();
        loop {
            while let Some(&(left_at, bytes)) = waiting.front()
                && left_at <= Instant::now()
            {
                waiting.pop_front();
                queued -= bytes;
            }
            if queued >= link.queue
                && let Some(&(left_at, _)) = waiting.front()
            {
                sleep_until(left_at).await;
                continue;
            }
            let mut piece = BytesMut::with_capacity(PIECE_BYTES);
            match from.read_buf(&mut piece).await {
                Ok(1..) => {}
                _ => return,
            }
            let bytes = piece.len();
            free_at =
                free_at.max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / link.rate);
            waiting.push_back((free_at, bytes));
            queued += bytes;
            if sender.send((free_at + link.delay, piece.freeze())).is_err() {
                return;
            }
        }
    };
    tokio::join!(delivering, sending);
}
