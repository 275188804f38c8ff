//! Callers whom the agent knows: what reaches the API server in whose name.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::FutureExt;
use serde_json::{Value, json};

use crate::{
    Error, ErrorKind, Result,
    agent::{
        Access, AgentCredential, Impersonation, PolicyRequest, RequestPolicy, StreamLifetime,
        Verdict,
        test_bed::{AGENT_TOKEN, Bed, End, FarEnd, TOKEN, TOKEN_LIFE, with_authorization},
    },
    auth::{AccessToken, AuthProvider, TokenRequest},
};

const SPDY: &str =
    "POST /exec HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";

/// The lines that say in whose name a request is made, sorted.
fn names(head: &str) -> Vec<&str> {
    let mut names: Vec<_> = head
        .lines()
        .skip(1)
        .filter(|line| line.starts_with("impersonate") || line.starts_with("authorization"))
        .collect();
    names.sort_unstable();
    names
}

fn names_of(user: &str) -> [String; 4] {
    [
        format!("authorization: {AGENT_TOKEN}"),
        format!("impersonate-extra-oid: oid-{user}"),
        format!("impersonate-group: group of {user}"),
        format!("impersonate-user: {user}"),
    ]
}

async fn asks(bed: &Bed, token: &str, head: &str) -> FarEnd {
    let mut caller = bed.caller();
    caller
        .send(with_authorization(&format!("Bearer {token}"), head))
        .await;
    caller
}

fn nothing_reached(bed: &Bed) {
    assert_eq!((bed.api.dialled(), bed.impersonated.dialled()), (0, 0));
}

#[tokio::test]
async fn the_agent_acts_for_a_caller_it_knows() {
    let mut bed = Bed::with_known_callers(|builder| builder);
    let mut caller = asks(&bed, "known.ada", "GET /api/v1/pods HTTP/1.1").await;
    let mut api = bed.impersonated.connection().await;
    let head = api.head().await;
    assert!(head.starts_with("GET /api/v1/pods HTTP/1.1\r\n"), "{head}");
    assert_eq!(names(&head), names_of("ada"));
    assert!(!head.contains("known.ada"), "{head}");
    api.answer("200 OK", "{}").await;
    let (text, end) = caller.rest().await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(end, End::Clean);
}

/// The two kinds of request never meet on a connection, though each reuses its own.
#[tokio::test]
async fn i7_pass_through_and_impersonation_share_no_connection() {
    let mut bed = Bed::with_known_callers(|builder| builder);
    let (mut own, mut acting) = (None, None);
    for _ in 0..3 {
        let mut caller = bed.asks("GET / HTTP/1.1").await;
        let api = match &mut own {
            Some(api) => api,
            None => own.insert(bed.api.connection().await),
        };
        assert_eq!(
            names(&api.head().await),
            [format!("authorization: {TOKEN}")]
        );
        api.answer("200 OK", "{}").await;
        caller.rest().await;

        let mut caller = asks(&bed, "known.ada", "GET / HTTP/1.1").await;
        let api = match &mut acting {
            Some(api) => api,
            None => acting.insert(bed.impersonated.connection().await),
        };
        assert_eq!(names(&api.head().await), names_of("ada"));
        api.answer("200 OK", "{}").await;
        caller.rest().await;
    }
    assert_eq!((bed.api.dialled(), bed.impersonated.dialled()), (1, 1));
}

#[tokio::test]
async fn an_upgrade_is_made_in_the_callers_name_on_a_connection_of_its_own() {
    let mut bed = Bed::with_known_callers(|builder| builder);
    let mut caller = asks(&bed, "known.ada", SPDY).await;
    let mut api = bed.impersonated.connection().await;
    assert_eq!(names(&api.head().await), names_of("ada"));
    api.send(SWITCHED).await;
    assert!(caller.head().await.starts_with("HTTP/1.1 101"));
    // What follows are bytes, whatever they look like.
    caller.send("GET /secrets HTTP/1.1\r\n\r\n").await;
    assert_eq!(api.head().await, "GET /secrets HTTP/1.1\r\n\r\n");
    assert_eq!(bed.impersonated.dialled(), 1);
}

#[tokio::test]
async fn r06_r07_r08_r09_names_of_the_callers_own_choice_are_403() {
    for line in [
        "Impersonate-User: system:admin",
        "Impersonate-Group: system:masters",
        "Impersonate-Uid: 0",
        "Impersonate-Extra-Oid: x",
        "Impersonate-Foo: x",
        "Impersonate_User: system:admin",
        "impersonate_group: system:masters",
    ] {
        let bed = Bed::with_known_callers(|builder| builder);
        let mut caller = asks(&bed, "known.ada", &format!("GET / HTTP/1.1\r\n{line}")).await;
        assert_eq!(caller.status().await.0, 403, "{line}");
        nothing_reached(&bed);
    }
}

#[tokio::test]
async fn r10_front_proxy_headers_never_stand_beside_the_agents_credential() {
    let mut bed = Bed::with_known_callers(|builder| builder.strip_headers("X-Custom-User"));
    let head = "GET / HTTP/1.1\r\nX-Remote-User: root\r\nX_Remote_Group: system:masters\r\nX-Custom-User: root";
    let _caller = asks(&bed, "known.ada", head).await;
    let head = bed.impersonated.connection().await.head().await;
    assert_eq!(names(&head), names_of("ada"));
    assert!(
        !head.contains("root") && !head.contains("masters"),
        "{head}"
    );
}

/// The first hop's names are a caller's wish to the second one, and never more.
#[tokio::test]
async fn r27_the_names_of_one_hop_are_no_names_to_the_next() {
    let mut first = Bed::with_known_callers(|builder| builder);
    let mut caller = asks(&first, "known.ada", "GET /api HTTP/1.1").await;
    let mut between = first.impersonated.connection().await;
    let forwarded = between.head().await;

    let second = Bed::with_known_callers(|builder| builder);
    let mut hop = second.caller();
    hop.send(&forwarded).await;
    assert_eq!(hop.status().await.0, 403);
    nothing_reached(&second);

    let mut second = Bed::with_known_callers(|builder| {
        builder.impersonation(Impersonation::SubjectAccessReview)
    });
    let mut hop = second.caller();
    hop.send(&forwarded).await;
    let mut api = second.api.connection().await;
    // Under the first agent's token, which the API server judges; nothing of the second agent's.
    assert_eq!(names(&api.head().await), names_of("ada"));
    assert_eq!(second.impersonated.dialled(), 0);

    between.answer("200 OK", "{}").await;
    let (text, _) = caller.rest().await;
    assert!(!text.to_ascii_lowercase().contains("impersonate"), "{text}");
}

#[tokio::test]
async fn r30_a_caller_without_a_usable_identity_is_refused_and_nothing_is_sent() {
    for (token, code) in [("system", 403), ("rejected", 401), ("down", 503)] {
        let bed = Bed::with_known_callers(|builder| builder);
        let mut caller = asks(&bed, token, "GET / HTTP/1.1").await;
        let (answered, status) = caller.status().await;
        assert_eq!(answered, code, "{token}");
        let text = status.to_string();
        assert!(
            !text.contains("secret-issuer") && !text.contains("system:admin"),
            "{text}"
        );
        nothing_reached(&bed);
    }
}

/// Gives what the test says.
struct Failing(&'static str);

#[async_trait]
impl AuthProvider for Failing {
    async fn token(&self, _: &TokenRequest) -> Result<AccessToken> {
        match self.0 {
            "" => Err(Error::new(ErrorKind::File, "no file at /secret/path")),
            token => Ok(AccessToken::new(token, None)),
        }
    }
}

#[tokio::test]
async fn r30_without_a_usable_credential_nothing_is_sent() {
    for token in ["", "line\r\nbreak"] {
        let bed = Bed::with_known_callers(|builder| {
            builder.agent_credential(AgentCredential::new(Arc::new(Failing(token))))
        });
        let mut caller = asks(&bed, "known.ada", "GET / HTTP/1.1").await;
        let (code, status) = caller.status().await;
        assert_eq!(code, 503);
        assert!(!status.to_string().contains("/secret/path"), "{status}");
        nothing_reached(&bed);
    }
}

/// A 401 to the agent's own token would send the caller to log in again, for nothing.
#[tokio::test]
async fn r31_the_agents_own_refusal_is_not_the_callers() {
    for request in ["GET / HTTP/1.1", SPDY] {
        let mut bed = Bed::with_known_callers(|builder| builder);
        let mut caller = asks(&bed, "known.ada", request).await;
        let mut api = bed.impersonated.connection().await;
        api.head().await;
        api.answer("401 Unauthorized", "{}").await;
        let (code, status) = caller.status().await;
        assert_eq!(code, 503);
        assert!(
            status["message"]
                .as_str()
                .expect("text")
                .contains("credential of its own")
        );

        let mut caller = bed.asks(request).await;
        let mut api = bed.api.connection().await;
        api.head().await;
        api.answer("401 Unauthorized", "{}").await;
        assert!(caller.head().await.starts_with("HTTP/1.1 401"));
    }
}

#[tokio::test]
async fn r08_the_uid_is_sent_once_the_api_server_has_taken_one() {
    let refusal = json!({ "kind": "Status", "details": { "kind": "uids" } }).to_string();
    for (status, body, sent) in [
        ("200 OK", "{}", true),
        ("403 Forbidden", r#"{"details":{"kind":"services"}}"#, true),
        ("403 Forbidden", refusal.as_str(), false),
    ] {
        let mut bed = Bed::with_known_callers(|builder| builder);
        let _first = asks(&bed, "known.uid", "GET /first HTTP/1.1").await;
        let mut api = bed.impersonated.connection().await;
        let head = api.head().await;
        assert!(head.starts_with("GET /version HTTP/1.1\r\n"), "{head}");
        assert!(names(&head).contains(&"impersonate-uid: uid-1"), "{head}");
        assert!(names(&head).contains(&"impersonate-user: uid"), "{head}");
        api.answer(status, body).await;
        let (mut api, head, _) = next(&mut bed, api).await;
        assert!(head.starts_with("GET /first "), "{head}");
        assert_eq!(names(&head).contains(&"impersonate-uid: uid-1"), sent);
        api.answer("200 OK", "{}").await;
        // Known from now on.
        let _second = asks(&bed, "known.uid", "GET /second HTTP/1.1").await;
        let (_, head, _) = next(&mut bed, api).await;
        assert!(head.starts_with("GET /second "), "{head}");
    }
}

/// The agent's next request: on `api`, which may be free again by now, or on a new connection.
async fn next(bed: &mut Bed, mut api: FarEnd) -> (FarEnd, String, String) {
    tokio::select! {
        request = api.next_request() => {
            let (head, body) = match request {
                Some(request) => request,
                None => {
                    api = bed.impersonated.connection().await;
                    api.request().await
                }
            };
            (api, head, body)
        }
        mut other = bed.impersonated.connection() => {
            let (head, body) = other.request().await;
            (other, head, body)
        }
    }
}

/// Answers the agent's questions, each on the connection on which it comes, until one of another kind comes.
async fn answer_reviews(
    bed: &mut Bed,
    allowed: impl Fn(&Value) -> bool,
) -> (Vec<Value>, FarEnd, String) {
    let mut asked = Vec::new();
    let mut api = bed.impersonated.connection().await;
    let (mut head, mut body) = api.request().await;
    loop {
        if !head.contains("/selfsubjectaccessreviews ") {
            return (asked, api, head);
        }
        assert_eq!(names(&head), names_of("ada"));
        let question: Value = serde_json::from_str(&body).expect("JSON");
        let attributes = question["spec"]["resourceAttributes"].clone();
        let allowed = allowed(&attributes);
        asked.push(attributes);
        let answer = json!({ "status": { "allowed": allowed } }).to_string();
        api.answer("201 Created", &answer).await;
        (api, head, body) = next(bed, api).await;
    }
}

const AS_JANE: &str = "GET /api HTTP/1.1\r\nImpersonate-User: jane";

#[tokio::test]
async fn r06_who_may_act_as_another_does_so_and_the_original_is_noted() {
    let mut bed = Bed::with_known_callers(|builder| {
        builder.impersonation(Impersonation::SubjectAccessReview)
    });
    let _caller = asks(&bed, "known.ada", AS_JANE).await;
    let (asked, mut api, head) = answer_reviews(&mut bed, |_| true).await;
    assert_eq!(
        asked,
        [json!({ "verb": "impersonate", "group": "", "resource": "users", "name": "jane" })]
    );
    let expected = [
        format!("authorization: {AGENT_TOKEN}"),
        "impersonate-extra-arc.azure.com%2foriginal-groups: group of ada".to_owned(),
        "impersonate-extra-arc.azure.com%2foriginal-user: ada".to_owned(),
        "impersonate-user: jane".to_owned(),
    ];
    assert_eq!(names(&head), expected);
    api.answer("200 OK", "{}").await;
    // The answer is still known.
    let _again = asks(&bed, "known.ada", AS_JANE).await;
    let (_, head, _) = next(&mut bed, api).await;
    assert_eq!(names(&head), expected);
}

#[tokio::test]
async fn r06_who_may_not_act_as_another_is_403() {
    let mut bed = Bed::with_known_callers(|builder| {
        builder.impersonation(Impersonation::SubjectAccessReview)
    });
    for answer in [
        ("201 Created", r#"{"status":{"allowed":false}}"#),
        ("403 Forbidden", r#"{"status":{"allowed":true}}"#),
        ("201 Created", "nonsense"),
    ] {
        let wish = AS_JANE.replace("jane", &format!("jane{}", answer.1.len()));
        let mut caller = asks(&bed, "known.ada", &wish).await;
        let mut api = bed.impersonated.connection().await;
        api.request().await;
        api.answer(answer.0, answer.1).await;
        let (code, status) = caller.status().await;
        assert_eq!(code, 403, "{status}");
        assert!(
            status["message"]
                .as_str()
                .expect("text")
                .contains("may not impersonate")
        );
        // Nobody is asked twice, and nothing else is sent.
        assert!(api.next_request().now_or_never().is_none());
        api.half_close().await;
    }
    assert_eq!(bed.api.dialled(), 0);
}

#[tokio::test]
async fn r06_every_name_has_to_be_allowed() {
    let mut bed = Bed::with_known_callers(|builder| {
        builder.impersonation(Impersonation::SubjectAccessReview)
    });
    let wish = format!("{AS_JANE}\r\nImpersonate-Group: system:masters");
    let mut caller = asks(&bed, "known.ada", &wish).await;
    let reviews = answer_reviews(&mut bed, |attributes| attributes["resource"] == "users");
    tokio::select! {
        _ = reviews => panic!("a request went on"),
        (code, _) = caller.status() => assert_eq!(code, 403),
    }
}

#[tokio::test]
async fn a_wish_for_too_much_is_refused_before_anybody_is_asked() {
    let bed = Bed::with_known_callers(|builder| {
        builder.impersonation(Impersonation::SubjectAccessReview)
    });
    let groups: String = (0..64)
        .map(|number| format!("\r\nImpersonate-Group: g{number}"))
        .collect();
    let mut caller = asks(&bed, "known.ada", &format!("{AS_JANE}{groups}")).await;
    assert_eq!(caller.status().await.0, 403);
    nothing_reached(&bed);
}

/// Lets nobody reach into pods, and nobody but Ada do anything.
struct NoSessions;

#[async_trait]
impl RequestPolicy for NoSessions {
    async fn decide(&self, request: &PolicyRequest<'_>) -> Verdict {
        match request.caller().map(crate::agent::Identity::user) {
            Some("ada") if request.access() != Access::Interact => Verdict::Allow,
            _ => Verdict::Deny("not \"here\"\r\nX-Evil: 1".to_owned()),
        }
    }
}

#[tokio::test]
async fn r34_a_policy_stops_requests_before_they_reach_anything() {
    let mut bed = Bed::with_known_callers(|builder| builder.policy(NoSessions));
    let exec = "GET /api/v1/namespaces/n/pods/p/exec?command=sh HTTP/1.1";
    for (token, head) in [
        ("known.ada", exec),
        ("known.eve", "GET /api HTTP/1.1"),
        ("somebody", "GET /api HTTP/1.1"),
    ] {
        let mut caller = asks(&bed, token, head).await;
        let (code, status) = caller.status().await;
        assert_eq!(code, 403);
        assert!(
            status["message"]
                .as_str()
                .expect("text")
                .contains("not \"here\"")
        );
    }
    nothing_reached(&bed);
    let _caller = asks(&bed, "known.ada", "GET /api/v1/pods HTTP/1.1").await;
    bed.impersonated.connection().await.head().await;
}

#[tokio::test(start_paused = true)]
async fn j10_streams_end_with_the_token_that_opened_them() {
    let grace = Duration::from_secs(60);
    let mut bed =
        Bed::with_known_callers(|builder| builder.stream_lifetime(StreamLifetime::Token { grace }));
    let mut watch = asks(&bed, "known.ada", "GET /watch HTTP/1.1").await;
    let mut api = bed.impersonated.connection().await;
    api.head().await;
    api.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
        .await;
    watch.until("{}").await;
    let mut exec = asks(&bed, "known.ada", SPDY).await;
    let mut upgraded = bed.impersonated.connection().await;
    upgraded.head().await;
    upgraded.send(SWITCHED).await;
    exec.head().await;

    tokio::time::sleep(TOKEN_LIFE + grace - Duration::from_secs(30)).await;
    upgraded.send("still here").await;
    exec.until("still here").await;
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(watch.rest().await.1, End::Aborted);
    assert_eq!(exec.rest().await.1, End::Aborted);
    // And the API server hears of it.
    api.rest().await;
    upgraded.rest().await;
}

#[tokio::test(start_paused = true)]
async fn j10_streams_last_unless_that_is_asked_for() {
    let mut bed = Bed::with_known_callers(|builder| builder);
    let mut exec = asks(&bed, "known.ada", SPDY).await;
    let mut api = bed.impersonated.connection().await;
    api.head().await;
    api.send(SWITCHED).await;
    exec.head().await;
    tokio::time::sleep(TOKEN_LIFE * 100).await;
    api.send("still here").await;
    exec.until("still here").await;
}

#[tokio::test]
async fn one_callers_requests_leave_room_for_others() {
    let mut bed = Bed::with_known_callers(|builder| builder.max_requests_per_caller(1));
    let first = asks(&bed, "known.ada", "GET /watch HTTP/1.1").await;
    let mut api = bed.impersonated.connection().await;
    api.head().await;
    // Over another tunnel connection, too.
    let mut second = asks(&bed, "known.ada", "GET / HTTP/1.1").await;
    let (code, status) = second.status().await;
    assert_eq!(code, 429);
    assert_eq!(status["details"]["retryAfterSeconds"], 1);
    let _other = asks(&bed, "known.eve", "GET / HTTP/1.1").await;
    bed.impersonated.connection().await.head().await;
    // The end of the first one frees its place.
    drop(first);
    api.rest().await;
    let _again = asks(&bed, "known.ada", "GET / HTTP/1.1").await;
    bed.impersonated.connection().await.head().await;
}
