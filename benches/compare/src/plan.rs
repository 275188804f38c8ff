//! What is measured, in which order.

use crate::{
    Result,
    measurement::Measurement,
    peer::Peer,
    pipe::Pipe,
    workload::Workload::{self, *},
};

/// The measurements of one round, and how many rounds.
pub struct Plan {
    pub measurements: Vec<Measurement>,
    pub rounds: usize,
    /// Where the chart goes.
    pub chart: Option<String>,
}

const TCP: &[Workload] = &[
    Bulk(1),
    Bulk(16),
    Bulk(256),
    Echo,
    LoadedEcho,
    Opening(1),
    Opening(64),
];
const OTHER: &[Workload] = &[Bulk(1), Bulk(16), Echo, LoadedEcho];

impl Plan {
    /// `--quick`: loopback TCP on two workers, one round. `--rounds N`. `--chart FILE`. `--peer NAME` (repeatable).
    pub fn from_options(options: &[&str]) -> Result<Self> {
        let mut quick = false;
        let mut rounds = None;
        let mut chart = None;
        let mut only = Vec::new();
        let mut options = options.iter();
        while let Some(&option) = options.next() {
            let mut value = || {
                let value = options.next().copied();
                value.ok_or_else(|| format!("{option} needs a value"))
            };
            match option {
                "--quick" => quick = true,
                "--rounds" => rounds = Some(value()?.parse()?),
                "--chart" => chart = Some(value()?.to_owned()),
                "--peer" => {
                    let name = value()?;
                    let peer = Peer::ALL.into_iter().find(|peer| peer.name() == name);
                    only.push(peer.ok_or_else(|| format!("no peer is called {name}"))?);
                }
                _ => {
                    return Err(format!(
                        "{option} is not known: --quick, --rounds N, --chart FILE, --peer NAME"
                    )
                    .into());
                }
            }
        }
        let mut measurements = Vec::new();
        let mut add = |pipe, workers, workloads: &[Workload]| {
            for &workload in workloads {
                for peer in Peer::ALL {
                    if (only.is_empty() || only.contains(&peer)) && is_possible(peer, workload) {
                        measurements.push(Measurement {
                            pipe,
                            workers,
                            workload,
                            peer,
                        });
                    }
                }
            }
        };
        add(Pipe::Tcp, 2, TCP);
        if !quick {
            add(Pipe::Tcp, 2, &[StoppedReader]);
            add(Pipe::Tcp, 1, TCP);
            add(Pipe::Tcp, 1, &[Allocations, IdleStreams]);
            add(Pipe::TcpShort, 2, OTHER);
            add(Pipe::TcpShort, 1, OTHER);
            add(Pipe::Tls, 2, OTHER);
            add(Pipe::Memory, 1, OTHER);
            add(Pipe::Wan, 2, &[FirstSecond, LoadedEcho]);
            add(Pipe::Relay, 2, &[Bulk(1), LoadedEcho]);
        }
        Ok(Self {
            measurements,
            rounds: rounds.unwrap_or(if quick { 1 } else { 3 }),
            chart,
        })
    }
}

/// A bare pipe has one stream. tokio-yamux stands still here after its first window, for a reason that is still to be
/// found: until then it is measured where little is sent.
fn is_possible(peer: Peer, workload: Workload) -> bool {
    match peer {
        Peer::Raw => matches!(workload, Bulk(1) | Echo | FirstSecond | Allocations),
        Peer::TokioYamux => matches!(workload, Echo | Opening(_) | IdleStreams),
        _ => true,
    }
}
