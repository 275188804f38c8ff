//! The whole installation: authority, API server, agent, tunnel.

use std::sync::Arc;

use arc_cluster_connect::{
    Tunnel,
    agent::{
        Agent, AgentBuilder, AgentCredential, Cloud, EntraAuthenticator, EntraAuthenticatorBuilder,
        GroupResolver, TenantId,
    },
    auth::BearerAuth,
    net::{Connector, TrustRoots},
    tunnel::TunnelStream,
};
use async_trait::async_trait;
use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    time::{Duration, OffsetDateTime},
};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use serde_json::Value;

use super::support::{
    api_server::{
        Access, ImpersonationRights, RecordedRequest, StandIn, StandInBuilder, User, random_token,
    },
    authority::{Authority, TENANT},
    embedded::{Embedded, agent_for},
};

/// A user of the how-to of 2021: `--user=<testuser>@<mytenant.onmicrosoft.com>`.
pub const USER: &str = "testuser@mytenant.onmicrosoft.com";
pub const USER_ID: &str = "0b3f0c0e-6f0a-4a8e-9c55-1e1b7a7f0001";
/// A service principal, bound by its object id as the how-to shows it.
pub const APPLICATION: &str = "0b3f0c0e-6f0a-4a8e-9c55-1e1b7a7f0002";
/// A group, bound by its object id: that is what tokens have.
pub const GROUP: &str = "0b3f0c0e-6f0a-4a8e-9c55-1e1b7a7f0003";
/// A user without any binding.
pub const STRANGER: &str = "stranger@mytenant.onmicrosoft.com";
pub const STRANGER_ID: &str = "0b3f0c0e-6f0a-4a8e-9c55-1e1b7a7f0004";

pub const AGENT: &str = "system:serviceaccount:azure-arc:arc-agent";
/// A service account, with the token that it brings.
pub const ROBOT: &str = "system:serviceaccount:default:robot";
pub const ROBOT_TOKEN: &str = "token-of-a-robot";
/// What the agent asks for at its start, in the name of a user who may do nothing else.
pub const FRONT_PROXY_HEADERS: &str =
    "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
/// A bound on what should happen at once. Only a failing test reaches it.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
pub const PODS: &str = "/api/v1/namespaces/default/pods";

/// Everything that a request goes through.
pub struct Bed {
    pub authority: Authority,
    pub stand_in: StandIn,
    pub agent: Agent,
    pub path: Embedded,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Bed {
    /// With a group resolver that asks the authority's Graph.
    pub async fn start() -> Self {
        Self::with(|entra| entra).await
    }

    pub async fn with(
        configure: impl FnOnce(EntraAuthenticatorBuilder) -> EntraAuthenticatorBuilder,
    ) -> Self {
        let authority = Authority::start().await.expect("a free port");
        let entra = configure(entra(&authority))
            .build()
            .expect("it is well configured");
        Self::assemble(authority, ImpersonationRights::Everyone, |agent| {
            agent.authenticator(entra)
        })
        .await
    }

    pub async fn assemble(
        authority: Authority,
        rights: ImpersonationRights,
        configure: impl FnOnce(AgentBuilder) -> AgentBuilder,
    ) -> Self {
        let agent_token = random_token();
        let stand_in = cluster(&agent_token, rights)
            .start()
            .await
            .expect("a free port");
        let auth = BearerAuth::fixed(agent_token).expect("a token");
        let agent = agent_for(&stand_in).agent_credential(AgentCredential::new(Arc::new(auth)));
        let agent: Agent = configure(agent).build().expect("it is well configured");
        let unused = BearerAuth::fixed("not-used").expect("a token");
        let path = Embedded::with(agent.clone(), Arc::new(unused)).await;
        Self {
            authority,
            stand_in,
            agent,
            path,
        }
    }

    pub async fn get(&self, token: &str) -> Answer {
        self.request(Request::get(PODS), Some(token)).await
    }

    /// Sends a request on a stream of its own.
    pub async fn request(&self, request: http::request::Builder, token: Option<&str>) -> Answer {
        send(self.path.stream().await, request, token).await
    }

    /// Waits until the agent has asked for the cluster's front-proxy headers, which it does by itself at its start.
    pub async fn front_proxy_headers_are_asked_for(&self) {
        let asking = async {
            let is_it = |request: &RecordedRequest| request.path_and_query == FRONT_PROXY_HEADERS;
            while !self.stand_in.requests().iter().any(is_it) {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking)
            .await
            .expect("the agent asks by itself");
    }

    /// The last request for pods that the API server saw.
    pub fn last_arrival(&self) -> Option<RecordedRequest> {
        let mut requests = self.stand_in.requests();
        requests.retain(|request| request.path_and_query == PODS);
        requests.pop()
    }
}

/// Asks for pods through `tunnel`.
pub async fn get_over(tunnel: &dyn Tunnel, token: &str) -> Answer {
    let stream = Embedded::stream_of(tunnel).await;
    send(stream, Request::get(PODS), Some(token)).await
}

async fn send(
    stream: TunnelStream,
    request: http::request::Builder,
    token: Option<&str>,
) -> Answer {
    let mut request = request.header(header::HOST, "kubernetes");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::<Bytes>::default()).expect("a request");
    let (mut sender, connection) = http1::handshake(stream).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let response = sender.send_request(request).await.expect("an answer");
    let (head, body) = response.into_parts();
    Answer {
        status: head.status,
        body: body.collect().await.expect("a whole body").to_bytes(),
    }
}

impl Answer {
    /// The `Status` in it.
    pub fn status_object(&self) -> Value {
        let value: Value = serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {:?}", self.body));
        assert_eq!(value["kind"], "Status", "{value}");
        assert_eq!(value["apiVersion"], "v1", "{value}");
        assert_eq!(value["status"], "Failure", "{value}");
        assert_eq!(value["code"], self.status.as_u16(), "{value}");
        value
    }
}

/// The bindings of the how-to, and nothing for anybody else. The agent has one right: to impersonate.
pub fn cluster(agent_token: &str, rights: ImpersonationRights) -> StandInBuilder {
    StandIn::builder()
        .token(agent_token, User::service_account("azure-arc", "arc-agent"))
        .impersonator(AGENT, rights)
        .token(ROBOT_TOKEN, User::service_account("default", "robot"))
        .access(ROBOT, Access::ReadOnly)
        .unbound(Access::Nothing)
        .access(USER, Access::Everything)
        .access(APPLICATION, Access::Everything)
        .group_access(GROUP, Access::ReadOnly)
        .pod("default", "web-0")
        .big_namespace_pods(1)
}

/// An authenticator for the authority's tenant.
pub fn entra(authority: &Authority) -> EntraAuthenticatorBuilder {
    let cloud = Cloud::custom(authority.url()).expect("a URL");
    EntraAuthenticator::builder(TenantId::parse(TENANT).expect("a tenant"))
        .cloud(cloud)
        .connector(connector(authority))
        .groups(GroupResolver::graph(Arc::new(AgentIdentity)))
}

pub fn connector(authority: &Authority) -> Connector {
    Connector::new(roots(authority)).expect("the roots are usable")
}

pub fn roots(authority: &Authority) -> TrustRoots {
    TrustRoots::only_pem(authority.ca_pem().as_bytes()).expect("a certificate")
}

/// The agent's own identity at the directory.
#[derive(Debug)]
struct AgentIdentity;

#[async_trait]
impl TokenCredential for AgentIdentity {
    async fn get_token(
        &self,
        _scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let end = OffsetDateTime::now_utc() + Duration::hours(1);
        Ok(AccessToken::new("token-of-the-agent-for-graph", end))
    }
}
