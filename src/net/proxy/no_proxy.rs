//! [`NoProxy`]: whom no proxy stands before.

use std::net::IpAddr;

use tracing::warn;

use super::address::{host_and_port, is_host_name};
use crate::net::Endpoint;

/// The rules of `NO_PROXY`, as the programs of the Kubernetes world read them: a name covers what is below it.
#[derive(Clone, Debug, Default)]
pub(super) struct NoProxy(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    All,
    /// The name, and all below it. Lower case.
    Name(String),
    /// What is below the name. Lower case, with the dot.
    Below(String),
    Network(IpAddr, u8),
}

impl NoProxy {
    /// Reads rules that are separated by commas or white space. One that can not be read matches nothing.
    pub(super) fn parse(text: &str) -> Self {
        let mut rules = Vec::new();
        for word in text.split([',', ' ', '\t', '\n', '\r']) {
            if word.is_empty() {
                continue;
            }
            match Rule::parse(word) {
                Some(rule) => rules.push(rule),
                None => warn!(
                    "ignored a rule for connections without proxy: it is neither a host nor a network"
                ),
            }
        }
        Self(rules)
    }

    pub(super) fn covers(&self, endpoint: &Endpoint) -> bool {
        let host = endpoint.host().trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        self.0.iter().any(|rule| {
            rule.port.is_none_or(|port| port == endpoint.port())
                && rule.hosts.contain(&host, address)
        })
    }
}

impl Rule {
    fn parse(word: &str) -> Option<Self> {
        if let Some((network, bits)) = word.split_once('/') {
            return Self::network(network, bits);
        }
        // An IPv6 address may stand without brackets where no port follows.
        if let Ok(address) = word.parse::<IpAddr>() {
            return Some(Self::address(address, None));
        }
        if word == "*" {
            return Some(Self {
                hosts: Hosts::All,
                port: None,
            });
        }
        let below = word.strip_prefix('*').unwrap_or(word);
        let (below, name) = match below.strip_prefix('.') {
            Some(name) => (true, name),
            None if below.len() < word.len() => return None,
            None => (false, word),
        };
        let (host, port) = host_and_port(name).ok()?;
        if let Ok(address) = host.parse::<IpAddr>() {
            return (!below).then(|| Self::address(address, port));
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if !is_host_name(&host) {
            return None;
        }
        let hosts = match below {
            true => Hosts::Below(format!(".{host}")),
            false => Hosts::Name(host),
        };
        Some(Self { hosts, port })
    }

    fn address(address: IpAddr, port: Option<u16>) -> Self {
        let address = address.to_canonical();
        Self {
            hosts: Hosts::Network(address, width(address)),
            port,
        }
    }

    fn network(network: &str, bits: &str) -> Option<Self> {
        let network = network.trim_start_matches('[').trim_end_matches(']');
        let network: IpAddr = network.parse().ok()?;
        let bits = bits.parse().ok().filter(|bits| *bits <= width(network))?;
        Some(Self {
            hosts: Hosts::Network(network, bits),
            port: None,
        })
    }
}

impl Hosts {
    fn contain(&self, host: &str, address: Option<IpAddr>) -> bool {
        match self {
            Self::All => true,
            Self::Name(name) => host
                .strip_suffix(name.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            Self::Network(network, bits) => {
                address.is_some_and(|address| shares(address, *network, *bits))
            }
        }
    }
}

fn shares(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    if address.is_ipv4() != network.is_ipv4() {
        return false;
    }
    let shift = u32::from(width(network) - bits);
    let prefix = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    };
    (prefix(address) ^ prefix(network))
        .checked_shr(shift)
        .unwrap_or_default()
        == 0
}

fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::net::Security;

    fn covers(rules: &str, target: &str) -> bool {
        let (host, port) = host_and_port(target).unwrap();
        NoProxy::parse(rules).covers(&Endpoint::new(host, port.unwrap_or(443), Security::Tls))
    }

    #[test]
    fn what_is_covered() {
        for (rules, target) in [
            ("*", "anything"),
            ("a,b.corp", "b.corp"),
            ("b.corp", "B.Corp."),
            ("b.corp.", "b.corp"),
            ("b.corp", "deep.in.b.corp"),
            (".corp", "b.corp"),
            ("*.corp", "a.b.corp"),
            ("a b\tc", "c"),
            ("b.corp:443", "b.corp"),
            (".corp:8443", "b.corp:8443"),
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1:6443", "10.0.0.1:6443"),
            ("10.0.0.0/8", "10.200.3.4"),
            ("0.0.0.0/0", "1.2.3.4"),
            ("2001:db8::1", "[2001:DB8:0::1]"),
            ("[2001:db8::1]:6443", "[2001:db8::1]:6443"),
            ("2001:db8::/32", "[2001:db8:ffff::9]"),
            ("[2001:db8::]/32", "[2001:db8::9]"),
            ("::/0", "[::1]"),
            ("10.0.0.0/8", "[::ffff:10.1.2.3]"),
        ] {
            assert!(covers(rules, target), "{rules} {target}");
        }
    }

    #[test]
    fn what_is_not_covered() {
        for (rules, target) in [
            ("", "a"),
            (" , ,", "a"),
            (".corp", "corp"),
            ("*.corp", "corp"),
            ("b.corp", "ab.corp"),
            ("b.corp", "b.corp.example"),
            ("b.corp:8443", "b.corp"),
            ("10.0.0.1:6443", "10.0.0.1"),
            ("10.0.0.0/8", "11.0.0.1"),
            ("10.0.0.0/33", "10.0.0.1"),
            ("10.0.0.0/8", "host.corp"),
            ("10.0.0.0/x", "10.0.0.1"),
            ("0.0.0.0/0", "[2001:db8::1]"),
            ("::/0", "10.0.0.1"),
            ("2001:db8::/32", "[2001:db9::1]"),
            ("*corp", "xcorp"),
            ("10", "10.0.0.1"),
            ("http://b.corp", "b.corp"),
            (".10.0.0.1", "10.0.0.1"),
        ] {
            assert!(!covers(rules, target), "{rules} {target}");
        }
    }

    proptest! {
        #[test]
        fn any_rules_are_read_without_panic(rules in "[*.:/,\\[\\]0-9a-f ]{0,30}", host in "[a-f.:0-9]{0,12}") {
            NoProxy::parse(&rules).covers(&Endpoint::new(host, 443, Security::Tls));
        }

        #[test]
        fn a_network_covers_exactly_its_prefix(base: u32, other: u32, bits in 0..=32_u8) {
            let network = format!("{}/{bits}", std::net::Ipv4Addr::from(base));
            let target = std::net::Ipv4Addr::from(other).to_string();
            let same = bits == 0 || base >> (32 - bits) == other >> (32 - bits);
            prop_assert_eq!(covers(&network, &target), same);
        }
    }
}
