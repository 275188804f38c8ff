use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, HeaderValue, header};

use super::*;
use crate::agent::{
    audit::{AuditSink, CallerKind},
    test_bed::Bed,
};

mod audited;

#[test]
fn a_logged_path_is_bounded_and_stays_text() {
    assert_eq!(logged_path("/api/v1/pods"), "/api/v1/pods");
    let long = "/é".repeat(MAX_LOGGED_PATH);
    let logged = logged_path(&long);
    assert!(logged.len() <= MAX_LOGGED_PATH && logged.len() > MAX_LOGGED_PATH - 4);
}

/// Keeps the last event's length, so that 10⁵ of them need no room.
#[derive(Debug, Default)]
struct Longest(Mutex<usize>);

impl AuditSink for Longest {
    fn record(&self, event: &AuditEvent) {
        let mut longest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *longest = event.to_json().len().max(*longest);
    }
}

fn record(core: &Arc<Core>, head: &RequestHead) -> RequestRecord {
    let correlation = CorrelationId::of(&head.headers);
    let audit = AuditId::generate();
    let span = span(head, &correlation, audit);
    let origin = Origin {
        audit,
        correlation,
        remote: None,
        closing: CancellationToken::new(),
    };
    RequestRecord::new(Arc::clone(core), span, head, None, origin)
}

#[test]
fn r19_a_hundred_thousand_paths_and_users_leave_the_series_bounded() {
    let bed = Bed::new();
    let core = &bed.agent.core;
    for number in 0..100_000 {
        let mut headers = HeaderMap::new();
        let id = HeaderValue::from_str(&format!("session-{number}")).expect("a value");
        headers.insert(telemetry::HEADER_CORRELATION_ID, id);
        let head = RequestHead {
            method: Method::from_bytes(format!("METHOD{}", number % 5_000).as_bytes())
                .expect("a method"),
            target: format!("/api/v1/namespaces/n{number}/pods/p{number}")
                .parse()
                .expect("a target"),
            headers,
        };
        let mut record = record(core, &head);
        let user = format!("user-{number}@example.org");
        record.set_caller(CallerSummary {
            kind: CallerKind::Impersonate,
            user: Some(&user),
            groups: number,
        });
        if number % 2 == 0 {
            record.set_admitted();
        } else {
            record.set_refused(&Refusal::malformed(format!("no {number}")));
        }
        let code = 100 + u16::try_from(number % 900).expect("small");
        record.set_answered(StatusCode::from_u16(code).expect("a code"));
    }
    let text = core.metrics_text();
    assert!(
        text.lines().count() < 200,
        "{} series",
        text.lines().count()
    );
    for word in ["user", "namespaces", "session", "METHOD"] {
        assert!(!text.contains(word), "{word} became a label");
    }
}

#[test]
fn an_event_is_bounded_whatever_the_caller_sends() {
    let sink = Arc::new(Longest::default());
    let bed = Bed::with(|builder| builder.audit(Arc::clone(&sink) as Arc<dyn AuditSink>));
    let long = "a".repeat(2_000);
    let mut headers = HeaderMap::new();
    let claims = format!(r#"{{"iss":"{long}","sub":"{long}"}}"#);
    let claims = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, claims);
    let value = HeaderValue::from_str(&format!("Bearer h.{claims}.s")).expect("a value");
    headers.insert(header::AUTHORIZATION, value);
    let head = RequestHead {
        method: Method::from_bytes(long.as_bytes()).expect("a method"),
        target: format!("/apis/{long}/{long}/namespaces/{long}/{long}/{long}/{long}")
            .parse()
            .expect("a target"),
        headers,
    };
    let mut record = record(&bed.agent.core, &head);
    record.set_caller(CallerSummary {
        kind: CallerKind::PassThrough,
        user: Some(&long),
        groups: usize::MAX,
    });
    drop(record);
    let longest = *sink.0.lock().expect("no panic");
    assert!((1_000..4_096).contains(&longest), "{longest} bytes");
}
