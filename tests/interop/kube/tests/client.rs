//! kube-rs through the whole path: over a tunnel with no local port, and at the loopback endpoint like kubectl.

#[path = "../../../support/mod.rs"]
mod support;

use std::{sync::Arc, time::Duration};

use arc_cluster_connect::{
    AuthProvider, Error, ErrorKind, KubeconfigBuilder,
    auth::{AccessToken, BearerAuth, TokenRequest},
    kubeconfig::TokenKubeconfig,
    tunnel::kube_client,
};
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client, Config,
    api::{
        AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams,
        WatchEvent, WatchParams,
    },
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use support::{
    api_server::{StandIn, User},
    embedded::Embedded,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TOKEN: &str = "the-callers-token";
/// A bound on what should happen at once. Only a failing test reaches it.
const AT_ONCE: Duration = Duration::from_secs(60);

async fn bed() -> (StandIn, Embedded) {
    let user = User::service_account("default", "robot");
    let stand_in = StandIn::builder().token(TOKEN, user);
    let stand_in = stand_in.pod("default", "web-0").start().await;
    let stand_in = stand_in.expect("a stand-in");
    let embedded = Embedded::start(&stand_in, TOKEN).await;
    (stand_in, embedded)
}

fn over_the_tunnel(embedded: &Embedded) -> Client {
    let auth = BearerAuth::fixed(TOKEN).expect("a token");
    kube_client(embedded.tunnel(), Arc::new(auth), "default")
}

async fn at_the_endpoint(embedded: &Embedded) -> Client {
    let kubeconfig = TokenKubeconfig::new("edge")
        .build(embedded.endpoint())
        .expect("a kubeconfig")
        .to_yaml()
        .expect("it can be written");
    let kubeconfig = Kubeconfig::from_yaml(&kubeconfig).expect("kube reads it");
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    Client::try_from(config.expect("a configuration")).expect("a client")
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_over_the_tunnel() {
    let (_stand_in, embedded) = bed().await;
    everything(over_the_tunnel(&embedded)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_at_the_endpoint() {
    let (_stand_in, embedded) = bed().await;
    everything(at_the_endpoint(&embedded).await).await;
}

async fn everything(client: Client) {
    tokio::time::timeout(AT_ONCE, async {
        objects(client.clone()).await;
        watch(client.clone()).await;
        logs_and_exec(client.clone()).await;
        port_forward(client).await;
    })
    .await
    .expect("nothing hangs");
}

async fn objects(client: Client) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let map: ConfigMap = serde_json::from_value(json!({
        "metadata": { "name": "made" }, "data": { "a": "1" },
    }))
    .expect("a config map");
    maps.create(&PostParams::default(), &map)
        .await
        .expect("created");
    let patch = Patch::Merge(json!({ "data": { "b": "2" } }));
    let patched = maps.patch("made", &PatchParams::default(), &patch).await;
    let data = patched.expect("patched").data.expect("data");
    assert_eq!(data["a"], "1");
    assert_eq!(data["b"], "2");
    let listed = maps.list(&ListParams::default()).await.expect("listed");
    assert!(
        listed
            .items
            .iter()
            .any(|map| map.metadata.name.as_deref() == Some("made"))
    );
    maps.delete("made", &DeleteParams::default())
        .await
        .expect("deleted");
    match maps.get("made").await {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 404),
        other => panic!("{other:?}"),
    }
}

async fn watch(client: Client) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let start = maps.list(&ListParams::default()).await.expect("listed");
    let version = start.metadata.resource_version.expect("a version");
    let events = maps.watch(&WatchParams::default(), &version).await;
    let mut events = events.expect("a watch").boxed();
    let map: ConfigMap =
        serde_json::from_value(json!({ "metadata": { "name": "watched" } })).expect("a config map");
    maps.create(&PostParams::default(), &map)
        .await
        .expect("created");
    loop {
        match events
            .try_next()
            .await
            .expect("the watch goes on")
            .expect("an event")
        {
            WatchEvent::Added(map) if map.metadata.name.as_deref() == Some("watched") => break,
            _ => {}
        }
    }
    drop(events);
    maps.delete("watched", &DeleteParams::default())
        .await
        .expect("deleted");
}

async fn logs_and_exec(client: Client) {
    let pods: Api<Pod> = Api::default_namespaced(client);
    let list = pods.list(&ListParams::default()).await.expect("pods");
    let name = list.items[0].metadata.name.clone().expect("a name");
    let logs = pods.logs(&name, &LogParams::default()).await.expect("logs");
    assert!(!logs.is_empty());

    let parameters = AttachParams::default().stdin(false).stderr(false);
    let mut process = pods
        .exec(&name, ["echo", "through the tunnel"], &parameters)
        .await
        .expect("exec");
    let mut said = String::new();
    process
        .stdout()
        .expect("standard output")
        .read_to_string(&mut said)
        .await
        .expect("it ends");
    assert_eq!(said.trim_end(), "through the tunnel");
}

async fn port_forward(client: Client) {
    let pods: Api<Pod> = Api::default_namespaced(client);
    let mut forwarder = pods
        .portforward("web-0", &[7, 8080])
        .await
        .expect("a port-forward");
    let mut echo = forwarder.take_stream(7).expect("asked for");
    let mut page = forwarder.take_stream(8080).expect("asked for");
    echo.write_all(b"marco").await.expect("taken");
    let mut back = [0; 5];
    echo.read_exact(&mut back).await.expect("echoed");
    assert_eq!(&back, b"marco");
    page.write_all(b"GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")
        .await
        .expect("taken");
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello from web-0\n") {
        assert_ne!(page.read_buf(&mut answer).await.expect("an answer"), 0);
    }
    drop((echo, page));
    forwarder.abort();
}

/// What the auth provider says reaches whoever called, and a refused token is asked for afresh.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_asked_for_afresh() {
    struct Renewed;
    #[async_trait::async_trait]
    impl AuthProvider for Renewed {
        async fn token(&self, request: &TokenRequest) -> arc_cluster_connect::Result<AccessToken> {
            match request.freshness() {
                arc_cluster_connect::auth::Freshness::Fresh => Ok(AccessToken::new(TOKEN, None)),
                _ => Ok(AccessToken::new("stale", None)),
            }
        }
    }
    let (_stand_in, embedded) = bed().await;
    let client = kube_client(embedded.tunnel(), Arc::new(Renewed), "default");
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    match maps.list(&ListParams::default()).await {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 401),
        other => panic!("{other:?}"),
    }
    maps.list(&ListParams::default())
        .await
        .expect("the fresh token is taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_has_expired_is_told() {
    struct Expired;
    #[async_trait::async_trait]
    impl AuthProvider for Expired {
        async fn token(&self, _: &TokenRequest) -> arc_cluster_connect::Result<AccessToken> {
            Err(Error::new(ErrorKind::Unauthorized, "the login has expired"))
        }
    }
    let (_stand_in, embedded) = bed().await;
    let client = kube_client(embedded.tunnel(), Arc::new(Expired), "default");
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let Err(kube::Error::Service(error)) = maps.list(&ListParams::default()).await else {
        panic!("an error of the service was expected");
    };
    let ours = error
        .downcast_ref::<Error>()
        .expect("the crate's own error");
    assert_eq!(ours.kind(), ErrorKind::Unauthorized);
}
