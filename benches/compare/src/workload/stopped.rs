//! What one reader that stopped costs the others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{mebibytes, piece};
use crate::{
    Error, Result,
    measurement::Outcome,
    peer::{Accepter, Opener, Stream},
};

const STREAMS: usize = 256;
const SETTLING: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(2);

pub async fn run<O: Opener, A: Accepter>(opener: O, mut accepter: A) -> Result<Outcome> {
    let bytes = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let (counter, stopping) = (Arc::clone(&bytes), Arc::clone(&stop));
    tokio::spawn(async move {
        for index in 0..STREAMS {
            let mut stream = accepter.accept().await?;
            let (counter, stopping) = (Arc::clone(&counter), Arc::clone(&stopping));
            tokio::spawn(async move {
                while let Ok(1..) = stream.receive().await.inspect(|&bytes| {
                    if index > 0 {
                        counter.fetch_add(bytes as u64, Relaxed);
                    }
                }) {
                    if index == 0 && stopping.load(Relaxed) {
                        std::future::pending::<()>().await;
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
    let before = rate().await;
    stop.store(true, Relaxed);
    let after = rate().await;
    Ok(Outcome::default()
        .with("MiB/s all read", before)
        .with("MiB/s one stopped", after)
        .with("share kept", after / before))
}
