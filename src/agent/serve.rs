//! Where an agent's streams come from: a relay, a listening socket, or any byte pipe with a tunnel inside.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};
use http::StatusCode;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    Agent, Core,
    connection::{self, Scope},
    health::Serving,
};
use crate::{
    Error, ErrorKind, Result,
    net::{self, NetStream, TlsAcceptor},
    relay::{IncomingConnection, ListenerState, RelayListener},
    tunnel::{IncomingTunnelStream, Target, TunnelServer, mux},
};

/// How long requests and upgraded streams may go on after the agent was told to stop, unless the agent was made with
/// another limit. Kubernetes grants a pod 30 s; signing off and the last audit events need some of them.
pub(super) const DRAIN_LIMIT: Duration = Duration::from_secs(25);
/// The most tunnel connections at a time. One client keeps one; a relay hands a listener about as many.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// The pause after a failed `accept`, which fails again at once when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long, after a tunnel's client was asked to open nothing new there, it may still do so: the request has to reach
/// it. One round trip over the relay, generously.
const LEAVE_NOTICE: Duration = Duration::from_secs(5);
/// How often a shutdown tells what it waits for.
const DRAIN_PROGRESS: Duration = Duration::from_secs(5);

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    cut_off: u64,
}

impl Drained {
    /// How many requests and upgraded streams were cut off because they outlasted the limit.
    pub fn cut_off(&self) -> u64 {
        self.cut_off
    }
}

impl Agent {
    /// Serves every tunnel that comes in through `listener`, until `shutdown` is ready.
    ///
    /// # Shutdown
    /// From then on the agent is [not ready](Self::serve_health). Its registration ends, so that the relay sends
    /// clients to other agents of the same hybrid connection, and only then are the clients of the open tunnels told
    /// to open nothing new in them. Requests and upgraded streams go on until they end, or until
    /// [`AgentBuilder::drain_limit`](super::AgentBuilder::drain_limit) has passed; what remains then is cut off.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] when the listener stops by itself. What a listener meets on its way to the relay is told
    /// by [`RelayListener::online`] and [`RelayListener::state`], and does not end this.
    ///
    /// # Cancel safety
    /// A dropped future ends the registration and aborts everything in flight.
    pub async fn serve_relay(
        &self,
        mut listener: RelayListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<Drained> {
        let tunnels = Tunnels::new(Arc::clone(&self.core));
        let name = listener.hybrid_connection().to_string();
        let serving = self.core.readiness.relay(name);
        let mut states = listener.states().fuse();
        let mut shutdown = pin!(shutdown);
        let mut upkeep = pin!(self.core.keep_front_proxy_headers());
        let result = loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break Ok(()),
                never = &mut upkeep => match never {},
                Some(state) = states.next() => self.note(&serving, &state),
                incoming = listener.accept() => match incoming {
                    Some(incoming) => tunnels.take_relayed(incoming),
                    None => break Err(Error::new(ErrorKind::Closed, "the relay listener has stopped")),
                },
            }
        };
        serving.set_draining();
        // Senders that the relay has announced already are served like those of the tunnels that are open.
        while let Some(Some(incoming)) = listener.accept().now_or_never() {
            tunnels.take_relayed(incoming);
        }
        // Before the tunnels' clients dial anew: the relay must not send them here again.
        listener.shutdown().await;
        let drained = tunnels.drain().await;
        result.map(|()| drained)
    }

    /// Serves every tunnel that is dialled to `listener`, with TLS when there is an `acceptor`, until `shutdown` is
    /// ready. Then the socket is closed, and the rest is as in [`serve_relay`](Self::serve_relay).
    ///
    /// # Errors
    /// None at present: a failed accept is logged and tried again.
    ///
    /// # Cancel safety
    /// A dropped future closes the socket and aborts everything in flight.
    pub async fn serve_direct(
        &self,
        listener: TcpListener,
        acceptor: Option<TlsAcceptor>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<Drained> {
        let tunnels = Tunnels::new(Arc::clone(&self.core));
        let name = match listener.local_addr() {
            Ok(address) => address.to_string(),
            Err(_) => "a socket".to_owned(),
        };
        let serving = self.core.readiness.socket(name);
        let mut shutdown = pin!(shutdown);
        let mut upkeep = pin!(self.core.keep_front_proxy_headers());
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                never = &mut upkeep => match never {},
                accepted = listener.accept() => match accepted {
                    Ok((tcp, remote)) => tunnels.take_direct(tcp, remote, acceptor.clone()),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        serving.set_draining();
        drop(listener);
        Ok(tunnels.drain().await)
    }

    /// Serves the tunnel inside one byte pipe, until it ends.
    ///
    /// # Cancel safety
    /// A dropped future aborts the tunnel and everything in it.
    pub async fn serve_connection<T>(&self, pipe: T)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        serve_tunnel(Arc::clone(&self.core), pipe, None, CancellationToken::new()).await;
    }

    fn note(&self, serving: &Serving, state: &ListenerState) {
        match state {
            ListenerState::Online => serving.set_online(),
            ListenerState::Connecting => serving.set_offline(None),
            ListenerState::Waiting { reason, .. } => {
                self.core.metrics.relay_offline(reason.kind());
                serving.set_offline(Some(reason));
            }
        }
    }
}

/// The tunnels of one listener.
struct Tunnels {
    core: Arc<Core>,
    tasks: TaskTracker,
    draining: CancellationToken,
    closing: CancellationToken,
    cut_off: Arc<AtomicU64>,
    _closed_on_drop: DropGuard,
}

impl Tunnels {
    fn new(core: Arc<Core>) -> Self {
        let closing = CancellationToken::new();
        Self {
            core,
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            _closed_on_drop: closing.clone().drop_guard(),
            closing,
            cut_off: Arc::default(),
        }
    }

    fn take_relayed(&self, incoming: IncomingConnection) {
        let Some(place) = self.place() else {
            self.tasks.spawn(async move {
                let refused = incoming
                    .reject(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "the agent serves as many tunnels as it may",
                    )
                    .await;
                if let Err(error) = refused {
                    tracing::debug!(error = %error.report(), "a tunnel could not be refused");
                }
            });
            return;
        };
        self.take(place, incoming.remote_address(), incoming.accept());
    }

    fn take_direct(&self, tcp: TcpStream, remote: SocketAddr, acceptor: Option<TlsAcceptor>) {
        // Without a place the connection is closed: there is no way yet to say why.
        let Some(place) = self.place() else {
            return;
        };
        self.take(place, Some(remote), async move {
            net::set_up_accepted(&tcp).map_err(|error| {
                Error::new(ErrorKind::Network, "the connection is gone").with_source(error)
            })?;
            match acceptor {
                Some(acceptor) => acceptor.accept(tcp).await,
                None => Ok(NetStream::plain(tcp)),
            }
        });
    }

    /// Serves the tunnel over whatever `connecting` yields.
    fn take<T>(
        &self,
        place: OwnedSemaphorePermit,
        remote: Option<SocketAddr>,
        connecting: impl Future<Output = Result<T>> + Send + 'static,
    ) where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let core = Arc::clone(&self.core);
        let (draining, closing) = (self.draining.clone(), self.closing.clone());
        let cut_off = Arc::clone(&self.cut_off);
        self.tasks.spawn(async move {
            let _place = place;
            let served = async {
                // Nothing is in flight on a connection that is not made yet.
                let pipe = tokio::select! {
                    biased;
                    () = draining.cancelled() => return,
                    pipe = connecting => pipe,
                };
                match pipe {
                    Ok(pipe) => {
                        let cut = serve_tunnel(core, pipe, remote, draining.clone()).await;
                        cut_off.fetch_add(cut, Ordering::Relaxed);
                    }
                    Err(error) => {
                        tracing::warn!(error = %error.report(), "a tunnel could not be accepted");
                    }
                }
            };
            tokio::select! {
                biased;
                () = closing.cancelled() => {}
                () = served => {}
            }
        });
    }

    fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.core.connections).try_acquire_owned().ok();
        if place.is_none() {
            self.core.metrics.tunnel_refused();
            tracing::warn!(
                limit = MAX_CONNECTIONS,
                "a tunnel was refused: too many are open"
            );
        }
        place
    }

    async fn drain(&self) -> Drained {
        self.draining.cancel();
        self.tasks.close();
        tokio::select! {
            biased;
            () = self.tasks.wait() => {}
            () = self.tell_progress() => {}
        }
        Drained {
            cut_off: self.cut_off.load(Ordering::Relaxed),
        }
    }

    async fn tell_progress(&self) {
        loop {
            tracing::info!(
                tunnels = self.tasks.len(),
                requests = self.core.metrics.in_flight(),
                upgraded = self.core.metrics.upgraded(),
                limit = ?self.core.drain_limit,
                "shutting down: waiting for what is in flight"
            );
            tokio::time::sleep(DRAIN_PROGRESS).await;
        }
    }
}

/// Serves one tunnel to its end, or to the drain limit. The number of streams that were cut off then.
async fn serve_tunnel<T>(
    core: Arc<Core>,
    pipe: T,
    remote: Option<SocketAddr>,
    draining: CancellationToken,
) -> u64
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _live = LiveTunnel::new(&core);
    let mut server = TunnelServer::start(pipe, mux::Config::default());
    let scope = core.scope(remote);
    let streams = TaskTracker::new();
    let _closed_on_drop = scope.closing.clone().drop_guard();
    loop {
        tokio::select! {
            biased;
            () = draining.cancelled() => break,
            stream = server.accept() => match stream {
                Some(stream) => take_stream(&core, &scope, &streams, stream),
                None => break,
            },
        }
    }
    server.announce_go_away("the agent is shutting down");
    let notice = tokio::time::sleep(LEAVE_NOTICE);
    let drained = tokio::time::timeout(core.drain_limit, async {
        let mut notice = pin!(notice);
        loop {
            tokio::select! {
                biased;
                // What the client opened before it heard of the end still counts.
                stream = server.accept() => match stream {
                    Some(stream) => take_stream(&core, &scope, &streams, stream),
                    // As soon as its last stream has ended, a client that was asked leaves by itself.
                    None => break,
                },
                () = &mut notice, if !notice.is_elapsed() => {
                    server.go_away("the agent is shutting down");
                }
            }
        }
        streams.close();
        streams.wait().await;
    });
    let mut cut = 0;
    if drained.await.is_err() {
        cut = streams.len() as u64;
        core.metrics.drain_cut(cut);
        tracing::warn!(
            streams = cut,
            limit = ?core.drain_limit,
            "streams are cut off: they did not end in time"
        );
        // Their last words, to the audit log, come before the agent has stopped.
        scope.closing.cancel();
        streams.close();
        streams.wait().await;
    }
    server.close("the agent has shut down");
    cut
}

/// Counts a tunnel for as long as it lasts.
struct LiveTunnel<'a>(&'a Core);

impl<'a> LiveTunnel<'a> {
    fn new(core: &'a Core) -> Self {
        core.metrics.tunnel_started();
        Self(core)
    }
}

impl Drop for LiveTunnel<'_> {
    fn drop(&mut self) {
        self.0.metrics.tunnel_ended();
    }
}

fn take_stream(
    core: &Arc<Core>,
    scope: &Scope,
    streams: &TaskTracker,
    stream: IncomingTunnelStream,
) {
    if *stream.target() != Target::api_server() {
        tracing::info!(target = %stream.target(), "a stream to an unknown target was refused");
        stream.refuse();
        return;
    }
    let stream = stream.accept();
    let left = stream.aborted();
    streams.spawn(connection::serve(
        Arc::clone(core),
        scope.clone(),
        stream,
        left,
    ));
}

#[cfg(test)]
mod tests;
