//! An embedded relay: Azure Relay Hybrid Connections without Azure.
//!
//! It speaks the protocol as Microsoft's own clients expect it, for tests, for development on one machine, and for
//! networks that Azure does not reach.
//!
//! ```text
//!  listener ──listen──► ControlChannel ◄──── accept message ───┐
//!                                                              │
//!  sender ──connect──► held, in the RendezvousTable ───────────┘
//!                                  ▲
//!  listener ──accept dial──────────┘     both get their 101, and a bridge between them
//!
//!  sender ──HTTP request──► held ──request message──► ControlChannel ──response message──► sender
//!                            │  too long for a message?
//!                            └─ a rendezvous as above, that carries request, response or both
//! ```
//!
//! With an [`Emulation`] it is as slow as Azure's, and cuts what is idle.
//!
//! An HTTP connection carries one request: keeping it would only save the next handshake. Bodies up to 64 KiB are in
//! memory, longer ones pass in pieces; a listener has 60 s to answer, and 60 s for each next piece.

mod accept_message;
mod attempts;
mod authorization;
mod body;
mod bridge;
mod builder;
mod carrier;
mod connect;
mod connection;
mod context;
mod control;
mod dispatch;
mod emulation;
mod entity;
mod entity_options;
mod exchanges;
mod farewell;
mod forward;
#[cfg(any(fuzzing, test))]
mod fuzzing;
mod handshake;
mod health;
mod http_headers;
mod listen;
mod liveness;
mod metrics;
mod newcomers;
mod refusal;
mod rendezvous;
mod request_message;
mod response_message;
mod rights;
mod route;
mod service;
mod token;
mod warning_limit;

pub use builder::RelayServerBuilder;
pub use emulation::Emulation;
pub use entity_options::EntityOptions;
pub use rights::Rights;
pub use token::EntraIssuer;

#[cfg(any(fuzzing, test))]
pub(super) use self::{
    fuzzing::upgrade_request as fuzz_upgrade_request, response_message::fuzz as fuzz_response,
};

use refusal::Refusal;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_util::sync::DropGuard;

use crate::{
    Error, ErrorKind, Result,
    net::{self, Endpoint, NetStream, Security, TlsAcceptor},
    relay::HybridConnection,
};
use newcomers::Admission;
use service::Relay;
use warning_limit::{Verdict, WarningLimit};

/// A running relay. Dropping it ends it at once; [`RelayServer::shutdown`] ends it in good order.
///
/// ```
/// use arc_cluster_connect::relay::{ConnectionString, SasRule, server::{RelayServer, Rights}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let relay = RelayServer::builder()
///     .hybrid_connection("clusters/east")
///     .rule(SasRule::new("root", "an-example-key")?, Rights::LISTEN | Rights::SEND)
///     .start(socket)?;
/// let text = relay.connection_string("root", "clusters/east")?;
/// assert_eq!(ConnectionString::parse(&text)?.entity_path(), Some("clusters/east"));
/// relay.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub struct RelayServer {
    relay: Arc<Relay>,
    endpoint: Endpoint,
    _kill_on_drop: DropGuard,
}

/// How long connections have to end after [`RelayServer::shutdown`] told them to.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// After a failed accept: the usual cause, no file descriptor left, passes, but not within microseconds.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl RelayServer {
    /// A relay with nothing in it yet.
    pub fn builder() -> RelayServerBuilder {
        RelayServerBuilder::new()
    }

    /// Where the relay listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.relay.local_addr
    }

    /// Where clients find the relay.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// A connection string for the hybrid connection `path` under the rule `rule_name`. It holds the rule's key.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the relay has no such rule or hybrid connection.
    pub fn connection_string(&self, rule_name: &str, path: &str) -> Result<String> {
        let rule = self.relay.rules.find(rule_name).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("the relay has no rule '{rule_name}'"),
            )
        })?;
        let hybrid_connection = HybridConnection::new(self.endpoint.clone(), path)?;
        if !self.relay.entities.contains(hybrid_connection.path()) {
            return Err(no_entity(path));
        }
        let scheme = match self.endpoint.security() {
            Security::Plain => "ws",
            Security::Tls => "sb",
        };
        Ok(format!(
            "Endpoint={scheme}://{}/;SharedAccessKeyName={};SharedAccessKey={};EntityPath={}",
            self.endpoint.authority(),
            rule.name(),
            rule.key(),
            hybrid_connection.path()
        ))
    }

    /// Cuts the oldest control channel of each hybrid connection with 1011 `NameRenewalFailed`, as Azure does to each
    /// every 24 hours. For tests of what listens. Relayed connections go on.
    pub fn recycle(&self) {
        for entity in self.relay.entities.iter() {
            if let Some(oldest) = entity.listeners_now().first() {
                oldest.recycle.cancel();
            }
        }
    }

    /// Removes the hybrid connection `path`, as if it was deleted or disabled on Azure: its control channels and relayed
    /// connections are closed with 1001, and from then on it is as one that never was. There is no way back.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the relay has no such hybrid connection.
    pub fn remove(&self, path: &str) -> Result<()> {
        let entity = self
            .relay
            .entities
            .named(path)
            .ok_or_else(|| no_entity(path))?;
        entity.remove();
        Ok(())
    }

    /// How many control channels the hybrid connection `path` has; none if there is no such one.
    pub fn listeners(&self, path: &str) -> usize {
        let entity = self.relay.entities.named(path);
        entity.map_or(0, |entity| entity.listeners_now().len())
    }

    /// Ends the relay: no new connections, control channels and relayed connections are closed with 1001, and the port
    /// is free when this returns. Takes seconds at most, even if a peer does not answer.
    ///
    /// # Cancel safety
    /// A dropped call ends everything at once.
    pub async fn shutdown(self) {
        self.relay.shutdown.cancel();
        self.relay.tasks.close();
        if tokio::time::timeout(SHUTDOWN_WAIT, self.relay.tasks.wait())
            .await
            .is_err()
        {
            self.relay.kill.cancel();
            self.relay.tasks.wait().await;
        }
    }

    fn spawn(
        relay: Arc<Relay>,
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        endpoint: Endpoint,
    ) -> Self {
        relay.spawn(accept_connections(Arc::clone(&relay), listener, tls));
        Self {
            _kill_on_drop: relay.kill.clone().drop_guard(),
            relay,
            endpoint,
        }
    }
}

impl fmt::Debug for RelayServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayServer")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

fn no_entity(path: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("the relay has no hybrid connection '{path}'"),
    )
}

async fn accept_connections(relay: Arc<Relay>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    let mut warnings = WarningLimit::default();
    let mut warn = |problem: &dyn fmt::Display| {
        if let Verdict::Log { suppressed } = warnings.judge(Instant::now()) {
            tracing::warn!(%problem, suppressed, "can not take every connection");
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = relay.shutdown.cancelled() => return,
        };
        let (tcp, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(admission) = relay.newcomers.admit() else {
            warn(&"the limit of connections is reached");
            continue;
        };
        if let Admission::Evicting(_) = admission {
            warn(&"too many connections have sent no request: the oldest of them is closed");
        }
        let place = admission.into_place();
        let (task, tls) = (Arc::clone(&relay), tls.clone());
        relay.spawn(async move {
            let secured = tokio::select! {
                secured = secure(tcp, tls) => secured,
                () = place.evicted() => return,
            };
            match secured {
                Ok(stream) => connection::serve(task, stream, remote, place).await,
                Err(error) => tracing::debug!(%remote, error = error.report(), "no TLS"),
            }
        });
    }
}

async fn secure(tcp: TcpStream, tls: Option<TlsAcceptor>) -> Result<NetStream> {
    // Messages are passed on as they come; gathering them is up to their senders. A socket that refuses the option
    // works all the same.
    let _ = net::set_up_accepted(&tcp);
    match tls {
        Some(acceptor) => acceptor.accept(tcp).await,
        None => Ok(NetStream::plain(tcp)),
    }
}

#[cfg(test)]
mod tests;
