//! How many files the agent may have open: each tunnel, each connection to the API server and each shell is one.

/// As many as the agent's own limits could ever need, several times over. No more, since some systems refuse what is
/// above a limit of the kernel's that is not told here.
#[cfg(unix)]
const WANTED: u64 = 65_536;

/// Raises the soft limit, which shells set for the sake of programs from another time, as far as the hard one lets it.
/// Best effort: with few files the agent works too, for fewer callers.
#[cfg(unix)]
pub fn raise_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(WANTED, |maximum| maximum.min(WANTED));
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

#[cfg(not(unix))]
pub fn raise_limit() {}
