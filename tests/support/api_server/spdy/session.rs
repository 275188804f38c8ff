//! One SPDY connection: reads frames into streams, and writes what the streams' users send.

use std::{collections::HashMap, pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        remote_command::{Outgoing, StreamEnd},
        websocket::QUEUED_PIECES,
    },
    frame::{self, End, Frame, Malformed},
    header_block::{BlockReader, BlockWriter, Headers},
};

/// Streams that are open at a time; a port-forward takes two for each connection.
const MAX_STREAMS: usize = 512;

/// Answers to frames (replies, pongs) that wait for the connection.
const QUEUED_ANSWERS: usize = 64;

/// How long the client gets to close after the last byte was sent.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;

/// A stream that the client opened; it has been replied to.
pub(in super::super) struct IncomingStream {
    pub(in super::super) id: u32,
    pub(in super::super) headers: Headers,
    /// What the client sends; ends when it half-closes, or gives the stream up.
    pub(in super::super) data: mpsc::Receiver<Bytes>,
    /// Cancelled when the client gave the stream up.
    pub(in super::super) reset: CancellationToken,
}

impl IncomingStream {
    /// A header of the stream, by lower-case name.
    pub(in super::super) fn header(&self, name: &str) -> Option<&str> {
        let header = self
            .headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name));
        header.map(|(_, value)| value.as_str())
    }
}

/// Serves a connection until `application` is done or the client is gone.
pub(in super::super) async fn serve<T, F>(
    io: T,
    application: impl FnOnce(mpsc::Receiver<IncomingStream>, mpsc::Sender<Outgoing>) -> F,
) where
    T: AsyncRead + AsyncWrite,
    F: Future<Output = ()>,
{
    let (read, write) = tokio::io::split(io);
    let (queue, outgoing) = mpsc::channel(QUEUED_PIECES);
    let (answer, answers) = mpsc::channel(QUEUED_ANSWERS);
    let (incoming, streams) = mpsc::channel(MAX_STREAMS);
    let reader = Reader {
        blocks: BlockReader::new(),
        streams: HashMap::new(),
        incoming,
        answer,
    };
    let mut reading = pin!(reader.run(read));
    let working =
        async { tokio::join!(application(streams, queue), send(write, answers, outgoing)) };
    tokio::select! {
        _ = &mut reading => return,
        _ = working => {}
    }
    // The client may still be sending; reading on lets it see our end instead of a reset.
    let _ = timeout(CLOSE_LIMIT, reading).await;
}

/// What the reader wants written.
enum Answer {
    Reply { stream: u32 },
    Pong { id: u32 },
}

struct Reader {
    blocks: BlockReader,
    streams: HashMap<u32, OpenStream>,
    incoming: mpsc::Sender<IncomingStream>,
    answer: mpsc::Sender<Answer>,
}

struct OpenStream {
    data: Option<mpsc::Sender<Bytes>>,
    reset: CancellationToken,
}

impl Reader {
    /// Reads until the client closes or talks nonsense; either way the connection is over.
    async fn run(mut self, mut read: impl AsyncRead + Unpin) -> Result<(), Malformed> {
        let mut input = BytesMut::new();
        loop {
            while let Some(frame) = Frame::take(&mut input)? {
                self.handle(frame).await?;
            }
            input.reserve(READ_BYTES);
            match read.read_buf(&mut input).await {
                Ok(1..) => {}
                _ => return Ok(()),
            }
        }
    }

    async fn handle(&mut self, frame: Frame) -> Result<(), Malformed> {
        match frame {
            Frame::Open { stream, end, block } => self.open(stream, end, &block).await?,
            Frame::Headers { block } => {
                self.blocks.read(&block)?;
            }
            Frame::Data {
                stream,
                end,
                payload,
            } => {
                if let Some(open) = self.streams.get_mut(&stream) {
                    if let Some(data) = &open.data
                        && !payload.is_empty()
                    {
                        // An error means that nobody reads this stream (any more).
                        let _ = data.send(payload).await;
                    }
                    if end == End::Closed {
                        open.data = None;
                    }
                }
            }
            Frame::Reset { stream } => {
                if let Some(open) = self.streams.remove(&stream) {
                    open.reset.cancel();
                }
            }
            Frame::Ping { id } => self.answer(Answer::Pong { id }).await,
            Frame::GoAway | Frame::Other => {}
        }
        Ok(())
    }

    async fn open(&mut self, stream: u32, end: End, block: &[u8]) -> Result<(), Malformed> {
        let headers = self.blocks.read(block)?;
        // A stream is over when both its sender and the user of its data are.
        self.streams
            .retain(|_, open| open.data.as_ref().is_some_and(|data| !data.is_closed()));
        if self.streams.len() >= MAX_STREAMS || self.streams.contains_key(&stream) {
            return Err(Malformed);
        }
        let (sender, data) = mpsc::channel(QUEUED_PIECES);
        let reset = CancellationToken::new();
        let open = OpenStream {
            data: (end == End::Open).then_some(sender),
            reset: reset.clone(),
        };
        self.streams.insert(stream, open);
        self.answer(Answer::Reply { stream }).await;
        let incoming = IncomingStream {
            id: stream,
            headers,
            data,
            reset,
        };
        // An error means that the application is done; the client will see that.
        let _ = self.incoming.send(incoming).await;
        Ok(())
    }

    async fn answer(&self, answer: Answer) {
        // The writer outlives the application only; after it there is nothing left to answer.
        let _ = self.answer.send(answer).await;
    }
}

async fn send(
    mut write: impl AsyncWrite + Unpin,
    mut answers: mpsc::Receiver<Answer>,
    mut outgoing: mpsc::Receiver<Outgoing>,
) {
    let mut blocks = BlockWriter::new();
    let mut out = BytesMut::new();
    let mut last_stream = 0;
    loop {
        // Answers first: a stream's reply has to precede its data.
        tokio::select! {
            biased;
            Some(answer) = answers.recv() => match answer {
                Answer::Reply { stream } => {
                    last_stream = stream;
                    frame::put_reply(&mut out, stream, &blocks.write(&[]));
                }
                Answer::Pong { id } => frame::put_ping(&mut out, id),
            },
            piece = outgoing.recv() => match piece {
                Some(piece) => {
                    let end = match piece.end {
                        StreamEnd::More => End::Open,
                        StreamEnd::Last => End::Closed,
                    };
                    frame::put_data(&mut out, piece.stream, end, &piece.payload);
                }
                None => break,
            },
        }
        if write.write_all_buf(&mut out).await.is_err() || write.flush().await.is_err() {
            return;
        }
    }
    frame::put_go_away(&mut out, last_stream);
    if write.write_all_buf(&mut out).await.is_ok() {
        let _ = write.shutdown().await;
    }
}
