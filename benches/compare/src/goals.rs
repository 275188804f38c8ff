//! The goals of the design, each beside what it is measured against in the same run.
//!
//! Some are numbers of another machine. Those are shown as they are and scaled by what the bare pipe does here and did
//! there; the scaled one decides.

use crate::{
    link,
    peer::Peer,
    pipe::Pipe,
    report::{
        Report, shown,
        table::{on_workers, print_rows},
    },
    workload::Workload::{self, *},
};

use Against::{Best, BestCapped, Number, Raw, Scaled};
use Bound::{AtLeast, AtMost};

/// What ours stands against.
#[derive(Clone, Copy)]
enum Against {
    /// The best of those that nobody tuned for a short path.
    Best,
    /// The best of those that somebody did.
    BestCapped,
    One(Peer),
    /// The pipe itself.
    Raw,
    /// A number that holds anywhere.
    Number,
    /// A number that was a goal where the bare pipe had another figure.
    Scaled(Yardstick),
}

/// A figure of the bare pipe that says how fast a machine is.
#[derive(Clone, Copy)]
struct Yardstick {
    pipe: Pipe,
    workers: usize,
    workload: Workload,
    figure: &'static str,
    /// On the machine of the goals.
    was: f64,
}

const fn yardstick(
    pipe: Pipe,
    workers: usize,
    workload: Workload,
    figure: &'static str,
    was: f64,
) -> Yardstick {
    Yardstick {
        pipe,
        workers,
        workload,
        figure,
        was,
    }
}

const MIB: &str = "MiB/s";
const CPU: &str = "CPU ms/GiB";
const RATE_1: Against = Against::Scaled(yardstick(Pipe::TcpShort, 1, Bulk(1), MIB, 10784.0));
const RATE_2: Against = Against::Scaled(yardstick(Pipe::TcpShort, 2, Bulk(1), MIB, 10470.0));
const CPU_1: Against = Against::Scaled(yardstick(Pipe::TcpShort, 1, Bulk(1), CPU, 95.0));
const CPU_TLS: Against = Against::Scaled(yardstick(Pipe::Tls, 2, Bulk(1), CPU, 732.0));
const ECHO_1: Against = Against::Scaled(yardstick(Pipe::Tcp, 1, Echo, "p50 µs", 3.8));
const ECHO_2: Against = Against::Scaled(yardstick(Pipe::Tcp, 2, Echo, "p50 µs", 4.2));
const ECHO_99: Against = Against::Scaled(yardstick(Pipe::Tcp, 2, Echo, "p99 µs", 4.5));
/// The emulated link, whatever the machine.
const LINK_MIB: f64 = link::WAN.mebibytes_per_second();

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

struct Goal {
    pipe: Pipe,
    workers: usize,
    workload: Workload,
    peer: Peer,
    figure: &'static str,
    bound: Bound,
    against: Against,
}

const fn goal(
    pipe: Pipe,
    workers: usize,
    workload: Workload,
    figure: &'static str,
    bound: Bound,
    against: Against,
) -> Goal {
    Goal {
        pipe,
        workers,
        workload,
        peer: Peer::Ours,
        figure,
        bound,
        against,
    }
}

const GOALS: &[Goal] = &[
    // One stream.
    goal(Pipe::Tcp, 1, Bulk(1), MIB, AtLeast(9000.0), RATE_1),
    goal(
        Pipe::Tcp,
        1,
        Bulk(1),
        MIB,
        AtLeast(5.0),
        Against::One(Peer::Yamux),
    ),
    goal(Pipe::Tcp, 1, Bulk(1), MIB, AtLeast(2.0), Best),
    goal(Pipe::Tcp, 1, Bulk(1), MIB, AtLeast(1.6), BestCapped),
    goal(Pipe::Tcp, 1, Bulk(1), CPU, AtMost(120.0), CPU_1),
    goal(Pipe::TcpShort, 1, Bulk(1), MIB, AtLeast(0.85), Raw),
    goal(Pipe::Tcp, 2, Bulk(1), MIB, AtLeast(8000.0), RATE_2),
    goal(Pipe::Tcp, 2, Bulk(1), MIB, AtLeast(4.0), Best),
    goal(Pipe::Tcp, 2, Bulk(1), MIB, AtLeast(1.4), BestCapped),
    // 16 streams.
    goal(Pipe::Tcp, 1, Bulk(16), MIB, AtLeast(7000.0), RATE_1),
    goal(Pipe::Tcp, 1, Bulk(16), MIB, AtLeast(4.0), Best),
    goal(Pipe::Tcp, 1, Bulk(16), MIB, AtLeast(1.8), BestCapped),
    goal(Pipe::Tcp, 2, Bulk(16), MIB, AtLeast(4000.0), RATE_2),
    goal(Pipe::Tcp, 2, Bulk(16), MIB, AtLeast(1.7), Best),
    goal(Pipe::Tcp, 2, Bulk(16), MIB, AtLeast(1.5), BestCapped),
    // 256 streams.
    goal(Pipe::Tcp, 1, Bulk(256), MIB, AtLeast(3000.0), RATE_1),
    goal(Pipe::Tcp, 1, Bulk(256), MIB, AtLeast(1.8), Best),
    goal(Pipe::Tcp, 2, Bulk(256), MIB, AtLeast(3700.0), RATE_2),
    goal(Pipe::Tcp, 2, Bulk(256), MIB, AtLeast(1.5), Best),
    goal(Pipe::Tcp, 1, Bulk(256), "Jain", AtLeast(0.99), Number),
    goal(Pipe::Tcp, 2, Bulk(256), "Jain", AtLeast(0.99), Number),
    // Other pipes.
    goal(Pipe::TcpShort, 1, Bulk(1), MIB, AtLeast(8000.0), RATE_1),
    goal(Pipe::TcpShort, 1, Bulk(16), MIB, AtLeast(7000.0), RATE_1),
    goal(Pipe::TcpShort, 2, Bulk(1), MIB, AtLeast(0.7), Raw),
    goal(Pipe::Tls, 2, Bulk(1), MIB, AtLeast(1.4), Best),
    goal(Pipe::Tls, 2, Bulk(16), MIB, AtLeast(1.4), Best),
    goal(Pipe::Tls, 2, Bulk(1), CPU, AtMost(450.0), CPU_TLS),
    goal(Pipe::Memory, 1, Bulk(1), MIB, AtLeast(0.85), Raw),
    goal(Pipe::Memory, 1, Bulk(16), MIB, AtLeast(0.75), Raw),
    // `AsyncRead` and `AsyncWrite`.
    bytewise(Pipe::Tcp, 1, Bulk(1)),
    bytewise(Pipe::Tcp, 1, Bulk(16)),
    bytewise(Pipe::Tcp, 1, Bulk(256)),
    bytewise(Pipe::Tcp, 2, Bulk(1)),
    bytewise(Pipe::Tcp, 2, Bulk(16)),
    bytewise(Pipe::Tcp, 2, Bulk(256)),
    bytewise(Pipe::TcpShort, 1, Bulk(1)),
    bytewise(Pipe::TcpShort, 1, Bulk(16)),
    bytewise(Pipe::TcpShort, 2, Bulk(1)),
    bytewise(Pipe::TcpShort, 2, Bulk(16)),
    bytewise(Pipe::Tls, 2, Bulk(1)),
    bytewise(Pipe::Tls, 2, Bulk(16)),
    bytewise(Pipe::WebSocket, 2, Bulk(1)),
    bytewise(Pipe::WebSocket, 2, Bulk(16)),
    bytewise(Pipe::Memory, 1, Bulk(1)),
    bytewise(Pipe::Memory, 1, Bulk(16)),
    // Echo. A bare one took 4.2 µs, so raw + 0.5 µs was 4.7 µs.
    goal(Pipe::Tcp, 2, Echo, "p50 µs", AtMost(4.7), ECHO_2),
    goal(Pipe::Tcp, 2, Echo, "p99 µs", AtMost(6.3), ECHO_99),
    goal(Pipe::Tcp, 1, LoadedEcho, "p50 ms", AtMost(0.1), ECHO_1),
    goal(Pipe::Tcp, 1, LoadedEcho, "p99 ms", AtMost(0.2), ECHO_1),
    goal(Pipe::Tcp, 1, LoadedEcho, "load kept", AtLeast(0.9), Number),
    goal(Pipe::Tcp, 2, LoadedEcho, "p50 ms", AtMost(0.15), ECHO_2),
    goal(Pipe::Tcp, 2, LoadedEcho, "p99 ms", AtMost(0.3), ECHO_2),
    goal(Pipe::Tcp, 2, LoadedEcho, "load kept", AtLeast(0.9), Number),
    goal(
        Pipe::TcpShort,
        2,
        LoadedEcho,
        "p50 ms",
        AtMost(0.12),
        ECHO_2,
    ),
    goal(Pipe::TcpShort, 2, LoadedEcho, "p99 ms", AtMost(0.3), ECHO_2),
    goal(
        Pipe::TcpShort,
        1,
        LoadedEcho,
        "p50 ms",
        AtMost(0.12),
        ECHO_1,
    ),
    goal(Pipe::TcpShort, 1, LoadedEcho, "p99 ms", AtMost(0.3), ECHO_1),
    // Streams.
    goal(Pipe::Tcp, 2, Opening(1), "/s", AtLeast(110e3), ECHO_2),
    goal(Pipe::Tcp, 2, Opening(64), "/s", AtLeast(140e3), ECHO_2),
    goal(Pipe::Tcp, 1, Opening(64), "/s", AtLeast(180e3), ECHO_1),
    goal(
        Pipe::Tcp,
        2,
        StoppedReader,
        "share kept",
        AtLeast(0.99),
        Number,
    ),
    goal(
        Pipe::Tcp,
        2,
        StoppedReader,
        "MiB held",
        AtMost(32.0),
        Number,
    ),
    goal(Pipe::Tcp, 1, Allocations, "/MiB", AtMost(1.0), Number),
    goal(
        Pipe::Tcp,
        1,
        Allocations,
        "copied B/B",
        AtMost(0.01),
        Number,
    ),
    goal(
        Pipe::Tcp,
        1,
        Allocations,
        "copied B/B",
        AtMost(2.01),
        Number,
    )
    .of(Peer::OursIo),
    goal(
        Pipe::Tcp,
        1,
        IdleStreams,
        "bytes a stream and end",
        AtMost(400.0),
        Number,
    ),
    goal(
        Pipe::Tcp,
        1,
        IdleStreams,
        "busy kept",
        AtLeast(0.97),
        Number,
    ),
    // Long paths.
    goal(
        Pipe::Wan,
        2,
        FirstSecond(1),
        "first second MiB",
        AtLeast(105.0),
        Number,
    ),
    goal(
        Pipe::Wan,
        2,
        FirstSecond(1),
        MIB,
        AtLeast(0.99 * LINK_MIB),
        Number,
    ),
    goal(
        Pipe::Wan,
        2,
        FirstSecond(16),
        "first second MiB",
        AtLeast(105.0),
        Number,
    ),
    goal(
        Pipe::Wan,
        2,
        FirstSecond(16),
        MIB,
        AtLeast(0.99 * LINK_MIB),
        Number,
    ),
    goal(Pipe::Wan, 2, LoadedEcho, "p50 ms", AtMost(56.0), Number),
    goal(
        Pipe::Wan,
        2,
        LoadedEcho,
        MIB,
        AtLeast(0.98 * LINK_MIB),
        Number,
    ),
];

const fn bytewise(pipe: Pipe, workers: usize, workload: Workload) -> Goal {
    let bound = AtLeast(1.3);
    goal(
        pipe,
        workers,
        workload,
        MIB,
        bound,
        Against::One(Peer::Yamux),
    )
    .of(Peer::OursIo)
}

impl Goal {
    const fn of(mut self, peer: Peer) -> Self {
        self.peer = peer;
        self
    }

    fn figure(&self, report: &Report, peer: Peer) -> Option<f64> {
        report.figure(self.pipe, self.workers, self.workload, peer, self.figure)
    }

    /// What ours stands against: its name, and what the bound is a multiple of.
    fn opponent(&self, report: &Report) -> Option<(String, f64)> {
        match self.against {
            Number => Some((String::new(), 1.0)),
            Raw => {
                let raw = report.raw_figure(self.pipe, self.workers, self.workload, self.figure);
                Some(("raw".into(), raw?))
            }
            Against::One(peer) => Some((peer.name().into(), self.figure(report, peer)?)),
            Against::Scaled(than) => {
                let Yardstick {
                    pipe,
                    workers,
                    workload,
                    ..
                } = than;
                let here = report.raw_figure(pipe, workers, workload, than.figure)?;
                // A machine whose echo takes longer opens fewer streams.
                let factor = match self.figure {
                    "/s" => than.was / here,
                    _ => here / than.was,
                };
                let name = format!("raw {} {}", shown(Some(here)), than.figure);
                Some((name, factor))
            }
            Best | BestCapped => {
                let is_meant = |peer: &Peer| {
                    !peer.is_ours()
                        && !peer.is_raw()
                        && peer.is_capped() == matches!(self.against, BestCapped)
                };
                let peers = Peer::ALL.into_iter().filter(is_meant);
                peers
                    .filter_map(|peer| Some((peer.name().to_owned(), self.figure(report, peer)?)))
                    .max_by(|(_, one), (_, other)| match self.bound {
                        AtLeast(_) => one.total_cmp(other),
                        AtMost(_) => other.total_cmp(one),
                    })
            }
        }
    }

    fn row(&self, report: &Report) -> Option<Vec<String>> {
        let ours = self.figure(report, self.peer)?;
        let (name, theirs) = self.opponent(report)?;
        let (sign, bound) = match self.bound {
            AtLeast(bound) => ("≥", bound),
            AtMost(bound) => ("≤", bound),
        };
        let is_met = match self.bound {
            AtLeast(bound) => ours >= bound * theirs,
            AtMost(bound) => ours <= bound * theirs,
        };
        let wanted = format!("{sign} {}", shown(Some(bound)));
        let here = format!("{sign} {}", shown(Some(bound * theirs)));
        let (goal, stands) = match self.against {
            Number => (wanted, String::new()),
            Scaled(_) => (wanted, shown(Some(ours / theirs))),
            _ => (
                format!("{wanted} ×"),
                format!("{} ×", shown(Some(ours / theirs))),
            ),
        };
        let path = format!("{}, {}", self.pipe.name(), on_workers(self.workers));
        Some(vec![
            path,
            self.workload.name(),
            self.figure.into(),
            self.peer.name().into(),
            shown(Some(ours)),
            name,
            goal,
            stands,
            here,
            if is_met { "met" } else { "missed" }.into(),
        ])
    }
}

/// Prints a row for each goal that was measured.
pub fn print(report: &Report) {
    let rows: Vec<_> = GOALS.iter().filter_map(|goal| goal.row(report)).collect();
    if rows.is_empty() {
        return;
    }
    let met = rows.iter().filter(|row| row.ends_with(&["met".into()]));
    println!("\n## Goals: {} of {} met\n", met.count(), rows.len());
    println!(
        "`stands` is ours over theirs; for a number of another machine, ours as it would be there. `here` is what the \
         goal asks for on this machine.\n"
    );
    let head = [
        "path", "workload", "figure", "peer", "measured", "against", "goal", "stands", "here", "",
    ];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    table.extend(rows);
    print_rows(&table);
}
