//! [`PodDirectories`]: a temporary directory for each pod, which is the pod's file system.

use std::{
    collections::HashMap,
    fs, io,
    sync::{Arc, Mutex, PoisonError},
};

use tempfile::TempDir;

/// The directories of all pods that somebody has run a command in.
#[derive(Default)]
pub(super) struct PodDirectories(Mutex<HashMap<String, Arc<TempDir>>>);

impl PodDirectories {
    /// The directory of a pod; made when it is first asked for.
    pub(super) fn of(&self, pod_uid: &str, pod_name: &str) -> io::Result<Arc<TempDir>> {
        let mut directories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = directories.get(pod_uid) {
            return Ok(Arc::clone(directory));
        }
        let directory = tempfile::Builder::new().prefix("stand-in-pod-").tempdir()?;
        for name in ["etc", "tmp"] {
            fs::create_dir(directory.path().join(name))?;
        }
        fs::write(
            directory.path().join("etc/hostname"),
            format!("{pod_name}\n"),
        )?;
        let directory = Arc::new(directory);
        directories.insert(pod_uid.to_owned(), Arc::clone(&directory));
        Ok(directory)
    }

    /// Forgets a pod's directory; it is deleted once no command runs in it any more.
    pub(super) fn remove(&self, pod_uid: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(pod_uid);
    }
}
