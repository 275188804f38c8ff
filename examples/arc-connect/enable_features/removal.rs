//! Takes away what `enable-features` applied, and not a thing more.

use std::time::Duration;

use arc_cluster_connect::Result;

use super::{
    kubectl::Kubectl,
    manifests::{self, NAMESPACE},
};
use crate::common;

/// What a cluster itself puts into every namespace.
const OF_EVERY_NAMESPACE: [&str; 3] = [
    "configmap/kube-root-ca.crt",
    "configmap/openshift-service-ca.crt",
    "serviceaccount/default",
];

/// What is only about other objects, and goes by itself.
const ABOUT_OTHERS: [&str; 2] = ["event/", "event.events.k8s.io/"];

/// Deletes the agent's objects, then its namespace unless somebody else uses it.
pub async fn remove(kubectl: &Kubectl, limit: Duration) -> Result<()> {
    let limit = format!("--timeout={}s", limit.as_secs());
    let delete = [
        "delete",
        "--ignore-not-found",
        // The pods are gone, and their streams drained, when this ends.
        "--cascade=foreground",
        "--wait",
        &limit,
        "--filename=-",
    ];
    let objects = manifests::list(manifests::removal());
    show(&kubectl.run(&delete, objects.to_string().as_bytes()).await?);

    match others(kubectl).await {
        Ok(others) if others.is_empty() => {
            let namespace = manifests::namespace().to_string();
            show(&kubectl.run(&delete, namespace.as_bytes()).await?);
        }
        Ok(others) => common::note(format_args!(
            "the namespace {NAMESPACE} stays, because it holds more than the agent: {}",
            others.join(", ")
        )),
        Err(_) => common::note(format_args!(
            "the namespace {NAMESPACE} stays, because what it holds can not be listed; \
             `kubectl delete namespace {NAMESPACE}` removes it with everything inside"
        )),
    }
    Ok(())
}

/// What is in the namespace and not of the cluster's own making.
async fn others(kubectl: &Kubectl) -> Result<Vec<String>> {
    let kinds = kubectl
        .run(
            &[
                "api-resources",
                "--namespaced",
                // What can not be deleted, such as a pod's metrics, is nobody's property.
                "--verbs=list,delete",
                "--output=name",
            ],
            b"",
        )
        .await?;
    let kinds: Vec<&str> = kinds.lines().collect();
    let namespace = format!("--namespace={NAMESPACE}");
    let arguments = [
        "get",
        &kinds.join(","),
        &namespace,
        "--ignore-not-found",
        "--output=name",
    ];
    let found = kubectl.run(&arguments, b"").await?;
    let others = found.lines().filter(|name| {
        !OF_EVERY_NAMESPACE.contains(name)
            && !ABOUT_OTHERS.iter().any(|prefix| name.starts_with(prefix))
    });
    Ok(others.map(str::to_owned).collect())
}

fn show(lines: &str) {
    for line in lines.lines() {
        common::progress(line);
    }
}
