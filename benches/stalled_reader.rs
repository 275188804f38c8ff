//! What one reader that stopped costs the other streams of the same tunnel, and the process: 64 streams through a
//! [`DirectTunnel`] over loopback TCP, all read, then one of them left unread. Bulk throughput of one stream stands
//! beside that of the bare TCP connection.
//!
//! Both ends are this process, so the memory is that of both. Compare the rows; the absolute figures are the machine's.
//!
//! ```console
//! $ cargo bench --bench stalled_reader
//! ```

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_cluster_connect::{
    Tunnel,
    net::{Connector, Endpoint, NetStream, Security, TrustRoots},
    tunnel::{DirectTunnel, OpenOptions, Target, TunnelServer, TunnelStream, mux},
};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};

const STREAMS: usize = 64;
/// What a source writes at once: a piece that an HTTP server writes of a large body.
const CHUNK: usize = 64 * 1024;
/// Before anything is counted: windows open, blocks are allocated.
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(3);

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    println!(
        "{:<34} {:>10} {:>12} {:>10}",
        "", "MiB/s", "slowest", "RSS MiB"
    );
    bare_tcp().await?;

    let tunnel = connect().await?;
    row("idle", None, None);
    let lone = Readers::start(&tunnel, 1).await?;
    lone.measure("one stream").await;
    lone.stop();

    let readers = Readers::start(&tunnel, STREAMS - 1).await?;
    // The last stream is read at first like all others.
    let last = Readers::start(&tunnel, 1).await?;
    readers.measure("63 of 64 streams, all read").await;
    let stopped = last.leave_unread().await;
    readers.measure("63 of 64 streams, one stopped").await;
    readers.measure("the same, later").await;
    drop(stopped);
    readers.measure("after the stopped one was dropped").await;
    readers.stop();
    sleep(WARM_UP).await;
    row("idle again", None, None);
    tunnel.shutdown().await?;
    Ok(())
}

/// What the machine does without a multiplexer, read and written as the multiplexer's driver does it.
async fn bare_tcp() -> Result<(), AnyError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut near = TcpStream::connect(listener.local_addr()?).await?;
    let (mut far, _) = listener.accept().await?;
    let source = tokio::spawn(async move {
        let batch = vec![b'x'; 4 * CHUNK];
        while far.write_all(&batch).await.is_ok() {}
    });
    let sink = tokio::spawn(async move {
        let mut buffer = vec![0; 2 * CHUNK];
        let mut bytes = 0;
        let begin = Instant::now();
        while begin.elapsed() < MEASURED {
            bytes += near.read(&mut buffer).await? as u64;
        }
        std::io::Result::Ok((bytes, begin.elapsed()))
    });
    row("bare TCP", Some(sink.await??), None);
    source.abort();
    Ok(())
}

async fn connect() -> Result<DirectTunnel, AnyError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(NetStream::plain(tcp)));
        }
    });
    let endpoint = Endpoint::new("127.0.0.1", port, Security::Plain);
    let connector = Connector::new(TrustRoots::platform())?;
    Ok(DirectTunnel::new(connector, endpoint))
}

/// Writes into every stream for as long as it takes something.
async fn serve(io: NetStream) {
    let mut server = TunnelServer::start(io, mux::Config::default());
    while let Some(stream) = server.accept().await {
        let mut stream = stream.accept();
        tokio::spawn(async move {
            let chunk = Bytes::from(vec![b'x'; CHUNK]);
            while stream.write_chunk(chunk.clone()).await.is_ok() {}
        });
    }
}

/// Streams that are read as fast as they deliver, each by a task.
struct Readers {
    counts: Vec<Arc<AtomicU64>>,
    tasks: Vec<JoinHandle<TunnelStream>>,
    stop: Arc<tokio::sync::Notify>,
}

impl Readers {
    async fn start(tunnel: &DirectTunnel, count: usize) -> Result<Self, AnyError> {
        let mut this = Self {
            counts: Vec::new(),
            tasks: Vec::new(),
            stop: Arc::default(),
        };
        for _ in 0..count {
            let stream = tunnel
                .open(&Target::api_server(), OpenOptions::new())
                .await?;
            let bytes = Arc::new(AtomicU64::new(0));
            this.counts.push(Arc::clone(&bytes));
            this.tasks
                .push(tokio::spawn(read(stream, bytes, Arc::clone(&this.stop))));
        }
        Ok(this)
    }

    async fn measure(&self, name: &str) {
        sleep(WARM_UP).await;
        let before = self.snapshot();
        let begin = Instant::now();
        sleep(MEASURED).await;
        let elapsed = begin.elapsed();
        let bytes: Vec<u64> = self
            .snapshot()
            .iter()
            .zip(before)
            .map(|(after, before)| after - before)
            .collect();
        let slowest = bytes.iter().min().copied().unwrap_or_default();
        row(name, Some((bytes.iter().sum(), elapsed)), Some(slowest));
    }

    /// Ends the only reader and keeps its stream.
    async fn leave_unread(mut self) -> TunnelStream {
        self.stop.notify_one();
        let task = self.tasks.pop().expect("one reader");
        task.await.expect("the reader does not panic")
    }

    fn stop(self) {
        for task in &self.tasks {
            task.abort();
        }
    }

    fn snapshot(&self) -> Vec<u64> {
        self.counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect()
    }
}

async fn read(
    mut stream: TunnelStream,
    bytes: Arc<AtomicU64>,
    stop: Arc<tokio::sync::Notify>,
) -> TunnelStream {
    let mut stopped = std::pin::pin!(stop.notified());
    loop {
        let chunk = tokio::select! {
            biased;
            () = &mut stopped => return stream,
            chunk = stream.read_chunk() => chunk,
        };
        match chunk {
            Ok(Some(chunk)) => bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed),
            Ok(None) | Err(_) => return stream,
        };
    }
}

fn row(name: &str, total: Option<(u64, Duration)>, slowest: Option<u64>) {
    let rate = |bytes: u64, elapsed: Duration| {
        format!(
            "{:.0}",
            bytes as f64 / f64::from(1 << 20) / elapsed.as_secs_f64()
        )
    };
    let sum = total.map_or_else(String::new, |(bytes, elapsed)| rate(bytes, elapsed));
    let slowest = slowest
        .zip(total)
        .map_or_else(String::new, |(bytes, (_, elapsed))| rate(bytes, elapsed));
    println!("{name:<34} {sum:>10} {slowest:>12} {:>10}", resident());
}

/// Resident memory of this process in MiB, where the system tells.
fn resident() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or_else(|| "-".to_owned(), |kib| format!("{}", kib / 1024))
}
