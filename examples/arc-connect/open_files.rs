//! How many files the process may have open.

/// Raises the soft limit to the hard one. Each watch over HTTP/1.1 is a connection, a dashboard has hundreds, and the usual
/// soft limit of 1024 is for programs that use `select`.
#[cfg(unix)]
pub fn raise_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    /// What macOS grants to a process whose hard limit is "infinity".
    const GRANTED: u64 = 10_240;

    let limit = getrlimit(Resource::Nofile);
    let try_to_set = |current| {
        let limit = Rlimit {
            current,
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, limit).is_ok()
    };
    if limit.current == limit.maximum || limit.current.is_none() {
        return;
    }
    let is_raised = try_to_set(limit.maximum)
        || (limit.current.is_some_and(|current| current < GRANTED) && try_to_set(Some(GRANTED)));
    if !is_raised {
        tracing::debug!("the limit of open files stays at {:?}", limit.current);
    }
}

/// There is no such limit.
#[cfg(not(unix))]
pub fn raise_limit() {}
