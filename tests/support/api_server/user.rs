//! [`User`]: who a request is from, and [`Access`]: what that user may do.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// An authenticated or impersonated user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The user name.
    pub name: String,
    /// The unique id; empty when there is none.
    pub uid: String,
    /// The groups, in the order given.
    pub groups: Vec<String>,
    /// Everything else that an authenticator said.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user without groups.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// A service account, with the groups that the API server gives it.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self::new(format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"))
            .with_groups(service_account_groups(namespace))
    }

    /// Adds groups.
    pub fn with_groups<G: Into<String>>(mut self, groups: impl IntoIterator<Item = G>) -> Self {
        self.groups.extend(groups.into_iter().map(Into::into));
        self
    }

    /// The `userInfo` of reviews.
    pub(super) fn to_value(&self) -> Value {
        let mut value = json!({ "username": self.name, "groups": self.groups });
        if !self.uid.is_empty() {
            value["uid"] = json!(self.uid);
        }
        if !self.extra.is_empty() {
            value["extra"] = json!(self.extra);
        }
        value
    }
}

/// What a user may do, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Only what is open to all: health, version, discovery, reviews of oneself.
    Nothing,
    /// `get`, `list` and `watch`, and what is open to all.
    ReadOnly,
    /// Everything.
    Everything,
}

/// What the names of service accounts start with.
pub(super) const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// The groups that the API server adds to every service account of a namespace.
pub(super) fn service_account_groups(namespace: &str) -> [String; 2] {
    [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
    ]
}
