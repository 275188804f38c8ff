//! `arc-connect arcproxy`, called as the Azure CLI calls the program that it stands in for.

#![cfg(all(feature = "proxy", feature = "agent", feature = "relay-server"))]

mod support;

/// The program's parts that stand alone, for the tests in them: of an example, cargo runs none.
#[path = "../examples/arc-connect/arcproxy"]
#[allow(dead_code)]
mod parts {
    mod caller;
    mod config;
    mod neighbour;
    mod proof;
    mod registration;
}

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use arc_cluster_connect::{
    agent::ServiceAccountTokens,
    arm::ConnectedClusterId,
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

use self::support::{
    api_server::{StandIn, User, random_token},
    embedded::agent_for,
    kubectl::{self, Kubectl},
    programs::Program,
    scenarios,
};

const POD: &str = "web-0";
const SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000001";
const RULE: &str = "sender20260101";

/// What ARM gives for a cluster: names, and a server that nobody can reach.
const ARM_KUBECONFIG: &str = "apiVersion: v1\r\nkind: Config\r\nclusters:\r\n- cluster:\r\n    server: https://hosted.example\r\n  \
    name: till-7\r\ncontexts:\r\n- context:\r\n    cluster: till-7\r\n    user: clusterUser_shop_till-7\r\n  name: till-7\r\n\
    current-context: till-7\r\nusers:\r\n- name: clusterUser_shop_till-7\r\n  user: USER\r\n";

/// A cluster with an agent at a relay, and the program under test.
struct Bed {
    _stand_in: StandIn,
    token: String,
    relay_rule: SasRule,
    hybrid_connection: HybridConnection,
    directory: TempDir,
    program: Program,
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
    async fn start() -> Self {
        let token = random_token();
        let stand_in = StandIn::builder()
            .token(&token, User::service_account("default", "admin-user"))
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
            _stand_in: stand_in,
            token,
            relay_rule,
            hybrid_connection,
            directory,
            program,
            _relay: relay,
            _agent: Aborted(agent),
        }
    }

    fn address(&self, port: &str) -> SocketAddr {
        let address = self.program.ready()[port].as_str().expect("an address");
        address.parse().expect("an address")
    }

    /// What `az` posts: with `--token` the kubeconfig holds the service account's.
    fn registration(&self, token: Option<&str>) -> Value {
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
    fn at_register(&self, path: &str) -> request::Builder {
        Request::post(path)
            .header(
                header::HOST,
                format!("localhost:{}", self.address("http").port()),
            )
            .header("x-ms-correlation-request-id", "az-session-1")
    }

    async fn post(
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
    async fn register(&self, cluster: &ConnectedClusterId, token: Option<&str>) -> Kubeconfig {
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
    async fn https(
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
    async fn get(&self, kubeconfig: &Kubeconfig, path: &str) -> Response<Incoming> {
        let server = &kubeconfig.clusters[0].cluster.server;
        let (_, base) = server.split_once("/proxies/").expect("our path");
        let request = Request::get(format!("/proxies/{base}{path}")).header(
            header::AUTHORIZATION,
            format!("Bearer {}", secret_of(kubeconfig)),
        );
        self.https(kubeconfig, request, "").await
    }
}

fn cluster() -> ConnectedClusterId {
    ConnectedClusterId::new(SUBSCRIPTION, "shop", "till-7").expect("an id")
}

fn register_path(cluster: &ConnectedClusterId) -> String {
    format!("{cluster}/register?api-version=2020-10-01")
}

fn secret_of(kubeconfig: &Kubeconfig) -> &str {
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

async fn answer_of(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = response.into_body().collect().await.expect("a whole body");
    let text = String::from_utf8(body.to_bytes().to_vec()).expect("UTF-8");
    (status, text)
}

#[tokio::test]
async fn a_registered_cluster_is_reached_with_the_token_of_the_kubeconfig() {
    let bed = Bed::start().await;
    let kubeconfig = bed.register(&cluster(), Some(&bed.token)).await;
    let context = kubeconfig.resolve(None).expect("it resolves");
    assert_eq!(context.name, "till-7");
    assert_eq!(
        context.cluster.server,
        format!(
            "https://127.0.0.1:{}/proxies/{}",
            bed.address("https").port(),
            cluster().digest()
        )
    );
    assert_ne!(secret_of(&kubeconfig), bed.token);
    let (status, pods) = answer_of(
        bed.get(&kubeconfig, "/api/v1/namespaces/default/pods")
            .await,
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    assert!(pods.contains(POD));

    if kubectl::is_installed("a_registered_cluster_is_reached_with_the_token_of_the_kubeconfig") {
        let path = bed.directory.path().join("kubeconfig");
        fs::write(&path, kubeconfig.to_yaml().expect("YAML")).expect("written");
        scenarios::get_pods(&Kubectl::new(path), POD).await;
    }

    // What it has told, and what not.
    let ended = bed.program.terminate().await;
    assert!(ended.status.success(), "{ended:?}");
    let shown = ended.stderr;
    assert!(shown.contains("ProxyRegisterSucceeded"), "{shown}");
    assert!(shown.contains("ActivityId=az-session-1"), "{shown}");
    assert!(
        shown.contains("\"path\":\"/api/v1/namespaces/default/pods\""),
        "{shown}"
    );
    for hidden in [secret_of(&kubeconfig), &bed.token, "SharedAccessSignature"] {
        assert!(!shown.contains(hidden));
    }
}

#[tokio::test]
async fn the_users_own_token_takes_the_way_of_the_identity_api() {
    let bed = Bed::start().await;
    // az does not check the certificate, and so needs none. Here it comes from another cluster's registration.
    let other = ConnectedClusterId::new(SUBSCRIPTION, "shop", "other").expect("an id");
    let other = bed.register(&other, Some(&bed.token)).await;
    let kubeconfig = bed.register(&cluster(), None).await;
    assert_eq!(secret_of(&kubeconfig), secret_of(&other));
    let (status, message) = answer_of(bed.get(&kubeconfig, "/version").await).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(
        message.contains("az has posted no access token yet"),
        "{message}"
    );

    let key = Request::get("/identity/poppublickey").header("content-type", "application/json");
    let (status, key) = answer_of(bed.https(&other, key, "{}").await).await;
    assert_eq!(status, StatusCode::OK);
    let key: Value = serde_json::from_str(&key).expect("JSON");
    let kid = key["publicKey"]["kid"].as_str().expect("a key has a name");

    let posted = |kid: &str, tenant: &str, token: &str| {
        json!({
            "accessToken": token,
            "serverId": "6256c85f-0aad-4d50-b960-e6e9b21efe35",
            "tenantID": tenant,
            "kid": kid,
        })
        .to_string()
    };
    for (body, status, words) in [
        (
            posted("earlier", "t", &bed.token),
            StatusCode::INTERNAL_SERVER_ERROR,
            "public key expired",
        ),
        (
            posted(kid, "foreign", &bed.token),
            StatusCode::BAD_REQUEST,
            "another tenant",
        ),
        (posted(kid, "t", ""), StatusCode::BAD_REQUEST, "empty"),
        ("{}".to_owned(), StatusCode::BAD_REQUEST, "accessToken"),
        (posted(kid, "t", &bed.token), StatusCode::OK, "{}"),
    ] {
        let request = Request::post("/identity/at").header("content-type", "application/json");
        let (answered, text) = answer_of(bed.https(&other, request, body).await).await;
        assert_eq!(answered, status, "{text}");
        assert!(text.contains(words), "{text}");
        assert!(!text.contains(&bed.token) && !text.contains(secret_of(&other)));
    }
    let (status, pods) = answer_of(
        bed.get(&kubeconfig, "/api/v1/namespaces/default/pods")
            .await,
    )
    .await;
    assert_eq!(status, StatusCode::OK, "{pods}");
    assert!(pods.contains(POD));
}

#[tokio::test]
async fn a_second_registration_cuts_no_watch() {
    let bed = Bed::start().await;
    let kubeconfig = bed.register(&cluster(), Some(&bed.token)).await;
    let pods = "/api/v1/namespaces/default/pods";
    let mut watch = bed
        .get(&kubeconfig, &format!("{pods}?watch=true"))
        .await
        .into_body();
    let first = watch.frame().await.expect("an event").expect("no error");
    let first = first.into_data().expect("data");
    assert!(String::from_utf8_lossy(&first).contains(POD));

    // As shortly before the relay's token expires; the service account has a new one too, which is wrong.
    let again = bed.register(&cluster(), Some("revoked")).await;
    assert_eq!(secret_of(&again), secret_of(&kubeconfig));
    let refused = bed.get(&again, pods).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    bed.register(&cluster(), Some(&bed.token)).await;

    let server = &kubeconfig.clusters[0].cluster.server;
    let (_, base) = server.split_once("/proxies/").expect("our path");
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "later" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    let request = Request::post(format!("/proxies/{base}{pods}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(
            header::AUTHORIZATION,
            format!("Bearer {}", secret_of(&again)),
        );
    let (status, text) = answer_of(bed.https(&again, request, pod.to_string()).await).await;
    assert_eq!(status, StatusCode::CREATED, "{text}");
    let mut seen = String::new();
    while !seen.contains("later") {
        let frame = watch
            .frame()
            .await
            .expect("the watch goes on")
            .expect("no error");
        if let Ok(data) = frame.into_data() {
            seen.push_str(&String::from_utf8_lossy(&data));
        }
    }
}

#[tokio::test]
async fn nobody_else_gets_in() {
    let bed = Bed::start().await;
    let path = register_path(&cluster());
    let body = bed.registration(Some(&bed.token)).to_string();
    let port = bed.address("http").port();
    let hosted = |host: &str| Request::post(&path).header(header::HOST, host.to_owned());
    for (what, request, status) in [
        (
            "a page",
            bed.at_register(&path).header(header::ORIGIN, "null"),
            StatusCode::FORBIDDEN,
        ),
        (
            "a page's fetch",
            bed.at_register(&path).header("sec-fetch-site", "none"),
            StatusCode::FORBIDDEN,
        ),
        (
            "a form",
            bed.at_register(&path)
                .header(header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            StatusCode::FORBIDDEN,
        ),
        ("a name", hosted("evil.example"), StatusCode::FORBIDDEN),
        (
            "a name with our port",
            hosted(&format!("evil.example:{port}")),
            StatusCode::FORBIDDEN,
        ),
        ("no port", hosted("localhost"), StatusCode::FORBIDDEN),
        (
            "two names",
            bed.at_register(&path)
                .header(header::HOST, format!("localhost:{port}")),
            StatusCode::FORBIDDEN,
        ),
        ("a path", bed.at_register("/"), StatusCode::NOT_FOUND),
        (
            "an id",
            bed.at_register("/subscriptions/x/register"),
            StatusCode::BAD_REQUEST,
        ),
        (
            "a method",
            bed.at_register(&path).method("PUT"),
            StatusCode::METHOD_NOT_ALLOWED,
        ),
    ] {
        let (answered, text) = bed.post(request, body.clone()).await;
        assert_eq!(answered, status, "{what}: {text}");
        assert!(!text.contains("kubeconfigs") || status != StatusCode::OK);
    }
    for (what, body, status) in [
        ("nothing", String::new(), StatusCode::BAD_REQUEST),
        ("no JSON", "hush".to_owned(), StatusCode::BAD_REQUEST),
        (
            "no kubeconfig",
            body.replace("\"kubeconfigs\":[{", "\"kubeconfigs\":[],\"x\":[{"),
            StatusCode::BAD_REQUEST,
        ),
        (
            "no base64",
            body.replace("\"value\":\"", "\"value\":\"%"),
            StatusCode::BAD_REQUEST,
        ),
        (
            "no SAS token",
            body.replace("SharedAccessSignature", "hush"),
            StatusCode::BAD_REQUEST,
        ),
        (
            "too much",
            "x".repeat(2 * 1024 * 1024),
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
    ] {
        let (answered, text) = bed.post(bed.at_register(&path), body).await;
        assert_eq!(answered, status, "{what}: {text}");
        assert!(!text.contains("hush"), "{what}: {text}");
    }
    // Nothing of it has registered anything, and clusters are reached with the secret only.
    let kubeconfig = bed.register(&cluster(), Some(&bed.token)).await;
    let server = &kubeconfig.clusters[0].cluster.server;
    let (_, base) = server.split_once("/proxies/").expect("our path");
    let request = Request::get(format!("/proxies/{base}/version"));
    let answer = bed.https(&kubeconfig, request, "").await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let page =
        Request::get("/identity/poppublickey").header(header::ORIGIN, "https://evil.example");
    let answer = bed.https(&kubeconfig, page, "").await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
}
