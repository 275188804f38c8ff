//! `async_smux`: smux version 1, which has no flow control for each stream.

use async_smux::{MuxAcceptor, MuxBuilder, MuxConnector, MuxStream};

use super::{Accepter, Opener, io_stream::IoStream};
use crate::{Result, pipe::Io};

#[derive(Clone)]
pub struct AsyncSmux(MuxConnector<Io>);
pub struct AsyncSmuxAccepter(MuxAcceptor<Io>);

pub fn connect(near: Io, far: Io) -> (AsyncSmux, AsyncSmuxAccepter) {
    let (connector, idle, worker) = MuxBuilder::client().with_connection(near).build();
    // Dropped, it would end the connection.
    std::mem::forget(idle);
    tokio::spawn(worker);
    let (idle, acceptor, worker) = MuxBuilder::server().with_connection(far).build();
    std::mem::forget(idle);
    tokio::spawn(worker);
    (AsyncSmux(connector), AsyncSmuxAccepter(acceptor))
}

impl Opener for AsyncSmux {
    type Stream = IoStream<MuxStream<Io>>;

    async fn open(&self) -> Result<Self::Stream> {
        let stream = self.0.connect().map_err(|error| format!("{error:?}"))?;
        Ok(IoStream::new(stream))
    }
}

impl Accepter for AsyncSmuxAccepter {
    type Stream = IoStream<MuxStream<Io>>;

    async fn accept(&mut self) -> Result<Self::Stream> {
        let stream = self.0.accept().await.ok_or("the connection has ended")?;
        Ok(IoStream::new(stream))
    }
}
