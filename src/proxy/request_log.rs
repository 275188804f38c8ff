//! [`RequestRecord`]: one line for each request, for whoever wants to keep them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{ProxyId, status::timestamp};
use crate::{Error, ErrorKind, Result};

/// How many records may wait for a slow sink. Each has a few hundred bytes, a path of [`MAX_PATH_BYTES`] at most.
pub(super) const QUEUE: usize = 1024;

/// What of a path is kept. The API's own are far shorter.
pub(super) const MAX_PATH_BYTES: usize = 1024;

/// How long a shutdown waits for the sink to take what is queued.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// One request at the local endpoint, when it is over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestRecord {
    /// When its head had arrived.
    pub started_at: SystemTime,
    /// From then to its end; for a watch or a shell that is when the last byte passed.
    pub duration: Duration,
    /// The method.
    pub method: String,
    /// The path as the API server sees it, without its query (which may hold what is not for a log), 1024 bytes at most.
    /// For what is not forwarded it is the path at the endpoint.
    pub path: String,
    /// The cluster, when one was found.
    pub cluster: Option<ProxyId>,
    /// The status of the answer; `None` when the client left before there was one.
    pub status: Option<u16>,
    /// The id under which the request is found in the logs of agent and API server.
    pub correlation_id: String,
    /// Bytes of the request's body, and from the client on an upgraded stream.
    pub bytes_sent: u64,
    /// Bytes of the response's body, and to the client on an upgraded stream.
    pub bytes_received: u64,
    /// How it ended.
    pub end: RequestEnd,
    /// How many records before this one were lost, because the sink was too slow.
    pub lost: u64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestEnd {
    /// The whole answer was passed on, whatever its status.
    Complete,
    /// It was not forwarded, or got no answer: the answer is this proxy's own.
    Refused,
    /// The client went away before the end.
    ClientLeft,
    /// The answer broke off on its way from the cluster.
    Broken,
    /// Its cluster was removed, or the proxy stopped, before the end.
    Cut,
}

impl RequestEnd {
    /// A short name, as in [`RequestRecord::to_json`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Refused => "refused",
            Self::ClientLeft => "clientLeft",
            Self::Broken => "broken",
            Self::Cut => "cut",
        }
    }
}

impl RequestRecord {
    /// The record as one line of JSON, without a line end.
    pub fn to_json(&self) -> String {
        let mut json = json!({
            "time": timestamp(self.started_at),
            "durationMilliseconds": self.duration.as_secs_f64() * 1000.0,
            "method": self.method,
            "path": self.path,
            "cluster": self.cluster.map(|id| id.to_string()),
            "status": self.status,
            "correlationId": self.correlation_id,
            "bytesSent": self.bytes_sent,
            "bytesReceived": self.bytes_received,
            "end": self.end.name(),
        });
        if self.lost > 0 {
            json["lost"] = Value::from(self.lost);
        }
        json.to_string()
    }
}

type Sink = Box<dyn FnMut(RequestRecord) + Send>;

/// Takes records without ever waiting; a thread of its own brings them to the sink. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct RequestLog(Option<Arc<Queue>>);

struct Queue {
    sender: SyncSender<Message>,
    lost: AtomicU64,
}

enum Message {
    Record(Box<RequestRecord>),
    Flush(oneshot::Sender<()>),
}

impl RequestLog {
    /// # Errors
    /// [`ErrorKind::Other`] when no thread can be started.
    pub(super) fn start(sink: Sink) -> Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        thread::Builder::new()
            .name("request log".to_owned())
            .spawn(move || write(&receiver, sink))
            .map_err(|error| {
                Error::new(
                    ErrorKind::Other,
                    "can not start the thread of the request log",
                )
                .with_source(error)
            })?;
        Ok(Self(Some(Arc::new(Queue {
            sender,
            lost: AtomicU64::new(0),
        }))))
    }

    pub(super) fn record(&self, mut record: RequestRecord) {
        let Some(queue) = &self.0 else { return };
        let lost = queue.lost.swap(0, Ordering::Relaxed);
        record.lost = lost;
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            queue.sender.try_send(Message::Record(Box::new(record)))
        {
            queue.lost.fetch_add(lost + 1, Ordering::Relaxed);
        }
    }

    /// Waits until the sink has had what was recorded before, but not for long.
    pub(super) async fn flush(&self) {
        let Some(queue) = &self.0 else { return };
        let (done, is_done) = oneshot::channel();
        // A full queue is one that nobody empties in time.
        if queue.sender.try_send(Message::Flush(done)).is_ok() {
            let _ = tokio::time::timeout(FLUSH_LIMIT, is_done).await;
        }
    }
}

fn write(receiver: &Receiver<Message>, mut sink: Sink) {
    for message in receiver {
        match message {
            Message::Record(record) => sink(*record),
            Message::Flush(done) => {
                // Whoever asked may have gone.
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn record(path: &str) -> RequestRecord {
        RequestRecord {
            started_at: SystemTime::UNIX_EPOCH,
            duration: Duration::from_millis(5),
            method: "GET".to_owned(),
            path: path.to_owned(),
            cluster: Some(ProxyId::from_name("edge")),
            status: Some(200),
            correlation_id: "id".to_owned(),
            bytes_sent: 1,
            bytes_received: 2,
            end: RequestEnd::Complete,
            lost: 0,
        }
    }

    #[test]
    fn a_line_has_everything_and_is_one() {
        let line = record("/a\nb").to_json();
        assert!(!line.contains('\n'));
        let json: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(
            json,
            json!({
                "time": "1970-01-01T00:00:00Z",
                "durationMilliseconds": 5.0,
                "method": "GET",
                "path": "/a\nb",
                "cluster": ProxyId::from_name("edge").to_string(),
                "status": 200,
                "correlationId": "id",
                "bytesSent": 1,
                "bytesReceived": 2,
                "end": "complete",
            })
        );
    }

    #[test]
    fn a_sink_that_hangs_loses_records_and_says_how_many() {
        let (go, may_go) = mpsc::channel::<()>();
        let (taken, all) = mpsc::channel();
        let log = RequestLog::start(Box::new(move |record| {
            let _ = may_go.recv();
            taken.send(record).expect("the test lives");
        }))
        .expect("a thread");
        // One that the sink holds, at most, and a queue that is full; the rest is lost without a wait.
        let sent = QUEUE + 10;
        for _ in 0..sent {
            log.record(record("/"));
        }
        drop(go);
        let mut kept = 0;
        while kept + 10 < sent - 1 {
            all.recv().expect("a record");
            kept += 1;
        }
        // There is room again by now.
        let mut lost = 0;
        loop {
            log.record(record("/last"));
            let record = all.recv().expect("a record");
            lost += record.lost;
            if record.path == "/last" {
                break;
            }
            kept += 1;
        }
        assert_eq!(kept + usize::try_from(lost).expect("few"), sent);
    }

    #[tokio::test]
    async fn a_flush_comes_after_what_was_recorded() {
        let (taken, all) = mpsc::channel();
        let log = RequestLog::start(Box::new(move |record| {
            taken.send(record).expect("the test lives");
        }))
        .expect("a thread");
        for _ in 0..100 {
            log.record(record("/"));
        }
        log.flush().await;
        assert_eq!(all.try_iter().count(), 100);
    }
}
