//! What scheduler and kubelet do for a pod, as far as clients see it: it is pending, and soon it runs.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{resource::builtin, server::Server, status::Status, store};

/// How long a new pod is pending: long enough that a watch sees both states, short enough not to wait for.
const START_AFTER: Duration = Duration::from_millis(100);

/// Gives a pod that was just sent the state of one that is not scheduled yet.
pub(super) fn accept_pod(pod: &mut Value) -> Result<(), Status> {
    let containers = pod["spec"]["containers"].as_array();
    if containers.is_none_or(Vec::is_empty) {
        return Err(Status::bad_request("spec.containers: Required value"));
    }
    pod["status"] = json!({ "phase": "Pending" });
    Ok(())
}

/// Lets a pod run soon.
pub(super) fn start_pod(server: &Arc<Server>, pod: &Value) {
    let text = |pointer: &str| {
        pod.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let store = Arc::clone(&server.store);
    server.spawn(async move {
        tokio::time::sleep(START_AFTER).await;
        let started = store.update(builtin("pods"), &namespace, &name, |pod| {
            let mut pod = pod.clone();
            run(&mut pod);
            Ok(pod)
        });
        // Deleted meanwhile: then there is nothing to start.
        drop(started);
    });
}

/// Makes a pod one whose containers all run.
pub(super) fn run(pod: &mut Value) {
    let started_at = store::now();
    let statuses: Vec<Value> = pod["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|container| {
            json!({
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": true,
                "started": true,
                "restartCount": 0,
                "state": { "running": { "startedAt": started_at } },
            })
        })
        .collect();
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(|condition| {
        json!({ "type": condition, "status": "True", "lastTransitionTime": started_at })
    });
    pod["spec"]["nodeName"] = json!("node-1");
    pod["status"] = json!({
        "phase": "Running",
        "podIP": "10.244.0.10",
        "hostIP": "192.0.2.1",
        "startTime": started_at,
        "conditions": conditions,
        "containerStatuses": statuses,
    });
}
