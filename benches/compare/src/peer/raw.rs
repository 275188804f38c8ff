//! No multiplexer: what the pipe itself does.

use std::sync::{Arc, Mutex};

use super::{Accepter, Opener, io_stream::IoStream};
use crate::{Result, pipe::Io};

#[derive(Clone)]
pub struct Raw {
    io: Arc<Mutex<Option<Io>>>,
    at_once: usize,
}

/// Both ends, which write and read `at_once` bytes where the workload has as many.
pub fn connect(near: Io, far: Io, at_once: usize) -> (Raw, Raw) {
    let end = |io| Raw {
        io: Arc::new(Mutex::new(Some(io))),
        at_once,
    };
    (end(near), end(far))
}

impl Raw {
    fn take(&self) -> Result<IoStream<Io>> {
        let io = self.io.lock().expect("nobody panics here").take();
        let io = io.ok_or("a bare pipe carries one stream")?;
        Ok(IoStream::with_buffer(io, self.at_once))
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
