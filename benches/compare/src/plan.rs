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
const LONG: &[Workload] = &[FirstSecond(1), FirstSecond(16), LoadedEcho];

/// Everything, in the order in which it is measured.
const ALL: &[(Pipe, usize, &[Workload])] = &[
    (Pipe::Tcp, 2, TCP),
    (Pipe::Tcp, 2, &[StoppedReader]),
    (Pipe::Tcp, 1, TCP),
    (Pipe::Tcp, 1, &[Allocations, IdleStreams]),
    (Pipe::TcpShort, 2, OTHER),
    (Pipe::TcpShort, 1, OTHER),
    (Pipe::Tls, 2, OTHER),
    (Pipe::WebSocket, 2, OTHER),
    (Pipe::Memory, 1, OTHER),
    (Pipe::Wan, 2, LONG),
    (Pipe::Relay, 2, &[Bulk(1), LoadedEcho]),
];

const USAGE: &str = "\
--quick              loopback TCP on two workers, one round
--rounds N           how often each is measured
--only PATH          PIPE, PIPE/WORKERS or PIPE/WORKERS/WORKLOAD, repeatable: tcp/2/bulk16, tcp/1, wan
--peer NAME          repeatable: ours, raw, h2-1m, …
--chart FILE         where the SVG goes
--list               says what there is";

impl Plan {
    /// What the command line asks for.
    pub fn from_options(options: &[&str]) -> Result<Self> {
        let mut groups: Vec<Group> = ALL
            .iter()
            .flat_map(|&(pipe, workers, workloads)| {
                let group = move |&workload| Group {
                    pipe,
                    workers,
                    workload,
                };
                workloads.iter().map(group)
            })
            .collect();
        let mut only = Vec::new();
        let mut peers = Vec::new();
        let mut quick = false;
        let mut rounds = None;
        let mut chart = None;
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
                "--only" => only.extend(Group::under(value()?, &groups)?),
                "--peer" => peers.push(peer(value()?)?),
                "--list" => return Err(list(&groups).into()),
                _ => return Err(format!("{option} is not known\n{USAGE}").into()),
            }
        }
        let one_round = quick || !only.is_empty();
        if !only.is_empty() {
            groups = only;
        } else if quick {
            groups.retain(|group| (group.pipe, group.workers) == (Pipe::Tcp, 2));
        }
        let measurements = groups.iter().flat_map(|group| group.measurements(&peers));
        Ok(Self {
            measurements: measurements.collect(),
            rounds: rounds.unwrap_or(if one_round { 1 } else { 3 }),
            chart,
        })
    }
}

/// What is measured of each peer.
#[derive(Clone, Copy)]
struct Group {
    pipe: Pipe,
    workers: usize,
    workload: Workload,
}

impl Group {
    fn path(&self) -> String {
        let workload = self.workload.slug();
        format!("{}/{}/{workload}", self.pipe.slug(), self.workers)
    }

    /// Those of `all` under `path`, or the one that it names in full.
    fn under(path: &str, all: &[Self]) -> Result<Vec<Self>> {
        let parts: Vec<&str> = path.split('/').collect();
        let unknown = || format!("{path} names no measurement; --list says which there are");
        if let &[pipe, workers, workload] = parts.as_slice() {
            let mut pipes = Pipe::ALL.into_iter();
            return Ok(vec![Self {
                pipe: pipes
                    .find(|known| known.slug() == pipe)
                    .ok_or_else(unknown)?,
                workers: workers.parse()?,
                workload: Workload::from_slug(workload).ok_or_else(unknown)?,
            }]);
        }
        let prefix = format!("{path}/");
        let mut under = all.to_vec();
        under.retain(|group| group.path().starts_with(&prefix));
        if under.is_empty() {
            return Err(unknown().into());
        }
        Ok(under)
    }

    fn measurements(&self, peers: &[Peer]) -> impl Iterator<Item = Measurement> {
        let &Self {
            pipe,
            workers,
            workload,
        } = self;
        Peer::ALL
            .into_iter()
            .filter(move |peer| peers.is_empty() || peers.contains(peer))
            .filter(move |&peer| is_possible(peer, workload))
            .map(move |peer| Measurement {
                pipe,
                workers,
                workload,
                peer,
            })
    }
}

fn peer(name: &str) -> Result<Peer> {
    let peer = Peer::ALL.into_iter().find(|peer| peer.name() == name);
    Ok(peer.ok_or_else(|| format!("no peer is called {name}; --list says which there are"))?)
}

fn list(groups: &[Group]) -> String {
    let mut list = String::from("measurements:");
    for group in groups {
        list += &format!("\n  {}", group.path());
    }
    list += "\npeers:";
    for peer in Peer::ALL {
        list += &format!("\n  {}: {}", peer.name(), peer.description());
    }
    list
}

/// A bare pipe has one stream. async_smux at its defaults lets 64 MiB of each stream wait: 256 streams that send without
/// pause are 16 GiB.
fn is_possible(peer: Peer, workload: Workload) -> bool {
    if peer == Peer::AsyncSmux && workload == StoppedReader {
        return false;
    }
    !peer.is_raw() || matches!(workload, Bulk(1) | Echo | FirstSecond(1) | Allocations)
}
