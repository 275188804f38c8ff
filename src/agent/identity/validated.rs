//! [`Identity`]: a caller as the API server will know them, checked once and unchangeable since.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::names::{self, Flaw};
use crate::{Error, ErrorKind, Result};

/// The longest user name, group, uid or extra value in bytes. Entra's names have 113 characters at most.
const MAX_NAME: usize = 1_024;
/// The longest key of extra information in bytes: a DNS name, a slash and a label.
const MAX_KEY: usize = 320;
/// The most values of extra information, over all keys.
const MAX_EXTRA_VALUES: usize = 256;
/// The most bytes of all names together. Becomes request headers, of which an API server takes 1 MiB, and what stands
/// between may take less. 2 000 groups that are object ids have 72 KiB.
const MAX_BYTES: usize = 160 * 1024;
/// The most groups unless the rules say otherwise: ten times what a token can hold before its issuer leaves them out.
const DEFAULT_MAX_GROUPS: usize = 2_000;
/// The most groups that rules may allow: with more, the header lines alone would pass what HTTP stacks take.
const GREATEST_MAX_GROUPS: usize = 4_000;
/// The API server adds it by itself; sending it would only ask for one more right.
const AUTHENTICATED: &str = "system:authenticated";
/// The extra keys by which the agent says on whose behalf somebody acts. Nobody else may use them.
const AGENT_PREFIX: &str = "arc.azure.com/original-";

/// Who a request is made as: a user's name, which is never blank, with groups, uid and extra information.
///
/// An identity exists only after its names passed the [`IdentityRules`]; there is no other way to make one, and no
/// way to change one. It is what the agent needs before it may use its own credential.
///
/// ```
/// use arc_cluster_connect::agent::{Identity, IdentityRules};
///
/// # fn main() -> arc_cluster_connect::Result<()> {
/// let identity = Identity::builder("ada@example.com")
///     .group("9c6a1a2e-3c0c-4b5c-8f3b-6f0f6f2f8a11")
///     .extra("oid", "5f0c1e0a-5a0f-4b63-9a38-0c2d0f6f5a77")
///     .build(&IdentityRules::default())?;
/// assert_eq!(identity.user(), "ada@example.com");
/// assert!(Identity::builder(" ").build(&IdentityRules::default()).is_err());
/// # Ok(())
/// # }
/// ```
///
/// Neither of these is possible:
///
/// ```compile_fail,E0451
/// # use arc_cluster_connect::agent::Identity;
/// # fn no(known: Identity) -> Identity {
/// Identity { user: "root".to_owned(), ..known }
/// # }
/// ```
///
/// ```compile_fail,E0277
/// # use arc_cluster_connect::agent::Identity;
/// # fn no() -> Identity {
/// serde_json::from_str(r#"{"user":"root"}"#).unwrap()
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    user: String,
    uid: Option<String>,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// Starts an identity with a user name.
    pub fn builder(user: impl Into<String>) -> IdentityBuilder {
        IdentityBuilder {
            user: user.into(),
            uid: None,
            groups: Vec::new(),
            extra: Vec::new(),
        }
    }

    /// The user's name: not blank, without white space at its edges.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The id that stays with the user when the name changes.
    pub fn uid(&self) -> Option<&str> {
        self.uid.as_deref()
    }

    /// The groups, each once, in the order in which they were added.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// Extra information by key. Keys are in lower case, each has a value at least.
    pub fn extra(&self) -> &BTreeMap<String, Vec<String>> {
        &self.extra
    }

    /// The same identity with the mark of who really asks. The marks' keys are the agent's own, so none is replaced.
    pub(in crate::agent) fn on_behalf_of(mut self, original: &Identity) -> Self {
        let mut mark = |name: &str, values: Vec<String>| {
            if !values.is_empty() {
                self.extra.insert(format!("{AGENT_PREFIX}{name}"), values);
            }
        };
        mark("user", vec![original.user.clone()]);
        mark("uid", original.uid.iter().cloned().collect());
        mark("groups", original.groups.clone());
        self
    }
}

/// Collects the names of an [`Identity`]; [`build`](Self::build) checks them.
#[derive(Clone, Debug)]
#[must_use]
pub struct IdentityBuilder {
    user: String,
    uid: Option<String>,
    groups: Vec<String>,
    extra: Vec<(String, String)>,
}

impl IdentityBuilder {
    /// Adds a group. Repeated ones count once.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.groups.push(group.into());
        self
    }

    /// Adds groups.
    pub fn groups(mut self, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.groups.extend(groups.into_iter().map(Into::into));
        self
    }

    /// Sets the id that stays with the user when the name changes.
    pub fn uid(mut self, uid: impl Into<String>) -> Self {
        self.uid = Some(uid.into());
        self
    }

    /// Adds a value of extra information. Keys are compared in lower case, as the API server does.
    pub fn extra(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra.push((key.into(), value.into()));
        self
    }

    /// Checks all names and makes the identity.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a name that is blank (groups: are left out), has white space at an edge, a
    /// control character or an invisible one, or is longer than 1024 bytes; [`ErrorKind::Refused`] for a name that
    /// Kubernetes keeps for itself (`system:…`, extra keys in `kubernetes.io` and `k8s.io`); [`ErrorKind::LimitReached`]
    /// above [`IdentityRules::max_groups`], 256 extra values or 160 KiB in all. Nothing is ever cut short.
    ///
    /// Texts name the kind of name, never the name itself.
    pub fn build(self, rules: &IdentityRules) -> Result<Identity> {
        if names::is_system(&self.user) {
            return Err(refused("the user name"));
        }
        if self
            .extra
            .iter()
            .any(|(key, _)| names::is_kubernetes_key(key))
        {
            return Err(refused("a key of extra information"));
        }
        let mut identity = self.build_unfiltered(rules)?;
        let before = identity.groups.len();
        identity.groups.retain(|group| !names::is_system(group));
        let dropped = before - identity.groups.len();
        match rules.system_groups {
            SystemGroups::Refuse if dropped > 0 => return Err(refused("a group")),
            SystemGroups::Drop if dropped > 0 => tracing::warn!(
                user = identity.user,
                dropped,
                "groups whose names Kubernetes keeps for itself were left out of an identity"
            ),
            _ => {}
        }
        Ok(identity)
    }

    /// Checks everything but whether a name is Kubernetes' own: for names that the API server itself has allowed the
    /// caller to take on.
    pub(in crate::agent) fn build_unfiltered(self, rules: &IdentityRules) -> Result<Identity> {
        check("the user name", &self.user, MAX_NAME)?;
        if let Some(uid) = &self.uid {
            check("the uid", uid, MAX_NAME)?;
        }
        let mut seen = BTreeSet::new();
        let mut groups = Vec::with_capacity(self.groups.len());
        for group in self.groups {
            if group.is_empty() || group == AUTHENTICATED || seen.contains(&group) {
                continue;
            }
            check("a group", &group, MAX_NAME)?;
            seen.insert(group.clone());
            groups.push(group);
        }
        if groups.len() > rules.max_groups {
            return Err(too_much(format!(
                "the identity has {} groups, and {} are allowed",
                groups.len(),
                rules.max_groups
            )));
        }
        if self.extra.len() > MAX_EXTRA_VALUES {
            return Err(too_much(format!(
                "the identity has more than {MAX_EXTRA_VALUES} values of extra information"
            )));
        }
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for (key, value) in self.extra {
            check("a key of extra information", &key, MAX_KEY)?;
            check("a value of extra information", &value, MAX_NAME)?;
            let key = key.to_lowercase();
            if key.starts_with(AGENT_PREFIX) {
                return Err(refused("a key of extra information"));
            }
            extra.entry(key).or_default().push(value);
        }
        let identity = Identity {
            user: self.user,
            uid: self.uid,
            groups,
            extra,
        };
        if identity.bytes() > MAX_BYTES {
            return Err(too_much(format!(
                "the identity's names have more than {MAX_BYTES} bytes"
            )));
        }
        Ok(identity)
    }
}

impl Identity {
    fn bytes(&self) -> usize {
        let extra = self.extra.iter().map(|(key, values)| {
            values
                .iter()
                .map(|value| key.len() + value.len())
                .sum::<usize>()
        });
        self.user.len()
            + self.uid.as_ref().map_or(0, String::len)
            + self.groups.iter().map(String::len).sum::<usize>()
            + extra.sum::<usize>()
    }
}

/// What an [`Identity`] may hold, beside what is never allowed.
#[derive(Clone, Debug)]
pub struct IdentityRules {
    max_groups: usize,
    system_groups: SystemGroups,
}

/// What becomes of a caller who has groups with names that Kubernetes keeps for itself (`system:masters`).
///
/// There is no way to let such a group pass: whoever may name groups at the issuer would rule the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SystemGroups {
    /// The caller is admitted without these groups, and the log says so.
    #[default]
    Drop,
    /// The caller is refused.
    Refuse,
}

impl IdentityRules {
    /// Sets how many groups an identity may have; 2000 unless this is called, and 4000 at most. One more is a
    /// refusal.
    #[must_use]
    pub fn max_groups(mut self, max_groups: usize) -> Self {
        self.max_groups = max_groups.min(GREATEST_MAX_GROUPS);
        self
    }

    /// Sets what becomes of groups with names of Kubernetes' own.
    #[must_use]
    pub fn system_groups(mut self, system_groups: SystemGroups) -> Self {
        self.system_groups = system_groups;
        self
    }
}

impl Default for IdentityRules {
    fn default() -> Self {
        Self {
            max_groups: DEFAULT_MAX_GROUPS,
            system_groups: SystemGroups::default(),
        }
    }
}

fn check(what: &str, name: &str, longest: usize) -> Result<()> {
    match Flaw::of(name, longest) {
        None => Ok(()),
        Some(flaw) => Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{what} of the identity {}", flaw.text()),
        )),
    }
}

fn refused(what: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!("{what} of the identity is one that Kubernetes or the agent keeps for itself"),
    )
}

fn too_much(message: String) -> Error {
    Error::new(ErrorKind::LimitReached, message)
}

#[cfg(test)]
mod tests;
