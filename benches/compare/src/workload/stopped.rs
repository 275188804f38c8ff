//! What one reader that stops costs the others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep};

use super::{mebibytes, piece};
use crate::{
    Error, Result, allocations,
    measurement::Outcome,
    peer::{Accepter, Opener, Stream},
};

const STREAMS: usize = 256;
const SETTLING: Duration = Duration::from_millis(250);
const MEASURED: Duration = Duration::from_millis(500);
/// After the turns it stops for longer: what has no window for each stream fills up slowly.
const LONG: Duration = Duration::from_millis(2500);
/// It stops and goes on by turns, so that a machine that gets slower meanwhile is not taken for its fault.
const TURNS: usize = 4;

#[derive(Clone, Copy, PartialEq)]
enum First {
    Reads,
    Stopped,
}

pub async fn run<O: Opener, A: Accepter>(opener: O, mut accepter: A) -> Result<Outcome> {
    allocations::start();
    let bytes = Arc::new(AtomicU64::new(0));
    let (first, seen) = watch::channel(First::Reads);
    let counter = Arc::clone(&bytes);
    tokio::spawn(async move {
        for index in 0..STREAMS {
            let mut stream = accepter.accept().await?;
            let (counter, mut seen) = (Arc::clone(&counter), seen.clone());
            tokio::spawn(async move {
                loop {
                    if index == 0 {
                        seen.wait_for(|first| *first == First::Reads).await?;
                    }
                    let bytes = stream.receive().await?;
                    if bytes == 0 {
                        return Ok::<_, Error>(());
                    }
                    if index > 0 {
                        counter.fetch_add(bytes as u64, Relaxed);
                    }
                }
            });
        }
        accepter.accept().await?;
        Ok::<_, Error>(())
    });
    for _ in 0..STREAMS {
        let mut stream = opener.open().await?;
        tokio::spawn(async move {
            let piece = piece();
            while stream.send(piece.clone()).await.is_ok() {}
        });
    }
    let rate = async || {
        sleep(SETTLING).await;
        let (from, since) = (bytes.load(Relaxed), Instant::now());
        sleep(MEASURED).await;
        mebibytes(bytes.load(Relaxed) - from) / since.elapsed().as_secs_f64()
    };
    sleep(SETTLING).await;
    let (mut all_read, mut one_stopped, mut held) = (0.0, 0.0, 0);
    for _ in 0..TURNS {
        all_read += rate().await / TURNS as f64;
        first.send_replace(First::Stopped);
        one_stopped += rate().await / TURNS as f64;
        held = held.max(allocations::count().live);
        first.send_replace(First::Reads);
    }
    first.send_replace(First::Stopped);
    sleep(LONG).await;
    let later = rate().await;
    held = held.max(allocations::count().live);
    Ok(Outcome::default()
        .with("MiB/s all read", all_read)
        .with("MiB/s one stopped", one_stopped)
        .with("share kept", one_stopped / all_read)
        .with("share kept later", later / all_read)
        .with("MiB held", held as f64 / f64::from(1 << 20)))
}
