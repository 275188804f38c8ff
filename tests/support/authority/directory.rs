//! [`Directory`]: who is a member of what, as Graph tells it.

use std::collections::HashMap;

/// Memberships by object id. Users and service principals are apart, as in Graph: asked for under the other kind, an
/// object does not exist.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    users: HashMap<String, Vec<String>>,
    service_principals: HashMap<String, Vec<String>>,
    /// Whom Arc's endpoint knows by their tokens: users only, as the real one.
    by_token: HashMap<String, Vec<String>>,
}

impl Directory {
    /// A user and the user's groups.
    pub fn user(&mut self, object_id: &str, groups: &[String]) {
        self.users.insert(object_id.to_owned(), groups.to_vec());
    }

    /// A service principal and its groups.
    pub fn service_principal(&mut self, object_id: &str, groups: &[String]) {
        self.service_principals
            .insert(object_id.to_owned(), groups.to_vec());
    }

    /// The groups that Arc's endpoint tells for a user's token.
    pub fn on_behalf_of(&mut self, token: &str, groups: &[String]) {
        self.by_token.insert(token.to_owned(), groups.to_vec());
    }

    /// `None`: there is no such object, or no such kind.
    pub(super) fn members(&self, kind: &str, object_id: &str) -> Option<Vec<String>> {
        match kind {
            "users" => self.users.get(object_id).cloned(),
            "servicePrincipals" => self.service_principals.get(object_id).cloned(),
            _ => None,
        }
    }

    pub(super) fn members_by_token(&self, token: &str) -> Option<Vec<String>> {
        self.by_token.get(token).cloned()
    }
}
