//! Relayed connections on which nothing happens. Each is two sockets of the relay.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::time::sleep;
use tokio_websockets::Message;

use crate::{
    AnyError,
    meeting::{Meeting, Socket},
    open_files,
    program::Program,
};

/// Azure's limit for a namespace.
const MOST: usize = 5_000;
/// What is allocated once does not count.
const FIRST: usize = 500;
/// Whatever the opening took is free by then.
const SETTLE: Duration = Duration::from_secs(2);
/// More than fits into any buffer.
const MESSAGE: usize = 256 * 1024;
/// Sockets of clients and of the relay, and what else is open.
const FILES_BESIDE: usize = 200;

pub async fn measure() -> Result<(), AnyError> {
    let most = MOST.min(open_files::available().saturating_sub(FILES_BESIDE) / 2);
    let relay = Program::start("relay", &[]);
    let mut meeting = Meeting::at_relay(relay.address()).await?;
    let mut pairs = Vec::new();
    println!(
        "{:<24} {:>12} {:>12} {:>16}",
        "idle relayed connections", "RSS KiB", "open files", "KiB each"
    );
    let mut before = None;
    for count in [0, FIRST, most] {
        while pairs.len() < count {
            let (mut sender, mut listener) = meeting.pair().await?;
            // Both directions have been used, so that whatever is allocated for that is.
            exchange(&mut sender, &mut listener).await?;
            exchange(&mut listener, &mut sender).await?;
            pairs.push((sender, listener));
        }
        sleep(SETTLE).await;
        let resident = relay.resident();
        let each = before.replace((count, resident)).filter(|_| count == most);
        let each = each.map_or_else(String::new, |(fewer, less)| {
            let more = resident.saturating_sub(less) as f64;
            format!("{:.1}", more / (count - fewer) as f64)
        });
        println!(
            "{count:<24} {resident:>12} {:>12} {each:>16}",
            relay.open_files()
        );
    }
    println!();
    Ok(())
}

async fn exchange(from: &mut Socket, to: &mut Socket) -> Result<(), AnyError> {
    let (sent, received) = tokio::join!(from.send(Message::binary(vec![1; MESSAGE])), to.next());
    received.ok_or("the connection ended")??;
    Ok(sent?)
}
