//! Allocations, copies and idle memory.

use std::time::{Duration, Instant};

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
/// Through one stream, beside those and without them.
const BUSY_BYTES: usize = 64 << 20;
const BUSY_TURNS: usize = 5;

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
    let (mut accepted, accepter) = accepting.await??;
    sleep(Duration::from_millis(200)).await;
    let count = allocations::count();
    let each = count.live as f64 / IDLE_STREAMS as f64 / 2.0;

    // The first of them, busy beside all the others, and then alone.
    let (mut near, mut far) = (streams.remove(0), accepted.remove(0));
    let beside = fastest(&mut near, &mut far).await?;
    drop((streams, accepted));
    sleep(Duration::from_millis(500)).await;
    let alone = fastest(&mut near, &mut far).await?;
    drop(accepter);
    Ok(Outcome::default()
        .with("bytes a stream and end", each)
        .with("busy kept", alone.as_secs_f64() / beside.as_secs_f64()))
}

/// The shortest time of a few in which the stream carries [`BUSY_BYTES`].
async fn fastest<S: Stream>(near: &mut S, far: &mut impl Stream) -> Result<Duration> {
    let piece = piece();
    let mut fastest = Duration::MAX;
    for _ in 0..BUSY_TURNS {
        let begin = Instant::now();
        let sending = async {
            for _ in 0..BUSY_BYTES / PIECE_BYTES {
                near.send(piece.clone()).await?;
            }
            near.flush().await
        };
        let receiving = async {
            let mut missing = BUSY_BYTES;
            while missing > 0 {
                match far.receive().await? {
                    0 => return Err("the busy stream has ended".into()),
                    received => missing -= received,
                }
            }
            Ok::<_, Error>(())
        };
        let (sent, received) = tokio::join!(sending, receiving);
        sent?;
        received?;
        fastest = fastest.min(begin.elapsed());
    }
    Ok(fastest)
}
