//! Azure Relay Hybrid Connections: rendezvous of two parties that both dial out.

mod address;
mod connection_string;
mod credential;
mod sas;
#[cfg(feature = "relay-server")]
pub mod server;
mod websocket;

pub use address::HybridConnection;
pub use connection_string::ConnectionString;
pub use credential::{RelayCredential, RelayToken};
pub use sas::SasRule;
