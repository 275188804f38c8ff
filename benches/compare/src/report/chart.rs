//! The chart of the README: a panel for each of a few workloads, a bar for each peer.

use std::fmt::Write;

use super::{Report, shown};
use crate::{
    peer::Peer,
    pipe::Pipe,
    workload::Workload::{self, *},
};

struct Panel {
    title: &'static str,
    pipe: Pipe,
    workload: Workload,
    figure: &'static str,
    order: Order,
}

#[derive(Clone, Copy, PartialEq)]
enum Order {
    MoreIsBetter,
    /// Bars are on a logarithmic scale: what is worse is worse by powers of ten.
    LessIsBetter,
}

const fn panel(
    title: &'static str,
    pipe: Pipe,
    workload: Workload,
    figure: &'static str,
    order: Order,
) -> Panel {
    Panel {
        title,
        pipe,
        workload,
        figure,
        order,
    }
}

use Order::{LessIsBetter, MoreIsBetter};

const PANELS: [Panel; 6] = [
    panel("1 stream, MiB/s", Pipe::Tcp, Bulk(1), "MiB/s", MoreIsBetter),
    panel(
        "16 streams, MiB/s",
        Pipe::Tcp,
        Bulk(16),
        "MiB/s",
        MoreIsBetter,
    ),
    panel(
        "256 streams, MiB/s",
        Pipe::Tcp,
        Bulk(256),
        "MiB/s",
        MoreIsBetter,
    ),
    panel(
        "Echo beside 8 busy streams, p99 ms (less is better, log)",
        Pipe::Tcp,
        LoadedEcho,
        "p99 ms",
        LessIsBetter,
    ),
    panel(
        "Streams opened and closed a second, 64 at a time",
        Pipe::Tcp,
        Opening(64),
        "/s",
        MoreIsBetter,
    ),
    panel(
        "1 Gbit/s, 50 ms: MiB in the first second",
        Pipe::Wan,
        FirstSecond(1),
        "first second MiB",
        MoreIsBetter,
    ),
];

const WORKERS: usize = 2;
const COLUMNS: usize = 2;
const COLUMN_WIDTH: f64 = 440.0;
const MARGIN: f64 = 16.0;
const LABEL_WIDTH: f64 = 108.0;
/// Leaves room for the figure behind the longest bar.
const BAR_WIDTH: f64 = 240.0;
const BAR_HEIGHT: f64 = 11.0;
const ROW: f64 = 16.0;
const TITLE: f64 = 22.0;
const GAP: f64 = 20.0;
/// A bar is never nothing.
const SHORTEST: f64 = 2.0;

/// Greys and a blue in the middle of the scale, which read on light and dark pages.
const TEXT: &str = "#7a828e";
const OURS: &str = "#2f81f7";
const RAW: &str = "#bf8700";
const CAPPED: &str = "#a5adb8";
const OTHERS: &str = "#7a828e";

/// An SVG that needs nothing else.
pub fn draw(report: &Report) -> String {
    let panels: Vec<(&Panel, Vec<(Peer, f64)>)> = PANELS
        .iter()
        .map(|panel| (panel, panel.bars(report)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    let mut body = String::new();
    let mut top = legend(&mut body);
    for line in panels.chunks(COLUMNS) {
        let mut height = 0.0_f64;
        for (column, (panel, bars)) in line.iter().enumerate() {
            let left = MARGIN + column as f64 * COLUMN_WIDTH;
            panel.draw(&mut body, left, top, bars);
            height = height.max(TITLE + ROW * bars.len() as f64);
        }
        top += height + GAP;
    }
    let width = MARGIN + COLUMN_WIDTH * COLUMNS as f64;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {top}\" width=\"{width}\" height=\"{top}\" \
         font-family=\"-apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"11\" fill=\"{TEXT}\">\n\
         <title>The multiplexer beside its peers over loopback TCP, two workers</title>\n{body}</svg>\n"
    )
}

impl Panel {
    /// The best first.
    fn bars(&self, report: &Report) -> Vec<(Peer, f64)> {
        let mut bars: Vec<(Peer, f64)> = Peer::ALL
            .into_iter()
            .filter_map(|peer| {
                let figure = report.figure(self.pipe, WORKERS, self.workload, peer, self.figure)?;
                Some((peer, figure))
            })
            .collect();
        bars.sort_by(|(_, one), (_, other)| match self.order {
            MoreIsBetter => other.total_cmp(one),
            LessIsBetter => one.total_cmp(other),
        });
        bars
    }

    fn draw(&self, body: &mut String, left: f64, top: f64, bars: &[(Peer, f64)]) {
        let largest = bars.iter().map(|&(_, figure)| figure).fold(0.0, f64::max);
        let smallest = bars
            .iter()
            .map(|&(_, figure)| figure)
            .fold(largest, f64::min);
        title(body, left, top + 12.0, self.title);
        for (index, &(peer, figure)) in bars.iter().enumerate() {
            let share = match self.order {
                MoreIsBetter => figure / largest,
                // A tenth of the width for the smallest.
                LessIsBetter => {
                    0.1 + 0.9 * (figure / smallest).ln() / (largest / smallest).ln().max(1e-9)
                }
            };
            let width = (BAR_WIDTH * share).max(SHORTEST);
            let (x, y) = (left + LABEL_WIDTH, top + TITLE + ROW * index as f64);
            let middle = y + 9.5;
            text(body, x - 7.0, middle, "end", weight(peer), peer.name());
            let _ = writeln!(
                body,
                r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{BAR_HEIGHT}" rx="1.5" fill="{}"/>"#,
                colour(peer)
            );
            let after = x + width + 5.0;
            text(
                body,
                after,
                middle,
                "start",
                weight(peer),
                &shown(Some(figure)),
            );
        }
    }
}

fn colour(peer: Peer) -> &'static str {
    if peer.is_ours() {
        OURS
    } else if peer.is_raw() {
        RAW
    } else if peer.is_capped() {
        CAPPED
    } else {
        OTHERS
    }
}

fn weight(peer: Peer) -> &'static str {
    if peer.is_ours() { "bold" } else { "normal" }
}

/// What the colours mean. Returns where the panels begin.
fn legend(body: &mut String) -> f64 {
    const ITEMS: [(&str, &str); 4] = [
        (OURS, "this crate"),
        (OTHERS, "peer at its defaults (h2: windows raised)"),
        (CAPPED, "peer with windows capped by hand"),
        (RAW, "no multiplexer"),
    ];
    let mut x = MARGIN;
    for (colour, label) in ITEMS {
        let _ = writeln!(
            body,
            r#"<rect x="{x:.1}" y="14" width="11" height="11" rx="1.5" fill="{colour}"/>"#
        );
        text(body, x + 16.0, 23.5, "start", "normal", label);
        // About what the letters take.
        x += 16.0 + 6.4 * label.len() as f64 + 22.0;
    }
    46.0
}

fn title(body: &mut String, x: f64, y: f64, title: &str) {
    let _ = writeln!(
        body,
        r#"<text x="{x:.1}" y="{y:.1}" font-size="12" font-weight="bold">{title}</text>"#
    );
}

fn text(body: &mut String, x: f64, y: f64, anchor: &str, weight: &str, text: &str) {
    let _ = writeln!(
        body,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-weight="{weight}">{text}</text>"#
    );
}
