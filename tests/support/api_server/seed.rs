//! What a new cluster already holds.

use serde_json::{Value, json};

use super::{kubelet, resource::builtin, store::Store};

/// The namespace whose list of pods is as long as one likes.
pub(super) const BIG_NAMESPACE: &str = "big";

/// Fills a new store: the usual namespaces and accounts, one system pod, and the pods asked for.
pub(super) fn fill(store: &Store, pods: &[(String, String)]) {
    for namespace in ["default", "kube-system", BIG_NAMESPACE] {
        add_namespace(store, namespace);
    }
    add_pod(store, "kube-system", "coredns-0");
    for (namespace, name) in pods {
        if store.find(builtin("namespaces"), "", namespace).is_none() {
            add_namespace(store, namespace);
        }
        add_pod(store, namespace, name);
    }
}

/// The pod of a number in the namespace `big`.
pub(super) fn big_pod(number: usize) -> Value {
    let name = format!("pod-{number:06}");
    let mut pod = pod(&name);
    kubelet::run(&mut pod);
    pod["metadata"]["namespace"] = json!(BIG_NAMESPACE);
    pod["metadata"]["uid"] = json!(format!("00000000-0000-4000-8000-{number:012}"));
    pod["metadata"]["resourceVersion"] = json!("1");
    pod["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    pod
}

fn add_namespace(store: &Store, name: &str) {
    let namespace = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/metadata.name": name } },
        "spec": { "finalizers": ["kubernetes"] },
        "status": { "phase": "Active" },
    });
    let account = json!({ "metadata": { "name": "default" } });
    store
        .create(builtin("namespaces"), "", namespace)
        .and_then(|_| store.create(builtin("serviceaccounts"), name, account))
        .expect("a new store has no such namespace");
}

fn add_pod(store: &Store, namespace: &str, name: &str) {
    let mut pod = pod(name);
    kubelet::run(&mut pod);
    // Asked for twice is still one pod.
    let _ = store.create(builtin("pods"), namespace, pod);
}

fn pod(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "containers": [{ "name": "main", "image": "stand-in:1", "stdin": true }],
            "restartPolicy": "Always",
            "serviceAccountName": "default",
        },
    })
}
