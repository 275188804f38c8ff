//! The stand-in API server by itself: real kubectl straight against it, and what kubectl can not show.

mod support;

use std::time::Duration;

use arc_cluster_connect::net::{Alpn, Connector, Endpoint, NetStream, Security, TrustRoots};
use bytes::Bytes;
use http::{Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use support::{
    api_server::{
        Access, ImpersonationRights, ListFault, LogFollow, StandIn, StandInBuilder, UpgradeAnswer,
        User, random_token,
    },
    kubectl::{self, Kubectl, Transport},
    scenarios,
};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

const TOKEN: &str = "admin-token";
const ADMIN: &str = "system:serviceaccount:default:admin-user";
const PODS: &str = "/api/v1/namespaces/default/pods";
const BIG: &str = "/api/v1/namespaces/big/pods";

/// Nothing here takes as long; a hang is a failure and not a wait.
const LIMIT: Duration = Duration::from_secs(30);

mod with_kubectl {
    use super::*;

    async fn run_all(transport: Transport) {
        let token = random_token();
        let stand_in = StandIn::builder()
            .token(&token, User::service_account("default", "admin-user"))
            .pod("default", "web")
            .start()
            .await
            .unwrap();
        let kubeconfig = written(&stand_in.kubeconfig(Some(&token)));
        let kubectl = Kubectl::new(kubeconfig.path()).with_transport(transport);
        scenarios::all(&kubectl, "web").await;

        let upgrade = match transport {
            Transport::WebSocket => "websocket",
            Transport::Spdy => "SPDY/3.1",
        };
        let upgrades: Vec<_> = stand_in
            .requests()
            .into_iter()
            .filter_map(|request| request.headers.get(header::UPGRADE).cloned())
            .collect();
        assert!(!upgrades.is_empty());
        // An old kubectl knows no WebSocket; what it was told does not matter to it.
        if std::env::var_os("KUBECTL").is_none() {
            assert!(
                upgrades.iter().all(|other| other == upgrade),
                "{upgrades:?}"
            );
        }
        none_live(&stand_in).await;
        stand_in.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn everything_over_websocket() {
        if kubectl::is_installed("everything_over_websocket") {
            run_all(Transport::WebSocket).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn everything_over_spdy() {
        if kubectl::is_installed("everything_over_spdy") {
            run_all(Transport::Spdy).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_cut_list_is_an_error_and_not_a_short_list() {
        if !kubectl::is_installed("a_cut_list_is_an_error_and_not_a_short_list") {
            return;
        }
        let stand_in = start().await;
        let kubeconfig = written(&stand_in.kubeconfig(Some(TOKEN)));
        let kubectl = Kubectl::new(kubeconfig.path());
        stand_in
            .faults()
            .set_list(Some(ListFault::AbortAfter(100_000)));
        let finished = kubectl.run(&["get", "pods", "-n", "big"]).await;
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        assert_eq!(finished.text(), "");
    }
}

#[tokio::test]
async fn a_request_without_a_known_token_is_a_401_status() {
    let stand_in = start().await;
    for token in [None, Some("unknown")] {
        let response = get(&stand_in, PODS, token).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let status = body(response).await;
        assert_eq!(status["kind"], "Status");
        assert_eq!(status["reason"], "Unauthorized");
    }
    let healthy = get(&stand_in, "/readyz", None).await;
    assert_eq!(healthy.status(), StatusCode::OK);
    let callers: Vec<_> = stand_in
        .requests()
        .into_iter()
        .map(|request| request.caller)
        .collect();
    assert_eq!(callers, [None, None, None]);
}

#[tokio::test]
async fn audit_id_comes_back_and_one_path_warns() {
    let stand_in = start().await;
    let path = "/api/v1/namespaces/kube-system/services";
    let request = request("GET", path, Some(TOKEN))
        .header("Audit-ID", "11111111-2222-4333-8444-555555555555")
        .body(Full::default())
        .unwrap();
    let response = send(&stand_in, Alpn::Http1, request).await;
    assert_eq!(
        response.headers()["audit-id"],
        "11111111-2222-4333-8444-555555555555"
    );
    assert!(
        response.headers()[header::WARNING]
            .to_str()
            .unwrap()
            .starts_with("299 ")
    );
    let other = get(&stand_in, PODS, Some(TOKEN)).await;
    assert_eq!(other.headers()["audit-id"].len(), 36);
    assert!(!other.headers().contains_key(header::WARNING));
}

#[tokio::test]
async fn requests_are_recorded_byte_for_byte_on_both_http_versions() {
    let stand_in = start().await;
    let odd = "/api/v1/namespaces/default/pods?&limit=5&labelSelector=app%3Dweb";
    for alpn in [Alpn::Http1, Alpn::Http2] {
        let request = request("GET", odd, Some(TOKEN))
            .body(Full::default())
            .unwrap();
        let list = body(send(&stand_in, alpn, request).await).await;
        assert_eq!(list["items"][0]["metadata"]["name"], "web");
    }
    let requests = stand_in.requests();
    assert!(requests.iter().all(|request| request.path_and_query == odd));
    assert_eq!(requests[0].version, Version::HTTP_11);
    assert_eq!(requests[1].version, Version::HTTP_2);
    assert_ne!(requests[0].connection, requests[1].connection);
    assert_eq!(requests[0].user.as_ref().unwrap().name, ADMIN);
}

mod impersonation {
    use super::*;

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
}

mod watch {
    use super::*;

    #[tokio::test]
    async fn events_come_one_by_one_and_the_watch_ends_in_time() {
        let stand_in = start().await;
        let maps = "/api/v1/namespaces/default/configmaps";
        let list = body(get(&stand_in, maps, Some(TOKEN)).await).await;
        let version = list["metadata"]["resourceVersion"].as_str().unwrap();
        let path = format!("{maps}?watch=true&resourceVersion={version}&timeoutSeconds=2");
        let mut events = get(&stand_in, &path, Some(TOKEN)).await.into_body();
        assert_eq!(stand_in.live_requests(), 1);

        let map = json!({ "metadata": { "name": "seen" }, "data": { "a": "b" } });
        let create = request("POST", maps, Some(TOKEN))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(map.to_string()))
            .unwrap();
        let created = send(&stand_in, Alpn::Http1, create).await;
        assert_eq!(created.status(), StatusCode::CREATED);

        let event = timeout(LIMIT, events.frame())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let event: Value = serde_json::from_slice(event.data_ref().unwrap()).unwrap();
        assert_eq!(event["type"], "ADDED");
        assert_eq!(event["object"]["metadata"]["name"], "seen");
        let end = timeout(LIMIT, events.frame()).await.unwrap();
        assert!(end.is_none(), "a watch that is over ends cleanly");
    }

    #[tokio::test]
    async fn a_bookmark_comes_to_who_asks_for_it() {
        let stand_in = start().await;
        let path = format!("{PODS}?watch=1&resourceVersion=9&allowWatchBookmarks=true");
        let mut events = get(&stand_in, &path, Some(TOKEN)).await.into_body();
        let event = timeout(LIMIT, events.frame())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let event: Value = serde_json::from_slice(event.data_ref().unwrap()).unwrap();
        assert_eq!(event["type"], "BOOKMARK");
    }
}

mod faults {
    use super::*;

    #[tokio::test]
    async fn a_cut_list_is_no_clean_end_on_either_http_version() {
        let stand_in = start().await;
        stand_in
            .faults()
            .set_list(Some(ListFault::AbortAfter(100_000)));
        for alpn in [Alpn::Http1, Alpn::Http2] {
            let request = request("GET", BIG, Some(TOKEN))
                .body(Full::default())
                .unwrap();
            let response = send(&stand_in, alpn, request).await;
            assert_eq!(response.status(), StatusCode::OK);
            let end = timeout(LIMIT, response.into_body().collect())
                .await
                .unwrap();
            assert!(end.is_err(), "{alpn:?}");
        }
        stand_in.faults().set_list(None);
        let whole = body(get(&stand_in, BIG, Some(TOKEN)).await).await;
        assert_eq!(whole["items"].as_array().unwrap().len(), 500);
    }

    #[tokio::test]
    async fn killed_in_the_middle_of_a_list_and_started_again_on_the_same_port() {
        let stand_in = start().await;
        let (port, authority) = (stand_in.address().port(), stand_in.authority().clone());
        stand_in
            .faults()
            .set_list(Some(ListFault::StallAfter(50_000)));
        let mut list = get(&stand_in, BIG, Some(TOKEN)).await.into_body();
        assert!(list.frame().await.unwrap().is_ok());
        stand_in.kill().await;
        let rest = timeout(LIMIT, list.collect()).await.unwrap();
        assert!(rest.is_err());

        let again = builder()
            .port(port)
            .authority(authority)
            .start()
            .await
            .unwrap();
        assert_eq!(
            get(&again, PODS, Some(TOKEN)).await.status(),
            StatusCode::OK
        );
    }

    #[tokio::test]
    async fn go_away_lets_the_request_under_way_end() {
        let stand_in = start().await;
        let (mut client, connection) = http2_client(&stand_in).await;
        let path = format!("{PODS}?watch=1&resourceVersion=9&timeoutSeconds=1");
        let request = request("GET", &path, Some(TOKEN))
            .body(Full::default())
            .unwrap();
        let watch = client.send_request(request).await.unwrap();
        stand_in.faults().go_away();
        assert!(watch.into_body().collect().await.is_ok());
        timeout(LIMIT, connection).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn upgrades_are_answered_as_set() {
        let stand_in = start().await;
        let cases = [
            (UpgradeAnswer::Ok, 200),
            (UpgradeAnswer::Redirect, 302),
            (UpgradeAnswer::Forbidden, 403),
            (UpgradeAnswer::InternalError, 500),
        ];
        for (answer, code) in cases {
            stand_in.faults().set_upgrade_answer(Some(answer));
            for path in [
                &format!("{PODS}/web/exec?command=true&stdout=1"),
                "/stand-in/echo",
            ] {
                let response = get(&stand_in, path, Some(TOKEN)).await;
                assert_eq!(response.status(), code);
            }
        }
    }

    #[tokio::test]
    async fn early_bytes_share_the_segment_of_the_101_and_echo_goes_on() {
        let stand_in = start().await;
        stand_in
            .faults()
            .set_early_bytes(Some(Bytes::from_static(b"early")));
        let mut stream = connect(&stand_in, Alpn::Http1).await;
        let head = format!(
            "GET /stand-in/echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut segment = vec![0; 4_096];
        let length = timeout(LIMIT, stream.read(&mut segment))
            .await
            .unwrap()
            .unwrap();
        let segment = String::from_utf8_lossy(&segment[..length]).into_owned();
        assert!(segment.starts_with("HTTP/1.1 101 "), "{segment}");
        assert!(segment.ends_with("\r\n\r\nearly"), "{segment}");
        assert_eq!(stand_in.live_requests(), 1);

        stream.write_all(b"ping").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = String::new();
        timeout(LIMIT, stream.read_to_string(&mut rest))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(rest, "ping");
        none_live(&stand_in).await;
    }

    #[tokio::test]
    async fn a_silent_log_is_live_until_its_reader_goes() {
        let stand_in = start().await;
        stand_in.faults().set_log_follow(LogFollow::Silent);
        let path = format!("{PODS}/web/log?follow=true&tailLines=1");
        let mut log = get(&stand_in, &path, Some(TOKEN)).await.into_body();
        let line = log.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(line, "line 20 of web\n");
        assert_eq!(stand_in.live_requests(), 1);
        drop(log);
        none_live(&stand_in).await;
    }
}

mod reviews {
    use super::*;

    #[tokio::test]
    async fn a_requested_token_is_that_service_account() {
        let stand_in = start().await;
        let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
        let answer = post(
            &stand_in,
            path,
            json!({ "spec": { "expirationSeconds": 900 } }),
        )
        .await;
        let token = answer["status"]["token"].as_str().unwrap();
        assert_eq!(token.split('.').count(), 3);

        let review = json!({ "spec": { "token": token } });
        let reviewed = post(
            &stand_in,
            "/apis/authentication.k8s.io/v1/tokenreviews",
            review,
        )
        .await;
        assert_eq!(reviewed["status"]["authenticated"], true);
        assert_eq!(
            reviewed["status"]["user"]["username"],
            "system:serviceaccount:default:default"
        );

        get(&stand_in, PODS, Some(token)).await;
        let last = stand_in.requests().pop().unwrap();
        assert_eq!(
            last.user.unwrap().name,
            "system:serviceaccount:default:default"
        );
    }

    #[tokio::test]
    async fn a_token_secret_is_filled() {
        let stand_in = start().await;
        let secret = json!({
            "metadata": {
                "name": "t",
                "annotations": { "kubernetes.io/service-account.name": "default" },
            },
            "type": "kubernetes.io/service-account-token",
        });
        let secret = post(&stand_in, "/api/v1/namespaces/default/secrets", secret).await;
        assert!(secret["data"]["token"].as_str().unwrap().len() > 100);
    }

    #[tokio::test]
    async fn unknown_and_malformed_bodies_are_refused() {
        let stand_in = start().await;
        let cases = [
            ("application/json", "[1]", 400),
            ("application/json", "{\"spec\":", 400),
            ("text/csv", "a,b", 415),
        ];
        for (content_type, text, code) in cases {
            let request = request("POST", PODS, Some(TOKEN))
                .header(header::CONTENT_TYPE, content_type)
                .body(Full::from(text))
                .unwrap();
            let response = send(&stand_in, Alpn::Http1, request).await;
            assert_eq!(response.status(), code, "{text}");
        }
        let long = Full::from(vec![b' '; (3 << 20) + 1]);
        let request = request("POST", PODS, Some(TOKEN)).body(long).unwrap();
        let response = send(&stand_in, Alpn::Http2, request).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}

fn builder() -> StandInBuilder {
    StandIn::builder()
        .token(TOKEN, User::service_account("default", "admin-user"))
        .pod("default", "web")
        .big_namespace_pods(500)
}

async fn start() -> StandIn {
    builder().start().await.unwrap()
}

fn written(text: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

/// Waits, bounded, until nothing is under way: an end is noticed a moment after the client's.
async fn none_live(stand_in: &StandIn) {
    timeout(LIMIT, async {
        while stand_in.live_requests() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("every request ends once its client is gone");
}

fn request(method: &str, path: &str, token: Option<&str>) -> http::request::Builder {
    let builder = Request::builder()
        .method(method)
        .uri(format!("https://stand-in{path}"))
        .header(header::HOST, "stand-in");
    match token {
        Some(token) => builder.header(header::AUTHORIZATION, format!("Bearer {token}")),
        None => builder,
    }
}

async fn get(stand_in: &StandIn, path: &str, token: Option<&str>) -> Response<Incoming> {
    let request = request("GET", path, token).body(Full::default()).unwrap();
    send(stand_in, Alpn::Http1, request).await
}

async fn post(stand_in: &StandIn, path: &str, object: Value) -> Value {
    let request = request("POST", path, Some(TOKEN))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::from(object.to_string()))
        .unwrap();
    let response = send(stand_in, Alpn::Http1, request).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    body(response).await
}

async fn body(response: Response<Incoming>) -> Value {
    let collected = timeout(LIMIT, response.into_body().collect())
        .await
        .unwrap()
        .unwrap();
    serde_json::from_slice(&collected.to_bytes()).unwrap()
}

async fn connect(stand_in: &StandIn, alpn: Alpn) -> NetStream {
    let roots = TrustRoots::only_pem(stand_in.ca_pem().as_bytes()).unwrap();
    let endpoint = Endpoint::new("127.0.0.1", stand_in.address().port(), Security::Tls);
    Connector::new(roots)
        .unwrap()
        .connect(&endpoint, alpn)
        .await
        .unwrap()
}

type Http2Client = http2::SendRequest<Full<Bytes>>;

async fn http2_client(
    stand_in: &StandIn,
) -> (Http2Client, tokio::task::JoinHandle<hyper::Result<()>>) {
    let io = TokioIo::new(connect(stand_in, Alpn::Http2).await);
    let (client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    (client, tokio::spawn(connection.into_future()))
}

/// One request on a connection of its own.
async fn send(
    stand_in: &StandIn,
    alpn: Alpn,
    mut request: Request<Full<Bytes>>,
) -> Response<Incoming> {
    if alpn == Alpn::Http2 {
        let (mut client, _) = http2_client(stand_in).await;
        return timeout(LIMIT, client.send_request(request))
            .await
            .unwrap()
            .unwrap();
    }
    let path = request.uri().path_and_query().unwrap().to_string();
    *request.uri_mut() = path.parse().unwrap();
    let io = TokioIo::new(connect(stand_in, alpn).await);
    let (mut client, connection) = http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    timeout(LIMIT, client.send_request(request))
        .await
        .unwrap()
        .unwrap()
}
