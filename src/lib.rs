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

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
