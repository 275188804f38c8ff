//! A way to the cluster that carries many streams.

pub mod mux;

mod status;
mod stream;
mod target;

use async_trait::async_trait;

pub use status::{StateStream, TunnelState, TunnelStatus};
pub use stream::TunnelStream;
pub use target::{OpenOptions, Target};

use crate::Result;

/// A way to a cluster. Object safe: `Arc<dyn Tunnel>` is the usual form.
#[async_trait]
pub trait Tunnel: Send + Sync {
    /// Opens a stream to `target`, dialling first where no connection stands.
    ///
    /// # Errors
    /// What kept the tunnel from being dialled, or [`ErrorKind::Closed`](crate::ErrorKind::Closed) after
    /// [`shutdown`](Self::shutdown).
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future opens no stream.
    async fn open(&self, target: &Target, options: OpenOptions) -> Result<TunnelStream>;

    /// What the tunnel is doing right now.
    fn status(&self) -> TunnelStatus;

    /// The present state and every change from now on, for a user interface.
    fn states(&self) -> StateStream;

    /// Takes no new streams, waits for the live ones within a limit, closes.
    async fn shutdown(&self) -> Result<()>;
}
