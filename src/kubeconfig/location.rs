//! Which file Kubernetes tools use.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use crate::{Error, ErrorKind, Result};

/// What decides about the file. Passed in, so that tests do not change the process's environment.
pub(super) struct Environment {
    pub(super) kubeconfig: Option<OsString>,
    pub(super) home: Option<PathBuf>,
}

impl Environment {
    pub(super) fn of_the_process() -> Self {
        Self {
            kubeconfig: env::var_os("KUBECONFIG"),
            home: env::home_dir(),
        }
    }

    /// The file that a new context goes into. As kubectl: the first of the list in `KUBECONFIG` that exists, or its
    /// last one when none does, or `~/.kube/config`. Unlike kubectl, files that are read-only are passed over.
    pub(super) fn file(&self) -> Result<PathBuf> {
        let listed = self.listed();
        let existing = || listed.iter().filter(|path| path.exists());
        let choice = existing()
            .find(|path| !is_read_only(path))
            .or_else(|| existing().next())
            .or(listed.last());
        if let Some(path) = choice {
            return Ok(path.clone());
        }
        match &self.home {
            Some(home) if !home.as_os_str().is_empty() => Ok(home.join(".kube").join("config")),
            _ => Err(Error::new(
                ErrorKind::InvalidInput,
                "there is no home directory to look for .kube/config in",
            )
            .with_help("set KUBECONFIG, or give the file with -f")),
        }
    }

    /// The files that `KUBECONFIG` names.
    pub(super) fn listed(&self) -> Vec<PathBuf> {
        let list = self.kubeconfig.as_deref().unwrap_or(OsStr::new(""));
        env::split_paths(list)
            .filter(|path| !path.as_os_str().is_empty())
            .collect()
    }
}

fn is_read_only(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.permissions().readonly())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(kubeconfig: Option<&[&Path]>, home: Option<&str>) -> Result<PathBuf> {
        let environment = Environment {
            kubeconfig: kubeconfig.map(|paths| env::join_paths(paths).unwrap()),
            home: home.map(PathBuf::from),
        };
        environment.file()
    }

    #[test]
    fn the_home_directory_when_nothing_is_set() {
        let expected = Path::new("/h").join(".kube").join("config");
        assert_eq!(file(None, Some("/h")).unwrap(), expected);
        assert_eq!(file(Some(&[Path::new("")]), Some("/h")).unwrap(), expected);
        for home in [None, Some("")] {
            let error = file(None, home).expect_err("nowhere");
            assert!(error.help().unwrap().contains("KUBECONFIG"));
        }
    }

    #[test]
    fn the_first_that_exists_else_the_last() {
        let directory = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| directory.path().join(name));
        let list: [&Path; 4] = [&a, Path::new(""), &b, &c];
        assert_eq!(file(Some(&list), None).unwrap(), c);
        std::fs::write(&c, "").unwrap();
        std::fs::write(&b, "").unwrap();
        assert_eq!(file(Some(&list), None).unwrap(), b);
        let mut mode = b.metadata().unwrap().permissions();
        mode.set_readonly(true);
        std::fs::set_permissions(&b, mode.clone()).unwrap();
        assert_eq!(file(Some(&list), None).unwrap(), c);
        // All read-only: the first, so that the error names the file that the user expects.
        std::fs::set_permissions(&c, mode).unwrap();
        assert_eq!(file(Some(&list), None).unwrap(), b);
    }
}
