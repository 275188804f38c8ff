//! Messages from sender to listener as fast as they go, through the pump and through the relay in turns.
//!
//! The relay passes on what it has of a message, so that a long one arrives in several frames; the pump gathers each message.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::{task::JoinSet, time::sleep};
use tokio_websockets::Message;

use crate::{AnyError, meeting::Meeting, program::Program};

const ROUNDS: usize = 5;
/// Connections, and KiB of a message.
const LOADS: [(usize, usize); 3] = [(1, 16), (1, 64), (16, 64)];
const WARM_UP: Duration = Duration::from_millis(300);
const MEASURED: Duration = Duration::from_millis(1500);
const MEBIBYTE: f64 = (1 << 20) as f64;

#[derive(Default)]
struct Figures {
    mebibytes_per_second: Vec<f64>,
    /// Seconds of the program between the clients.
    cpu_per_gibibyte: Vec<f64>,
}

pub async fn measure() -> Result<(), AnyError> {
    println!(
        "{:<24} {:>12} {:>12} {:>8} {:>12} {:>12} {:>8}",
        "connections x message",
        "pump MiB/s",
        "relay MiB/s",
        "ratio",
        "pump s/GiB",
        "relay s/GiB",
        "ratio"
    );
    for (connections, kibibytes) in LOADS {
        let load = (connections, kibibytes * 1024);
        let mut figures = [Figures::default(), Figures::default()];
        for _ in 0..ROUNDS {
            let pump = Program::start("pump", &[]);
            let meeting = Meeting::at_pump(pump.address());
            round(&pump, meeting, load, &mut figures[0]).await?;
            let relay = Program::start("relay", &[]);
            let meeting = Meeting::at_relay(relay.address()).await?;
            round(&relay, meeting, load, &mut figures[1]).await?;
        }
        let [pump, relay] = figures.map(|figures| {
            (
                median(figures.mebibytes_per_second),
                median(figures.cpu_per_gibibyte),
            )
        });
        println!(
            "{:<24} {:>12.0} {:>12.0} {:>7.2}x {:>12.2} {:>12.2} {:>7.2}x",
            format!("{connections} x {kibibytes} KiB"),
            pump.0,
            relay.0,
            relay.0 / pump.0,
            pump.1,
            relay.1,
            relay.1 / pump.1,
        );
    }
    println!();
    Ok(())
}

async fn round(
    program: &Program,
    mut meeting: Meeting,
    (connections, message): (usize, usize),
    figures: &mut Figures,
) -> Result<(), AnyError> {
    let received = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (mut sender, mut listener) = meeting.pair().await?;
        tasks.spawn(async move {
            let payload = Bytes::from(vec![b'x'; message]);
            while sender.send(Message::binary(payload.clone())).await.is_ok() {}
        });
        let received = Arc::clone(&received);
        tasks.spawn(async move {
            while let Some(Ok(message)) = listener.next().await {
                let length = message.as_payload().len() as u64;
                received.fetch_add(length, Ordering::Relaxed);
            }
        });
    }
    sleep(WARM_UP).await;
    let (begin, bytes, cpu) = (
        Instant::now(),
        received.load(Ordering::Relaxed),
        program.cpu(),
    );
    sleep(MEASURED).await;
    let mebibytes = (received.load(Ordering::Relaxed) - bytes) as f64 / MEBIBYTE;
    let cpu = program.cpu() - cpu;
    figures
        .mebibytes_per_second
        .push(mebibytes / begin.elapsed().as_secs_f64());
    figures
        .cpu_per_gibibyte
        .push(cpu.as_secs_f64() / mebibytes * 1024.0);
    tasks.shutdown().await;
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
