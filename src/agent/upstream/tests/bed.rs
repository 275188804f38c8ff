//! The far end: a dialler whose connections lead to HTTP/2 servers of the test's own.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    sync::{mpsc, oneshot},
};

use crate::{
    Error, ErrorKind, Result,
    agent::{
        body::RequestBody,
        upstream::{Dial, Upstream, UpstreamBody, UpstreamIo, dial::Dialled},
    },
};

/// A bound on what should happen at once. Only a failing test reaches it.
const AT_ONCE: Duration = Duration::from_secs(60);
/// What a network holds of a connection's bytes.
pub(super) const PIPE: usize = 64 * 1024;

/// What a dial comes to.
#[derive(Clone, Copy)]
pub(super) enum Dialling {
    Http2,
    Http1,
    Fails,
    Hangs,
}

pub(super) struct Bed {
    pub(super) upstream: Arc<Upstream>,
    pub(super) dialling: Arc<Mutex<Dialling>>,
    dialled: Arc<AtomicUsize>,
    connections: mpsc::UnboundedReceiver<DuplexStream>,
}

struct BedDial {
    dialling: Arc<Mutex<Dialling>>,
    dialled: Arc<AtomicUsize>,
    connections: mpsc::UnboundedSender<DuplexStream>,
}

impl Dial for BedDial {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn UpstreamIo>>> {
        Box::pin(async { Ok(self.connect()) })
    }

    fn dial_any(&self) -> BoxFuture<'_, Result<Dialled>> {
        Box::pin(async {
            let dialling = *self.dialling.lock().expect("no panic");
            match dialling {
                Dialling::Http2 => Ok(Dialled::Http2(self.connect())),
                Dialling::Http1 => Ok(Dialled::Http1(self.connect())),
                Dialling::Fails => {
                    self.dialled.fetch_add(1, Ordering::SeqCst);
                    Err(
                        Error::new(ErrorKind::Network, "can not connect to api:6443")
                            .with_source(std::io::Error::other("no route"))
                            .with_help("check the network"),
                    )
                }
                Dialling::Hangs => {
                    self.dialled.fetch_add(1, Ordering::SeqCst);
                    std::future::pending().await
                }
            }
        })
    }
}

impl BedDial {
    fn connect(&self) -> Box<dyn UpstreamIo> {
        self.dialled.fetch_add(1, Ordering::SeqCst);
        let (near, far) = duplex(PIPE);
        // The test may be over.
        let _ = self.connections.send(far);
        Box::new(near)
    }
}

impl Bed {
    pub(super) fn new(dialling: Dialling) -> Self {
        let (sender, connections) = mpsc::unbounded_channel();
        let dialling = Arc::new(Mutex::new(dialling));
        let dialled = Arc::<AtomicUsize>::default();
        let dial = BedDial {
            dialling: Arc::clone(&dialling),
            dialled: Arc::clone(&dialled),
            connections: sender,
        };
        Self {
            upstream: Arc::new(Upstream::new(Box::new(dial))),
            dialling,
            dialled,
            connections,
        }
    }

    pub(super) fn dialled(&self) -> usize {
        self.dialled.load(Ordering::SeqCst)
    }

    /// The server's end of the next connection.
    pub(super) async fn connection(&mut self) -> DuplexStream {
        at_once(self.connections.recv())
            .await
            .expect("a connection")
    }

    /// Serves HTTP/2 on every connection; requests go to the test.
    pub(super) fn serve(self, max_streams: u32) -> (Arc<Upstream>, Server) {
        let (requests, received) = mpsc::unbounded_channel();
        let (commands, _) = tokio::sync::broadcast::channel(64);
        let open = Arc::<AtomicUsize>::default();
        let server = Server {
            requests: received,
            commands: commands.clone(),
            dialled: Arc::clone(&self.dialled),
            open: Arc::clone(&open),
        };
        let upstream = Arc::clone(&self.upstream);
        tokio::spawn(async move {
            let mut bed = self;
            // The bed's own handle must not keep the connections alive.
            bed.upstream = Arc::new(Upstream::new(Box::new(BedDial {
                dialling: Arc::clone(&bed.dialling),
                dialled: Arc::clone(&bed.dialled),
                connections: mpsc::unbounded_channel().0,
            })));
            let mut number = 0;
            while let Some(io) = bed.connections.recv().await {
                let serving = serve(
                    io,
                    number,
                    max_streams,
                    requests.clone(),
                    commands.subscribe(),
                );
                open.fetch_add(1, Ordering::SeqCst);
                let open = Arc::clone(&open);
                tokio::spawn(async move {
                    serving.await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
                number += 1;
            }
        });
        (upstream, server)
    }
}

/// What a server's connection is made to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Command {
    /// GOAWAY; what is under way goes on.
    GoAway,
    /// The socket closes.
    Die,
    /// Nothing is read or written any more.
    Freeze,
}

/// All HTTP/2 connections of one bed.
pub(super) struct Server {
    requests: mpsc::UnboundedReceiver<Received>,
    commands: tokio::sync::broadcast::Sender<Command>,
    dialled: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

/// A request as the server has it.
pub(super) struct Received {
    /// The connection it came on, counted from zero.
    pub(super) connection: usize,
    pub(super) request: Request<RecvStream>,
    pub(super) respond: SendResponse<Bytes>,
}

impl Server {
    pub(super) async fn request(&mut self) -> Received {
        at_once(self.requests.recv()).await.expect("a request")
    }

    /// Tells every connection that exists now.
    pub(super) fn command(&self, command: Command) {
        // Without a connection there is nobody to tell.
        let _ = self.commands.send(command);
    }

    pub(super) fn dialled(&self) -> usize {
        self.dialled.load(Ordering::SeqCst)
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Answers every request with what was asked, until the test is over.
    pub(super) fn echo(mut self) -> tokio::sync::broadcast::Sender<Command> {
        let commands = self.commands.clone();
        tokio::spawn(async move {
            while let Some(received) = self.requests.recv().await {
                tokio::spawn(received.echo());
            }
        });
        commands
    }
}

impl Received {
    /// Answers 200; the body is up to the test.
    pub(super) fn answer(&mut self) -> h2::SendStream<Bytes> {
        self.respond
            .send_response(Response::new(()), false)
            .expect("the client listens")
    }

    pub(super) async fn echo(mut self) {
        let body = read_all(self.request.into_body()).await;
        // The client may have left.
        if let Ok(mut stream) = self.respond.send_response(Response::new(()), false) {
            let _ = stream.send_data(body.into(), true);
        }
    }

    /// Resolves with the reason for which the client reset the stream before an answer.
    pub(super) async fn reset(&mut self) -> Reason {
        at_once(std::future::poll_fn(|cx| self.respond.poll_reset(cx)))
            .await
            .expect("a reset")
    }
}

/// Resolves with the reason for which the client reset the stream of an answer.
pub(super) async fn reset(stream: &mut h2::SendStream<Bytes>) -> Reason {
    at_once(std::future::poll_fn(|cx| stream.poll_reset(cx)))
        .await
        .expect("a reset")
}

async fn serve(
    io: DuplexStream,
    number: usize,
    max_streams: u32,
    requests: mpsc::UnboundedSender<Received>,
    mut commands: tokio::sync::broadcast::Receiver<Command>,
) {
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(max_streams)
        .max_header_list_size(1 << 20)
        .initial_window_size(1 << 20)
        .handshake(io);
    let Ok(mut connection) = handshake.await else {
        return;
    };
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else {
                    return;
                };
                let received = Received { connection: number, request, respond };
                if requests.send(received).is_err() {
                    return;
                }
            }
            Ok(command) = commands.recv() => match command {
                Command::GoAway => connection.graceful_shutdown(),
                Command::Die => return,
                Command::Freeze => std::future::pending().await,
            },
        }
    }
}

pub(super) async fn read_all(mut body: RecvStream) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
        whole.extend_from_slice(&chunk);
    }
    whole
}

pub(super) fn request(method: Method, body: RequestBody) -> Request<RequestBody> {
    Request::builder()
        .method(method)
        .uri("/api/v1/pods?watch=true")
        .header("host", "api.example:6443")
        .header("authorization", "Bearer a.caller.token")
        .body(body)
        .expect("well-formed")
}

pub(super) fn get() -> Request<RequestBody> {
    request(Method::GET, RequestBody::empty())
}

pub(super) async fn send(
    upstream: &Upstream,
    request: Request<RequestBody>,
) -> Result<Response<UpstreamBody>> {
    at_once(upstream.send_request(request)).await
}

pub(super) async fn collect(response: Response<UpstreamBody>) -> Result<Bytes> {
    Ok(at_once(response.into_body().collect()).await?.to_bytes())
}

/// The caller's end of a request body. Dropped before [`finish`](Self::finish) it breaks off.
pub(super) struct Caller(DuplexStream);

impl Caller {
    /// A body that arrives as the test sends it.
    pub(super) async fn body() -> (Self, RequestBody) {
        let (mut caller, near) = duplex(PIPE);
        let (sender, receiver) = oneshot::channel();
        let sender = Mutex::new(Some(sender));
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let sender = sender.lock().expect("no panic").take();
                let _ = sender.expect("one request").send(request.into_body());
                std::future::pending::<Result<Response<String>>>()
            });
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(near), service)
                .await;
        });
        caller
            .write_all(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await
            .expect("open");
        let body = receiver.await.expect("a body");
        (Self(caller), RequestBody::new(body))
    }

    /// A body that is there as a whole.
    pub(super) async fn whole_body(content: &[u8]) -> (Self, RequestBody) {
        let (mut caller, body) = Self::body().await;
        caller.send(content).await;
        caller.finish("").await;
        (caller, body)
    }

    pub(super) async fn send(&mut self, chunk: &[u8]) {
        let framed = [
            format!("{:x}\r\n", chunk.len()).as_bytes(),
            chunk,
            b"\r\n".as_slice(),
        ]
        .concat();
        // The reader may have had enough.
        let _ = self.0.write_all(&framed).await;
    }

    pub(super) async fn finish(&mut self, trailers: &str) {
        let _ = self
            .0
            .write_all(format!("0\r\n{trailers}\r\n").as_bytes())
            .await;
    }
}

pub(super) async fn at_once<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(AT_ONCE, future)
        .await
        .expect("what should happen at once")
}
