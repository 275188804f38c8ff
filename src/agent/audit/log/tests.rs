use std::{
    fs, io,
    sync::{Mutex, mpsc},
    time::Instant,
};

use super::*;
use crate::agent::audit::{AuditCaller, AuditDecision, AuditStage};

/// A bound on what should happen at once. Only a failing test reaches it.
const AT_ONCE: Duration = Duration::from_secs(20);

fn event(name: &str) -> AuditEvent {
    AuditEvent {
        timestamp: SystemTime::UNIX_EPOCH,
        stage: AuditStage::ResponseComplete,
        audit_id: name.to_owned(),
        correlation_id: String::new(),
        remote: None,
        caller: AuditCaller::default(),
        method: None,
        path: None,
        verb: String::new(),
        object_ref: None,
        upgrade: None,
        decision: AuditDecision::None,
        reason: None,
        status: None,
        outcome: None,
        bytes_received: 0,
        bytes_sent: 0,
        duration: Duration::ZERO,
    }
}

fn ids(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
            match event["stage"].as_str() {
                Some("EventsLost") => format!("lost {}", event["count"]),
                _ => event["auditID"].as_str().expect("an id").to_owned(),
            }
        })
        .collect()
}

async fn flush(log: &AuditLog) {
    tokio::time::timeout(AT_ONCE, log.flush())
        .await
        .expect("written");
}

#[tokio::test]
async fn a_file_is_appended_to_and_its_owners_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("audit.log");
    for name in ["one", "two"] {
        let log = AuditLog::file(&path).expect("a log");
        log.record(&event(name));
        flush(&log).await;
    }
    assert_eq!(
        ids(&fs::read_to_string(&path).expect("a file")),
        ["one", "two"]
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;

        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_rotated_file_is_opened_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, rotated) = (
        directory.path().join("audit.log"),
        directory.path().join("audit.log.1"),
    );
    let log = AuditLog::file(&path).expect("a log");
    log.record(&event("before"));
    flush(&log).await;
    fs::rename(&path, &rotated).expect("renamed");
    log.record(&event("renamed"));
    flush(&log).await;
    fs::remove_file(&path).expect("removed");
    log.record(&event("removed"));
    flush(&log).await;
    fs::remove_file(&path).expect("removed");
    fs::write(&path, "").expect("replaced");
    log.record(&event("replaced"));
    flush(&log).await;
    assert_eq!(
        ids(&fs::read_to_string(rotated).expect("a file")),
        ["before"]
    );
    assert_eq!(
        ids(&fs::read_to_string(path).expect("a file")),
        ["replaced"]
    );
    assert_eq!(log.lost(), 0);
}

#[test]
fn a_file_that_can_not_be_opened_is_an_error_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let error = AuditLog::file(directory.path().join("no/audit.log")).expect_err("no directory");
    assert_eq!(error.kind(), ErrorKind::File);
}

/// A disk that does as each step says, and keeps what was written.
struct Disk {
    steps: mpsc::Receiver<Step>,
    written: Arc<Mutex<Vec<u8>>>,
}

enum Step {
    /// Takes this many bytes and is full.
    Full {
        after: usize,
    },
    Works,
}

impl Output for Disk {
    fn write(&mut self, line: &mut Unwritten<'_>) -> io::Result<()> {
        let step = self.steps.recv().unwrap_or(Step::Works);
        let mut written = self.written.lock().expect("no panic");
        match step {
            Step::Works => line.write_to(&mut *written),
            Step::Full { after } => {
                let mut room = vec![0; after];
                let mut slice = &mut room[..];
                let result = line.write_to(&mut slice);
                let left = slice.len();
                written.extend_from_slice(&room[..after - left]);
                result.map_err(|_| io::ErrorKind::StorageFull.into())
            }
        }
    }
}

fn on_disk(length: usize) -> (AuditLog, mpsc::Sender<Step>, Arc<Mutex<Vec<u8>>>) {
    let (steps, receiver) = mpsc::channel();
    let written = Arc::new(Mutex::new(Vec::new()));
    let disk = Disk {
        steps: receiver,
        written: Arc::clone(&written),
    };
    let log = AuditLog::start(disk, length, Duration::ZERO).expect("a log");
    (log, steps, written)
}

fn text(written: &Mutex<Vec<u8>>) -> String {
    String::from_utf8(written.lock().expect("no panic").clone()).expect("text")
}

#[tokio::test]
async fn a_failing_disk_tears_no_line_and_loses_none() {
    let (log, steps, written) = on_disk(10);
    for after in [0, 1, 30] {
        steps.send(Step::Full { after }).expect("alive");
    }
    log.record(&event("one"));
    log.record(&event("two"));
    drop(steps);
    flush(&log).await;
    assert_eq!(ids(&text(&written)), ["one", "two"]);
    assert_eq!(log.lost(), 0);
}

#[tokio::test]
async fn losses_are_counted_and_stand_in_the_log() {
    let (log, steps, written) = on_disk(2);
    // The writer holds one line, two wait; how soon it takes the first is not known.
    let names: Vec<_> = (0..20).map(|number| number.to_string()).collect();
    for name in &names {
        log.record(&event(name));
    }
    let lost = log.lost();
    assert!((17..=18).contains(&lost), "{lost}");
    drop(steps);
    flush(&log).await;
    log.record(&event("later"));
    flush(&log).await;
    let found = ids(&text(&written));
    let kept: Vec<_> = found.iter().filter(|id| !id.starts_with("lost")).collect();
    assert_eq!(kept.len() as u64, 20 - lost + 1, "{found:?}");
    assert!(found.contains(&format!("lost {lost}")), "{found:?}");
    assert_eq!(found.last().map(String::as_str), Some("later"));
}

#[test]
fn a_log_that_is_dropped_writes_what_is_queued() {
    let (log, steps, written) = on_disk(100);
    for _ in 0..50 {
        log.record(&event("x"));
    }
    drop(log);
    drop(steps);
    let start = Instant::now();
    while ids(&text(&written)).len() < 50 {
        assert!(start.elapsed() < AT_ONCE, "never written");
        thread::yield_now();
    }
}

#[test]
fn a_log_that_is_dropped_gives_a_dead_disk_up() {
    let (log, steps, written) = on_disk(100);
    let shared = Arc::downgrade(&log.shared);
    log.record(&event("x"));
    drop(log);
    let start = Instant::now();
    // Its thread has ended when nobody holds what it shares.
    while shared.strong_count() > 0 {
        let _ = steps.send(Step::Full { after: 0 });
        assert!(start.elapsed() < AT_ONCE, "the thread goes on for ever");
        thread::yield_now();
    }
    assert_eq!(text(&written), "");
}
