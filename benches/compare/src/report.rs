//! Runs a plan and prints its tables.

mod chart;
pub mod table;

use std::{
    collections::BTreeMap,
    fs,
    hash::{BuildHasher, RandomState},
    io::Write,
    thread,
    time::Instant,
};

use crate::{
    Result, goals,
    measurement::{Measurement, Outcome},
    peer::Peer,
    pipe::Pipe,
    plan::Plan,
    workload::Workload,
};

/// The medians of all rounds. What failed or took too long has no figures.
#[derive(Default)]
pub struct Report {
    outcomes: BTreeMap<Measurement, Outcome>,
}

pub fn run(plan: &Plan) -> Result<()> {
    let mut all = BTreeMap::<Measurement, Vec<Outcome>>::new();
    let total = plan.rounds * plan.measurements.len();
    let begin = Instant::now();
    let mut done = 0;
    for _ in 0..plan.rounds {
        let order = shuffled_peers(&plan.measurements);
        for group in order.chunk_by(|one, other| one.may_run_beside(other)) {
            for (measurement, outcome) in run_together(group)? {
                done += 1;
                let outcomes = all.entry(measurement).or_default();
                match outcome {
                    Some(outcome) => outcomes.push(outcome),
                    None => eprintln!("\r{} failed or took too long", measurement.path()),
                }
            }
            let minutes = begin.elapsed().as_secs_f64() / 60.0;
            eprint!("\r{done} of {total}, {minutes:.1} minutes   ");
            std::io::stderr().flush()?;
        }
    }
    eprintln!();
    let report = Report {
        outcomes: all
            .into_iter()
            .map(|(measurement, outcomes)| (measurement, medians(&outcomes)))
            .collect(),
    };
    table::print(&report);
    goals::print(&report);
    if let Some(path) = &plan.chart {
        fs::write(path, chart::draw(&report))?;
    }
    Ok(())
}

fn run_together(group: &[Measurement]) -> Result<Vec<(Measurement, Option<Outcome>)>> {
    thread::scope(|scope| {
        let children: Vec<_> = group
            .iter()
            .map(|&measurement| (measurement, scope.spawn(move || measurement.run_in_child())))
            .collect();
        children
            .into_iter()
            .map(|(measurement, child)| {
                let outcome = child.join().map_err(|_| "a child's thread has panicked")?;
                Ok((measurement, outcome?))
            })
            .collect()
    })
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

    /// The same of the pipe without a multiplexer, which has one stream whatever the others have.
    pub fn raw_figure(
        &self,
        pipe: Pipe,
        workers: usize,
        workload: Workload,
        name: &str,
    ) -> Option<f64> {
        let workload = match workload {
            Workload::Bulk(_) => Workload::Bulk(1),
            Workload::FirstSecond(_) => Workload::FirstSecond(1),
            other => other,
        };
        self.figure(pipe, workers, workload, Peer::Raw, name)
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
