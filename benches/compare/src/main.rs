//! The multiplexer of `arc-cluster-connect` beside its peers: the same work over the same pipes, in one run.
//!
//! ```console
//! $ cargo run --release -p arc-cluster-connect-compare              # everything, three rounds
//! $ cargo run --release -p arc-cluster-connect-compare -- --quick   # TCP only, one round
//! $ cargo run --release -p arc-cluster-connect-compare -- --only tcp/2/bulk16 --peer ours --peer raw
//! ```
//!
//! `-- --rounds 1 --chart docs/mux-comparison.svg` prints the tables and draws the chart of the README. A whole round takes
//! about 15 minutes.
//!
//! Every measurement is a process of its own; the peers take turns within each round; what is shown is the median of
//! the rounds. Compare within a column: the absolute figures are the machine's.

mod allocations;
mod copies;
mod goals;
mod link;
mod measurement;
mod peer;
mod pipe;
mod plan;
mod report;
mod websocket;
mod workload;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["one", measurement] => measurement::run_and_print(measurement),
        options => plan::Plan::from_options(options).and_then(|plan| report::run(&plan)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whatever went wrong ends the process that measures: there is nobody to handle it.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;
