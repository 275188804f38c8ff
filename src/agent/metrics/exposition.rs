//! The Prometheus text format, and the two kinds of metric that need more than a number.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Upper bounds in seconds. Few, since each is a series for each histogram: discovery takes milliseconds, a large list
/// seconds, a watch up to an hour.
const BUCKETS: [f64; 9] = [0.005, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0, 3600.0];

/// Counts by `N` labels, whose values are text of the program.
#[derive(Debug)]
pub(super) struct Counter<const N: usize>(Mutex<BTreeMap<[&'static str; N], u64>>);

impl<const N: usize> Counter<N> {
    pub(super) fn add(&self, labels: [&'static str; N]) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(labels).or_default() += 1;
    }
}

impl<const N: usize> Default for Counter<N> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[derive(Debug, Default)]
pub(super) struct Histogram(Mutex<Observations>);

#[derive(Clone, Copy, Debug, Default)]
struct Observations {
    /// Those in each bucket alone; the text adds them up.
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

impl Histogram {
    pub(super) fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let mut observations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = BUCKETS.iter().position(|&bound| seconds <= bound) {
            observations.buckets[bucket] += 1;
        }
        observations.count += 1;
        observations.seconds += seconds;
    }
}

/// Text in the making.
#[derive(Debug, Default)]
pub(super) struct Exposition(String);

impl Exposition {
    /// The two lines that go before a metric's samples.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.line(format_args!("{name}{} {value}", braced(labels)));
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    pub(super) fn total(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    pub(super) fn counter<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        counter: &Counter<N>,
    ) {
        self.family(name, "counter", help);
        let counts = counter.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (values, &count) in counts.iter() {
            let pairs: Vec<_> = labels.into_iter().zip(values.iter().copied()).collect();
            self.sample(name, &pairs, count);
        }
    }

    pub(super) fn histograms(
        &mut self,
        name: &str,
        help: &str,
        histograms: &[(Option<(&str, &str)>, &Histogram)],
    ) {
        self.family(name, "histogram", help);
        for (label, histogram) in histograms {
            let observations = *histogram.0.lock().unwrap_or_else(PoisonError::into_inner);
            let label: Vec<_> = label.iter().copied().collect();
            let mut sum = 0;
            for (bound, count) in BUCKETS.iter().zip(observations.buckets) {
                sum += count;
                self.bucket(name, &label, &bound.to_string(), sum);
            }
            self.bucket(name, &label, "+Inf", observations.count);
            let (labels, seconds) = (braced(&label), observations.seconds);
            self.line(format_args!("{name}_sum{labels} {seconds}"));
            self.line(format_args!("{name}_count{labels} {}", observations.count));
        }
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }

    fn bucket(&mut self, name: &str, labels: &[(&str, &str)], bound: &str, count: u64) {
        let labels = [labels, &[("le", bound)]].concat();
        self.line(format_args!("{name}_bucket{} {count}", braced(&labels)));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a String takes everything");
    }
}

/// Values are the program's own words, so there is nothing to escape.
fn braced(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let pairs: Vec<_> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    format!("{{{}}}", pairs.join(","))
}
