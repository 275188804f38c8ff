//! `arc-connect enable-features` and `disable-features`: the agent in the cluster that a kubeconfig names.

mod form;
mod kubectl;
mod manifests;
mod removal;
mod rollout;

use std::{io::Write, path::PathBuf, process::ExitCode, time::Duration};

use arc_cluster_connect::{Error, ErrorKind, Result, relay::ConnectionString};
use clap::{Args, ValueEnum};
use serde_json::Value;

use self::{
    form::When,
    kubectl::{Kubectl, Target},
    manifests::Settings,
};
use crate::common;

/// What a shell answers for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Which cluster is meant.
#[derive(Args)]
struct ClusterArguments {
    /// Features, separated by spaces or commas
    #[arg(
        long,
        value_name = "FEATURE",
        required = true,
        num_args = 1..,
        value_delimiter = ',',
        value_enum
    )]
    features: Vec<Feature>,

    /// Kubeconfig of the cluster; without it, the one that kubectl uses
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Context in the kubeconfig; without it, the current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,

    /// How long to wait for the cluster: 90s, 2m, 1h
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    timeout: Duration,
}

/// What an agent in the cluster can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Feature {
    /// Reach the API server through the relay
    ClusterConnect,
}

#[derive(Args)]
pub struct EnableArguments {
    #[command(flatten)]
    cluster: ClusterArguments,

    /// File with the connection string with which the agent listens at the relay; it becomes a Secret
    #[arg(long, value_name = "FILE")]
    connection_string_file: PathBuf,

    /// Container image of the agent (deploy/Dockerfile builds it)
    #[arg(long, value_parser = image)]
    image: String,

    /// Give the agent constrained impersonation instead of the classic form; auto: since Kubernetes 1.36, and not
    /// for callers of Entra ID, whose `oid` it does not let through
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    constrained_impersonation: When,

    /// Print the objects, but for the Secret, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// More arguments for arc-agent, such as --entra-tenant ID; they are visible in the cluster, so no secrets
    #[arg(last = true, value_name = "AGENT_ARGUMENT")]
    agent_arguments: Vec<String>,
}

#[derive(Args)]
pub struct DisableArguments {
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Installs the agent, waits until it serves, and says how to undo that.
pub async fn enable(arguments: EnableArguments) -> Result<ExitCode> {
    let kubectl = arguments.cluster.kubectl()?;
    tokio::select! {
        result = install(&kubectl, &arguments) => result,
        () = common::stop_requested() => {
            common::note(format_args!(
                "stopped; what was applied so far stays. Undo: {}",
                arguments.cluster.undo(None)
            ));
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

/// Takes away what [`enable`] installed.
pub async fn disable(arguments: DisableArguments) -> Result<ExitCode> {
    let kubectl = arguments.cluster.kubectl()?;
    let remove = async {
        show(&kubectl.target().await?);
        removal::remove(&kubectl, arguments.cluster.timeout).await
    };
    tokio::select! {
        result = remove => result?,
        () = common::stop_requested() => {
            common::note("stopped; the same command again goes on where this one was");
            return Ok(ExitCode::from(INTERRUPTED));
        }
    }
    answer("cluster-connect is disabled.\n")?;
    Ok(ExitCode::SUCCESS)
}

async fn install(kubectl: &Kubectl, arguments: &EnableArguments) -> Result<ExitCode> {
    // Checked here, where a mistake is a sentence, and not in a pod, where it is a crash loop.
    let path = &arguments.connection_string_file;
    let hybrid_connection = ConnectionString::read_file(path)?.hybrid_connection()?;
    let relay = hybrid_connection.endpoint();
    if relay.is_loopback() {
        common::warn(format_args!(
            "the relay is at {relay}, which in a pod is the pod itself"
        ));
    }
    let settings = Settings {
        image: &arguments.image,
        agent_arguments: &arguments.agent_arguments,
        relay_port: relay.port(),
        secret_version: None,
    };
    if arguments.dry_run {
        let form = form::choose(kubectl, arguments).await?;
        return print(manifests::customized(form, &settings));
    }
    let connection_string = std::fs::read_to_string(path).map_err(|error| {
        Error::new(ErrorKind::File, format!("can not read {}", path.display())).with_source(error)
    })?;

    let target = kubectl.target().await?;
    show(&target);
    let form = form::choose(kubectl, arguments).await?;
    let applied = async {
        progress(&kubectl.apply(&manifests::namespace()).await?);
        let secret = manifests::relay_secret(connection_string.trim());
        let secret_version = kubectl.apply_for_version(&secret).await?;
        let settings = Settings {
            secret_version: Some(&secret_version),
            ..settings
        };
        let objects = manifests::customized(form, &settings);
        progress(&kubectl.apply(&manifests::list(objects)).await?);
        rollout::wait(kubectl, arguments.cluster.timeout).await
    };
    let undo = arguments.cluster.undo(Some(&target));
    if let Err(error) = applied.await {
        common::note(format_args!("what was applied so far stays. Undo: {undo}"));
        return Err(error);
    }
    answer(&format!(
        "cluster-connect is enabled: the agents listen at {hybrid_connection}.\nUndo: {undo}\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The dry run: on standard output, so that it can be looked at, kept, or compared.
fn print(objects: Vec<Value>) -> Result<ExitCode> {
    let mut text =
        "# Besides these, a Secret with the connection string. Nothing was changed.\n".to_owned();
    for object in [manifests::namespace()].into_iter().chain(objects) {
        let yaml = serde_saphyr::to_string(&object).map_err(|error| {
            Error::new(ErrorKind::Other, "can not write an object as YAML").with_source(error)
        })?;
        text.push_str("---\n");
        text.push_str(yaml.trim_end());
        text.push('\n');
    }
    answer(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes to standard output. Whoever stops reading, as `head` does, has read enough.
fn answer(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(ErrorKind::File, "can not write to standard output").with_source(error))
        }
        _ => Ok(()),
    }
}

impl ClusterArguments {
    fn kubectl(&self) -> Result<Kubectl> {
        // kubectl takes a file that is not there for an empty one, and then names another reason.
        if let Some(path) = &self.kubeconfig {
            std::fs::File::open(path).map_err(|error| {
                let message = format!("can not read the kubeconfig {}", path.display());
                Error::new(ErrorKind::File, message).with_source(error)
            })?;
        }
        let (kubeconfig, context) = (self.kubeconfig.as_deref(), self.context.as_deref());
        Ok(Kubectl::new(kubeconfig, context))
    }

    /// The command that undoes; with the context by name, because the current one may be another by then.
    fn undo(&self, target: Option<&Target>) -> String {
        let mut command = "arc-connect disable-features --features cluster-connect".to_owned();
        if let Some(path) = &self.kubeconfig {
            command.push_str(" --kubeconfig ");
            command.push_str(&quoted(&path.to_string_lossy()));
        }
        let context = target.map(|target| target.context.as_str());
        if let Some(context) = context.or(self.context.as_deref()) {
            command.push_str(" --context ");
            command.push_str(&quoted(context));
        }
        command
    }
}

fn show(target: &Target) {
    common::progress(format_args!(
        "cluster: {} (context {})",
        target.server, target.context
    ));
}

fn progress(lines: &str) {
    for line in lines.lines() {
        common::progress(line);
    }
}

/// As a POSIX shell takes it.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@+,=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// `90s`, `2m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let malformed = || "not a time: write 90s, 2m or 1h".to_owned();
    let unit = match text.chars().next_back() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        _ => return Err(malformed()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| malformed())?;
    match number.checked_mul(unit) {
        Some(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("between a second and a day".to_owned()),
    }
}

/// Catches what is certainly no image; whether there is one, only the cluster can tell.
fn image(text: &str) -> Result<String, String> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if text.is_empty() || !text.chars().all(is_legal) {
        return Err(
            "not the name of an image, such as registry.example/arc-agent:0.1.0".to_owned(),
        );
    }
    Ok(text.to_owned())
}
