//! [`KubeconfigFile`]: our entries in a kubeconfig file, for as long as the proxy runs.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use super::{
    CurrentContext, Kubeconfig,
    location::Environment,
    lock::{LOCK_LIMIT, Lock},
    merge, model, replace,
};
use crate::{Error, ErrorKind, Result, crypto};

/// A kubeconfig file, which need not exist yet.
///
/// Every change happens under kubectl's own lock (`<file>.lock`) and replaces the file as a whole: another tool, and a
/// machine that loses power, see the old file or the new one. Symbolic links stay links. A file that is made here has
/// mode 0600. From an existing one, the rights of group and others are taken while our token is in it, and given back
/// by [`MergeReceipt::undo`].
///
/// A merged file is written anew, as kubectl does it: entries and members that are not known here stay, comments and
/// layout do not. [`MergeReceipt::undo`] brings back the original file with its comments, byte for byte, when nobody
/// else changed it meanwhile.
///
/// All methods block: up to three seconds for the lock, and for the disk. In asynchronous code call them through
/// `spawn_blocking`.
///
/// ```
/// use arc_cluster_connect::kubeconfig::{
///     CurrentContext, KubeconfigBuilder, KubeconfigFile, ProxyEndpoint, TokenKubeconfig,
/// };
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("config");
/// let endpoint = ProxyEndpoint::new("https://127.0.0.1:47011/proxies/ab12", "PEM", "secret".into());
/// let ours = TokenKubeconfig::new("till-7").build(&endpoint)?;
/// let file = KubeconfigFile::at(&path);
/// let receipt = file.merge(&ours, CurrentContext::Switch)?;
/// assert_eq!(file.read()?.current_context, "till-7");
/// receipt.undo()?;
/// assert!(!path.exists());
/// # Ok::<(), arc_cluster_connect::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct KubeconfigFile {
    path: PathBuf,
    lock_limit: Duration,
}

impl KubeconfigFile {
    /// The file at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            // What is undone at the end must be the same file, even if the current directory changes.
            path: std::path::absolute(&path).unwrap_or(path),
            lock_limit: LOCK_LIMIT,
        }
    }

    /// The file that `kubectl` would put a new context into: of the list in `KUBECONFIG` the first one that exists and
    /// is not read-only, else its last one; `~/.kube/config` without that variable.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when `KUBECONFIG` is not set and there is no home directory.
    pub fn default_location() -> Result<Self> {
        Environment::of_the_process().file().map(Self::at)
    }

    /// The path, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file.
    ///
    /// # Errors
    /// As [`Kubeconfig::read`].
    pub fn read(&self) -> Result<Kubeconfig> {
        Kubeconfig::read(&self.path)
    }

    /// Adds the entries of `addition`, which takes the place of entries that an earlier run left behind.
    ///
    /// The file and its directory are created when missing. A file that has all of it already is not written.
    ///
    /// # Errors
    /// [`ErrorKind::File`] when the file is a directory, read-only, locked by another program, or can not be read or
    /// written; [`ErrorKind::InvalidInput`] when it is not a kubeconfig, or has an entry of the same name that is not
    /// ours. The file is then as it was.
    pub fn merge(
        &self,
        addition: &Kubeconfig,
        current_context: CurrentContext,
    ) -> Result<MergeReceipt> {
        replace::create_parent(&self.path)
            .map_err(|error| self.failed("create the directory of", error))?;
        let locked = self.lock()?;
        let original = locked.content()?;
        let base = locked.parse(original.as_ref())?;
        let merged = merge::merge(&base, addition, current_context)?;
        let text = if merged.kubeconfig == base {
            None
        } else {
            let text = merged.kubeconfig.to_yaml()?;
            locked.write(text.as_bytes(), None)?;
            Some(text)
        };
        let restorable = match text {
            // The original has dead entries of an earlier run, which need not come back.
            _ if merged.replaced => None,
            Some(text) => Some(Restorable {
                written: crypto::sha256(text.as_bytes()),
                original: original.clone(),
            }),
            None => None,
        };
        Ok(MergeReceipt {
            file: self.clone(),
            addition: addition.clone(),
            earlier_context: base.current_context,
            created: original.is_none(),
            mode: original.and_then(|content| content.mode),
            restorable: Mutex::new(restorable),
        })
    }

    fn lock(&self) -> Result<LockedFile<'_>> {
        let target = replace::follow_links(&self.path)
            .map_err(|error| self.failed("find the target of", error))?;
        let lock = Lock::take(&self.path, self.lock_limit)?;
        // A tool that was given the link's target locks that.
        let target_lock = if target == self.path {
            None
        } else {
            replace::create_parent(&target)
                .map_err(|error| self.failed("create the directory of", error))?;
            Some(Lock::take(&target, self.lock_limit)?)
        };
        Ok(LockedFile {
            file: self,
            target,
            _locks: (target_lock, lock),
        })
    }

    fn failed(&self, what: &str, error: io::Error) -> Error {
        Error::new(
            ErrorKind::File,
            format!("can not {what} the kubeconfig {}", self.path.display()),
        )
        .with_source(error)
        .with_help("check the path, its owner and mode, and the space on the disk")
    }
}

/// Proof of a merge, with which it is undone.
///
/// Dropping it leaves the entries in the file.
#[derive(Debug)]
#[must_use = "without `undo`, the entries stay in the user's kubeconfig"]
pub struct MergeReceipt {
    file: KubeconfigFile,
    addition: Kubeconfig,
    earlier_context: String,
    created: bool,
    /// The mode of the original file.
    mode: Option<u32>,
    /// Taken by the first `undo`: after that the file is no longer what we wrote.
    restorable: Mutex<Option<Restorable>>,
}

/// What is needed to bring back the original file as it was.
struct Restorable {
    /// SHA-256 of what we wrote.
    written: [u8; 32],
    /// `None`: there was no file.
    original: Option<Content>,
}

impl std::fmt::Debug for Restorable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the content: it holds the user's secrets.
        f.debug_struct("Restorable").finish_non_exhaustive()
    }
}

impl MergeReceipt {
    /// Takes our entries out of the file again.
    ///
    /// If nobody changed the file since, it becomes what it was, byte for byte, or is deleted if it was not there.
    /// Otherwise exactly our entries go, as far as they are still ours (the same server and token); the context that
    /// was current before becomes current again, if ours still is and the earlier one still exists; and a file that
    /// we made and that holds nothing any more is deleted. Undoing again changes nothing.
    ///
    /// # Errors
    /// As [`KubeconfigFile::merge`]. The file is then as it was, and `undo` may be called again.
    pub fn undo(&self) -> Result<()> {
        // Without its directory, the file is gone as well, and there is nowhere to lock.
        if !self.file.path.parent().is_some_and(Path::exists) {
            return Ok(());
        }
        let locked = self.file.lock()?;
        let Some(content) = locked.content()? else {
            return Ok(());
        };
        let mut restorable = self
            .restorable
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*restorable {
            Some(restorable) if restorable.written == crypto::sha256(&content.bytes) => {
                match &restorable.original {
                    Some(original) => locked.write(&original.bytes, self.mode_after(&content))?,
                    None => locked.delete()?,
                }
            }
            _ => self.take_out(&locked, &content)?,
        }
        *restorable = None;
        Ok(())
    }

    fn take_out(&self, locked: &LockedFile<'_>, content: &Content) -> Result<()> {
        let present = locked.parse(Some(content))?;
        let kept = merge::remove(&present, &self.addition, &self.earlier_context);
        if kept == present {
            return Ok(());
        }
        if self.created && merge::is_empty(&kept) {
            return locked.delete();
        }
        let mode = if merge::has_endpoints(&kept) {
            None
        } else {
            self.mode_after(content)
        };
        locked.write(kept.to_yaml()?.as_bytes(), mode)
    }

    /// The original mode, unless somebody changed what we made of it. Not to be used while another run's token stays.
    fn mode_after(&self, content: &Content) -> Option<u32> {
        self.mode
            .filter(|mode| content.mode == Some(mode & replace::OWNER_RIGHTS))
    }
}

/// A file whose lock we hold.
struct LockedFile<'a> {
    file: &'a KubeconfigFile,
    /// Where symbolic links lead.
    target: PathBuf,
    _locks: (Option<Lock>, Lock),
}

/// What a file holds.
#[derive(Clone)]
struct Content {
    bytes: Vec<u8>,
    mode: Option<u32>,
}

impl LockedFile<'_> {
    /// `None` when there is no file.
    fn content(&self) -> Result<Option<Content>> {
        let metadata = match fs::metadata(&self.target) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.file.failed("read", error)),
        };
        if !metadata.is_file() && !metadata.is_dir() {
            return Err(Error::new(
                ErrorKind::File,
                format!(
                    "the kubeconfig {} is not a regular file",
                    self.file.path.display()
                ),
            )
            .with_help("give the path of a file, usually ~/.kube/config"));
        }
        Ok(Some(Content {
            bytes: model::read_bytes(&self.file.path)?,
            mode: replace::mode_of(&metadata),
        }))
    }

    fn parse(&self, content: Option<&Content>) -> Result<Kubeconfig> {
        match content {
            Some(content) => Kubeconfig::from_bytes(&self.file.path, &content.bytes),
            None => Ok(Kubeconfig::default()),
        }
    }

    fn write(&self, bytes: &[u8], mode: Option<u32>) -> Result<()> {
        // Replacing needs no right to write to the file itself, but read-only means that its owner wants no change.
        let read_only =
            fs::metadata(&self.target).is_ok_and(|metadata| metadata.permissions().readonly());
        if read_only {
            return Err(Error::new(
                ErrorKind::File,
                format!("the kubeconfig {} is read-only", self.file.path.display()),
            )
            .with_help("make it writable (`chmod u+w`), or give another file with -f"));
        }
        replace::replace(&self.target, bytes, mode)
            .map_err(|error| self.file.failed("write", error))
    }

    fn delete(&self) -> Result<()> {
        fs::remove_file(&self.target).map_err(|error| self.file.failed("delete", error))
    }
}

#[cfg(test)]
mod tests;
