//! Allocations, copies and idle memory.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::{PIECE_BYTES, bulk::Receivers, mebibytes, piece};
use crate::{
    Error, Result, allocations, copies,
    measurement::Outcome,
    peer::{Accepter, Opener, Stream},
};

const BULK_BYTES: u64 = 256 << 20;
const IDLE_STREAMS: usize = 10_000;

pub async fn allocations<O: Opener, A: Accepter>(opener: O, accepter: A) -> Result<Outcome> {
    let receivers = Receivers::start(accepter, 1);
    let mut stream = opener.open().await?;
    let piece = piece();
    // Until the windows and pools have their size.
    let pieces = BULK_BYTES / PIECE_BYTES as u64;
    for _ in 0..pieces / 4 {
        stream.send(piece.clone()).await?;
    }
    let from = receivers.bytes();
    allocations::start();
    copies::start();
    for _ in 0..pieces {
        stream.send(piece.clone()).await?;
    }
    stream.flush().await?;
    while receivers.bytes() < from + BULK_BYTES {
        sleep(Duration::from_millis(1)).await;
    }
    let count = allocations::count();
    let copied = copies::bytes();
    let sent = mebibytes(BULK_BYTES);
    Ok(Outcome::default()
        .with("/MiB", count.calls as f64 / sent)
        .with("KiB/MiB", count.bytes as f64 / 1024.0 / sent)
        .with("copied B/B", copied as f64 / BULK_BYTES as f64))
}

pub async fn idle_streams<O: Opener, A: Accepter>(opener: O, mut accepter: A) -> Result<Outcome> {
    let accepting = tokio::spawn(async move {
        let mut streams = Vec::with_capacity(IDLE_STREAMS + 1);
        // The first shows that the connection works, and has everything allocated that is not a stream's.
        for index in 0..=IDLE_STREAMS {
            let mut stream = accepter.accept().await?;
            stream.receive().await?;
            // Some peers count a stream as opened once its other end has sent something, and open only so many more.
            stream.send(Bytes::from_static(b"!")).await?;
            stream.flush().await?;
            stream.rest();
            if index == 0 {
                allocations::start();
            }
            streams.push(stream);
        }
        Ok::<_, Error>((streams, accepter))
    });
    let mut streams = Vec::with_capacity(IDLE_STREAMS + 1);
    for index in 0..=IDLE_STREAMS {
        let mut stream = opener.open().await?;
        stream.send(Bytes::from_static(b"?")).await?;
        stream.flush().await?;
        stream.receive().await?;
        stream.rest();
        streams.push(stream);
        if index == 0 {
            sleep(Duration::from_millis(100)).await;
        }
    }
    let kept = accepting.await??;
    sleep(Duration::from_millis(200)).await;
    let count = allocations::count();
    let each = count.live as f64 / IDLE_STREAMS as f64 / 2.0;
    drop((streams, kept));
    Ok(Outcome::default().with("bytes a stream and end", each))
}
