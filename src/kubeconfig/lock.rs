//! [`Lock`]: kubectl's way of keeping two writers of a kubeconfig apart.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{Error, ErrorKind, Result};

/// How long to wait for another writer. kubectl holds the lock for milliseconds and does not wait at all; whoever
/// holds it for longer has died.
pub(super) const LOCK_LIMIT: Duration = Duration::from_secs(3);

/// How often to try. There is nothing to wait on: the protocol knows only whether a file exists.
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// What stands in a lock file of ours; kubectl's is empty, and it looks at nobody's.
const MARK: &[u8] = b"arc-cluster-connect\n";

/// A file beside the kubeconfig, named `<kubeconfig>.lock`, that exists while somebody writes. Whoever creates it has
/// the lock; it is removed on drop.
///
/// One that a killed process of ours left behind is taken over: the operating system's lock, which we hold on the file
/// besides, ended with that process.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    /// Open as long as the lock is held: the operating system's lock lasts as long.
    _file: File,
}

impl Lock {
    /// Takes the lock for the kubeconfig at `path`, waiting at most `limit`. Blocks the thread.
    pub(super) fn take(path: &Path, limit: Duration) -> Result<Self> {
        let path = lock_path(path);
        let deadline = Instant::now() + limit;
        loop {
            let error = match create(&path) {
                Ok(file) => return Ok(Self { path, _file: file }),
                Err(error) => error,
            };
            if !is_held(&path, &error) {
                return Err(not_creatable(&path, error));
            }
            if let Some(file) = take_over(&path) {
                tracing::info!(path = %path.display(), "took over the kubeconfig's lock from a process that was killed");
                return Ok(Self { path, _file: file });
            }
            if Instant::now() >= deadline {
                return Err(held_for_too_long(&path));
            }
            std::thread::sleep(LOCK_RETRY.min(limit));
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

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    // Marked only once it is locked, so that nobody takes over a lock that is held. Where either can not be had, the
    // lock is as good as kubectl's.
    if file.try_lock().is_ok() {
        let _ = file.write_all(MARK);
    }
    Ok(file)
}

/// The lock file of a process of ours that has ended.
#[cfg(unix)]
fn take_over(path: &Path) -> Option<File> {
    use std::{io::Read, os::unix::fs::MetadataExt};

    // Opening something else, as a pipe, might block.
    if !fs::symlink_metadata(path).ok()?.is_file() {
        return None;
    }
    let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
    let mut content = Vec::new();
    (&file)
        .take(MARK.len() as u64 + 1)
        .read_to_end(&mut content)
        .ok()?;
    if content != MARK || file.try_lock().is_err() {
        return None;
    }
    // A holder removes the file before it lets go of the operating system's lock, and another may have come since.
    let (locked, named) = (file.metadata().ok()?, fs::symlink_metadata(path).ok()?);
    ((locked.dev(), locked.ino()) == (named.dev(), named.ino())).then_some(file)
}

/// Windows does not let us look into a locked file, nor tell files apart.
#[cfg(not(unix))]
fn take_over(_: &Path) -> Option<File> {
    None
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

    #[cfg(unix)]
    #[test]
    fn a_lock_of_ours_whose_holder_died_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config");
        let path = directory.path().join("config.lock");
        fs::write(&path, MARK).unwrap();
        let lock = Lock::take(&config, Duration::ZERO).unwrap();
        Lock::take(&config, Duration::ZERO).expect_err("it is held again");
        drop(lock);
        assert!(!path.exists());
        // Anybody else's stays.
        for content in [&b""[..], b"arc-cluster-connect\nx", b"7"] {
            fs::write(&path, content).unwrap();
            Lock::take(&config, Duration::ZERO).expect_err("not ours");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[cfg(unix)]
    #[test]
    fn many_heirs_get_the_lock_one_after_the_other() {
        use std::sync::atomic::{AtomicUsize, Ordering};

        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config");
        fs::write(directory.path().join("config.lock"), MARK).unwrap();
        let holders = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let lock = Lock::take(&config, Duration::from_secs(60)).unwrap();
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                        holders.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
    }

    #[test]
    fn a_directory_that_is_not_there() {
        let error = Lock::take(Path::new("/nonexistent/config"), LOCK_LIMIT).expect_err("nowhere");
        assert!(error.to_string().contains("can not create"), "{error}");
    }
}
