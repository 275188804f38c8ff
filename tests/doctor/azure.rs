//! With a cluster in Azure.

use super::{
    azure_bed::{Bed, SECRET, texts},
    bed::Found,
    support::{
        arm::{Fault, Question},
        authority::TENANT,
    },
};

/// The doctor on the bed's cluster. What of a private cloud is reachable is its list's to say.
async fn examine(bed: &Bed, caller: &[Vec<String>]) -> Found {
    let url = bed.arm.url();
    let endpoints = format!(
        r#"{{"endpoints": [{{"purpose": "Azure Resource Manager", "url": "{url}"}},
            {{"purpose": "Entra ID", "url": "{}"}}]}}"#,
        bed.authority.url()
    );
    bed.write("endpoints", &endpoints);
    let mut all = vec![
        bed.place(),
        texts(&["--json", "--port=0", "--endpoints"]),
        vec![bed.argument("endpoints")],
    ];
    all.extend_from_slice(caller);
    Found::of(bed.run("doctor", &all).await)
}

#[tokio::test]
async fn a_healthy_cluster_passes_every_check() {
    let bed = Bed::start().await;
    let found = examine(&bed, &[bed.application()]).await;
    found.assert_healthy();
    for name in [
        "azure.credential",
        "azure.private-link",
        "azure.relay-credential",
        "relay.endpoint",
        "relay.key",
        "relay.listener",
        "caller.token",
        "agent.answers",
        "agent.api-server",
        "cluster.identity",
        "cluster.rights",
        "network.clock",
    ] {
        assert_eq!(found.result(name), "ok", "{:#}", found.check(name));
    }
    let credential = found.check("azure.credential")["detail"].as_str().unwrap();
    assert!(credential.contains(TENANT), "{credential}");
    // The relay's credential is one that it gave, and nobody is told.
    for secret in bed
        .arm
        .relay_tokens()
        .iter()
        .map(String::as_str)
        .chain([SECRET])
    {
        assert!(!found.ended.stdout.contains(secret) && !found.ended.stderr.contains(secret));
    }
}

#[tokio::test]
async fn a_token_of_the_clusters_own_and_a_proof_of_possession_work_too() {
    let bed = Bed::start().await;
    let token = vec![format!("--token-file={}", bed.argument("token"))];
    examine(&bed, &[bed.application(), token])
        .await
        .assert_healthy();
    examine(&bed, &[bed.proving_application()])
        .await
        .assert_healthy();
}

#[tokio::test]
async fn a_cluster_that_is_offline_or_behind_a_private_link() {
    let bed = Bed::start().await;
    bed.arm.set_property("connectivityStatus", "Offline");
    let found = examine(&bed, &[bed.application()]).await;
    found.assert_failed(
        &["azure.cluster"],
        "the cluster is Offline",
        "kubectl get pods -n azure-arc",
    );
    bed.arm.set_property("connectivityStatus", "Connected");
    bed.arm.set_property("privateLinkState", "Enabled");
    let found = examine(&bed, &[bed.application()]).await;
    found.assert_failed(
        &["azure.private-link"],
        "behind a private link",
        "private network",
    );
}

#[tokio::test]
async fn a_caller_without_the_right_to_a_credential() {
    let bed = Bed::start().await;
    let refusal = || Fault::refusal(403, "AuthorizationFailed");
    bed.arm.fail(Question::Credential, 9, refusal());
    bed.arm.fail(Question::Cluster, 9, refusal());
    let found = examine(&bed, &[bed.application()]).await;
    found.assert_failed(
        &["azure.relay-credential"],
        "AuthorizationFailed",
        "Azure Arc Enabled Kubernetes Cluster User Role",
    );
    assert_eq!(found.result("azure.cluster"), "warning");
    assert_eq!(found.result("relay.endpoint"), "skipped");
}

#[tokio::test]
async fn somebody_who_can_not_sign_in() {
    let bed = Bed::start().await;
    bed.write("secret", "hunter2");
    let found = examine(&bed, &[bed.application()]).await;
    assert_eq!(found.with_result("failed"), ["azure.credential"]);
    let check = found.check("azure.credential");
    assert!(
        check["advice"].as_str().unwrap().contains("secret"),
        "{check:#}"
    );
    assert!(!found.ended.stdout.contains("hunter2"), "{check:#}");
    assert_eq!(found.result("azure.cluster"), "skipped");
}
