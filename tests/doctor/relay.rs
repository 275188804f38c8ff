//! With a connection string alone.

use std::net::TcpListener as Port;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use super::{
    bed::{Bed, Desk, ROBOT, Wire},
    support::{api_server::Access, authority::now, programs},
};

/// All that the way through a relay has, in order.
const CHECKS: [&str; 12] = [
    "local.port",
    "local.kubeconfig",
    "network.proxy",
    "network.clock",
    "relay.endpoint",
    "relay.key",
    "relay.listener",
    "caller.token",
    "agent.answers",
    "agent.api-server",
    "cluster.identity",
    "cluster.rights",
];

fn jwt(claims: &serde_json::Value) -> String {
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2ln", part(&json!({ "alg": "RS256" })), part(claims))
}

#[tokio::test]
async fn a_healthy_way_passes_every_check() {
    let bed = Bed::start(Wire::Tls, Access::Everything).await;
    let ca = bed.certificate.as_ref().unwrap().ca_pem.clone();
    let ca = bed.desk.write("ca", &ca);
    let found = bed.examine(&["--relay-ca", &ca]).await;
    found.assert_healthy();
    let checks = found.report["checks"].as_array().unwrap();
    let names: Vec<_> = checks
        .iter()
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, CHECKS);
    assert_eq!(found.with_result("ok"), CHECKS, "{:#}", found.report);
    assert_eq!(found.report["result"], "ok");
    assert_eq!(found.report["counts"]["ok"], CHECKS.len());

    let steps = found.check("relay.endpoint")["steps"].as_array().unwrap();
    let names: Vec<_> = steps
        .iter()
        .map(|step| step["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["dns", "tcp", "tls", "websocket"]);
    assert_eq!(
        steps[2]["detail"],
        "issued by CA of a local token authority"
    );
    let identity = found.check("cluster.identity")["detail"].as_str().unwrap();
    assert!(identity.starts_with(ROBOT), "{identity}");
    assert_eq!(found.check("cluster.rights")["detail"], "everything");
    // The agent was left in peace: it serves the next one.
    bed.examine(&["--relay-ca", &ca]).await.assert_healthy();
}

#[tokio::test]
async fn a_person_gets_a_table_and_no_secret() {
    let bed = Bed::start(Wire::Plain, Access::ReadOnly).await;
    let arguments = bed.arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = programs::run_command(bed.desk.command(&arguments)).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let line = ended
        .stdout
        .lines()
        .find(|line| line.contains("cluster.rights"));
    let line = line.unwrap_or_else(|| panic!("{ended:?}"));
    assert!(
        line.starts_with("ok ") && line.contains("get/list/watch"),
        "{line}"
    );
    assert!(ended.stdout.ends_with("\n12 ok\n"), "{ended:?}");
    let token = std::fs::read_to_string(bed.desk.path("token")).unwrap();
    let connection_string = bed.connection_string();
    let key = connection_string.split("SharedAccessKey=").nth(1).unwrap();
    let key = key.split(';').next().unwrap();
    for secret in [&token, key] {
        assert!(!ended.stdout.contains(secret) && !ended.stderr.contains(secret));
    }
}

#[tokio::test]
async fn a_host_that_does_not_exist() {
    let desk = Desk::new();
    let string = "Endpoint=sb://no-such-host.invalid/;SharedAccessKeyName=root;SharedAccessKey=k;EntityPath=till";
    let found = desk.examine_relay(string).await;
    found.assert_failed(
        &["relay.endpoint"],
        "dns: the name no-such-host.invalid does not resolve",
        "check the spelling and this machine's DNS server",
    );
    for skipped in [
        "relay.key",
        "relay.listener",
        "agent.answers",
        "cluster.rights",
    ] {
        assert_eq!(found.result(skipped), "skipped");
    }
}

#[tokio::test]
async fn a_port_at_which_nothing_listens() {
    let desk = Desk::new();
    let port = Port::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let string = format!(
        "Endpoint=ws://{address}/;SharedAccessKeyName=root;SharedAccessKey=k;EntityPath=till"
    );
    desk.examine_relay(&string).await.assert_failed(
        &["relay.endpoint"],
        "tcp: can not connect",
        "nothing listens there",
    );
}

#[tokio::test]
async fn a_proxy_of_the_environment_that_is_not_used() {
    let desk = Desk::new();
    let string = "Endpoint=sb://no-such-host.invalid/;SharedAccessKeyName=root;SharedAccessKey=k;EntityPath=till";
    let relay = desk.write("relay", string);
    let mut command = desk.command(&["--json", "--connection-string-file", &relay]);
    command.env("HTTPS_PROXY", "http://jane:hush@proxy.corp:3128");
    let found = super::bed::Found::of(programs::run_command(command).await);
    assert_eq!(found.result("network.proxy"), "warning");
    let advice = found.check("relay.endpoint")["advice"].as_str().unwrap();
    assert!(advice.ends_with("try --https-proxy env"), "{advice}");
    assert!(!found.ended.stdout.contains("hush"));
    assert_eq!(found.result("caller.token"), "failed");
}

#[tokio::test]
async fn an_authority_that_is_not_trusted() {
    let bed = Bed::without_agent(Wire::Tls, Access::Everything).await;
    let found = bed.examine(&[]).await;
    found.assert_failed(
        &["relay.endpoint"],
        "its certificate is issued by CA of a local token authority",
        "--relay-ca FILE",
    );
}

#[tokio::test]
async fn a_key_that_is_wrong() {
    let bed = Bed::start(Wire::Plain, Access::Everything).await;
    let connection_string = bed.connection_string();
    let key = connection_string.split("SharedAccessKey=").nth(1).unwrap();
    let key = key.split(';').next().unwrap();
    let wrong = connection_string.replace(key, "d3Jvbmc=");
    bed.desk.examine_relay(&wrong).await.assert_failed(
        &["relay.key"],
        "401",
        "copy SharedAccessKeyName and SharedAccessKey of the relay again",
    );
}

#[tokio::test]
async fn a_relay_at_which_no_agent_listens() {
    let bed = Bed::without_agent(Wire::Plain, Access::Everything).await;
    let found = bed.examine(&[]).await;
    found.assert_failed(
        &["relay.listener"],
        "404",
        "no agent is connected to this hybrid connection: start it",
    );
    assert_eq!(found.result("relay.key"), "ok");
    assert_eq!(found.result("agent.answers"), "skipped");
}

#[tokio::test]
async fn an_agent_without_its_api_server() {
    let mut bed = Bed::start(Wire::Plain, Access::Everything).await;
    let another = super::support::api_server::StandIn::builder().start().await;
    let gone = std::mem::replace(&mut bed.stand_in, another.expect("a free port"));
    gone.kill().await;
    let found = bed.examine(&[]).await;
    found.assert_failed(
        &["agent.api-server"],
        "the agent got no answer from the API server",
        "the agent runs and can not reach its API server",
    );
    assert_eq!(found.result("agent.answers"), "ok");
    assert_eq!(found.result("cluster.rights"), "skipped");
}

#[tokio::test]
async fn a_token_that_has_expired() {
    let bed = Bed::start(Wire::Plain, Access::Everything).await;
    bed.desk.write(
        "token",
        &jwt(&json!({ "sub": ROBOT, "aud": ["https://kubernetes"], "exp": now() - 7_300 })),
    );
    let found = bed.examine(&[]).await;
    found.assert_failed(
        &["caller.token"],
        "has expired",
        "kubectl create token NAME",
    );
    // Up to there all is well.
    assert_eq!(found.result("relay.listener"), "ok");
    assert_eq!(found.result("agent.answers"), "skipped");
}

#[tokio::test]
async fn a_token_that_is_for_something_else() {
    let bed = Bed::start(Wire::Plain, Access::Everything).await;
    bed.desk.write(
        "token",
        &jwt(&json!({
            "tid": "7d5a0c4e-3d0c-4f5e-9a53-0d6f0a4f2b11", "upn": "jane@contoso.com",
            "aud": "https://management.azure.com", "exp": now() + 3_600,
        })),
    );
    bed.examine(&[]).await.assert_failed(
        &["caller.token", "cluster.identity"],
        "its audience is https://management.azure.com, not the cluster's",
        "az account get-access-token --resource 6256c85f-0aad-4d50-b960-e6e9b21efe35",
    );
}

#[tokio::test]
async fn a_token_that_the_cluster_does_not_know() {
    let bed = Bed::start(Wire::Plain, Access::Everything).await;
    bed.desk.write("token", "nobodys-token");
    let found = bed.examine(&[]).await;
    found.assert_failed(
        &["cluster.identity"],
        "the token is refused",
        "get a new token",
    );
    assert_eq!(found.result("caller.token"), "ok");
    assert!(!found.ended.stdout.contains("nobodys-token"));
}

#[tokio::test]
async fn a_caller_who_may_do_nothing() {
    let bed = Bed::start(Wire::Plain, Access::Nothing).await;
    let found = bed.examine(&["--namespace", "shop"]).await;
    found.assert_failed(
        &["cluster.rights"],
        &format!("{ROBOT} may do nothing in the namespace shop"),
        "`arc-connect whoami` prints the command",
    );
    assert_eq!(found.result("cluster.identity"), "ok");
}

#[tokio::test]
async fn a_port_that_is_taken_and_a_kubeconfig_that_is_broken() {
    let bed = Bed::start(Wire::Plain, Access::Everything).await;
    let port = Port::bind("127.0.0.1:0").unwrap();
    let number = format!("--port={}", port.local_addr().unwrap().port());
    let kubeconfig = bed.desk.write("kubeconfig", "contexts: [");
    let arguments = bed.arguments();
    let mut command = programs::command("arc-connect", &["doctor", "--json", &number]);
    command
        .args(&arguments)
        .args(["-f", &kubeconfig])
        .env("HOME", bed.desk.path("home"))
        .env("XDG_RUNTIME_DIR", bed.desk.path("home"));
    let found = super::bed::Found::of(programs::run_command(command).await);
    found.assert_failed(
        &["local.port", "local.kubeconfig"],
        "is taken by another program",
        "AZK8S0801 ClientProxyPortInUse",
    );
    let advice = found.check("local.kubeconfig")["advice"].as_str().unwrap();
    assert!(advice.contains("AZK8S0208"), "{advice}");
}

#[tokio::test]
async fn a_connection_string_that_can_not_be_read() {
    let desk = Desk::new();
    let missing = desk.path("missing").display().to_string();
    let arguments = ["--connection-string-file", &missing];
    let found = desk.examine(&arguments).await;
    found.assert_failed(&["cluster.name"], "missing", "");
    assert_eq!(found.result("local.kubeconfig"), "ok");
    // Nobody asked about Azure.
    assert_eq!(found.report["checks"].as_array().unwrap().len(), 5);
}
