//! Runs a plan and prints its tables.

mod chart;

use std::{
    collections::BTreeMap,
    fs,
    hash::{BuildHasher, RandomState},
    io::Write,
};

use crate::{
    Result, goals,
    measurement::{Measurement, Outcome},
    peer::Peer,
    pipe::Pipe,
    plan::Plan,
    workload::Workload,
};

/// The medians of all rounds.
#[derive(Default)]
pub struct Report {
    outcomes: BTreeMap<Measurement, Outcome>,
}

pub fn run(plan: &Plan) -> Result<()> {
    let mut all = BTreeMap::<Measurement, Vec<Outcome>>::new();
    let total = plan.rounds * plan.measurements.len();
    let mut done = 0;
    for _ in 0..plan.rounds {
        for measurement in shuffled_peers(&plan.measurements) {
            done += 1;
            eprint!("\r{done} of {total}   ");
            std::io::stderr().flush()?;
            match measurement.run_in_child()? {
                Some(outcome) => all.entry(measurement).or_default().push(outcome),
                None => eprintln!("\r{measurement:?} failed or hung"),
            }
        }
    }
    eprintln!();
    let report = Report {
        outcomes: all
            .into_iter()
            .map(|(measurement, outcomes)| (measurement, medians(&outcomes)))
            .collect(),
    };
    report.print();
    goals::print(&report);
    if let Some(path) = &plan.chart {
        fs::write(path, chart::draw(&report))?;
    }
    Ok(())
}

impl Report {
    /// A figure, if it was measured.
    pub fn figure(
        &self,
        pipe: Pipe,
        workers: usize,
        workload: Workload,
        peer: Peer,
        name: &str,
    ) -> Option<f64> {
        let measurement = Measurement {
            pipe,
            workers,
            workload,
            peer,
        };
        self.outcomes.get(&measurement)?.0.get(name).copied()
    }

    fn print(&self) {
        let mut tables = BTreeMap::<(Pipe, usize), Vec<Workload>>::new();
        for measurement in self.outcomes.keys() {
            let workloads = tables
                .entry((measurement.pipe, measurement.workers))
                .or_default();
            if !workloads.contains(&measurement.workload) {
                workloads.push(measurement.workload);
            }
        }
        for ((pipe, workers), workloads) in tables {
            println!("\n## {}, {workers} worker(s)\n", pipe.name());
            for workload in workloads {
                self.print_table(pipe, workers, workload);
            }
        }
    }

    fn print_table(&self, pipe: Pipe, workers: usize, workload: Workload) {
        let rows: Vec<(Peer, &Outcome)> = self
            .outcomes
            .iter()
            .filter(|(measurement, _)| {
                (measurement.pipe, measurement.workers, measurement.workload)
                    == (pipe, workers, workload)
            })
            .map(|(measurement, outcome)| (measurement.peer, outcome))
            .collect();
        let Some((_, first)) = rows.first() else {
            return;
        };
        let names: Vec<&String> = first.0.keys().collect();
        print!("| {} |", workload.name());
        names.iter().for_each(|name| print!(" {name} |"));
        println!();
        println!("|---|{}", "---:|".repeat(names.len()));
        for (peer, outcome) in rows {
            print!("| {} |", peer.name());
            for name in &names {
                print!(" {} |", shown(outcome.0.get(*name).copied()));
            }
            println!();
        }
        println!();
    }
}

/// Enough digits to compare by.
pub fn shown(figure: Option<f64>) -> String {
    match figure {
        None => "–".into(),
        Some(figure) if figure.abs() >= 100.0 => format!("{figure:.0}"),
        Some(figure) if figure.abs() >= 10.0 => format!("{figure:.1}"),
        Some(figure) => format!("{figure:.2}"),
    }
}

/// The measurements in their order, the peers of each in a new one.
fn shuffled_peers(measurements: &[Measurement]) -> Vec<Measurement> {
    let random = RandomState::new();
    let mut shuffled = measurements.to_vec();
    let place = |of: &Measurement| {
        let same = |other: &Measurement| {
            (other.pipe, other.workers, other.workload) == (of.pipe, of.workers, of.workload)
        };
        measurements.iter().position(same)
    };
    shuffled.sort_by_cached_key(|measurement| {
        let turn = random.hash_one(measurement.peer.name());
        (place(measurement), turn)
    });
    shuffled
}

fn medians(outcomes: &[Outcome]) -> Outcome {
    let mut names: Vec<&String> = outcomes
        .iter()
        .flat_map(|outcome| outcome.0.keys())
        .collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().fold(Outcome::default(), |medians, name| {
        let mut figures: Vec<f64> = outcomes
            .iter()
            .filter_map(|outcome| outcome.0.get(name).copied())
            .collect();
        figures.sort_unstable_by(f64::total_cmp);
        medians.with(name, figures[figures.len() / 2])
    })
}
