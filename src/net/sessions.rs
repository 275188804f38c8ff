//! [`RelaySessions`]: the memory of TLS sessions for connections to a relay.

use rustls::{
    NamedGroup,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue,
        Tls13ClientSessionValue,
    },
    pki_types::ServerName,
};

/// Remembers sessions as usual, and expects of an Azure relay that it has not met what they all want: P-384. A first
/// guess that is wrong, as the usual one is there, costs each new process a round trip; for any other relay the usual one
/// is right.
#[derive(Debug)]
pub(super) struct RelaySessions(ClientSessionMemoryCache);

impl RelaySessions {
    pub(super) fn new() -> Self {
        Self(ClientSessionMemoryCache::new(MAX_SERVERS))
    }
}

impl ClientSessionStore for RelaySessions {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        let expected = || is_azure(server_name).then_some(NamedGroup::secp384r1);
        self.0.kx_hint(server_name).or_else(expected)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(server_name, value);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(server_name)
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.0.remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(
        &self,
        server_name: ServerName<'static>,
        value: Tls13ClientSessionValue,
    ) {
        self.0.insert_tls13_ticket(server_name, value);
    }

    fn take_tls13_ticket(
        &self,
        server_name: &ServerName<'static>,
    ) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(server_name)
    }
}

/// `contoso.servicebus.windows.net`, and its like in the other Azure clouds.
fn is_azure(server_name: &ServerName<'_>) -> bool {
    match server_name {
        ServerName::DnsName(name) => name.as_ref().contains(".servicebus."),
        _ => false,
    }
}

/// A relay has its own name and those of the nodes that it announces.
const MAX_SERVERS: usize = 64;
