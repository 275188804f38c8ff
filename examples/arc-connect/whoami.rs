//! `arc-connect whoami`: the caller as the API server sees them.

mod grant;

use std::{collections::BTreeMap, io::Write, process::ExitCode};

use arc_cluster_connect::{Error, ErrorKind, Result};
use clap::Args;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::grant::{Kind, grants};
use crate::{
    bridge_arguments::BridgeArguments,
    caller_arguments::CallerArguments,
    cluster_arguments::ClusterArguments,
    common,
    first_request::{ask, judge},
    reach::Reached,
};

/// Newest first: since Kubernetes 1.28, and in 1.27 where somebody switched it on.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    cluster: ClusterArguments,

    #[command(flatten)]
    bridge: BridgeArguments,

    #[command(flatten)]
    caller: CallerArguments,

    /// The role that the printed command grants
    #[arg(long, value_name = "NAME", default_value = "cluster-admin")]
    cluster_role: String,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What Kubernetes knows of a caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct UserInfo {
    username: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let asking = async {
        let reached =
            Reached::one(&arguments.cluster, &arguments.bridge, &arguments.caller).await?;
        let user = common::with_patience("asking the API server", review(&reached)).await;
        // All that was wanted of it has been answered.
        let _ = reached.tunnel.shutdown().await;
        Ok::<_, Error>((user?, reached))
    };
    let (user, reached) = tokio::select! {
        answered = asking => answered?,
        () = common::stop_requested() => return Ok(ExitCode::FAILURE),
    };
    let text = if arguments.json {
        format!("{}\n", as_json(&user, &reached, &arguments.cluster_role))
    } else {
        as_text(&user, &arguments.cluster_role)
    };
    std::io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .map_err(|error| {
            Error::new(ErrorKind::File, "can not write to standard output").with_source(error)
        })?;
    Ok(ExitCode::SUCCESS)
}

async fn review(reached: &Reached) -> Result<UserInfo> {
    for version in VERSIONS {
        let path = format!("/apis/authentication.k8s.io/{version}/selfsubjectreviews");
        let body = json!({
            "apiVersion": format!("authentication.k8s.io/{version}"),
            "kind": "SelfSubjectReview",
        });
        let (tunnel, auth) = (&reached.tunnel, &reached.auth);
        let response = ask(tunnel, auth, Method::POST, &path, Some(&body)).await?;
        if response.status() == StatusCode::NOT_FOUND {
            continue;
        }
        judge(&response, reached.unauthorized)?;
        let review: Review = serde_json::from_slice(response.body()).map_err(|error| {
            Error::new(
                ErrorKind::Protocol,
                "the API server's answer does not say who the caller is",
            )
            .with_source(error)
        })?;
        return Ok(review.status.user_info);
    }
    Err(Error::new(
        ErrorKind::NotFound,
        "the API server does not tell callers who they are: it is older than Kubernetes 1.28",
    )
    .with_help("the answer to any request that is forbidden names the caller: `kubectl get nodes`"))
}

#[derive(Deserialize)]
struct Review {
    status: ReviewStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReviewStatus {
    user_info: UserInfo,
}

fn as_json(user: &UserInfo, reached: &Reached, role: &str) -> String {
    let grants: Vec<_> = grants(user, role)
        .into_iter()
        .map(|grant| json!({ "to": grant.to, "command": grant.command }))
        .collect();
    json!({
        "cluster": reached.name,
        "resource": reached.resource.as_ref().map(ToString::to_string),
        "kind": Kind::of(user).name(),
        "user": user,
        "grants": grants,
    })
    .to_string()
}

fn as_text(user: &UserInfo, role: &str) -> String {
    let mut text = format!(
        "{}  ({})\n",
        common::printable(&user.username),
        Kind::of(user).name()
    );
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("  {name}: {}\n", common::printable(value)));
    };
    if !user.uid.is_empty() {
        line("uid", &user.uid);
    }
    for group in &user.groups {
        line("group", group);
    }
    for (name, values) in &user.extra {
        line(name, &values.join(", "));
    }
    let grants = grants(user, role);
    if !grants.is_empty() {
        text.push_str("\nAn administrator of the cluster grants access with one of these:\n");
    }
    for grant in grants {
        text.push_str(&format!("  {}\n", grant.command));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_cluster_says_does_not_reach_the_terminal_as_control_characters() {
        let user = UserInfo {
            username: "eve\u{1b}[2J".to_owned(),
            groups: vec!["a\nb".to_owned()],
            ..UserInfo::default()
        };
        let text = as_text(&user, "view");
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(text.contains("group: a b\n"), "{text}");
    }
}
