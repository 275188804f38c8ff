//! Entries that a killed process left behind: whose they are, and whether anybody still serves them.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use super::{Cluster, Kubeconfig, marker, merge};

/// How long a loopback port may take to answer. A closed one is refused at once; one that takes longer belongs to a
/// process that is busy, not dead.
const PROBE_LIMIT: Duration = Duration::from_millis(200);

/// How many ports are looked at. A run uses one; more dead runs than this are dealt with at the next start.
const MAX_PROBED_PORTS: usize = 16;

/// Whether somebody listens at a loopback port.
pub(super) type Probe = fn(u16) -> bool;

/// Asks the operating system: a port at which nobody listens refuses.
pub(super) fn is_listening(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match TcpStream::connect_timeout(&address, PROBE_LIMIT) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::ConnectionRefused,
    }
}

/// `present` without the entries of endpoints that are gone, and the names of the contexts that went.
///
/// Only what carries our mark is looked at. An endpoint is gone when nobody listens at its port. When `addition` has
/// the port, its own run listens there: then an endpoint is gone if it had another certificate, since each run makes
/// one of its own.
pub(super) fn without_dead(
    present: &Kubeconfig,
    addition: &Kubeconfig,
    probe: Probe,
) -> (Kubeconfig, Vec<String>) {
    let mut ports = Ports {
        addition,
        probe,
        known: BTreeMap::new(),
    };
    let mut kept = present.clone();
    let mut removed = Vec::new();
    for entry in &present.contexts {
        let Some(cluster) = present.cluster(&entry.context.cluster) else {
            continue;
        };
        let is_ours =
            marker::is_marked(&entry.context.other) && marker::is_marked_endpoint(cluster);
        // One of the added name is replaced where it stands.
        if is_ours && addition.context(&entry.name).is_none() && ports.is_dead(cluster) {
            let fewer = merge::remove(&kept, &of_context(&kept, &entry.name), "");
            if fewer != kept {
                kept = fewer;
                removed.push(entry.name.clone());
            }
        }
    }
    (kept, removed)
}

struct Ports<'a> {
    addition: &'a Kubeconfig,
    probe: Probe,
    known: BTreeMap<u16, bool>,
}

impl Ports<'_> {
    fn is_dead(&mut self, cluster: &Cluster) -> bool {
        let Some(port) = marker::port(cluster) else {
            return false;
        };
        let ours = self.addition.clusters.iter().map(|entry| &entry.cluster);
        let mut at_this_port = ours
            .filter(|ours| marker::port(ours) == Some(port))
            .peekable();
        if at_this_port.peek().is_some() {
            return at_this_port
                .all(|ours| ours.certificate_authority_data != cluster.certificate_authority_data);
        }
        if self.known.len() >= MAX_PROBED_PORTS && !self.known.contains_key(&port) {
            return false;
        }
        let is_served = *self.known.entry(port).or_insert_with(|| (self.probe)(port));
        !is_served
    }
}

/// The context `name` of `present` with its cluster and user, as far as they are marked and no other context needs
/// them.
fn of_context(present: &Kubeconfig, name: &str) -> Kubeconfig {
    let mut entries = Kubeconfig::default();
    let Some(entry) = present.contexts.iter().find(|entry| entry.name == name) else {
        return entries;
    };
    entries.contexts.push(entry.clone());
    let others = || present.contexts.iter().filter(|entry| entry.name != name);
    let cluster = present.clusters.iter().find(|cluster| {
        cluster.name == entry.context.cluster
            && marker::is_marked(&cluster.cluster.other)
            && others().all(|other| other.context.cluster != cluster.name)
    });
    entries.clusters.extend(cluster.cloned());
    let user = present.users.iter().find(|user| {
        user.name == entry.context.user
            && marker::is_marked(&user.user.other)
            && others().all(|other| other.context.user != user.name)
    });
    entries.users.extend(user.cloned());
    entries
}
