//! A table for each pipe: a row for each peer, a column for each figure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Report, shown};
use crate::{peer::Peer, pipe::Pipe, workload::Workload};

pub fn print(report: &Report) {
    let mut tables = BTreeMap::<(Pipe, usize), BTreeSet<Workload>>::new();
    let mut peers = BTreeSet::new();
    for measurement in report.outcomes.keys() {
        let place = (measurement.pipe, measurement.workers);
        tables
            .entry(place)
            .or_default()
            .insert(measurement.workload);
        peers.insert(measurement.peer);
    }
    for peer in &peers {
        println!("* {}: {}", peer.name(), peer.description());
    }
    println!("\nOn one core, MiB/s of a bulk transfer are those of processor time.");
    for ((pipe, workers), workloads) in tables {
        println!("\n## {}, {}\n", pipe.name(), on_workers(workers));
        print_rows(&rows(report, pipe, workers, &workloads));
    }
}

pub fn on_workers(workers: usize) -> String {
    match workers {
        1 => "one core".into(),
        _ => format!("{workers} workers"),
    }
}

/// The first is the head.
fn rows(
    report: &Report,
    pipe: Pipe,
    workers: usize,
    workloads: &BTreeSet<Workload>,
) -> Vec<Vec<String>> {
    let measured = || {
        report.outcomes.iter().filter(move |(measurement, _)| {
            (measurement.pipe, measurement.workers) == (pipe, workers)
        })
    };
    let mut columns = Vec::<(Workload, &str)>::new();
    for &workload in workloads {
        let outcomes = measured().filter(|(measurement, _)| measurement.workload == workload);
        let names: BTreeSet<&String> = outcomes.flat_map(|(_, outcome)| outcome.0.keys()).collect();
        columns.extend(names.into_iter().map(|name| (workload, name.as_str())));
    }
    let mut head = vec!["peer".to_owned()];
    for (workload, name) in &columns {
        head.push(format!("{} {name}", workload.slug()));
        if is_relative(name) {
            head.push("× raw".into());
        }
    }
    let peers: BTreeSet<Peer> = measured()
        .map(|(measurement, _)| measurement.peer)
        .collect();
    let body = peers.into_iter().map(|peer| {
        let mut row = vec![peer.name().to_owned()];
        for &(workload, name) in &columns {
            let figure = report.figure(pipe, workers, workload, peer, name);
            row.push(shown(figure));
            if is_relative(name) {
                let raw = report.raw_figure(pipe, workers, workload, name);
                row.push(shown(figure.zip(raw).map(|(figure, raw)| figure / raw)));
            }
        }
        row
    });
    let mut rows = vec![head];
    rows.extend(body);
    rows
}

/// Whether the bare pipe has the same figure.
fn is_relative(name: &str) -> bool {
    matches!(name, "MiB/s" | "p50 µs")
}

/// In Markdown, aligned, so that it also reads as it is.
pub fn print_rows(rows: &[Vec<String>]) {
    let Some(head) = rows.first() else {
        return;
    };
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for (index, row) in rows.iter().enumerate() {
        print!("|");
        for (cell, &width) in row.iter().zip(&widths) {
            print!(" {cell:>width$} |");
        }
        println!();
        if index == 0 {
            let rules = widths.iter().map(|width| "-".repeat(width + 1) + ":|");
            println!("|{}", rules.collect::<String>());
        }
    }
}
