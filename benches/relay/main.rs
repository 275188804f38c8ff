//! What the embedded relay costs, in four parts. The relay is a process of its own, so that CPU and memory are the relay's
//! alone; the clients are this process, and not this crate's: an established WebSocket implementation.
//!
//! | part | what |
//! |---|---|
//! | `throughput` | relayed connections beside a pump, which passes messages between two WebSockets and does nothing else |
//! | `idle` | memory of relayed connections on which nothing happens |
//! | `dials` | how long a dial takes when the relay is as slow as Azure's, with a second dial in reserve and without |
//! | `flood` | what clients cost that try a refused token without a pause, and what others notice of them |
//!
//! ```console
//! $ cargo bench --bench relay                 # all parts
//! $ cargo bench --bench relay -- idle flood   # some
//! ```
//!
//! Linux only. Compare the rows of one run; the absolute figures are the machine's.

mod dials;
mod flood;
mod idle;
mod meeting;
mod open_files;
mod program;
mod pump;
mod throughput;

use std::{env, future::pending};

use arc_cluster_connect::relay::{
    SasRule,
    server::{RelayServer, Rights},
};
use tokio::{net::TcpListener, runtime};

use flood::Flood;

const NAME: &str = "bench";
const RULE: &str = "root";
const KEY: &str = "key-of-this-run";

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), AnyError> {
    open_files::raise_limit();
    let arguments: Vec<_> = env::args().skip(1).collect();
    let role = arguments
        .iter()
        .find_map(|argument| argument.strip_prefix("as-"));
    if let Some(role) = role {
        return as_another(role, &arguments);
    }
    // Cargo adds `--bench`.
    let chosen: Vec<_> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let is_wanted = |part: &str| chosen.is_empty() || chosen.iter().any(|chosen| *chosen == part);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    if is_wanted("throughput") {
        runtime.block_on(throughput::measure())?;
    }
    if is_wanted("idle") {
        runtime.block_on(idle::measure())?;
    }
    if is_wanted("dials") {
        dials::measure()?;
    }
    if is_wanted("flood") {
        runtime.block_on(flood::measure())?;
    }
    Ok(())
}

/// Runs until it is told to finish or killed.
fn as_another(role: &str, arguments: &[String]) -> Result<(), AnyError> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        if let Some(flood) = Flood::parse(role) {
            return flood.run(&arguments[1], &arguments[2]).await;
        }
        let socket = TcpListener::bind("127.0.0.1:0").await?;
        match role {
            "pump" => {
                program::tell(&socket.local_addr()?.to_string());
                pump::run(socket).await
            }
            _ => {
                let relay = RelayServer::builder()
                    .hybrid_connection(NAME)
                    .rule(SasRule::new(RULE, KEY)?, Rights::LISTEN | Rights::SEND)
                    .max_connections(20_000)
                    .start(socket)?;
                program::tell(&relay.local_addr().to_string());
                pending().await
            }
        }
    })
}
