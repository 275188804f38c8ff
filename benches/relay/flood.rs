//! Clients that try a refused token without a pause, beside good ones from the same address.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, interval, sleep},
};

use crate::{
    AnyError, NAME,
    meeting::{Meeting, token},
    program::{Program, tell, told_to_finish},
};

const MEASURED: Duration = Duration::from_secs(3);
/// A good client opens a connection this often.
const GOOD_EVERY: Duration = Duration::from_millis(10);
/// What Microsoft's client for Node makes of a refused token.
const PER_SECOND: u32 = 900;
/// More than may wait for their answers, so that most are answered at once.
const LOOPS: usize = 256;
/// Longer than any answer waits.
const SETTLE: Duration = Duration::from_secs(3);

/// A process of its own, so that a good client waits for the relay and not for its neighbours.
#[derive(Clone, Copy)]
pub enum Flood {
    Paced,
    Loops,
}

pub async fn measure() -> Result<(), AnyError> {
    println!(
        "{:<24} {:>10} {:>8} {:>11} {:>10} {:>10} {:>9} {:>11} {:>11}",
        "refused tokens",
        "attempts/s",
        "CPU",
        "µs/attempt",
        "good p50",
        "good p99",
        "log lines",
        "RSS before",
        "RSS after"
    );
    let relay = Program::start("relay", &[]);
    let mut meeting = Meeting::at_relay(relay.address()).await?;
    // What is allocated once does not count.
    observe(&relay, &mut meeting, None).await?;
    let quiet = observe(&relay, &mut meeting, None).await?;
    quiet.print("none", &quiet);
    let paced = observe(&relay, &mut meeting, Some(Flood::Paced)).await?;
    paced.print(&format!("{PER_SECOND} a second"), &quiet);
    let loops = observe(&relay, &mut meeting, Some(Flood::Loops)).await?;
    loops.print(&format!("{LOOPS} loops, no pause"), &quiet);
    println!();
    Ok(())
}

impl Flood {
    pub fn parse(role: &str) -> Option<Self> {
        [Self::Paced, Self::Loops]
            .into_iter()
            .find(|flood| flood.role() == role)
    }

    fn role(self) -> &'static str {
        match self {
            Self::Paced => "paced-flood",
            Self::Loops => "flood",
        }
    }

    /// In the process of its own.
    pub async fn run(self, address: &str, token: &str) -> Result<(), AnyError> {
        let address = address.parse()?;
        let attempts = Arc::new(AtomicU64::new(0));
        tell("begun");
        let _flooding = self.start(address, request(address, token), Arc::clone(&attempts));
        told_to_finish().await;
        tell(&attempts.load(Ordering::Relaxed).to_string());
        Ok(())
    }

    /// Ends when what it returns is dropped. Attempts count as they begin.
    fn start(
        self,
        address: SocketAddr,
        request: Arc<[u8]>,
        attempts: Arc<AtomicU64>,
    ) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        match self {
            Self::Paced => {
                tasks.spawn(async move {
                    let mut pace = interval(Duration::from_secs(1) / PER_SECOND);
                    let mut under_way = JoinSet::new();
                    loop {
                        pace.tick().await;
                        while under_way.try_join_next().is_some() {}
                        attempts.fetch_add(1, Ordering::Relaxed);
                        let request = Arc::clone(&request);
                        under_way.spawn(async move { attempt(address, &request).await });
                    }
                });
            }
            Self::Loops => {
                for _ in 0..LOOPS {
                    let (request, attempts) = (Arc::clone(&request), Arc::clone(&attempts));
                    tasks.spawn(async move {
                        loop {
                            attempts.fetch_add(1, Ordering::Relaxed);
                            attempt(address, &request).await;
                        }
                    });
                }
            }
        }
        tasks
    }
}

struct Observed {
    elapsed: Duration,
    attempts: u64,
    cpu: Duration,
    /// Sorted.
    good: Vec<Duration>,
    log_lines: usize,
    /// KiB.
    resident: (usize, usize),
}

async fn observe(
    relay: &Program,
    meeting: &mut Meeting,
    flood: Option<Flood>,
) -> Result<Observed, AnyError> {
    let address = relay.address();
    let token = token(address, "another-key")?;
    let resident = relay.resident();
    let lines = relay.log_lines();
    let flooding = flood.map(|flood| Program::start(flood.role(), &[&address.to_string(), &token]));
    let (begin, cpu) = (Instant::now(), relay.cpu());
    let mut pace = interval(GOOD_EVERY);
    let mut good = Vec::new();
    while begin.elapsed() < MEASURED {
        pace.tick().await;
        let start = Instant::now();
        meeting.pair().await?;
        good.push(start.elapsed());
    }
    let (elapsed, cpu) = (begin.elapsed(), relay.cpu() - cpu);
    let attempts = flooding.map_or(Ok(0), |flooding| flooding.finish().parse())?;
    sleep(SETTLE).await;
    good.sort_unstable();
    Ok(Observed {
        elapsed,
        attempts,
        cpu,
        good,
        log_lines: relay.log_lines() - lines,
        resident: (resident, relay.resident()),
    })
}

/// Whatever comes of it.
async fn attempt(address: SocketAddr, request: &[u8]) {
    let Ok(mut tcp) = TcpStream::connect(address).await else {
        return;
    };
    if tcp.write_all(request).await.is_ok() {
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer).await;
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 401 "),
            "it is refused"
        );
    }
}

fn request(address: SocketAddr, token: &str) -> Arc<[u8]> {
    let request = format!(
        "GET /$hc/{NAME}?sb-hc-action=listen HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         ServiceBusAuthorization: {token}\r\n\r\n"
    );
    request.into_bytes().into()
}

impl Observed {
    fn print(&self, name: &str, quiet: &Self) {
        let share = |observed: &Self| observed.cpu.as_secs_f64() / observed.elapsed.as_secs_f64();
        let percentile = |percent: usize| self.good[(self.good.len() - 1) * percent / 100];
        let each = if self.attempts == 0 {
            String::new()
        } else {
            // Without what the good clients cost.
            let cpu = (share(self) - share(quiet)) * self.elapsed.as_secs_f64();
            format!("{:.0}", cpu * 1e6 / self.attempts as f64)
        };
        println!(
            "{name:<24} {:>10.0} {:>7.0}% {each:>11} {:>7} µs {:>7} µs {:>9} {:>7} KiB {:>7} KiB",
            self.attempts as f64 / self.elapsed.as_secs_f64(),
            share(self) * 100.0,
            percentile(50).as_micros(),
            percentile(99).as_micros(),
            self.log_lines,
            self.resident.0,
            self.resident.1,
        );
    }
}
