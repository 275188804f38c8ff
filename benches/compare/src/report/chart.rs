//! The chart of the README: bulk throughput over loopback TCP.

use std::fmt::Write;

use super::{Report, shown};
use crate::{peer::Peer, pipe::Pipe, workload::Workload};

const STREAMS: [usize; 3] = [1, 16, 256];
const WORKERS: usize = 2;

const LABEL_WIDTH: f64 = 190.0;
const BAR_WIDTH: f64 = 420.0;
const ROW: f64 = 18.0;
const GAP: f64 = 30.0;

/// An SVG that reads on light and dark pages.
pub fn draw(report: &Report) -> String {
    let mut body = String::new();
    let mut y = 24.0;
    for streams in STREAMS {
        let workload = Workload::Bulk(streams);
        let mut bars: Vec<(Peer, f64)> = Peer::ALL
            .into_iter()
            .filter_map(|peer| {
                let figure = report.figure(Pipe::Tcp, WORKERS, workload, peer, "MiB/s")?;
                Some((peer, figure))
            })
            .collect();
        bars.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        let Some(&(_, longest)) = bars.first() else {
            continue;
        };
        text(
            &mut body,
            0.0,
            y,
            "start",
            &format!("{}, MiB/s", workload.name()),
        );
        y += ROW;
        for (peer, figure) in bars {
            let width = BAR_WIDTH * figure / longest;
            let colour = if peer.is_ours() { "#2f81f7" } else { "#8b949e" };
            text(&mut body, LABEL_WIDTH - 8.0, y, "end", peer.name());
            let top = y - 12.0;
            let _ = writeln!(
                body,
                r#"<rect x="{LABEL_WIDTH}" y="{top}" width="{width:.1}" height="14" fill="{colour}"/>"#
            );
            let after = LABEL_WIDTH + width + 6.0;
            text(&mut body, after, y, "start", &shown(Some(figure)));
            y += ROW;
        }
        y += GAP;
    }
    let width = LABEL_WIDTH + BAR_WIDTH + 70.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {y}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#8b949e\">\n{body}</svg>\n"
    )
}

fn text(body: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(
        body,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
    );
}
