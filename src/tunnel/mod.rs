//! A way to the cluster that carries many streams.
//!
//! | | dials through | |
//! |---|---|---|
//! | [`RelayTunnel`] | an Azure Relay hybrid connection | the agent needs no inbound connection |
//! | [`ClusterConnect`] | the relay that Azure Resource Manager names for a cluster | as Azure Arc has it |
//! | [`DirectTunnel`] | TCP, with or without TLS | the agent can be reached |
//! | [`BridgeTunnel`] | an Azure Relay hybrid connection, once for each stream | an Azure Relay Bridge listens there, no agent; experimental |
//! | [`TunnelServer`] | nothing: it serves a byte pipe | the agent's side of both |
//!
//! All but [`BridgeTunnel`] speak the same [multiplexer](mux). [`TunnelConnector`] runs an HTTP client over any of them,
//! and anybody can implement [`Tunnel`].

pub mod mux;

mod bridge;
mod cluster_connect;
mod connector;
mod direct;
#[cfg(feature = "kube")]
mod kube_client;
mod refusal;
mod relay;
mod rewind;
mod server;
#[cfg(any(feature = "agent", feature = "proxy"))]
mod splice;
mod status;
mod stream;
mod supervise;
mod target;

use async_trait::async_trait;

#[cfg(fuzzing)]
pub use bridge::fuzzing as bridge_fuzzing;
pub use bridge::{BridgePort, BridgeTunnel};
pub use cluster_connect::{ClusterConnect, ClusterConnectBuilder, Preflight};
pub use connector::TunnelConnector;
pub use direct::DirectTunnel;
#[cfg(feature = "kube")]
pub use kube_client::kube_client;
pub use refusal::Refusal;
pub use relay::RelayTunnel;
pub(crate) use rewind::Rewind;
pub use server::{IncomingTunnelStream, TunnelServer};
#[cfg(test)]
pub(crate) use splice::LINGER_LIMIT;
#[cfg(any(feature = "agent", feature = "proxy"))]
pub(crate) use splice::splice;
pub use status::{CredentialStatus, StateStream, TunnelState, TunnelStatus};
pub use stream::TunnelStream;
pub use target::{OpenOptions, Target};

use crate::Result;

/// A way to a cluster. Object safe: `Arc<dyn Tunnel>` is the usual form.
///
/// # The tunnels of this crate
/// They dial when the first stream is opened, from a background task on that call's tokio runtime. Openings that find
/// no connection share one dial, which counts as done when the agent has spoken. A connection that was lost is dialled
/// again by itself after 0, 1, 2, 5, 10 and then every 30 seconds, plus up to a quarter of jitter; an opening does not
/// wait for that but asks for a dial now, though not more often than once a second. Streams on an earlier connection
/// are never cut by a new one. What the far end does with a target's name shows on the stream, not on the opening,
/// because opening costs no round trip. [`BridgeTunnel`] has a connection for each stream, and says how it differs.
///
/// # Implementing it
/// Anything that yields byte pipes can be a tunnel:
///
/// ```
/// use std::sync::Arc;
///
/// use arc_cluster_connect::{
///     Result, Tunnel,
///     tunnel::{OpenOptions, StateStream, Target, TunnelState, TunnelStatus, TunnelStream},
/// };
/// use async_trait::async_trait;
/// use tokio::net::TcpStream;
///
/// /// Everything goes to one TCP port, a connection per stream.
/// struct PortTunnel {
///     address: String,
/// }
///
/// #[async_trait]
/// impl Tunnel for PortTunnel {
///     async fn open(&self, _: &Target, _: OpenOptions) -> Result<TunnelStream> {
///         let connect = TcpStream::connect(&self.address).await;
///         let tcp = connect.map_err(|error| {
///             arc_cluster_connect::Error::new(
///                 arc_cluster_connect::ErrorKind::Network,
///                 format!("can not connect to {}", self.address),
///             )
///             .with_source(error)
///         })?;
///         Ok(TunnelStream::from_io(tcp))
///     }
///
///     fn status(&self) -> TunnelStatus {
///         TunnelStatus::new(TunnelState::Connected, &self.address)
///     }
///
///     fn states(&self) -> StateStream {
///         StateStream::new(futures_util::stream::iter([TunnelState::Connected]))
///     }
///
///     async fn shutdown(&self) -> Result<()> {
///         Ok(())
///     }
/// }
///
/// let tunnel: Arc<dyn Tunnel> = Arc::new(PortTunnel { address: "127.0.0.1:6443".into() });
/// assert!(matches!(tunnel.status().state, TunnelState::Connected));
/// ```
#[async_trait]
pub trait Tunnel: Send + Sync {
    /// Opens a stream to `target`, dialling first where no connection stands.
    ///
    /// # Errors
    /// What kept the tunnel from being dialled: at once when it will not pass by itself (a wrong key), else when the
    /// wait limit of `options`, 15 seconds without one, is over. [`ErrorKind::Closed`](crate::ErrorKind::Closed) after
    /// [`shutdown`](Self::shutdown).
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future opens no stream.
    async fn open(&self, target: &Target, options: OpenOptions) -> Result<TunnelStream>;

    /// What the tunnel is doing right now.
    fn status(&self) -> TunnelStatus;

    /// The present state and every change from now on, for a user interface.
    fn states(&self) -> StateStream;

    /// Takes no new streams, waits for the live ones within a limit (30 seconds in the tunnels of this crate), closes.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) when the limit was reached and live streams were cut. The
    /// tunnel is closed all the same.
    ///
    /// # Cancel safety
    /// A dropped future does not stop the shutdown. Calling it again waits for the same end.
    async fn shutdown(&self) -> Result<()>;
}

const _: () = {
    const fn is_send_and_sync<T: Send + Sync + ?Sized>() {}
    const fn is_unpin_send_and_static<T: Unpin + Send + 'static>() {}
    is_send_and_sync::<dyn Tunnel>();
    is_send_and_sync::<RelayTunnel>();
    is_send_and_sync::<ClusterConnect>();
    is_send_and_sync::<DirectTunnel>();
    is_send_and_sync::<BridgeTunnel>();
    is_send_and_sync::<TunnelConnector>();
    is_send_and_sync::<TunnelServer>();
    is_unpin_send_and_static::<TunnelStream>();
    is_unpin_send_and_static::<StateStream>();
};
