//! No multiplexer: what the pipe itself does.

use std::sync::{Arc, Mutex};

use super::{Accepter, Opener, io_stream::IoStream};
use crate::{Result, pipe::Io};

/// As much at once as a multiplexer's batch.
const BUFFER_BYTES: usize = 256 * 1024;

#[derive(Clone)]
pub struct Raw(Arc<Mutex<Option<Io>>>);

pub fn connect(near: Io, far: Io) -> (Raw, Raw) {
    let end = |io| Raw(Arc::new(Mutex::new(Some(io))));
    (end(near), end(far))
}

impl Raw {
    fn take(&self) -> Result<IoStream<Io>> {
        let io = self.0.lock().expect("nobody panics here").take();
        let io = io.ok_or("a bare pipe carries one stream")?;
        Ok(IoStream::with_buffer(io, BUFFER_BYTES))
    }
}

impl Opener for Raw {
    type Stream = IoStream<Io>;

    async fn open(&self) -> Result<Self::Stream> {
        self.take()
    }
}

impl Accepter for Raw {
    type Stream = IoStream<Io>;

    async fn accept(&mut self) -> Result<Self::Stream> {
        self.take()
    }
}
