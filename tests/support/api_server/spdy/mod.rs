//! A small SPDY/3.1 server: as much of the protocol as Kubernetes clients speak.
//!
//! There is no flow control by WINDOW_UPDATE, because the library on the other end (moby/spdystream) has none: it
//! neither sends nor honours those frames. What holds a fast sender back is the connection itself.

pub(super) mod command;
mod frame;
mod header_block;
mod session;

pub(super) use session::{IncomingStream, serve};
