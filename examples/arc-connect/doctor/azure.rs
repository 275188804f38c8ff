//! What Azure says: who is signed in, how the cluster is, and whether it gives a credential for the relay.

use std::time::{Duration, SystemTime};

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    arm::{
        ArmClient, AuthenticationMethod, ConnectedCluster, ConnectedClusterId, ConnectivityStatus,
        PrivateLinkState, ProvisioningState, RelayAccess,
    },
    auth::{AzureCredential, Cloud},
    net::{Connector, Endpoint, Security},
    relay::{HybridConnection, RelayCredential},
};
use azure_core::credentials::TokenCredential;
use uuid::Uuid;

use super::{
    check::{Check, Finding},
    span::span,
    token,
};
use crate::caller_arguments::CallerArguments;

pub const CREDENTIAL: &str = "azure.credential";
pub const CLUSTER: &str = "azure.cluster";
pub const PRIVATE_LINK: &str = "azure.private-link";
pub const RELAY_CREDENTIAL: &str = "azure.relay-credential";

/// A person may have to type a code into a browser.
const SIGN_IN_LIMIT: Duration = Duration::from_secs(300);
/// The client itself goes on for 20 seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(50);

/// The agent sends a heartbeat every few minutes; after 15 Azure calls it offline.
const OLD_HEARTBEAT: Duration = Duration::from_secs(15 * 60);
/// Certificates of agents live for 90 days and are renewed halfway.
const CERTIFICATE_SOON: Duration = Duration::from_secs(7 * 86_400);

/// Signs in, and looks at the token.
pub async fn sign_in(
    caller: &CallerArguments,
    connector: &Connector,
    cloud: &Cloud,
    correlation_id: Uuid,
) -> (Check, Option<AzureCredential>) {
    let mut signed_in = None;
    let check = Check::within(CREDENTIAL, SIGN_IN_LIMIT, async {
        let settings = caller.settings(
            connector.clone(),
            cloud.clone(),
            &correlation_id.to_string(),
        );
        let credential = match settings {
            Ok(settings) => caller.credential(&settings).await,
            Err(error) => Err(error),
        };
        let credential = match credential {
            Ok(credential) => credential,
            Err(error) => return Finding::of_error(&error),
        };
        let scope = cloud.resource_manager_scope();
        let way = credential.kind().to_string();
        match credential.get_token(&[&scope], None).await {
            Ok(token) => {
                signed_in = Some(credential);
                let secret = token.token.secret();
                token::judge_azure(secret, &scope, caller.tenant(), &way, SystemTime::now())
            }
            Err(error) => refused(&error, &way),
        }
    });
    let check = check.await;
    (check, signed_in)
}

/// What there is to know of a cluster in Azure.
pub struct Known {
    pub checks: Vec<Check>,
    pub location: Option<String>,
    /// Where the agent listens, and with what it may be dialled.
    pub relay: Option<(HybridConnection, RelayCredential)>,
}

/// Asks for the cluster, and for a credential for its relay, at the same time.
pub async fn look_up(
    arm: &ArmClient,
    id: &ConnectedClusterId,
    method: AuthenticationMethod,
) -> Known {
    let mut cluster = None;
    let mut relay = None;
    let describing = Check::within(CLUSTER, ANSWER_LIMIT, async {
        match arm.connected_cluster(id).await {
            Ok(known) => judge_cluster(&State::of(cluster.insert(known)), SystemTime::now()),
            Err(error) => judge_unreadable(&error),
        }
    });
    let asking = Check::within(RELAY_CREDENTIAL, ANSWER_LIMIT, async {
        let answer = arm.list_cluster_user_credential(id, method).await;
        let usable = answer.and_then(|credential| {
            relay = Some(way_to(&credential.relay, arm.cloud().relay_suffix())?);
            Ok(judge_credential(&credential.relay, SystemTime::now()))
        });
        usable.unwrap_or_else(|error| Finding::of_error(&error))
    });
    let (described, credential) = tokio::join!(describing, asking);
    let link = match &cluster {
        Some(cluster) => judge_private_link(cluster.private_link_state.as_ref()),
        None => Finding::skipped("the cluster's resource can not be read"),
    };
    let target = id.name().to_owned();
    Known {
        checks: vec![
            described.with_target(target),
            Check::new(PRIVATE_LINK, link),
            credential,
        ],
        location: cluster.and_then(|cluster: ConnectedCluster| cluster.location),
        relay,
    }
}

/// What comes when nobody is signed in.
pub fn all_skipped(why: &str) -> Vec<Check> {
    [CLUSTER, PRIVATE_LINK, RELAY_CREDENTIAL]
        .map(|name| Check::new(name, Finding::skipped(why)))
        .to_vec()
}

fn way_to(access: &RelayAccess, suffix: &str) -> Result<(HybridConnection, RelayCredential)> {
    let (domain, port) = match suffix.rsplit_once(':') {
        Some((domain, port)) => (domain, port.parse().unwrap_or(443)),
        None => (suffix, 443),
    };
    let host = format!("{}.{domain}", access.namespace());
    let endpoint = Endpoint::new(host, port, Security::Tls);
    Ok((
        HybridConnection::new(endpoint, access.hybrid_connection_name())?,
        RelayCredential::sas_token(access.token())?,
    ))
}

/// Of our own error inside, which says what to do.
fn refused(error: &azure_core::Error, way: &str) -> Finding {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(own) = cause.downcast_ref::<Error>() {
            return Finding::of_error(own);
        }
        next = cause.source();
    }
    Finding::failed(
        format!("{way} gives no token for Azure Resource Manager: {error}"),
        "sign in again, or choose another way with --auth",
    )
}

/// The parts of a cluster's description that decide.
struct State<'a> {
    status: Option<&'a ConnectivityStatus>,
    heard: Option<SystemTime>,
    certificate_ends: Option<SystemTime>,
    provisioning: Option<&'a ProvisioningState>,
    agent_version: Option<&'a str>,
}

impl<'a> State<'a> {
    fn of(cluster: &'a ConnectedCluster) -> Self {
        Self {
            status: cluster.connectivity_status.as_ref(),
            heard: cluster.last_connectivity_time,
            certificate_ends: cluster.identity_certificate_expiration_time,
            provisioning: cluster.provisioning_state.as_ref(),
            agent_version: cluster.agent_version.as_deref(),
        }
    }
}

fn judge_cluster(state: &State<'_>, now: SystemTime) -> Finding {
    let heard = match state.heard.map(|heard| now.duration_since(heard)) {
        Some(Ok(ago)) => format!(", last heard {} ago", span(ago)),
        Some(Err(_)) => ", heard just now".to_owned(),
        None => String::new(),
    };
    let advice = match state.status {
        Some(ConnectivityStatus::Connecting) => {
            "wait some minutes; then look at the agent beside the cluster: `kubectl get pods -n azure-arc`, and run \
             `arc-connect doctor --beside-the-cluster` there"
        }
        Some(ConnectivityStatus::Offline) => {
            "look at the agent beside the cluster: `kubectl get pods -n azure-arc`, and at its way out: \
             `arc-connect doctor --beside-the-cluster` there"
        }
        Some(ConnectivityStatus::Expired) => {
            "the agent was away for too long and its certificate is gone: delete the resource and connect the cluster again \
             (`az connectedk8s connect`)"
        }
        Some(ConnectivityStatus::AgentNotInstalled) => {
            "install the agent: `az connectedk8s connect`"
        }
        _ => "",
    };
    let status = state
        .status
        .map_or("in no known state", ConnectivityStatus::as_str);
    if !advice.is_empty() {
        return Finding::failed(format!("the cluster is {status}{heard}"), advice);
    }
    if let Some(
        state @ (ProvisioningState::Failed
        | ProvisioningState::Canceled
        | ProvisioningState::Deleting),
    ) = state.provisioning
    {
        return Finding::warning(
            format!("{status}{heard}; its last change is {state}"),
            "look at the resource's activity log in the portal; connect the cluster again if it does not work",
        );
    }
    if state
        .certificate_ends
        .is_some_and(|end| end < now + CERTIFICATE_SOON)
    {
        return Finding::warning(
            format!("{status}{heard}; the certificate of the agent's identity ends within a week"),
            "look at the agent's log: it should have been renewed by now, for which it needs *.his.arc.azure.com",
        );
    }
    if state.heard.is_some_and(|heard| {
        now.duration_since(heard)
            .is_ok_and(|ago| ago > OLD_HEARTBEAT)
    }) {
        return Finding::warning(
            format!("{status}{heard}"),
            "the agent may be away: look at `kubectl get pods -n azure-arc` beside the cluster",
        );
    }
    let agent = state
        .agent_version
        .map(|version| format!(", agent {version}"))
        .unwrap_or_default();
    Finding::ok(format!("{status}{heard}{agent}"))
}

/// The role for cluster connect alone does not let its holder read the resource.
fn judge_unreadable(error: &Error) -> Finding {
    if error.kind() == ErrorKind::Unauthorized && error.status() == Some(403) {
        return Finding::warning(
            "you may not read the cluster's resource, so that its state is not known",
            "nothing, if the rest works: the role for cluster connect does without it; \"Reader\" on the cluster gives it",
        );
    }
    Finding::of_error(error)
}

fn judge_private_link(state: Option<&PrivateLinkState>) -> Finding {
    match state {
        Some(PrivateLinkState::Enabled) => Finding::failed(
            "the cluster is behind a private link, which cluster connect does not work with",
            "reach the API server over the private network itself, or take the cluster out of its private link scope",
        ),
        _ => Finding::ok("off"),
    }
}

fn judge_credential(relay: &RelayAccess, now: SystemTime) -> Finding {
    let detail = format!("for the relay {}", relay.namespace());
    match relay.expires_at().duration_since(now) {
        Ok(left) => Finding::ok(format!("{detail}, good for {}", span(left))),
        Err(_) => Finding::warning(
            format!("{detail}, which has already expired by this machine's clock"),
            "check this machine's clock",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::check::Outcome, *};

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)
    }

    fn connected() -> State<'static> {
        State {
            status: Some(&ConnectivityStatus::Connected),
            heard: Some(now() - Duration::from_secs(180)),
            certificate_ends: Some(now() + 60 * DAY),
            provisioning: Some(&ProvisioningState::Succeeded),
            agent_version: Some("1.30.1"),
        }
    }

    #[test]
    fn a_connected_cluster_is_fine() {
        assert_eq!(
            judge_cluster(&connected(), now()),
            Finding::ok("Connected, last heard 3 min ago, agent 1.30.1")
        );
    }

    #[test]
    fn each_state_without_an_agent_says_what_to_do() {
        for (status, word) in [
            (ConnectivityStatus::Connecting, "wait"),
            (ConnectivityStatus::Offline, "way out"),
            (ConnectivityStatus::Expired, "connect the cluster again"),
            (ConnectivityStatus::AgentNotInstalled, "install"),
        ] {
            let finding = judge_cluster(
                &State {
                    status: Some(&status),
                    ..connected()
                },
                now(),
            );
            assert_eq!(finding.outcome, Outcome::Failed, "{status}");
            assert!(finding.detail.contains(status.as_str()), "{finding:?}");
            assert!(finding.advice.unwrap().contains(word), "{status}");
        }
    }

    #[test]
    fn signs_of_trouble_to_come_are_warnings() {
        let cases = [
            State {
                heard: Some(now() - Duration::from_secs(3_600)),
                ..connected()
            },
            State {
                certificate_ends: Some(now() + DAY),
                ..connected()
            },
            State {
                provisioning: Some(&ProvisioningState::Failed),
                ..connected()
            },
        ];
        for state in cases {
            let finding = judge_cluster(&state, now());
            assert_eq!(finding.outcome, Outcome::Warning, "{finding:?}");
        }
    }

    #[test]
    fn a_private_link_is_in_the_way() {
        let finding = judge_private_link(Some(&PrivateLinkState::Enabled));
        assert_eq!(finding.outcome, Outcome::Failed);
        assert!(judge_private_link(Some(&PrivateLinkState::Disabled)).is_ok());
        assert!(judge_private_link(None).is_ok());
    }

    #[test]
    fn a_resource_that_may_not_be_read_is_no_failure() {
        let forbidden = Error::new(ErrorKind::Unauthorized, "no").with_status(403);
        assert_eq!(judge_unreadable(&forbidden).outcome, Outcome::Warning);
        let unknown = Error::new(ErrorKind::Unauthorized, "no").with_status(401);
        assert_eq!(judge_unreadable(&unknown).outcome, Outcome::Failed);
    }
}
