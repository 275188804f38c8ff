//! What goes wrong is said at once, with the reason and what to do.

use arc_cluster_connect::{Error, ErrorKind, arm::ArmClient, tunnel::Preflight};
use http::StatusCode;

use super::{
    bed::{Bed, HOURS, PODS},
    support::arm::{Fault, Question},
};

const ROLE: &str = "Azure Arc Enabled Kubernetes Cluster User Role";

async fn refused(bed: &Bed) -> Error {
    bed.builder().connect().await.expect_err("no tunnel can be")
}

#[tokio::test]
async fn a_cluster_that_can_not_be_reached_is_named_before_anything_is_dialled() {
    let bed = Bed::start(HOURS).await;
    for (property, value, words) in [
        (
            "connectivityStatus",
            "Offline",
            "till-7 is offline, last heard at 2026-05-29",
        ),
        ("connectivityStatus", "Expired", "has expired"),
        (
            "connectivityStatus",
            "AgentNotInstalled",
            "no agent is installed",
        ),
        ("connectivityStatus", "Connecting", "has not connected yet"),
        ("privateLinkState", "Enabled", "private link"),
    ] {
        bed.arm.set_property("connectivityStatus", "Connected");
        bed.arm.set_property(property, value);
        let error = refused(&bed).await;
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.help().is_some(), "{error}");
        assert!(!error.is_retryable(), "{error}");
    }
    assert_eq!(bed.arm.credential_requests(), 0);
    // Whoever knows better may try.
    let cluster = bed.builder().preflight(Preflight::Skip).connect().await;
    let cluster = cluster.expect("the agent is there all the same");
    assert_eq!(bed.get(&cluster, PODS).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_missing_role_is_named() {
    let bed = Bed::start(HOURS).await;
    let fault = Fault::refusal(403, "AuthorizationFailed");
    bed.arm.fail(Question::Credential, usize::MAX, fault);
    let error = refused(&bed).await;
    assert!(error.is_unauthorized());
    assert_eq!(error.status(), Some(403));
    assert!(error.help().unwrap().contains(ROLE), "{:?}", error.help());
    assert_eq!(error.tracking_id(), Some("request-of-a-test"));
    assert!(
        error.report().contains("AuthorizationFailed"),
        "{}",
        error.report()
    );
    // It will not pass by itself, so it is not asked again.
    assert_eq!(bed.arm.credential_requests(), 1);
}

#[tokio::test]
async fn another_tenant_is_named() {
    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    let bed = Bed::start(HOURS).await;
    let challenge = format!(
        "Bearer authorization_uri=\"https://login.windows.net/{TENANT}\", error=\"invalid_token\""
    );
    let fault = Fault::Refusal {
        status: 401,
        code: "InvalidAuthenticationTokenTenant",
        headers: vec![("www-authenticate", challenge)],
    };
    bed.arm.fail(Question::Cluster, usize::MAX, fault);
    let error = refused(&bed).await;
    assert!(error.is_unauthorized());
    let help = error.help().unwrap();
    assert!(
        help.contains(&format!("az login --tenant {TENANT}")),
        "{help}"
    );
}

#[tokio::test]
async fn what_does_not_exist_is_told_apart() {
    let bed = Bed::start(HOURS).await;
    for (code, words) in [
        ("ResourceNotFound", "cluster's name (till-7)"),
        ("ResourceGroupNotFound", "resource group's name (shop)"),
        ("SubscriptionNotFound", "subscription's id"),
    ] {
        bed.arm
            .fail(Question::Cluster, 1, Fault::refusal(404, code));
        let error = refused(&bed).await;
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.help().unwrap().contains(words), "{:?}", error.help());
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn what_passes_is_waited_for() {
    let bed = Bed::start(HOURS).await;
    let busy = Fault::Refusal {
        status: 429,
        code: "TooManyRequests",
        headers: vec![("retry-after", "1".to_owned())],
    };
    bed.arm.fail(Question::Cluster, 1, busy);
    bed.arm.fail(Question::Credential, 1, Fault::Gone);
    let cluster = bed.builder().connect().await.expect("both faults pass");
    assert_eq!(bed.get(&cluster, PODS).await.status, StatusCode::OK);
    assert_eq!(bed.arm.requests().len(), 4);
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_the_callers_to_wait_and_kept_to() {
    let bed = Bed::start(HOURS).await;
    let busy = Fault::Refusal {
        status: 429,
        code: "TooManyRequests",
        headers: vec![("retry-after", "305".to_owned())],
    };
    bed.arm.fail(Question::Cluster, usize::MAX, busy);
    let arm = ArmClient::new(bed.connector.clone(), bed.cloud(), bed.person());
    for _ in 0..3 {
        let error = arm.connected_cluster(&bed.id).await.unwrap_err();
        assert!(error.is_retryable());
        let help = error.help().unwrap();
        assert!(help.contains("try again in 30"), "{help}");
    }
    assert_eq!(bed.arm.requests().len(), 1);
}

#[tokio::test]
async fn nobody_signed_in_is_said() {
    let bed = Bed::start(HOURS).await;
    let builder = arc_cluster_connect::ClusterConnect::builder(bed.id.clone());
    let error = builder.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.help().is_some());
    assert!(bed.arm.requests().is_empty());
}
