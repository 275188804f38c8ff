//! [`Metrics`]: what the agent counts, and its Prometheus text form.
//!
//! The whole set is known, so it is a struct and no registry. A label's value is a `&'static str`: text of the
//! program, never text of a caller. That is what keeps the number of series bounded (CVE-2020-8552 is what happens
//! otherwise).

mod exposition;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Method, StatusCode};

use self::exposition::{Counter, Exposition, Histogram};
use super::{
    identity::RefreshCounts,
    upstream::{CountingDial, Dial},
};
use crate::{ErrorKind, telemetry};

/// Everything that one agent counts.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    requests: Counter<3>,
    denied: Counter<1>,
    in_flight: AtomicU64,
    upgraded: AtomicU64,
    plain_duration: Histogram,
    watch_duration: Histogram,
    upgrade_duration: Histogram,
    first_byte: Histogram,
    bytes_to_api_server: AtomicU64,
    bytes_to_caller: AtomicU64,
    upstream_failures: Counter<1>,
    truncated: AtomicU64,
    /// Shared with the connections, each of which takes itself out.
    upstream_connections: Arc<AtomicU64>,
    stalls_to_api_server: Histogram,
    stalls_to_caller: Histogram,
    tunnels: AtomicU64,
    tunnels_refused: AtomicU64,
    relay_reconnects: Counter<1>,
    drain_cut: AtomicU64,
}

/// What the text shows beside the counters, from where it is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Surroundings {
    pub(super) draining: bool,
    pub(super) relays_online: usize,
    pub(super) relays_offline: usize,
    pub(super) audit_lost: u64,
    pub(super) key_refreshes: RefreshCounts,
    pub(super) token_refreshes: RefreshCounts,
}

/// Where a request's time goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum RequestKind {
    #[default]
    Plain,
    /// A watch or a followed log: it lasts for as long as somebody looks.
    Watch,
    Upgrade,
}

/// Where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToApiServer,
    ToCaller,
}

impl Metrics {
    pub(super) fn request_started(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A request is over; `status` is missing when nobody got one.
    pub(super) fn request_ended(
        &self,
        kind: RequestKind,
        method: &Method,
        status: Option<StatusCode>,
        decision: &'static str,
        duration: Duration,
    ) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.count_request(method_label(method), status, decision);
        match kind {
            RequestKind::Plain => self.plain_duration.observe(duration),
            RequestKind::Watch => self.watch_duration.observe(duration),
            RequestKind::Upgrade => self.upgrade_duration.observe(duration),
        }
    }

    /// A request was turned away before it had a usable head.
    pub(super) fn malformed(&self, status: StatusCode, reason: &'static str) {
        self.count_request("other", Some(status), "denied");
        self.denied(reason);
    }

    fn count_request(
        &self,
        method: &'static str,
        status: Option<StatusCode>,
        decision: &'static str,
    ) {
        self.requests.add([method, code_label(status), decision]);
    }

    pub(super) fn denied(&self, reason: &'static str) {
        self.denied.add([reason]);
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn upgraded_started(&self) {
        self.upgraded.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn upgraded_ended(&self) {
        self.upgraded.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn upgraded(&self) -> u64 {
        self.upgraded.load(Ordering::Relaxed)
    }

    pub(super) fn first_byte(&self, duration: Duration) {
        self.first_byte.observe(duration);
    }

    pub(super) fn bytes(&self, direction: Direction, count: u64) {
        match direction {
            Direction::ToApiServer => &self.bytes_to_api_server,
            Direction::ToCaller => &self.bytes_to_caller,
        }
        .fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn upstream_failed(&self, kind: ErrorKind) {
        self.upstream_failures.add([failure_label(kind)]);
    }

    pub(super) fn truncated(&self) {
        self.truncated.fetch_add(1, Ordering::Relaxed);
    }

    /// The same way of connecting to the API server, and each of its connections counted while it lasts.
    pub(super) fn counting(&self, dial: Box<dyn Dial>) -> Box<dyn Dial> {
        Box::new(CountingDial::new(
            dial,
            Arc::clone(&self.upstream_connections),
        ))
    }

    #[cfg(test)]
    pub(super) fn upstream_connections(&self) -> u64 {
        self.upstream_connections.load(Ordering::Relaxed)
    }

    /// Bytes have waited for this long until somebody took them.
    pub(super) fn stalled(&self, direction: Direction, duration: Duration) {
        match direction {
            Direction::ToApiServer => &self.stalls_to_api_server,
            Direction::ToCaller => &self.stalls_to_caller,
        }
        .observe(duration);
    }

    pub(super) fn tunnel_started(&self) {
        self.tunnels.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn tunnel_ended(&self) {
        self.tunnels.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn tunnel_refused(&self) {
        self.tunnels_refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn relay_offline(&self, kind: ErrorKind) {
        self.relay_reconnects.add([failure_label(kind)]);
    }

    pub(super) fn drain_cut(&self, streams: u64) {
        self.drain_cut.fetch_add(streams, Ordering::Relaxed);
    }

    /// The text that Prometheus scrapes, version 0.0.4.
    pub(super) fn render(&self, surroundings: Surroundings) -> String {
        let mut text = Exposition::default();
        text.counter(
            telemetry::METRIC_REQUESTS,
            "Requests that are over.",
            ["method", "code", "decision"],
            &self.requests,
        );
        text.counter(
            telemetry::METRIC_REQUESTS_DENIED,
            "Requests that the agent turned away.",
            ["reason"],
            &self.denied,
        );
        text.gauge(
            telemetry::METRIC_REQUESTS_IN_FLIGHT,
            "Requests that are not over, watches and upgraded streams among them.",
            self.in_flight(),
        );
        text.gauge(
            telemetry::METRIC_UPGRADED_STREAMS,
            "Live streams after a change of protocol: exec, attach, port-forward.",
            self.upgraded(),
        );
        text.histograms(
            telemetry::METRIC_REQUEST_DURATION,
            "From a request's head to the end of its response.",
            &[
                (Some(("kind", "plain")), &self.plain_duration),
                (Some(("kind", "watch")), &self.watch_duration),
                (Some(("kind", "upgrade")), &self.upgrade_duration),
            ],
        );
        text.histograms(
            telemetry::METRIC_FIRST_BYTE_DURATION,
            "From a request's head to the head of the API server's response.",
            &[(None, &self.first_byte)],
        );
        text.family(
            telemetry::METRIC_BYTES,
            "counter",
            "Bytes of bodies and of upgraded streams.",
        );
        for (direction, count) in [
            ("to_api_server", &self.bytes_to_api_server),
            ("to_caller", &self.bytes_to_caller),
        ] {
            text.sample(
                telemetry::METRIC_BYTES,
                &[("direction", direction)],
                count.load(Ordering::Relaxed),
            );
        }
        text.counter(
            telemetry::METRIC_UPSTREAM_FAILURES,
            "Requests to which the API server gave no usable answer.",
            ["reason"],
            &self.upstream_failures,
        );
        text.total(
            telemetry::METRIC_RESPONSES_TRUNCATED,
            "Responses that the API server broke off.",
            self.truncated.load(Ordering::Relaxed),
        );
        text.gauge(
            telemetry::METRIC_UPSTREAM_CONNECTIONS,
            "Live connections to the API server.",
            self.upstream_connections.load(Ordering::Relaxed),
        );
        text.histograms(
            telemetry::METRIC_STREAM_STALL_DURATION,
            "How long bytes waited, each time that they did, until their receiver took more.",
            &[
                (
                    Some(("direction", "to_api_server")),
                    &self.stalls_to_api_server,
                ),
                (Some(("direction", "to_caller")), &self.stalls_to_caller),
            ],
        );
        text.gauge(
            telemetry::METRIC_TUNNELS,
            "Live tunnel connections.",
            self.tunnels.load(Ordering::Relaxed),
        );
        text.total(
            telemetry::METRIC_TUNNELS_REFUSED,
            "Tunnel connections that were turned away because too many are open.",
            self.tunnels_refused.load(Ordering::Relaxed),
        );
        render_refreshes(&mut text, surroundings);
        self.render_relays(&mut text, surroundings);
        self.render_drain(&mut text, surroundings.draining);
        text.total(
            telemetry::METRIC_AUDIT_LOST,
            "Audit events that the sink could not keep.",
            surroundings.audit_lost,
        );
        text.family(
            telemetry::METRIC_BUILD_INFO,
            "gauge",
            "The version in a label.",
        );
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        text.sample(telemetry::METRIC_BUILD_INFO, &version, 1);
        text.into_text()
    }

    fn render_relays(&self, text: &mut Exposition, surroundings: Surroundings) {
        let name = telemetry::METRIC_RELAY_REGISTRATIONS;
        text.family(
            name,
            "gauge",
            "Registrations at relays that this agent keeps.",
        );
        for (state, count) in [
            ("online", surroundings.relays_online),
            ("offline", surroundings.relays_offline),
        ] {
            text.sample(name, &[("state", state)], count as u64);
        }
        text.counter(
            telemetry::METRIC_RELAY_RECONNECTS,
            "Losses of a registration and failed attempts to have one.",
            ["reason"],
            &self.relay_reconnects,
        );
    }

    fn render_drain(&self, text: &mut Exposition, draining: bool) {
        text.gauge(
            telemetry::METRIC_DRAINING,
            "1 while the agent is shutting down.",
            draining.into(),
        );
        text.gauge(
            telemetry::METRIC_DRAIN_REMAINING,
            "Requests and upgraded streams that a shutdown waits for.",
            if draining { self.in_flight() } else { 0 },
        );
        text.total(
            telemetry::METRIC_DRAIN_CUT,
            "Requests and upgraded streams that were cut off at a shutdown's limit.",
            self.drain_cut.load(Ordering::Relaxed),
        );
    }
}

fn render_refreshes(text: &mut Exposition, surroundings: Surroundings) {
    for (name, help, counts) in [
        (
            telemetry::METRIC_KEY_REFRESHES,
            "Readings of issuers' keys.",
            surroundings.key_refreshes,
        ),
        (
            telemetry::METRIC_TOKEN_REFRESHES,
            "New tokens of the agent's own, and failures to have one.",
            surroundings.token_refreshes,
        ),
    ] {
        text.family(name, "counter", help);
        text.sample(name, &[("outcome", "success")], counts.succeeded());
        text.sample(name, &[("outcome", "failure")], counts.failed());
    }
}

/// A method may be any token, so those that Kubernetes does not use share one label.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn code_label(status: Option<StatusCode>) -> &'static str {
    match status.map(|status| status.as_u16() / 100) {
        None => "none",
        Some(1) => "1xx",
        Some(2) => "2xx",
        Some(3) => "3xx",
        Some(4) => "4xx",
        Some(5) => "5xx",
        Some(_) => "other",
    }
}

fn failure_label(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Network => "unreachable",
        ErrorKind::Timeout => "timeout",
        ErrorKind::Tls => "tls",
        ErrorKind::Protocol => "protocol",
        ErrorKind::Closed => "closed",
        ErrorKind::Unauthorized => "unauthorized",
        ErrorKind::NotFound => "not_found",
        ErrorKind::Refused => "refused",
        _ => "other",
    }
}

#[cfg(test)]
mod tests;
