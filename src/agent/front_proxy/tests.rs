use serde_json::json;

use super::*;
use crate::agent::test_bed::{AGENT_TOKEN, ApiServerBed, Bed, with_authorization};

fn config_map(username: &str, prefix: &str) -> String {
    json!({
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "data": {
            "client-ca-file": "-----BEGIN CERTIFICATE-----",
            "requestheader-allowed-names": r#"["front-proxy-client"]"#,
            "requestheader-username-headers": username,
            "requestheader-group-headers": r#"["X-Acme-Group"]"#,
            "requestheader-uid-headers": r#"["X-Acme-Uid"]"#,
            "requestheader-extra-headers-prefix": prefix,
        },
    })
    .to_string()
}

/// Answers one reading; what was asked.
async fn answered(bed: &mut Bed, status: &str, body: &str) -> (String, Duration) {
    async fn answer(api: &mut ApiServerBed, status: &str, body: &str) -> String {
        let mut api = api.connection().await;
        let head = api.head().await;
        api.answer(status, body).await;
        // Gone, so that the next request comes on a connection that a test sees.
        api.half_close().await;
        api.rest().await;
        head
    }
    let agent = bed.agent.clone();
    let (pause, head) = tokio::join!(
        agent.core.read_front_proxy_headers(),
        answer(&mut bed.impersonated, status, body)
    );
    (head, pause)
}

async fn forwarded(bed: &mut Bed, lines: &str) -> String {
    let mut caller = bed.caller();
    let head = format!("GET /api HTTP/1.1\r\n{lines}");
    caller
        .send(with_authorization("Bearer known.ada", &head))
        .await;
    let mut api = bed.impersonated.connection().await;
    let head = api.head().await.to_ascii_lowercase();
    drop(caller);
    api.rest().await;
    head
}

#[tokio::test]
async fn r10_the_clusters_own_front_proxy_headers_are_read_and_taken_away() {
    const LINES: &str = "X-Acme-User: root\r\nx_acme_user: root\r\nX-Acme-Group: masters\r\nX-Acme-Uid: 0\r\n\
                         X-Acme-Extra-Scopes: all\r\nX-Acme-Users: kept\r\nX-Remote-User: root";
    let mut bed = Bed::with_known_callers(|builder| builder);
    assert!(
        forwarded(&mut bed, LINES)
            .await
            .contains("x-acme-user: root")
    );

    let map = config_map(r#"["X-Acme-User", ""]"#, r#"["X-Acme-Extra-", " "]"#);
    let (head, pause) = answered(&mut bed, "200 OK", &map).await;
    assert!(
        head.starts_with(&format!("GET {PATH} HTTP/1.1\r\n")),
        "{head}"
    );
    assert!(head.contains(AGENT_TOKEN), "{head}");
    assert!(
        head.contains("impersonate-user: arc-cluster-connect:front-proxy-headers\r\n"),
        "never as the agent alone: {head}"
    );
    assert_eq!(pause, REFRESH);
    let head = forwarded(&mut bed, LINES).await;
    assert!(head.contains("x-acme-users: kept"), "{head}");
    for gone in ["root", "masters", "x-acme-uid", "scopes"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }

    // Names that can not be read any more are still taken away; those that have changed are followed.
    for (status, body, expected) in [
        ("403 Forbidden", "{}", RETRY_FORBIDDEN),
        ("404 Not Found", "{}", RETRY_FORBIDDEN),
        ("500 Oops", "{}", RETRY),
        ("200 OK", "no JSON", REFRESH),
    ] {
        let (_, pause) = answered(&mut bed, status, body).await;
        assert_eq!(pause, expected, "{status}");
        assert!(
            !forwarded(&mut bed, LINES).await.contains("root"),
            "{status}"
        );
    }
    let map = config_map(r#"["X-Other-User"]"#, "");
    answered(&mut bed, "200 OK", &map).await;
    let head = forwarded(&mut bed, &format!("{LINES}\r\nX-Other-User: other")).await;
    assert!(
        head.contains("x-acme-user: root") && !head.contains("x-other-user"),
        "{head}"
    );
}

#[tokio::test]
async fn r10_an_agent_that_acts_for_nobody_reads_nothing() {
    let bed = Bed::new();
    let reading = bed.agent.core.keep_front_proxy_headers();
    assert!(futures_util::FutureExt::now_or_never(reading).is_none());
    assert_eq!((bed.api.dialled(), bed.impersonated.dialled()), (0, 0));
}

#[test]
fn nothing_that_a_config_map_holds_takes_away_every_header() {
    let names = Names::parse(config_map(r#"["", " "]"#, r#"[""]"#).as_bytes()).expect("lists");
    assert_eq!(names.whole, ["x-acme-uid", "x-acme-group"]);
    assert!(names.prefixes.is_empty());
    assert_eq!(Names::parse(b"{}").expect("absent"), Names::default());
    let many = serde_json::to_string(&vec!["a"; 1_000]).expect("JSON");
    let names = Names::parse(config_map(&many, &many).as_bytes()).expect("lists");
    assert_eq!(
        (names.whole.len(), names.prefixes.len()),
        (MAX_NAMES, MAX_NAMES)
    );
    for malformed in ["{", "1", r#"{"data":{"requestheader-uid-headers":"x"}}"#] {
        assert!(Names::parse(malformed.as_bytes()).is_err(), "{malformed}");
    }
}
