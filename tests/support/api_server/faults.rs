//! [`Faults`]: the switches that make the stand-in misbehave, and how its logs go on.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::watch;

/// What the stand-in does wrong. Every switch holds from the next request on, until it is changed again.
pub struct Faults {
    switches: Mutex<Switches>,
    go_aways: watch::Sender<u64>,
}

struct Switches {
    list: Option<ListFault>,
    upgrade_answer: Option<UpgradeAnswer>,
    early_bytes: Option<Bytes>,
    log_follow: LogFollow,
}

/// How a list goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListFault {
    /// After that many bytes the answer breaks off: HTTP/1.1 closes without the last chunk, HTTP/2 resets the stream.
    AbortAfter(usize),
    /// After that many bytes nothing more comes, until the client gives up or the server is killed.
    StallAfter(usize),
}

/// How a request for an upgrade is answered instead of 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeAnswer {
    /// 200 with a text body.
    Ok,
    /// 302 to another host.
    Redirect,
    /// 403 with a `Status`.
    Forbidden,
    /// 500 with a `Status`.
    InternalError,
}

impl UpgradeAnswer {
    pub(super) fn code(self) -> StatusCode {
        match self {
            Self::Ok => StatusCode::OK,
            Self::Redirect => StatusCode::FOUND,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// What `logs -f` gets once the lines that are there have been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFollow {
    /// That many more lines, one each `every`; then the log ends, as when the container exits.
    Lines {
        /// How many.
        count: u32,
        /// The pause before each.
        every: Duration,
    },
    /// Nothing, and no end: a quiet container.
    Silent,
}

impl Faults {
    pub(super) fn new() -> Self {
        Self {
            switches: Mutex::new(Switches {
                list: None,
                upgrade_answer: None,
                early_bytes: None,
                log_follow: LogFollow::Lines {
                    count: 10,
                    every: Duration::from_millis(50),
                },
            }),
            go_aways: watch::Sender::new(0),
        }
    }

    /// How lists go wrong; `None`: they do not.
    pub fn set_list(&self, fault: Option<ListFault>) {
        self.lock().list = fault;
    }

    /// How upgrades are answered; `None`: with 101.
    pub fn set_upgrade_answer(&self, answer: Option<UpgradeAnswer>) {
        self.lock().upgrade_answer = answer;
    }

    /// The upgraded echo (see [`ECHO_PATH`](super::ECHO_PATH)) sends these bytes first, in the same segment
    /// as its 101; with any bytes set, exec and attach over WebSocket send their first frame in the 101's segment.
    pub fn set_early_bytes(&self, bytes: Option<Bytes>) {
        self.lock().early_bytes = bytes;
    }

    /// How followed logs go on.
    pub fn set_log_follow(&self, follow: LogFollow) {
        self.lock().log_follow = follow;
    }

    /// Sends GOAWAY on every HTTP/2 connection and ends keep-alive on every HTTP/1.1 one, once. Requests under way go
    /// on.
    pub fn go_away(&self) {
        self.go_aways.send_modify(|count| *count += 1);
    }

    pub(super) fn list(&self) -> Option<ListFault> {
        self.lock().list
    }

    pub(super) fn upgrade_answer(&self) -> Option<UpgradeAnswer> {
        self.lock().upgrade_answer
    }

    pub(super) fn early_bytes(&self) -> Option<Bytes> {
        self.lock().early_bytes.clone()
    }

    pub(super) fn log_follow(&self) -> LogFollow {
        self.lock().log_follow
    }

    pub(super) fn go_aways(&self) -> watch::Receiver<u64> {
        self.go_aways.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Switches> {
        self.switches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
