//! How many files a process here may have open: thousands of sockets.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Best effort: [`available`] tells what came of it.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
}

pub fn available() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    usize::try_from(limit).unwrap_or(usize::MAX)
}
