//! The multiplexer of this crate, with nothing set by hand.

use arc_cluster_connect::tunnel::mux::{self, Config, Incoming, MuxStream, Role, Session};
use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use super::{Accepter, MANY_STREAMS, Opener, Stream, io_stream::IoStream};
use crate::{Result, pipe::Io, workload::Workload};

#[derive(Clone)]
pub struct Chunks(Session);
pub struct ChunkAccepter(
    Incoming,
    #[expect(dead_code, reason = "keeps the session")] Session,
);

#[derive(Clone)]
pub struct Bytewise(Chunks);
pub struct BytewiseAccepter(ChunkAccepter);

pub async fn connect(near: Io, far: Io, workload: Workload) -> Result<(Chunks, ChunkAccepter)> {
    let config = match workload {
        // More than the default: each stream's floor then takes from what the others could grow by.
        Workload::IdleStreams => Config::default()
            .with_max_streams(MANY_STREAMS)
            .with_max_opened(MANY_STREAMS)
            .with_max_unaccepted(MANY_STREAMS),
        _ => Config::default(),
    };
    let (client, _, driver) = mux::start(near, Role::Client, config.clone());
    tokio::spawn(driver);
    let (server, incoming, driver) = mux::start(far, Role::Server, config);
    tokio::spawn(driver);
    client.ready().await?;
    Ok((Chunks(client), ChunkAccepter(incoming, server)))
}

pub async fn connect_io(
    near: Io,
    far: Io,
    workload: Workload,
) -> Result<(Bytewise, BytewiseAccepter)> {
    let (opener, accepter) = connect(near, far, workload).await?;
    Ok((Bytewise(opener), BytewiseAccepter(accepter)))
}

impl Opener for Chunks {
    type Stream = MuxStream;

    async fn open(&self) -> Result<MuxStream> {
        Ok(self.0.open(Bytes::new()).await?)
    }
}

impl Accepter for ChunkAccepter {
    type Stream = MuxStream;

    async fn accept(&mut self) -> Result<MuxStream> {
        let stream = self.0.accept().await.ok_or("the session has ended")?;
        Ok(stream.into_stream())
    }
}

impl Stream for MuxStream {
    async fn send(&mut self, piece: Bytes) -> Result<()> {
        Ok(self.write_chunk(piece).await?)
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    async fn receive(&mut self) -> Result<usize> {
        Ok(self.read_chunk().await?.map_or(0, |chunk| chunk.len()))
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(self.shutdown().await?)
    }
}

impl Opener for Bytewise {
    type Stream = IoStream<MuxStream>;

    async fn open(&self) -> Result<Self::Stream> {
        Ok(IoStream::new(self.0.open().await?))
    }
}

impl Accepter for BytewiseAccepter {
    type Stream = IoStream<MuxStream>;

    async fn accept(&mut self) -> Result<Self::Stream> {
        Ok(IoStream::new(self.0.accept().await?))
    }
}
