use std::time::Duration;

use http::Request;
use http_body_util::Empty;

use super::bed::*;
use crate::relay::server::Rights;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn each_refusal_has_the_status_and_the_phrase_of_the_service() {
    let bed = Bed::start(Transport::Tcp).await;
    let listen = format!("/$hc/{PATH}?sb-hc-action=listen&sb-hc-id=my-id");
    let connect = format!("/$hc/{PATH}?sb-hc-action=connect&sb-hc-id=my-id");
    let nowhere = "/$hc/nowhere?sb-hc-id=my-id".to_owned();
    let good = bed.root_token();
    let send_only = bed.token(&rule("send", "send-key"), PATH, HOUR);
    let forged = bed.token(&rule("root", "another key"), PATH, HOUR);
    let unknown_rule = bed.token(&rule("nobody", "root-key"), PATH, HOUR);
    let expired = bed.token(&root(), PATH, Duration::ZERO);
    let elsewhere = bed.token(&root(), "other", HOUR);
    let for_nowhere = bed.token(&root(), "nowhere", HOUR);
    let accept = format!("/$hc/{PATH}?sb-hc-action=accept&sb-hc-id=0123456789abcdef");
    let unknown = format!("/$hc/{PATH}?sb-hc-action=fetch&sb-hc-id=my-id");

    let none: Option<&str> = None;
    for (target, token, status, text) in [
        (&listen, none, 401, "MissingToken: "),
        (&connect, none, 401, "MissingToken: "),
        (&connect, Some("eyJ0.eyJ0.c2ln"), 401, "MalformedToken: "),
        (&connect, Some("\u{e9}"), 401, "MalformedToken: "),
        (
            &connect,
            Some(&*forged),
            401,
            "InvalidSignature: The token has an invalid signature.",
        ),
        (&connect, Some(&*unknown_rule), 401, "InvalidSignature: "),
        (&connect, Some(&*expired), 401, "ExpiredToken: "),
        (&connect, Some(&*elsewhere), 401, "InvalidAudience: "),
        (&nowhere, Some(&*good), 401, "InvalidAudience: "),
        (
            &listen,
            Some(&*send_only),
            403,
            "Unauthorized access. 'Listen' claim",
        ),
        (
            &nowhere,
            Some(&*for_nowhere),
            404,
            "Endpoint does not exist.",
        ),
        (
            &connect,
            Some(&*good),
            404,
            "There are no listeners connected for the endpoint.",
        ),
        (&accept, none, 403, "The rendezvous address is unknown"),
        (&unknown, none, 400, "The sb-hc-action parameter"),
    ] {
        let headers: Vec<_> = token
            .map(|token| ("ServiceBusAuthorization", token))
            .into_iter()
            .collect();
        let refused = bed.request(target, &headers).await.err().unwrap();
        assert_eq!(
            refused.status, status,
            "{target} {text}: {}",
            refused.reason
        );
        assert!(refused.reason.starts_with(text), "{}", refused.reason);
        let path = target[5..].split('?').next().unwrap();
        for part in [
            if *target == accept {
                " TrackingId:0123456789abcdef_G0,"
            } else {
                " TrackingId:my-id_G0,"
            },
            &format!(" SystemTracker:sb://127.0.0.1/{path},"),
            " Timestamp:20",
        ] {
            assert!(
                refused.reason.contains(part),
                "{part} in {}",
                refused.reason
            );
        }
    }
}

/// Azure Resource Manager gives each token a path of its own, below that on which the agent listens.
#[tokio::test]
async fn a_token_for_a_path_below_the_entity_connects_there_and_nowhere_else() {
    let bed = Bed::start(Transport::Tcp).await;
    let send = rule("send", "send-key");
    let token = bed.token(&send, &format!("{PATH}/1635497990523092736"), HOUR);
    let connect = async |path: &str| {
        let target = format!("/$hc/{path}?sb-hc-action=connect&sb-hc-id=my-id");
        let headers = [("ServiceBusAuthorization", &*token)];
        let refused = bed.request(&target, &headers).await.err().unwrap();
        (refused.status.as_u16(), refused.reason)
    };
    for path in [
        "1635497990523092736",
        "1635497990523092736/",
        "1635497990523092736/more",
    ] {
        let (status, reason) = connect(&format!("{PATH}/{path}")).await;
        assert_eq!(status, 404, "{reason}");
        assert!(reason.starts_with("There are no listeners"), "{reason}");
    }
    for path in ["", "/1635497990523092737", "/16354979905230927360", "%2F1"] {
        let (status, reason) = connect(&format!("{PATH}{path}")).await;
        assert_eq!(status, 401, "{reason}");
        assert!(reason.starts_with("InvalidAudience: "), "{reason}");
    }
}

#[tokio::test]
async fn below_the_websocket_prefix_there_are_only_websockets() {
    let bed = Bed::start(Transport::Tcp).await;
    let request = Request::get("/$hc/clusters/east?sb-hc-action=listen")
        .header("host", "127.0.0.1")
        .header("ServiceBusAuthorization", bed.root_token())
        .body(Empty::new())
        .unwrap();
    let refused = exchange(bed.tcp().await, request).await.err().unwrap();
    assert_eq!(refused.status, 426);
}

#[tokio::test]
async fn a_token_may_be_in_the_query() {
    let bed = Bed::start(Transport::Tcp).await;
    let token = percent_encoding::utf8_percent_encode(
        &bed.root_token(),
        percent_encoding::NON_ALPHANUMERIC,
    )
    .to_string();
    let opened = bed
        .request(
            &format!("/$hc/{PATH}?sb-hc-action=listen&sb-hc-token={token}"),
            &[],
        )
        .await;
    opened.unwrap();
}

#[tokio::test]
async fn a_listener_has_no_suffix() {
    let bed = Bed::start(Transport::Tcp).await;
    let target = format!("/$hc/{PATH}/more?sb-hc-action=listen");
    let refused = bed
        .request(&target, &[("ServiceBusAuthorization", &bed.root_token())])
        .await
        .err()
        .unwrap();
    assert_eq!(refused.status, 404);
}

#[tokio::test]
async fn the_26th_listener_is_refused() {
    let bed = Bed::start(Transport::Tcp).await;
    let mut listeners = Vec::new();
    for _ in 0..25 {
        listeners.push(bed.listen().await);
    }
    let target = format!("/$hc/{PATH}?sb-hc-action=listen");
    let refused = bed
        .request(&target, &[("ServiceBusAuthorization", &bed.root_token())])
        .await
        .err()
        .unwrap();
    assert_eq!(refused.status, 403);
    assert!(
        refused
            .reason
            .starts_with("QuotaExceeded: MaximumListenersPerEndpoint")
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_waits_for_its_answer() {
    let bed = Bed::start(Transport::Memory).await;
    let start = tokio::time::Instant::now();
    let refused = bed.request("/$hc/clusters/east", &[]).await.err().unwrap();
    assert_eq!(refused.status, 401);
    assert_eq!(start.elapsed(), super::super::service::UNAUTHORIZED_DELAY);
}

#[test]
fn a_relay_without_anything_to_do_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for (builder, text) in [
            (builder_without("rule"), "no shared access rule"),
            (builder_without("path"), "no hybrid connection"),
        ] {
            let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let error = builder.start(socket).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
            assert!(error.help().is_some());
        }
    });
}

fn builder_without(part: &str) -> crate::relay::server::RelayServerBuilder {
    let builder = crate::relay::server::RelayServer::builder();
    match part {
        "rule" => builder.hybrid_connection("a"),
        _ => builder.rule(root(), Rights::SEND),
    }
}
