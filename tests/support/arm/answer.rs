//! The answers: the public examples with this cluster's own values.

use std::time::{SystemTime, UNIX_EPOCH};

use arc_cluster_connect::{
    arm::ConnectedClusterId,
    relay::{HybridConnection, SasRule},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::Shared;

/// Of the clouds in it, the private one is ours.
pub(super) fn metadata(shared: &Shared, host: &str) -> Value {
    let mut answer = parse(include_str!("fixtures/metadata.json"));
    let ours = &mut answer[1];
    ours["resourceManager"] = json!(format!("https://{host}/"));
    if let Some(authority) = &shared.state().authority {
        ours["authentication"]["loginEndpoint"] = json!(authority);
        let relay = shared.issuing.relay.authority();
        let domain = relay.split_once('.').map(|(_, domain)| domain);
        ours["suffixes"]["relayEndpointSuffix"] = json!(domain);
    }
    answer
}

pub(super) fn cluster(shared: &Shared, cluster: &ConnectedClusterId, version: &str) -> Value {
    let mut answer = parse(match version {
        "2021-10-01" => include_str!("fixtures/cluster-2021-10-01.json"),
        _ => include_str!("fixtures/cluster-2026-05-01.json"),
    });
    answer["id"] = json!(cluster.to_string());
    answer["name"] = json!(cluster.name());
    for (name, value) in &shared.state().properties {
        answer["properties"][name] = value.clone();
    }
    answer
}

/// A credential for a path of its own: the listener's, and the time of issue in nanoseconds as a double has it.
pub(super) fn credential(shared: &Shared, cluster: &ConnectedClusterId, version: &str) -> Value {
    let issuing = &shared.issuing;
    let now = SystemTime::now();
    let nanoseconds = now
        .duration_since(UNIX_EPOCH)
        .expect("the clock is right")
        .as_nanos();
    let path = format!(
        "{}/{}",
        cluster.hybrid_connection_name(),
        nanoseconds as f64 as u64
    );
    let hybrid_connection =
        HybridConnection::new(issuing.relay.clone(), &path).expect("a usable path");
    let expires_at = now + issuing.life;
    let is_stale = {
        let mut state = shared.state();
        let is_stale = state.stale > 0;
        state.stale = state.stale.saturating_sub(1);
        is_stale
    };
    let rule = if is_stale {
        // The key of before: signed well, and not taken any more.
        &SasRule::new(issuing.rule.name(), "the key of last month").expect("a rule")
    } else {
        &issuing.rule
    };
    let token = rule.sign(&hybrid_connection, expires_at + issuing.grace);
    let (namespace, _) = issuing
        .relay
        .host()
        .split_once('.')
        .expect("a host with a dot");
    let mut answer = parse(match version {
        "2021-10-01" => include_str!("fixtures/credential-2021-10-01.json"),
        _ => include_str!("fixtures/credential-2026-05-01.json"),
    });
    let config = &mut answer["hybridConnectionConfig"];
    config["expirationTime"] = json!(
        expires_at
            .duration_since(UNIX_EPOCH)
            .expect("later than 1970")
            .as_secs()
    );
    config["hybridConnectionName"] = json!(path);
    config["relay"] = json!(namespace);
    config["token"] = json!(token.secret());
    let mut state = shared.state();
    if state.clusters[0] != *cluster {
        let value = &mut answer["kubeconfigs"][0]["value"];
        *value = json!(named(value.as_str().expect("a text"), cluster.name()));
    }
    state.issued += 1;
    state.tokens.push(token.secret().to_owned());
    answer
}

/// The kubeconfig of the public example, in whose encoding it may be twice, with another name.
fn named(encoded: &str, name: &str) -> String {
    let bytes = BASE64_STANDARD.decode(encoded).expect("base64");
    let text = String::from_utf8(bytes).expect("a text");
    let text = if text.contains("apiVersion") {
        text.replace("TestCluster", name)
    } else {
        named(&text, name)
    };
    BASE64_STANDARD.encode(text)
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("a committed fixture")
}
