//! Many streams over one byte pipe.

use crate::Result;
use bytes::Bytes;

/// One stream.
pub struct MuxStream(());

impl MuxStream {
    /// The next bytes that arrived, `None` at the end. Copies nothing.
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>> {
        todo!()
    }

    /// Queues `chunk`, waiting for room. Copies nothing.
    pub async fn write_chunk(&mut self, _chunk: Bytes) -> Result<()> {
        todo!()
    }
}
