//! [`Lock`]: kubectl's way of keeping two writers of a kubeconfig apart.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{Error, ErrorKind, Result};

/// How long to wait for another writer. kubectl holds the lock for milliseconds and does not wait at all; whoever
/// holds it for longer has died.
pub(super) const LOCK_LIMIT: Duration = Duration::from_secs(3);

/// How often to try. There is nothing to wait on: the protocol knows only whether a file exists.
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// A file beside the kubeconfig, named `<kubeconfig>.lock`, that exists while somebody writes. Whoever creates it has
/// the lock; it holds nothing, and is removed on drop.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
}

impl Lock {
    /// Takes the lock for the kubeconfig at `path`, waiting at most `limit`. Blocks the thread.
    pub(super) fn take(path: &Path, limit: Duration) -> Result<Self> {
        let path = lock_path(path);
        let deadline = Instant::now() + limit;
        loop {
            match create(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if is_held(&path, &error) => {
                    if Instant::now() >= deadline {
                        return Err(held_for_too_long(&path));
                    }
                    std::thread::sleep(LOCK_RETRY.min(limit));
                }
                Err(error) => return Err(not_creatable(&path, error)),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "can not remove the kubeconfig's lock file");
        }
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

fn create(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

fn is_held(path: &Path, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AlreadyExists
        // Windows denies access to a file of which the removal is under way.
        || (cfg!(windows) && error.kind() == io::ErrorKind::PermissionDenied && path.exists())
}

fn held_for_too_long(path: &Path) -> Error {
    let age = path
        .metadata()
        .and_then(|metadata| metadata.modified())
        .ok()
        .and_then(|modified| modified.elapsed().ok())
        .map(|age| format!(" since {} s", age.as_secs()))
        .unwrap_or_default();
    Error::new(
        ErrorKind::File,
        format!(
            "the kubeconfig is locked by another program{age}: {} exists",
            path.display()
        ),
    )
    .with_help(format!(
        "if no kubectl or other Kubernetes tool is running, the lock was left behind by one that died: \
         delete {}",
        path.display()
    ))
}

fn not_creatable(path: &Path, error: io::Error) -> Error {
    Error::new(
        ErrorKind::File,
        format!(
            "can not create the kubeconfig's lock file {}",
            path.display()
        ),
    )
    .with_source(error)
    .with_help("check that you may write to its directory, or give another file with -f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_kubectls_file_and_goes_away() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config");
        let expected = directory.path().join("config.lock");
        let lock = Lock::take(&config, LOCK_LIMIT).unwrap();
        assert!(expected.exists());
        drop(lock);
        assert!(!expected.exists());
    }

    #[test]
    fn a_held_lock_is_waited_for_up_to_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config");
        let lock = Lock::take(&config, LOCK_LIMIT).unwrap();
        let error = Lock::take(&config, Duration::from_millis(50)).expect_err("held");
        assert_eq!(error.kind(), ErrorKind::File);
        assert!(error.to_string().contains("config.lock exists"), "{error}");
        assert!(error.help().unwrap().contains("delete "));
        assert!(directory.path().join("config.lock").exists());

        let waiting =
            std::thread::spawn(move || Lock::take(&config, Duration::from_secs(60)).map(drop));
        drop(lock);
        waiting.join().unwrap().unwrap();
    }

    #[test]
    fn a_directory_that_is_not_there() {
        let error = Lock::take(Path::new("/nonexistent/config"), LOCK_LIMIT).expect_err("nowhere");
        assert!(error.to_string().contains("can not create"), "{error}");
    }
}
