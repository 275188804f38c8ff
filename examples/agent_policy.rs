//! An agent of one's own, with a say in what passes: nobody gets a shell, and Secrets stay where they are.
//!
//! ```console
//! $ cargo run --example agent_policy -- listen.txt ~/.kube/config
//! ```

use std::{error::Error, path::Path};

use arc_cluster_connect::{
    agent::{
        Access, Agent, ApiServer, PolicyRequest, RequestPolicy, ServiceAccountTokens, Verdict,
    },
    kubeconfig::Kubeconfig,
    net::{Connector, TrustRoots},
    relay::{ConnectionString, RelayListener},
};
use async_trait::async_trait;

/// Asked after the caller is known and before anything reaches the API server, which has its own say afterwards.
struct HouseRules;

#[async_trait]
impl RequestPolicy for HouseRules {
    async fn decide(&self, request: &PolicyRequest<'_>) -> Verdict {
        let secrets = request
            .resource()
            .is_some_and(|path| path.resource == "secrets");
        match request.access() {
            // A shell is opened by a GET, so ask for what a request does, not for its method.
            Access::Interact => Verdict::Deny("there are no shells on this cluster".to_owned()),
            _ if secrets => Verdict::Deny("Secrets do not leave this cluster".to_owned()),
            _ => Verdict::Allow,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(relay), Some(kubeconfig)) = (arguments.next(), arguments.next()) else {
        return Err("usage: agent_policy CONNECTION_STRING_FILE KUBECONFIG".into());
    };
    let kubeconfig = Path::new(&kubeconfig);
    let base = kubeconfig.parent().unwrap_or(Path::new("."));
    // Address and certificate authority only: the kubeconfig's credential is not taken over.
    let api_server = ApiServer::from_kubeconfig(&Kubeconfig::read(kubeconfig)?, None, base)?;
    let agent = Agent::builder(api_server)
        .service_account_tokens(ServiceAccountTokens::PassThrough)
        .policy(HouseRules)
        .build()?;

    let relay = ConnectionString::read_file(Path::new(&relay))?;
    let listener = RelayListener::start(
        Connector::new(TrustRoots::platform())?,
        relay.hybrid_connection()?,
        relay.credential(),
    );
    listener.online().await?;
    println!("serving {}", listener.hybrid_connection());
    let stop = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    agent.serve_relay(listener, stop).await?;
    Ok(())
}
