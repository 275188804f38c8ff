//! A stand-in Kubernetes API server: enough of the real one for an unmodified `kubectl`, in this process, on loopback.
//!
//! It behaves like the real server where a proxy or a tunnel in front of it can notice: HTTP/2 and HTTP/1.1 by ALPN,
//! bearer tokens, impersonation, `Status` errors, `Audit-Id` and `Warning` headers, watches that are flushed event by
//! event, logs that are flushed line by line, exec and attach over WebSocket and SPDY, port-forward over SPDY and over
//! SPDY in WebSocket, GOAWAY. Where a proxy can not notice, it is small: objects live in a map, there is no admission,
//! no scheduler, no kubelet. `limit` on lists is ignored, as the API allows.
//!
//! Commands run in a pod are **real processes of this machine** with the pod's temporary directory as their working
//! directory. Whoever holds a token can therefore run programs as the user of this process: use unguessable tokens
//! ([`random_token`]) in anything that outlives a test.
//!
//! The folder stands alone: a test or an example takes it in with `#[path]`.

// Each user of this folder takes a part of it; the rest is not dead, only unused in that one binary.
#![allow(dead_code, unused_imports)]

mod accept;
mod authentication;
mod certificate;
mod cork;
mod discovery;
mod faults;
mod handler;
mod impersonation;
mod kubeconfig;
mod kubelet;
mod list;
mod listener;
mod logs;
mod object;
mod patch;
mod pod_directory;
mod port_channels;
mod port_forward;
mod process;
mod protobuf;
mod query;
mod remote_command;
mod request_body;
mod request_log;
mod resource;
mod resource_path;
mod response;
mod review;
mod seed;
mod selector;
mod server;
mod spdy;
mod status;
mod store;
mod table;
mod terminal;
mod upgrade;
mod user;
mod watch;
mod websocket;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_cluster_connect::net::{Alpn, TlsAcceptor};
use serde_json::Value;
use tokio::net::TcpListener;

pub use authentication::random_token;
pub use certificate::Authority;
pub use faults::{Faults, ListFault, LogFollow, UpgradeAnswer};
pub use impersonation::ImpersonationRights;
pub use port_forward::{ECHO_PORT, HTTP_PORT};
pub use request_log::RecordedRequest;
pub use upgrade::ECHO_PATH;
pub use user::{Access, User};

use authentication::Identities;
use server::Server;

/// How long [`StandIn::shutdown`] waits for requests under way. Longer than any bounded answer of the stand-in takes.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// How many pods the namespace `big` lists unless told: a few megabytes, so that a list crosses every buffer on its way.
const BIG_NAMESPACE_PODS: usize = 5_000;

/// A running stand-in API server. Dropping it is [`kill`](Self::kill).
pub struct StandIn {
    server: Arc<Server>,
    authority: Authority,
    address: SocketAddr,
}

impl StandIn {
    /// A server to be set up.
    pub fn builder() -> StandInBuilder {
        StandInBuilder {
            port: 0,
            authority: None,
            identities: Identities::default(),
            pods: Vec::new(),
            big_namespace_pods: BIG_NAMESPACE_PODS,
        }
    }

    /// The loopback address that it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate authority of its certificate, as PEM.
    pub fn ca_pem(&self) -> &str {
        self.authority.ca_pem()
    }

    /// Certificate and key, to start a later stand-in that clients of this one go on trusting.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A kubeconfig (YAML) with server and CA, and the bearer token when one is given. Without one it is what an agent
    /// is given: where the cluster is, and no credential.
    pub fn kubeconfig(&self, token: Option<&str>) -> String {
        kubeconfig::yaml(self.address, self.ca_pem(), token)
    }

    /// The requests received so far, oldest first; at most the last [`request_log::MAX_RECORDED`].
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.server.requests.all()
    }

    /// How many requests are under way now: answer not yet wholly sent, or upgraded and not yet closed.
    pub fn live_requests(&self) -> usize {
        self.server.requests.live()
    }

    /// What it is made to do wrong.
    pub fn faults(&self) -> &Faults {
        &self.server.faults
    }

    /// Ends gracefully: no new connections, GOAWAY on the live ones, requests under way get a few seconds.
    pub async fn shutdown(self) {
        self.server.drain.cancel();
        self.server.tasks.close();
        // Whoever is still there after the limit is cut off by the drop.
        let _ = tokio::time::timeout(SHUTDOWN_LIMIT, self.server.tasks.wait()).await;
    }

    /// Ends as a killed process does: every socket is closed at once, in the middle of whatever it was sending.
    /// Returns when that has happened, so that the port can be taken again.
    pub async fn kill(self) {
        self.server.stop.cancel();
        self.server.tasks.close();
        self.server.tasks.wait().await;
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.stop.cancel();
    }
}

/// Sets a [`StandIn`] up.
pub struct StandInBuilder {
    port: u16,
    authority: Option<Authority>,
    identities: Identities,
    pods: Vec<(String, String)>,
    big_namespace_pods: usize,
}

impl StandInBuilder {
    /// Accepts a bearer token as this user's.
    pub fn token(self, token: impl Into<String>, user: User) -> Self {
        self.identities.add_token(token.into(), user, None);
        self
    }

    /// Lets a user, by name, impersonate others. Without it an `Impersonate-User` is a 403.
    pub fn impersonator(mut self, user: impl Into<String>, rights: ImpersonationRights) -> Self {
        self.identities.add_impersonator(user.into(), rights);
        self
    }

    /// What a user, by name, may do. Without a binding: everything, unless [`unbound`](Self::unbound) says otherwise.
    pub fn access(mut self, user: impl Into<String>, access: Access) -> Self {
        self.identities.set_access(user.into(), access);
        self
    }

    /// What the members of a group may do.
    pub fn group_access(mut self, group: impl Into<String>, access: Access) -> Self {
        self.identities.set_group_access(group.into(), access);
        self
    }

    /// What users may do who are bound neither by name nor by group.
    pub fn unbound(mut self, access: Access) -> Self {
        self.identities.set_unbound_access(access);
        self
    }

    /// Adds a running pod; its namespace is made when needed.
    pub fn pod(mut self, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        self.pods.push((namespace.into(), name.into()));
        self
    }

    /// How many pods the namespace `big` lists.
    pub fn big_namespace_pods(mut self, count: usize) -> Self {
        self.big_namespace_pods = count;
        self
    }

    /// Serves this port instead of any free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Serves with the certificate of an earlier stand-in.
    pub fn authority(mut self, authority: Authority) -> Self {
        self.authority = Some(authority);
        self
    }

    /// Starts serving, on the current tokio runtime.
    ///
    /// # Errors
    /// When the port can not be bound.
    pub async fn start(self) -> io::Result<StandIn> {
        let authority = self.authority.unwrap_or_else(Authority::generate);
        let acceptor = TlsAcceptor::from_pem(
            authority.chain_pem().as_bytes(),
            authority.key_pem().as_bytes(),
            Alpn::Http2OrHttp1,
        )?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await?;
        let address = listener.local_addr()?;

        let server = Arc::new(Server::new(
            self.identities,
            authority.ca_pem().to_owned(),
            self.big_namespace_pods,
        ));
        seed::fill(&server.store, &self.pods);
        server
            .tasks
            .spawn(listener::serve(listener, acceptor, Arc::clone(&server)));
        Ok(StandIn {
            server,
            authority,
            address,
        })
    }
}

/// JSON text of a value that was built in this folder.
fn to_json(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("a JSON value always serialises")
}
