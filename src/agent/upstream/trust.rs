//! [`Trust`]: whom the agent takes for the API server, by certificates that are given or in a file.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{Error, ErrorKind, Result, net::TrustRoots};

/// The largest CA file that is read. A bundle of every public authority has some 250 KiB.
const MAX_FILE: u64 = 1024 * 1024;
/// How long a new connection waits for the CA file. It may lie on a network mount, which can hang for ever.
const READ_LIMIT: Duration = Duration::from_secs(1);

/// The certificate authorities of the API server.
#[derive(Clone, Debug)]
pub(in crate::agent) struct Trust {
    roots: TrustRoots,
    source: Option<Source>,
}

/// The file that roots came from, as it was then.
#[derive(Clone, Debug)]
struct Source {
    path: PathBuf,
    pem: Arc<[u8]>,
}

impl Trust {
    /// The roots in a PEM file, now and whenever it has changed.
    ///
    /// # Errors
    /// [`ErrorKind::File`] when the file can not be read, [`ErrorKind::InvalidInput`] when it has no usable
    /// certificates; the text names the file.
    pub(in crate::agent) fn file(path: &Path) -> Result<Self> {
        let pem = read(path)?;
        Ok(Self {
            roots: parse(path, &pem)?,
            source: Some(Source {
                path: path.to_owned(),
                pem: pem.into(),
            }),
        })
    }

    pub(super) fn roots(&self) -> &TrustRoots {
        &self.roots
    }

    pub(super) fn trust_file(&self) -> Option<TrustFile> {
        let Source { path, pem } = self.source.clone()?;
        Some(TrustFile {
            path,
            seen: Mutex::new(Seen { pem, warned: false }),
            reading: Arc::default(),
        })
    }
}

impl From<TrustRoots> for Trust {
    fn from(roots: TrustRoots) -> Self {
        Self {
            roots,
            source: None,
        }
    }
}

/// A CA file that is read again before each new connection.
///
/// Contents are compared, not times: connections are few, the file is small, and Kubernetes replaces the directory
/// around it.
pub(super) struct TrustFile {
    path: PathBuf,
    seen: Mutex<Seen>,
    /// Held while the file is read: while a mount hangs, one thread hangs with it, and not one for each connection.
    reading: Arc<tokio::sync::Mutex<()>>,
}

struct Seen {
    /// What was last read, good or not.
    pem: Arc<[u8]>,
    /// Whether the log has been told that the file is unusable. Once per outage is enough.
    warned: bool,
}

impl TrustFile {
    /// Reads the file, and gives its roots to `apply` if they are not the last ones. Whatever fails is logged and
    /// leaves everything as it was.
    pub(super) async fn refresh(&self, apply: impl FnOnce(TrustRoots) -> Result<()>) {
        let reading = Arc::clone(&self.reading).lock_owned();
        // The old roots will do, or the connection fails and says why.
        let Ok(guard) = tokio::time::timeout(READ_LIMIT, reading).await else {
            return;
        };
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || (read(&path), guard));
        // Held to the end: who waited for this look shall find its result.
        let (pem, _guard) = match tokio::time::timeout(READ_LIMIT, read).await {
            Ok(Ok((pem, guard))) => (pem, Some(guard)),
            Ok(Err(panicked)) => (
                Err(unreadable(&self.path, io::Error::other(panicked))),
                None,
            ),
            Err(_) => (
                Err(unreadable(&self.path, io::ErrorKind::TimedOut.into())),
                None,
            ),
        };
        let changed = pem.and_then(|pem| {
            if !self.is_new(&pem) {
                return Ok(false);
            }
            apply(parse(&self.path, &pem)?)?;
            Ok(true)
        });
        self.log(changed);
    }

    fn is_new(&self, pem: &[u8]) -> bool {
        let mut seen = self.seen();
        let new = *seen.pem != *pem;
        if new {
            seen.pem = pem.into();
        }
        new
    }

    fn log(&self, changed: Result<bool>) {
        let mut seen = self.seen();
        match changed {
            Ok(false) => {}
            Ok(true) => {
                seen.warned = false;
                tracing::info!(
                    path = %self.path.display(),
                    "the API server's CA file has changed: new connections use it"
                );
            }
            Err(error) if !seen.warned => {
                seen.warned = true;
                tracing::warn!(
                    error = error.report(),
                    "the API server's CA file is not usable; the last good one stays in use"
                );
            }
            Err(_) => {}
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // No code panics while it holds the lock half-way through a change.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let read = || {
        let mut pem = Vec::new();
        File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut pem)?;
        if pem.len() as u64 > MAX_FILE {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(pem)
    };
    read().map_err(|error| unreadable(path, error))
}

fn parse(path: &Path, pem: &[u8]) -> Result<TrustRoots> {
    TrustRoots::only_pem(pem).map_err(|error| {
        Error::new(
            ErrorKind::InvalidInput,
            format!("the CA file {} is not usable", path.display()),
        )
        .with_source(error)
    })
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::new(
        ErrorKind::File,
        format!("can not read the CA file {}", path.display()),
    )
    .with_source(error)
}
