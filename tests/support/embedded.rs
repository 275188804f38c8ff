//! The whole path in this process: relay, agent and loopback endpoint in front of a stand-in API server. For tests that
//! send thousands of requests, or look at both ends at once.

use std::{path::Path, sync::Arc};

use arc_cluster_connect::{
    Tunnel,
    agent::{Agent, AgentBuilder, ApiServer, ServiceAccountTokens},
    auth::{AuthProvider, BearerAuth},
    kubeconfig::{Kubeconfig, ProxyEndpoint},
    net::{Connector, TrustRoots},
    proxy::{Proxy, ProxyId},
    relay::{
        ConnectionString, RelayListener, RelaySender, SasRule,
        server::{RelayServer, Rights},
    },
    tunnel::{OpenOptions, RelayTunnel, Target, TunnelStream},
};
use tokio::{net::TcpListener, task::JoinHandle};

use super::api_server::{StandIn, random_token};

const NAME: &str = "embedded";

/// A relay, an agent that serves it and a proxy that dials it. Dropping it ends all three.
pub struct Embedded {
    tunnel: Arc<dyn Tunnel>,
    endpoint: ProxyEndpoint,
    _proxy: Proxy,
    _relay: RelayServer,
    agent: JoinHandle<()>,
}

impl Embedded {
    /// With an agent that passes tokens of service accounts on, and a proxy whose user has `token`.
    pub async fn start(stand_in: &StandIn, token: &str) -> Self {
        let agent = agent_for(stand_in).service_account_tokens(ServiceAccountTokens::PassThrough);
        let agent = agent.build().expect("the agent is well configured");
        let auth = BearerAuth::fixed(token).expect("a token");
        Self::with(agent, Arc::new(auth)).await
    }

    /// With any agent and any way to get tokens.
    pub async fn with(agent: Agent, auth: Arc<dyn AuthProvider>) -> Self {
        let relay = RelayServer::builder()
            .hybrid_connection(NAME)
            .rule(
                SasRule::new("root", random_token()).expect("a rule"),
                Rights::LISTEN | Rights::SEND,
            )
            .start(
                TcpListener::bind("127.0.0.1:0")
                    .await
                    .expect("a free loopback port"),
            )
            .expect("the relay starts");
        let string = relay.connection_string("root", NAME).expect("both exist");
        let string = ConnectionString::parse(&string).expect("it is well formed");
        let connector = Connector::new(TrustRoots::platform()).expect("roots can be read");
        let hybrid_connection = string.hybrid_connection().expect("it names one");
        let listener = RelayListener::start(
            connector.clone(),
            hybrid_connection.clone(),
            string.credential(),
        );
        listener.online().await.expect("the agent registers");
        let agent = tokio::spawn(async move {
            let _ = agent.serve_relay(listener, std::future::pending()).await;
        });
        let tunnel: Arc<dyn Tunnel> = Arc::new(RelayTunnel::new(RelaySender::new(
            connector,
            hybrid_connection,
            string.credential(),
        )));
        let id = ProxyId::from_name(NAME);
        let proxy = Proxy::builder()
            .port(0)
            .cluster(id, Arc::clone(&tunnel), auth)
            .start()
            .await
            .expect("the proxy starts");
        Self {
            endpoint: proxy.endpoint(&id).expect("it was registered"),
            tunnel,
            _proxy: proxy,
            _relay: relay,
            agent,
        }
    }

    /// What a kubeconfig would hold: server, CA and the secret of this run.
    pub fn endpoint(&self) -> &ProxyEndpoint {
        &self.endpoint
    }

    /// The tunnel that the proxy uses, for clients that need no proxy.
    pub fn tunnel(&self) -> &Arc<dyn Tunnel> {
        &self.tunnel
    }

    /// A stream to the agent, past the proxy: what a hostile client has.
    pub async fn stream(&self) -> TunnelStream {
        self.tunnel
            .open(&Target::api_server(), OpenOptions::new())
            .await
            .expect("the agent is there")
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

/// An agent for a stand-in, still to be given its callers.
pub fn agent_for(stand_in: &StandIn) -> AgentBuilder {
    let kubeconfig = Kubeconfig::parse(&stand_in.kubeconfig(None)).expect("it is well formed");
    let api_server = ApiServer::from_kubeconfig(&kubeconfig, None, Path::new("."))
        .expect("it names the stand-in");
    Agent::builder(api_server)
}
