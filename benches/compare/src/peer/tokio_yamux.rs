//! `tokio-yamux`: the implementation of Nervos' p2p stack.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use futures_util::{StreamExt, future::poll_fn};
use tokio::{
    io::{AsyncWrite, ReadBuf},
    sync::mpsc,
};
use tokio_yamux::{Config, Control, Session, StreamHandle};

use super::{ACCEPTED, Accepter, MANY_STREAMS, Opener, Stream, io_stream::IoStream};
use crate::{Result, pipe::Io};

#[derive(Clone)]
pub struct TokioYamux(Control);
pub struct TokioYamuxAccepter(mpsc::Receiver<StreamHandle>);

pub fn connect(near: Io, far: Io) -> (TokioYamux, TokioYamuxAccepter) {
    let config = Config {
        accept_backlog: MANY_STREAMS,
        ..Config::default()
    };
    let client = Session::new_client(near, config);
    let control = client.control();
    drive(client);
    let accepter = drive(Session::new_server(far, config));
    (TokioYamux(control), TokioYamuxAccepter(accepter))
}

fn drive(mut session: Session<Io>) -> mpsc::Receiver<StreamHandle> {
    let (accepted, accepter) = mpsc::channel(ACCEPTED);
    tokio::spawn(async move {
        while let Some(Ok(stream)) = session.next().await {
            let _ = accepted.try_send(stream);
        }
    });
    accepter
}

/// A stream whose writer also looks for what arrives. `StreamHandle` learns of a larger window only while something reads
/// it: `poll_write` takes the frames that are there, but leaves no waker for those that follow, so a task that only writes
/// stands still after the first window. Peeking leaves that waker, and takes no data from the reader.
pub struct TokioYamuxStream(IoStream<StreamHandle>);

impl TokioYamuxStream {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.0.get_mut();
        loop {
            if let Poll::Ready(written) = Pin::new(&mut *stream).poll_write(cx, bytes) {
                return Poll::Ready(written);
            }
            let mut byte = [0];
            if let Poll::Ready(Err(error)) = stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
                return Poll::Ready(Err(error));
            }
            if stream.send_window() == 0 {
                return Poll::Pending;
            }
        }
    }
}

impl Stream for TokioYamuxStream {
    async fn send(&mut self, mut piece: Bytes) -> Result<()> {
        while !piece.is_empty() {
            let written = poll_fn(|cx| self.poll_write(cx, &piece)).await?;
            piece.advance(written);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.0.flush().await
    }

    async fn receive(&mut self) -> Result<usize> {
        self.0.receive().await
    }

    fn rest(&mut self) {
        self.0.rest();
    }

    async fn finish(&mut self) -> Result<()> {
        self.0.finish().await
    }
}

impl Opener for TokioYamux {
    type Stream = TokioYamuxStream;

    async fn open(&self) -> Result<Self::Stream> {
        let stream = self.0.clone().open_stream().await;
        let stream = stream.map_err(|error| error.to_string())?;
        Ok(TokioYamuxStream(IoStream::new(stream)))
    }
}

impl Accepter for TokioYamuxAccepter {
    type Stream = TokioYamuxStream;

    async fn accept(&mut self) -> Result<Self::Stream> {
        let stream = self.0.recv().await.ok_or("the session has ended")?;
        Ok(TokioYamuxStream(IoStream::new(stream)))
    }
}
