//! `async_smux`: smux version 1, which has no flow control for each stream.

use std::num::NonZeroUsize;

use async_smux::{MuxAcceptor, MuxBuilder, MuxConnector, MuxStream};

use super::{Accepter, Opener, io_stream::IoStream};
use crate::{Result, pipe::Io};

#[derive(Clone)]
pub struct AsyncSmux(MuxConnector<Io>);
pub struct AsyncSmuxAccepter(MuxAcceptor<Io>);

/// How many frames, of up to 64 KiB, may wait on either side.
#[derive(Clone, Copy)]
pub struct Queues {
    sending: NonZeroUsize,
    receiving: NonZeroUsize,
}

pub const DEFAULT: Queues = Queues::new(1024, 1024);

/// Short, so that little is under way. The second also counts streams that are not accepted yet.
pub const CAPPED: Queues = Queues::new(4, 16);

impl Queues {
    const fn new(sending: usize, receiving: usize) -> Self {
        Self {
            sending: NonZeroUsize::new(sending).expect("a queue has room"),
            receiving: NonZeroUsize::new(receiving).expect("a queue has room"),
        }
    }
}

pub fn connect(near: Io, far: Io, queues: Queues) -> (AsyncSmux, AsyncSmuxAccepter) {
    let (connector, idle, worker) = MuxBuilder::client()
        .with_max_tx_queue(queues.sending)
        .with_max_rx_queue(queues.receiving)
        .with_connection(near)
        .build();
    // Dropped, it would end the connection.
    std::mem::forget(idle);
    tokio::spawn(worker);
    let (idle, acceptor, worker) = MuxBuilder::server()
        .with_max_tx_queue(queues.sending)
        .with_max_rx_queue(queues.receiving)
        .with_connection(far)
        .build();
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
