//! The codes by which the Azure CLI's documentation and forums know failures of `az connectedk8s proxy`.

use arc_cluster_connect::{Error, ErrorKind};

/// No way to the relay, or no credential for it.
pub fn of_connecting(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Unauthorized => named(error, "AZK8S0805 ClusterCredentialsGetFailed"),
        ErrorKind::Network | ErrorKind::Tls | ErrorKind::Timeout => {
            named(error, "AZK8S0307 ClusterConnectOutboundConnectivityFailed")
        }
        _ => error,
    }
}

/// Azure gave a kubeconfig that is none.
pub fn of_kubeconfig(error: Error) -> Error {
    named(error, "AZK8S0200 KubeconfigLoadFailed")
}

/// The user's own kubeconfig can not be read.
pub fn of_existing_kubeconfig(error: Error) -> Error {
    named(error, "AZK8S0208 KubernetesConfigurationLoadFailed")
}

fn named(error: Error, code: &str) -> Error {
    let help = match error.help() {
        Some(help) => format!("{help}; the Azure CLI calls this {code}"),
        None => format!("look for {code}, as the Azure CLI calls this"),
    };
    error.with_help(help)
}
