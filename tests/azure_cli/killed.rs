//! A proxy that is killed leaves a context that leads nowhere; the next one takes it out.

use super::{
    bed::{Bed, CONTEXT, HOME, POD, texts},
    support::kubectl,
};

#[tokio::test]
async fn the_next_start_repairs_what_a_killed_proxy_left() {
    if !kubectl::is_installed("the_next_start_repairs_what_a_killed_proxy_left") {
        return;
    }
    let bed = Bed::start().await;
    bed.write("kubeconfig", HOME);
    let arguments = [bed.place(), bed.application()];
    bed.proxy(&arguments).await.kill().await;
    let left = bed.read("kubeconfig");
    assert!(left.contains(CONTEXT), "{left}");
    let secret = bed.run_secret();
    // Nobody finds it among the running ones.
    let printed = bed.run("kubeconfig", &[]).await;
    assert_eq!(printed.status.code(), Some(1), "{printed:?}");

    // Under another name, so that it is no mere replacement.
    let named = texts(&["--kube-context", "mine"]);
    let switch = texts(&["--switch-context"]);
    let proxy = bed
        .proxy(&[bed.place(), bed.application(), named, switch])
        .await;
    let repaired = bed.read("kubeconfig");
    assert!(!repaired.contains(&secret), "{repaired}");
    assert!(repaired.contains("current-context: mine"), "{repaired}");
    let kubectl = bed.kubectl();
    let contexts = kubectl.run(&["config", "get-contexts", "-o", "name"]).await;
    assert_eq!(contexts.succeeded().text(), "home\nmine\n");
    let listed = kubectl.run(&["get", "pods", "-o", "name"]).await;
    assert_eq!(listed.succeeded().text().trim(), format!("pod/{POD}"));

    assert!(proxy.terminate().await.status.success());
    assert_eq!(bed.read("kubeconfig"), HOME);
}
