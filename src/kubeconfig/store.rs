//! [`KubeconfigFile`]: our entries in a kubeconfig file, for as long as the proxy runs.

mod locked;
mod receipt;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use self::locked::LockedFile;
pub use self::receipt::MergeReceipt;
use super::{
    CurrentContext, Kubeconfig,
    dead::{self, Probe},
    location::Environment,
    lock::{LOCK_LIMIT, Lock},
    marker, merge, replace,
};
use crate::{Error, ErrorKind, Result, crypto};

/// A kubeconfig file, which need not exist yet.
///
/// Every change happens under kubectl's own lock (`<file>.lock`) and replaces the file as a whole: another tool, and a
/// machine that loses power, see the old file or the new one. Symbolic links stay links. A file that is made here has
/// mode 0600. From an existing one, the rights of group and others are taken while a token of ours is in it, and given
/// back by [`MergeReceipt::undo`].
///
/// Our entries are spliced into the text: comments, order, quoting and layout of everything else stay as they are, while
/// we are there and afterwards. JSON stays JSON. Only a file of an unusual form (YAML's flow style, or anchors on whole
/// sections) is written anew meanwhile; [`MergeReceipt::undo`] brings it back byte for byte when nobody else changed it.
///
/// Each entry that is added carries a mark, a named extension as other tools put into kubeconfigs as well. By it, what a
/// killed process left behind is known and taken out at the next merge: see [`repair`](Self::repair).
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
    /// The other files of the list that tools read.
    others: Vec<PathBuf>,
    lock_limit: Duration,
    probe: Probe,
}

impl KubeconfigFile {
    /// The file at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            // What is undone at the end must be the same file, even if the current directory changes.
            path: absolute(path),
            others: Vec::new(),
            lock_limit: LOCK_LIMIT,
            probe: dead::is_listening,
        }
    }

    /// The file that `kubectl` would put a new context into: of the list in `KUBECONFIG` the first one that exists and
    /// is not read-only, else its last one; `~/.kube/config` without that variable.
    ///
    /// With several files, kubectl takes the current context from the first one that sets it: after
    /// [`CurrentContext::Switch`] in a later one, name the context with `--context`. [`CurrentContext::KeepIfSet`] looks
    /// at all of them, and a name that is taken in one of them is refused.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when `KUBECONFIG` is not set and there is no home directory.
    pub fn default_location() -> Result<Self> {
        Self::located(&Environment::of_the_process())
    }

    fn located(environment: &Environment) -> Result<Self> {
        let mut file = Self::at(environment.file()?);
        file.others = environment.listed().into_iter().map(absolute).collect();
        file.others.retain(|other| *other != file.path);
        Ok(file)
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

    /// Adds the entries of `addition`, which takes the place of entries that an earlier run left behind. Those of other
    /// runs that were killed are taken out, as by [`repair`](Self::repair).
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
        let (living, removed) = dead::without_dead(&base, addition, self.probe);
        let earlier_context = merge::earlier_context(&living, addition).to_owned();
        let addition = marker::marked(addition, &earlier_context);
        let mut merged = merge::merge(&living, &addition, current_context)?;
        let is_set_elsewhere = self.look_at_others(&addition)?;
        if is_set_elsewhere && current_context == CurrentContext::KeepIfSet {
            merged
                .kubeconfig
                .current_context
                .clone_from(&living.current_context);
        }
        let mut written = None;
        if merged.kubeconfig != base {
            let mode = match &original {
                Some(original) if merge::holds_no_secret(&addition) => original.mode,
                _ => None,
            };
            let bytes = locked.rewrite(original.as_ref(), &base, &merged.kubeconfig, None, mode)?;
            // If the original has dead entries of an earlier run, it need not come back.
            if !merged.replaced && removed.is_empty() {
                written = Some(crypto::sha256(&bytes));
            }
        }
        tell_removed(&removed);
        Ok(MergeReceipt {
            file: self.clone(),
            addition,
            earlier_context,
            original,
            written: Mutex::new(written),
        })
    }

    /// Takes out the entries of processes that ended without doing it themselves, as one that was killed. The names of
    /// the contexts that went.
    ///
    /// Only entries with our mark are looked at. They are dead when nobody listens at their loopback port. If one of
    /// them is the current context, the one that was current before it becomes current again.
    ///
    /// # Errors
    /// As [`merge`](Self::merge); a file that does not exist needs no repair.
    pub fn repair(&self) -> Result<Vec<String>> {
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        let locked = self.lock()?;
        let Some(content) = locked.content()? else {
            return Ok(Vec::new());
        };
        let base = locked.parse(Some(&content))?;
        let (kept, removed) = dead::without_dead(&base, &Kubeconfig::default(), self.probe);
        if !removed.is_empty() {
            locked.rewrite(Some(&content), &base, &kept, None, None)?;
        }
        tell_removed(&removed);
        Ok(removed)
    }

    /// Whether another file of the list sets a current context. Files that can not be read do not count, as for kubectl.
    fn look_at_others(&self, addition: &Kubeconfig) -> Result<bool> {
        let mut is_set = false;
        for path in &self.others {
            let Ok(other) = Kubeconfig::read(path) else {
                continue;
            };
            // Whichever came first would hide the other.
            let place = format!("the kubeconfig {}", path.display());
            merge::refuse_collision(&other, addition, &place)?;
            is_set |= !other.current_context.is_empty();
        }
        Ok(is_set)
    }

    fn lock(&self) -> Result<LockedFile<'_>> {
        let target = replace::follow_links(&self.path)
            .map_err(|error| self.failed("find the target of", error))?;
        self.refuse_devices(&target)?;
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

    /// `KUBECONFIG=/dev/null` means "none", and must not put a lock into `/dev`.
    fn refuse_devices(&self, target: &Path) -> Result<()> {
        let is_special =
            fs::metadata(target).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir());
        if !is_special {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::File,
            format!(
                "the kubeconfig {} is not a regular file",
                self.path.display()
            ),
        )
        .with_help("give the path of a file, usually ~/.kube/config"))
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

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

fn tell_removed(contexts: &[String]) {
    if !contexts.is_empty() {
        tracing::info!(
            ?contexts,
            "took out of the kubeconfig what processes that were killed had left there"
        );
    }
}

#[cfg(test)]
mod tests;
