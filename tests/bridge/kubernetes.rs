//! kubectl through the loopback endpoint and a bridge to an API server, with no agent anywhere.

use std::sync::Arc;

use arc_cluster_connect::{
    KubeconfigBuilder, Tunnel,
    auth::BearerAuth,
    kubeconfig::TokenKubeconfig,
    net::{Connector, Endpoint, Security, TrustRoots},
    proxy::{Proxy, ProxyId},
    tunnel::{OpenOptions, Target},
};
use tempfile::TempDir;

use super::{
    bed::{Bed, echo_server},
    listener::Forward,
    support::{
        api_server::{StandIn, User, random_token},
        kubectl::{self, Kubectl},
        programs::{self, Program},
        scenarios,
    },
};

const POD: &str = "web-0";

async fn stand_in(token: &str) -> StandIn {
    let user = User::service_account("default", "robot");
    let stand_in = StandIn::builder().token(token, user).pod("default", POD);
    stand_in.start().await.expect("the stand-in starts")
}

/// Trusts the stand-in, which is known by the name `localhost`.
fn trusting(stand_in: &StandIn) -> Connector {
    let roots = TrustRoots::only_pem(stand_in.ca_pem().as_bytes()).expect("a certificate");
    Connector::new(roots).expect("roots")
}

fn api_server(stand_in: &StandIn) -> Endpoint {
    Endpoint::new("localhost", stand_in.address().port(), Security::Tls)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_kubectl_does_goes_through_a_bridge() {
    if !kubectl::is_installed("all_that_kubectl_does_goes_through_a_bridge") {
        return;
    }
    let token = random_token();
    let stand_in = stand_in(&token).await;
    let bed = Bed::start().await;
    let _listener = bed
        .listener(&[("k8s", Forward::Tcp(stand_in.address()))])
        .await;
    let tunnel: Arc<dyn Tunnel> = Arc::new(
        bed.tunnel("k8s")
            .with_tls(trusting(&stand_in), api_server(&stand_in))
            .with_warm(2),
    );
    let id = ProxyId::from_name("bridged");
    let auth = BearerAuth::fixed(&token).expect("a token");
    let proxy = Proxy::builder()
        .port(0)
        .cluster(id, Arc::clone(&tunnel), Arc::new(auth))
        .start()
        .await
        .expect("the proxy starts");
    let endpoint = proxy.endpoint(&id).expect("it was registered");
    let kubeconfig = TokenKubeconfig::new("bridged")
        .build(&endpoint)
        .and_then(|kubeconfig| kubeconfig.to_yaml())
        .expect("a kubeconfig");
    let home = TempDir::new().expect("a directory");
    std::fs::write(home.path().join("config"), kubeconfig).expect("it is written");
    scenarios::all(&Kubectl::new(home.path().join("config")), POD).await;
    assert!(tunnel.status().bytes_received > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opening_with_tls_inside_proves_who_is_there() {
    let stand_in = stand_in(&random_token()).await;
    let bed = Bed::start().await;
    let ports = [
        ("k8s", Forward::Tcp(stand_in.address())),
        ("echo", Forward::Tcp(echo_server().await)),
    ];
    let _listener = bed.listener(&ports).await;
    let open = async |port: &str, connector: Connector, host: &str| {
        let endpoint = Endpoint::new(host, 443, Security::Tls);
        let tunnel = bed.tunnel(port).with_tls(connector, endpoint);
        tunnel.open(&Target::api_server(), OpenOptions::new()).await
    };
    open("k8s", trusting(&stand_in), "localhost")
        .await
        .expect("it is the API server");
    for (port, connector, host) in [
        // Another authority's, another name's, and none at all.
        ("k8s", bed.connector.clone(), "localhost"),
        ("k8s", trusting(&stand_in), "elsewhere.example"),
        ("echo", trusting(&stand_in), "localhost"),
    ] {
        let error = open(port, connector, host)
            .await
            .expect_err("it is refused");
        assert_eq!(
            error.kind(),
            arc_cluster_connect::ErrorKind::Tls,
            "{}",
            error.report()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_takes_a_bridge_port() {
    if !kubectl::is_installed("the_program_takes_a_bridge_port") {
        return;
    }
    let token = random_token();
    let stand_in = stand_in(&token).await;
    let bed = Bed::start().await;
    let ports = [
        ("k8s", Forward::Tcp(stand_in.address())),
        ("udp", Forward::Udp),
    ];
    let _listener = bed.listener(&ports).await;
    let home = TempDir::new().expect("a directory");
    let file = |name: &str, content: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, content).expect("it is written");
        path.to_str().expect("text").to_owned()
    };
    let (string, token) = (file("relay", &bed.text), file("token", &token));
    let ca = file("ca.crt", stand_in.ca_pem());
    let kubeconfig = file("kubeconfig", "");
    let arguments = |port: &'static str| {
        [
            "proxy",
            "--connection-string-file",
            &string,
            "--token-file",
            &token,
            "--file",
            &kubeconfig,
            "--port",
            "0",
            "--bridge-ca",
            &ca,
            "--bridge-server-name",
            "localhost",
            "--bridge-port",
            port,
        ]
        .map(str::to_owned)
    };
    let k8s = arguments("k8s");
    let k8s: Vec<_> = k8s.iter().map(String::as_str).collect();
    let program = Program::start("arc-connect", home.path(), &k8s).await;
    scenarios::get_pods(&Kubectl::new(&kubeconfig), POD).await;
    assert!(program.terminate().await.status.success());

    for (port, part) in [
        ("nobody", "has no port named nobody"),
        ("udp", "is for datagrams"),
    ] {
        let arguments = arguments(port);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let ended = programs::run("arc-connect", &arguments).await;
        assert!(!ended.status.success());
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}
