//! Azure Relay Hybrid Connections: rendezvous of two parties that both dial out.

#[cfg(feature = "relay-server")]
pub mod server;
mod websocket;
