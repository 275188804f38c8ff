//! Which form of impersonation the agent is given.

use std::{borrow::Cow, fmt};

use arc_cluster_connect::{Error, ErrorKind, Result};
use clap::ValueEnum;
use serde_json::Value;

use super::{EnableArguments, kubectl::Kubectl, manifests::Impersonation};
use crate::common;

/// The first Kubernetes that knows constrained impersonation by itself, and the one that knows it behind a gate.
const CONSTRAINED_SINCE: Version = Version(1, 36);
const CONSTRAINED_BEHIND_GATE: Version = Version(1, 35);

/// When the agent gets the constrained form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// Whenever cluster and callers allow it
    Auto,
    /// Yes, or fail
    On,
    /// No
    Off,
}

/// Chooses, and says what and why.
pub async fn choose(kubectl: &Kubectl, arguments: &EnableArguments) -> Result<Impersonation> {
    let when = arguments.constrained_impersonation;
    if when == When::Off {
        return Ok(Impersonation::Classic);
    }
    let version = Version::read(&kubectl.version().await?)?;
    // In the constrained form the API server refuses extra keys without a domain, and such is the `oid` that Azure
    // RBAC needs of every caller of Entra ID.
    let serves_entra = arguments
        .agent_arguments
        .iter()
        .any(|argument| argument.starts_with("--entra-tenant"));
    let (form, why) = match when {
        When::On if version < CONSTRAINED_BEHIND_GATE => {
            return Err(impossible(format!(
                "Kubernetes {version} does not know constrained impersonation"
            )));
        }
        When::On if serves_entra => {
            return Err(impossible(
                "constrained impersonation lets no `oid` through, which callers of Entra ID have",
            ));
        }
        When::On if version < CONSTRAINED_SINCE => {
            common::warn(format_args!(
                "Kubernetes {version} knows constrained impersonation only with the feature gate \
                 ConstrainedImpersonation; without it the agent can not act as anybody"
            ));
            (Impersonation::Constrained, "")
        }
        When::Auto if version < CONSTRAINED_SINCE => (Impersonation::Classic, ""),
        When::Auto if serves_entra => (Impersonation::Classic, ", for callers of Entra ID"),
        _ => (Impersonation::Constrained, ""),
    };
    let name = match form {
        Impersonation::Classic => "classic",
        Impersonation::Constrained => "constrained",
    };
    common::progress(format_args!(
        "Kubernetes {version}: {name} impersonation{why}"
    ));
    Ok(form)
}

fn impossible(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidInput, message).with_help(
        "leave --constrained-impersonation away: the classic form is chosen where it is needed",
    )
}

/// A `major.minor` of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl Version {
    fn read(answer: &Value) -> Result<Self> {
        // Some distributions write the minor version as `32+`.
        let part = |name: &str| {
            let text = answer["serverVersion"][name].as_str()?;
            let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
            digits.parse().ok()
        };
        match (part("major"), part("minor")) {
            (Some(major), Some(minor)) => Ok(Self(major, minor)),
            _ => Err(Error::new(
                ErrorKind::Protocol,
                "the API server does not tell its version",
            )
            .with_help("pass --constrained-impersonation off to do without it")),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}
