//! What Azure Relay is known to say, as our relay says it: `tests/fixtures/relay`.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::Empty;
use serde::Deserialize;
use serde_json::Value;

use super::{
    super::{
        accept_message::Invitation,
        body::RelayBody,
        entity::MAX_LISTENERS,
        request_message::{Follows, RequestMessage},
        response_message::ResponseMessage,
    },
    bed::*,
};

/// The text of a fixture.
macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../../tests/fixtures/relay/", $name))
    };
}

const HOUR: Duration = Duration::from_secs(3600);
const NODE: &str = "wss://g17-prod-by3-010-sb.servicebus.windows.net";

#[derive(Deserialize)]
struct Refusal {
    case: String,
    status: u16,
    text: String,
}

fn headers(object: &Value) -> HeaderMap {
    let pairs = object.as_object().unwrap().iter();
    pairs
        .map(|(name, value)| {
            (
                HeaderName::try_from(name).unwrap(),
                HeaderValue::from_str(value.as_str().unwrap()).unwrap(),
            )
        })
        .collect()
}

/// The message without its outer name, and its text without a slash that is not escaped.
fn parsed(text: &str, member: &str) -> Value {
    assert!(!text.replace("\\/", "").contains('/'), "{text}");
    let mut value: Value = serde_json::from_str(text).unwrap();
    value[member].take()
}

/// Section 4.1. The suffixes of an id are those of the nodes; we are one.
#[test]
fn a_sender_is_announced_as_the_service_does_it() {
    let expected = parsed(fixture!("accept.json").trim_end(), "accept");
    let headers = headers(&expected["connectHeaders"]);
    let id = expected["id"].as_str().unwrap();
    let invitation = Invitation {
        entity_path: "yesclientauth",
        suffix: "",
        user_query: "",
        rendezvous_id: id,
        tracking_id: "ca496b91",
        headers: &headers,
        remote: "192.0.2.1:62917".parse().unwrap(),
    };
    let mut announced = parsed(&invitation.to_json(NODE).unwrap(), "accept");
    assert_eq!(announced["id"], "ca496b91_G0");
    announced["id"] = id.into();
    assert_eq!(announced, expected);
}

/// Section 4.3.
#[test]
fn a_request_is_passed_on_as_the_service_does_it() {
    let expected = parsed(fixture!("request.json").trim_end(), "request");
    let headers = headers(&expected["requestHeaders"]);
    let message = |id| RequestMessage {
        entity_path: "yesclientauth",
        rendezvous_id: id,
        id,
        method: &Method::GET,
        target: "/yesclientauth?x=1",
        headers: &headers,
        remote: "192.0.2.1:62918".parse().unwrap(),
    };
    let full = message(expected["id"].as_str().unwrap());
    let text = full.full(NODE, Follows::Nothing).unwrap();
    assert_eq!(parsed(&text, "request"), expected);

    let expected = parsed(fixture!("request-pointer.json").trim_end(), "request");
    let pointer = message(expected["id"].as_str().unwrap()).pointer(NODE);
    assert_eq!(parsed(&pointer, "request"), expected);
}

/// Section 4.4.
#[test]
fn a_response_is_read_in_both_forms() {
    for (text, status, reason) in [
        (fixture!("response-number.json"), 418, Some("I am a teapot")),
        (fixture!("response-text.json"), 200, None),
    ] {
        let message = ResponseMessage::parse(text.as_bytes()).unwrap();
        assert!(message.has_body());
        assert!(message.request_id().ends_with("_G17_G30"));
        let response = message.into_response(RelayBody::empty(), "relay").unwrap();
        assert_eq!(response.status(), status);
        let phrase = response.extensions().get::<hyper::ext::ReasonPhrase>();
        assert_eq!(
            phrase.map(|phrase| phrase.as_bytes()),
            reason.map(str::as_bytes)
        );
    }
}

/// Section 7.1: what our relay has a cause for, it says in the service's words.
#[tokio::test(start_paused = true)]
async fn each_refusal_has_the_words_of_the_service() {
    let refusals: Vec<Refusal> = serde_json::from_str(fixture!("refusals.json")).unwrap();
    for expected in refusals {
        let bed = Bed::start(Transport::Memory).await;
        let Some(refused) = provoke(&bed, &expected.case).await else {
            continue;
        };
        let Refused { status, reason } = refused;
        assert_eq!(status, expected.status, "{}: {reason}", expected.case);
        assert!(
            reason.starts_with(&expected.text),
            "{}: {reason}",
            expected.case
        );
        let is_ours = expected.case != "rejected";
        assert_eq!(reason.contains(". TrackingId:"), is_ours, "{reason}");
    }
}

/// What is answered in that case; `None` where our relay never has it.
async fn provoke(bed: &Bed, case: &str) -> Option<Refused> {
    let connect = format!("/$hc/{PATH}?sb-hc-action=connect&sb-hc-id=my-id");
    let listen = format!("/$hc/{PATH}?sb-hc-action=listen&sb-hc-id=my-id");
    let with = async |target: &str, token: &str| {
        let headers = [("ServiceBusAuthorization", token)];
        bed.request(target, &headers).await.err().unwrap()
    };
    let good = bed.root_token();
    Some(match case {
        "no token" => bed.request(&connect, &[]).await.err().unwrap(),
        "malformed token" => with(&connect, "eyJ0.eyJ0.c2ln").await,
        "wrong key" => with(&connect, &bed.token(&rule("root", "another"), PATH, HOUR)).await,
        "unknown rule" => with(&connect, &bed.token(&rule("nobody", "key"), PATH, HOUR)).await,
        "expired token" => with(&connect, &bed.token(&root(), PATH, Duration::ZERO)).await,
        "another audience" => with(&connect, &bed.token(&root(), "other", HOUR)).await,
        "missing right" => with(&listen, &bed.token(&rule("send", "send-key"), PATH, HOUR)).await,
        "no entity" => {
            let token = bed.token(&root(), "nowhere", HOUR);
            with("/$hc/nowhere?sb-hc-action=listen", &token).await;
            with("/$hc/nowhere", &token).await
        }
        "no listener" => with(&connect, &good).await,
        "no listener of the list" => {
            let _listener = bed.listen().await;
            let headers = [
                ("ServiceBusAuthorization", &*good),
                ("Microsoft-Relay-AllowedListeners", "nobody"),
            ];
            bed.request(&connect, &headers).await.err().unwrap()
        }
        "no dial in time" => {
            let mut listener = bed.listen().await;
            let (refused, _) = tokio::join!(with(&connect, &good), listener.accept_message());
            refused
        }
        "no response in time" => {
            let _listener = bed.listen().await;
            let request = Request::get(format!("/{PATH}"))
                .header("host", bed.server.endpoint().authority())
                .header("ServiceBusAuthorization", good)
                .body(Empty::new())
                .unwrap();
            exchange(bed.memory(64 * 1024), request)
                .await
                .err()
                .unwrap()
        }
        "too many listeners" => {
            let mut listeners = Vec::new();
            for _ in 0..MAX_LISTENERS {
                listeners.push(bed.listen().await);
            }
            with(&listen, &good).await
        }
        "rejected" => {
            let mut listener = bed.listen().await;
            let (refused, ()) = tokio::join!(with(&connect, &good), async {
                let accept = listener.accept_message().await;
                let target = format!(
                    "{}&sb-hc-statusCode=400&sb-hc-statusDescription=Rejected+by+user+code",
                    target_of(&accept)
                );
                bed.request(&target, &[]).await.err().unwrap();
            });
            refused
        }
        // We have no such filter, no other gateway and no region.
        "IP filter" | "busy gateway" | "regional fault" => return None,
        other => panic!("a new case: {other}"),
    })
}

/// Section 7.2, as far as a relay that is not shut down closes sockets by itself.
#[tokio::test(start_paused = true)]
async fn control_channels_are_closed_with_the_words_of_the_service() {
    let closes: Value = serde_json::from_str(fixture!("closes.json")).unwrap();
    let expected = |case: &str| {
        let close = closes.as_array().unwrap().iter();
        let close = close.clone().find(|close| close["case"] == case).unwrap();
        let code = u16::try_from(close["code"].as_u64().unwrap()).unwrap();
        (code, close["reason"].as_str().unwrap().to_owned())
    };
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;
    bed.server.recycle();
    assert_eq!(listener.closed().await, expected("daily recycle"));

    let mut listener = bed.listen().await;
    // It answers pings while it waits.
    assert_eq!(listener.closed().await, expected("token expired"));

    let mut listener = bed.listen().await;
    bed.server.remove(PATH).unwrap();
    assert_eq!(listener.closed().await, expected("entity deleted"));
}
