//! A cluster with its agent and relay, the program in front of it, and the calls of `az`.

use std::{
    fs,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_cluster_connect::{
    agent::{
        AgentCredential, Cloud, EntraAuthenticator, PopPolicy, ServiceAccountTokens,
        SignatureAlgorithm, TenantId,
    },
    arm::ConnectedClusterId,
    auth::BearerAuth,
    kubeconfig::Kubeconfig,
    net::{Alpn, Connector, Endpoint, Security, TrustRoots},
    relay::{
        HybridConnection, RelayListener, SasRule,
        server::{RelayServer, Rights},
    },
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::support::{
    api_server::{Access, ImpersonationRights, RecordedRequest, StandIn, User, random_token},
    authority::{Authority, TENANT},
    embedded::agent_for,
    programs::Program,
};

pub const POD: &str = "web-0";
/// Who signs in with `az`.
pub const USER: &str = "testuser@mytenant.onmicrosoft.com";
pub const USER_ID: &str = "0b3f0c0e-6f0a-4a8e-9c55-1e1b7a7f0001";
const AGENT: &str = "system:serviceaccount:azure-arc:arc-agent";
pub const SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000001";
const RULE: &str = "sender20260101";

/// What ARM gives for a cluster: names, and a server that nobody can reach.
const ARM_KUBECONFIG: &str = "apiVersion: v1\r\nkind: Config\r\nclusters:\r\n- cluster:\r\n    server: https://hosted.example\r\n  \
    name: till-7\r\ncontexts:\r\n- context:\r\n    cluster: till-7\r\n    user: clusterUser_shop_till-7\r\n  name: till-7\r\n\
    current-context: till-7\r\nusers:\r\n- name: clusterUser_shop_till-7\r\n  user: USER\r\n";

/// A cluster with an agent at a relay, and the program under test.
pub struct Bed {
    stand_in: StandIn,
    pub authority: Authority,
    pub token: String,
    relay_rule: SasRule,
    hybrid_connection: HybridConnection,
    pub directory: TempDir,
    pub program: Program,
    _relay: RelayServer,
    _agent: Aborted,
}

/// A task that ends with the test.
struct Aborted(JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Bed {
    pub async fn start() -> Self {
        let token = random_token();
        let agent_token = random_token();
        let authority = Authority::start().await.expect("a free port");
        let stand_in = StandIn::builder()
            .token(&token, User::service_account("default", "admin-user"))
            .token(
                &agent_token,
                User::service_account("azure-arc", "arc-agent"),
            )
            .impersonator(AGENT, ImpersonationRights::Everyone)
            .access(USER, Access::Everything)
            .pod("default", POD)
            .start()
            .await
            .expect("the stand-in starts");
        let name = cluster().hybrid_connection_name();
        let relay_rule = SasRule::new(RULE, random_token()).expect("a rule");
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let relay = RelayServer::builder()
            .hybrid_connection(&name)
            .rule(relay_rule.clone(), Rights::LISTEN | Rights::SEND)
            .start(tcp)
            .expect("the relay starts");
        let hybrid_connection =
            HybridConnection::new(relay.endpoint().clone(), &name).expect("a name");
        let connector = Connector::new(TrustRoots::platform()).expect("roots can be read");
        let listener = RelayListener::start(
            connector,
            hybrid_connection.clone(),
            relay_rule.clone().into(),
        );
        listener.online().await.expect("the agent registers");
        let agent = agent_for(&stand_in)
            .service_account_tokens(ServiceAccountTokens::PassThrough)
            .authenticator(entra(&authority))
            .agent_credential(AgentCredential::new(Arc::new(
                BearerAuth::fixed(agent_token).expect("a token"),
            )))
            .build()
            .expect("the agent is well configured");
        let agent = tokio::spawn(async move {
            let _ = agent.serve_relay(listener, std::future::pending()).await;
        });

        let directory = tempfile::tempdir().expect("a directory");
        let config = directory.path().join("config.yml");
        let written = "server: {httpPort: 0, httpsPort: 0}\nidentity: {tenantID: t, clientID: c}\n\
                       cloud: AZUREPUBLICCLOUD\n";
        fs::write(&config, written).expect("written");
        let program = Program::start(
            "arc-connect",
            directory.path(),
            &[
                "arcproxy",
                "-d",
                "-c",
                config.to_str().expect("UTF-8"),
                "--relay-endpoint",
                &format!("ws://{}", relay.local_addr()),
            ],
        )
        .await;
        Self {
            stand_in,
            authority,
            token,
            relay_rule,
            hybrid_connection,
            directory,
            program,
            _relay: relay,
            _agent: Aborted(agent),
        }
    }

    /// The last request for pods that the API server saw.
    pub fn last_arrival(&self) -> Option<RecordedRequest> {
        let mut requests = self.stand_in.requests();
        requests.retain(|request| request.path_and_query.ends_with("/pods"));
        requests.pop()
    }

    pub fn address(&self, port: &str) -> SocketAddr {
        let address = self.program.ready()[port].as_str().expect("an address");
        address.parse().expect("an address")
    }

    /// What `az` posts: with `--token` the kubeconfig holds the service account's.
    pub fn registration(&self, token: Option<&str>) -> Value {
        let user = token.map_or("{}".to_owned(), |token| format!("{{token: {token}}}"));
        let expires = SystemTime::now() + Duration::from_secs(3 * 60 * 60);
        let sas = self.relay_rule.sign(&self.hybrid_connection, expires);
        json!({
            "kubeconfigs": [{
                "name": "Kubeconfig",
                "value": BASE64_STANDARD.encode(ARM_KUBECONFIG.replace("USER", &user)),
            }],
            "hybridConnectionConfig": {
                "relay": "azgnrelay-eastus-l1",
                "hybridConnectionName": self.hybrid_connection.path(),
                "token": sas.secret(),
                "expirationTime": 1_900_000_000,
            },
        })
    }

    /// A request to the port for registrations.
    pub fn at_register(&self, path: &str) -> request::Builder {
        Request::post(path)
            .header(
                header::HOST,
                format!("localhost:{}", self.address("http").port()),
            )
            .header("x-ms-correlation-request-id", "az-session-1")
    }

    pub async fn post(
        &self,
        request: request::Builder,
        body: impl Into<Bytes>,
    ) -> (StatusCode, String) {
        let stream = TcpStream::connect(self.address("http"))
            .await
            .expect("it listens");
        let request = request.body(Full::new(body.into())).expect("a request");
        answer_of(send(stream, request).await).await
    }

    /// Registers as `az` does, and gives the kubeconfig of the answer.
    pub async fn register(&self, cluster: &ConnectedClusterId, token: Option<&str>) -> Kubeconfig {
        let request = self.at_register(&register_path(cluster));
        let body = self.registration(token).to_string();
        let (status, answer) = self.post(request, body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let encoded = answer["kubeconfigs"][0]["value"].as_str().expect("a text");
        let yaml = BASE64_STANDARD.decode(encoded).expect("base64");
        Kubeconfig::parse(&String::from_utf8(yaml).expect("UTF-8")).expect("a kubeconfig")
    }

    /// One request to the HTTPS port.
    pub async fn https(
        &self,
        kubeconfig: &Kubeconfig,
        request: request::Builder,
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let ca = kubeconfig.clusters[0]
            .cluster
            .certificate_authority_data
            .as_ref()
            .expect("it holds our certificate");
        let pem = BASE64_STANDARD.decode(ca).expect("base64");
        let roots = TrustRoots::only_pem(&pem).expect("a certificate");
        let port = self.address("https").port();
        let stream = Connector::new(roots)
            .expect("a connector")
            .connect(
                &Endpoint::new("localhost", port, Security::Tls),
                Alpn::Http1,
            )
            .await
            .expect("connected");
        let request = request
            .header(header::HOST, format!("localhost:{port}"))
            .body(Full::new(body.into()))
            .expect("a request");
        send(stream, request).await
    }

    /// A request to the cluster, as kubectl would make it.
    pub async fn get(&self, kubeconfig: &Kubeconfig, path: &str) -> Response<Incoming> {
        let server = &kubeconfig.clusters[0].cluster.server;
        let (_, base) = server.split_once("/proxies/").expect("our path");
        let request = Request::get(format!("/proxies/{base}{path}")).header(
            header::AUTHORIZATION,
            format!("Bearer {}", secret_of(kubeconfig)),
        );
        self.https(kubeconfig, request, "").await
    }
}

/// Takes users of the authority's tenant, with a proof of possession for the cluster and never without.
fn entra(authority: &Authority) -> EntraAuthenticator {
    let roots = TrustRoots::only_pem(authority.ca_pem().as_bytes()).expect("a certificate");
    EntraAuthenticator::builder(TenantId::parse(TENANT).expect("a tenant"))
        .cloud(Cloud::custom(authority.url()).expect("a URL"))
        .connector(Connector::new(roots).expect("the roots are usable"))
        // With `ring`, the program's key is one on P-256.
        .algorithms([SignatureAlgorithm::Rs256, SignatureAlgorithm::Es256])
        .pop(PopPolicy::required(cluster().to_string()))
        .build()
        .expect("it is well configured")
}

pub fn cluster() -> ConnectedClusterId {
    ConnectedClusterId::new(SUBSCRIPTION, "shop", "till-7").expect("an id")
}

pub fn register_path(cluster: &ConnectedClusterId) -> String {
    format!("{cluster}/register?api-version=2020-10-01")
}

pub fn secret_of(kubeconfig: &Kubeconfig) -> &str {
    let token = kubeconfig.users[0].user.token.as_ref();
    token.expect("our secret").expose()
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Response<Incoming> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .expect("HTTP/1.1 starts");
    tokio::spawn(connection);
    sender.send_request(request).await.expect("an answer")
}

pub async fn answer_of(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = response.into_body().collect().await.expect("a whole body");
    let text = String::from_utf8(body.to_bytes().to_vec()).expect("UTF-8");
    (status, text)
}
