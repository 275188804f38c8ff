//! WebSocket as Kubernetes uses it: the handshake, the numbered channels of exec and attach, and a plain byte tunnel
//! for port-forward.

use std::{pin::pin, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    sync::mpsc,
    time::timeout,
};
use tokio_websockets::{CloseCode, Error, Limits, Message, ServerBuilder, WebSocketStream};

use super::{
    process::Runs,
    remote_command::{Outgoing, Output, Streams, Wanted},
};

/// The channel protocols of exec and attach; the first that the client offers is taken.
pub(super) const CHANNEL_PROTOCOLS: &[&str] = &[CHANNELS_V5, "v4.channel.k8s.io"];

/// Adds the message that closes one channel.
pub(super) const CHANNELS_V5: &str = "v5.channel.k8s.io";

/// SPDY frames inside binary messages.
pub(super) const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

/// The longest message taken. kubectl sends at most 32 KiB at once.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Pieces that wait for the connection, or for the command's standard input. A few, so that neither end idles; no
/// more, so that a stopped reader is felt at the other end.
pub(super) const QUEUED_PIECES: usize = 8;

/// How long the client gets to answer the closing handshake.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Bytes in each direction between the tunnel's messages and the SPDY frames in them.
const TUNNEL_BUFFER: usize = 64 * 1024;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const CLOSE: u8 = 255;

/// The `Sec-WebSocket-Accept` to a `Sec-WebSocket-Key` (RFC 6455, 4.2.2).
pub(super) fn accept_key(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hash = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    STANDARD.encode(hash)
}

/// Serves exec or attach on an upgraded connection, until `command` is done or the client is gone.
pub(super) async fn serve_channels<T, F>(
    io: T,
    protocol: &str,
    wanted: Wanted,
    command: impl FnOnce(Streams) -> F,
) where
    T: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = ()>,
{
    let (sink, messages) = server(io).split();
    let (queue, outgoing) = mpsc::channel(QUEUED_PIECES);
    let (stdin_sender, stdin) = mpsc::channel(QUEUED_PIECES);
    let output = |channel: u8| Output::new(channel.into(), queue.clone());
    let on_terminal = wanted.runs == Runs::OnTerminal;
    let streams = Streams {
        stdin: wanted.stdin.then_some(stdin),
        stdout: wanted.stdout.then(|| output(STDOUT)),
        stderr: (wanted.stderr && !on_terminal).then(|| output(STDERR)),
        error: output(ERROR),
    };
    // The real server opens with an empty message on the first channel that it writes.
    let first = [&streams.stdout, &streams.stderr]
        .into_iter()
        .flatten()
        .next();
    let opened = first.unwrap_or(&streams.error).send(Bytes::new()).await;
    opened.expect("the receiver is still here and the queue is empty");
    drop(queue);

    let mut receiving = pin!(receive_channels(
        messages,
        protocol == CHANNELS_V5,
        stdin_sender
    ));
    let working = async { tokio::join!(command(streams), send_channels(sink, outgoing)) };
    tokio::select! {
        () = &mut receiving => return,
        _ = working => {}
    }
    // The client may still be sending; reading on lets it see our end instead of a reset.
    let _ = timeout(CLOSE_LIMIT, receiving).await;
}

async fn receive_channels(
    mut messages: impl Stream<Item = Result<Message, Error>> + Unpin,
    closes_channels: bool,
    stdin: mpsc::Sender<Bytes>,
) {
    let mut stdin = Some(stdin);
    while let Some(Ok(message)) = messages.next().await {
        if !message.is_binary() {
            continue;
        }
        let mut payload = Bytes::from(message.into_payload());
        if payload.is_empty() {
            continue;
        }
        let channel = payload.split_to(1)[0];
        match channel {
            STDIN => {
                if let Some(stdin) = &stdin
                    && !payload.is_empty()
                {
                    // An error means that the command no longer reads; its end is told elsewhere.
                    let _ = stdin.send(payload).await;
                }
            }
            CLOSE if closes_channels && payload.first() == Some(&STDIN) => stdin = None,
            // Resizing (4) needs no answer: nothing here knows how wide it is.
            _ => {}
        }
    }
}

async fn send_channels(
    mut sink: impl Sink<Message, Error = Error> + Unpin,
    mut outgoing: mpsc::Receiver<Outgoing>,
) {
    let mut is_first = true;
    while let Some(piece) = outgoing.recv().await {
        // The end of a single stream has no message from the server; an empty one means nothing after the first.
        if piece.payload.is_empty() && !std::mem::take(&mut is_first) {
            continue;
        }
        is_first = false;
        let mut message = BytesMut::with_capacity(1 + piece.payload.len());
        message.put_u8(u8::try_from(piece.stream).expect("channels are numbered in one byte"));
        message.put_slice(&piece.payload);
        if sink.send(Message::binary(message)).await.is_err() {
            return;
        }
    }
    let _ = sink
        .send(Message::close(Some(CloseCode::NORMAL_CLOSURE), ""))
        .await;
}

/// Serves a byte stream that runs inside binary messages.
pub(super) async fn serve_tunnel<T, F>(io: T, application: impl FnOnce(DuplexStream) -> F)
where
    T: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = ()>,
{
    let (sink, messages) = server(io).split();
    let (inner, outer) = tokio::io::duplex(TUNNEL_BUFFER);
    let (read, write) = tokio::io::split(outer);
    let mut receiving = pin!(receive_bytes(messages, write));
    let working = async { tokio::join!(application(inner), send_bytes(sink, read)) };
    tokio::select! {
        () = &mut receiving => return,
        _ = working => {}
    }
    let _ = timeout(CLOSE_LIMIT, receiving).await;
}

async fn receive_bytes(
    mut messages: impl Stream<Item = Result<Message, Error>> + Unpin,
    mut write: impl AsyncWrite + Unpin,
) {
    while let Some(Ok(message)) = messages.next().await {
        if message.is_binary() && write.write_all(message.as_payload()).await.is_err() {
            return;
        }
    }
}

async fn send_bytes(
    mut sink: impl Sink<Message, Error = Error> + Unpin,
    mut read: impl AsyncRead + Unpin,
) {
    let mut buffer = BytesMut::with_capacity(TUNNEL_BUFFER);
    while let Ok(1..) = read.read_buf(&mut buffer).await {
        if sink.send(Message::binary(buffer.split())).await.is_err() {
            return;
        }
        buffer.reserve(TUNNEL_BUFFER);
    }
    let _ = sink
        .send(Message::close(Some(CloseCode::NORMAL_CLOSURE), ""))
        .await;
}

/// The server's end of a connection whose handshake is done.
pub(super) fn server<T: AsyncRead + AsyncWrite + Unpin>(io: T) -> WebSocketStream<T> {
    let limits = Limits::default().max_payload_len(Some(MAX_MESSAGE_BYTES));
    ServerBuilder::new().limits(limits).serve(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_key_is_that_of_the_rfc() {
        assert_eq!(
            accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}
