//! A local Azure Resource Manager, over HTTPS on loopback: one connected cluster, its credentials, and the endpoints of
//! its cloud. Answers have the shape of the public examples (`fixtures/`), of the version that was asked for.
//!
//! Credentials are real: each is signed for a path of its own below the one on which the agent listens, as Azure's are,
//! and an embedded relay with the same rule takes it.

// Each user of this folder takes a part of it; the rest is not dead, only unused in that one binary.
#![allow(dead_code, unused_imports)]

mod answer;
mod server;

use std::{
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_cluster_connect::{
    arm::ConnectedClusterId,
    net::{Alpn, Endpoint, TlsAcceptor},
    relay::SasRule,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

use super::authority::{AUDIENCE, Authority, certificate::Certificate};

/// The bearer token that it takes.
pub const ARM_TOKEN: &str = "token-for-azure-resource-manager";

/// Versions that it knows unless told otherwise.
const VERSIONS: [&str; 2] = ["2021-10-01", "2026-05-01"];

/// A running resource manager. Dropping it closes its port.
pub struct FakeArm {
    shared: Arc<Shared>,
    url: String,
    task: JoinHandle<()>,
}

/// Which question a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    Cluster,
    Credential,
}

/// What is answered instead.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A refusal with this code, and headers.
    Refusal {
        status: u16,
        code: &'static str,
        headers: Vec<(&'static str, String)>,
    },
    /// The connection is closed without an answer.
    Gone,
}

/// How credentials are made.
#[derive(Clone)]
pub struct Issuing {
    /// The relay that senders dial. Its host is split at the first dot into namespace and domain.
    pub relay: Endpoint,
    pub rule: SasRule,
    /// Azure's is three hours.
    pub life: Duration,
    /// How long the token lives beyond that; Azure's, ten minutes.
    pub grace: Duration,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub method: String,
    pub path: String,
    pub version: String,
    pub correlation_id: String,
    pub body: Value,
}

struct Shared {
    issuing: Issuing,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// At least one.
    clusters: Vec<ConnectedClusterId>,
    versions: Vec<&'static str>,
    /// Whose signed tokens are taken, besides [`ARM_TOKEN`].
    issuer: Option<String>,
    /// Where people of this cloud sign in.
    authority: Option<String>,
    /// The relay's tokens that were given out.
    tokens: Vec<String>,
    /// Replaces properties of the cluster.
    properties: serde_json::Map<String, Value>,
    faults: Vec<(Question, Fault, usize)>,
    requests: Vec<Recorded>,
    issued: usize,
    /// How many of the next tokens are signed with a withdrawn key.
    stale: usize,
}

impl FakeArm {
    /// Starts on any free port, with the certificate of somebody whom clients trust.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(
        certificate: &Certificate,
        cluster: ConnectedClusterId,
        issuing: Issuing,
    ) -> io::Result<Self> {
        let acceptor = TlsAcceptor::from_pem(
            certificate.chain_pem.as_bytes(),
            certificate.key_pem.as_bytes(),
            Alpn::Http1,
        )?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("https://localhost:{}", listener.local_addr()?.port());
        let shared = Arc::new(Shared {
            issuing,
            state: Mutex::new(State {
                clusters: vec![cluster],
                versions: VERSIONS.to_vec(),
                ..State::default()
            }),
        });
        let task = tokio::spawn(server::serve(listener, acceptor, Arc::clone(&shared)));
        Ok(Self { shared, url, task })
    }

    /// Its URL, without a path.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The domain of the relay, for a [`Cloud`](arc_cluster_connect::auth::Cloud).
    pub fn relay_suffix(&self) -> String {
        let authority = self.shared.issuing.relay.authority();
        let (_, domain) = authority.split_once('.').expect("a host with a dot");
        domain.to_owned()
    }

    /// Which versions of the interface it knows.
    pub fn set_versions(&self, versions: &[&'static str]) {
        self.shared.state().versions = versions.to_vec();
    }

    /// Knows another cluster, at the same relay.
    pub fn add_cluster(&self, cluster: ConnectedClusterId) {
        self.shared.state().clusters.push(cluster);
    }

    /// Takes the tokens that this authority signs for anything but the cluster, and names it in the cloud's description.
    pub fn trust(&self, authority: &Authority) {
        let mut state = self.shared.state();
        state.issuer = Some(authority.issuer_v2());
        state.authority = Some(authority.url().to_owned());
    }

    /// The relay's tokens that were given out.
    pub fn relay_tokens(&self) -> Vec<String> {
        self.shared.state().tokens.clone()
    }

    /// Sets a property of the clusters.
    pub fn set_property(&self, name: &str, value: impl Into<Value>) {
        let mut state = self.shared.state();
        state.properties.insert(name.to_owned(), value.into());
    }

    /// Answers the next `times` questions of a kind with a fault.
    pub fn fail(&self, question: Question, times: usize, fault: Fault) {
        self.shared.state().faults.push((question, fault, times));
    }

    /// Signs the next `count` credentials with a key that the relay does not know any more.
    pub fn withdraw_key_for_next(&self, count: usize) {
        self.shared.state().stale = count;
    }

    /// Answers as it should again.
    pub fn recover(&self) {
        self.shared.state().faults.clear();
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.state().requests.clone()
    }

    /// How often credentials were asked for, refusals included.
    pub fn credential_requests(&self) -> usize {
        let requests = self.requests();
        requests.iter().filter(|one| one.method == "POST").count()
    }

    /// How many credentials were given out.
    pub fn issued(&self) -> usize {
        self.shared.state().issued
    }
}

impl Drop for FakeArm {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether this `Authorization` is of somebody whom it knows.
    fn takes(&self, authorization: &str) -> bool {
        let Some(token) = authorization.strip_prefix("Bearer ") else {
            return false;
        };
        let claims = || {
            let claims = token.split('.').nth(1)?;
            let json = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
            serde_json::from_slice::<Value>(&json).ok()
        };
        token == ARM_TOKEN
            || claims().is_some_and(|claims| {
                claims["iss"].as_str() == self.issuer.as_deref() && claims["aud"] != AUDIENCE
            })
    }

    fn take_fault(&mut self, question: Question) -> Option<Fault> {
        let index = self
            .faults
            .iter()
            .position(|(of, _, left)| *of == question && *left > 0)?;
        self.faults[index].2 -= 1;
        Some(self.faults[index].1.clone())
    }
}

impl Fault {
    pub fn refusal(status: u16, code: &'static str) -> Self {
        Self::Refusal {
            status,
            code,
            headers: Vec::new(),
        }
    }
}
