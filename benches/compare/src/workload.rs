//! What the peers have to do.

mod bulk;
mod echo;
mod memory;
mod opening;
mod stopped;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    Result,
    measurement::Outcome,
    peer::{Accepter, Opener},
    pipe::Pipe,
};

/// A task for a pair of ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Workload {
    /// So many streams send until the receiver has all of it.
    Bulk(usize),
    /// 1 KiB there and back on an idle connection.
    Echo,
    /// The same while eight streams send without pause.
    LoadedEcho,
    /// Open, one byte, one byte back, close; so many at a time.
    Opening(usize),
    /// What so many streams on a long path carry in the first second, and then.
    FirstSecond(usize),
    /// 256 streams, and then one of them is no longer read.
    StoppedReader,
    /// Allocations for each MiB of one bulk stream.
    Allocations,
    /// 10 000 streams that do nothing.
    IdleStreams,
}

/// What is sent at once.
const PIECE_BYTES: usize = 64 * 1024;

impl Workload {
    pub fn name(self) -> String {
        match self {
            Self::Bulk(1) => "bulk, 1 stream".into(),
            Self::Bulk(streams) => format!("bulk, {streams} streams"),
            Self::Echo => "echo".into(),
            Self::LoadedEcho => "echo under load".into(),
            Self::Opening(at_once) => format!("open and close, {at_once} at a time"),
            Self::FirstSecond(1) => "first second, 1 stream".into(),
            Self::FirstSecond(streams) => format!("first second, {streams} streams"),
            Self::StoppedReader => "one stopped reader of 256".into(),
            Self::Allocations => "allocations".into(),
            Self::IdleStreams => "10 000 idle streams".into(),
        }
    }

    /// As the command line calls it.
    pub fn slug(self) -> String {
        match self {
            Self::Bulk(streams) => format!("bulk{streams}"),
            Self::Echo => "echo".into(),
            Self::LoadedEcho => "loaded".into(),
            Self::Opening(at_once) => format!("open{at_once}"),
            Self::FirstSecond(streams) => format!("first{streams}"),
            Self::StoppedReader => "stopped".into(),
            Self::Allocations => "allocations".into(),
            Self::IdleStreams => "idle".into(),
        }
    }

    /// The workload that is called so.
    pub fn from_slug(slug: &str) -> Option<Self> {
        let digits = slug.find(|letter: char| letter.is_ascii_digit());
        let (word, number) = slug.split_at(digits.unwrap_or(slug.len()));
        let number = || number.parse().ok().filter(|&number| number > 0);
        Some(match word {
            "bulk" => Self::Bulk(number()?),
            "open" => Self::Opening(number()?),
            "first" => Self::FirstSecond(number()?),
            "echo" => Self::Echo,
            "loaded" => Self::LoadedEcho,
            "stopped" => Self::StoppedReader,
            "allocations" => Self::Allocations,
            "idle" => Self::IdleStreams,
            _ => return None,
        })
    }

    pub async fn run<O: Opener, A: Accepter>(
        self,
        (opener, accepter): (O, A),
        pipe: Pipe,
    ) -> Result<Outcome> {
        match self {
            Self::Bulk(streams) => bulk::run(opener, accepter, streams, pipe).await,
            Self::Echo => echo::idle(opener, accepter, pipe).await,
            Self::LoadedEcho => echo::loaded(opener, accepter, pipe).await,
            Self::Opening(at_once) => opening::run(opener, accepter, at_once).await,
            Self::FirstSecond(streams) => bulk::first_second(opener, accepter, streams).await,
            Self::StoppedReader => stopped::run(opener, accepter).await,
            Self::Allocations => memory::allocations(opener, accepter).await,
            Self::IdleStreams => memory::idle_streams(opener, accepter).await,
        }
    }
}

/// A piece to be sent again and again.
fn piece() -> Bytes {
    Bytes::from(vec![b'x'; PIECE_BYTES])
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
