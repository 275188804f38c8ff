//! `arc-connect arcproxy`, called as the Azure CLI calls the program that it stands in for.

#![cfg(all(feature = "proxy", feature = "agent", feature = "relay-server"))]

#[path = "arcproxy/bed.rs"]
mod bed;
mod support;

/// The program's parts that stand alone, for the tests in them: of an example, cargo runs none.
#[path = "../examples/arc-connect/arcproxy"]
#[allow(dead_code)]
mod parts {
    mod caller;
    mod config;
    mod neighbour;
    mod proof;
    mod registration;
}

use std::fs;

use arc_cluster_connect::arm::ConnectedClusterId;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use self::{
    bed::{Bed, POD, SUBSCRIPTION, USER, USER_ID, answer_of, cluster, register_path, secret_of},
    support::{
        kubectl::{self, Kubectl},
        scenarios,
    },
};

#[tokio::test]
async fn a_registered_cluster_is_reached_with_the_token_of_the_kubeconfig() {
    let bed = Bed::start().await;
    let kubeconfig = bed.register(&cluster(), Some(&bed.token)).await;
    let context = kubeconfig.resolve(None).expect("it resolves");
    assert_eq!(context.name, "till-7");
    assert_eq!(
        context.cluster.server,
        format!(
            "https://127.0.0.1:{}/proxies/{}",
            bed.address("https").port(),
            cluster().digest()
        )
    );
    assert_ne!(secret_of(&kubeconfig), bed.token);
    let (status, pods) = answer_of(
        bed.get(&kubeconfig, "/api/v1/namespaces/default/pods")
            .await,
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    assert!(pods.contains(POD));

    if kubectl::is_installed("a_registered_cluster_is_reached_with_the_token_of_the_kubeconfig") {
        let path = bed.directory.path().join("kubeconfig");
        fs::write(&path, kubeconfig.to_yaml().expect("YAML")).expect("written");
        scenarios::get_pods(&Kubectl::new(path), POD).await;
    }

    // What it has told, and what not.
    let ended = bed.program.terminate().await;
    assert!(ended.status.success(), "{ended:?}");
    let shown = ended.stderr;
    assert!(shown.contains("ProxyRegisterSucceeded"), "{shown}");
    assert!(shown.contains("ActivityId=az-session-1"), "{shown}");
    assert!(
        shown.contains("\"path\":\"/api/v1/namespaces/default/pods\""),
        "{shown}"
    );
    for hidden in [secret_of(&kubeconfig), &bed.token, "SharedAccessSignature"] {
        assert!(!shown.contains(hidden));
    }
}

#[tokio::test]
async fn the_users_own_token_takes_the_way_of_the_identity_api() {
    let bed = Bed::start().await;
    // az does not check the certificate, and so needs none. Here it comes from another cluster's registration.
    let other = ConnectedClusterId::new(SUBSCRIPTION, "shop", "other").expect("an id");
    let other = bed.register(&other, Some(&bed.token)).await;
    let kubeconfig = bed.register(&cluster(), None).await;
    assert_eq!(secret_of(&kubeconfig), secret_of(&other));
    let (status, message) = answer_of(bed.get(&kubeconfig, "/version").await).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(
        message.contains("az has posted no access token yet"),
        "{message}"
    );

    let key = Request::get("/identity/poppublickey").header("content-type", "application/json");
    let (status, key) = answer_of(bed.https(&other, key, "{}").await).await;
    assert_eq!(status, StatusCode::OK);
    let key: Value = serde_json::from_str(&key).expect("JSON");
    let kid = key["publicKey"]["kid"].as_str().expect("a key has a name");
    // What Entra gives for `req_cnf`: a token that is bound to the key by its name.
    let bound = bed
        .authority
        .user(USER, USER_ID)
        .claim("cnf", json!({ "kid": kid, "xms_ksl": "sw" }))
        .sign();

    let posted = |kid: &str, tenant: &str, token: &str| {
        json!({
            "accessToken": token,
            "serverId": "6256c85f-0aad-4d50-b960-e6e9b21efe35",
            "tenantID": tenant,
            "kid": kid,
        })
        .to_string()
    };
    for (body, status, words) in [
        (
            posted("earlier", "t", &bound),
            StatusCode::INTERNAL_SERVER_ERROR,
            "public key expired",
        ),
        (
            posted(kid, "foreign", &bound),
            StatusCode::BAD_REQUEST,
            "another tenant",
        ),
        (posted(kid, "t", ""), StatusCode::BAD_REQUEST, "empty"),
        ("{}".to_owned(), StatusCode::BAD_REQUEST, "accessToken"),
        (posted(kid, "t", &bound), StatusCode::OK, "{}"),
    ] {
        let request = Request::post("/identity/at").header("content-type", "application/json");
        let (answered, text) = answer_of(bed.https(&other, request, body).await).await;
        assert_eq!(answered, status, "{text}");
        assert!(text.contains(words), "{text}");
        assert!(!text.contains(&bound) && !text.contains(secret_of(&other)));
    }
    let (status, pods) = answer_of(
        bed.get(&kubeconfig, "/api/v1/namespaces/default/pods")
            .await,
    )
    .await;
    assert_eq!(status, StatusCode::OK, "{pods}");
    assert!(pods.contains(POD));
    let arrived = bed.last_arrival().expect("it arrived");
    assert_eq!(arrived.user.expect("a caller").name, USER);

    // The proof did that: the token alone, sent as it is, is worth nothing.
    let bare = bed.register(&cluster(), Some(&bound)).await;
    let refused = bed.get(&bare, "/api/v1/namespaces/default/pods").await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);

    // A newer registration means a new tunnel, where the agent would take no proof that it has seen in the old one.
    let again = bed.register(&cluster(), None).await;
    let answer = bed.get(&again, "/api/v1/namespaces/default/pods").await;
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_second_registration_cuts_no_watch() {
    let bed = Bed::start().await;
    let kubeconfig = bed.register(&cluster(), Some(&bed.token)).await;
    let pods = "/api/v1/namespaces/default/pods";
    let mut watch = bed
        .get(&kubeconfig, &format!("{pods}?watch=true"))
        .await
        .into_body();
    let first = watch.frame().await.expect("an event").expect("no error");
    let first = first.into_data().expect("data");
    assert!(String::from_utf8_lossy(&first).contains(POD));

    // As shortly before the relay's token expires; the service account has a new one too, which is wrong.
    let again = bed.register(&cluster(), Some("revoked")).await;
    assert_eq!(secret_of(&again), secret_of(&kubeconfig));
    let refused = bed.get(&again, pods).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    bed.register(&cluster(), Some(&bed.token)).await;

    let server = &kubeconfig.clusters[0].cluster.server;
    let (_, base) = server.split_once("/proxies/").expect("our path");
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "later" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    let request = Request::post(format!("/proxies/{base}{pods}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(
            header::AUTHORIZATION,
            format!("Bearer {}", secret_of(&again)),
        );
    let (status, text) = answer_of(bed.https(&again, request, pod.to_string()).await).await;
    assert_eq!(status, StatusCode::CREATED, "{text}");
    let mut seen = String::new();
    while !seen.contains("later") {
        let frame = watch
            .frame()
            .await
            .expect("the watch goes on")
            .expect("no error");
        if let Ok(data) = frame.into_data() {
            seen.push_str(&String::from_utf8_lossy(&data));
        }
    }
}

#[tokio::test]
async fn nobody_else_gets_in() {
    let bed = Bed::start().await;
    let path = register_path(&cluster());
    let body = bed.registration(Some(&bed.token)).to_string();
    let port = bed.address("http").port();
    let hosted = |host: &str| Request::post(&path).header(header::HOST, host.to_owned());
    for (what, request, status) in [
        (
            "a page",
            bed.at_register(&path).header(header::ORIGIN, "null"),
            StatusCode::FORBIDDEN,
        ),
        (
            "a page's fetch",
            bed.at_register(&path).header("sec-fetch-site", "none"),
            StatusCode::FORBIDDEN,
        ),
        (
            "a form",
            bed.at_register(&path)
                .header(header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            StatusCode::FORBIDDEN,
        ),
        ("a name", hosted("evil.example"), StatusCode::FORBIDDEN),
        (
            "a name with our port",
            hosted(&format!("evil.example:{port}")),
            StatusCode::FORBIDDEN,
        ),
        ("no port", hosted("localhost"), StatusCode::FORBIDDEN),
        (
            "two names",
            bed.at_register(&path)
                .header(header::HOST, format!("localhost:{port}")),
            StatusCode::FORBIDDEN,
        ),
        ("a path", bed.at_register("/"), StatusCode::NOT_FOUND),
        (
            "an id",
            bed.at_register("/subscriptions/x/register"),
            StatusCode::BAD_REQUEST,
        ),
        (
            "a method",
            bed.at_register(&path).method("PUT"),
            StatusCode::METHOD_NOT_ALLOWED,
        ),
    ] {
        let (answered, text) = bed.post(request, body.clone()).await;
        assert_eq!(answered, status, "{what}: {text}");
        assert!(!text.contains("kubeconfigs") || status != StatusCode::OK);
    }
    for (what, body, status) in [
        ("nothing", String::new(), StatusCode::BAD_REQUEST),
        ("no JSON", "hush".to_owned(), StatusCode::BAD_REQUEST),
        (
            "no kubeconfig",
            body.replace("\"kubeconfigs\":[{", "\"kubeconfigs\":[],\"x\":[{"),
            StatusCode::BAD_REQUEST,
        ),
        (
            "no base64",
            body.replace("\"value\":\"", "\"value\":\"%"),
            StatusCode::BAD_REQUEST,
        ),
        (
            "no SAS token",
            body.replace("SharedAccessSignature", "hush"),
            StatusCode::BAD_REQUEST,
        ),
        (
            "too much",
            "x".repeat(2 * 1024 * 1024),
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
    ] {
        let (answered, text) = bed.post(bed.at_register(&path), body).await;
        assert_eq!(answered, status, "{what}: {text}");
        assert!(!text.contains("hush"), "{what}: {text}");
    }
    // Nothing of it has registered anything, and clusters are reached with the secret only.
    let kubeconfig = bed.register(&cluster(), Some(&bed.token)).await;
    let server = &kubeconfig.clusters[0].cluster.server;
    let (_, base) = server.split_once("/proxies/").expect("our path");
    let request = Request::get(format!("/proxies/{base}/version"));
    let answer = bed.https(&kubeconfig, request, "").await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let page =
        Request::get("/identity/poppublickey").header(header::ORIGIN, "https://evil.example");
    let answer = bed.https(&kubeconfig, page, "").await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
}
