//! Commands in a pod: real processes, with the pod's directory as their root as far as that goes without privileges.

use std::{io, path::Path, process::Stdio};

use tokio::process::{Child, Command};

/// Starts a command in a pod.
///
/// Programs are this machine's. There is no chroot: an argument that is an absolute path is made relative to the
/// pod's directory, which is what `tar`, `cat`, `test` and `ls` need; a path *inside* a shell script is left alone.
pub(super) fn spawn(
    arguments: &[String],
    directory: &Path,
    pod: &str,
    stdin: Stdio,
    runs: Runs,
) -> io::Result<Child> {
    let (program, rest) = arguments
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no command was given"))?;
    let mut command = Command::new(program);
    if is_shell(program) {
        if runs == Runs::OnTerminal && rest.is_empty() {
            // Without a terminal of the system a shell does not know that somebody talks to it.
            command.arg("-i");
        }
        command.args(rest);
    } else {
        command.args(rest.iter().map(|argument| in_pod(argument)));
    }
    command
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", directory)
        .env("HOSTNAME", pod)
        .env("TMPDIR", directory.join("tmp"))
        .env("PS1", "$ ")
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// What a command talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runs {
    /// Pipes.
    OnPipes,
    /// Somebody's terminal.
    OnTerminal,
}

fn is_shell(program: &str) -> bool {
    let name = Path::new(program).file_name();
    name.is_some_and(|name| name == "sh" || name == "bash")
}

fn in_pod(argument: &str) -> &str {
    match argument.trim_start_matches('/') {
        "" if argument.starts_with('/') => ".",
        relative => relative,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_stay_in_the_pod() {
        let paths = ["/", "/tmp/x", "tmp/x", "-", "", "-C"].map(in_pod);
        assert_eq!(paths, [".", "tmp/x", "tmp/x", "-", "", "-C"]);
        assert!(is_shell("/bin/sh") && is_shell("bash") && !is_shell("tar"));
    }
}
