//! [`Command`]: runs `az` and `azd` for `azure_identity`.

use std::{
    ffi::{OsStr, OsString},
    io,
    process::{Output, Stdio},
};

use async_trait::async_trait;
use azure_identity::Executor;

/// Runs a program, and ends it when nobody waits any more. The library puts a shell around the tool, and it is the shell
/// that is ended: the tool below it runs to its own end, and finds nobody who reads.
#[derive(Debug, Default)]
pub(super) struct Command {
    /// Where programs are looked for; as the process has it unless set.
    path: Option<OsString>,
}

impl Command {
    #[cfg(test)]
    pub(super) fn with_path(path: impl Into<OsString>) -> Self {
        Self {
            path: Some(path.into()),
        }
    }
}

#[async_trait]
impl Executor for Command {
    async fn run(&self, program: &OsStr, args: &[&OsStr]) -> io::Result<Output> {
        let mut command = tokio::process::Command::new(program);
        command.args(args).stdin(Stdio::null()).kill_on_drop(true);
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        command.output().await
    }
}
