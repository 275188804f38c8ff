//! Bindings as the how-to of 2021 has them, and how the API server sees a caller.

use arc_cluster_connect::agent::EntraObjectId;
use http::{Request, StatusCode};

use super::{
    bed::{AGENT, APPLICATION, Bed, GROUP, PODS, STRANGER, STRANGER_ID, USER, USER_ID, entra},
    support::{api_server::ImpersonationRights, authority::Authority},
};

#[tokio::test]
async fn a_user_is_bound_by_name_with_either_version_of_tokens() {
    let bed = Bed::start().await;
    for token in [
        bed.authority.user(USER, USER_ID),
        bed.authority.user_v1(USER, USER_ID),
    ] {
        let answer = bed.get(&token.sign()).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let arrival = bed.last_arrival().expect("it arrived");
        assert_eq!(arrival.caller.expect("the agent").name, AGENT);
        let user = arrival.user.expect("the caller");
        assert_eq!(user.name, USER);
        // Without it Azure's own authorizer has no opinion of the user.
        assert_eq!(user.extra["oid"], [USER_ID]);
        assert_eq!(user.groups, ["system:authenticated"]);
    }
}

#[tokio::test]
async fn a_service_principal_is_bound_by_its_object_id() {
    let bed = Bed::start().await;
    let token = bed.authority.service_principal(APPLICATION).sign();
    assert_eq!(bed.get(&token).await.status, StatusCode::OK);
    let user = bed.last_arrival().and_then(|arrival| arrival.user);
    assert_eq!(user.expect("the caller").name, APPLICATION);

    // Whatever name it claims: that is for users.
    let token = bed
        .authority
        .service_principal(STRANGER_ID)
        .claim("upn", USER);
    assert_eq!(bed.get(&token.sign()).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_group_is_bound_by_its_object_id() {
    let bed = Bed::start().await;
    let stranger = bed.authority.user(STRANGER, STRANGER_ID);
    let refused = bed.get(&stranger.sign()).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(
        refused.status_object()["message"]
            .as_str()
            .expect("a message")
            .contains(STRANGER),
        "the API server's own words: {refused:?}"
    );

    let member = stranger.groups(&[GROUP]).sign();
    assert_eq!(bed.get(&member).await.status, StatusCode::OK);
    // Read-only is what the binding grants.
    let pod = format!("{PODS}/web-0");
    let deleted = bed.request(Request::delete(&pod), Some(&member)).await;
    assert_eq!(deleted.status, StatusCode::FORBIDDEN);
}

/// R20 too: who is asked for is the object id, never a name that a user can choose.
#[tokio::test]
async fn groups_that_no_token_holds_are_asked_for_of_users_and_service_principals() {
    let bed = Bed::start().await;
    let many: Vec<String> = (0..300)
        .map(|number| format!("0b3f0c0e-6f0a-4a8e-9c55-{number:012}"))
        .chain([GROUP.to_owned()])
        .collect();
    bed.authority.directory(|directory| {
        directory.user(STRANGER_ID, &many);
        directory.service_principal(APPLICATION, &many);
    });
    // The address in the token is the attacker's to choose, and never called.
    let elsewhere = format!("{}/v1.0/attacker", bed.authority.url());
    let user = bed
        .authority
        .user("../x'%2F/@mytenant.onmicrosoft.com", STRANGER_ID)
        .group_overage(&elsewhere);
    let answer = bed.get(&user.sign()).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let seen = bed
        .last_arrival()
        .and_then(|arrival| arrival.user)
        .expect("the caller");
    assert_eq!(seen.groups.len(), many.len() + 1);

    let application = bed
        .authority
        .service_principal(APPLICATION)
        .group_overage(&elsewhere);
    assert_eq!(bed.get(&application.sign()).await.status, StatusCode::OK);
    let seen = bed
        .last_arrival()
        .and_then(|arrival| arrival.user)
        .expect("the caller");
    assert_eq!(seen.groups.len(), many.len() + 1);

    for path in [
        format!("/v1.0/users/{STRANGER_ID}/getMemberGroups"),
        format!("/v1.0/servicePrincipals/{APPLICATION}/getMemberGroups"),
    ] {
        assert_eq!(bed.authority.requests(&path), 1, "{path}");
    }
    assert_eq!(bed.authority.graph_requests(), 2);
}

#[tokio::test]
async fn groups_that_can_not_be_found_are_a_refusal_and_not_no_groups() {
    use super::support::authority::Fault;

    let bed = Bed::start().await;
    bed.authority.set_fault(Some(Fault::GroupsRefused));
    let token = bed
        .authority
        .user(USER, USER_ID)
        .group_overage("https://x.example/");
    let answer = bed.get(&token.sign()).await;
    assert!(!answer.status.is_success(), "{answer:?}");
    answer.status_object();
    assert!(bed.last_arrival().is_none());
    // `hasgroups` is the other mark.
    let token = bed.authority.user(USER, USER_ID).claim("hasgroups", true);
    assert!(!bed.get(&token.sign()).await.status.is_success());
    assert!(bed.last_arrival().is_none());
}

/// R06, R07, R08: nobody acts as somebody else by asking for it.
#[tokio::test]
async fn r06_r07_r08_callers_can_not_impersonate() {
    let bed = Bed::start().await;
    let token = bed.authority.user(USER, USER_ID).sign();
    for (name, value) in [
        ("impersonate-user", "system:admin"),
        ("impersonate-group", "system:masters"),
        ("impersonate-uid", "0"),
        ("impersonate-extra-scopes", "x"),
        ("impersonate-foo", "x"),
        ("impersonate_user", "system:admin"),
    ] {
        let answer = bed
            .request(Request::get(PODS).header(name, value), Some(&token))
            .await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}");
        answer.status_object();
    }
    assert!(bed.last_arrival().is_none());
}

/// R01–R05: headers that would take ours away are refused or change nothing.
#[tokio::test]
async fn r01_r02_r04_connection_takes_nothing_away() {
    let bed = Bed::start().await;
    let token = bed.authority.user(USER, USER_ID).sign();
    for lines in [
        &["Impersonate-User"][..],
        &["foo, Impersonate-User"],
        &["", "impersonate-user"],
        &["  Impersonate-User  ,close"],
        &["authorization"],
    ] {
        let request = lines.iter().fold(Request::get(PODS), |request, line| {
            request.header("connection", *line)
        });
        let answer = bed.request(request, Some(&token)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{lines:?}");
    }
    assert!(bed.last_arrival().is_none());
}

/// Constrained impersonation knows no extra key without a domain, and would refuse everybody.
#[tokio::test]
async fn under_constrained_impersonation_the_object_id_has_a_domain_or_stays_here() {
    for (object_id, status) in [
        (EntraObjectId::Oid, StatusCode::FORBIDDEN),
        (EntraObjectId::WithDomain, StatusCode::OK),
        (EntraObjectId::Omit, StatusCode::OK),
    ] {
        let authority = Authority::start().await.expect("a free port");
        let entra = entra(&authority)
            .object_id(object_id)
            .build()
            .expect("it is well configured");
        let bed = Bed::assemble(authority, ImpersonationRights::Constrained, |agent| {
            agent.authenticator(entra)
        })
        .await;
        let token = bed.authority.user(USER, USER_ID).sign();
        let answer = bed.get(&token).await;
        assert_eq!(answer.status, status, "{object_id:?}: {answer:?}");
        if status == StatusCode::OK {
            let seen = bed
                .last_arrival()
                .and_then(|arrival| arrival.user)
                .expect("the caller");
            assert_eq!(seen.name, USER);
            let extra: Vec<_> = seen.extra.keys().map(String::as_str).collect();
            assert_eq!(extra, Vec::from_iter(object_id.key()));
        }
    }
}

/// An agent that may not impersonate gets nobody through, and never lets a caller act as itself.
#[tokio::test]
async fn without_the_right_to_impersonate_nobody_gets_through() {
    let authority = Authority::start().await.expect("a free port");
    let entra = entra(&authority).build().expect("it is well configured");
    let bed = Bed::assemble(authority, ImpersonationRights::Nobody, |agent| {
        agent.authenticator(entra)
    })
    .await;
    let token = bed.authority.user(USER, USER_ID).sign();
    let answer = bed.get(&token).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{answer:?}");
    answer.status_object();
}

/// Rights on users and groups alone are enough where no extras and uids are sent, and a clear refusal where they are.
#[tokio::test]
async fn names_that_only_kubernetes_gives_are_refused() {
    let bed = Bed::start().await;
    for name in [
        "system:admin",
        "system:serviceaccount:kube-system:default",
        "system:node:one",
        "system:masters",
        "SYSTEM:admin",
    ] {
        let answer = bed.get(&bed.authority.user(name, USER_ID).sign()).await;
        assert!(
            matches!(answer.status.as_u16(), 401 | 403),
            "{name}: {answer:?}"
        );
        answer.status_object();
    }
    for group in ["system:masters", "system:nodes", "system:unauthenticated"] {
        let token = bed.authority.user(USER, USER_ID).groups(&[group]).sign();
        let _ = bed.get(&token).await;
        if let Some(user) = bed.last_arrival().and_then(|arrival| arrival.user) {
            assert!(!user.groups.iter().any(|own| own == group), "{group}");
        }
    }
}
