//! What Azure Relay is known to say, read by our sender and listener: `tests/fixtures/relay`.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncReadExt;

use super::{super::*, connector, hybrid_connection, refusal, relay_of, rule};
use crate::{
    net::{Connector, Endpoint, Security},
    relay::{
        control::{Accept, ControlMessage, renew_token},
        rendezvous::Rendezvous,
        websocket::{CloseReason, Outgoing, Role, WebSocket, handshake::accept_key},
    },
};

/// The text of a fixture.
macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../tests/fixtures/relay/", $name))
    };
}

#[derive(Deserialize)]
struct Refusal {
    case: String,
    status: u16,
    text: String,
    kind: String,
    retry: bool,
    help: Option<String>,
}

#[derive(Deserialize)]
struct Close {
    case: String,
    code: u16,
    reason: String,
}

fn accept(text: &str) -> Accept {
    match ControlMessage::parse(text.as_bytes()).unwrap() {
        ControlMessage::Accept(accept) => accept,
        other => panic!("{other:?}"),
    }
}

fn contoso() -> Endpoint {
    Endpoint::new("contoso.servicebus.windows.net", 443, Security::Tls)
}

/// Section 4.1.
#[test]
fn a_sender_is_announced_and_met_at_the_address_as_it_is_given() {
    for (text, host, target, remote) in [
        (
            fixture!("accept.json"),
            "g17-prod-by3-010-sb.servicebus.windows.net",
            "/$hc/yesclientauth?sb-hc-action=accept&sb-hc-id=ca496b91-2b5c-4c5e-9d0c-7a1f6f0f3b11_G17_G30",
            Some(62917),
        ),
        (
            fixture!("accept-port.json"),
            "g17-prod-by3-010-sb.servicebus.windows.net",
            "/$hc/yesclientauth?sb-hc-action=accept&sb-hc-id=ca496b91-2b5c-4c5e-9d0c-7a1f6f0f3b11_G17_G30",
            Some(62917),
        ),
        (
            fixture!("accept-odd.json"),
            "gv3-prod-am2-001-sb.servicebus.windows.net",
            "/$hc/yesclientauth/more?x=1&sb-hc-action=accept&sb-hc-id=not.a.guid_G3",
            None,
        ),
    ] {
        let accept = accept(text);
        assert_eq!(accept.remote.map(|remote| remote.port), remote);
        assert!(accept.headers.contains_key("sec-websocket-key"));
        assert!(target.ends_with(&accept.id));
        let rendezvous = Rendezvous::check(&accept.address, &contoso()).unwrap();
        let expected = Endpoint::new(host, 443, Security::Tls);
        assert_eq!(rendezvous.endpoint(), &expected);
        assert_eq!(rendezvous.target(), target);
    }
    let odd = accept(fixture!("accept-odd.json"));
    assert_eq!(odd.headers["x-repeated"], "1, 2");
    assert_eq!(odd.headers["x-number"], "7");
}

/// Sections 4.2, 4.3 and 4.5.
#[test]
fn the_other_messages_are_told_apart() {
    for (text, id) in [
        (
            fixture!("request.json"),
            "ca496b91-2b5c-4c5e-9d0c-7a1f6f0f3b12_G17_G30",
        ),
        (
            fixture!("request-pointer.json"),
            "ca496b91-2b5c-4c5e-9d0c-7a1f6f0f3b13_G17_G30",
        ),
    ] {
        let id = id.to_owned();
        let message = ControlMessage::parse(text.as_bytes()).unwrap();
        assert_eq!(message, ControlMessage::Request { id });
    }
    let fault = ControlMessage::parse(fixture!("inject-fault.json").as_bytes());
    assert_eq!(fault.unwrap(), ControlMessage::Other);

    let expected = fixture!("renew-token.json").trim_end();
    let value: Value = serde_json::from_str(expected).unwrap();
    let token = value["renewToken"]["token"].as_str().unwrap();
    assert_eq!(renew_token(token), expected);
}

/// Section 7.1.
#[tokio::test(start_paused = true)]
async fn each_refusal_is_told_to_sender_and_listener() {
    let refusals: Vec<Refusal> = serde_json::from_str(fixture!("refusals.json")).unwrap();
    assert!(refusals.len() > 15);
    for expected in refusals {
        let case = &expected.case;
        let answer = refusal(&format!("{} {}", expected.status, expected.text));
        let relay = relay_of(move || Ok(answer.clone()));
        let sender = RelaySender::new(relay.clone(), hybrid_connection(9), rule().into());
        let error = sender.connect().await.unwrap_err();
        assert_eq!(format!("{:?}", error.kind()), expected.kind, "{case}");
        assert_eq!(error.status(), Some(expected.status), "{case}");
        assert_eq!(error.tracking_id(), Some("id_G1"), "{case}");
        assert_eq!(error.is_retryable(), expected.retry, "{case}");
        let text = expected.text.trim_end();
        assert!(error.to_string().contains(text), "{case}: {error}");
        let help = expected.help.unwrap_or_default();
        assert!(error.help().unwrap().contains(&help), "{case}: {error:?}");

        // A listener is told at once what does not pass, and of a 404 when its patience is over.
        let listener = RelayListener::start(relay, hybrid_connection(9), rule().into());
        let lasts = !expected.retry || expected.status == 404;
        let online = tokio::time::timeout(Duration::from_secs(600), listener.online()).await;
        match online {
            Ok(told) => {
                assert!(lasts, "{case}");
                let error = told.unwrap_err();
                assert_eq!(format!("{:?}", error.kind()), expected.kind, "{case}");
                assert!(error.report().contains(text), "{case}: {}", error.report());
            }
            Err(_) => assert!(!lasts, "{case}"),
        }
    }
}

/// A relay in memory that opens each WebSocket and closes it at once.
fn closing(code: u16, reason: String) -> Connector {
    connector().in_memory(move |_| {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let reason = CloseReason::new(code, reason.clone());
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(far.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let key = head
                .lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
                .unwrap()
                .1;
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}\r\n\r\n",
                accept_key(key.as_bytes())
            );
            tokio::io::AsyncWriteExt::write_all(&mut far, answer.as_bytes())
                .await
                .unwrap();
            let mut socket = WebSocket::new(far, Role::Server, Bytes::new());
            let _ = socket.send(Outgoing::Close(Some(&reason))).await;
            let _ = socket.next_event().await;
        });
        near
    })
}

/// Section 7.2: on a data socket only 1000 is a clean end; a control channel is never given up.
#[tokio::test(start_paused = true)]
async fn each_close_is_told_apart() {
    let closes: Vec<Close> = serde_json::from_str(fixture!("closes.json")).unwrap();
    assert_eq!(closes.len(), 5);
    for Close { case, code, reason } in closes {
        let relay = closing(code, reason.clone());
        let sender = RelaySender::new(relay.clone(), hybrid_connection(9), rule().into());
        let mut stream = sender.connect().await.unwrap();
        let ended = stream.read_to_end(&mut Vec::new()).await;
        assert_eq!(ended.is_ok(), code == 1000, "{case}: {ended:?}");

        let listener = RelayListener::start(relay, hybrid_connection(9), rule().into());
        let mut states = listener.states();
        let told = loop {
            match states.next().await.unwrap() {
                ListenerState::Waiting { reason, .. } => break reason,
                ListenerState::Connecting | ListenerState::Online => {}
            }
        };
        let text = told.to_string();
        assert!(text.contains(&format!("{code} {reason}")), "{case}: {text}");
        assert!(told.is_retryable(), "{case}");
        assert_eq!(told.help().is_some(), code == 1008, "{case}");
    }
}
