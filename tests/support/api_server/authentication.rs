//! [`Identities`]: whose a bearer token is, who may impersonate, who may do what.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use http::{HeaderMap, header};
use uuid::Uuid;

use super::{
    impersonation::ImpersonationRights,
    status::Status,
    user::{Access, User},
};

/// A bearer token that nobody guesses.
pub fn random_token() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// Tokens and rights.
#[derive(Default)]
pub(super) struct Identities {
    tokens: Mutex<HashMap<String, Grant>>,
    impersonators: HashMap<String, ImpersonationRights>,
    access: HashMap<String, Access>,
    group_access: HashMap<String, Access>,
    unbound: Option<Access>,
}

struct Grant {
    user: User,
    expires_at: Option<SystemTime>,
}

impl Identities {
    pub(super) fn add_token(&self, token: String, user: User, expires_at: Option<SystemTime>) {
        self.tokens().insert(token, Grant { user, expires_at });
    }

    pub(super) fn add_impersonator(&mut self, user: String, rights: ImpersonationRights) {
        self.impersonators.insert(user, rights);
    }

    pub(super) fn set_access(&mut self, user: String, access: Access) {
        self.access.insert(user, access);
    }

    pub(super) fn set_group_access(&mut self, group: String, access: Access) {
        self.group_access.insert(group, access);
    }

    pub(super) fn set_unbound_access(&mut self, access: Access) {
        self.unbound = Some(access);
    }

    pub(super) fn impersonation_rights(&self, user: &User) -> ImpersonationRights {
        self.impersonators
            .get(&user.name)
            .copied()
            .unwrap_or(ImpersonationRights::Nobody)
    }

    /// Bindings add up, as in the real server.
    pub(super) fn access(&self, user: &User) -> Access {
        let of_groups = user
            .groups
            .iter()
            .filter_map(|group| self.group_access.get(group));
        let bound = self
            .access
            .get(&user.name)
            .into_iter()
            .chain(of_groups)
            .max();
        bound
            .copied()
            .or(self.unbound)
            .unwrap_or(Access::Everything)
    }

    /// Whose token this is, `system:authenticated` included.
    pub(super) fn user_of_token(&self, token: &str) -> Option<User> {
        let tokens = self.tokens();
        let grant = tokens.get(token)?;
        if grant.expires_at.is_some_and(|end| end <= SystemTime::now()) {
            return None;
        }
        let mut user = grant.user.clone();
        if !user.groups.iter().any(|group| group == AUTHENTICATED) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        Some(user)
    }

    /// Who sent a request with these headers.
    pub(super) fn authenticate(&self, headers: &HeaderMap) -> Result<User, Status> {
        headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .and_then(|(_, token)| self.user_of_token(token.trim()))
            .ok_or_else(Status::unauthorized)
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<String, Grant>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The group of everybody whose credential was accepted.
pub(super) const AUTHENTICATED: &str = "system:authenticated";
