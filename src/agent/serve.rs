//! Where an agent's streams come from: a relay, a listening socket, or any byte pipe with a tunnel inside.

use std::{pin::pin, sync::Arc, time::Duration};

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
};
use crate::{
    Error, ErrorKind, Result,
    net::{NetStream, TlsAcceptor},
    relay::{IncomingConnection, RelayListener},
    tunnel::{IncomingTunnelStream, Target, TunnelServer, mux},
};

/// How long requests and upgraded streams may go on after the agent was told to stop: what Kubernetes grants a pod.
pub(super) const DRAIN_LIMIT: Duration = Duration::from_secs(30);
/// The most tunnel connections at a time. One client keeps one; a relay hands a listener about as many.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// The pause after a failed `accept`, which fails again at once when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Agent {
    /// Serves every tunnel that comes in through `listener`, until `shutdown` is ready.
    ///
    /// Then the registration ends, and what is in flight has 30 seconds.
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
    ) -> Result<()> {
        let tunnels = Tunnels::new(Arc::clone(&self.core));
        let mut shutdown = pin!(shutdown);
        let result = loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break Ok(()),
                incoming = listener.accept() => match incoming {
                    Some(incoming) => tunnels.take_relayed(incoming),
                    None => break Err(Error::new(ErrorKind::Closed, "the relay listener has stopped")),
                },
            }
        };
        tokio::join!(listener.shutdown(), tunnels.drain());
        result
    }

    /// Serves every tunnel that is dialled to `listener`, with TLS when there is an `acceptor`, until `shutdown` is
    /// ready. Then what is in flight has 30 seconds.
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
    ) -> Result<()> {
        let tunnels = Tunnels::new(Arc::clone(&self.core));
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                accepted = listener.accept() => match accepted {
                    Ok((tcp, _)) => tunnels.take_direct(tcp, acceptor.clone()),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        tunnels.drain().await;
        Ok(())
    }

    /// Serves the tunnel inside one byte pipe, until it ends.
    ///
    /// # Cancel safety
    /// A dropped future aborts the tunnel and everything in it.
    pub async fn serve_connection<T>(&self, pipe: T)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        serve_tunnel(Arc::clone(&self.core), pipe, CancellationToken::new()).await;
    }
}

/// The tunnels of one listener.
struct Tunnels {
    core: Arc<Core>,
    tasks: TaskTracker,
    draining: CancellationToken,
    closing: CancellationToken,
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
        self.take(place, incoming.accept());
    }

    fn take_direct(&self, tcp: TcpStream, acceptor: Option<TlsAcceptor>) {
        // Without a place the connection is closed: there is no way yet to say why.
        let Some(place) = self.place() else {
            return;
        };
        self.take(place, async move {
            tcp.set_nodelay(true).map_err(|error| {
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
        connecting: impl Future<Output = Result<T>> + Send + 'static,
    ) where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let core = Arc::clone(&self.core);
        let (draining, closing) = (self.draining.clone(), self.closing.clone());
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
                    Ok(pipe) => serve_tunnel(core, pipe, draining.clone()).await,
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
            tracing::warn!(
                limit = MAX_CONNECTIONS,
                "a tunnel was refused: too many are open"
            );
        }
        place
    }

    async fn drain(&self) {
        self.draining.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn serve_tunnel<T>(core: Arc<Core>, pipe: T, draining: CancellationToken)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut server = TunnelServer::start(pipe, mux::Config::default());
    let scope = core.scope();
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
    server.go_away("the agent is shutting down");
    let drained = tokio::time::timeout(DRAIN_LIMIT, async {
        // What the client opened before it heard of the end still counts.
        while let Some(stream) = server.accept().await {
            take_stream(&core, &scope, &streams, stream);
        }
        streams.close();
        streams.wait().await;
    });
    if drained.await.is_err() {
        tracing::info!(
            streams = streams.len(),
            "streams are cut off: they did not end in time"
        );
    }
    server.close("the agent has shut down");
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
    streams.spawn(connection::serve(
        Arc::clone(core),
        scope.clone(),
        stream.accept(),
    ));
}

#[cfg(test)]
mod tests;
