//! Where a listener may be sent to meet a sender.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::address::RelayUrl;
use crate::net::{Endpoint, Security};

/// A rendezvous address that was found harmless. It is a credential (its id takes the sender's place), so its path and
/// query are never shown.
pub(super) struct Rendezvous {
    endpoint: Endpoint,
    target: String,
}

impl Rendezvous {
    /// Takes an address that the relay announced on the control channel to `relay`.
    ///
    /// The address is used as it is, with its own host: the real service names the node on which the sender waits.
    /// But a relay that was taken over must not make a listener inside a private network dial around in there. So the
    /// address has to be a WebSocket one below `/$hc/`, on the control channel's own port, protected when the control
    /// channel is, and its host has to be
    /// * the control channel's host,
    /// * or a name below it,
    /// * or, where that host is a name of at least four labels such as `contoso.servicebus.windows.net`, a name below
    ///   the same parent. Shorter names have a parent such as `co.uk` that unrelated owners share.
    ///
    /// Whatever the host, no token is ever sent there.
    pub(super) fn check(address: &str, relay: &Endpoint) -> Result<Self, &'static str> {
        if address.len() > MAX_ADDRESS {
            return Err("it is too long");
        }
        let scheme = address.split("://").next().unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("wss") && !scheme.eq_ignore_ascii_case("ws") {
            return Err("it is not a WebSocket address");
        }
        let url = RelayUrl::parse(address)?;
        if relay.security() == Security::Tls && url.endpoint.security() != Security::Tls {
            return Err("it is not protected by TLS");
        }
        if url.endpoint.port() != relay.port() {
            return Err("its port is not the relay's");
        }
        if !is_kin(url.endpoint.host(), relay) {
            return Err("its host is not of the relay's domain");
        }
        let target = url.path_and_query.as_str();
        if !target.starts_with("/$hc/") {
            return Err("its path is not a hybrid connection's");
        }
        Ok(Self {
            endpoint: url.endpoint,
            target: target.to_owned(),
        })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Path and query with which the sender is accepted.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// Path and query with which the sender is turned away.
    pub(super) fn reject_target(&self, status: u16, reason: &str) -> String {
        let separator = if self.target.contains('?') { '&' } else { '?' };
        let reason: String = reason.chars().take(MAX_REASON).collect();
        format!(
            "{}{separator}sb-hc-statusCode={status}&sb-hc-statusDescription={}",
            self.target,
            utf8_percent_encode(&reason, QUERY_ESCAPES)
        )
    }

    /// Path and query as the sender asked for them, without the relay's own parameters.
    pub(super) fn sender_target(&self) -> String {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let path = path.strip_prefix("/$hc").unwrap_or(path);
        let own: Vec<_> = query
            .split('&')
            .filter(|pair| {
                let name = pair.split('=').next().unwrap_or_default();
                !pair.is_empty() && !name.to_ascii_lowercase().starts_with("sb-hc-")
            })
            .collect();
        if own.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{}", own.join("&"))
        }
    }
}

impl fmt::Debug for Rendezvous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendezvous")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

fn is_kin(host: &str, relay: &Endpoint) -> bool {
    let host = host.to_ascii_lowercase();
    let own = relay.host().to_ascii_lowercase();
    if host == own {
        return true;
    }
    // The last label of a name is never a number, that of an IPv4 address is (RFC 3696 section 2).
    let is_address = own.contains(':')
        || own
            .rsplit('.')
            .next()
            .is_some_and(|label| label.parse::<u64>().is_ok());
    if is_address || relay.is_loopback() {
        return false;
    }
    let is_below = |parent: &str| {
        host.strip_suffix(parent)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('.'))
    };
    is_below(&own)
        || own.split_once('.').is_some_and(|(_, parent)| {
            parent.split('.').filter(|label| !label.is_empty()).count() >= MIN_SHARED_LABELS
                && is_below(parent)
        })
}

/// `servicebus.windows.net`, and its like in the other Azure clouds, have three.
const MIN_SHARED_LABELS: usize = 3;

/// The path, the id with its suffixes and the sender's own query. Servers admit request lines of about this length.
const MAX_ADDRESS: usize = 8 * 1024;

/// Characters of a rejection's reason, which becomes an HTTP reason phrase.
const MAX_REASON: usize = 256;

/// For what becomes a value in a query.
pub(super) const QUERY_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn azure() -> Endpoint {
        Endpoint::new("contoso.servicebus.windows.net", 443, Security::Tls)
    }

    fn local() -> Endpoint {
        Endpoint::new("127.0.0.1", 9000, Security::Plain)
    }

    #[test]
    fn the_relays_own_addresses_are_taken_as_they_are() {
        let tail = "/$hc/a?sb-hc-action=accept&sb-hc-id=1_G17";
        for (relay, base) in [
            (azure(), "wss://contoso.servicebus.windows.net"),
            (azure(), "wss://contoso.servicebus.windows.net:443"),
            (azure(), "wss://g17-prod-by3-010-sb.servicebus.windows.net"),
            (azure(), "WSS://GV3.ServiceBus.Windows.Net"),
            (azure(), "wss://g1.contoso.servicebus.windows.net"),
            (local(), "ws://127.0.0.1:9000"),
            (Endpoint::new("::1", 9, Security::Plain), "ws://[::1]:9"),
            (
                Endpoint::new("relay.example", 443, Security::Tls),
                "wss://a.relay.example",
            ),
        ] {
            let address = format!("{base}{tail}");
            let rendezvous = Rendezvous::check(&address, &relay).expect(&address);
            assert_eq!(rendezvous.target(), tail);
        }
    }

    #[test]
    fn a_listener_is_not_sent_elsewhere() {
        let short = Endpoint::new("relay.co.uk", 443, Security::Tls);
        let trailing = Endpoint::new("relay.co.uk.", 443, Security::Tls);
        let ipv4 = Endpoint::new("10.0.0.1", 443, Security::Tls);
        let ipv6 = Endpoint::new("2001:db8::1", 443, Security::Tls);
        let localhost = Endpoint::new("localhost", 443, Security::Tls);
        let long = format!(
            "wss://contoso.servicebus.windows.net/$hc/{}",
            "a".repeat(MAX_ADDRESS)
        );
        for (relay, address) in [
            (&azure(), "ws://contoso.servicebus.windows.net:443/$hc/a"),
            (&azure(), "https://contoso.servicebus.windows.net/$hc/a"),
            (&azure(), "sb://contoso.servicebus.windows.net/$hc/a"),
            (&azure(), "wss://contoso.servicebus.windows.net:8443/$hc/a"),
            (&azure(), "wss://contoso.servicebus.windows.net/a"),
            (&azure(), "wss://contoso.servicebus.windows.net"),
            (
                &azure(),
                "wss://contoso.servicebus.windows.net.evil.example/$hc/a",
            ),
            (&azure(), "wss://evilservicebus.windows.net/$hc/a"),
            (&azure(), "wss://servicebus.windows.net/$hc/a"),
            (&azure(), "wss://.servicebus.windows.net/$hc/a"),
            (&azure(), "wss://x.windows.net/$hc/a"),
            (&azure(), "wss://127.0.0.1/$hc/a"),
            (
                &azure(),
                "wss://contoso.servicebus.windows.net@evil.example/$hc/a",
            ),
            (&azure(), "wss://evil.example#.servicebus.windows.net/$hc/a"),
            (
                &azure(),
                "wss://evil.example\\.servicebus.windows.net/$hc/a",
            ),
            (&azure(), "/$hc/a"),
            (&azure(), ""),
            (&azure(), &long),
            (&local(), "ws://127.0.0.2:9000/$hc/a"),
            (&local(), "ws://localhost:9000/$hc/a"),
            (&local(), "ws://127.0.0.1:22/$hc/a"),
            (&local(), "ws://127.0.0.1/$hc/a"),
            (&short, "wss://other.co.uk/$hc/a"),
            (&trailing, "wss://other.co.uk./$hc/a"),
            (&ipv4, "wss://9.0.0.1/$hc/a"),
            (&ipv4, "wss://x.10.0.0.1/$hc/a"),
            (&ipv6, "wss://[2001:db8::2]/$hc/a"),
            (&localhost, "wss://x.localhost/$hc/a"),
        ] {
            Rendezvous::check(address, relay).expect_err(address);
        }
    }

    #[test]
    fn a_rejection_is_appended() {
        let check = |tail: &str| {
            Rendezvous::check(&format!("ws://127.0.0.1:9000/$hc/{tail}"), &local()).unwrap()
        };
        assert_eq!(
            check("a?sb-hc-id=1").reject_target(400, "no & never"),
            "/$hc/a?sb-hc-id=1&sb-hc-statusCode=400&sb-hc-statusDescription=no%20%26%20never"
        );
        assert_eq!(
            check("a").reject_target(503, &"x".repeat(MAX_REASON + 1)),
            format!(
                "/$hc/a?sb-hc-statusCode=503&sb-hc-statusDescription={}",
                "x".repeat(MAX_REASON)
            )
        );
    }

    #[test]
    fn the_senders_own_part_is_kept() {
        let of = |tail: &str| {
            Rendezvous::check(&format!("ws://127.0.0.1:9000/$hc/{tail}"), &local())
                .unwrap()
                .sender_target()
        };
        assert_eq!(of("a/b?x=1&sb-hc-action=accept&SB-HC-id=2&y"), "/a/b?x=1&y");
        assert_eq!(of("a?sb-hc-action=accept"), "/a");
        assert_eq!(of("a"), "/a");
    }

    #[test]
    fn the_id_is_not_printed() {
        let address = "ws://127.0.0.1:9000/$hc/a?sb-hc-id=secret";
        let printed = format!("{:?}", Rendezvous::check(address, &local()).unwrap());
        assert!(!printed.contains("secret"), "{printed}");
    }

    proptest! {
        #[test]
        fn only_kin_is_ever_dialled(address in "(ws|wss|https)://[a-z.@:\\[\\]0-9%]{0,30}(.servicebus.windows.net)?(:443)?/(\\$hc/)?[ -~]{0,20}") {
            if let Ok(rendezvous) = Rendezvous::check(&address, &azure()) {
                let endpoint = rendezvous.endpoint();
                prop_assert!(endpoint.host().to_ascii_lowercase().ends_with(".servicebus.windows.net"));
                prop_assert_eq!(endpoint.port(), 443);
                prop_assert_eq!(endpoint.security(), Security::Tls);
            }
        }
    }
}
