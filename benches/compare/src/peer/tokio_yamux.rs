//! `tokio-yamux`: the implementation of Nervos' p2p stack.

use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_yamux::{Config, Control, Session, StreamHandle};

use super::{ACCEPTED, Accepter, MANY_STREAMS, Opener, io_stream::IoStream};
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

impl Opener for TokioYamux {
    type Stream = IoStream<StreamHandle>;

    async fn open(&self) -> Result<Self::Stream> {
        let stream = self.0.clone().open_stream().await;
        Ok(IoStream::new(stream.map_err(|error| error.to_string())?))
    }
}

impl Accepter for TokioYamuxAccepter {
    type Stream = IoStream<StreamHandle>;

    async fn accept(&mut self) -> Result<Self::Stream> {
        let stream = self.0.recv().await.ok_or("the session has ended")?;
        Ok(IoStream::new(stream))
    }
}
