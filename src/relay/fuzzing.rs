//! Entry points of the fuzz targets. Not part of the API.

use std::time::{Duration, UNIX_EPOCH};

use futures_util::FutureExt;

use http::{HeaderMap, header::HOST};

use super::{
    ConnectionString, SasRule, control::ControlMessage, handshake::SERVICE_BUS_AUTHORIZATION,
    incoming, rendezvous::Rendezvous, sas::SasToken,
};
use crate::net::{Endpoint, Security};

/// Takes `input` for a connection string.
pub fn connection_string(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(string) = ConnectionString::parse(text) {
        let _ = string.endpoint().authority();
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        if let Ok(hybrid_connection) = string.hybrid_connection() {
            let credential = string.credential();
            let grant = credential.grant(&hybrid_connection, now);
            match grant.now_or_never().expect("a string names no source") {
                Ok(grant) => assert!(!grant.token().secret().is_empty()),
                // A finished token may have expired.
                Err(error) => assert!(error.is_unauthorized()),
            }
        }
    }
}

/// Takes `input` for a shared access signature: nothing that is made up may verify.
pub fn sas_token(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(token) = SasToken::parse(text) {
        let rule = SasRule::new("rule", "a key that no input knows").expect("a rule");
        assert!(token.verify(&rule, "demo", "hc", UNIX_EPOCH).is_err());
    }
}

/// Takes `input` for a message on a listener's control channel, from either end.
pub fn control_message(input: &[u8]) {
    let _ = ControlMessage::parse(input);
    #[cfg(feature = "relay-server")]
    super::server::fuzz_response(input);
}

/// Takes the first byte of `input` for the relay that a listener is registered at, and the rest for the address that it is
/// told to meet a sender at.
///
/// Whatever the address: the listener dials the host of its own relay, a name below it, or one below the domain that all
/// namespaces of Azure share; on the relay's port, not without TLS where the relay has it; with a request that is for that
/// host, is the address's own path and query, and holds no token.
pub fn rendezvous_address(input: &[u8]) {
    let Some((which, address)) = input.split_first() else {
        return;
    };
    let Ok(address) = std::str::from_utf8(address) else {
        return;
    };
    let relay = &RELAYS[usize::from(*which) % RELAYS.len()];
    let registered_at = Endpoint::new(relay.host, relay.port, relay.security);
    let Ok(rendezvous) = Rendezvous::check(address, &registered_at) else {
        return;
    };

    let endpoint = rendezvous.endpoint();
    let host = endpoint.host().to_ascii_lowercase();
    let is_below = |domain: &str| {
        let rest = host.strip_suffix(domain);
        rest.and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|rest| !rest.is_empty())
    };
    assert!(
        host == relay.host || relay.domain.is_some_and(is_below),
        "{host} is not of {}",
        relay.host
    );
    assert_eq!(endpoint.port(), relay.port);
    assert!(relay.security == Security::Plain || endpoint.security() == Security::Tls);

    let reason = "no & never #1";
    let rejection = rendezvous.reject_target(400, reason);
    assert!(address.contains(rendezvous.target()));
    assert!(rejection.starts_with(rendezvous.target()));
    for target in [rendezvous.target(), &rejection] {
        assert!(target.starts_with("/$hc/"));
        let headers = HeaderMap::new();
        // An address that is no request target is an error when it is dialled.
        let Ok(request) = incoming::answer(endpoint, target, &headers).request("key") else {
            continue;
        };
        assert_eq!(request.uri().to_string(), *target);
        assert!(request.uri().authority().is_none());
        assert!(target.bytes().all(|byte| byte > b' ' && byte != 0x7f));
        assert!(!request.headers().contains_key(SERVICE_BUS_AUTHORIZATION));
        let shown = request.headers()[HOST].to_str().expect("a host is ASCII");
        let shown = shown.trim_start_matches('[').to_ascii_lowercase();
        assert!(shown.starts_with(&host), "{shown} for {host}");
    }
}

/// A relay, and the domain whose names its listeners dial.
struct Registered {
    host: &'static str,
    port: u16,
    security: Security,
    domain: Option<&'static str>,
}

const RELAYS: [Registered; 7] = [
    Registered {
        host: "contoso.servicebus.windows.net",
        port: 443,
        security: Security::Tls,
        domain: Some("servicebus.windows.net"),
    },
    Registered {
        host: "relay.corp.example",
        port: 8443,
        security: Security::Tls,
        domain: Some("relay.corp.example"),
    },
    Registered {
        host: "relay.co.uk",
        port: 443,
        security: Security::Tls,
        domain: Some("relay.co.uk"),
    },
    Registered {
        host: "10.0.0.1",
        port: 443,
        security: Security::Tls,
        domain: None,
    },
    Registered {
        host: "2001:db8::1",
        port: 443,
        security: Security::Tls,
        domain: None,
    },
    Registered {
        host: "localhost",
        port: 9000,
        security: Security::Plain,
        domain: None,
    },
    Registered {
        host: "::1",
        port: 9000,
        security: Security::Plain,
        domain: None,
    },
];

/// Takes `input` for the head of a request that reaches the embedded relay.
pub fn upgrade_request(input: &[u8]) {
    #[cfg(feature = "relay-server")]
    super::server::fuzz_upgrade_request(input);
    #[cfg(not(feature = "relay-server"))]
    let _ = input;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The committed inputs of each target; a package has none.
    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(target);
        let files = std::fs::read_dir(folder).into_iter().flatten();
        files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect()
    }

    #[test]
    fn the_committed_inputs_are_harmless() {
        let feed = |name: &str, target: fn(&[u8])| {
            for input in corpus(name) {
                target(&input);
            }
        };
        feed("relay_connection_string", connection_string);
        feed("relay_control_message", control_message);
        feed("relay_sas_token", sas_token);
        feed("relay_rendezvous_address", rendezvous_address);
        feed("relay_upgrade_request", upgrade_request);
    }

    /// The inputs reach what they are there for.
    #[test]
    fn an_address_of_each_relay_is_taken() {
        for relay in &RELAYS {
            let endpoint = Endpoint::new(relay.host, relay.port, relay.security);
            let scheme = match relay.security {
                Security::Plain => "ws",
                Security::Tls => "wss",
            };
            let address = format!("{scheme}://{}/$hc/a", endpoint.authority());
            Rendezvous::check(&address, &endpoint).expect(&address);
        }
    }

    proptest! {
        #[test]
        fn no_address_leads_elsewhere(
            which in 0..7_u8,
            address in "(wss?|WSS|https|sb)://[a-z.@:\\[\\]0-9%-]{0,12}(\\.?(servicebus\\.windows\\.net|relay\\.co\\.uk|corp\\.example|localhost|10\\.0\\.0\\.1|\\[::1\\]))?(:443|:8443|:9000)?/(\\$hc/)?[ -~é]{0,20}",
        ) {
            let input = [&[which], address.as_bytes()].concat();
            rendezvous_address(&input);
        }

        #[test]
        fn no_request_gets_through_unproven(
            target in "/(\\$hc/)?(hc|a/b|a%2Fb|open|x)?(/[ -~]{0,10})?(\\?([a-z=&%?+]|sb-hc-(action|id|token|statusCode|statusDescription)(=|&)(listen|accept|connect)?){0,8})?",
            headers in proptest::collection::vec(
                "(host|upgrade|connection|sec-websocket-(key|version|protocol|extensions)|servicebusauthorization|authorization|x-a): ?[ -~]{0,20}",
                0..6,
            ),
        ) {
            let input = format!("{target}\n{}", headers.join("\n"));
            upgrade_request(input.as_bytes());
        }
    }
}
