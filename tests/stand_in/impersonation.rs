//! Impersonation: who may, what is refused, and as whom a request then runs.

use arc_cluster_connect::net::Alpn;
use http::StatusCode;
use http_body_util::Full;

use super::{
    client::{ADMIN, PODS, TOKEN, builder, request, send},
    support::api_server::{Access, ImpersonationRights, StandIn},
};

async fn impersonate(
    rights: ImpersonationRights,
    headers: &[(&str, &str)],
) -> (StatusCode, StandIn) {
    let stand_in = builder().impersonator(ADMIN, rights).start().await.unwrap();
    let mut request = request("GET", PODS, Some(TOKEN));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = send(
        &stand_in,
        Alpn::Http1,
        request.body(Full::default()).unwrap(),
    )
    .await;
    (response.status(), stand_in)
}

#[tokio::test]
async fn it_needs_the_right() {
    let jane = [("Impersonate-User", "jane")];
    let (status, _) = impersonate(ImpersonationRights::Nobody, &jane).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let with_uid = [("Impersonate-User", "jane"), ("Impersonate-Uid", "1")];
    let (status, _) = impersonate(ImpersonationRights::UsersAndGroups, &with_uid).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let with_extra = [("Impersonate-User", "jane"), ("Impersonate-Extra-Oid", "1")];
    let (status, _) = impersonate(ImpersonationRights::UsersAndGroups, &with_extra).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn groups_without_a_user_are_refused_and_nothing_at_all_runs_as_the_caller() {
    let only_groups = [("Impersonate-Group", "admins")];
    let (status, _) = impersonate(ImpersonationRights::Everyone, &only_groups).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let empty = [("Impersonate-User", "")];
    let (status, stand_in) = impersonate(ImpersonationRights::Everyone, &empty).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(stand_in.requests()[0].user.as_ref().unwrap().name, ADMIN);
}

#[tokio::test]
async fn the_effective_user_is_recorded_as_the_real_server_makes_it() {
    let headers = [
        ("Impersonate-User", "jane"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Uid", "42"),
        ("Impersonate-Extra-Arc.azure.com%2Ftid", "tenant"),
    ];
    let (status, stand_in) = impersonate(ImpersonationRights::Everyone, &headers).await;
    assert_eq!(status, StatusCode::OK);
    let request = stand_in.requests().remove(0);
    assert_eq!(request.caller.unwrap().name, ADMIN);
    let user = request.user.unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "42"));
    assert_eq!(user.groups, ["a", "b", "system:authenticated"]);
    assert_eq!(user.extra["arc.azure.com/tid"], ["tenant"]);

    let account = [("Impersonate-User", "system:serviceaccount:team:bot")];
    let (_, stand_in) = impersonate(ImpersonationRights::UsersAndGroups, &account).await;
    let user = stand_in.requests().remove(0).user.unwrap();
    assert_eq!(
        user.groups,
        [
            "system:serviceaccounts",
            "system:serviceaccounts:team",
            "system:authenticated"
        ]
    );
}

#[tokio::test]
async fn access_is_that_of_the_effective_user() {
    let stand_in = builder()
        .impersonator(ADMIN, ImpersonationRights::Everyone)
        .access("reader", Access::ReadOnly)
        .access("nobody", Access::Nothing)
        .start()
        .await
        .unwrap();
    let cases = [
        ("reader", "GET", StatusCode::OK),
        ("reader", "DELETE", StatusCode::FORBIDDEN),
        ("nobody", "GET", StatusCode::FORBIDDEN),
    ];
    for (user, method, expected) in cases {
        let path = format!("{PODS}/web");
        let request = request(method, &path, Some(TOKEN)).header("Impersonate-User", user);
        let response = send(
            &stand_in,
            Alpn::Http1,
            request.body(Full::default()).unwrap(),
        )
        .await;
        assert_eq!(response.status(), expected, "{user} {method}");
    }
}
