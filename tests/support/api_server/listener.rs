//! Accepts connections and speaks HTTP/2 or HTTP/1.1 on them, as ALPN says.

use std::{convert::Infallible, pin::pin, sync::Arc};

use arc_cluster_connect::net::{Alpn, NetStream, TlsAcceptor};
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::{
    cork::{Cork, CorkedStream},
    handler,
    server::Server,
};

/// What the real server allows on one HTTP/2 connection, and so what a proxy's pool has to cope with.
const MAX_CONCURRENT_STREAMS: u32 = 100;

/// The real server's limit on all headers of one request.
const MAX_HEADER_BYTES: u32 = 1 << 20;

/// Field lines of one HTTP/1.1 request: a user with 2 000 groups, one line each, and the rest.
const MAX_HEADER_FIELDS: usize = 2_200;

pub(super) async fn serve(listener: TcpListener, acceptor: TlsAcceptor, server: Arc<Server>) {
    let mut number = 0;
    loop {
        let accepted = tokio::select! {
            () = server.stop.cancelled() => return,
            () = server.drain.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        // A failed accept (out of descriptors, a peer gone already) concerns that connection only.
        let Ok((tcp, _)) = accepted else { continue };
        server.spawn(connection(
            tcp,
            acceptor.clone(),
            number,
            Arc::clone(&server),
        ));
        number += 1;
    }
}

async fn connection(tcp: TcpStream, acceptor: TlsAcceptor, number: u64, server: Arc<Server>) {
    let _ = tcp.set_nodelay(true);
    let Ok(stream) = acceptor.accept(tcp).await else {
        return;
    };
    // How a connection ends is the client's to notice; there is nobody to tell here.
    match stream.alpn() {
        Some(Alpn::Http2) => serve_http2(stream, number, server).await,
        _ => serve_http1(stream, number, server).await,
    }
}

async fn serve_http1(stream: NetStream, number: u64, server: Arc<Server>) {
    let cork = Cork::default();
    let io = TokioIo::new(CorkedStream::new(stream, cork.clone()));
    let service = service_fn({
        let server = Arc::clone(&server);
        move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(cork.clone());
            let server = Arc::clone(&server);
            async move { Ok::<_, Infallible>(handler::handle(&server, number, request).await) }
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .max_headers(MAX_HEADER_FIELDS)
            .max_buf_size(MAX_HEADER_BYTES as usize)
            .serve_connection(io, service)
            .with_upgrades()
    );
    let mut leaving = pin!(leaving(&server));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = leaving.as_mut() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn serve_http2(stream: NetStream, number: u64, server: Arc<Server>) {
    let service = service_fn({
        let server = Arc::clone(&server);
        move |request| {
            let server = Arc::clone(&server);
            async move { Ok::<_, Infallible>(handler::handle(&server, number, request).await) }
        }
    });
    let mut connection = pin!(
        http2::Builder::new(Spawner(Arc::clone(&server)))
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .max_header_list_size(MAX_HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut leaving = pin!(leaving(&server));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = leaving.as_mut() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Resolves when the connection has to say that it takes no more requests.
async fn leaving(server: &Server) {
    let mut go_aways = server.faults.go_aways();
    tokio::select! {
        () = server.drain.cancelled() => {}
        _ = go_aways.changed() => {}
    }
}

/// Runs the streams of HTTP/2 connections, so that a stopped server leaves none behind.
#[derive(Clone)]
struct Spawner(Arc<Server>);

impl<F> Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
