//! Reach the API server of a Kubernetes cluster that accepts **no inbound connection**.
//!
//! An agent beside the cluster dials out to a relay; a client dials the same relay; between them one multiplexed
//! tunnel carries Kubernetes API traffic under the caller's own identity. It is what Azure Arc calls *Cluster
//! Connect*, as a library.
//!
//! ```text
//!  kubectl, helm, k9s        any Rust program
//!         │ https, loopback        │ hyper, raw stream
//!         ▼                        ▼
//!  ┌─ proxy ──────────┐   ┌─ tunnel::TunnelConnector ─┐    auth: who is calling
//!  └──────────┬───────┘   └──────────┬────────────────┘    arm:  where is the cluster
//!             └──────► tunnel ◄──────┘                     kubeconfig: how tools find us
//!                        │  streams
//!                   tunnel::mux      (sans-IO core + driver)
//!                        │  bytes
//!                 relay::RelaySender ──wss──► Azure Relay ◄──wss── relay::RelayListener
//!                                             or relay::server         │
//!                                                                     mux
//!                                                                      │ streams
//!                                              agent: authenticate ► forward
//!                                                                      │ https
//!                                                                kube-apiserver
//! ```
//!
//! # Where to begin
//! | | |
//! |---|---|
//! | [`guide::concepts`] | the parts and their names; the three seams |
//! | [`guide::paved_path`] | from nothing to a program, by the shortest way |
//! | [`guide::security`] | who is trusted with what |
//! | [`guide::features`] | what can be left out, and tests without Azure |
//! | [`guide::troubleshooting`] | when it does not work |
//!
//! The repository's `examples/` begin at ten lines, with one idea each.

#![warn(missing_docs)]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
compile_error!(
    "arc-cluster-connect needs a cryptography provider: turn on feature `ring` or `aws-lc-rs`"
);

#[cfg(feature = "agent")]
pub mod agent;
pub mod arm;
pub mod auth;
pub mod kubeconfig;
pub mod net;
#[cfg(feature = "proxy")]
pub mod proxy;
pub mod relay;
pub mod telemetry;
pub mod tunnel;

mod clock;
mod crypto;
mod error;

pub use auth::AuthProvider;
pub use error::{Error, ErrorKind, Result};
pub use kubeconfig::KubeconfigBuilder;
pub use tunnel::{ClusterConnect, Tunnel};

/// The guide: how to think of this crate, and how to use it.
///
/// Only documentation is in here.
#[cfg(any(doc, doctest))]
pub mod guide {
    #[doc = include_str!("../docs/guide/concepts.md")]
    pub mod concepts {}
    #[doc = include_str!("../docs/guide/paved_path.md")]
    pub mod paved_path {}
    #[doc = include_str!("../docs/guide/security.md")]
    pub mod security {}
    #[doc = include_str!("../docs/guide/features.md")]
    pub mod features {}
    #[doc = include_str!("../docs/guide/troubleshooting.md")]
    pub mod troubleshooting {}
}

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
