//! `tokio-yamux`: the implementation of Nervos' p2p stack.

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
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

/// What is written stays where it is until it is flushed, or so it does beyond a window.
pub struct Flushed(IoStream<StreamHandle>);

impl Stream for Flushed {
    async fn send(&mut self, piece: Bytes) -> Result<()> {
        self.0.send(piece).await?;
        self.0.flush().await
    }

    async fn flush(&mut self) -> Result<()> {
        self.0.flush().await
    }

    async fn receive(&mut self) -> Result<usize> {
        self.0.receive().await
    }

    async fn finish(&mut self) -> Result<()> {
        self.0.finish().await
    }
}

impl Opener for TokioYamux {
    type Stream = Flushed;

    async fn open(&self) -> Result<Self::Stream> {
        let stream = self.0.clone().open_stream().await;
        let stream = stream.map_err(|error| error.to_string())?;
        Ok(Flushed(IoStream::new(stream)))
    }
}

impl Accepter for TokioYamuxAccepter {
    type Stream = Flushed;

    async fn accept(&mut self) -> Result<Self::Stream> {
        let stream = self.0.recv().await.ok_or("the session has ended")?;
        Ok(Flushed(IoStream::new(stream)))
    }
}
