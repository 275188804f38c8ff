//! `arc-connect doctor`: what is in the way to a cluster, and what to do about it.
//!
//! ```text
//!  local.*     port, kubeconfig            ┐
//!  network.*   proxy, endpoints, clock     ├─ at the same time
//!  azure.* ► relay.* ► caller.* ► agent.* ► cluster.*   ┘ one after the other: see `path`
//! ```
//!
//! With `--json`, where members may be added and names of checks stay:
//!
//! ```json
//! {
//!   "version": "0.1.0", "result": "failed", "counts": { "ok": 7, "warning": 0, "failed": 1, "skipped": 4 },
//!   "checks": [{
//!     "name": "relay.endpoint", "target": "relay contoso.servicebus.windows.net:443", "result": "failed",
//!     "milliseconds": 12.3, "detail": "tcp: can not connect to …", "advice": "check that …",
//!     "steps": [{ "name": "dns", "result": "ok", "milliseconds": 1.2, "detail": "192.0.2.7" }]
//!   }]
//! }
//! ```

mod azure;
mod certificate;
mod check;
mod clock;
mod cluster;
mod corporate_proxy;
mod endpoints;
mod local;
mod network;
mod path;
mod peek;
mod report;
mod span;
mod token;

use std::{io::Write, path::PathBuf, process::ExitCode};

use arc_cluster_connect::{Error, ErrorKind, Result, auth::Cloud};
use clap::Args;
use futures_util::future::join_all;
use tokio::sync::oneshot;

use self::{
    check::{Check, Finding, Outcome},
    corporate_proxy::Surroundings,
    endpoints::{NeededBy, Target},
    network::Network,
    path::{Path, Walked},
    report::{Colour, Report},
};
use crate::{
    caller_arguments::CallerArguments,
    cluster_arguments::{ClusterArguments, Place},
    common,
};

/// The port that `arc-connect proxy` takes unless told otherwise.
const DEFAULT_PORT: u16 = 47011;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    cluster: ClusterArguments,

    #[command(flatten)]
    caller: CallerArguments,

    /// The region whose endpoints are looked at; without it, that of the cluster's resource
    #[arg(long, value_name = "REGION")]
    region: Option<String>,

    /// JSON file with the endpoints to look at in place of Azure's own, for clouds without internet:
    /// {"endpoints": [{"purpose", "url", "websocket", "neededBy": "everybody" or "agent"}]}
    #[arg(long, value_name = "FILE", conflicts_with = "region")]
    endpoints: Option<PathBuf>,

    /// This machine is in the cluster's network: what only the agent needs has to be reachable from here
    #[arg(long)]
    beside_the_cluster: bool,

    /// The namespace in which the caller's rights are looked at
    #[arg(long, value_name = "NAME", default_value = "default")]
    namespace: String,

    /// The port that the proxy shall listen on; 0 takes any free one
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_PORT)]
    port: u16,

    /// The kubeconfig that the proxy shall write; without it, what kubectl uses
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Print JSON: {"result", "counts", "checks": [{"name", "target", "result", "milliseconds", "detail", "advice",
    /// "steps"}]}; results are ok, warning, failed and skipped
    #[arg(long)]
    json: bool,
}

/// Exit code 0 when nothing failed, 1 when something did.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let report = tokio::select! {
        report = examine(&arguments) => report?,
        () = common::stop_requested() => return Ok(ExitCode::FAILURE),
    };
    let text = if arguments.json {
        format!("{}\n", report.to_json())
    } else {
        report.to_text(Colour::of_stdout())
    };
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| {
            Error::new(ErrorKind::File, "can not write to standard output").with_source(error)
        })?;
    Ok(match report.outcome() {
        Outcome::Failed => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

/// `Err` only for what is wrong with the command line itself.
async fn examine(arguments: &Arguments) -> Result<Report> {
    let region = match &arguments.region {
        Some(region) => Some(endpoints::region_name(region)?),
        None => None,
    };
    let listed = match &arguments.endpoints {
        Some(path) => Some(endpoints::of_file(path)?),
        None => None,
    };
    let around = Surroundings::of_the_process();
    let proxy = arguments.cluster.proxy()?;
    let network = Network {
        connector: arguments.cluster.connector()?,
        ignored_proxy: around.proxy.filter(|_| proxy.is_none()),
        proxy: proxy.clone().unwrap_or_default(),
    };
    let mut checks = vec![
        Check::new("local.port", local::port(arguments.port)).with_target("arc-connect proxy"),
        Check::new(
            "local.kubeconfig",
            local::kubeconfig(arguments.file.as_deref()),
        ),
    ];
    let mut place = None;
    if arguments.cluster.is_given() {
        match arguments.cluster.place().await {
            Ok(named) => place = Some(named),
            // What does not depend on it is looked at all the same.
            Err(error) => checks.push(Check::new("cluster.name", Finding::of_error(&error))),
        }
    }
    let needs_azure = match &place {
        Some(Place::Relay(_)) => arguments.caller.signs_in() && !arguments.caller.has_bearer(),
        Some(Place::Azure(_)) => true,
        // Without any cluster it is the way to Azure that is asked about.
        None => arguments.cluster.is_in_azure() || !arguments.cluster.is_given(),
    };
    let cloud = if needs_azure {
        match arguments.cluster.cloud(&network.connector).await {
            Ok(cloud) => Some(cloud),
            Err(error) => {
                checks.push(Check::new("azure.cloud", Finding::of_error(&error)));
                None
            }
        }
    } else {
        None
    };
    let survey = Survey {
        network: &network,
        cloud: cloud
            .as_ref()
            .filter(|_| !matches!(place, Some(Place::Relay(_)))),
        listed,
        beside_the_cluster: if arguments.beside_the_cluster {
            Side::Cluster
        } else {
            Side::Client
        },
    };
    let path = Path {
        network: &network,
        caller: &arguments.caller,
        namespace: arguments.namespace.clone(),
    };
    let (tell_region, told_region) = oneshot::channel();
    let walking = async {
        match (&place, &cloud) {
            (Some(Place::Azure(id)), Some(cloud)) => {
                path.through_azure(cloud, id, tell_region).await
            }
            (Some(Place::Relay(connection_string)), cloud) => {
                drop(tell_region);
                path.through_relay(connection_string, cloud.as_ref()).await
            }
            (Some(Place::Azure(_)), None) | (None, _) => {
                drop(tell_region);
                let mut walked = Walked::default();
                if !arguments.cluster.is_given() {
                    walked.checks.push(Check::new(
                        path::RELAY_ENDPOINT,
                        Finding::skipped(
                            "every cluster has its own: name one, with -n NAME -g GROUP",
                        ),
                    ));
                }
                walked
            }
        }
    };
    common::progress("checking");
    let (surveyed, walked) = tokio::join!(survey.make(region, told_region), walking);

    let targets: Vec<_> = surveyed
        .targets
        .iter()
        .map(|target| target.endpoint.clone())
        .chain(walked.relay)
        .collect();
    checks.push(Check::new(
        "network.proxy",
        corporate_proxy::judge(proxy.as_ref(), around, &targets),
    ));
    checks.extend(surveyed.checks);
    let clocks: Vec<_> = surveyed.clocks.into_iter().chain(walked.clocks).collect();
    checks.push(Check::new("network.clock", clock::judge(&clocks)));
    checks.extend(walked.checks);
    Ok(Report::new(checks))
}

/// Where this machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Cluster,
}

/// The endpoints of a cloud, or the user's own.
struct Survey<'a> {
    network: &'a Network,
    cloud: Option<&'a Cloud>,
    listed: Option<Vec<Target>>,
    beside_the_cluster: Side,
}

#[derive(Default)]
struct Surveyed {
    targets: Vec<Target>,
    checks: Vec<Check>,
    clocks: Vec<(String, f64)>,
}

impl Survey<'_> {
    async fn make(&self, region: Option<String>, told: oneshot::Receiver<String>) -> Surveyed {
        let mut surveyed = Surveyed::default();
        let Some(cloud) = self.cloud else {
            if let Some(listed) = &self.listed {
                self.probe(&mut surveyed, listed.clone()).await;
            }
            return surveyed;
        };
        if let Some(listed) = &self.listed {
            self.probe(&mut surveyed, listed.clone()).await;
            return surveyed;
        }
        let mut regional = Surveyed::default();
        let (everywhere, in_region) = (endpoints::of_cloud(cloud), async {
            let region = match region {
                Some(region) => Some(region),
                None => told
                    .await
                    .ok()
                    .and_then(|text| endpoints::region_name(&text).ok()),
            };
            match region {
                Some(region) => {
                    self.probe(&mut regional, endpoints::of_region(cloud, &region))
                        .await;
                }
                None => regional.checks.push(Check::new(
                    "network.endpoint",
                    Finding::skipped("those of the region: it is not known; name it with --region"),
                )),
            }
        });
        tokio::join!(self.probe(&mut surveyed, everywhere), in_region);
        surveyed.targets.extend(regional.targets);
        surveyed.checks.extend(regional.checks);
        surveyed.clocks.extend(regional.clocks);
        surveyed
    }

    /// All at once.
    async fn probe(&self, surveyed: &mut Surveyed, mut targets: Vec<Target>) {
        if self.beside_the_cluster == Side::Cluster {
            for target in &mut targets {
                target.needed_by = NeededBy::Everybody;
            }
        }
        let probing = targets
            .iter()
            .map(|target| network::probe(self.network, "network.endpoint", target));
        for (probed, target) in join_all(probing).await.into_iter().zip(&targets) {
            let server = target.endpoint.authority();
            surveyed
                .clocks
                .extend(probed.ahead.map(|ahead| (server, ahead)));
            surveyed.checks.push(probed.check);
        }
        surveyed.targets.extend(targets);
    }
}
