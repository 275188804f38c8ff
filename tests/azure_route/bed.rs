//! Everything that a request goes through, on loopback.

use std::{sync::Arc, time::Duration};

use arc_cluster_connect::{
    ClusterConnect, Tunnel,
    agent::{AgentCredential, EntraAuthenticator},
    arm::ConnectedClusterId,
    auth::{BearerAuth, Cloud, TenantId, TokenRequest},
    net::{Alpn, Connector, TlsAcceptor, TrustRoots},
    relay::{
        HybridConnection, RelayCredential, RelayListener, SasRule,
        server::{RelayServer, Rights},
    },
    tunnel::{ClusterConnectBuilder, OpenOptions, Target},
};
use async_trait::async_trait;
use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    time::OffsetDateTime,
};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use tokio::{net::TcpListener, task::JoinHandle};

use super::support::{
    api_server::{Access, ImpersonationRights, StandIn, User, random_token},
    arm::{ARM_TOKEN, FakeArm, Issuing},
    authority::{AUDIENCE, Authority, TENANT, certificate::Certificate},
    embedded::agent_for,
};

pub const USER: &str = "testuser@mytenant.onmicrosoft.com";
const USER_ID: &str = "0b3f0c0e-6f0a-4a8e-9c55-1e1b7a7f0001";
const AGENT: &str = "system:serviceaccount:azure-arc:arc-agent";
pub const PODS: &str = "/api/v1/namespaces/default/pods";

/// How long a credential of Azure lives, and how much longer its token does.
pub const HOURS: (Duration, Duration) = (Duration::from_secs(10_800), Duration::from_secs(600));

pub struct Bed {
    pub id: ConnectedClusterId,
    pub authority: Authority,
    pub arm: FakeArm,
    pub stand_in: StandIn,
    _relay: RelayServer,
    pub connector: Connector,
    agent: JoinHandle<()>,
}

pub struct Answer {
    pub status: StatusCode,
    body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Bed {
    /// With credentials that live for so long, and tokens that live so much longer.
    pub async fn start((life, grace): (Duration, Duration)) -> Self {
        let id = ConnectedClusterId::new("00000000-0000-0000-0000-000000000001", "shop", "till-7")
            .expect("a cluster's id");
        let authority = Authority::start().await.expect("a free port");
        let certificate = Certificate::generate();
        let roots = TrustRoots::only_pem(authority.ca_pem().as_bytes())
            .and_then(|roots| roots.and_pem(certificate.ca_pem.as_bytes()))
            .expect("certificates");
        let connector = Connector::new(roots).expect("the roots are usable");

        let (listening, sending) = (rule("listener20260501"), rule("sender20260501"));
        let acceptor = TlsAcceptor::from_pem(
            certificate.chain_pem.as_bytes(),
            certificate.key_pem.as_bytes(),
            Alpn::Http1,
        );
        let relay = RelayServer::builder()
            .hybrid_connection(id.hybrid_connection_name())
            .rule(listening.clone(), Rights::LISTEN)
            .rule(sending.clone(), Rights::SEND)
            .tls(acceptor.expect("a certificate"))
            .start(TcpListener::bind("127.0.0.1:0").await.expect("a free port"))
            .expect("the relay starts");
        let issuing = Issuing {
            relay: relay.endpoint().clone(),
            rule: sending,
            life,
            grace,
        };
        let arm = FakeArm::start(&certificate, id.clone(), issuing)
            .await
            .expect("a free port");

        let agent_token = random_token();
        let stand_in = StandIn::builder()
            .token(
                &agent_token,
                User::service_account("azure-arc", "arc-agent"),
            )
            .impersonator(AGENT, ImpersonationRights::Everyone)
            .unbound(Access::Nothing)
            .access(USER, Access::Everything)
            .pod("default", "web-0")
            .big_namespace_pods(1)
            .start()
            .await
            .expect("a free port");
        let tenant = TenantId::parse(TENANT).expect("a tenant");
        let entra = EntraAuthenticator::builder(tenant)
            .cloud(Cloud::custom(authority.url()).expect("a URL"))
            .connector(connector.clone())
            .build()
            .expect("it is well configured");
        let auth = BearerAuth::fixed(agent_token).expect("a token");
        let agent = agent_for(&stand_in)
            .agent_credential(AgentCredential::new(Arc::new(auth)))
            .authenticator(entra)
            .build()
            .expect("it is well configured");
        let hybrid_connection =
            HybridConnection::new(relay.endpoint().clone(), &id.hybrid_connection_name());
        let listener = RelayListener::start(
            connector.clone(),
            hybrid_connection.expect("a path"),
            RelayCredential::from(listening),
        );
        listener.online().await.expect("the agent registers");
        let agent = tokio::spawn(async move {
            let _ = agent.serve_relay(listener, std::future::pending()).await;
        });
        Self {
            id,
            authority,
            arm,
            stand_in,
            _relay: relay,
            connector,
            agent,
        }
    }

    pub fn cloud(&self) -> Cloud {
        Cloud::custom(self.authority.url())
            .and_then(|cloud| cloud.with_resource_manager(self.arm.url()))
            .and_then(|cloud| cloud.with_relay_suffix(&self.arm.relay_suffix()))
            .expect("addresses")
    }

    pub fn person(&self) -> Arc<dyn TokenCredential> {
        Arc::new(Person {
            for_the_cluster: self.authority.user(USER, USER_ID).sign(),
            for_azure: ARM_TOKEN.to_owned(),
        })
    }

    pub fn builder(&self) -> ClusterConnectBuilder {
        ClusterConnect::builder(self.id.clone())
            .connector(self.connector.clone())
            .cloud(self.cloud())
            .credential(self.person())
    }

    pub async fn get(&self, cluster: &ClusterConnect, path: &str) -> Answer {
        self.whole(cluster, Request::get(path), Bytes::new()).await
    }

    pub async fn whole(
        &self,
        cluster: &ClusterConnect,
        request: http::request::Builder,
        body: Bytes,
    ) -> Answer {
        let response = send(cluster, request, body).await;
        let (head, body) = response.into_parts();
        Answer {
            status: head.status,
            body: body.collect().await.expect("a whole body").to_bytes(),
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

/// Sends a request on a stream of its own, with the token of whoever is signed in.
pub async fn send(
    cluster: &ClusterConnect,
    request: http::request::Builder,
    body: Bytes,
) -> Response<Incoming> {
    let token = cluster.auth().token(&TokenRequest::new()).await;
    let bearer = format!("Bearer {}", token.expect("somebody is signed in").secret());
    let request = request
        .header(header::HOST, "kubernetes")
        .header(header::AUTHORIZATION, bearer)
        .body(Full::new(body))
        .expect("a request");
    let stream = cluster
        .open(&Target::api_server(), OpenOptions::new())
        .await
        .expect("a stream");
    let (mut sender, connection) = http1::handshake(stream).await.expect("HTTP/1.1");
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.expect("an answer")
}

fn rule(name: &str) -> SasRule {
    SasRule::new(name, random_token()).expect("a rule")
}

/// Somebody who is signed in: a token for each thing.
#[derive(Debug)]
struct Person {
    for_the_cluster: String,
    for_azure: String,
}

#[async_trait]
impl TokenCredential for Person {
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let end = OffsetDateTime::now_utc() + Duration::from_secs(3_600);
        let token = if scopes[0].starts_with(AUDIENCE) {
            &self.for_the_cluster
        } else {
            &self.for_azure
        };
        Ok(AccessToken::new(token.clone(), end))
    }
}
