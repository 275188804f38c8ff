//! The objects of the agent, from the files in `deploy/` that `kubectl apply -k` reads too.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

/// Where everything that has a namespace lives, but for one binding that has to be where the API server's own role is.
pub const NAMESPACE: &str = "arc-cluster-connect";

/// The agents.
pub const DEPLOYMENT: &str = "arc-agent";

/// What selects the agents' pods.
pub const POD_SELECTOR: &str = "app.kubernetes.io/name=arc-agent";

/// The Secret that the Deployment mounts. It has no file, so that no repository ever holds it.
const RELAY_SECRET: &str = "arc-agent-relay";
const RELAY_SECRET_KEY: &str = "connection-string";

/// On the pods: which version of the Secret they were started with. The agent reads its connection string at the start,
/// so another one has to start other pods.
const SECRET_VERSION_ANNOTATION: &str = "arc-cluster-connect/relay-secret-version";

/// How the agent is allowed to act as its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impersonation {
    /// The verb `impersonate`: every Kubernetes.
    Classic,
    /// KEP-5284: whom, and what for.
    Constrained,
}

/// What the files leave open.
pub struct Settings<'a> {
    pub image: &'a str,
    /// For the agent, besides the arguments in the file.
    pub agent_arguments: &'a [String],
    /// The network policy lets the agents go there.
    pub relay_port: u16,
    /// Set once the Secret is stored.
    pub secret_version: Option<&'a str>,
}

const NAMESPACE_FILE: &str = include_str!("../../../deploy/base/namespace.yaml");
const DEPLOYMENT_FILE: &str = include_str!("../../../deploy/base/deployment.yaml");
const NETWORK_POLICY_FILE: &str = include_str!("../../../deploy/base/network-policy.yaml");
/// The rest of the base.
const OTHER_FILES: [&str; 4] = [
    include_str!("../../../deploy/base/service-account.yaml"),
    include_str!("../../../deploy/base/cluster-role-binding.yaml"),
    include_str!("../../../deploy/base/front-proxy-headers.yaml"),
    include_str!("../../../deploy/base/pod-disruption-budget.yaml"),
];
const CLASSIC_ROLE: &str = include_str!("../../../deploy/overlays/classic/cluster-role.yaml");
const CONSTRAINED_ROLE: &str =
    include_str!("../../../deploy/overlays/constrained/cluster-role.yaml");

/// The namespace, as it stands in its file.
pub fn namespace() -> Value {
    parse(NAMESPACE_FILE)
}

/// What goes into the namespace and around it, as it stands in the files; the Deployment last, when all that it needs
/// is there.
pub fn objects(impersonation: Impersonation) -> Vec<Value> {
    let role = match impersonation {
        Impersonation::Classic => CLASSIC_ROLE,
        Impersonation::Constrained => CONSTRAINED_ROLE,
    };
    let mut objects = vec![parse(role)];
    objects.extend(OTHER_FILES.into_iter().map(parse));
    objects.push(parse(NETWORK_POLICY_FILE));
    objects.push(parse(DEPLOYMENT_FILE));
    objects
}

/// The same with what the files leave open.
pub fn customized(impersonation: Impersonation, settings: &Settings<'_>) -> Vec<Value> {
    let mut objects = objects(impersonation);
    for object in &mut objects {
        match object["kind"].as_str() {
            Some("Deployment") => customize_deployment(object, settings),
            Some("NetworkPolicy") => allow_egress(object, settings.relay_port),
            _ => {}
        }
    }
    objects
}

fn customize_deployment(deployment: &mut Value, settings: &Settings<'_>) {
    let template = &mut deployment["spec"]["template"];
    if let Some(version) = settings.secret_version {
        template["metadata"]["annotations"][SECRET_VERSION_ANNOTATION] = json!(version);
    }
    let container = &mut template["spec"]["containers"][0];
    container["image"] = json!(settings.image);
    if let Some(arguments) = container["args"].as_array_mut() {
        arguments.extend(settings.agent_arguments.iter().map(|text| json!(text)));
    }
}

fn allow_egress(policy: &mut Value, port: u16) {
    let Some(rules) = policy["spec"]["egress"].as_array_mut() else {
        return;
    };
    let port = json!({ "port": port, "protocol": "TCP" });
    let is_allowed = |rule: &Value| {
        let ports = rule["ports"].as_array();
        ports.is_some_and(|ports| ports.contains(&port))
    };
    if !rules.iter().any(is_allowed) {
        rules.push(json!({ "ports": [port] }));
    }
}

/// The Secret with the relay's connection string.
pub fn relay_secret(connection_string: &str) -> Value {
    let mut secret = relay_secret_name();
    secret["type"] = json!("Opaque");
    secret["metadata"]["labels"] = parse(DEPLOYMENT_FILE)["metadata"]["labels"].clone();
    secret["data"] = json!({ RELAY_SECRET_KEY: BASE64_STANDARD.encode(connection_string) });
    secret
}

/// Everything in the order in which it is taken away: first the agent's rights. The namespace is not among it, since
/// with it would go whatever else somebody put there.
pub fn removal() -> Vec<Value> {
    let rank = |object: &Value| match object["kind"].as_str() {
        Some("ClusterRoleBinding") => 0,
        Some("ClusterRole" | "RoleBinding") => 1,
        Some("Deployment") => 2,
        _ => 3,
    };
    // Both forms have the same names.
    let mut objects = objects(Impersonation::Classic);
    objects.push(relay_secret_name());
    objects.sort_by_key(rank);
    objects
}

/// What `kubectl … -f -` takes for several objects at once.
pub fn list(objects: Vec<Value>) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": objects })
}

fn relay_secret_name() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": RELAY_SECRET, "namespace": NAMESPACE },
    })
}

fn parse(file: &str) -> Value {
    serde_saphyr::from_str(file).expect("the embedded manifests are YAML: a test parses each")
}
