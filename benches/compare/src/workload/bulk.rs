//! Bytes in one direction.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

use super::{PIECE_BYTES, mebibytes, piece};
use crate::{
    Error, Result,
    measurement::Outcome,
    peer::{Accepter, Opener, Stream},
    pipe::Pipe,
};

/// All streams together, on pipes of this machine.
const LOCAL_BYTES: u64 = 512 << 20;
/// The same where the link sets the pace.
const LINK_BYTES: u64 = 64 << 20;
/// On the emulated relay, which moves less than 2 MiB/s.
const RELAY_BYTES: u64 = 12 << 20;

/// How long the steady rate of a long path is looked at.
const STEADY: Duration = Duration::from_secs(3);

pub async fn run<O: Opener, A: Accepter>(
    opener: O,
    accepter: A,
    streams: usize,
    pipe: Pipe,
) -> Result<Outcome> {
    let bytes = match pipe {
        Pipe::Wan => LINK_BYTES,
        Pipe::Relay => RELAY_BYTES,
        _ => LOCAL_BYTES,
    };
    let each = bytes / streams as u64;
    let (go, started) = watch::channel(false);
    let receivers = Receivers::start(accepter, streams);
    let mut senders = JoinSet::new();
    for _ in 0..streams {
        let mut stream = opener.open().await?;
        let mut started = started.clone();
        senders.spawn(async move {
            // The other end hears of the stream with its first byte.
            let piece = piece();
            stream.send(piece.slice(..1)).await?;
            stream.flush().await?;
            started.wait_for(|started| *started).await?;
            let mut left = each;
            while left > 0 {
                let size = left.min(PIECE_BYTES as u64);
                stream.send(piece.slice(..size as usize)).await?;
                left -= size;
            }
            stream.finish().await?;
            Ok::<_, Error>(stream)
        });
    }
    while receivers.bytes() < streams as u64 {
        sleep(Duration::from_millis(1)).await;
    }

    let cpu = cpu_time();
    let begin = Instant::now();
    go.send_replace(true);
    let half = async {
        while receivers.bytes() < bytes / 2 {
            sleep(Duration::from_millis(1)).await;
        }
        receivers.fairness()
    };
    let (fairness, ended) = tokio::join!(half, receivers.all_ended(streams));
    ended?;
    let elapsed = begin.elapsed().as_secs_f64();
    let cpu = (cpu_time() - cpu).as_secs_f64();
    // They live until here, so that no end is a reset.
    drop(senders);
    // One thread is never idle here, so what it has used is what it took; other programs do not count.
    let is_one_thread = Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread;
    let took = if is_one_thread && !pipe.is_link() {
        cpu
    } else {
        elapsed
    };
    Ok(Outcome::default()
        .with("MiB/s", mebibytes(bytes) / took)
        .with("CPU ms/GiB", cpu * 1e3 / (mebibytes(bytes) / 1024.0))
        .with("Jain", fairness))
}

pub async fn first_second<O: Opener, A: Accepter>(
    opener: O,
    accepter: A,
    streams: usize,
) -> Result<Outcome> {
    let receivers = Receivers::start(accepter, streams);
    let begin = Instant::now();
    let mut senders = JoinSet::new();
    for _ in 0..streams {
        let mut stream = opener.open().await?;
        senders.spawn(async move {
            let piece = piece();
            while stream.send(piece.clone()).await.is_ok() {}
        });
    }
    sleep(Duration::from_secs(1).saturating_sub(begin.elapsed())).await;
    let first = receivers.bytes();
    sleep(Duration::from_secs(1)).await;
    let (from, since) = (receivers.bytes(), Instant::now());
    sleep(STEADY).await;
    let steady = mebibytes(receivers.bytes() - from) / since.elapsed().as_secs_f64();
    Ok(Outcome::default()
        .with("first second MiB", mebibytes(first))
        .with("MiB/s", steady))
}

/// Tasks that read streams to their end, and count.
pub struct Receivers {
    counts: Arc<[AtomicU64]>,
    ended: watch::Receiver<usize>,
}

impl Receivers {
    pub fn start<A: Accepter>(mut accepter: A, streams: usize) -> Self {
        let counts: Arc<[AtomicU64]> = (0..streams).map(|_| AtomicU64::new(0)).collect();
        let (end, ended) = watch::channel(0);
        let all = Arc::clone(&counts);
        tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            for index in 0..streams {
                let mut stream = accepter.accept().await?;
                let (counts, end) = (Arc::clone(&all), end.clone());
                tasks.spawn(async move {
                    while let Ok(1..) = stream.receive().await.inspect(|&bytes| {
                        counts[index].fetch_add(bytes as u64, Relaxed);
                    }) {}
                    end.send_modify(|ended| *ended += 1);
                    stream
                });
            }
            // Accepting goes on: some peers move bytes only while somebody asks for streams.
            let _kept = tokio::join!(accepter.accept(), async {
                while tasks.join_next().await.is_some() {}
            });
            Ok::<_, Error>(())
        });
        Self { counts, ended }
    }

    pub fn bytes(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// Jain's index of what each stream has got: 1 when all have the same.
    fn fairness(&self) -> f64 {
        let shares: Vec<f64> = self
            .counts
            .iter()
            .map(|count| count.load(Relaxed) as f64)
            .collect();
        let sum: f64 = shares.iter().sum();
        let squares: f64 = shares.iter().map(|share| share * share).sum();
        sum * sum / (shares.len() as f64 * squares)
    }

    async fn all_ended(&self, streams: usize) -> Result<()> {
        let mut ended = self.ended.clone();
        ended.wait_for(|ended| *ended == streams).await?;
        Ok(())
    }
}

/// What this process has used, user and system.
pub fn cpu_time() -> Duration {
    let spent = |clock| {
        let time = rustix::time::clock_gettime(clock);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    spent(rustix::time::ClockId::ProcessCPUTime)
}
