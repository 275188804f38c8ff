//! [`MergeReceipt`]: taking our entries out again.

use std::{fmt, path::Path, sync::Mutex};

use super::{
    KubeconfigFile,
    locked::{Content, LockedFile},
};
use crate::{
    Result, crypto,
    kubeconfig::{Kubeconfig, merge, replace},
};

/// Proof of a merge, with which it is undone.
///
/// Dropping it leaves the entries in the file.
#[must_use = "without `undo`, the entries stay in the user's kubeconfig"]
pub struct MergeReceipt {
    pub(super) file: KubeconfigFile,
    /// What was added, with our mark.
    pub(super) addition: Kubeconfig,
    pub(super) earlier_context: String,
    /// What there was before; `None`: no file.
    pub(super) original: Option<Content>,
    /// SHA-256 of what we wrote, while the original may take its place. Taken by the first `undo`: after that the file
    /// is no longer what we wrote.
    pub(super) written: Mutex<Option<[u8; 32]>>,
}

impl fmt::Debug for MergeReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the original: it holds the user's secrets.
        f.debug_struct("MergeReceipt")
            .field("file", &self.file)
            .field("addition", &self.addition)
            .field("earlier_context", &self.earlier_context)
            .finish_non_exhaustive()
    }
}

impl MergeReceipt {
    /// Takes our entries out of the file again.
    ///
    /// If nobody changed the file since, it becomes what it was, byte for byte, or is deleted if it was not there.
    /// Otherwise exactly our entries go, as far as they are still ours (the same server and token), and every other
    /// line stays as it is; the context that was current before becomes current again, if ours still is and the
    /// earlier one still exists; and a file that we made and that holds nothing any more is deleted. Undoing again
    /// changes nothing.
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
        let mut written = self
            .written
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if *written == Some(crypto::sha256(&content.bytes)) {
            self.put_back(&locked, &content)?;
        } else {
            self.take_out(&locked, &content)?;
        }
        *written = None;
        Ok(())
    }

    fn put_back(&self, locked: &LockedFile<'_>, content: &Content) -> Result<()> {
        match &self.original {
            Some(original) => locked.write(&original.bytes, self.mode_after(content)),
            None => locked.delete(),
        }
    }

    fn take_out(&self, locked: &LockedFile<'_>, content: &Content) -> Result<()> {
        let present = locked.parse(Some(content))?;
        let kept = merge::remove(&present, &self.addition, &self.earlier_context);
        if kept == present {
            return Ok(());
        }
        // An empty file of the user's gets its comments back, too.
        if merge::is_empty(&kept) && self.was_empty() {
            return self.put_back(locked, content);
        }
        let mode = if merge::has_endpoints(&kept) {
            None
        } else {
            self.mode_after(content)
        };
        let original = self.original.as_ref();
        locked.rewrite(Some(content), &present, &kept, original, mode)?;
        Ok(())
    }

    fn was_empty(&self) -> bool {
        let text = self.original.as_ref().map(Content::text);
        match text {
            Some(Some(text)) => Kubeconfig::parse(text).is_ok_and(|it| it == Kubeconfig::default()),
            Some(None) => false,
            None => true,
        }
    }

    /// The original mode, unless somebody changed what we made of it. Not to be used while another run's token stays.
    fn mode_after(&self, content: &Content) -> Option<u32> {
        self.original
            .as_ref()
            .and_then(|original| original.mode)
            .filter(|mode| {
                content.mode == Some(mode & replace::OWNER_RIGHTS) || content.mode == Some(*mode)
            })
    }
}
