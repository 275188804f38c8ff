//! [`Metrics`]: what the relay counts, and its Prometheus text form.
//!
//! Every label's value is the program's own text, but for the names of hybrid connections, which are fixed at start:
//! nobody who connects can make a new series.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use http::StatusCode;

use super::{Refusal, bridge, entity::MAX_PENDING_PER_LISTENER, route::Action, service::Relay};
use crate::telemetry;

/// Everything that one relay counts.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    requests: [[AtomicU64; OUTCOMES.len()]; ACTIONS.len()],
    bridges: [AtomicU64; ENDINGS.len()],
    bridged: AtomicU64,
}

/// A relayed connection counts as open as long as this lives.
#[derive(Debug)]
pub(super) struct Bridged<'a>(&'a AtomicU64);

const ACTIONS: [&str; 6] = ["listen", "connect", "accept", "request", "http", "unknown"];

const OUTCOMES: [&str; 8] = [
    "served",
    "rejected_by_listener",
    "unauthorized",
    "forbidden",
    "not_found",
    "timeout",
    "unavailable",
    "refused",
];

const ENDINGS: [&str; 3] = ["closed", "aborted", "shutdown"];

impl Metrics {
    /// A request that was answered by what it asked for, or refused.
    pub(super) fn answered(&self, action: Action, refusal: Option<&Refusal>) {
        let action = match action {
            Action::Listen => 0,
            Action::Connect => 1,
            Action::Accept => 2,
            Action::Request => 3,
            Action::Forward => 4,
            Action::Unknown => 5,
        };
        let outcome = refusal.map_or(0, |refusal| match refusal.status() {
            _ if refusal.is_by_listener() => 1,
            StatusCode::GONE => 1,
            StatusCode::UNAUTHORIZED => 2,
            StatusCode::FORBIDDEN => 3,
            StatusCode::NOT_FOUND => 4,
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => 5,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => 6,
            _ => 7,
        });
        self.requests[action][outcome].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn bridge_opened(&self) -> Bridged<'_> {
        self.bridged.fetch_add(1, Ordering::Relaxed);
        Bridged(&self.bridged)
    }

    pub(super) fn bridge_ended(&self, ending: bridge::Ending) {
        let ending = match ending {
            bridge::Ending::Closed => 0,
            bridge::Ending::Aborted => 1,
            bridge::Ending::Shutdown => 2,
        };
        self.bridges[ending].fetch_add(1, Ordering::Relaxed);
    }

    /// Prometheus' text form, with what is known of the relay itself.
    pub(super) fn exposition(&self, relay: &Relay) -> String {
        let mut text = String::new();
        describe(
            &mut text,
            telemetry::METRIC_RELAY_SERVER_REQUESTS,
            "counter",
            "Requests by what they asked for and how they were answered.",
        );
        for (action, counts) in ACTIONS.iter().zip(&self.requests) {
            for (outcome, count) in OUTCOMES.iter().zip(counts) {
                sample(
                    &mut text,
                    &series(
                        telemetry::METRIC_RELAY_SERVER_REQUESTS,
                        &[("action", action), ("outcome", outcome)],
                    ),
                    count.load(Ordering::Relaxed),
                );
            }
        }
        describe(
            &mut text,
            telemetry::METRIC_RELAY_SERVER_BRIDGES_ENDED,
            "counter",
            "Relayed WebSocket connections that ended, by how.",
        );
        for (ending, count) in ENDINGS.iter().zip(&self.bridges) {
            sample(
                &mut text,
                &series(
                    telemetry::METRIC_RELAY_SERVER_BRIDGES_ENDED,
                    &[("ending", ending)],
                ),
                count.load(Ordering::Relaxed),
            );
        }
        gauge(
            &mut text,
            telemetry::METRIC_RELAY_SERVER_BRIDGES,
            "Relayed WebSocket connections.",
            self.bridged.load(Ordering::Relaxed),
        );
        gauge(
            &mut text,
            telemetry::METRIC_RELAY_SERVER_CONNECTIONS,
            "Connections of all kinds.",
            (relay.max_connections - relay.connections.available_permits()) as u64,
        );
        gauge(
            &mut text,
            telemetry::METRIC_RELAY_SERVER_CONNECTIONS_MAX,
            "The limit of connections.",
            relay.max_connections as u64,
        );
        gauge(
            &mut text,
            telemetry::METRIC_RELAY_SERVER_NEWCOMERS,
            "Connections that have not sent a whole request yet.",
            relay.newcomers.count() as u64,
        );
        counter(
            &mut text,
            telemetry::METRIC_RELAY_SERVER_NEWCOMERS_EVICTED,
            "Connections without a request that were closed for newer ones.",
            relay.newcomers.evicted(),
        );
        gauge(
            &mut text,
            telemetry::METRIC_RELAY_SERVER_REFUSALS_HELD,
            "Refusals that wait to be sent.",
            relay.attempts.held() as u64,
        );
        counter(
            &mut text,
            telemetry::METRIC_RELAY_SERVER_REFUSALS_OVER_RATE,
            "Refusals to addresses that are refused all the time.",
            relay.attempts.over_rate(),
        );
        let listeners: Vec<_> = relay
            .entities
            .iter()
            .map(|entity| (label(entity.path()), entity.listeners_now()))
            .collect();
        describe(
            &mut text,
            telemetry::METRIC_RELAY_SERVER_LISTENERS,
            "gauge",
            "Control channels of a hybrid connection.",
        );
        for (path, listeners) in &listeners {
            sample(
                &mut text,
                &series(
                    telemetry::METRIC_RELAY_SERVER_LISTENERS,
                    &[("hybrid_connection", path)],
                ),
                listeners.len() as u64,
            );
        }
        describe(
            &mut text,
            telemetry::METRIC_RELAY_SERVER_WAITING,
            "gauge",
            "Senders that wait for a listener of a hybrid connection.",
        );
        for (path, listeners) in &listeners {
            let waiting: usize = listeners
                .iter()
                .map(|listener| MAX_PENDING_PER_LISTENER - listener.pending.available_permits())
                .sum();
            sample(
                &mut text,
                &series(
                    telemetry::METRIC_RELAY_SERVER_WAITING,
                    &[("hybrid_connection", path)],
                ),
                waiting as u64,
            );
        }
        text
    }
}

impl Drop for Bridged<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn counter(text: &mut String, name: &str, help: &str, value: u64) {
    describe(text, name, "counter", help);
    sample(text, name, value);
}

fn gauge(text: &mut String, name: &str, help: &str, value: u64) {
    describe(text, name, "gauge", help);
    sample(text, name, value);
}

fn describe(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(text: &mut String, series: &str, value: u64) {
    let _ = writeln!(text, "{series} {value}");
}

/// A name with its labels. The values are text of the program's own, or were made safe by [`label`].
fn series(name: &str, labels: &[(&str, &str)]) -> String {
    let labels: Vec<_> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    format!("{name}{{{}}}", labels.join(","))
}

/// A label's value as the text form needs it.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
