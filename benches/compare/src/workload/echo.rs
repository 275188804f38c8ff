//! How long a small message waits.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::{task::JoinHandle, time::sleep};

use super::{bulk::Receivers, mebibytes, piece};
use crate::{
    Result,
    measurement::Outcome,
    peer::{Accepter, Opener, Stream},
    pipe::Pipe,
};

const MESSAGE_BYTES: usize = 1024;
const WARM_UP: usize = 200;
const ROUNDS: usize = 5000;
/// Streams that send beside the echo.
const LOAD_STREAMS: usize = 8;
const LOADED_FOR: Duration = Duration::from_millis(1500);
/// What a link of tens of milliseconds needs for as many figures.
const LOADED_ON_A_LINK: Duration = Duration::from_secs(6);
const ALONE_FOR: Duration = Duration::from_secs(1);
const SETTLING: Duration = Duration::from_millis(300);

pub async fn idle<O: Opener, A: Accepter>(
    opener: O,
    mut accepter: A,
    pipe: Pipe,
) -> Result<Outcome> {
    let rounds = if pipe.is_link() { 40 } else { ROUNDS };
    let warm_up = if pipe.is_link() { 2 } else { WARM_UP };
    let server = tokio::spawn(async move {
        let stream = accepter.accept().await?;
        tokio::join!(answer(stream), accepter.accept()).0
    });
    let mut stream = opener.open().await?;
    let mut times = Vec::with_capacity(rounds);
    for round in 0..warm_up + rounds {
        let time = ask(&mut stream).await?;
        if round >= warm_up {
            times.push(time);
        }
    }
    server.abort();
    Ok(quantiles(times, "µs", 1e6))
}

pub async fn loaded<O: Opener, A: Accepter>(
    opener: O,
    mut accepter: A,
    pipe: Pipe,
) -> Result<Outcome> {
    let duration = if pipe.is_link() {
        LOADED_ON_A_LINK
    } else {
        LOADED_FOR
    };
    // The echo's stream comes first, so that the other end knows which it is.
    let mut stream = opener.open().await?;
    stream.send(Bytes::from_static(b"?")).await?;
    stream.flush().await?;
    let echo = accepter.accept().await?;
    let receivers = Receivers::start(accepter, LOAD_STREAMS);
    let server = tokio::spawn(async move {
        let mut echo = echo;
        echo.receive().await?;
        answer(echo).await
    });
    let mut senders = Vec::<JoinHandle<()>>::new();
    for _ in 0..LOAD_STREAMS {
        let mut stream = opener.open().await?;
        senders.push(tokio::spawn(async move {
            let piece = piece();
            while stream.send(piece.clone()).await.is_ok() {}
        }));
    }
    sleep(SETTLING).await;

    // First without the echo, for what it costs the others.
    let (from, since) = (receivers.bytes(), Instant::now());
    sleep(ALONE_FOR).await;
    let alone = mebibytes(receivers.bytes() - from) / since.elapsed().as_secs_f64();

    let (from, since) = (receivers.bytes(), Instant::now());
    let mut times = Vec::new();
    while since.elapsed() < duration {
        times.push(ask(&mut stream).await?);
        sleep(Duration::from_millis(1)).await;
    }
    let beside = mebibytes(receivers.bytes() - from) / since.elapsed().as_secs_f64();
    for sender in senders {
        sender.abort();
    }
    server.abort();
    Ok(quantiles(times, "ms", 1e3)
        .with("MiB/s", beside)
        .with("load kept", beside / alone))
}

async fn ask(stream: &mut impl Stream) -> Result<Duration> {
    static MESSAGE: [u8; MESSAGE_BYTES] = [b'e'; MESSAGE_BYTES];
    let begin = Instant::now();
    stream.send(Bytes::from_static(&MESSAGE)).await?;
    stream.flush().await?;
    let mut missing = MESSAGE_BYTES;
    while missing > 0 {
        let got = stream.receive().await?;
        if got == 0 {
            return Err("the echo has ended".into());
        }
        missing -= got;
    }
    Ok(begin.elapsed())
}

async fn answer(mut stream: impl Stream) -> Result<()> {
    static MESSAGE: [u8; MESSAGE_BYTES] = [b'e'; MESSAGE_BYTES];
    loop {
        let mut missing = MESSAGE_BYTES;
        while missing > 0 {
            let got = stream.receive().await?;
            if got == 0 {
                return Ok(());
            }
            missing -= got;
        }
        stream.send(Bytes::from_static(&MESSAGE)).await?;
        stream.flush().await?;
    }
}

fn quantiles(mut times: Vec<Duration>, unit: &str, scale: f64) -> Outcome {
    times.sort_unstable();
    let at = |share: f64| {
        let index = (share * times.len() as f64) as usize;
        let time = times.get(index.min(times.len().saturating_sub(1)));
        time.map_or(f64::NAN, |time| time.as_secs_f64() * scale)
    };
    Outcome::default()
        .with(&format!("p50 {unit}"), at(0.5))
        .with(&format!("p99 {unit}"), at(0.99))
}
