//! Waits until the agents serve, and says why they do not.

use std::{fmt, time::Duration};

use arc_cluster_connect::{Error, ErrorKind, Result};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::{
    kubectl::Kubectl,
    manifests::{DEPLOYMENT, NAMESPACE, POD_SELECTOR},
};
use crate::common;

/// How often the Deployment is looked at: a person waits, and the API server has other work.
const INTERVAL: Duration = Duration::from_secs(1);

/// How many pods are told about when they do not start; the rest has the same reason.
const MAX_REASONS: usize = 4;

/// Waits until every agent is available, and tells of each change on standard error.
pub async fn wait(kubectl: &Kubectl, limit: Duration) -> Result<()> {
    let mut seen = None;
    let last = &mut seen;
    let waiting = async {
        loop {
            let progress = Progress::read(&deployment(kubectl).await?);
            if last.as_ref() != Some(&progress) {
                common::progress(&progress);
            }
            if progress.is_complete() {
                return Ok(());
            }
            *last = Some(progress);
            sleep(INTERVAL).await;
        }
    };
    match timeout(limit, waiting).await {
        Ok(result) => result,
        Err(_) => Err(too_late(limit, seen, &reasons(kubectl).await)),
    }
}

async fn deployment(kubectl: &Kubectl) -> Result<Value> {
    let namespace = format!("--namespace={NAMESPACE}");
    let arguments = ["get", "deployments.apps", DEPLOYMENT, &namespace, "-o=json"];
    kubectl.json(&arguments).await
}

/// How far a Deployment is.
#[derive(Debug, PartialEq, Eq)]
struct Progress {
    seen_by_controller: bool,
    wanted: u64,
    updated: u64,
    available: u64,
    /// Old ones included.
    all: u64,
}

impl Progress {
    fn read(deployment: &Value) -> Self {
        let number = |pointer: &str| {
            let value = deployment.pointer(pointer).and_then(Value::as_u64);
            value.unwrap_or_default()
        };
        Self {
            seen_by_controller: number("/status/observedGeneration")
                >= number("/metadata/generation"),
            wanted: number("/spec/replicas"),
            updated: number("/status/updatedReplicas"),
            available: number("/status/availableReplicas"),
            all: number("/status/replicas"),
        }
    }

    fn is_complete(&self) -> bool {
        self.seen_by_controller
            && self.updated >= self.wanted
            && self.all == self.updated
            && self.available >= self.wanted
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.seen_by_controller && self.all > self.updated && self.updated >= self.wanted {
            return write!(
                f,
                "waiting for {} old agents to drain",
                self.all - self.updated
            );
        }
        // What is available may be old; the new ones are what one waits for.
        let available = self.available.min(self.updated);
        write!(f, "{available} of {} agents are available", self.wanted)
    }
}

fn too_late(limit: Duration, seen: Option<Progress>, reasons: &[String]) -> Error {
    let progress = seen.map_or_else(
        || "the cluster did not tell how far it is".to_owned(),
        |progress| progress.to_string(),
    );
    let error = Error::new(
        ErrorKind::Timeout,
        format!("after {} s {progress}", limit.as_secs()),
    )
    .with_help(format!(
        "the cluster goes on by itself; look with `kubectl --namespace {NAMESPACE} get pods` and \
         `kubectl --namespace {NAMESPACE} logs deployment/{DEPLOYMENT}`, or wait longer with --timeout"
    ));
    if reasons.is_empty() {
        error
    } else {
        error.with_source(reasons.join("; "))
    }
}

/// Why pods do not run, as far as the cluster knows. Best effort: an error is being reported already.
async fn reasons(kubectl: &Kubectl) -> Vec<String> {
    let namespace = format!("--namespace={NAMESPACE}");
    let selector = format!("--selector={POD_SELECTOR}");
    let arguments = ["get", "pods", &namespace, &selector, "-o=json"];
    let Ok(pods) = kubectl.json(&arguments).await else {
        return Vec::new();
    };
    let pods = pods["items"].as_array().into_iter().flatten();
    pods.filter_map(reason).take(MAX_REASONS).collect()
}

fn reason(pod: &Value) -> Option<String> {
    let list = |pointer: &str| pod.pointer(pointer).and_then(Value::as_array);
    let waiting = list("/status/containerStatuses")
        .into_iter()
        .flatten()
        .map(|status| &status["state"]["waiting"]);
    let unscheduled = list("/status/conditions")
        .into_iter()
        .flatten()
        .filter(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False");
    let (reason, message) = waiting
        .chain(unscheduled)
        .find_map(|why| Some((why["reason"].as_str()?, why["message"].as_str())))?;
    let pod = pod["metadata"]["name"].as_str().unwrap_or("a pod");
    Some(match message {
        Some(message) => format!("{pod}: {reason}: {message}"),
        None => format!("{pod}: {reason}"),
    })
}
