//! The agent's pod: what it is allowed, what it mounts, whom it talks to, how it ends.

use serde_json::{Value, json};

use super::{manifest_files::embedded, manifests::Impersonation, support::programs};

/// How long the agent lets streams end after it was told to stop (`agent::serve::DRAIN_LIMIT`).
const DRAIN_SECONDS: u64 = 30;

fn object(kind: &str) -> Value {
    embedded(Impersonation::Classic)
        .into_iter()
        .find(|object| object["kind"] == kind)
        .unwrap_or_else(|| panic!("there is a {kind}"))
}

fn pod() -> Value {
    object("Deployment")["spec"]["template"].clone()
}

fn container() -> Value {
    let pod = pod();
    let containers = pod["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    assert!(pod["spec"]["initContainers"].is_null());
    containers[0].clone()
}

#[test]
fn the_container_has_no_privilege_at_all() {
    let pod = pod();
    let security = &pod["spec"]["securityContext"];
    assert_eq!(security["runAsNonRoot"], true);
    assert_ne!(security["runAsUser"].as_u64().unwrap(), 0);
    assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
    for shared in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"] {
        assert!(pod["spec"][shared].is_null(), "{shared}");
    }

    let container = container();
    let security = &container["securityContext"];
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["privileged"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["runAsNonRoot"], true);
    assert_eq!(security["capabilities"], json!({ "drop": ["ALL"] }));
    for port in container["ports"].as_array().unwrap() {
        assert!(port["hostPort"].is_null());
    }
    for kind in ["requests", "limits"] {
        for resource in ["cpu", "memory"] {
            assert!(
                container["resources"][kind][resource].is_string(),
                "{kind} {resource}"
            );
        }
    }
    // The cluster enforces the same, whatever this file becomes.
    let labels = &object("Namespace")["metadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
}

#[test]
fn it_mounts_a_secret_and_a_short_lived_token_and_nothing_of_the_host() {
    let pod = pod();
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    for volume in volumes {
        let mut sources: Vec<&str> = volume
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        sources.retain(|member| *member != "name");
        assert!(
            sources == ["secret"] || sources == ["projected"],
            "{sources:?}"
        );
    }
    let secret = volumes
        .iter()
        .find_map(|volume| volume.get("secret"))
        .unwrap();
    assert_eq!(secret["secretName"], "arc-agent-relay");
    // The world reads nothing of it.
    assert_eq!(secret["defaultMode"].as_u64().unwrap(), 0o440);

    let sources = volumes
        .iter()
        .find_map(|volume| volume["projected"]["sources"].as_array())
        .unwrap();
    let token = sources
        .iter()
        .find_map(|source| source.get("serviceAccountToken"))
        .unwrap();
    assert!(token["expirationSeconds"].as_u64().unwrap() <= 3600);

    let container = container();
    for mount in container["volumeMounts"].as_array().unwrap() {
        assert_eq!(mount["readOnly"], true);
        assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]));
    }
}

#[test]
fn no_secret_stands_in_the_arguments_or_the_environment() {
    let container = container();
    assert!(container["env"].is_null() && container["envFrom"].is_null());
    for argument in container["args"].as_array().unwrap() {
        let argument = argument.as_str().unwrap();
        assert!(!argument.to_lowercase().contains("sharedaccesskey"));
    }
    let file = container["args"][0].as_str().unwrap();
    assert_eq!(
        file,
        "--connection-string-file=/etc/arc-agent/relay/connection-string"
    );
}

/// A flag that the agent does not know would be a crash loop in every cluster.
#[tokio::test]
async fn the_agent_knows_every_argument() {
    let help = programs::run("arc-agent", &["--help"]).await.stdout;
    for argument in container()["args"].as_array().unwrap() {
        let flag = argument.as_str().unwrap().split('=').next().unwrap();
        let is_known = help
            .split(|c: char| c.is_whitespace() || c == ',')
            .any(|word| word == flag);
        assert!(is_known, "{flag}: {help}");
    }
}

#[test]
fn two_agents_stand_apart_and_one_always_stays() {
    let deployment = object("Deployment");
    let spec = &deployment["spec"];
    assert_eq!(spec["replicas"], 2);
    assert_eq!(spec["strategy"]["rollingUpdate"]["maxUnavailable"], 0);

    let labels = &spec["template"]["metadata"]["labels"];
    let selects = |selector: &Value| {
        let wanted = selector["matchLabels"].as_object().unwrap();
        !wanted.is_empty() && wanted.iter().all(|(name, value)| labels[name] == *value)
    };
    assert!(selects(&spec["selector"]));
    let spread = spec["template"]["spec"]["topologySpreadConstraints"]
        .as_array()
        .unwrap();
    assert!(
        spread
            .iter()
            .any(|rule| rule["topologyKey"] == "kubernetes.io/hostname")
    );
    assert!(spread.iter().all(|rule| selects(&rule["labelSelector"])));

    let budget = object("PodDisruptionBudget");
    assert_eq!(budget["spec"]["minAvailable"], 1);
    assert!(selects(&budget["spec"]["selector"]));
    assert!(selects(&object("NetworkPolicy")["spec"]["podSelector"]));
}

#[test]
fn probes_ask_the_health_port_and_the_end_comes_after_the_drain() {
    let container = container();
    let health = &container["ports"][0];
    assert_eq!(container["ports"].as_array().unwrap().len(), 1);
    let port = &health["containerPort"];
    for (probe, path) in [
        ("startupProbe", "/livez"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ] {
        assert_eq!(container[probe]["httpGet"]["path"], path);
        assert_eq!(container[probe]["httpGet"]["port"], health["name"]);
    }
    let listens = format!("--health=0.0.0.0:{port}");
    assert!(
        container["args"]
            .as_array()
            .unwrap()
            .contains(&json!(listens))
    );

    let grace = &pod()["spec"]["terminationGracePeriodSeconds"];
    assert!(grace.as_u64().unwrap() > DRAIN_SECONDS);

    let policy = object("NetworkPolicy");
    let ingress = json!([{ "ports": [{ "port": port, "protocol": "TCP" }] }]);
    assert_eq!(policy["spec"]["ingress"], ingress);
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    let mut egress: Vec<u64> = policy["spec"]["egress"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|rule| rule["ports"].as_array().unwrap())
        .map(|port| port["port"].as_u64().unwrap())
        .collect();
    egress.sort_unstable();
    egress.dedup();
    assert_eq!(egress, [53, 443, 6443]);
}
