//! Through the embedded relay to a stand-in for the listener of the Azure Relay Bridge, sockets and all.

mod support;

#[path = "bridge/bed.rs"]
mod bed;
#[path = "bridge/kubernetes.rs"]
mod kubernetes;
#[path = "bridge/listener.rs"]
mod listener;
#[path = "bridge/streams.rs"]
mod streams;
