//! One measurement: a process of its own, so that no peer inherits another's heap or threads.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Result, peer::Peer, pipe::Pipe, workload::Workload};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Measurement {
    pub pipe: Pipe,
    pub workers: usize,
    pub workload: Workload,
    pub peer: Peer,
}

/// Named figures.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome(pub BTreeMap<String, f64>);

impl Outcome {
    /// What is no number was not measured, such as the ratio of two standstills.
    #[must_use]
    pub fn with(mut self, name: &str, value: f64) -> Self {
        if value.is_finite() {
            self.0.insert(name.to_owned(), value);
        }
        self
    }
}

/// A measurement that takes longer has hung: its peer does not do this workload.
const LIMIT: Duration = Duration::from_secs(30);

impl Measurement {
    /// As the command line calls it.
    pub fn path(self) -> String {
        let (pipe, workload) = (self.pipe.slug(), self.workload.slug());
        format!("{pipe}/{}/{workload} of {}", self.workers, self.peer.name())
    }

    /// Whether both may run at once: the emulated relay is so slow that the processor does not matter.
    pub fn may_run_beside(&self, other: &Self) -> bool {
        self.pipe == Pipe::Relay && (self.pipe, self.workload) == (other.pipe, other.workload)
    }

    /// Runs it in a child process. `None` when it failed or hung.
    pub fn run_in_child(self) -> Result<Option<Outcome>> {
        let child = std::process::Command::new("timeout")
            .arg(LIMIT.as_secs().to_string())
            .arg(std::env::current_exe()?)
            .args(["one", &serde_json::to_string(&self)?])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        if !child.status.success() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&child.stdout)?))
    }
}

/// What the child does.
pub fn run_and_print(measurement: &str) -> Result<()> {
    let measurement: Measurement = serde_json::from_str(measurement)?;
    let runtime = if measurement.workers == 1 {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
    } else {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(measurement.workers)
            .enable_all()
            .build()?
    };
    // On a worker, as the peers' own tasks are: the main thread of a runtime is none.
    let running = runtime.spawn(measurement.peer.run(measurement.pipe, measurement.workload));
    let outcome = runtime.block_on(running)??;
    println!("{}", serde_json::to_string(&outcome)?);
    // What still runs has nothing to say.
    runtime.shutdown_background();
    Ok(())
}
