//! What the short examples take: a relay in this process, agents in front of a stand-in API server, and files.

// Each test binary takes what it needs from here.
#![allow(dead_code)]

use std::path::Path;

use arc_cluster_connect::{
    agent::ServiceAccountTokens,
    net::{Connector, TrustRoots},
    relay::{
        ConnectionString, RelayListener, SasRule,
        server::{RelayServer, Rights},
    },
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

use super::support::{
    api_server::{StandIn, User, random_token},
    embedded::agent_for,
};

const HYBRID_CONNECTIONS: [&str; 2] = ["edge", "quay"];

/// A stand-in, a relay with two hybrid connections, and a directory with what the examples take.
pub struct Bed {
    stand_in: StandIn,
    relay: RelayServer,
    token: String,
    files: TempDir,
    agents: Vec<JoinHandle<()>>,
}

impl Bed {
    /// With an agent at the first `agents` of the hybrid connections.
    pub async fn start(agents: usize) -> Self {
        let token = random_token();
        let stand_in = StandIn::builder()
            .token(&token, User::service_account("default", "admin-user"))
            .pod("default", "web-0")
            .start()
            .await
            .expect("a free port");
        let rights = Rights::LISTEN | Rights::SEND;
        let rule = SasRule::new("root", random_token()).expect("a rule");
        let relay = HYBRID_CONNECTIONS
            .iter()
            .fold(RelayServer::builder(), |relay, name| {
                relay.hybrid_connection(*name)
            })
            .rule(rule, rights)
            .start(TcpListener::bind("127.0.0.1:0").await.expect("a free port"))
            .expect("the relay starts");
        let mut bed = Self {
            stand_in,
            relay,
            token,
            files: tempfile::tempdir().expect("a directory"),
            agents: Vec::new(),
        };
        bed.write("token", &bed.token);
        bed.write("ca.crt", bed.stand_in.ca_pem());
        bed.write("kubeconfig", &bed.stand_in.kubeconfig(None));
        for name in HYBRID_CONNECTIONS {
            bed.write(&format!("{name}.txt"), &bed.connection_string(name));
        }
        for name in &HYBRID_CONNECTIONS[..agents] {
            let agent = bed.agent_at(name).await;
            bed.agents.push(agent);
        }
        bed
    }

    async fn agent_at(&self, name: &str) -> JoinHandle<()> {
        let string = ConnectionString::parse(&self.connection_string(name)).expect("well formed");
        let listener = RelayListener::start(
            Connector::new(TrustRoots::platform()).expect("roots can be read"),
            string.hybrid_connection().expect("it names one"),
            string.credential(),
        );
        listener.online().await.expect("the agent registers");
        let agent = agent_for(&self.stand_in)
            .service_account_tokens(ServiceAccountTokens::PassThrough)
            .build()
            .expect("it is well configured");
        tokio::spawn(async move {
            let _ = agent.serve_relay(listener, std::future::pending()).await;
        })
    }

    pub fn connection_string(&self, name: &str) -> String {
        self.relay
            .connection_string("root", name)
            .expect("both exist")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.files.path().join(name), text).expect("a writable directory");
    }

    pub fn stand_in(&self) -> &StandIn {
        &self.stand_in
    }

    /// The token of somebody who may do everything.
    pub fn token(&self) -> &str {
        &self.token
    }

    pub fn directory(&self) -> &Path {
        self.files.path()
    }

    pub fn file(&self, name: &str) -> String {
        let path = self.files.path().join(name);
        path.to_str().expect("a plain path").to_owned()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for agent in &self.agents {
            agent.abort();
        }
    }
}
