//! Port-forward over WebSocket channels, as client libraries have it: two channels a port, data and error, each opened
//! by the server with the port's number (two bytes, little endian).

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, WriteHalf},
    sync::mpsc,
    task::JoinSet,
};
use tokio_websockets::Message;

use super::{port_forward, query::Query, status::Status, websocket};

/// The protocol that the Python, JavaScript and Rust libraries ask for.
pub(super) const PROTOCOL: &str = "v4.channel.k8s.io";

/// Channels are numbered in one byte, two for each port.
const MAX_PORTS: usize = 127;

/// Bytes in each direction between a channel and its server.
const BUFFER_BYTES: usize = 64 * 1024;

/// The ports that a request names.
pub(super) fn ports(query: &Query) -> Result<Vec<u16>, Status> {
    let ports: Option<Vec<u16>> = query
        .all("ports")
        .flat_map(|list| list.split(','))
        .map(|port| port.parse().ok().filter(|port| *port > 0))
        .collect();
    match ports {
        Some(ports) if (1..=MAX_PORTS).contains(&ports.len()) => Ok(ports),
        _ => Err(Status::bad_request(
            "query parameter \"ports\" is required, with ports from 1 to 65535",
        )),
    }
}

/// Serves one connection for each of `ports`, until the client is gone or all of them have ended.
pub(super) async fn serve<T>(io: T, pod: String, ports: Vec<u16>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut messages) = websocket::server(io).split();
    let (queue, mut outgoing) = mpsc::channel(websocket::QUEUED_PIECES);
    let mut writers = HashMap::new();
    let mut connections = JoinSet::new();
    for (index, port) in (0..).step_by(2).zip(ports) {
        let (near, far) = tokio::io::duplex(BUFFER_BYTES);
        let (mut read, write) = tokio::io::split(near);
        writers.insert(index, write);
        let (pod, queue) = (pod.clone(), queue.clone());
        connections.spawn(async move {
            for channel in [index, index + 1] {
                let opening = message(channel, &port.to_le_bytes());
                if queue.send(opening).await.is_err() {
                    return;
                }
            }
            let carry = async {
                let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
                while let Ok(1..) = read.read_buf(&mut buffer).await {
                    if queue.send(message(index, &buffer.split())).await.is_err() {
                        return;
                    }
                }
            };
            if port_forward::is_served(port) {
                tokio::join!(port_forward::listen(&pod, port, far), carry);
            } else {
                let refusal = port_forward::refusal(&pod, port);
                let _ = queue.send(message(index + 1, refusal.as_bytes())).await;
            }
        });
    }
    drop(queue);
    let sending = async {
        while let Some(piece) = outgoing.recv().await {
            if sink.send(Message::binary(piece)).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    };
    let receiving = async {
        while let Some(Ok(message)) = messages.next().await {
            if message.is_binary() {
                deliver(&mut writers, message.into_payload().into()).await;
            }
        }
    };
    tokio::select! {
        () = sending => {}
        () = receiving => {}
    }
}

async fn deliver<W: AsyncWrite>(writers: &mut HashMap<u8, WriteHalf<W>>, mut payload: Bytes) {
    if payload.is_empty() {
        return;
    }
    let channel = payload.split_to(1)[0];
    if let Some(writer) = writers.get_mut(&channel)
        && writer.write_all(&payload).await.is_err()
    {
        writers.remove(&channel);
    }
}

fn message(channel: u8, payload: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(1 + payload.len());
    message.put_u8(channel);
    message.put_slice(payload);
    message.freeze()
}
