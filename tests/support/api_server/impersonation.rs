//! Impersonation as the real server's filter does it: which headers count, what is added, what is refused.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;

use super::{
    authentication::AUTHENTICATED,
    status::Status,
    user::{SERVICE_ACCOUNT_PREFIX, User, service_account_groups},
};

/// Whom a caller may impersonate: the verb `impersonate` on these resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImpersonationRights {
    /// No one: any `Impersonate-User` is a 403.
    Nobody,
    /// Any user and group; uids and extras are a 403.
    UsersAndGroups,
    /// Any user, group, uid and extra.
    Everyone,
    /// As `impersonate:user-info` grants it (KEP-5284): users that are neither a service account nor a node, groups but
    /// `system:masters`, and extras whose keys have a domain.
    Constrained,
}

/// The user as whom a request is carried out.
///
/// The real server fails open on an empty user name: with no group, uid or extra beside it, the request runs as the
/// caller. So does this one, because a proxy must never rely on anything else.
pub(super) fn effective_user(
    caller: &User,
    rights: ImpersonationRights,
    headers: &HeaderMap,
) -> Result<User, Status> {
    let requested = Requested::read(headers)?;
    let Some(name) = requested.user else {
        if requested.groups.is_empty() && requested.uid.is_none() && requested.extra.is_empty() {
            return Ok(caller.clone());
        }
        return Err(Status::bad_request(
            "requested impersonation of groups, uid or extra without impersonating a user",
        ));
    };

    if rights == ImpersonationRights::Nobody {
        let service_account = name
            .strip_prefix(SERVICE_ACCOUNT_PREFIX)
            .and_then(|rest| rest.split_once(':'));
        return Err(match service_account {
            Some((_, account)) => Status::may_not_impersonate(caller, "serviceaccounts", account),
            None => Status::may_not_impersonate(caller, "users", &name),
        });
    }
    if rights == ImpersonationRights::Constrained {
        check_constrained(caller, &name, &requested.groups, &requested.extra)?;
    }
    if rights == ImpersonationRights::UsersAndGroups {
        if let Some(uid) = &requested.uid {
            return Err(Status::may_not_impersonate(caller, "uids", uid));
        }
        if let Some((key, values)) = requested.extra.first_key_value() {
            let value = values.first().map_or("", String::as_str);
            return Err(Status::may_not_impersonate(
                caller,
                &format!("userextras/{key}"),
                value,
            ));
        }
    }

    let mut groups = requested.groups;
    if groups.is_empty()
        && let Some((namespace, _)) = name
            .strip_prefix(SERVICE_ACCOUNT_PREFIX)
            .and_then(|rest| rest.split_once(':'))
    {
        groups.extend(service_account_groups(namespace));
    }
    let anonymous = name == "system:anonymous";
    let names_audience = groups
        .iter()
        .any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED);
    if !names_audience {
        let audience = if anonymous {
            UNAUTHENTICATED
        } else {
            AUTHENTICATED
        };
        groups.push(audience.to_owned());
    }
    Ok(User {
        name,
        uid: requested.uid.unwrap_or_default(),
        groups,
        extra: requested.extra,
    })
}

/// What the headers ask for.
struct Requested {
    user: Option<String>,
    uid: Option<String>,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Requested {
    fn read(headers: &HeaderMap) -> Result<Self, Status> {
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in headers {
            // `HeaderName` is lower case already, as the real server makes it.
            if let Some(key) = name.as_str().strip_prefix("impersonate-extra-") {
                extra.entry(unescape(key)).or_default().push(text(value)?);
            }
        }
        Ok(Self {
            // The first one counts, as with Go's `Header.Get`.
            user: first(headers, "impersonate-user")?,
            uid: first(headers, "impersonate-uid")?,
            groups: headers
                .get_all("impersonate-group")
                .iter()
                .map(text)
                .collect::<Result<_, _>>()?,
            extra,
        })
    }
}

/// What `impersonate:user-info` grants, whatever the names.
fn check_constrained(
    caller: &User,
    name: &str,
    groups: &[String],
    extra: &BTreeMap<String, Vec<String>>,
) -> Result<(), Status> {
    if name.starts_with(SERVICE_ACCOUNT_PREFIX) || name.starts_with("system:node:") {
        return Err(Status::may_not_impersonate(caller, "users", name));
    }
    if groups.iter().any(|group| group == "system:masters") {
        return Err(Status::may_not_impersonate(
            caller,
            "groups",
            "system:masters",
        ));
    }
    let has_domain = |key: &String| {
        key.split_once('/')
            .is_some_and(|(domain, path)| domain.contains('.') && !path.is_empty())
    };
    match extra.keys().find(|key| !has_domain(key)) {
        Some(key) => Err(Status::may_not_impersonate(
            caller,
            &format!("userextras/{key}"),
            "",
        )),
        None => Ok(()),
    }
}

fn first(headers: &HeaderMap, name: &str) -> Result<Option<String>, Status> {
    let value = headers.get(name).map(text).transpose()?;
    Ok(value.filter(|value| !value.is_empty()))
}

fn text(value: &HeaderValue) -> Result<String, Status> {
    String::from_utf8(value.as_bytes().to_vec())
        .map_err(|_| Status::bad_request("an impersonation header is not UTF-8"))
}

/// Percent-decoding that keeps the raw text when the result would not be UTF-8.
fn unescape(key: &str) -> String {
    percent_decode_str(key)
        .decode_utf8()
        .map_or_else(|_| key.to_owned(), |key| key.into_owned())
}

const UNAUTHENTICATED: &str = "system:unauthenticated";
