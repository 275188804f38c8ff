//! Any `AsyncRead` and `AsyncWrite` as a stream of the comparison, 64 KiB at a time.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Stream;
use crate::Result;

pub struct IoStream<T> {
    io: T,
    buffer: Vec<u8>,
    size: usize,
}

/// What programs commonly read at once.
const BUFFER_BYTES: usize = 64 * 1024;

impl<T> IoStream<T> {
    pub fn new(io: T) -> Self {
        Self::with_buffer(io, BUFFER_BYTES)
    }

    pub fn with_buffer(io: T, size: usize) -> Self {
        Self {
            io,
            buffer: Vec::new(),
            size,
        }
    }

    pub fn get_mut(&mut self) -> &mut T {
        &mut self.io
    }
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for IoStream<T> {
    async fn send(&mut self, piece: Bytes) -> Result<()> {
        Ok(self.io.write_all(&piece).await?)
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(self.io.flush().await?)
    }

    async fn receive(&mut self) -> Result<usize> {
        self.buffer.resize(self.size, 0);
        Ok(self.io.read(&mut self.buffer).await?)
    }

    fn rest(&mut self) {
        self.buffer = Vec::new();
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(self.io.shutdown().await?)
    }
}
