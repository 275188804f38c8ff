//! Port-forward: pairs of SPDY streams, and the servers that "listen" in every pod.

use std::{collections::HashMap, convert::Infallible};

use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
    task::JoinSet,
};

use super::{
    remote_command::{Outgoing, Output},
    spdy::IncomingStream,
};

/// The protocol over plain SPDY.
pub(super) const SPDY_PROTOCOLS: &[&str] = &["portforward.k8s.io"];

/// Every pod echoes here.
pub const ECHO_PORT: u16 = 7;

/// Every pod speaks HTTP/1.1 here.
pub const HTTP_PORT: u16 = 8080;

/// Connections whose second stream has not come yet.
const MAX_HALF_OPEN: usize = 64;

/// Bytes in each direction between a stream and its server.
const BUFFER_BYTES: usize = 64 * 1024;

/// Serves one port-forward: any number of connections to the pod's ports.
pub(super) async fn serve(
    pod: String,
    mut streams: mpsc::Receiver<IncomingStream>,
    queue: mpsc::Sender<Outgoing>,
) {
    let mut half_open = HashMap::<String, IncomingStream>::new();
    let mut connections = JoinSet::new();
    while let Some(stream) = streams.recv().await {
        while connections.try_join_next().is_some() {}
        let id = stream.header("requestid").unwrap_or_default().to_owned();
        let Some(other) = half_open.remove(&id) else {
            if half_open.len() == MAX_HALF_OPEN {
                return;
            }
            half_open.insert(id, stream);
            continue;
        };
        let (error, data) = match other.header("streamtype") {
            Some("error") => (other, stream),
            _ => (stream, other),
        };
        let error = Output::new(error.id, queue.clone());
        let output = Output::new(data.id, queue.clone());
        connections.spawn(forward(pod.clone(), data, output, error));
    }
}

/// One connection: the data stream to and from the server at its port, then the end of the error stream.
async fn forward(pod: String, data: IncomingStream, output: Output, error: Output) {
    let port = data
        .header("port")
        .and_then(|port| port.parse().ok())
        .unwrap_or(0);
    let reset = data.reset.clone();
    let (near, far) = tokio::io::duplex(BUFFER_BYTES);
    if is_served(port) {
        let serving = async { tokio::join!(listen(&pod, port, far), carry(data, near, &output)) };
        tokio::select! {
            _ = serving => {}
            () = reset.cancelled() => {}
        }
    } else {
        let _ = error.send(Bytes::from(refusal(&pod, port))).await;
        let _ = output.finish().await;
    }
    let _ = error.finish().await;
}

async fn carry(mut data: IncomingStream, io: DuplexStream, output: &Output) {
    let (mut read, mut write) = tokio::io::split(io);
    let to_server = async {
        while let Some(piece) = data.data.recv().await {
            if write.write_all(&piece).await.is_err() {
                return;
            }
        }
        let _ = write.shutdown().await;
    };
    let to_client = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(BUFFER_BYTES);
            match read.read_buf(&mut buffer).await {
                Ok(1..) => {}
                _ => break,
            }
            if output.send(buffer.split().freeze()).await.is_err() {
                return;
            }
        }
        let _ = output.finish().await;
    };
    // The server's end is the connection's: what the client still sends has no reader.
    tokio::pin!(to_server, to_client);
    tokio::select! {
        () = &mut to_client => {}
        () = &mut to_server => to_client.await,
    }
}

/// Whether something listens at this port of every pod.
pub(super) fn is_served(port: u16) -> bool {
    matches!(port, ECHO_PORT | HTTP_PORT)
}

/// What the kubelet says of a port at which nothing listens.
pub(super) fn refusal(pod: &str, port: u16) -> String {
    format!(
        "error forwarding port {port} to pod {pod}: failed to connect to localhost:{port} inside the pod: connection \
         refused"
    )
}

/// The server at a port of a pod.
pub(super) async fn listen(pod: &str, port: u16, io: DuplexStream) {
    if port == ECHO_PORT {
        let (mut read, mut write) = tokio::io::split(io);
        if tokio::io::copy(&mut read, &mut write).await.is_ok() {
            let _ = write.shutdown().await;
        }
        return;
    }
    let greeting = format!("hello from {pod}\n");
    let service = service_fn(|_request| async {
        let body = Full::new(Bytes::from(greeting.clone()));
        Ok::<_, Infallible>(http::Response::new(body))
    });
    // How the client ends it is the client's business.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(io), service)
        .await;
}
