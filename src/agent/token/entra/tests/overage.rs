//! Callers with more groups than a token holds.

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};

use super::*;
use crate::arm::ConnectedClusterId;

/// The agent's own token, which names the scope it was asked for.
#[derive(Debug)]
struct OwnToken;

#[async_trait]
impl TokenCredential for OwnToken {
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let end = SystemTime::now() + Duration::from_secs(3600);
        Ok(AccessToken::new(own_token(&scopes.join("+")), end.into()))
    }
}

fn own_token(scope: &str) -> String {
    format!("own-{}", scope.replace([':', '/', '.'], "_"))
}

fn graph(bed: &Bed) -> EntraAuthenticator {
    let resolver = GroupResolver::graph(Arc::new(OwnToken));
    bed.builder().groups(resolver).build().unwrap()
}

/// The marks of a token that left its groups out.
fn marks() -> Vec<Value> {
    vec![
        json!({
            "groups": null,
            "_claim_names": {"groups": "src1"},
            "_claim_sources": {"src1": {"endpoint": "https://127.0.0.1:1/attacker"}},
        }),
        json!({"groups": null, "hasgroups": true}),
        json!({"groups": null, "hasgroups": "true"}),
        // Not what Entra ID sends, so nobody knows what it means.
        json!({"groups": null, "_claim_names": "groups"}),
        // A list beside the mark is not the whole list.
        json!({"_claim_names": {"groups": "src1"}}),
    ]
}

fn path(collection: &str) -> String {
    format!("/v1.0/{collection}/{OID}/getMemberGroups")
}

#[tokio::test]
async fn groups_that_were_left_out_are_refused_by_default_and_never_none() {
    let bed = Bed::new().await;
    let entra = bed.entra();
    for mark in marks() {
        let verdict = verdict(&entra, &bed.token(&mark)).await;
        assert_eq!(
            verdict,
            Verdict::Rejected(RejectReason::GroupsUnresolved),
            "{mark}"
        );
    }
    // No mark: no groups.
    for none in [
        json!({"groups": null}),
        json!({"groups": []}),
        json!({"groups": null, "hasgroups": false}),
    ] {
        let identity = verdict(&entra, &bed.token(&none)).await.identity();
        assert!(identity.groups().is_empty());
    }
}

#[tokio::test]
async fn graph_is_asked_by_object_id_for_users_and_service_principals() {
    let bed = Bed::new().await;
    let entra = graph(&bed);
    bed.site
        .set(&path("users"), 200, &json!({"value": ["u1", "u2"]}));
    bed.site
        .set(&path("servicePrincipals"), 200, &json!({"value": ["s1"]}));
    for mark in marks() {
        let identity = verdict(&entra, &bed.token(&mark)).await.identity();
        assert_eq!(identity.groups(), ["u1", "u2"], "{mark}");
        for claims in [
            bed.app_claims(),
            // Without `idtyp`: an application's token has its object id as the subject.
            with(bed.app_claims(), &json!({"idtyp": null})),
        ] {
            let token = bed.key.token(&with(claims, &mark));
            let identity = verdict(&entra, &token).await.identity();
            assert_eq!(identity.groups(), ["s1"], "{mark}");
        }
    }
    // Kept for all tokens of the same caller.
    for collection in ["users", "servicePrincipals"] {
        assert_eq!(bed.site.count(&path(collection)), 1);
    }
    let asked = bed.site.asked();
    let question = asked
        .iter()
        .find(|asked| asked.line.contains("users"))
        .unwrap();
    assert_eq!(question.line, format!("POST {}", path("users")));
    assert_eq!(question.body, r#"{"securityEnabledOnly":true}"#);
    let own = own_token(&format!("{}/.default", bed.site.base));
    assert_eq!(question.authorization, format!("Bearer {own}"));
}

#[tokio::test]
async fn r20_a_user_name_never_gets_into_a_graph_path() {
    let bed = Bed::new().await;
    bed.site.set(&path("users"), 200, &json!({"value": []}));
    let names = ["a/../b@x", "o'brien@x", "a%2fb@x", "a?$filter=x@x", "a#b@x"];
    for upn in names {
        let token = bed.token(&json!({"upn": upn, "groups": null, "hasgroups": true}));
        let identity = verdict(&graph(&bed), &token).await.identity();
        assert_eq!(identity.user(), upn);
    }
    let asked = bed.site.asked();
    let posts: Vec<_> = asked
        .iter()
        .filter(|asked| asked.line.starts_with("POST"))
        .collect();
    assert_eq!(posts.len(), names.len());
    for asked in posts {
        assert_eq!(asked.line, format!("POST {}", path("users")));
    }
}

#[tokio::test]
async fn r28_groups_are_asked_for_again_after_ten_minutes() {
    let bed = Bed::new().await;
    let entra = graph(&bed);
    let token = bed.token(&marks()[0]);
    bed.site
        .set(&path("users"), 200, &json!({"value": ["old"]}));
    let groups = |identity: Identity| identity.groups().to_vec();
    assert_eq!(groups(verdict(&entra, &token).await.identity()), ["old"]);
    bed.site
        .set(&path("users"), 200, &json!({"value": ["new"]}));
    bed.time.advance(Duration::from_secs(599));
    assert_eq!(groups(verdict(&entra, &token).await.identity()), ["old"]);
    // The verdict with the old groups stands for a minute more, at most.
    bed.time.advance(Duration::from_secs(60));
    assert_eq!(groups(verdict(&entra, &token).await.identity()), ["new"]);
}

#[tokio::test]
async fn many_requests_of_one_caller_are_one_question() {
    let bed = Bed::new().await;
    let entra = graph(&bed);
    bed.site.set(&path("users"), 200, &json!({"value": ["g"]}));
    entra.preload().await.unwrap();
    bed.site.set_delay(Duration::from_millis(100));
    let tasks: Vec<_> = (0..50)
        .map(|number| {
            let changes = with(marks()[0].clone(), &json!({"sub": number.to_string()}));
            let (entra, token) = (entra.clone(), bed.token(&changes));
            tokio::spawn(async move { verdict(&entra, &token).await.identity().groups().len() })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 1);
    }
    assert_eq!(bed.site.count(&path("users")), 1);
}

#[tokio::test]
async fn an_answer_that_is_none_is_never_an_empty_list() {
    let bed = Bed::new().await;
    let token = bed.token(&marks()[0]);
    let many: Vec<_> = (0..2_001).map(|number| format!("g{number}")).collect();
    for (status, page, expected) in [
        (
            404,
            json!({}),
            Verdict::Rejected(RejectReason::GroupsUnresolved),
        ),
        (401, json!({}), Verdict::Unavailable),
        (403, json!({}), Verdict::Unavailable),
        (302, json!({"value": []}), Verdict::Unavailable),
        (200, json!({}), Verdict::Unavailable),
        (200, json!({"value": null}), Verdict::Unavailable),
        (200, json!({"value": [1]}), Verdict::Unavailable),
        (
            200,
            json!({"value": ["a"], "@odata.nextLink": "x"}),
            Verdict::Unavailable,
        ),
        (200, json!([]), Verdict::Unavailable),
        (
            200,
            json!({"value": many}),
            Verdict::Rejected(RejectReason::IdentityRefused),
        ),
    ] {
        bed.site.set(&path("users"), status, &page);
        let verdict = verdict(&graph(&bed), &token).await;
        assert_eq!(verdict, expected, "{status}");
    }
}

#[tokio::test]
async fn a_directory_that_is_busy_is_asked_once_more() {
    let bed = Bed::new().await;
    bed.site.set(&path("users"), 503, &json!({}));
    let busy = verdict(&graph(&bed), &bed.token(&marks()[0])).await;
    assert_eq!(busy, Verdict::Unavailable);
    assert_eq!(bed.site.count(&path("users")), 2);
}

#[tokio::test]
async fn arcs_service_knows_users_and_gets_the_callers_token() {
    let bed = Bed::new().await;
    let subscription = "11111111-2222-3333-4444-555555555555";
    let cluster = ConnectedClusterId::new(subscription, "g", "c").unwrap();
    let resolver = GroupResolver::arc(&bed.site.base, &cluster, Arc::new(OwnToken), "s/.default");
    let entra = bed.builder().groups(resolver.unwrap()).build().unwrap();
    let path = format!("{cluster}/getMemberGroups");
    bed.site.set(&path, 200, &json!({"value": ["g1"]}));
    let token = bed.token(&marks()[0]);
    let identity = verdict(&entra, &token).await.identity();
    assert_eq!(identity.groups(), ["g1"]);
    let asked = bed.site.asked().pop().unwrap();
    assert_eq!(asked.line, format!("POST {path}?api-version=v1"));
    assert_eq!(
        asked.authorization,
        format!("Bearer {}", own_token("s/.default"))
    );
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(body, json!({"tenantID": TENANT, "accessToken": token}));

    let app = bed.key.token(&with(bed.app_claims(), &marks()[0]));
    let refused = verdict(&entra, &app).await;
    assert_eq!(refused, Verdict::Rejected(RejectReason::GroupsUnresolved));
    assert!(GroupResolver::arc("http://x", &cluster, Arc::new(OwnToken), "s").is_err());
}
