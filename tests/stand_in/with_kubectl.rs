//! Real kubectl, straight against the stand-in.

use http::header;

use super::{
    client::{TOKEN, none_live, start, written},
    support::{
        api_server::{ListFault, StandIn, User, random_token},
        kubectl::{self, Kubectl, Transport},
        scenarios,
    },
};

async fn run_all(transport: Transport) {
    let token = random_token();
    let stand_in = StandIn::builder()
        .token(&token, User::service_account("default", "admin-user"))
        .pod("default", "web")
        .start()
        .await
        .unwrap();
    let kubeconfig = written(&stand_in.kubeconfig(Some(&token)));
    let kubectl = Kubectl::new(kubeconfig.path()).with_transport(transport);
    scenarios::all(&kubectl, "web").await;

    let upgrade = match transport {
        Transport::WebSocket => "websocket",
        Transport::Spdy => "SPDY/3.1",
    };
    let upgrades: Vec<_> = stand_in
        .requests()
        .into_iter()
        .filter_map(|request| request.headers.get(header::UPGRADE).cloned())
        .collect();
    assert!(!upgrades.is_empty());
    // An old kubectl knows no WebSocket; what it was told does not matter to it.
    if std::env::var_os("KUBECTL").is_none() {
        assert!(
            upgrades.iter().all(|other| other == upgrade),
            "{upgrades:?}"
        );
    }
    none_live(&stand_in).await;
    stand_in.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_over_websocket() {
    if kubectl::is_installed("everything_over_websocket") {
        run_all(Transport::WebSocket).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_over_spdy() {
    if kubectl::is_installed("everything_over_spdy") {
        run_all(Transport::Spdy).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_list_is_an_error_and_not_a_short_list() {
    if !kubectl::is_installed("a_cut_list_is_an_error_and_not_a_short_list") {
        return;
    }
    let stand_in = start().await;
    let kubeconfig = written(&stand_in.kubeconfig(Some(TOKEN)));
    let kubectl = Kubectl::new(kubeconfig.path());
    stand_in
        .faults()
        .set_list(Some(ListFault::AbortAfter(100_000)));
    let finished = kubectl.run(&["get", "pods", "-n", "big"]).await;
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert_eq!(finished.text(), "");
}
