//! [`Exchange`]: what is known of one request, and told once it is over.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use http::{Method, StatusCode};
use tokio::time::Instant;

use super::correlation::CorrelationId;
use crate::{
    proxy::{
        cluster::{LiveRequest, Traffic},
        lifetime::Lifetime,
        request_log::{MAX_PATH_BYTES, RequestEnd, RequestLog, RequestRecord},
    },
    telemetry,
};

/// One request from its head to its end. The last owner that drops it ends it.
///
/// The request's body is none of the owners: it may outlive the response by the time that a stream takes to close.
pub(super) struct Exchange {
    log: RequestLog,
    lifetime: Lifetime,
    started: Instant,
    started_at: SystemTime,
    method: Method,
    correlation_id: CorrelationId,
    path: Mutex<String>,
    live: OnceLock<LiveRequest>,
    /// 0 as long as there is no answer.
    status: AtomicU16,
    end: OnceLock<(RequestEnd, Instant)>,
    bytes: Arc<ByteCount>,
}

/// Counts what passes.
#[derive(Default)]
pub(super) struct ByteCount {
    sent: AtomicU64,
    received: AtomicU64,
    cluster: OnceLock<Arc<Traffic>>,
}

impl Exchange {
    pub(super) fn begin(
        log: RequestLog,
        lifetime: Lifetime,
        method: Method,
        path: &str,
        correlation_id: CorrelationId,
    ) -> Arc<Self> {
        Arc::new(Self {
            log,
            lifetime,
            started: Instant::now(),
            started_at: SystemTime::now(),
            method,
            correlation_id,
            path: Mutex::new(bounded(path)),
            live: OnceLock::new(),
            status: AtomicU16::new(0),
            end: OnceLock::new(),
            bytes: Arc::default(),
        })
    }

    /// The request found its cluster, which sees it under `path`.
    pub(super) fn enter(&self, live: LiveRequest, path: &str) {
        *self.path.lock().unwrap_or_else(PoisonError::into_inner) = bounded(path);
        // A request enters once.
        let _ = self.bytes.cluster.set(Arc::clone(live.traffic()));
        let _ = self.live.set(live);
    }

    pub(super) fn bytes(&self) -> &Arc<ByteCount> {
        &self.bytes
    }

    pub(super) fn answered(&self, status: StatusCode) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }

    /// The first end counts.
    pub(super) fn end(&self, end: RequestEnd) {
        let _ = self.end.set((end, Instant::now()));
    }

    /// Whether the cluster, or the proxy, was stopped.
    fn is_stopped(&self) -> bool {
        self.lifetime.is_stopped()
            || self
                .live
                .get()
                .is_some_and(|live| live.lifetime().is_stopped())
    }

    fn record(&self) -> RequestRecord {
        let (end, ended) = self.end.get().copied().unwrap_or_else(|| {
            let end = if self.is_stopped() {
                RequestEnd::Cut
            } else {
                RequestEnd::ClientLeft
            };
            (end, Instant::now())
        });
        let status = self.status.load(Ordering::Relaxed);
        let path = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        RequestRecord {
            started_at: self.started_at,
            duration: ended.duration_since(self.started),
            method: bounded(self.method.as_str()),
            path: path.clone(),
            cluster: self.live.get().map(|live| live.id()),
            status: (status != 0).then_some(status),
            correlation_id: self.correlation_id.as_str().to_owned(),
            bytes_sent: self.bytes.sent.load(Ordering::Relaxed),
            bytes_received: self.bytes.received.load(Ordering::Relaxed),
            end,
            lost: 0,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let record = self.record();
        tracing::debug!(
            target: telemetry::TARGET_PROXY_REQUESTS,
            method = record.method,
            path = record.path,
            status = record.status,
            duration = ?record.duration,
            cluster = record.cluster.map(tracing::field::display),
            correlation_id = record.correlation_id,
            bytes_sent = record.bytes_sent,
            bytes_received = record.bytes_received,
            end = record.end.name(),
        );
        self.log.record(record);
    }
}

impl ByteCount {
    pub(super) fn sent(&self, count: usize) {
        self.add(&self.sent, count, |traffic| &traffic.sent);
    }

    pub(super) fn received(&self, count: usize) {
        self.add(&self.received, count, |traffic| &traffic.received);
    }

    fn add(&self, own: &AtomicU64, count: usize, of: impl Fn(&Traffic) -> &AtomicU64) {
        let count = count as u64;
        own.fetch_add(count, Ordering::Relaxed);
        if let Some(traffic) = self.cluster.get() {
            of(traffic).fetch_add(count, Ordering::Relaxed);
        }
    }
}

fn bounded(text: &str) -> String {
    let mut end = text.len().min(MAX_PATH_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_a_length() {
        assert_eq!(bounded("/api"), "/api");
        let long = "/é".repeat(MAX_PATH_BYTES);
        let kept = bounded(&long);
        assert!(kept.len() <= MAX_PATH_BYTES && long.starts_with(&kept));
        assert!(kept.len() > MAX_PATH_BYTES - 4);
    }
}
