//! Azure Relay Hybrid Connections: rendezvous of two parties that both dial out.
//!
//! ```text
//!  RelayListener ──(1) listen: a control channel that stays──► relay
//!  RelaySender   ──(2) connect: the answer is held──────────► relay
//!                       relay ──(3) "accept", with an address──► RelayListener
//!  IncomingConnection::accept ──(4) dials that address──────► relay
//!                       relay ──(5) answers both: from now on messages pass between them
//!  RelayStream ◄════════════════════════════════════════════► RelayStream
//! ```
//!
//! Each arrow is a WebSocket, dialled outwards, so neither party needs an open port. To the layers above a
//! [`RelayStream`] is a byte stream: nothing depends on where its messages begin and end.
//!
//! A party shows the relay a [`RelayCredential`]. A [`ConnectionString`] holds one together with the address, as the
//! Azure portal gives it out. Where there is no Azure, `server` is a relay of one's own.
//!
//! The protocol is Microsoft's *Hybrid Connections protocol* with what is known of the service beyond that guide. This
//! code has met the embedded relay and foreign clients, and never the live service.

mod address;
mod connection_string;
mod control;
mod credential;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod handshake;
mod incoming;
mod keep_alive;
mod listener;
mod listener_options;
mod registration;
mod rendezvous;
#[cfg_attr(
    not(feature = "relay-server"),
    allow(dead_code, reason = "its server half serves the embedded relay")
)]
mod sas;
mod sender;
#[cfg(feature = "relay-server")]
pub mod server;
mod status;
mod stream;
#[cfg_attr(
    not(feature = "relay-server"),
    allow(dead_code, reason = "its server half serves the embedded relay")
)]
mod websocket;

#[cfg(test)]
mod tests;

pub use address::HybridConnection;
pub use connection_string::ConnectionString;
pub use credential::{RelayCredential, RelayGrant, RelayToken, RelayTokenSource};
pub use incoming::IncomingConnection;
pub use listener::RelayListener;
pub use listener_options::ListenerOptions;
pub use sas::SasRule;
pub use sender::RelaySender;
pub use status::{ListenerState, ListenerStates};
pub use stream::RelayStream;
