//! The peers, behind one interface. Each is driven through its own fastest one.

mod async_smux;
mod h2;
mod io_stream;
mod ours;
mod raw;
mod tokio_yamux;
mod yamux;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Result, measurement::Outcome, pipe::Pipe, workload::Workload};

/// A stream, as a workload uses it. Statically dispatched: nothing is boxed on the way of the bytes.
pub trait Stream: Send + 'static {
    /// Sends all of it, or waits until it can.
    fn send(&mut self, piece: Bytes) -> impl Future<Output = Result<()>> + Send;

    /// What was sent leaves, even if nothing follows.
    fn flush(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// How many bytes came; 0 at the end.
    fn receive(&mut self) -> impl Future<Output = Result<usize>> + Send;

    /// Nothing is read for now: what the harness itself keeps to read into goes.
    fn rest(&mut self) {}

    /// Nothing more follows.
    fn finish(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// The side that opens streams.
pub trait Opener: Clone + Send + Sync + 'static {
    type Stream: Stream;

    fn open(&self) -> impl Future<Output = Result<Self::Stream>> + Send;
}

/// The side that accepts them.
pub trait Accepter: Send + 'static {
    type Stream: Stream;

    fn accept(&mut self) -> impl Future<Output = Result<Self::Stream>> + Send;
}

/// Which multiplexer, with which settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Peer {
    /// No multiplexer: one stream, the pipe itself, 256 KiB at a time.
    Raw,
    /// The same, 64 KiB at a time.
    Raw64,
    /// This crate's, pieces of `Bytes` in and out.
    Ours,
    /// This crate's, through `AsyncRead` and `AsyncWrite`.
    OursIo,
    Yamux,
    /// No growth beyond the initial window.
    YamuxCapped,
    /// 256 KiB a stream is its default and the least it allows, so it needs no capped set-up.
    TokioYamux,
    /// 64 KiB less a byte, a stream and a connection: its defaults.
    H2Default,
    /// Windows of 4 MiB a stream and 64 MiB a connection, because its defaults starve any long path.
    H2,
    /// 256 KiB a stream and a connection, frames of 64 KiB.
    H2Capped256,
    /// 64 KiB a stream, 1 MiB a connection.
    H2Capped1024,
    AsyncSmux,
    /// Queues of a few frames.
    AsyncSmuxCapped,
}

impl Peer {
    pub const ALL: [Self; 13] = [
        Self::Raw,
        Self::Raw64,
        Self::Ours,
        Self::OursIo,
        Self::Yamux,
        Self::YamuxCapped,
        Self::TokioYamux,
        Self::H2Default,
        Self::H2,
        Self::H2Capped256,
        Self::H2Capped1024,
        Self::AsyncSmux,
        Self::AsyncSmuxCapped,
    ];

    /// As tables and the command line call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Raw64 => "raw-64k",
            Self::Ours => "ours",
            Self::OursIo => "ours-io",
            Self::Yamux => "yamux",
            Self::YamuxCapped => "yamux-cap",
            Self::TokioYamux => "tokio-yamux",
            Self::H2Default => "h2-default",
            Self::H2 => "h2",
            Self::H2Capped256 => "h2-256k",
            Self::H2Capped1024 => "h2-1m",
            Self::AsyncSmux => "async_smux",
            Self::AsyncSmuxCapped => "async_smux-cap",
        }
    }

    /// How it is set up and driven.
    pub fn description(self) -> &'static str {
        match self {
            Self::Raw => "no multiplexer, 256 KiB at a time",
            Self::Raw64 => "no multiplexer, 64 KiB at a time",
            Self::Ours => "this crate at its defaults, pieces of `Bytes`",
            Self::OursIo => "the same through `AsyncRead` and `AsyncWrite`",
            Self::Yamux => "`yamux` at its defaults",
            Self::YamuxCapped => "no growth beyond 256 KiB a stream, frames of 64 KiB",
            Self::TokioYamux => {
                "`tokio-yamux` at its defaults, 256 KiB a stream, which is also its least"
            }
            Self::H2Default => "`h2` at its defaults, 64 KiB a stream and a connection",
            Self::H2 => "4 MiB a stream, 64 MiB a connection",
            Self::H2Capped256 => "256 KiB a stream and a connection, frames of 64 KiB",
            Self::H2Capped1024 => "64 KiB a stream, 1 MiB a connection, frames of 64 KiB",
            Self::AsyncSmux => "`async_smux` at its defaults, 1024 frames a queue",
            Self::AsyncSmuxCapped => "queues of a few frames",
        }
    }

    pub fn is_raw(self) -> bool {
        matches!(self, Self::Raw | Self::Raw64)
    }

    /// What the comparison is about.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Ours | Self::OursIo)
    }

    /// Whether somebody has tuned its windows by hand for a short path.
    pub fn is_capped(self) -> bool {
        matches!(
            self,
            Self::YamuxCapped | Self::H2Capped256 | Self::H2Capped1024 | Self::AsyncSmuxCapped
        )
    }

    /// Runs one workload over one pipe.
    pub async fn run(self, pipe: Pipe, workload: Workload) -> Result<Outcome> {
        let (near, far) = pipe.open().await?;
        match self {
            Self::Raw => workload.run(raw::connect(near, far, 256 << 10), pipe).await,
            Self::Raw64 => workload.run(raw::connect(near, far, 64 << 10), pipe).await,
            Self::Ours => {
                workload
                    .run(ours::connect(near, far, workload).await?, pipe)
                    .await
            }
            Self::OursIo => {
                workload
                    .run(ours::connect_io(near, far, workload).await?, pipe)
                    .await
            }
            Self::Yamux => {
                workload
                    .run(yamux::connect(near, far, yamux::grows()), pipe)
                    .await
            }
            Self::YamuxCapped => {
                workload
                    .run(yamux::connect(near, far, yamux::capped()), pipe)
                    .await
            }
            Self::TokioYamux => workload.run(tokio_yamux::connect(near, far), pipe).await,
            Self::H2Default => {
                workload
                    .run(h2::connect(near, far, h2::DEFAULT).await?, pipe)
                    .await
            }
            Self::H2 => {
                workload
                    .run(h2::connect(near, far, h2::RAISED).await?, pipe)
                    .await
            }
            Self::H2Capped256 => {
                workload
                    .run(h2::connect(near, far, h2::CAPPED_256).await?, pipe)
                    .await
            }
            Self::H2Capped1024 => {
                workload
                    .run(h2::connect(near, far, h2::CAPPED_1024).await?, pipe)
                    .await
            }
            Self::AsyncSmux => {
                workload
                    .run(async_smux::connect(near, far, async_smux::DEFAULT), pipe)
                    .await
            }
            Self::AsyncSmuxCapped => {
                workload
                    .run(async_smux::connect(near, far, async_smux::CAPPED), pipe)
                    .await
            }
        }
    }
}

/// More streams than any workload has.
const MANY_STREAMS: usize = 16_384;

/// What a peer's accepting task hands on; a few, so that accepting waits for nobody.
const ACCEPTED: usize = 1024;
