//! `arc-connect kubeconfig`: how tools reach the proxies that run, without a secret in a file.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use arc_cluster_connect::{
    Error, ErrorKind, KubeconfigBuilder, Result,
    kubeconfig::{CurrentContext, ExecKubeconfig, Kubeconfig, KubeconfigFile, ProxyEndpoint},
};
use clap::Args;

use crate::{
    common,
    running::{Running, RunningCluster},
};

#[derive(Args)]
pub struct Arguments {
    /// Only these clusters: names, contexts or resource ids
    #[arg(value_name = "CLUSTER")]
    only: Vec<String>,

    /// Kubeconfig to add the contexts to; - prints them, as does leaving it out
    #[arg(short = 'f', long, value_name = "FILE", default_value = "-")]
    file: PathBuf,

    /// Make the first of the contexts the current one even if there is one already
    #[arg(long)]
    switch_context: bool,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let kubeconfig = build(&Running::list()?, &arguments.only)?;
    if arguments.file == Path::new("-") {
        let yaml = kubeconfig.to_yaml()?;
        let written = std::io::stdout().lock().write_all(yaml.as_bytes());
        written.map_err(|error| {
            Error::new(ErrorKind::File, "can not write to standard output").with_source(error)
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let current = if arguments.switch_context {
        CurrentContext::Switch
    } else {
        CurrentContext::KeepIfSet
    };
    let file = KubeconfigFile::at(&arguments.file);
    // Stays until somebody's next merge finds that the proxy is gone.
    let _receipt = file.merge(&kubeconfig, current)?;
    for entry in &kubeconfig.contexts {
        common::progress(format_args!(
            "try it: kubectl --kubeconfig {} --context {} get pods",
            file.path().display(),
            entry.name
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn build(running: &[Running], only: &[String]) -> Result<Kubeconfig> {
    let program = std::env::current_exe().map_err(|error| {
        Error::new(ErrorKind::Other, "can not find out where this program is").with_source(error)
    })?;
    let mut whole: Option<Kubeconfig> = None;
    for (proxy, cluster) in chosen(running, only)? {
        let endpoint = ProxyEndpoint::new(
            &cluster.server,
            &proxy.certificate_authority,
            proxy.secret.clone(),
        );
        let name = context(cluster);
        let kubeconfig = ExecKubeconfig::new(name, &program)
            .with_arguments(["credential", "--server", &cluster.server])
            .build(&endpoint)?;
        match &mut whole {
            None => whole = Some(kubeconfig),
            Some(whole) if whole.context(name).is_some() => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("two running proxies have a context {name}"),
                )
                .with_help(
                    "name the cluster by its resource id, or start one of them with --kube-context NAME",
                ));
            }
            Some(whole) => {
                whole.clusters.extend(kubeconfig.clusters);
                whole.users.extend(kubeconfig.users);
                whole.contexts.extend(kubeconfig.contexts);
            }
        }
    }
    whole.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "no proxy of yours is running")
            .with_help("start one in another terminal: arc-connect proxy -n NAME -g GROUP")
    })
}

/// The clusters that are meant: all, or those that were named, each of which must be there.
fn chosen<'a>(
    running: &'a [Running],
    only: &[String],
) -> Result<Vec<(&'a Running, &'a RunningCluster)>> {
    let all = running.iter().flat_map(|proxy| {
        let clusters = proxy.clusters.iter();
        clusters.map(move |cluster| (proxy, cluster))
    });
    let all: Vec<_> = all.collect();
    let is_called = |cluster: &RunningCluster, wanted: &str| {
        cluster.name == wanted
            || context(cluster) == wanted
            || cluster
                .resource
                .as_ref()
                .is_some_and(|id| id.eq_ignore_ascii_case(wanted))
    };
    for wanted in only {
        if !all.iter().any(|(_, cluster)| is_called(cluster, wanted)) {
            let names: Vec<_> = all.iter().map(|(_, cluster)| context(cluster)).collect();
            let help = if names.is_empty() {
                "no proxy runs: start one with `arc-connect proxy`".to_owned()
            } else {
                format!("served are: {}", names.join(", "))
            };
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("no running proxy serves {wanted}"),
            )
            .with_help(help));
        }
    }
    let is_wanted = |cluster: &RunningCluster| {
        only.is_empty() || only.iter().any(|wanted| is_called(cluster, wanted))
    };
    Ok(all
        .into_iter()
        .filter(|(_, cluster)| is_wanted(cluster))
        .collect())
}

fn context(cluster: &RunningCluster) -> &str {
    cluster.context.as_deref().unwrap_or(&cluster.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(port: u16, clusters: &[(&str, &str)]) -> Running {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let endpoint = ProxyEndpoint::new("https://127.0.0.1", "PEM", "hush".into());
        let mut running = Running::this_process(address, &endpoint);
        for (name, context) in clusters {
            running = running.with_cluster(RunningCluster {
                name: (*name).to_owned(),
                server: format!("https://{address}/proxies/{name}"),
                context: Some((*context).to_owned()),
                resource: Some(format!("/subscriptions/S/{name}")),
                ..RunningCluster::default()
            });
        }
        running
    }

    fn contexts(running: &[Running], only: &[&str]) -> Result<Vec<String>> {
        let only: Vec<_> = only.iter().map(|&one| one.to_owned()).collect();
        let kubeconfig = build(running, &only)?;
        let yaml = kubeconfig.to_yaml()?;
        assert!(!yaml.contains("hush"), "{yaml}");
        let names = kubeconfig.contexts.iter().map(|entry| entry.name.clone());
        Ok(names.collect())
    }

    #[test]
    fn clusters_are_chosen_by_any_of_their_names() {
        let running = [
            proxy(1, &[("a", "ka"), ("b", "kb")]),
            proxy(2, &[("c", "kc")]),
        ];
        assert_eq!(contexts(&running, &[]).unwrap(), ["ka", "kb", "kc"]);
        assert_eq!(contexts(&running, &["b"]).unwrap(), ["kb"]);
        assert_eq!(contexts(&running, &["kc", "a"]).unwrap(), ["ka", "kc"]);
        let id = "/SUBSCRIPTIONS/s/B";
        assert_eq!(contexts(&running, &[id]).unwrap(), ["kb"]);
        let error = contexts(&running, &["a", "z"]).unwrap_err();
        assert!(error.to_string().contains('z'), "{error}");
        assert!(error.help().unwrap().contains("ka, kb, kc"), "{error}");
    }

    #[test]
    fn nothing_that_runs_and_one_name_twice_are_errors() {
        let error = contexts(&[], &[]).unwrap_err();
        assert!(error.help().unwrap().contains("arc-connect proxy"));
        let running = [proxy(1, &[("a", "k")]), proxy(2, &[("b", "k")])];
        let error = contexts(&running, &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(contexts(&running, &["b"]).unwrap(), ["k"]);
    }
}
