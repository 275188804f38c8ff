//! `h2`: HTTP/2 as a multiplexer, one request a stream.

use bytes::Bytes;
use futures_util::future::poll_fn;
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
    server::SendResponse,
};
use http::{Method, Request, Response};
use tokio::sync::mpsc;

use super::{ACCEPTED, Accepter, MANY_STREAMS, Opener, Stream};
use crate::{Result, pipe::Io};

/// The windows of one set-up.
#[derive(Clone, Copy)]
pub struct Windows {
    stream: u32,
    connection: u32,
    frame: u32,
}

pub const DEFAULT: Windows = Windows {
    stream: (64 << 10) - 1,
    connection: (64 << 10) - 1,
    frame: 16 << 10,
};

pub const RAISED: Windows = Windows {
    stream: 4 << 20,
    connection: 64 << 20,
    frame: 16 << 10,
};

pub const CAPPED_256: Windows = Windows {
    stream: 256 << 10,
    connection: 256 << 10,
    frame: 64 << 10,
};

pub const CAPPED_1024: Windows = Windows {
    stream: 64 << 10,
    connection: 1 << 20,
    frame: 64 << 10,
};

/// What h2 may keep of what could not be sent yet. More than a piece, so that it is not what limits.
const SEND_BUFFER: usize = 1 << 20;

#[derive(Clone)]
pub struct H2(SendRequest<Bytes>);
pub struct H2Accepter(mpsc::Receiver<H2Stream>);

pub struct H2Stream {
    sending: SendStream<Bytes>,
    receiving: Receiving,
}

/// The opener hears of its receiving half with the answer's head.
enum Receiving {
    Awaited(ResponseFuture),
    Here(RecvStream),
}

pub async fn connect(near: Io, far: Io, windows: Windows) -> Result<(H2, H2Accepter)> {
    let serving = tokio::spawn(async move {
        h2::server::Builder::new()
            .initial_window_size(windows.stream)
            .initial_connection_window_size(windows.connection)
            .max_frame_size(windows.frame)
            .max_concurrent_streams(MANY_STREAMS as u32)
            .max_send_buffer_size(SEND_BUFFER)
            .handshake::<_, Bytes>(far)
            .await
    });
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(windows.stream)
        .initial_connection_window_size(windows.connection)
        .max_frame_size(windows.frame)
        .initial_max_send_streams(MANY_STREAMS)
        .max_send_buffer_size(SEND_BUFFER)
        .handshake::<_, Bytes>(near)
        .await?;
    tokio::spawn(connection);
    let mut server = serving.await??;
    let (accepted, accepter) = mpsc::channel(ACCEPTED);
    tokio::spawn(async move {
        while let Some(Ok((request, respond))) = server.accept().await {
            let respond: SendResponse<Bytes> = respond;
            let _ = accepted.try_send(answer(request, respond));
        }
    });
    Ok((H2(client.ready().await?), H2Accepter(accepter)))
}

fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> H2Stream {
    let sending = respond
        .send_response(Response::new(()), false)
        .expect("the stream is new");
    H2Stream {
        sending,
        receiving: Receiving::Here(request.into_body()),
    }
}

impl Opener for H2 {
    type Stream = H2Stream;

    async fn open(&self) -> Result<H2Stream> {
        let mut client = self.0.clone().ready().await?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = "http://peer/".parse()?;
        let (answer, sending) = client.send_request(request, false)?;
        Ok(H2Stream {
            sending,
            receiving: Receiving::Awaited(answer),
        })
    }
}

impl Accepter for H2Accepter {
    type Stream = H2Stream;

    async fn accept(&mut self) -> Result<H2Stream> {
        Ok(self.0.recv().await.ok_or("the connection has ended")?)
    }
}

impl Stream for H2Stream {
    async fn send(&mut self, mut piece: Bytes) -> Result<()> {
        while !piece.is_empty() {
            self.sending.reserve_capacity(piece.len());
            let capacity = poll_fn(|cx| self.sending.poll_capacity(cx)).await;
            let capacity = capacity.ok_or("the stream has ended")??;
            let part = piece.split_to(capacity.min(piece.len()));
            self.sending.send_data(part, false)?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    async fn receive(&mut self) -> Result<usize> {
        if let Receiving::Awaited(answer) = &mut self.receiving {
            self.receiving = Receiving::Here(answer.await?.into_body());
        }
        let Receiving::Here(body) = &mut self.receiving else {
            unreachable!("it has just arrived")
        };
        match body.data().await {
            Some(piece) => {
                let length = piece?.len();
                body.flow_control().release_capacity(length)?;
                Ok(length)
            }
            None => Ok(0),
        }
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(self.sending.send_data(Bytes::new(), true)?)
    }
}
