//! The way to one cluster, step by step: what comes later is looked at only when what comes before works.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_cluster_connect::{
    AuthProvider, Error, ErrorKind, Result, Tunnel,
    arm::{ArmClient, AuthenticationMethod, ConnectedClusterId},
    auth::{AadAuth, AzureCredential, Cloud, PopAuth, TokenRequest},
    net::Endpoint,
    relay::{ConnectionString, HybridConnection, RelayCredential, RelaySender, RelayStream},
    tunnel::RelayTunnel,
};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    azure,
    check::{Check, Finding},
    cluster,
    endpoints::{Issuer, Speaks, Target},
    network::{self, Network},
    token,
};
use crate::caller_arguments::CallerArguments;

pub const RELAY_ENDPOINT: &str = "relay.endpoint";
pub const RELAY_KEY: &str = "relay.key";
pub const LISTENER: &str = "relay.listener";
pub const TOKEN: &str = "caller.token";

/// A little more than the relay holds its answer.
const RELAY_LIMIT: Duration = Duration::from_secs(75);
const TOKEN_LIMIT: Duration = Duration::from_secs(60);
const CLOSING_LIMIT: Duration = Duration::from_secs(2);

/// What a cluster is looked at with.
pub struct Path<'a> {
    pub network: &'a Network,
    pub caller: &'a CallerArguments,
    /// Where rights are looked at.
    pub namespace: String,
}

/// What came of it.
#[derive(Default)]
pub struct Walked {
    pub checks: Vec<Check>,
    /// Servers, and how far their clocks are ahead of ours.
    pub clocks: Vec<(String, f64)>,
    /// What was dialled.
    pub relay: Option<Endpoint>,
}

impl Path<'_> {
    /// The cluster `id`, whose region is told to `region` as soon as it is known.
    pub async fn through_azure(
        &self,
        cloud: &Cloud,
        id: &ConnectedClusterId,
        region: oneshot::Sender<String>,
    ) -> Walked {
        let mut walked = Walked::default();
        let correlation_id = Uuid::new_v4();
        let connector = &self.network.connector;
        let (check, credential) =
            azure::sign_in(self.caller, connector, cloud, correlation_id).await;
        walked.checks.push(check);
        let Some(credential) = credential else {
            walked
                .checks
                .extend(azure::all_skipped("nobody is signed in"));
            self.without_relay(&mut walked, "Azure was not asked for the relay");
            return walked;
        };
        let arm = ArmClient::new(connector.clone(), cloud.clone(), credential.clone().into())
            .with_correlation_id(correlation_id);
        let auth = self.auth(Some(&credential), Some(id));
        let method = match &auth {
            Ok((_, method)) => *method,
            Err(_) => AuthenticationMethod::Aad,
        };
        let known = azure::look_up(&arm, id, method).await;
        match known.location {
            Some(location) => drop(region.send(location)),
            None => drop(region),
        }
        walked.checks.extend(known.checks);
        let Some((hybrid_connection, relay)) = known.relay else {
            self.without_relay(&mut walked, "there is no credential for the relay");
            return walked;
        };
        let issuer = match cloud.name() {
            "custom" => Issuer::Any,
            _ => Issuer::OfAzure,
        };
        let auth = auth.map(|(auth, _)| auth);
        self.walk_relay(&mut walked, hybrid_connection, relay, issuer, auth)
            .await;
        walked
    }

    /// A cluster whose relay's key we have. `credential` is who signed in, where no token was given.
    pub async fn through_relay(
        &self,
        connection_string: &ConnectionString,
        sign_in: Option<&Cloud>,
    ) -> Walked {
        let mut walked = Walked::default();
        let mut credential = None;
        if let Some(cloud) = sign_in {
            let (check, signed_in) =
                azure::sign_in(self.caller, &self.network.connector, cloud, Uuid::new_v4()).await;
            walked.checks.push(check);
            credential = signed_in;
        }
        let auth = self.auth(credential.as_ref(), None).map(|(auth, _)| auth);
        match connection_string.hybrid_connection() {
            Ok(hybrid_connection) => {
                let key = connection_string.credential();
                self.walk_relay(&mut walked, hybrid_connection, key, Issuer::Any, auth)
                    .await;
            }
            Err(error) => {
                walked
                    .checks
                    .push(Check::new(RELAY_ENDPOINT, Finding::of_error(&error)));
                self.without_relay(
                    &mut walked,
                    "the connection string names no hybrid connection",
                );
            }
        }
        walked
    }

    /// Who calls the cluster, and what Azure calls that.
    fn auth(
        &self,
        signed_in: Option<&AzureCredential>,
        id: Option<&ConnectedClusterId>,
    ) -> Result<(Arc<dyn AuthProvider>, AuthenticationMethod)> {
        if let Some(bearer) = self.caller.bearer()? {
            return Ok((Arc::new(bearer), AuthenticationMethod::Token));
        }
        let credential = signed_in.ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "there is no token to call with").with_help(
                "pass --token-file FILE (- for standard input); `kubectl create token NAME` prints one for a service \
                 account. Or sign in to Azure: --auth METHOD",
            )
        })?;
        let auth: Arc<dyn AuthProvider> = match (self.caller.proof_key()?, id) {
            (Some(key), Some(id)) => Arc::new(PopAuth::new(credential, key, id.to_string())?),
            _ => Arc::new(AadAuth::new(credential.clone().into())),
        };
        Ok((auth, AuthenticationMethod::Aad))
    }

    async fn walk_relay(
        &self,
        walked: &mut Walked,
        hybrid_connection: HybridConnection,
        key: RelayCredential,
        issuer: Issuer,
        auth: Result<Arc<dyn AuthProvider>>,
    ) {
        let endpoint = hybrid_connection.endpoint().clone();
        let server = endpoint.authority();
        walked.relay = Some(endpoint.clone());
        let target = Target {
            speaks: Speaks::WebSocket,
            issuer,
            ..Target::new("relay", endpoint)
        };
        let (probed, token) = tokio::join!(
            network::probe(self.network, RELAY_ENDPOINT, &target),
            check_token(&auth, self.caller)
        );
        walked
            .clocks
            .extend(probed.ahead.map(|ahead| (server, ahead)));
        let reached = probed.check.finding.is_ok();
        walked.checks.push(probed.check);
        if !reached {
            let why = "the relay can not be reached";
            walked
                .checks
                .extend([RELAY_KEY, LISTENER].map(|name| Check::new(name, Finding::skipped(why))));
            walked.checks.push(token);
            walked.checks.extend(cluster::all_skipped(why));
            return;
        }
        let name = hybrid_connection.path().to_owned();
        let sender = RelaySender::new(self.network.connector.clone(), hybrid_connection, key);
        let (key, listener) = check_relay(&sender).await;
        let listens = listener.finding.is_ok();
        walked
            .checks
            .extend([key, listener.with_target(name), token]);
        let auth = match auth {
            Ok(auth) if listens => auth,
            Ok(_) => {
                walked
                    .checks
                    .extend(cluster::all_skipped("no agent listens"));
                return;
            }
            Err(_) => {
                walked
                    .checks
                    .extend(cluster::all_skipped("there is nobody to call as"));
                return;
            }
        };
        let tunnel: Arc<dyn Tunnel> = Arc::new(RelayTunnel::new(sender));
        let caller = cluster::Caller {
            tunnel: Arc::clone(&tunnel),
            auth,
            namespace: self.namespace.clone(),
        };
        walked.checks.extend(cluster::checks(&caller).await);
        // Nothing is under way any more that would have to be waited for.
        let _ = tokio::time::timeout(CLOSING_LIMIT, tunnel.shutdown()).await;
    }

    fn without_relay(&self, walked: &mut Walked, why: &str) {
        walked.checks.extend(
            [RELAY_ENDPOINT, RELAY_KEY, LISTENER, TOKEN]
                .into_iter()
                .filter(|name| walked.checks.iter().all(|check| check.name != *name))
                .map(|name| Check::new(name, Finding::skipped(why)))
                .collect::<Vec<_>>(),
        );
        walked.checks.extend(cluster::all_skipped(why));
    }
}

async fn check_token(auth: &Result<Arc<dyn AuthProvider>>, caller: &CallerArguments) -> Check {
    Check::within(TOKEN, TOKEN_LIMIT, async {
        let auth = match auth {
            Ok(auth) => auth,
            Err(error) => return Finding::of_error(error),
        };
        match auth.token(&TokenRequest::new()).await {
            Ok(token) => token::judge_caller(token.secret(), SystemTime::now()),
            Err(error) if caller.has_bearer() => Finding::of_error(&error),
            Err(error) => without_entra(Finding::of_error(&error)),
        }
    })
    .await
}

/// Some identities, such as Cloud Shell's, get tokens for Azure and none for clusters.
fn without_entra(mut finding: Finding) -> Finding {
    if let Some(advice) = &mut finding.advice {
        advice.push_str("; a service account's token does without Entra ID: --token-file FILE");
    }
    finding
}

/// One connection to the agent, which is given up again: whether the key is right, and whether anybody listens.
async fn check_relay(sender: &RelaySender) -> (Check, Check) {
    let started = std::time::Instant::now();
    let connected = tokio::time::timeout(RELAY_LIMIT, sender.connect())
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "the relay does not answer")));
    let (key, listener) = judge_relay(&connected);
    let mut checks = (Check::new(RELAY_KEY, key), Check::new(LISTENER, listener));
    checks.1.took = started.elapsed();
    checks
}

fn judge_relay(connected: &Result<RelayStream>) -> (Finding, Finding) {
    let error = match connected {
        Ok(_) => {
            return (
                Finding::ok("the relay takes it"),
                Finding::ok("an agent listens, and took a connection"),
            );
        }
        Err(error) => error,
    };
    let finding = Finding::of_error(error);
    match error.kind() {
        ErrorKind::Unauthorized => (finding, Finding::skipped("the relay does not take the key")),
        ErrorKind::NotFound => (Finding::ok("the relay takes it"), finding),
        _ => (Finding::skipped("the relay did not get as far"), finding),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::check::Outcome, *};

    #[test]
    fn a_refusal_is_the_keys_or_the_listeners() {
        let judged = |kind| {
            let error = Error::new(kind, "no").with_help("do something");
            let (key, listener) = judge_relay(&Err(error));
            (key.outcome, listener.outcome)
        };
        assert_eq!(
            judged(ErrorKind::Unauthorized),
            (Outcome::Failed, Outcome::Skipped)
        );
        assert_eq!(judged(ErrorKind::NotFound), (Outcome::Ok, Outcome::Failed));
        assert_eq!(
            judged(ErrorKind::Timeout),
            (Outcome::Skipped, Outcome::Failed)
        );
    }
}
