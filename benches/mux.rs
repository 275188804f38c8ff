//! The multiplexer beside the bare TCP connection that it runs on: the guard for daily work, well under a minute. Its peers
//! are in `benches/compare`.
//!
//! Both ends are this process, on two workers. The rounds take turns and the medians are shown. Compare the ratios; the
//! absolute figures are the machine's.
//!
//! ```console
//! $ cargo bench --bench mux
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_cluster_connect::tunnel::mux::{self, Config, Incoming, MuxStream, Role, Session};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

const ROUNDS: usize = 3;
/// All streams together.
const BULK_BYTES: usize = 256 << 20;
const PIECE_BYTES: usize = 64 * 1024;
/// What the bare connection reads and writes at once: about a batch of the multiplexer.
const BATCH_BYTES: usize = 256 * 1024;
const STREAMS: [usize; 3] = [1, 16, 256];
const ECHOES: usize = 2000;
const ECHO_BYTES: usize = 1024;
/// Streams that send beside the echo.
const LOAD_STREAMS: usize = 8;
const LOADED_FOR: Duration = Duration::from_secs(1);
const OPENED_FOR: Duration = Duration::from_secs(1);
const AT_ONCE: [usize; 2] = [1, 64];

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    // On a worker, as the drivers are.
    runtime.block_on(runtime.spawn(measure()))?
}

async fn measure() -> Result<()> {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(Round::measure().await?);
    }
    let median = |figure: &dyn Fn(&Round) -> f64| {
        let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
        figures.sort_unstable_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    let raw_rate = median(&|round| round.raw_rate);
    let raw_echo = median(&|round| round.raw_echo.p50);
    println!("{:<34} {:>12} {:>10}", "", "", "× raw");
    row("bare TCP, MiB/s", raw_rate, None);
    for (index, streams) in STREAMS.iter().enumerate() {
        let rate = median(&|round| round.rates[index]);
        row(
            &format!("{streams} streams, MiB/s"),
            rate,
            Some(rate / raw_rate),
        );
    }
    row("bare TCP, echo p50 µs", raw_echo, None);
    type Figure<'a> = (&'a str, &'a dyn Fn(&Round) -> f64);
    let echoes: [Figure<'_>; 4] = [
        ("echo p50 µs", &|round| round.echo.p50),
        ("echo p99 µs", &|round| round.echo.p99),
        ("echo under load p50 µs", &|round| round.loaded.p50),
        ("echo under load p99 µs", &|round| round.loaded.p99),
    ];
    for (name, figure) in echoes {
        let time = median(figure);
        row(name, time, Some(time / raw_echo));
    }
    let load = median(&|round| round.load);
    row("load meanwhile, MiB/s", load, Some(load / raw_rate));
    for (index, at_once) in AT_ONCE.iter().enumerate() {
        let rate = median(&|round| round.openings[index]);
        // As many as a bare connection has echoes, one after the other.
        let echoes = 1e6 / raw_echo;
        row(
            &format!("opened and closed a second, {at_once}"),
            rate,
            Some(rate / echoes),
        );
    }
    Ok(())
}

fn row(name: &str, figure: f64, ratio: Option<f64>) {
    let ratio = ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
    println!("{name:<34} {figure:>12.1} {ratio:>10}");
}

struct Round {
    raw_rate: f64,
    raw_echo: Quantiles,
    rates: Vec<f64>,
    echo: Quantiles,
    loaded: Quantiles,
    /// MiB/s beside the loaded echo.
    load: f64,
    openings: Vec<f64>,
}

impl Round {
    async fn measure() -> Result<Self> {
        let raw_rate = raw_bulk().await?;
        let mut rates = Vec::new();
        for streams in STREAMS {
            rates.push(bulk(streams).await?);
        }
        let raw_echo = raw_echo().await?;
        let echo = echo().await?;
        let (loaded, load) = loaded_echo().await?;
        let mut openings = Vec::new();
        for at_once in AT_ONCE {
            openings.push(opening(at_once).await?);
        }
        Ok(Self {
            raw_rate,
            raw_echo,
            rates,
            echo,
            loaded,
            load,
            openings,
        })
    }
}

/// Microseconds.
struct Quantiles {
    p50: f64,
    p99: f64,
}

impl Quantiles {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |index: usize| times[index].as_secs_f64() * 1e6;
        Self {
            p50: at(times.len() / 2),
            p99: at(times.len() * 99 / 100),
        }
    }
}

async fn raw_bulk() -> Result<f64> {
    let (mut near, mut far) = tcp().await?;
    let begin = Instant::now();
    let sender = tokio::spawn(async move {
        let batch = vec![b'x'; BATCH_BYTES];
        for _ in 0..BULK_BYTES / BATCH_BYTES {
            near.write_all(&batch).await?;
        }
        near.shutdown().await
    });
    let mut buffer = vec![0; BATCH_BYTES];
    while far.read(&mut buffer).await? > 0 {}
    sender.await??;
    Ok(rate(BULK_BYTES, begin))
}

async fn raw_echo() -> Result<Quantiles> {
    let (mut near, mut far) = tcp().await?;
    let server = tokio::spawn(async move {
        let mut message = [0; ECHO_BYTES];
        while far.read_exact(&mut message).await.is_ok() {
            far.write_all(&message).await?;
        }
        Ok::<_, Error>(())
    });
    let mut message = [b'e'; ECHO_BYTES];
    let mut times = Vec::with_capacity(ECHOES);
    for _ in 0..ECHOES {
        let begin = Instant::now();
        near.write_all(&message).await?;
        near.read_exact(&mut message).await?;
        times.push(begin.elapsed());
    }
    drop(near);
    server.await??;
    Ok(Quantiles::of(times))
}

async fn bulk(streams: usize) -> Result<f64> {
    let mut pair = Pair::connect().await?;
    let begin = Instant::now();
    let mut senders = JoinSet::new();
    let mut receivers = JoinSet::new();
    for _ in 0..streams {
        let mut stream = pair.client.open(Bytes::new()).await?;
        senders.spawn(async move {
            let piece = piece();
            for _ in 0..BULK_BYTES / streams / PIECE_BYTES {
                stream.write_chunk(piece.clone()).await?;
            }
            stream.shutdown().await?;
            // Kept until the other end has all of it, so that no end is a reset.
            Ok::<_, Error>(stream)
        });
        // At once: only so many streams may wait to be accepted.
        let mut stream = pair.accept().await?;
        receivers.spawn(async move {
            while stream.read_chunk().await?.is_some() {}
            Ok::<_, Error>(())
        });
    }
    while let Some(ended) = receivers.join_next().await {
        ended??;
    }
    Ok(rate(BULK_BYTES, begin))
}

async fn echo() -> Result<Quantiles> {
    let mut pair = Pair::connect().await?;
    let mut stream = pair.echo().await?;
    let mut times = Vec::with_capacity(ECHOES);
    for _ in 0..ECHOES {
        times.push(ask(&mut stream).await?);
    }
    Ok(Quantiles::of(times))
}

async fn loaded_echo() -> Result<(Quantiles, f64)> {
    let mut pair = Pair::connect().await?;
    let mut stream = pair.echo().await?;
    let received = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..LOAD_STREAMS {
        let mut load = pair.client.open(Bytes::new()).await?;
        tasks.spawn(async move {
            let piece = piece();
            while load.write_chunk(piece.clone()).await.is_ok() {}
        });
        let mut load = pair.accept().await?;
        let received = Arc::clone(&received);
        tasks.spawn(async move {
            while let Ok(Some(chunk)) = load.read_chunk().await {
                received.fetch_add(chunk.len() as u64, Relaxed);
            }
        });
    }
    sleep(LOADED_FOR / 4).await;
    let (from, begin) = (received.load(Relaxed), Instant::now());
    let mut times = Vec::new();
    while begin.elapsed() < LOADED_FOR {
        times.push(ask(&mut stream).await?);
        sleep(Duration::from_millis(1)).await;
    }
    let load = rate((received.load(Relaxed) - from) as usize, begin);
    Ok((Quantiles::of(times), load))
}

async fn opening(at_once: usize) -> Result<f64> {
    let mut pair = Pair::connect().await?;
    let client = pair.client.clone();
    let server = tokio::spawn(async move {
        while let Ok(mut stream) = pair.accept().await {
            tokio::spawn(async move {
                stream.read_chunk().await?;
                stream.write_chunk(Bytes::from_static(b"!")).await?;
                stream.shutdown().await?;
                while stream.read_chunk().await?.is_some() {}
                Ok::<_, Error>(())
            });
        }
    });
    let begin = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..at_once {
        let client = client.clone();
        clients.spawn(async move {
            let mut count = 0;
            while begin.elapsed() < OPENED_FOR {
                let mut stream = client.open(Bytes::new()).await?;
                stream.write_chunk(Bytes::from_static(b"?")).await?;
                stream.shutdown().await?;
                while stream.read_chunk().await?.is_some() {}
                count += 1;
            }
            Ok::<_, Error>(count)
        });
    }
    let mut count = 0;
    while let Some(opened) = clients.join_next().await {
        count += opened??;
    }
    server.abort();
    Ok(f64::from(count) / begin.elapsed().as_secs_f64())
}

/// Two sessions over one loopback connection.
struct Pair {
    client: Session,
    incoming: Incoming,
    /// Keeps the session.
    _server: Session,
}

impl Pair {
    async fn connect() -> Result<Self> {
        let (near, far) = tcp().await?;
        let (client, _, driver) = mux::start(near, Role::Client, Config::default());
        tokio::spawn(driver);
        let (server, incoming, driver) = mux::start(far, Role::Server, Config::default());
        tokio::spawn(driver);
        client.ready().await?;
        Ok(Self {
            client,
            incoming,
            _server: server,
        })
    }

    async fn accept(&mut self) -> Result<MuxStream> {
        let stream = self
            .incoming
            .accept()
            .await
            .ok_or("the session has ended")?;
        Ok(stream.into_stream())
    }

    /// A stream whose other end answers.
    async fn echo(&mut self) -> Result<MuxStream> {
        let mut stream = self.client.open(Bytes::new()).await?;
        // The other end hears of the stream with its first byte.
        stream
            .write_chunk(Bytes::from_static(&[b'e'; ECHO_BYTES]))
            .await?;
        let mut far = self.accept().await?;
        tokio::spawn(async move {
            let mut message = [0; ECHO_BYTES];
            while far.read_exact(&mut message).await.is_ok() {
                far.write_all(&message).await?;
                far.flush().await?;
            }
            Ok::<_, Error>(())
        });
        stream.read_exact(&mut [0; ECHO_BYTES]).await?;
        Ok(stream)
    }
}

async fn ask(stream: &mut MuxStream) -> Result<Duration> {
    let mut message = [0; ECHO_BYTES];
    let begin = Instant::now();
    stream
        .write_chunk(Bytes::from_static(&[b'e'; ECHO_BYTES]))
        .await?;
    stream.read_exact(&mut message).await?;
    Ok(begin.elapsed())
}

async fn tcp() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let near = TcpStream::connect(listener.local_addr()?).await?;
    let (far, _) = listener.accept().await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

fn piece() -> Bytes {
    Bytes::from(vec![b'x'; PIECE_BYTES])
}

/// MiB/s.
fn rate(bytes: usize, since: Instant) -> f64 {
    bytes as f64 / f64::from(1 << 20) / since.elapsed().as_secs_f64()
}
