//! Adding our entries to a kubeconfig and taking them out again. Pure: no file is touched.
//!
//! A name counts once in a kubeconfig, and the first entry of a name wins; so an entry of ours replaces the first one
//! of its name, in its place, and is appended when there is none. Only what is ours is ever replaced: see
//! [`find_collision`].

use super::{Cluster, Context, Kubeconfig, NamedContext, User, marker};
use crate::{Error, ErrorKind, Result};

/// The member of a user that names a credential plugin.
const EXEC: &str = "exec";

/// Whether a merge makes the added context the one that tools use by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CurrentContext {
    /// Only when no context is current.
    #[default]
    KeepIfSet,
    /// Always.
    Switch,
}

/// What a merge made.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) kubeconfig: Kubeconfig,
    /// Whether entries of an earlier run were replaced: that run ended without taking them out, or still goes on.
    pub(super) replaced: bool,
}

/// `base` with the entries of `addition`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when `base` has an entry of the same name that is not ours.
pub(super) fn merge(
    base: &Kubeconfig,
    addition: &Kubeconfig,
    current_context: CurrentContext,
) -> Result<Merged> {
    refuse_collision(base, addition, "the kubeconfig")?;
    let mut merged = base.clone();
    let mut replaced = false;
    replaced |= put(&mut merged.clusters, &addition.clusters, |entry| {
        &entry.name
    });
    replaced |= put(&mut merged.users, &addition.users, |entry| &entry.name);
    replaced |= put(&mut merged.contexts, &addition.contexts, |entry| {
        &entry.name
    });
    if merged.current_context.is_empty() || current_context == CurrentContext::Switch {
        addition
            .current_context
            .clone_into(&mut merged.current_context);
    }
    // A file that we fill is a complete one; what stands in an existing file stays.
    if *base == Kubeconfig::default() {
        merged.api_version.clone_from(&addition.api_version);
        merged.kind.clone_from(&addition.kind);
    }
    Ok(Merged {
        kubeconfig: merged,
        replaced,
    })
}

/// `present` without the entries of `addition`, as far as they are still as we made them.
///
/// A context goes together with its cluster and user, or not at all: when another run has put its own server or
/// secret under the same name, all three are that run's. If the removed context is current, `earlier_context` becomes
/// current again if it still exists, else none is.
pub(super) fn remove(
    present: &Kubeconfig,
    addition: &Kubeconfig,
    earlier_context: &str,
) -> Kubeconfig {
    let mut kept = present.clone();
    for added in &addition.contexts {
        let (cluster, user) = (&added.context.cluster, &added.context.user);
        if !is_as_added(present, addition, &added.context) {
            continue;
        }
        // First entries only: later ones of the same name are not ours.
        take(&mut kept.clusters, |entry| entry.name == *cluster);
        take(&mut kept.users, |entry| entry.name == *user);
        let Some(context) = present.context(&added.name) else {
            continue;
        };
        if !refers_to_same(context, &added.context) {
            continue;
        }
        // The file knows better: another run that has left meanwhile may have changed what comes after us.
        let earlier = kept
            .context(&added.name)
            .and_then(|context| marker::earlier_context(&context.other))
            .unwrap_or(earlier_context)
            .to_owned();
        take(&mut kept.contexts, |entry| entry.name == added.name);
        for entry in &mut kept.contexts {
            if marker::earlier_context(&entry.context.other) == Some(&added.name) {
                marker::set_earlier_context(&mut entry.context.other, &earlier);
            }
        }
        if kept.current_context == added.name {
            kept.current_context = match kept.context(&earlier) {
                Some(_) => earlier,
                None => String::new(),
            };
        }
    }
    kept
}

/// Refuses an entry of `base` that has the name of one in `addition` and is not ours. `place` is what the error calls
/// `base`.
pub(super) fn refuse_collision(
    base: &Kubeconfig,
    addition: &Kubeconfig,
    place: &str,
) -> Result<()> {
    let Some((what, name)) = find_collision(base, addition) else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("{place} already has a {what} '{name}' that is not ours"),
    )
    .with_help("choose another name with --kube-context, or another file with -f"))
}

/// The context to go back to when the entries of `addition`, merged into `base`, are taken out again.
pub(super) fn earlier_context<'a>(base: &'a Kubeconfig, addition: &Kubeconfig) -> &'a str {
    let current = base.current_context.as_str();
    if !addition.contexts.iter().any(|entry| entry.name == current) {
        return current;
    }
    // An earlier run's entry of the same name, current since: what that one would have gone back to.
    base.context(current)
        .and_then(|context| marker::earlier_context(&context.other))
        .unwrap_or(current)
}

/// Whether nothing that somebody could miss is in `kubeconfig`.
pub(super) fn is_empty(kubeconfig: &Kubeconfig) -> bool {
    kubeconfig.clusters.is_empty()
        && kubeconfig.users.is_empty()
        && kubeconfig.contexts.is_empty()
        && kubeconfig.current_context.is_empty()
        // kubectl adds an empty `preferences` to whatever it writes.
        && kubeconfig.other.names().all(|name| name == "preferences")
}

/// Whether nobody gains anything by reading the entries of `kubeconfig`, which is one that we have made.
pub(super) fn holds_no_secret(kubeconfig: &Kubeconfig) -> bool {
    let mut users = kubeconfig.users.iter().map(|entry| &entry.user);
    users.all(|user| {
        user.token.is_none() && user.client_key_data.is_none() && user.password.is_none()
    })
}

/// Whether a loopback endpoint of ours is in `kubeconfig`, of whichever run.
pub(super) fn has_endpoints(kubeconfig: &Kubeconfig) -> bool {
    let mut clusters = kubeconfig.clusters.iter();
    clusters.any(|entry| is_our_cluster(&entry.cluster))
}

/// The first entry of `base` that has the name of one in `addition` and is not ours.
///
/// A cluster is ours when its server is a loopback endpoint of this crate (or of Azure's own client, which has the
/// same form). A context is ours when its cluster is. A user is ours when it has our mark, or has nothing but a token,
/// and contexts refer to it, all of them ours.
fn find_collision<'a>(
    base: &Kubeconfig,
    addition: &'a Kubeconfig,
) -> Option<(&'static str, &'a str)> {
    let cluster = addition.clusters.iter().find(|entry| {
        base.cluster(&entry.name)
            .is_some_and(|cluster| !is_our_cluster(cluster))
    });
    if let Some(entry) = cluster {
        return Some(("cluster", &entry.name));
    }
    let context = addition.contexts.iter().find(|entry| {
        base.context(&entry.name)
            .is_some_and(|context| !is_our_context(base, context))
    });
    if let Some(entry) = context {
        return Some(("context", &entry.name));
    }
    let user = addition.users.iter().find(|entry| {
        base.user(&entry.name)
            .is_some_and(|user| !is_our_user(base, &entry.name, user))
    });
    user.map(|entry| ("user", entry.name.as_str()))
}

fn is_our_cluster(cluster: &Cluster) -> bool {
    marker::port(cluster).is_some()
}

fn is_our_context(base: &Kubeconfig, context: &Context) -> bool {
    base.cluster(&context.cluster).is_some_and(is_our_cluster)
}

fn is_our_user(base: &Kubeconfig, name: &str, user: &User) -> bool {
    let token_only = User {
        token: user.token.clone(),
        ..User::default()
    };
    let mut contexts = base
        .contexts
        .iter()
        .filter(|entry| entry.context.user == name)
        .peekable();
    let is_token_only = user.token.is_some() && *user == token_only;
    (is_token_only || marker::is_marked(&user.other))
        && contexts.peek().is_some()
        && contexts.all(|NamedContext { context, .. }| is_our_context(base, context))
}

/// Whether cluster and user of the added `context` are as we made them, or gone.
fn is_as_added(present: &Kubeconfig, addition: &Kubeconfig, context: &Context) -> bool {
    let same_server = match (
        present.cluster(&context.cluster),
        addition.cluster(&context.cluster),
    ) {
        // Each run has a certificate of its own: that tells runs apart when no token does.
        (Some(now), Some(then)) => {
            now.server == then.server
                && now.certificate_authority_data == then.certificate_authority_data
        }
        (now, _) => now.is_none(),
    };
    let same_token = match (present.user(&context.user), addition.user(&context.user)) {
        (Some(now), Some(then)) => {
            now.token == then.token && now.other.get(EXEC) == then.other.get(EXEC)
        }
        (now, _) => now.is_none(),
    };
    same_server && same_token
}

fn refers_to_same(now: &Context, then: &Context) -> bool {
    now.cluster == then.cluster && now.user == then.user
}

/// Puts `additions` into `entries` by name. Whether one was replaced.
fn put<T: Clone>(entries: &mut Vec<T>, additions: &[T], name: impl Fn(&T) -> &String) -> bool {
    let mut replaced = false;
    for addition in additions {
        match entries
            .iter_mut()
            .find(|entry| name(entry) == name(addition))
        {
            Some(entry) => {
                *entry = addition.clone();
                replaced = true;
            }
            None => entries.push(addition.clone()),
        }
    }
    replaced
}

fn take<T>(entries: &mut Vec<T>, is_it: impl Fn(&T) -> bool) {
    if let Some(index) = entries.iter().position(is_it) {
        entries.remove(index);
    }
}

#[cfg(test)]
mod tests;
