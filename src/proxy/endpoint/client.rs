//! [`Client`]: who is at the other end of a connection.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use super::gate::Door;

pub(super) struct Client {
    door: Door,
    address: Option<SocketAddr>,
    /// Whether the connection has shown the secret once.
    proven: AtomicBool,
}

impl Client {
    pub(super) fn at_port(address: SocketAddr) -> Self {
        Self {
            door: Door::Port,
            address: Some(address),
            proven: AtomicBool::new(false),
        }
    }

    #[cfg(unix)]
    pub(super) fn at_unix_socket() -> Self {
        Self {
            door: Door::UnixSocket,
            address: None,
            proven: AtomicBool::new(true),
        }
    }

    pub(super) fn door(&self) -> Door {
        self.door
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    pub(super) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }
}
