//! The goals of the design, each beside the best peer of the same run.

use crate::{
    link,
    peer::Peer,
    pipe::Pipe,
    report::{Report, shown},
    workload::Workload::{self, *},
};

/// Which peers a goal is measured against.
#[derive(Clone, Copy)]
enum Against {
    /// The best of those that nobody tuned.
    Defaults,
    /// The best of those that somebody tuned for a short path.
    Capped,
    /// The pipe itself.
    Raw,
    /// A number.
    Number(f64),
}

/// Whether more is better.
#[derive(Clone, Copy, PartialEq)]
enum Better {
    More,
    Less,
}

struct Goal {
    pipe: Pipe,
    workers: usize,
    workload: Workload,
    figure: &'static str,
    better: Better,
    against: Against,
    /// Ours over theirs: at least, or at most.
    ratio: f64,
    /// Added to theirs before.
    allowance: f64,
}

const GOALS: &[Goal] = &[
    goal(2, Bulk(1), "MiB/s", Better::More, Against::Defaults, 2.0),
    goal(2, Bulk(1), "MiB/s", Better::More, Against::Capped, 1.4),
    goal(2, Bulk(16), "MiB/s", Better::More, Against::Defaults, 1.7),
    goal(2, Bulk(16), "MiB/s", Better::More, Against::Capped, 1.5),
    goal(2, Bulk(256), "MiB/s", Better::More, Against::Defaults, 1.5),
    goal(2, Bulk(256), "MiB/s", Better::More, Against::Capped, 1.3),
    goal(1, Bulk(1), "MiB/s", Better::More, Against::Defaults, 2.0),
    goal(1, Bulk(16), "MiB/s", Better::More, Against::Defaults, 4.0),
    goal(1, Bulk(256), "MiB/s", Better::More, Against::Defaults, 1.8),
    goal(1, Bulk(1), "MiB/s", Better::More, Against::Raw, 0.7).over(Pipe::TcpShort),
    goal(2, Bulk(1), "MiB/s", Better::More, Against::Raw, 0.7).over(Pipe::TcpShort),
    goal(2, Bulk(1), "MiB/s", Better::More, Against::Defaults, 1.4).over(Pipe::Tls),
    goal(2, Bulk(16), "MiB/s", Better::More, Against::Defaults, 1.4).over(Pipe::Tls),
    goal(1, Bulk(1), "MiB/s", Better::More, Against::Raw, 0.85).over(Pipe::Memory),
    goal(2, Echo, "p50 µs", Better::Less, Against::Raw, 1.0).plus(0.5),
    goal(
        2,
        LoadedEcho,
        "p99 ms",
        Better::Less,
        Against::Number(0.3),
        1.0,
    ),
    goal(
        2,
        Opening(1),
        "/s",
        Better::More,
        Against::Number(110e3),
        1.0,
    ),
    goal(
        2,
        Opening(64),
        "/s",
        Better::More,
        Against::Number(140e3),
        1.0,
    ),
    goal(
        2,
        StoppedReader,
        "share kept",
        Better::More,
        Against::Number(0.99),
        1.0,
    ),
    goal(
        1,
        Allocations,
        "/MiB",
        Better::Less,
        Against::Number(1.0),
        1.0,
    ),
    goal(
        1,
        IdleStreams,
        "bytes a stream and end",
        Better::Less,
        Against::Number(400.0),
        1.0,
    ),
    goal(
        2,
        FirstSecond(1),
        "first second MiB",
        Better::More,
        Against::Number(105.0),
        1.0,
    )
    .over(Pipe::Wan),
    goal(
        2,
        LoadedEcho,
        "p50 ms",
        Better::Less,
        Against::Number(56.0),
        1.0,
    )
    .over(Pipe::Wan),
];

const fn goal(
    workers: usize,
    workload: Workload,
    figure: &'static str,
    better: Better,
    against: Against,
    ratio: f64,
) -> Goal {
    Goal {
        pipe: Pipe::Tcp,
        workers,
        workload,
        figure,
        better,
        against,
        ratio,
        allowance: 0.0,
    }
}

impl Goal {
    const fn over(mut self, pipe: Pipe) -> Self {
        self.pipe = pipe;
        self
    }

    const fn plus(mut self, allowance: f64) -> Self {
        self.allowance = allowance;
        self
    }

    fn figure(&self, report: &Report, peer: Peer) -> Option<f64> {
        report.figure(self.pipe, self.workers, self.workload, peer, self.figure)
    }

    /// What ours stands against, with its name.
    fn opponent(&self, report: &Report) -> Option<(String, f64)> {
        let is_meant = |peer: &Peer| match self.against {
            Against::Defaults => !peer.is_capped(),
            _ => peer.is_capped(),
        };
        match self.against {
            Against::Number(number) => Some(("a number".into(), number)),
            Against::Raw => Some(("raw".into(), self.figure(report, Peer::Raw)?)),
            Against::Defaults | Against::Capped => Peer::ALL
                .into_iter()
                .filter(|peer| !peer.is_ours() && !peer.is_raw() && is_meant(peer))
                .filter_map(|peer| Some((peer.name().to_owned(), self.figure(report, peer)?)))
                .max_by(|(_, one), (_, other)| match self.better {
                    Better::More => one.total_cmp(other),
                    Better::Less => other.total_cmp(one),
                }),
        }
    }
}

/// Prints a row for each goal that was measured.
pub fn print(report: &Report) {
    println!("\n## Goals\n");
    println!("| path | workers | workload | figure | ours | against | theirs | ratio | goal | |");
    println!("|---|---:|---|---|---:|---|---:|---:|---:|---|");
    for goal in GOALS {
        let Some(ours) = goal.figure(report, Peer::Ours) else {
            continue;
        };
        let Some((name, theirs)) = goal.opponent(report) else {
            continue;
        };
        let ratio = ours / (theirs + goal.allowance);
        let (sign, met) = match goal.better {
            Better::More => ("≥", ratio >= goal.ratio),
            Better::Less => ("≤", ratio <= goal.ratio),
        };
        println!(
            "| {} | {} | {} | {} | {} | {name} | {} | {ratio:.2} | {sign} {} | {} |",
            goal.pipe.name(),
            goal.workers,
            goal.workload.name(),
            goal.figure,
            shown(Some(ours)),
            shown(Some(theirs)),
            goal.ratio,
            if met { "met" } else { "missed" },
        );
    }
    println!(
        "\nThe emulated link of 1 Gbit/s moves at most {} MiB/s.",
        shown(Some(link::WAN.mebibytes_per_second()))
    );
}
