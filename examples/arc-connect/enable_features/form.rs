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
    // RBAC needs of every caller of Entra ID, and that the agent sends unless it is told otherwise.
    let sends_oid = has_argument(arguments, "--entra-tenant", |_| true)
        && !has_argument(arguments, "--entra-object-id", |key| key != "oid");
    let (form, why) = match when {
        When::On if version < CONSTRAINED_BEHIND_GATE => {
            return Err(impossible(format!(
                "Kubernetes {version} does not know constrained impersonation"
            )));
        }
        When::On if sends_oid => {
            return Err(impossible(
                "constrained impersonation lets no `oid` through, which callers of Entra ID have; the agent argument \
                 --entra-object-id=arc.azure.com/oid sends it under a name that passes",
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
        When::Auto if sends_oid => (Impersonation::Classic, ", for callers of Entra ID"),
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

/// Whether the agent gets an argument `name`, in one word or two, with a value that fits.
fn has_argument(arguments: &EnableArguments, name: &str, fits: impl Fn(&str) -> bool) -> bool {
    let words = &arguments.agent_arguments;
    words.iter().enumerate().any(|(at, word)| {
        let value = match word.strip_prefix(name) {
            Some("") => words.get(at + 1).map_or("", String::as_str),
            Some(rest) => match rest.strip_prefix('=') {
                Some(value) => value,
                None => return false,
            },
            None => return false,
        };
        fits(value)
    })
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
