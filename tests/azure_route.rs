//! The way that Azure's own client takes, whole: a resource manager says where the relay is and gives a token for it, an
//! authority says who the caller is, and between them are relay, agent and API server.

mod support;

#[path = "azure_route/bed.rs"]
mod bed;
#[path = "azure_route/failures.rs"]
mod failures;
#[path = "azure_route/renewal.rs"]
mod renewal;

use arc_cluster_connect::{
    ErrorKind, Tunnel,
    arm::{ArmClient, AuthenticationMethod, ConnectivityStatus},
    tunnel::TunnelState,
};
use http::StatusCode;

use self::{
    bed::{Bed, HOURS, PODS, USER},
    support::arm::Question,
};

#[tokio::test]
async fn a_request_goes_all_the_way_as_the_signed_in_user() {
    let bed = Bed::start(HOURS).await;
    let cluster = bed.builder().connect().await.unwrap();
    assert!(matches!(cluster.status().state, TunnelState::Connected));
    let looked_at = cluster.cluster().unwrap();
    assert_eq!(
        looked_at.connectivity_status,
        Some(ConnectivityStatus::Connected)
    );
    assert_eq!(looked_at.agent_version.as_deref(), Some("1.30.1"));

    let answer = bed.get(&cluster, PODS).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.text().contains("web-0"), "{}", answer.text());
    let requests = bed.stand_in.requests();
    let arrival = requests.iter().rfind(|one| one.path_and_query == PODS);
    assert_eq!(arrival.unwrap().user.as_ref().unwrap().name, USER);

    // What Azure was asked, and by whom its logs can be searched.
    let asked = bed.arm.requests();
    let questions: Vec<_> = asked.iter().map(|one| one.method.as_str()).collect();
    assert_eq!(questions, ["GET", "POST"]);
    assert!(asked.iter().all(|one| one.version == "2026-05-01"));
    assert!(
        asked
            .iter()
            .all(|one| one.correlation_id == cluster.correlation_id())
    );
    assert_eq!(
        asked[1].body,
        serde_json::json!({ "authenticationMethod": "AAD", "clientProxy": true })
    );
    let kubeconfigs = cluster.kubeconfigs();
    assert_eq!(kubeconfigs[0].name(), "credentialName1");
    kubeconfigs[0].parse().unwrap();
    cluster.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_older_version_of_the_interface_does_too() {
    let bed = Bed::start(HOURS).await;
    bed.arm.set_versions(&["2021-10-01"]);
    let cluster = bed.builder().connect().await.unwrap();
    assert_eq!(bed.get(&cluster, PODS).await.status, StatusCode::OK);
    let looked_at = cluster.cluster().unwrap();
    assert_eq!(looked_at.agent_version.as_deref(), Some("1.5.3"));
    let versions: Vec<_> = bed
        .arm
        .requests()
        .into_iter()
        .map(|one| one.version)
        .collect();
    // Found once, used from then on.
    assert_eq!(
        versions,
        [
            "2026-05-01",
            "2026-03-01",
            "2024-01-01",
            "2021-10-01",
            "2021-10-01"
        ]
    );
    cluster.kubeconfigs()[0].parse().unwrap();
}

#[tokio::test]
async fn the_role_of_a_user_of_cluster_connect_is_enough() {
    let bed = Bed::start(HOURS).await;
    bed.arm.fail(
        Question::Cluster,
        usize::MAX,
        support::arm::Fault::refusal(403, "AuthorizationFailed"),
    );
    let cluster = bed.builder().connect().await.unwrap();
    assert!(cluster.cluster().is_none());
    assert_eq!(bed.get(&cluster, PODS).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_of_the_clusters_own_is_announced() {
    let bed = Bed::start(HOURS).await;
    let builder = bed
        .builder()
        .authentication_method(AuthenticationMethod::Token);
    builder.connect().await.unwrap();
    let asked = bed.arm.requests().pop().unwrap();
    assert_eq!(asked.body["authenticationMethod"], "Token");
}

#[tokio::test]
async fn a_cloud_is_what_its_resource_manager_says() {
    let bed = Bed::start(HOURS).await;
    let cloud = ArmClient::cloud_from_metadata(bed.connector.clone(), bed.arm.url())
        .await
        .unwrap();
    assert_eq!(cloud.resource_manager(), bed.arm.url());
    assert_eq!(cloud.authority(), "https://login.local.contoso.com");
    assert_eq!(cloud.relay_suffix(), "servicebus.local.contoso.com");
    assert_eq!(
        cloud.resource_manager_scope(),
        "https://management.local.contoso.com//.default"
    );
    assert_eq!(bed.arm.requests().pop().unwrap().version, "2022-09-01");

    // What is no resource manager describes no cloud.
    let error = ArmClient::cloud_from_metadata(bed.connector.clone(), bed.authority.url())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.help().is_some());
}
