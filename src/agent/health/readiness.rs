//! [`Readiness`]: whether callers reach the API server through this agent, and if not, why.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::Error;

/// How long a registration at a relay may be lost before the agent says that it is not ready. A listener that lost its
/// connection is back within a second or two; a relay that restarts takes longer, and then other agents of the same
/// hybrid connection should have the traffic.
pub(super) const RELAY_LOST_LIMIT: Duration = Duration::from_secs(15);

/// What an agent knows of itself.
#[derive(Debug, Default)]
pub(in crate::agent) struct Readiness(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    sources: BTreeMap<u64, Source>,
    api_server: ApiServerCheck,
}

/// Where streams come from.
#[derive(Debug)]
struct Source {
    name: String,
    registration: Registration,
    draining: bool,
}

#[derive(Debug)]
enum Registration {
    /// A socket: there is nothing to register at.
    NotNeeded,
    Online,
    /// Since when, and why; never registered so far when there is no time.
    Offline {
        since: Option<Instant>,
        reason: Option<String>,
    },
}

#[derive(Debug, Default)]
enum ApiServerCheck {
    #[default]
    Pending,
    Reached,
    Failed(String),
}

/// What `/readyz` tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) checks: Vec<Check>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) name: &'static str,
    /// What is wrong.
    pub(super) problem: Option<String>,
}

/// One source of streams, for as long as it is served.
#[derive(Debug)]
pub(in crate::agent) struct Serving {
    readiness: Arc<Readiness>,
    id: u64,
}

impl Readiness {
    /// Streams come from a listening socket.
    pub(in crate::agent) fn socket(self: &Arc<Self>, name: String) -> Serving {
        self.serve(name, Registration::NotNeeded)
    }

    /// Streams come from a relay, once the agent is registered there.
    pub(in crate::agent) fn relay(self: &Arc<Self>, name: String) -> Serving {
        let registration = Registration::Offline {
            since: None,
            reason: None,
        };
        self.serve(name, registration)
    }

    fn serve(self: &Arc<Self>, name: String, registration: Registration) -> Serving {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.sources.insert(
            id,
            Source {
                name,
                registration,
                draining: false,
            },
        );
        Serving {
            readiness: Arc::clone(self),
            id,
        }
    }

    pub(super) fn set_api_server(&self, outcome: Result<(), &Error>) {
        self.state().api_server = match outcome {
            Ok(()) => ApiServerCheck::Reached,
            Err(error) => ApiServerCheck::Failed(error.report()),
        };
    }

    pub(super) fn is_draining(&self) -> bool {
        self.state().sources.values().any(|source| source.draining)
    }

    /// Registrations that are online, and those that are not.
    pub(super) fn registrations(&self) -> (usize, usize) {
        let state = self.state();
        let count = |wanted: fn(&Registration) -> bool| {
            let sources = state.sources.values();
            sources
                .filter(|source| wanted(&source.registration))
                .count()
        };
        (
            count(|registration| matches!(registration, Registration::Online)),
            count(|registration| matches!(registration, Registration::Offline { .. })),
        )
    }

    pub(super) fn report(&self, now: Instant) -> Report {
        let state = self.state();
        let sources = state.sources.values();
        let serving = if state.sources.is_empty() {
            Some("the agent serves no relay and no socket".to_owned())
        } else {
            joined(sources.clone().filter_map(|source| source.problem(now)))
        };
        let draining = sources.filter(|source| source.draining);
        let shutdown = joined(
            draining.map(|source| format!("{} takes no new tunnels: shutting down", source.name)),
        );
        let api_server = match &state.api_server {
            ApiServerCheck::Pending => Some("not checked yet".to_owned()),
            ApiServerCheck::Reached => None,
            ApiServerCheck::Failed(reason) => Some(reason.clone()),
        };
        let check = |name, problem| Check { name, problem };
        Report {
            checks: vec![
                check("tunnels", serving),
                check("api-server", api_server),
                check("shutdown", shutdown),
            ],
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    fn problem(&self, now: Instant) -> Option<String> {
        // Signing off is how a shutdown begins, and told as such.
        if self.draining {
            return None;
        }
        let Registration::Offline { since, reason } = &self.registration else {
            return None;
        };
        let what = match since {
            None => "not registered yet".to_owned(),
            Some(since) => {
                let lost = now.saturating_duration_since(*since);
                if lost <= RELAY_LOST_LIMIT {
                    return None;
                }
                format!("registration lost {} s ago", lost.as_secs())
            }
        };
        Some(match reason {
            Some(reason) => format!("{}: {what}: {reason}", self.name),
            None => format!("{}: {what}", self.name),
        })
    }
}

impl Report {
    pub(super) fn is_ready(&self) -> bool {
        self.checks.iter().all(|check| check.problem.is_none())
    }
}

impl Serving {
    pub(in crate::agent) fn set_online(&self) {
        self.change(|source| source.registration = Registration::Online);
    }

    pub(in crate::agent) fn set_offline(&self, error: Option<&Error>) {
        self.change(|source| {
            let reason = error.map(Error::report);
            match &mut source.registration {
                Registration::Offline { reason: known, .. } => {
                    // "Connecting" is no reason: what it was is still what there is to know.
                    if reason.is_some() {
                        *known = reason;
                    }
                }
                registration => {
                    *registration = Registration::Offline {
                        since: Some(Instant::now()),
                        reason,
                    };
                }
            }
        });
    }

    /// From now on the agent is not ready.
    pub(in crate::agent) fn set_draining(&self) {
        self.change(|source| source.draining = true);
    }

    fn change(&self, change: impl FnOnce(&mut Source)) {
        if let Some(source) = self.readiness.state().sources.get_mut(&self.id) {
            change(source);
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.readiness.state().sources.remove(&self.id);
    }
}

fn joined(problems: impl Iterator<Item = String>) -> Option<String> {
    let problems: Vec<_> = problems.collect();
    (!problems.is_empty()).then(|| problems.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn problems(readiness: &Readiness) -> Vec<String> {
        let report = readiness.report(Instant::now());
        report
            .checks
            .into_iter()
            .filter_map(|check| Some(format!("{}: {}", check.name, check.problem?)))
            .collect()
    }

    fn reached() -> Arc<Readiness> {
        let readiness = Arc::new(Readiness::default());
        readiness.set_api_server(Ok(()));
        readiness
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_registration_counts_after_its_limit_only() {
        let readiness = reached();
        let relay = readiness.relay("relay/cluster".to_owned());
        assert_eq!(
            problems(&readiness),
            ["tunnels: relay/cluster: not registered yet"]
        );
        assert_eq!(readiness.registrations(), (0, 1));
        relay.set_online();
        assert_eq!(problems(&readiness), [""; 0]);
        assert_eq!(readiness.registrations(), (1, 0));
        let lost = Error::new(ErrorKind::Network, "gone");
        relay.set_offline(Some(&lost));
        tokio::time::advance(RELAY_LOST_LIMIT).await;
        // Trying again starts no new count.
        relay.set_offline(None);
        assert_eq!(problems(&readiness), [""; 0]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(
            problems(&readiness),
            ["tunnels: relay/cluster: registration lost 16 s ago: gone"]
        );
        relay.set_online();
        assert_eq!(problems(&readiness), [""; 0]);
    }

    #[tokio::test]
    async fn nothing_served_and_shutting_down_are_not_ready() {
        let readiness = reached();
        assert_eq!(
            problems(&readiness),
            ["tunnels: the agent serves no relay and no socket"]
        );
        let socket = readiness.socket("127.0.0.1:1".to_owned());
        let relay = readiness.relay("relay/cluster".to_owned());
        relay.set_online();
        assert!(readiness.report(Instant::now()).is_ready());
        relay.set_draining();
        relay.set_offline(None);
        assert!(readiness.is_draining());
        assert_eq!(
            problems(&readiness),
            ["shutdown: relay/cluster takes no new tunnels: shutting down"]
        );
        drop(relay);
        assert!(!readiness.is_draining());
        assert!(readiness.report(Instant::now()).is_ready());
        drop(socket);
        assert!(!readiness.report(Instant::now()).is_ready());
    }

    #[tokio::test]
    async fn an_api_server_out_of_reach_is_not_ready() {
        let readiness = Arc::new(Readiness::default());
        let _socket = readiness.socket("127.0.0.1:1".to_owned());
        assert_eq!(problems(&readiness), ["api-server: not checked yet"]);
        readiness.set_api_server(Err(&Error::new(ErrorKind::Network, "no route")));
        assert_eq!(problems(&readiness), ["api-server: no route"]);
        readiness.set_api_server(Ok(()));
        assert_eq!(problems(&readiness), [""; 0]);
    }
}
