//! [`AuditLog`]: events as lines of JSON, written by a thread of its own.

use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, Thread},
    time::{Duration, SystemTime},
};

use serde_json::json;
use tokio::sync::watch;

use super::{
    AuditEvent, AuditSink,
    event::timestamp,
    output::{AppendedFile, Output, StandardOutput, Unwritten},
};
use crate::{Error, ErrorKind, Result};

/// How many lines may wait for a slow disk. A line has 4 KiB at most and half a KiB as a rule: some 2 MiB.
const QUEUE: usize = 4_096;
/// The pause before a failed write is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// An audit log in a file or on standard output: one line of JSON for each event.
///
/// # When it can not keep up
/// Lines wait in a queue of 4096. A failed write is tried again every second for as long as the log exists. When the
/// queue is full, events are lost and requests go on: an agent that stopped with its disk would lock out whoever
/// wants to repair it. A loss is never silent: it is counted ([`AuditSink::lost`]), warned of, and stands in the log
/// itself as a line with the stage `EventsLost` and the `count`.
///
/// # Rotation
/// The file is opened again when another one, or none, stands under its name.
///
/// # At the end
/// Dropping the log writes what is queued, in the background: a program that is about to end calls
/// [`flush`](Self::flush) before. Lines are not synchronised to the disk one by one.
pub struct AuditLog {
    queue: Option<SyncSender<String>>,
    shared: Arc<Shared>,
    writer: Thread,
}

#[derive(Debug)]
struct Shared {
    lost: AtomicU64,
    accepted: AtomicU64,
    /// How many of the accepted lines are dealt with.
    done: watch::Sender<u64>,
    closing: AtomicBool,
}

impl AuditLog {
    /// A log in the file at `path`, which is made if needed, readable by its owner only, and appended to.
    ///
    /// # Errors
    /// [`ErrorKind::File`] when the file can not be opened.
    pub fn file(path: impl AsRef<Path>) -> Result<Self> {
        Self::start(AppendedFile::open(path.as_ref())?, QUEUE, RETRY_PAUSE)
    }

    /// A log on standard output.
    ///
    /// # Errors
    /// [`ErrorKind::Other`] when no thread can be started.
    pub fn standard_output() -> Result<Self> {
        Self::start(StandardOutput, QUEUE, RETRY_PAUSE)
    }

    /// Waits until every event that was recorded before is written. Without an end while writing fails: give it a
    /// time-out.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn flush(&self) {
        let accepted = self.shared.accepted.load(Ordering::SeqCst);
        // Fails when the sender is gone, and we hold it.
        let _ = self
            .shared
            .done
            .subscribe()
            .wait_for(|&done| done >= accepted)
            .await;
    }

    fn start(output: impl Output + 'static, length: usize, pause: Duration) -> Result<Self> {
        let (queue, lines) = sync_channel(length);
        let shared = Arc::new(Shared {
            lost: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            done: watch::Sender::new(0),
            closing: AtomicBool::new(false),
        });
        let writer = Writer {
            output,
            shared: Arc::clone(&shared),
            pause,
            told: 0,
        };
        let thread = thread::Builder::new()
            .name("audit-log".to_owned())
            .spawn(move || writer.run(&lines))
            .map_err(|error| {
                Error::new(ErrorKind::Other, "the audit log's thread does not start")
                    .with_source(error)
            })?;
        Ok(Self {
            queue: Some(queue),
            shared,
            writer: thread.thread().clone(),
        })
    }
}

impl AuditSink for AuditLog {
    fn record(&self, event: &AuditEvent) {
        let mut line = event.to_json();
        line.push('\n');
        let queue = self.queue.as_ref().expect("only drop takes it away");
        if queue.try_send(line).is_ok() {
            self.shared.accepted.fetch_add(1, Ordering::SeqCst);
        } else {
            self.shared.lose();
        }
    }

    fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        drop(self.queue.take());
        self.writer.unpark();
    }
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLog")
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lose(&self) {
        let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
        // Each doubling is news; each event would be a flood.
        if lost.is_power_of_two() {
            tracing::warn!(lost, "audit events are lost: the log can not be written");
        }
    }
}

struct Writer<O> {
    output: O,
    shared: Arc<Shared>,
    pause: Duration,
    /// The losses that stand in the log.
    told: u64,
}

impl<O: Output> Writer<O> {
    fn run(mut self, lines: &Receiver<String>) {
        while let Ok(line) = lines.recv() {
            self.write(&line);
            self.shared.done.send_modify(|done| *done += 1);
            let lost = self.shared.lost.load(Ordering::Relaxed);
            if lost > self.told {
                let line = lost_line(SystemTime::now(), lost - self.told);
                self.told = lost;
                self.write(&line);
            }
        }
    }

    fn write(&mut self, line: &str) {
        let mut unwritten = Unwritten::new(line.as_bytes());
        let mut failures: u64 = 0;
        while let Err(error) = self.output.write(&mut unwritten) {
            failures += 1;
            if self.shared.closing.load(Ordering::SeqCst) {
                self.shared.lose();
                return;
            }
            if failures.is_power_of_two() {
                tracing::warn!(%error, failures, "the audit log can not be written; trying again");
            }
            thread::park_timeout(self.pause);
        }
        if failures > 0 {
            tracing::info!("the audit log is written again");
        }
    }
}

fn lost_line(now: SystemTime, count: u64) -> String {
    let event = json!({ "timestamp": timestamp(now), "stage": "EventsLost", "count": count });
    format!("{event}\n")
}

#[cfg(test)]
mod tests;
