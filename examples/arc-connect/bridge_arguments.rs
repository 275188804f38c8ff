//! [`BridgeArguments`]: whether the hybrid connection leads to a bridge, and to which of its ports.

use std::{path::PathBuf, sync::Arc};

use arc_cluster_connect::{
    Error, ErrorKind, Result, Tunnel,
    net::{Connector, Endpoint, Security, TrustRoots},
    relay::RelaySender,
    tunnel::{BridgePort, BridgeTunnel, RelayTunnel},
};
use clap::Args;

use crate::{cluster_arguments::Place, common};

/// A name that the certificate of every API server has.
const SERVER_NAME: &str = "kubernetes.default.svc";

/// kubectl asks for a few things at once.
const WARM: usize = 2;

#[derive(Args, Clone, Debug, Default)]
pub struct BridgeArguments {
    /// Experimental: no agent but an Azure Relay Bridge (azbridge) listens on the hybrid connection, and forwards its port
    /// NAME to the API server. Goes with --connection-string-file
    #[arg(long, value_name = "NAME", help_heading = "Bridge")]
    bridge_port: Option<String>,

    /// File with the certificate authority of the API server, to speak TLS with it inside the bridge; without it, what the
    /// bridge forwards to has to take plain HTTP, as `kubectl proxy` does
    #[arg(
        long,
        value_name = "FILE",
        requires = "bridge_port",
        help_heading = "Bridge"
    )]
    bridge_ca: Option<PathBuf>,

    /// The name that the API server's certificate is for, if it is not kubernetes.default.svc
    #[arg(
        long,
        value_name = "NAME",
        requires = "bridge_ca",
        help_heading = "Bridge"
    )]
    bridge_server_name: Option<String>,
}

/// What waits at a hybrid connection.
#[derive(Clone)]
pub enum FarEnd {
    Agent,
    Bridge {
        port: BridgePort,
        tls: Option<(Connector, Endpoint)>,
    },
}

impl BridgeArguments {
    /// What waits for those who go to `places`.
    pub fn far_end(&self, places: &[Place]) -> Result<FarEnd> {
        let Some(name) = &self.bridge_port else {
            return Ok(FarEnd::Agent);
        };
        if places.iter().any(|place| matches!(place, Place::Azure(_))) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "--bridge-port goes with a hybrid connection of your own, not with a cluster in Azure",
            )
            .with_help("pass --connection-string-file FILE"));
        }
        let tls = match &self.bridge_ca {
            None => {
                common::warn(
                    "without --bridge-ca, the relay and the bridge see your token and all that you do",
                );
                None
            }
            Some(file) => {
                let pem = std::fs::read(file).map_err(|error| {
                    let text = format!("can not read the CA file {}", file.display());
                    Error::new(ErrorKind::File, text).with_source(error)
                })?;
                let name = self.bridge_server_name.as_deref().unwrap_or(SERVER_NAME);
                let connector = Connector::new(TrustRoots::only_pem(&pem)?)?;
                Some((connector, Endpoint::new(name, 443, Security::Tls)))
            }
        };
        Ok(FarEnd::Bridge {
            port: BridgePort::new(name)?,
            tls,
        })
    }
}

impl FarEnd {
    /// A tunnel to it.
    pub fn tunnel(&self, sender: RelaySender) -> Arc<dyn Tunnel> {
        match self {
            Self::Agent => Arc::new(RelayTunnel::new(sender)),
            Self::Bridge { port, tls } => {
                let tunnel = BridgeTunnel::new(sender, port.clone()).with_warm(WARM);
                Arc::new(match tls.clone() {
                    Some((connector, endpoint)) => tunnel.with_tls(connector, endpoint),
                    None => tunnel,
                })
            }
        }
    }
}
