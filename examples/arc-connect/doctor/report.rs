//! [`Report`]: all checks, as a table for a person or as JSON for a program.

use std::io::IsTerminal;

use serde_json::{Value, json};

use super::check::{Check, Outcome};
use crate::common::printable;

/// What was found, in the order in which it is read.
pub struct Report {
    checks: Vec<Check>,
}

/// Whether results are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    On,
    Off,
}

impl Colour {
    /// On a terminal whose user did not say otherwise.
    pub fn of_stdout() -> Self {
        if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
            Self::On
        } else {
            Self::Off
        }
    }
}

impl Report {
    pub fn new(checks: Vec<Check>) -> Self {
        Self { checks }
    }

    /// The worst of all.
    pub fn outcome(&self) -> Outcome {
        let outcomes = self.checks.iter().map(|check| check.finding.outcome);
        // Where all were skipped nothing is wrong either.
        outcomes.max().unwrap_or(Outcome::Ok).max(Outcome::Ok)
    }

    fn count(&self, outcome: Outcome) -> usize {
        let of_it = |check: &&Check| check.finding.outcome == outcome;
        self.checks.iter().filter(of_it).count()
    }

    /// A stable shape: members may be added.
    pub fn to_json(&self) -> Value {
        let checks: Vec<Value> = self.checks.iter().map(Check::to_json).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "result": self.outcome().as_str(),
            "counts": {
                "ok": self.count(Outcome::Ok),
                "warning": self.count(Outcome::Warning),
                "failed": self.count(Outcome::Failed),
                "skipped": self.count(Outcome::Skipped),
            },
            "checks": checks,
        })
    }

    /// A line for each check, advice below those that need it, and the sum.
    pub fn to_text(&self, colour: Colour) -> String {
        let width = self.checks.iter().map(|check| check.name.len()).max();
        let width = width.unwrap_or(0);
        let mut text = String::new();
        for check in &self.checks {
            let target = match &check.target {
                Some(target) => format!("{target}: "),
                None => String::new(),
            };
            let line = format!(
                "{:width$}  {:>8}  {target}{}",
                check.name,
                took(check),
                check.finding.detail
            );
            text.push_str(&word(check.finding.outcome, colour));
            text.push_str(&printable(line));
            text.push('\n');
            if let Some(advice) = &check.finding.advice {
                text.push_str(&printable(format!("         what to do: {advice}")));
                text.push('\n');
            }
        }
        text.push_str(&self.sum());
        text
    }

    fn sum(&self) -> String {
        let counts: Vec<String> = [
            Outcome::Failed,
            Outcome::Warning,
            Outcome::Ok,
            Outcome::Skipped,
        ]
        .into_iter()
        .map(|outcome| (self.count(outcome), outcome.as_str()))
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
        format!("\n{}\n", counts.join(", "))
    }
}

fn took(check: &Check) -> String {
    if check.took.is_zero() {
        return "-".to_owned();
    }
    format!("{} ms", check.took.as_millis())
}

fn word(outcome: Outcome, colour: Colour) -> String {
    let word = format!("{:7}", outcome.as_str());
    let code = match outcome {
        Outcome::Ok => "32",
        Outcome::Warning => "33",
        Outcome::Failed => "31",
        Outcome::Skipped => "2",
    };
    match colour {
        Colour::On => format!("\u{1b}[{code}m{word}\u{1b}[0m  "),
        Colour::Off => format!("{word}  "),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::check::Finding, *};

    fn report() -> Report {
        let mut relay = Check::new(
            "relay.listener",
            Finding::failed("no \u{1b}[2Jagent", "start it"),
        )
        .with_target("shop/till");
        relay.took = std::time::Duration::from_millis(42);
        Report::new(vec![
            Check::new("local.port", Finding::ok("free")),
            relay,
            Check::new("cluster.rights", Finding::skipped("no agent")),
        ])
    }

    #[test]
    fn what_failed_says_what_to_do_below_it() {
        assert_eq!(
            report().to_text(Colour::Off),
            "ok       local.port             -  free\n\
             failed   relay.listener     42 ms  shop/till: no  [2Jagent\n\
             \u{20}        what to do: start it\n\
             skipped  cluster.rights         -  no agent\n\n\
             1 failed, 1 ok, 1 skipped\n"
        );
        assert!(report().to_text(Colour::On).contains("\u{1b}[31mfailed "));
    }

    #[test]
    fn the_worst_is_the_result() {
        let json = report().to_json();
        assert_eq!(json["result"], "failed");
        assert_eq!(json["counts"]["skipped"], 1);
        assert_eq!(json["checks"][1]["advice"], "start it");
        assert_eq!(Report::new(Vec::new()).outcome(), Outcome::Ok);
        let skipped = Report::new(vec![Check::new("x", Finding::skipped("y"))]);
        assert_eq!(skipped.outcome(), Outcome::Ok);
    }
}
