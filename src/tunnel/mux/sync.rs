//! The locks of a session: the standard library's, or those of loom, which tries every order in which they may be taken
//! (`tests/loom`).

#[cfg(loom)]
pub(super) use loom::sync::Mutex;
#[cfg(not(loom))]
pub(super) use std::sync::Mutex;
