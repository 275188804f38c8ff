//! The record that a running proxy leaves, so that `status`, `credential` and `kubeconfig` find it: `<pid>.json` in a
//! directory that is the user's alone.
//!
//! ```json
//! {
//!   "pid": 4711, "startedAt": 1767225600, "address": "127.0.0.1:47011", "unixSocket": null,
//!   "certificateAuthority": "-----BEGIN CERTIFICATE-----…", "secret": "…",
//!   "clusters": [{ "id": "9f86d0…", "name": "till-7", "server": "https://127.0.0.1:47011/proxies/9f86d0…",
//!                  "context": "till-7", "resource": "/subscriptions/…" }]
//! }
//! ```
//!
//! The file is locked for as long as its program lives: the operating system lets go of the lock when the program ends,
//! however it ends, so that a record is never taken for that of another program with the same number.

use std::{
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    kubeconfig::{ProxyEndpoint, Secret},
};
use serde::{Deserialize, Serialize};

/// A record has a certificate and some hundred bytes for each of at most 256 clusters.
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// How many records are read. Nobody runs more proxies than this.
const MAX_RECORDS: usize = 1_000;

/// What a running proxy tells other programs of its user. Holds the secret of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    pub pid: u32,
    /// Seconds since 1970.
    pub started_at: u64,
    pub address: SocketAddr,
    #[serde(default)]
    pub unix_socket: Option<PathBuf>,
    /// PEM.
    pub certificate_authority: String,
    pub secret: Secret,
    #[serde(default)]
    pub clusters: Vec<RunningCluster>,
}

/// One cluster behind a running proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunningCluster {
    /// Its id in the endpoint's path.
    pub id: String,
    /// What a person calls it.
    pub name: String,
    pub server: String,
    /// The context in a kubeconfig, where one was written.
    pub context: Option<String>,
    /// Its id in Azure, where it has one.
    pub resource: Option<String>,
}

/// Removes the record when it is dropped.
#[must_use = "the record is gone when this is dropped"]
#[derive(Debug)]
pub struct Announcement {
    path: PathBuf,
    /// Holds the lock.
    file: File,
}

impl Running {
    /// What there is to tell of this process's proxy at `address`. `endpoint` is any of its clusters.
    pub fn this_process(address: SocketAddr, endpoint: &ProxyEndpoint) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            pid: std::process::id(),
            started_at: now.map_or(0, |since| since.as_secs()),
            address,
            unix_socket: None,
            certificate_authority: endpoint.certificate_authority_pem().to_owned(),
            secret: Secret::new(endpoint.secret()),
            clusters: Vec::new(),
        }
    }

    #[must_use]
    pub fn with_cluster(mut self, cluster: RunningCluster) -> Self {
        self.clusters.push(cluster);
        self
    }

    /// Writes the record. Another record of this process is replaced.
    ///
    /// # Errors
    /// [`ErrorKind::File`] when there is no directory that belongs to the user alone, or it is not writable.
    pub fn announce(&self) -> Result<Announcement> {
        self.announce_in(&directory()?)
    }

    /// Every proxy of this user that runs, the oldest first. Records that programs left behind which were killed are
    /// removed; what another user put there, or others can read, is left out.
    ///
    /// # Errors
    /// [`ErrorKind::File`] when the directory can not be read. One that is not there is no error.
    pub fn list() -> Result<Vec<Self>> {
        Self::list_in(&directory()?)
    }

    fn announce_in(&self, directory: &Path) -> Result<Announcement> {
        let path = directory.join(format!("{}.json", self.pid));
        let failed = |error: io::Error| {
            Error::new(
                ErrorKind::File,
                format!("can not leave a record of this proxy at {}", path.display()),
            )
            .with_source(error)
            .with_help("`arc-connect status` will not see it; check the directory's owner and mode")
        };
        create_private(directory).map_err(failed)?;
        // Mode 0600 by construction, and only whole when it has its name.
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        let json = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        file.write_all(&json).map_err(failed)?;
        lock(file.as_file()).map_err(failed)?;
        let file = file.persist(&path).map_err(|error| failed(error.error))?;
        Ok(Announcement { path, file })
    }

    fn list_in(directory: &Path) -> Result<Vec<Self>> {
        let failed = |error: io::Error| {
            Error::new(
                ErrorKind::File,
                format!(
                    "can not look for running proxies in {}",
                    directory.display()
                ),
            )
            .with_source(error)
        };
        let metadata = match fs::symlink_metadata(directory) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        if !metadata.is_dir() || !owner::is_private(&metadata) {
            return Err(failed(not_ours()));
        }
        let mut found: Vec<Self> = fs::read_dir(directory)
            .map_err(failed)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| pid_of(path).is_some())
            .take(MAX_RECORDS)
            .filter_map(|path| read(&path))
            .collect();
        found.sort_by_key(|running| (running.started_at, running.pid));
        Ok(found)
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // A later announcement of this process may stand there.
        if owner::is_same_file(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The record at `path`, if whoever wrote it is this user and still runs.
fn read(path: &Path) -> Option<Running> {
    let named = fs::symlink_metadata(path).ok()?;
    // Opening something else, as a pipe, might block.
    if !named.is_file() || !owner::is_private(&named) {
        return None;
    }
    let file = OpenOptions::new().read(true).open(path).ok()?;
    if !owner::is_same_file(&file, path) {
        return None;
    }
    let mut json = Vec::new();
    (&file).take(MAX_RECORD_BYTES).read_to_end(&mut json).ok()?;
    let running = serde_json::from_slice::<Running>(&json).ok();
    if is_alive(&file, running.as_ref()) {
        return running.filter(|running| Some(running.pid) == pid_of(path));
    }
    // A new program of the same number may just have put its own there.
    if owner::is_same_file(&file, path) {
        let _ = fs::remove_file(path);
    }
    None
}

fn pid_of(path: &Path) -> Option<u32> {
    if path.extension()? != "json" {
        return None;
    }
    path.file_stem()?.to_str()?.parse().ok()
}

#[cfg(unix)]
fn lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(io::Error::from)
}

/// A shared lock, so that two readers do not take each other for the writer.
#[cfg(unix)]
fn is_alive(file: &File, _: Option<&Running>) -> bool {
    match file.try_lock_shared() {
        Ok(()) => false,
        Err(TryLockError::WouldBlock) => true,
        // A file system without locks.
        Err(TryLockError::Error(_)) => true,
    }
}

/// A locked file can not be read on Windows: there the port tells.
#[cfg(not(unix))]
fn lock(_: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn is_alive(_: &File, running: Option<&Running>) -> bool {
    use std::{net::TcpStream, time::Duration};

    // A loopback port at which nobody listens refuses at once.
    const LIMIT: Duration = Duration::from_millis(200);
    running.is_some_and(|running| {
        TcpStream::connect_timeout(&running.address, LIMIT).map_or_else(
            |error| error.kind() != io::ErrorKind::ConnectionRefused,
            |_| true,
        )
    })
}

fn directory() -> Result<PathBuf> {
    place(|name| env::var_os(name), env::home_dir()).ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidInput,
            "there is no directory for the records of running proxies",
        )
        .with_help("set HOME or XDG_RUNTIME_DIR")
    })
}

/// The directory of records, from the environment. Relative paths in it count as not set, as the XDG specification has
/// it.
fn place(variable: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let home = || home.filter(|home| home.is_absolute());
    let base = if cfg!(windows) {
        absolute("LOCALAPPDATA").or_else(|| Some(home()?.join("AppData").join("Local")))
    } else if cfg!(target_os = "macos") {
        absolute("XDG_RUNTIME_DIR").or_else(|| Some(home()?.join("Library").join("Caches")))
    } else {
        absolute("XDG_RUNTIME_DIR")
            .or_else(|| absolute("XDG_CACHE_HOME"))
            .or_else(|| Some(home()?.join(".cache")))
    };
    Some(base?.join("arc-connect"))
}

/// Makes the directory, or takes from everybody else what the user's own umask gave them.
fn create_private(directory: &Path) -> io::Result<()> {
    owner::create_directory(directory)?;
    let metadata = fs::symlink_metadata(directory)?;
    if !metadata.is_dir() {
        return Err(not_ours());
    }
    if !owner::is_private(&metadata) {
        owner::make_private(directory)?;
    }
    if owner::is_private(&fs::symlink_metadata(directory)?) {
        Ok(())
    } else {
        Err(not_ours())
    }
}

fn not_ours() -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        "the directory is not this user's alone (mode 0700)",
    )
}

#[cfg(unix)]
mod owner {
    use std::{
        fs::{self, DirBuilder, File, Metadata, Permissions},
        io,
        os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
        path::Path,
    };

    /// Whether it is ours, and nobody else may do anything with it.
    pub fn is_private(metadata: &Metadata) -> bool {
        belongs_to(metadata, rustix::process::geteuid().as_raw())
    }

    pub fn belongs_to(metadata: &Metadata, user: u32) -> bool {
        metadata.uid() == user && metadata.mode() & 0o077 == 0
    }

    pub fn is_same_file(file: &File, path: &Path) -> bool {
        let (Ok(open), Ok(named)) = (file.metadata(), fs::symlink_metadata(path)) else {
            return false;
        };
        (open.dev(), open.ino()) == (named.dev(), named.ino())
    }

    pub fn create_directory(path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    /// Fails for another user's.
    pub fn make_private(path: &Path) -> io::Result<()> {
        fs::set_permissions(path, Permissions::from_mode(0o700))
    }
}

/// The user's own directories are the user's alone by inheritance.
#[cfg(not(unix))]
mod owner {
    use std::{
        fs::{self, File, Metadata},
        io,
        path::Path,
    };

    pub fn is_private(_: &Metadata) -> bool {
        true
    }

    pub fn is_same_file(_: &File, path: &Path) -> bool {
        path.exists()
    }

    pub fn create_directory(path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    pub fn make_private(_: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
