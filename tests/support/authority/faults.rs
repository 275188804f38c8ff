//! [`Fault`]: how the authority fails.

use std::time::Duration;

/// What is wrong with every answer until it is put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 503.
    Down,
    /// Connections are closed without an answer.
    Gone,
    /// Answers take this much longer.
    Slow(Duration),
    /// Discovery names another issuer than the one that was asked.
    WrongIssuer,
    /// Discovery names keys at another host.
    ForeignKeys,
    /// The key set has no key.
    NoKeys,
    /// The key set and discovery are no JSON.
    Garbage,
    /// Graph and Arc's endpoint refuse (403); keys and discovery are well.
    GroupsRefused,
    /// Every body is endless.
    Endless,
}
