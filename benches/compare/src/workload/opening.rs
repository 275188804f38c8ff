//! Short-lived streams.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::{
    Error, Result,
    measurement::Outcome,
    peer::{Accepter, Opener, Stream},
};

const MEASURED: Duration = Duration::from_millis(1500);

pub async fn run<O: Opener, A: Accepter>(
    opener: O,
    mut accepter: A,
    at_once: usize,
) -> Result<Outcome> {
    let server = tokio::spawn(async move {
        loop {
            let Ok(mut stream) = accepter.accept().await else {
                return;
            };
            tokio::spawn(async move {
                stream.receive().await?;
                stream.send(Bytes::from_static(b"!")).await?;
                stream.finish().await?;
                // To its end, so that nothing is reset.
                while stream.receive().await? > 0 {}
                Ok::<_, Error>(())
            });
        }
    });
    let done = Arc::new(AtomicU64::new(0));
    let begin = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..at_once {
        let (opener, done) = (opener.clone(), Arc::clone(&done));
        clients.spawn(async move {
            while begin.elapsed() < MEASURED {
                let mut stream = opener.open().await?;
                stream.send(Bytes::from_static(b"?")).await?;
                stream.finish().await?;
                while stream.receive().await? > 0 {}
                done.fetch_add(1, Relaxed);
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let rate = done.load(Relaxed) as f64 / begin.elapsed().as_secs_f64();
    server.abort();
    Ok(Outcome::default().with("/s", rate))
}
