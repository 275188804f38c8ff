//! Several clusters behind one port.

use super::{
    bed::{Bed, CONTEXT, GROUP, HOME, NAME, POD, SUBSCRIPTION, cluster, texts},
    support::kubectl,
};

const OTHER: &str = "till-8";

#[tokio::test]
async fn each_cluster_has_a_context_of_its_own() {
    if !kubectl::is_installed("each_cluster_has_a_context_of_its_own") {
        return;
    }
    let bed = Bed::with_clusters(&[NAME, OTHER]).await;
    bed.write("kubeconfig", HOME);
    let place = bed.cloud(&[
        "-n",
        NAME,
        "-n",
        OTHER,
        "-g",
        GROUP,
        "--subscription",
        SUBSCRIPTION,
    ]);
    let proxy = bed.proxy(&[place, bed.application()]).await;
    let kubectl = bed.kubectl();
    for context in [CONTEXT, OTHER] {
        let list = ["--context", context, "get", "pods", "-o", "name"];
        let listed = kubectl.run(&list).await.succeeded();
        assert_eq!(listed.text().trim(), format!("pod/{POD}"));
    }
    let current = kubectl.run(&["config", "current-context"]).await;
    assert_eq!(current.succeeded().text().trim(), "home");

    assert!(proxy.terminate().await.status.success());
    assert_eq!(bed.read("kubeconfig"), HOME);
}

#[tokio::test]
async fn one_that_can_not_be_reached_keeps_nobody_from_the_others() {
    if !kubectl::is_installed("one_that_can_not_be_reached_keeps_nobody_from_the_others") {
        return;
    }
    let bed = Bed::start().await;
    let place = bed.cloud(&[
        "--cluster-id",
        &cluster("gone").to_string(),
        "--cluster-id",
        &bed.id.to_string(),
    ]);
    let proxy = bed.proxy(&[place.clone(), bed.application()]).await;
    assert_eq!(proxy.ready()["context"], CONTEXT);
    let list = ["get", "pods", "-o", "name"];
    let listed = bed.kubectl().run(&list).await.succeeded();
    assert_eq!(listed.text().trim(), format!("pod/{POD}"));
    let ended = proxy.terminate().await;
    assert!(
        ended.stderr.contains("gone in shop is left out"),
        "{ended:?}"
    );

    bed.arm.set_property("connectivityStatus", "Offline");
    let file = texts(&["--port=0", "--file=-"]);
    let ended = bed.run("proxy", &[place, bed.application(), file]).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("none of the clusters can be reached"),
        "{ended:?}"
    );
}
