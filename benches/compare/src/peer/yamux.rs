//! `yamux`: the implementation of libp2p.

use std::task::Poll;

use futures_util::future::poll_fn;
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use yamux::{Config, Connection, Mode};

use super::{ACCEPTED, Accepter, MANY_STREAMS, Opener, io_stream::IoStream};
use crate::{Result, pipe::Io};

type Handle = IoStream<Compat<yamux::Stream>>;
type Reply = oneshot::Sender<Result<yamux::Stream, yamux::ConnectionError>>;

#[derive(Clone)]
pub struct Yamux(mpsc::Sender<Reply>);
pub struct YamuxAccepter(mpsc::Receiver<yamux::Stream>);

/// Its defaults, but for the number of streams.
pub fn grows() -> Config {
    let mut config = Config::default();
    config.set_max_connection_receive_window(None);
    config.set_max_num_streams(MANY_STREAMS);
    config
}

/// No window beyond the initial 256 KiB, and frames of 64 KiB.
pub fn capped() -> Config {
    let mut config = Config::default();
    config.set_max_connection_receive_window(None);
    config.set_max_num_streams(MANY_STREAMS);
    config.set_max_connection_receive_window(Some(MANY_STREAMS * 256 * 1024));
    config.set_split_send_size(64 * 1024);
    config
}

pub fn connect(near: Io, far: Io, config: Config) -> (Yamux, YamuxAccepter) {
    let (opener, _) = drive(Connection::new(near.compat(), config.clone(), Mode::Client));
    let (idle, accepter) = drive(Connection::new(far.compat(), config, Mode::Server));
    // The serving side opens nothing, and its driver goes on.
    std::mem::forget(idle);
    (opener, accepter)
}

/// A task that drives the connection, and the handles to it.
fn drive(mut connection: Connection<Compat<Io>>) -> (Yamux, YamuxAccepter) {
    let (requests, mut wanted) = mpsc::channel::<Reply>(ACCEPTED);
    let (accepted, accepter) = mpsc::channel(ACCEPTED);
    tokio::spawn(async move {
        let mut next: Option<Reply> = None;
        poll_fn(move |cx| {
            loop {
                match connection.poll_next_inbound(cx) {
                    Poll::Ready(Some(Ok(stream))) => {
                        let _ = accepted.try_send(stream);
                        continue;
                    }
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
                if next.is_none()
                    && let Poll::Ready(reply) = wanted.poll_recv(cx)
                {
                    match reply {
                        Some(reply) => next = Some(reply),
                        None => return Poll::Ready(()),
                    }
                }
                let Some(reply) = next.take() else {
                    return Poll::Pending;
                };
                match connection.poll_new_outbound(cx) {
                    Poll::Ready(stream) => {
                        let _ = reply.send(stream);
                    }
                    Poll::Pending => {
                        next = Some(reply);
                        return Poll::Pending;
                    }
                }
            }
        })
        .await;
    });
    (Yamux(requests), YamuxAccepter(accepter))
}

impl Opener for Yamux {
    type Stream = Handle;

    async fn open(&self) -> Result<Handle> {
        let (reply, stream) = oneshot::channel();
        self.0
            .send(reply)
            .await
            .map_err(|_| "the connection has ended")?;
        Ok(IoStream::new(stream.await??.compat()))
    }
}

impl Accepter for YamuxAccepter {
    type Stream = Handle;

    async fn accept(&mut self) -> Result<Handle> {
        let stream = self.0.recv().await.ok_or("the connection has ended")?;
        Ok(IoStream::new(stream.compat()))
    }
}
