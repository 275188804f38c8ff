//! [`TunnelServer`]: the serving side of a tunnel.

use std::{fmt, str, sync::Arc};

use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{Instrument, debug, info_span};

use super::{
    Refusal, Target, TunnelStream,
    mux::{self, Incoming, IncomingStream, Role, Session},
};
use crate::{Error, telemetry};

/// Accepts the streams that a tunnel's client opens on one byte pipe.
///
/// Dropping it takes no further streams; those that were accepted go on to their end.
///
/// ```
/// use arc_cluster_connect::tunnel::{TunnelServer, mux};
/// use tokio::io::{AsyncRead, AsyncWrite, copy, split};
///
/// /// Serves one target, `echo`.
/// async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
///     let mut server = TunnelServer::start(io, mux::Config::default());
///     while let Some(stream) = server.accept().await {
///         if stream.target().as_str() != "echo" {
///             stream.refuse();
///             continue;
///         }
///         let (mut reader, mut writer) = split(stream.accept());
///         tokio::spawn(async move { copy(&mut reader, &mut writer).await });
///     }
/// }
/// ```
pub struct TunnelServer {
    session: Session,
    incoming: Incoming,
}

impl TunnelServer {
    /// Starts to serve `io`, with a task of its own on the current tokio runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        config: mux::Config,
    ) -> Self {
        let (session, incoming, driver) = mux::start(io, Role::Server, config);
        tokio::spawn(
            async move {
                match driver.await {
                    Ok(()) => debug!("connection ended"),
                    Err(error) => debug!(reason = %error.report(), "connection ended"),
                }
            }
            .instrument(info_span!(telemetry::SPAN_TUNNEL)),
        );
        Self { session, incoming }
    }

    /// The next stream; `None` once the connection has ended.
    ///
    /// A stream whose target has no valid name is refused with [`Refusal::BadName`] and never shows here.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future loses no stream.
    pub async fn accept(&mut self) -> Option<IncomingTunnelStream> {
        loop {
            let stream = self.incoming.accept().await?;
            let name = str::from_utf8(stream.metadata()).ok();
            match name.and_then(|name| Target::new(name).ok()) {
                Some(target) => return Some(IncomingTunnelStream { target, stream }),
                None => stream.refuse(Refusal::BadName.code()),
            }
        }
    }

    /// Asks the client to open no new streams here, and takes those that it opens until it has heard of it. Comes
    /// before [`go_away`](Self::go_away) where no stream may fail.
    pub fn announce_go_away(&self, reason: &str) {
        self.session.announce_go_away(reason);
    }

    /// Takes no new streams. The connection ends with the last live one.
    pub fn go_away(&self, reason: &str) {
        self.session.go_away(reason);
    }

    /// Ends the connection now, and every stream with it.
    pub fn close(&self, reason: &str) {
        self.session.close(reason);
    }

    /// Resolves when the connection has ended, with the reason.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn closed(&self) -> Arc<Error> {
        self.session.closed().await
    }
}

impl Drop for TunnelServer {
    fn drop(&mut self) {
        self.session.go_away("the server has stopped");
    }
}

impl fmt::Debug for TunnelServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelServer").finish_non_exhaustive()
    }
}

/// A stream that a client opened and nobody has answered yet. Dropped unanswered, it is refused.
pub struct IncomingTunnelStream {
    target: Target,
    stream: IncomingStream,
}

impl IncomingTunnelStream {
    /// What the client wants to be connected to.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Takes the stream.
    pub fn accept(self) -> TunnelStream {
        TunnelStream::from(self.stream.into_stream())
    }

    /// Refuses the stream with [`Refusal::UnknownTarget`].
    pub fn refuse(self) {
        self.stream.refuse(Refusal::UnknownTarget.code());
    }
}

impl fmt::Debug for IncomingTunnelStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingTunnelStream")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
