//! Entry points of the fuzz targets. Not part of the API.

use std::sync::{Arc, LazyLock};

use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::{
    AgentCredential, Identity, IdentityRules, Impersonation,
    correlation::{AuditId, CorrelationId},
    impersonation::{UidHeader, is_impersonation},
    request_head::{self, Head, RequestHead},
    request_headers::{Decision, HeaderPolicy, clean},
    response_headers,
    upgrade::UpgradeProtocol,
};
use crate::auth::BearerAuth;

const USER: &str = "jane@example.com";
const GROUPS: [&str; 2] = ["devs", "ops"];

static IDENTITY: LazyLock<Arc<Identity>> = LazyLock::new(|| {
    let identity = Identity::builder(USER)
        .groups(GROUPS)
        .build(&IdentityRules::default());
    Arc::new(identity.expect("a fixed identity"))
});
static CREDENTIAL: LazyLock<AgentCredential> = LazyLock::new(|| {
    AgentCredential::new(Arc::new(
        BearerAuth::fixed("the-agent-s-own").expect("a token"),
    ))
});

/// Takes `input` for the first bytes of a stream. What passes for a request has one meaning.
pub fn request_head(input: &[u8]) {
    let Some(head) = read_head(input) else { return };
    let lengths = head.headers.get_all(header::CONTENT_LENGTH).iter().count();
    let codings = head
        .headers
        .get_all(header::TRANSFER_ENCODING)
        .iter()
        .count();
    assert!(lengths + codings <= 1, "two framings");
    assert_eq!(head.headers.get_all(header::HOST).iter().count(), 1);
    let framing = head.framing();
    assert_eq!(
        end_of_head(&framing),
        Some(framing.len()),
        "the framing is one head"
    );
}

/// Takes `input` for a request of somebody who is known: whatever its headers are, what goes to the API server has the
/// agent's credential together with exactly that identity, or does not go.
pub fn request_headers(input: &[u8]) {
    let Some(head) = read_head(input) else { return };
    for impersonation in [Impersonation::Refuse, Impersonation::SubjectAccessReview] {
        let mut policy = HeaderPolicy::default();
        policy.set_impersonation(impersonation);
        let Ok((cleaned, _)) = clean(head.headers.clone(), &policy) else {
            continue;
        };
        let upgrade = UpgradeProtocol::requested(&head.method, &head.headers);
        let token = CREDENTIAL
            .token()
            .now_or_never()
            .expect("it is fixed")
            .expect("a token");
        let sealed = cleaned
            .seal(
                Decision::Impersonate(Arc::clone(&IDENTITY), UidHeader::Omit, token),
                &HeaderValue::from_static("api.example:6443"),
                AuditId::generate(),
                &CorrelationId::generate(),
                upgrade,
            )
            .expect("a fixed identity can be written")
            .into_map();
        assert_speaks_for_the_caller(&sealed);
    }
}

/// Takes `input` for the head of the API server's answer to an upgrade. What the caller gets is one head, whose protocol
/// is the one that was asked for.
pub fn upgrade_answer(input: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Response::new(&mut fields);
    if !matches!(parsed.parse(input), Ok(httparse::Status::Complete(_))) {
        return;
    }
    let mut headers = HeaderMap::new();
    for field in parsed.headers.iter() {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(field.name.as_bytes()),
            HeaderValue::from_bytes(field.value),
        ) {
            headers.append(name, value);
        }
    }
    for protocol in [UpgradeProtocol::Spdy, UpgradeProtocol::WebSocket] {
        let mut headers = headers.clone();
        if !protocol.is_confirmed_by(&headers) {
            response_headers::clean(&mut headers);
            assert!(!headers.contains_key(header::UPGRADE));
            continue;
        }
        response_headers::clean_switching(&mut headers, protocol);
        assert!(!headers.contains_key(header::CONTENT_LENGTH));
        assert!(!headers.contains_key(header::TRANSFER_ENCODING));
        assert!(protocol.is_confirmed_by(&headers));
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = headers;
        let wire = response_headers::wire(&response);
        assert_eq!(
            end_of_head(&wire),
            Some(wire.len()),
            "one head and nothing behind it"
        );
    }
}

fn assert_speaks_for_the_caller(headers: &HeaderMap) {
    let only = |name: &str| -> Vec<&HeaderValue> { headers.get_all(name).iter().collect() };
    assert_eq!(only("authorization"), ["Bearer the-agent-s-own"]);
    assert_eq!(only("impersonate-user"), [USER]);
    assert_eq!(only("impersonate-group"), GROUPS);
    assert_eq!(only("host").len(), 1);
    assert_eq!(only("audit-id").len(), 1);
    for name in headers.keys().map(HeaderName::as_str) {
        let ours = matches!(name, "impersonate-user" | "impersonate-group");
        assert!(ours || !is_impersonation(name), "{name}");
        assert!(!name.replace('_', "-").starts_with("x-remote-"), "{name}");
    }
    for line in headers.get_all(header::CONNECTION) {
        assert_eq!(line, "Upgrade");
    }
}

fn read_head(input: &[u8]) -> Option<RequestHead> {
    let mut input = input;
    // Reading from memory never waits.
    match request_head::read(&mut input).now_or_never()? {
        Ok(Head::Complete(head, _)) => Some(head),
        _ => None,
    }
}

/// Where the first empty line ends.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|position| position + 4)
}
