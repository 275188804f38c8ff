//! Many streams over one byte pipe.
//!
//! A session runs over anything that is [`AsyncRead`] and [`AsyncWrite`] and keeps the order of its bytes: a TCP or
//! TLS connection, a WebSocket behind an adapter, an in-memory pipe. Message boundaries mean nothing to it. Either
//! side opens streams; opening costs no round trip; a stream that is not read stops its own sender and nobody else.
//!
//! [`start`] gives three things: a [`Session`] to open streams with, [`Incoming`] to accept the peer's, and a
//! [`Driver`] that must be polled.
//!
//! ```
//! use arc_cluster_connect::tunnel::mux::{self, Config, Role};
//! use bytes::Bytes;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (near, far) = tokio::io::duplex(64 * 1024);
//! let (client, _no_streams_to_us, driver) = mux::start(near, Role::Client, Config::default());
//! tokio::spawn(driver);
//! let (_server, mut incoming, driver) = mux::start(far, Role::Server, Config::default());
//! tokio::spawn(driver);
//!
//! tokio::spawn(async move {
//!     while let Some(stream) = incoming.accept().await {
//!         let (mut reader, mut writer) = tokio::io::split(stream.into_stream());
//!         tokio::io::copy(&mut reader, &mut writer).await?;
//!         writer.shutdown().await?;
//!     }
//!     std::io::Result::Ok(())
//! });
//!
//! let mut stream = client.open(Bytes::from_static(b"echo")).await?;
//! stream.write_all(b"hello").await?;
//! stream.shutdown().await?;
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer).await?;
//! assert_eq!(answer, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! # Inside
//!
//! `connection` is the protocol: bytes, commands and time in, bytes and events out, nothing else. `link` is the transport,
//! `driver` moves the bytes between the two, `shared` holds the locks and the wakers, `session` and `stream` are the
//! handles.
//!
//! # How much is under way
//!
//! Each stream has credit of its own, and there is none for the session on the wire: a stream that nobody reads stops its
//! own sender only. How much credit all streams together have is found out by each receiver, in rounds of a PING and
//! its PONG while data comes in:
//!
//! ```text
//!  round trip                                       target
//!     │            ╱  every byte more only waits      │  startup: doubles in every round, or jumps to what the
//!     │           ╱                                   │  spacing of the first bytes promises
//!     │          ╱                                    │        ╭─╮ the first queue ends it
//!     │       ▲ ╱ ◄── kept here: shortest + headroom  │       ╱  ╰────────╮    ╭──── steady
//!     │────────╱                                      │      ╱            ╰─╮╭─╯ drained for two rounds, after
//!     │ shortest                                      │  ╭───╯              ╰╯   some seconds without a look
//!     └──────────────── bytes under way               └──────────────────────────── time
//! ```
//!
//! On one machine that comes to half a MiB, which stays in the processor's cache; on 1 Gbit/s and 50 ms to the 6 MiB
//! that the path holds, within the first round trips; on a relay that moves 14 Mbit/s and would buffer 15 MiB, to a fifth
//! of a MiB, so that a keystroke waits for milliseconds and not for seconds. Within the target each stream that uses what
//! it has gets its share by [`Weight`]; what leaves first is a matter of [`Priority`].
//!
//! # On the wire
//!
//! In short; `docs/wire.md` in the repository is the specification, and `tests/vectors` has examples of everything.
//!
//! The first bytes each way are `ACC1`. Frames follow, all numbers big endian, the first of them SETTINGS:
//!
//! ```text
//!  0               1               2               3
//! +-----------------------------------------------+-------+-------+
//! |                  length (24)                  |kind(4)|flag(4)|
//! +-----------------------------------------------+-------+-------+
//! |           stream id (32), bit 0 set = opened by the client    |
//! +---------------------------------------------------------------+
//! |           payload, length bytes ...
//! ```
//!
//! | kind | name | id | payload |
//! |---:|---|---|---|
//! | 1 | DATA | stream | bytes; with flag OPEN first `u16` length and metadata of that length, at most 1 KiB |
//! | 2 | CREDIT | stream | `u64`: the stream may be sent on up to this offset |
//! | 3 | RESET | stream | `u32` code, `u64` final size: the sender's direction ends without an end of file |
//! | 4 | STOP | stream | `u32` code: the sender reads no more; answered by RESET unless the direction has ended |
//! | 5 | MAX_STREAMS | 0 | `u64`: so many streams may be opened since the start |
//! | 6 | PING | 0 | `u64` token |
//! | 7 | PONG | 0 | the token of the last PING |
//! | 8 | GOAWAY | 0 | `u32` last stream that is taken (0: none), `u32` code, text of at most 1 KiB |
//! | 9 | SETTINGS | 0 | `u32` version 1, `u32` initial stream window, `u32` max streams, `u32` max frame, `u64` features |
//!
//! Flags: `1` OPEN, `2` FIN and `4` WAITING (there is more, and no credit for it) on DATA, `8` on kinds that are not in
//! the table: the frame may be skipped. Any other combination is a protocol error. The client's ids are 1, 3, 5, …, the server's 2, 4, 6, …, used in this order
//! without gaps and once.
//!
//! Until SETTINGS arrived its sender is taken to have said: 16 KiB initial window, 16 streams, frames of 16 KiB;
//! SETTINGS can not say less. Of the features, bits 0 to 31 may be ignored by who does not know them, an unknown bit
//! from 32 on is refused.
//!
//! GOAWAY codes: 0 drain (the live streams may end), 1 protocol, 2 unsupported, 3 flow control, 4 stream limit,
//! 5 stream state, 6 frame size, 7 excessive load, 8 timeout, 9 closed. All but 0 end the session. Codes of RESET and
//! STOP: 0 cancelled, 1 refused, 2 internal, from 256 on the application's.
//!
//! A second GOAWAY may take fewer streams in than the first. So a side leaves without failing a stream: it first takes
//! the highest id that there is, which only asks the peer to open nothing more, and names the last one a while later.

mod activity;
mod batch;
mod blocks;
mod code;
mod config;
mod connection;
mod control_budget;
mod decoder;
mod driver;
mod entry;
mod failure;
mod flow;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod id;
mod in_flight;
mod limits;
mod link;
mod liveness;
mod path;
mod priority;
mod queue;
mod schedule;
mod session;
mod settings;
mod shared;
#[cfg(any(test, fuzzing))]
mod simulation;
mod spare;
mod state;
mod stream;
mod sync;
#[cfg(test)]
mod tests;
mod unread;
mod violation;
mod wakers;

use std::sync::Arc;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

pub use code::StreamCode;
pub use config::Config;
pub use driver::Driver;
pub use failure::StreamFailure;
pub use id::{Role, StreamId};
pub use priority::{Priority, Weight};
pub use session::{Incoming, IncomingStream, Session, SessionStatus};
pub use stream::MuxStream;

use connection::Connection;
use link::Link;
use shared::Shared;

/// Starts a session over `io`.
///
/// Nothing is sent before the [`Driver`] is polled. Streams may be opened and written at once, before the peer has
/// introduced itself; [`Session::ready`] tells when it has.
///
/// While the driver sleeps, who writes a little to a stream passes it to `io` at once, from whatever task or thread, though
/// with the driver's waker: writing to `io` must not need to be within the driver's task.
pub fn start<T>(io: T, role: Role, config: Config) -> (Session, Incoming, Driver)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Connection::new(role, config, Instant::now().into_std());
    let shared = Arc::new(Shared::new(connection, Link::new(io)));
    (
        Session::new(Arc::clone(&shared)),
        Incoming::new(Arc::clone(&shared)),
        Driver::new(shared),
    )
}
