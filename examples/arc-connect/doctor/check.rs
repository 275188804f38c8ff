//! [`Check`]: one question, its answer, and what to do when the answer is bad.

use std::time::{Duration, Instant};

use arc_cluster_connect::Error;
use serde_json::{Value, json};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Something that it needs was not there.
    Skipped,
    Ok,
    /// It works, or is not needed by this machine, and is worth a look.
    Warning,
    Failed,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub outcome: Outcome,
    /// One line.
    pub detail: String,
    /// What to do, when there is something to do.
    pub advice: Option<String>,
}

/// A part of a check that is worth a line of its own in JSON.
#[derive(Clone, Debug)]
pub struct Step {
    pub name: &'static str,
    pub finding: Finding,
    pub took: Duration,
}

/// A check that was made.
#[derive(Clone, Debug)]
pub struct Check {
    /// Stable: scripts go by it.
    pub name: &'static str,
    /// What was looked at, where the name does not say.
    pub target: Option<String>,
    pub finding: Finding,
    pub took: Duration,
    pub steps: Vec<Step>,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl Finding {
    pub fn ok(detail: impl Into<String>) -> Self {
        Self::new(Outcome::Ok, detail, None)
    }

    pub fn skipped(detail: impl Into<String>) -> Self {
        Self::new(Outcome::Skipped, detail, None)
    }

    pub fn warning(detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Outcome::Warning, detail, Some(advice.into()))
    }

    pub fn failed(detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Outcome::Failed, detail, Some(advice.into()))
    }

    /// What an error of the crate says, and its help.
    pub fn of_error(error: &Error) -> Self {
        let mut detail = error.report();
        if let Some(id) = error.tracking_id() {
            detail.push_str(&format!(" (tracking id {id})"));
        }
        let advice = help(error).unwrap_or("run again with -vv, which tells more");
        Self::failed(detail, advice)
    }

    fn new(outcome: Outcome, detail: impl Into<String>, advice: Option<String>) -> Self {
        Self {
            outcome,
            detail: detail.into(),
            advice,
        }
    }

    /// Something that this machine does not need is not a failure here.
    #[must_use]
    pub fn at_most(mut self, worst: Outcome) -> Self {
        if self.outcome > worst {
            self.outcome = worst;
        }
        self
    }

    pub fn is_ok(&self) -> bool {
        matches!(self.outcome, Outcome::Ok | Outcome::Warning)
    }
}

impl Check {
    pub fn new(name: &'static str, finding: Finding) -> Self {
        Self {
            name,
            target: None,
            finding,
            took: Duration::ZERO,
            steps: Vec::new(),
        }
    }

    /// Asks, and gives up after `limit`.
    pub async fn within(
        name: &'static str,
        limit: Duration,
        asking: impl Future<Output = Finding>,
    ) -> Self {
        let (finding, took) = timed(limit, asking).await;
        Self {
            took,
            ..Self::new(name, finding)
        }
    }

    #[must_use]
    pub fn with_target(mut self, target: impl Into<String>) -> Self {
        self.target = Some(target.into());
        self
    }

    /// A stable shape: members may be added.
    pub fn to_json(&self) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|step| {
                json!({
                    "name": step.name,
                    "result": step.finding.outcome.as_str(),
                    "milliseconds": milliseconds(step.took),
                    "detail": step.finding.detail,
                })
            })
            .collect();
        json!({
            "name": self.name,
            "target": self.target,
            "result": self.finding.outcome.as_str(),
            "milliseconds": milliseconds(self.took),
            "detail": self.finding.detail,
            "advice": self.finding.advice,
            "steps": steps,
        })
    }
}

/// What was found within `limit`, and how long it took.
pub async fn timed(limit: Duration, asking: impl Future<Output = Finding>) -> (Finding, Duration) {
    let started = Instant::now();
    let finding = tokio::time::timeout(limit, asking)
        .await
        .unwrap_or_else(|_| {
            Finding::failed(
                format!("no answer within {} s", limit.as_secs()),
                "check that no firewall drops the packets on the way",
            )
        });
    (finding, started.elapsed())
}

/// Of an error, or of its first cause that has some.
fn help(error: &Error) -> Option<&str> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(help) = cause.downcast_ref::<Error>().and_then(Error::help) {
            return Some(help);
        }
        next = cause.source();
    }
    None
}

fn milliseconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use arc_cluster_connect::ErrorKind;

    use super::*;

    #[test]
    fn an_error_brings_its_own_advice_or_that_of_its_cause() {
        let inner = Error::new(ErrorKind::Network, "refused").with_help("start it");
        let outer = Error::new(ErrorKind::Network, "no way").with_source(inner);
        let finding = Finding::of_error(&outer);
        assert_eq!(finding, Finding::failed("no way: refused", "start it"));
        let bare = Finding::of_error(&Error::new(ErrorKind::Other, "odd"));
        assert!(bare.advice.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_waited_for_longer_than_its_limit() {
        let check = Check::within("x", Duration::from_secs(5), std::future::pending()).await;
        assert_eq!(check.finding.outcome, Outcome::Failed);
        assert_eq!(check.finding.detail, "no answer within 5 s");
    }

    #[test]
    fn failures_of_others_are_warnings_here() {
        let failed = Finding::failed("no way", "dig");
        assert_eq!(
            failed.clone().at_most(Outcome::Warning).outcome,
            Outcome::Warning
        );
        assert_eq!(
            Finding::ok("fine").at_most(Outcome::Warning).outcome,
            Outcome::Ok
        );
        assert_eq!(failed.at_most(Outcome::Failed).outcome, Outcome::Failed);
    }

    #[test]
    fn the_shape_of_json_is_stable() {
        let mut check = Check::new("cluster.rights", Finding::warning("few", "ask for more"))
            .with_target("default");
        check.took = Duration::from_micros(12_340);
        check.steps.push(Step {
            name: "dns",
            finding: Finding::ok("1.2.3.4"),
            took: Duration::from_millis(1),
        });
        assert_eq!(
            check.to_json(),
            json!({
                "name": "cluster.rights", "target": "default", "result": "warning", "milliseconds": 12.3,
                "detail": "few", "advice": "ask for more",
                "steps": [{ "name": "dns", "result": "ok", "milliseconds": 1.0, "detail": "1.2.3.4" }],
            })
        );
    }
}
