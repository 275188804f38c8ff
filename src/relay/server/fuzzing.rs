//! Entry point of a fuzz target. Not part of the API.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use hyper::ext::ReasonPhrase;

use super::{
    EntityOptions, Refusal, Rights,
    accept_message::{Invitation, MAX_MESSAGE},
    context::{readable_path, tracking_id},
    entity::Entities,
    handshake::{Handshake, TOKEN_HEADER},
    refusal::Tracking,
    route::{Action, Target},
    token::{Claim, Rules},
};
use crate::{
    net::{Endpoint, Security},
    relay::{SasRule, control::ControlMessage, rendezvous::Rendezvous},
};

/// Takes `input` for the head of a request: its target in the first line, a header in each of the next.
///
/// Whatever it says: no token in it proves anything; what a listener is told of the sender is an announcement that our own
/// listener understands and answers, without the sender's token; and nothing of the sender's in it speaks for the relay or
/// for the listener, when the listener comes back with it.
pub(in crate::relay) fn upgrade_request(input: &[u8]) {
    let Some(request) = request(input) else {
        return;
    };
    let target = Target::parse(request.uri().path(), request.uri().query());
    let id = tracking_id(target.id.as_deref());
    assert!(!id.is_empty() && id.len() <= 128);
    assert!(id.bytes().all(|byte| byte.is_ascii_graphic()));
    let path = readable_path(target.path);

    nothing_is_proven(&request, &target, &path);
    a_handshake_is_whole(&request);
    a_refusal_is_one_line(&target, &id, &path);
    if target.action == Action::Connect {
        an_announcement_is_understood(&request, &target, &id);
    }
}

fn request(input: &[u8]) -> Option<Request<()>> {
    let mut lines = input.split(|byte| *byte == b'\n');
    let uri = Uri::try_from(lines.next()?).ok()?;
    let mut request = Request::get(uri).body(()).ok()?;
    for line in lines.take(MAX_LINES) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(parts.next()?.trim_ascii());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            request.headers_mut().append(name, value);
        }
    }
    Some(request)
}

fn nothing_is_proven(request: &Request<()>, target: &Target<'_>, path: &str) {
    let mut rules = Rules::default();
    let rule = SasRule::new("rule", "a key that no input knows").expect("a rule");
    rules.add(rule, Rights::LISTEN | Rights::SEND);
    let token = match request.headers().get(TOKEN_HEADER) {
        Some(value) => Some(value.to_str().unwrap_or_default()),
        None => target.token.as_deref(),
    };
    for rights in [Rights::LISTEN, Rights::SEND] {
        let claim = Claim {
            host: HOST,
            path,
            rights,
            now: NOW,
        };
        let refusal = rules.check(token, &claim).expect_err("nobody has the key");
        assert_eq!(refusal.status(), StatusCode::UNAUTHORIZED);
    }
}

fn a_handshake_is_whole(request: &Request<()>) {
    match Handshake::check(request) {
        Ok(handshake) => {
            let protocol = handshake.protocol();
            let response = handshake.accept(protocol);
            assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
            assert_eq!(response.headers()[header::SEC_WEBSOCKET_ACCEPT].len(), 28);
            assert!(
                !response
                    .headers()
                    .contains_key(header::SEC_WEBSOCKET_EXTENSIONS)
            );
        }
        Err(refusal) => assert!(refusal.status().is_client_error()),
    }
}

fn a_refusal_is_one_line(target: &Target<'_>, id: &str, path: &str) {
    let status = target
        .status_code
        .as_deref()
        .and_then(|code| code.parse().ok());
    let description = target.status_description.as_deref().unwrap_or_default();
    for refusal in [
        Refusal::no_entity(),
        Refusal::by_listener(status, description),
    ] {
        let tracking = Tracking {
            id,
            host: HOST,
            path,
            now: NOW,
        };
        let response = refusal.into_response(&tracking);
        assert!(response.status().as_u16() >= 200);
        if let Some(phrase) = response.extensions().get::<ReasonPhrase>() {
            let is_printable = |byte: &u8| (b' '..=b'~').contains(byte);
            assert!(phrase.as_bytes().iter().all(is_printable));
        }
    }
}

fn an_announcement_is_understood(request: &Request<()>, target: &Target<'_>, id: &str) {
    let mut entities = Entities::default();
    for path in ["hc", "a/b", "a/b/c d"] {
        entities.add(path.to_owned(), EntityOptions::new());
    }
    let Some((entity, suffix)) = entities.find(target.path) else {
        return;
    };
    let invitation = Invitation {
        entity_path: entity.path(),
        suffix,
        user_query: &target.user_query,
        rendezvous_id: RENDEZVOUS,
        tracking_id: id,
        headers: request.headers(),
        remote: "192.0.2.1:62917".parse().expect("an address"),
    };
    let Some(text) = invitation.to_json(&format!("wss://{HOST}")) else {
        return;
    };
    assert!(text.len() <= MAX_MESSAGE);
    let Ok(ControlMessage::Accept(accept)) = ControlMessage::parse(text.as_bytes()) else {
        panic!("our listener does not understand {text}");
    };
    assert_eq!(accept.id, format!("{id}_G0"));
    assert!(!accept.headers.contains_key(TOKEN_HEADER));
    let relay = Endpoint::new(HOST, 443, Security::Tls);
    let rendezvous = match Rendezvous::check(&accept.address, &relay) {
        Ok(rendezvous) => rendezvous,
        // The only thing that a listener may find wrong.
        Err(_) => return assert!(accept.address.len() > 8 * 1024, "{}", accept.address),
    };

    let rejection = rendezvous.reject_target(418, "no");
    for (answer, status) in [(rendezvous.target(), None), (&*rejection, Some("418"))] {
        let uri = Uri::try_from(answer).expect("what our listener dials");
        let answered = Target::parse(uri.path(), uri.query());
        assert_eq!(answered.action, Action::Accept);
        assert_eq!(answered.id.as_deref(), Some(RENDEZVOUS));
        assert_eq!(answered.status_code.as_deref(), status);
        assert_eq!(answered.token, None);
        let (found, _) = entities.find(answered.path).expect("the same one");
        assert_eq!(found.path(), entity.path());
    }
}

const HOST: &str = "relay.example.windows.net";

const RENDEZVOUS: &str = "0123456789abcdef0123456789abcdef";

const NOW: SystemTime = UNIX_EPOCH;

/// More make nothing new.
const MAX_LINES: usize = 64;
