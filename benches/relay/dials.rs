//! How long a dial takes at a relay that is as slow as Azure's. In virtual time: what the machine adds does not count, and
//! five minutes are over in a moment.

use std::time::Duration;

use arc_cluster_connect::{
    net::{Connector, TrustRoots},
    relay::{
        RelayCredential, RelayListener, RelaySender, SasRule,
        server::{Emulation, RelayServer, Rights},
    },
};
use tokio::{net::TcpListener, runtime, time::Instant};

use crate::{
    AnyError, KEY, NAME, RULE,
    meeting::{dial, hybrid_connection, target, token},
};

const DIALS: usize = 300;

pub fn measure() -> Result<(), AnyError> {
    println!(
        "{:<34} {:>8} {:>8} {:>8} {:>8}",
        format!("{DIALS} dials as at Azure, in ms"),
        "p50",
        "p95",
        "p99",
        "max"
    );
    for (name, way) in [
        ("one dial", Way::Single),
        ("a second dial after a second", Way::Hedged),
    ] {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()?;
        let mut times = runtime.block_on(times(way))?;
        times.sort_unstable();
        let percentile = |percent: usize| times[(times.len() - 1) * percent / 100].as_millis();
        println!(
            "{name:<34} {:>8} {:>8} {:>8} {:>8}",
            percentile(50),
            percentile(95),
            percentile(99),
            percentile(100)
        );
    }
    println!();
    Ok(())
}

#[derive(Clone, Copy)]
enum Way {
    /// A WebSocket client.
    Single,
    /// This crate's sender.
    Hedged,
}

async fn times(way: Way) -> Result<Vec<Duration>, AnyError> {
    let rule = SasRule::new(RULE, KEY)?;
    let relay = RelayServer::builder()
        .hybrid_connection(NAME)
        .rule(rule.clone(), Rights::LISTEN | Rights::SEND)
        // The same dials are slow in each run.
        .emulate(Emulation::azure().seed(1))
        .start(TcpListener::bind("127.0.0.1:0").await?)?;
    let address = relay.local_addr();
    let credential = RelayCredential::from(rule);
    let connector = Connector::new(TrustRoots::platform())?;
    let hybrid_connection = hybrid_connection(address)?;
    let mut listener = RelayListener::start(
        connector.clone(),
        hybrid_connection.clone(),
        credential.clone(),
    );
    listener.online().await?;
    tokio::spawn(async move {
        while let Some(incoming) = listener.accept().await {
            // A dial that was overtaken is gone when it is answered.
            tokio::spawn(async move { incoming.accept().await.map(drop) });
        }
    });
    let sender = RelaySender::new(connector, hybrid_connection, credential);
    let mut times = Vec::with_capacity(DIALS);
    for _ in 0..DIALS {
        let start = Instant::now();
        match way {
            Way::Single => {
                let url = target(address, "connect");
                drop(dial(&url, Some(&token(address, KEY)?)).await?);
            }
            Way::Hedged => drop(sender.connect().await?),
        }
        times.push(start.elapsed());
    }
    Ok(times)
}
