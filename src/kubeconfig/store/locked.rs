//! [`LockedFile`]: reading and replacing a kubeconfig file while nobody else does.

use std::{fs, io, path::PathBuf};

use super::KubeconfigFile;
use crate::{
    Error, ErrorKind, Result,
    kubeconfig::{Kubeconfig, lock::Lock, model, replace, rewrite},
};

/// A file whose lock we hold.
pub(super) struct LockedFile<'a> {
    pub(super) file: &'a KubeconfigFile,
    /// Where symbolic links lead.
    pub(super) target: PathBuf,
    pub(super) _locks: (Option<Lock>, Lock),
}

/// What a file holds.
#[derive(Clone)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) mode: Option<u32>,
}

impl Content {
    /// `None` for what is no text, which is no kubeconfig either.
    pub(super) fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }
}

impl LockedFile<'_> {
    /// `None` when there is no file.
    pub(super) fn content(&self) -> Result<Option<Content>> {
        let metadata = match fs::metadata(&self.target) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.file.failed("read", error)),
        };
        Ok(Some(Content {
            bytes: model::read_bytes(&self.file.path)?,
            mode: replace::mode_of(&metadata),
        }))
    }

    pub(super) fn parse(&self, content: Option<&Content>) -> Result<Kubeconfig> {
        match content {
            Some(content) => Kubeconfig::from_bytes(&self.file.path, &content.bytes),
            None => Ok(Kubeconfig::default()),
        }
    }

    /// Makes the file, which holds `base` as `content`, hold `target`. What was written.
    pub(super) fn rewrite(
        &self,
        content: Option<&Content>,
        base: &Kubeconfig,
        target: &Kubeconfig,
        original: Option<&Content>,
        mode: Option<u32>,
    ) -> Result<Vec<u8>> {
        let text = content.and_then(Content::text).unwrap_or_default();
        let original = original.and_then(Content::text);
        let bytes = rewrite::rewrite(text, base, target, original)?.into_bytes();
        self.write(&bytes, mode)?;
        Ok(bytes)
    }

    pub(super) fn write(&self, bytes: &[u8], mode: Option<u32>) -> Result<()> {
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
        replace::remove_leftovers(&self.target);
        replace::replace(&self.target, bytes, mode)
            .map_err(|error| self.file.failed("write", error))
    }

    pub(super) fn delete(&self) -> Result<()> {
        replace::remove_leftovers(&self.target);
        fs::remove_file(&self.target).map_err(|error| self.file.failed("delete", error))
    }
}
