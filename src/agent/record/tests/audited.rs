//! Whole requests, as the audit log has them.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::*;
use crate::agent::test_bed::FarEnd;

/// Keeps events as they would be written.
#[derive(Debug, Default)]
struct Events(Mutex<Vec<Value>>);

impl AuditSink for Events {
    fn record(&self, event: &AuditEvent) {
        let event = serde_json::from_str(&event.to_json()).expect("JSON");
        self.0.lock().expect("no panic").push(event);
    }
}

struct Audited {
    bed: Bed,
    events: Arc<Events>,
}

impl Audited {
    fn new() -> Self {
        let events = Arc::new(Events::default());
        let sink = Arc::clone(&events) as Arc<dyn AuditSink>;
        Self {
            bed: Bed::with(|builder| builder.audit(sink).max_requests(1)),
            events,
        }
    }

    /// The events so far, without what differs from run to run.
    fn events(&self) -> Vec<Value> {
        let mut events = self.events.0.lock().expect("no panic").clone();
        for event in &mut events {
            for (name, length) in [("timestamp", 27), ("auditID", 36)] {
                let value = event[name].take();
                assert_eq!(value.as_str().expect("text").len(), length);
            }
            let event = event.as_object_mut().expect("an object");
            event.retain(|_, value| !value.is_null());
            let duration = event.remove("durationMilliseconds").expect("a duration");
            assert!(duration.as_f64().expect("a number") >= 0.0);
        }
        events
    }
}

fn token() -> String {
    let claims = r#"{"iss":"https://cluster","sub":"system:serviceaccount:n:robot"}"#;
    format!("Bearer h.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims))
}

fn request(head: &str) -> String {
    format!(
        "{head}\r\nHost: tunnel\r\nX-Ms-Correlation-Request-Id: run.7\r\nAuthorization: {}\r\n\r\n",
        token()
    )
}

/// Sends `request` and plays the API server; the events once the stream is over.
async fn served(request: &str, play: impl AsyncFnOnce(&mut FarEnd, &mut Audited)) -> Vec<Value> {
    let mut audited = Audited::new();
    let (mut caller, task) = audited.bed.caller_and_task();
    caller.send(request).await;
    play(&mut caller, &mut audited).await;
    drop(caller);
    task.await.expect("no panic");
    let metrics = audited.bed.agent.core.metrics_text();
    assert!(metrics.contains("acc_requests_in_flight 0\n"), "{metrics}");
    assert!(metrics.contains("acc_upgraded_streams 0\n"), "{metrics}");
    audited.events()
}

fn robot(kind: &str) -> Value {
    json!({
        "kind": kind,
        "unverified": { "issuer": "https://cluster", "subject": "system:serviceaccount:n:robot" },
    })
}

#[tokio::test]
async fn a_plain_request_is_one_event() {
    let create =
        "POST /api/v1/namespaces/n/configmaps?fieldManager=secret HTTP/1.1\r\nContent-Length: 5";
    let request = request(create) + "12345";
    let events = served(&request, async |caller, audited| {
        let mut api = audited.bed.api.connection().await;
        let head = api.head().await;
        let audit_id = head
            .lines()
            .find_map(|line| line.strip_prefix("audit-id: "))
            .expect("an Audit-ID")
            .to_owned();
        api.until("12345").await;
        api.send("HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\nabc")
            .await;
        caller.until("abc").await;
        caller.rest().await;
        let events = audited.events.0.lock().expect("no panic");
        assert_eq!(
            events[0]["auditID"], audit_id,
            "the API server logs the same"
        );
    })
    .await;
    let expected = json!([{
        "stage": "ResponseComplete",
        "correlationID": "run.7",
        "caller": robot("pass-through"),
        "method": "POST",
        "path": "/api/v1/namespaces/n/configmaps",
        "verb": "create",
        "objectRef": { "apiGroup": "", "apiVersion": "v1", "namespace": "n", "resource": "configmaps" },
        "decision": "allowed",
        "status": 201,
        "outcome": "answered",
        "bytesReceived": 5,
        "bytesSent": 3,
    }]);
    assert_eq!(json!(events), expected);
}

#[tokio::test]
async fn a_refused_request_says_why_and_who_claimed_to_ask() {
    let events = served(
        &request("GET /version HTTP/1.1\r\nOrigin: https://evil"),
        async |caller, _| assert_eq!(caller.status().await.0, 403),
    )
    .await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["decision"], "denied");
    assert_eq!(events[0]["reason"], "Forbidden");
    assert_eq!(events[0]["status"], 403);
    assert_eq!(events[0]["verb"], "get");
    assert!(events[0].get("objectRef").is_none());

    let events = served(
        "GET /version HTTP/1.1\r\nHost: x\r\nAuthorization: Basic dTpw\r\n\r\n",
        async |caller, _| assert_eq!(caller.status().await.0, 401),
    )
    .await;
    assert_eq!(events[0]["reason"], "malformed");
    assert_eq!(events[0]["caller"], json!({ "kind": "unauthenticated" }));
}

#[tokio::test]
async fn a_request_without_a_usable_head_is_an_event_too() {
    let mut audited = Audited::new();
    let (mut caller, task) = audited.bed.caller_and_task();
    caller.send("GET /version HTTP/1.0\r\n\r\n").await;
    assert_eq!(caller.status().await.0, 505);
    task.await.expect("no panic");
    let events = audited.events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["decision"], "denied");
    assert_eq!(events[0]["reason"], "HTTPVersionNotSupported");
    assert!(events[0].get("path").is_none());
    audited.bed.api = Bed::new().api;
}

#[tokio::test]
async fn a_watch_has_an_event_at_its_start() {
    let events = served(
        &request("GET /api/v1/pods?watch=1 HTTP/1.1"),
        async |caller, audited| {
            let mut api = audited.bed.api.connection().await;
            api.head().await;
            api.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n")
                .await;
            caller.until("event").await;
            let started = audited.events();
            assert_eq!(started.len(), 1);
            assert_eq!(started[0]["stage"], "ResponseStarted");
            assert_eq!(started[0]["verb"], "watch");
            assert_eq!(started[0]["status"], 200);
            assert!(started[0].get("outcome").is_none());
            // One request is all that this agent takes: who comes now is turned away, and audited.
            let mut second = audited.bed.caller();
            second.send(request("GET /version HTTP/1.1")).await;
            assert_eq!(second.status().await.0, 429);
        },
    )
    .await;
    let stages: Vec<_> = events.iter().map(|event| &event["stage"]).collect();
    assert_eq!(
        stages,
        ["ResponseStarted", "ResponseComplete", "ResponseComplete"]
    );
    assert_eq!(events[1]["reason"], "TooManyRequests");
    assert_eq!(events[1]["decision"], "denied");
    assert_eq!(events[2]["outcome"], "answered");
    assert_eq!(events[2]["bytesSent"], 5);
}

#[tokio::test]
async fn an_upgraded_stream_has_an_event_at_its_start_and_counts_its_bytes() {
    let exec = "POST /api/v1/namespaces/n/pods/p/exec?command=hunter2 HTTP/1.1\r\n\
                Connection: Upgrade\r\nUpgrade: SPDY/3.1";
    let events = served(&request(exec), async |caller, audited| {
        let mut api = audited.bed.api.connection().await;
        api.head().await;
        api.send("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\nhello")
            .await;
        caller.until("hello").await;
        caller.send("input").await;
        api.until("input").await;
        let metrics = audited.bed.agent.core.metrics_text();
        assert!(metrics.contains("acc_upgraded_streams 1\n"), "{metrics}");
        assert_eq!(audited.events()[0]["stage"], "ResponseStarted");
    })
    .await;
    assert_eq!(events.len(), 2);
    let end = &events[1];
    assert_eq!(end["stage"], "ResponseComplete");
    assert_eq!(end["upgrade"], "SPDY/3.1");
    assert_eq!(end["objectRef"]["subresource"], "exec");
    assert_eq!(
        (&end["bytesReceived"], &end["bytesSent"]),
        (&json!(5), &json!(5))
    );
    assert!(!json!(events).to_string().contains("hunter2"));
}

#[tokio::test]
async fn a_truncated_response_and_a_caller_who_leaves_are_told_apart() {
    let list = request("GET /api/v1/pods HTTP/1.1");
    let events = served(&list, async |caller, audited| {
        let mut api = audited.bed.api.connection().await;
        api.head().await;
        api.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            .await;
        caller.until("half").await;
        drop(api);
        caller.rest().await;
    })
    .await;
    assert_eq!(events[0]["outcome"], "truncated");
    let events = served(&list, async |_, audited| {
        audited.bed.api.connection().await.head().await;
    })
    .await;
    assert_eq!(events[0]["outcome"], "abandoned");
    assert_eq!(events[0]["decision"], "allowed");
    assert!(events[0].get("status").is_none());
}
