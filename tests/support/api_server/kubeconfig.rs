//! The kubeconfig that points at the stand-in.

use std::net::SocketAddr;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

pub(super) fn yaml(address: SocketAddr, ca_pem: &str, token: Option<&str>) -> String {
    let user = token.map_or_else(|| json!({}), |token| json!({ "token": token }));
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "stand-in",
            "cluster": {
                "server": format!("https://{address}"),
                "certificate-authority-data": STANDARD.encode(ca_pem),
            },
        }],
        "users": [{ "name": "stand-in", "user": user }],
        "contexts": [{
            "name": "stand-in",
            "context": { "cluster": "stand-in", "user": "stand-in", "namespace": "default" },
        }],
        "current-context": "stand-in",
    });
    serde_saphyr::to_string(&config).expect("plain maps and strings are always YAML")
}
