//! Replacing a file as a whole: readers, and a machine that loses power, see the old content or the new one.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Symbolic links followed before we call it a loop; Linux allows as many.
const MAX_LINKS: usize = 40;

/// What is kept of an existing file's mode.
pub(super) const OWNER_RIGHTS: u32 = 0o700;

/// Owner may read and write, nobody else anything: the file holds a token.
const PRIVATE_MODE: u32 = 0o600;
const PRIVATE_DIRECTORY_MODE: u32 = 0o700;

/// The moments between which a write can be interrupted. Tests stop at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Created,
    Written,
    Synced,
    Replaced,
}

/// Puts a file with `content` where `path` is, which may not be there yet. `path` must not be a symbolic link: see
/// [`follow_links`]. Ownership is kept, and the mode, but for rights of group and others; `mode` overrides both.
pub(super) fn replace(path: &Path, content: &[u8], mode: Option<u32>) -> io::Result<()> {
    replace_step_by_step(path, content, mode, |_| Ok(()))
}

pub(super) fn replace_step_by_step(
    path: &Path,
    content: &[u8],
    mode: Option<u32>,
    mut interrupt: impl FnMut(Step) -> io::Result<()>,
) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let existing = match fs::metadata(path) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    // In the same directory, since a rename across file systems is not atomic. It is created with mode 0600.
    let mut file = tempfile::Builder::new()
        .prefix(&temporary_prefix(path)?)
        .tempfile_in(directory)?;
    interrupt(Step::Created)?;
    file.write_all(content)?;
    interrupt(Step::Written)?;
    keep_owner_and_mode(file.as_file(), existing.as_ref(), mode)?;
    // Without this, a crash after the rename may leave a file of the new name and no content.
    file.as_file().sync_all()?;
    interrupt(Step::Synced)?;
    file.persist(path).map_err(|error| error.error)?;
    interrupt(Step::Replaced)?;
    // The rename itself survives a crash only then. Not all file systems can; the content is whole either way.
    #[cfg(unix)]
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}

/// Removes what interrupted writes of `path` left beside it. To be called by the holder of its lock: then nobody else
/// is writing.
pub(super) fn remove_leftovers(path: &Path) {
    let (Some(directory), Ok(prefix)) = (path.parent(), temporary_prefix(path)) else {
        return;
    };
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_leftover = name
            .as_encoded_bytes()
            .starts_with(prefix.as_encoded_bytes());
        if is_leftover && let Err(error) = fs::remove_file(entry.path()) {
            tracing::warn!(%error, path = %entry.path().display(), "can not remove what an interrupted write left behind");
        }
    }
}

/// Temporary files carry the name of the file that they are to become: whoever has its lock knows them as leftovers.
fn temporary_prefix(path: &Path) -> io::Result<OsString> {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    prefix.push(".arc-cluster-connect-");
    Ok(prefix)
}

/// Creates the directory that `path` lies in, for its owner only.
pub(super) fn create_parent(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, PRIVATE_DIRECTORY_MODE);
    builder.create(parent)
}

/// The file that `path` leads to, so that a symbolic link stays one when the file is replaced. The file itself need
/// not be there yet.
pub(super) fn follow_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let is_link = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink());
        if !is_link {
            return Ok(path);
        }
        let target = fs::read_link(&path)?;
        // A relative target is relative to the link's directory; `join` leaves absolute ones as they are.
        path = match path.parent() {
            Some(parent) => parent.join(target),
            None => target,
        };
    }
    Err(io::Error::other("too many symbolic links"))
}

/// The permission bits, where there are such.
pub(super) fn mode_of(metadata: &Metadata) -> Option<u32> {
    #[cfg(unix)]
    return Some(std::os::unix::fs::MetadataExt::mode(metadata) & 0o7777);
    #[cfg(not(unix))]
    {
        let _ = metadata;
        None
    }
}

#[cfg(unix)]
fn keep_owner_and_mode(
    file: &File,
    existing: Option<&Metadata>,
    mode: Option<u32>,
) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

    if let Some(existing) = existing {
        let new = file.metadata()?;
        // `sudo` must not turn a user's file into root's.
        if (existing.uid(), existing.gid()) != (new.uid(), new.gid()) {
            fchown(file, Some(existing.uid()), Some(existing.gid()))?;
        }
    }
    let kept = existing.and_then(mode_of).map(|mode| mode & OWNER_RIGHTS);
    let mode = mode.or(kept).unwrap_or(PRIVATE_MODE);
    file.set_permissions(fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn keep_owner_and_mode(_: &File, _: Option<&Metadata>, _: Option<u32>) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn interrupted_at_any_step_the_file_is_the_old_or_the_new_one() {
        for stop in [Step::Created, Step::Written, Step::Synced, Step::Replaced] {
            for old in [None, Some("old")] {
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join("config");
                if let Some(old) = old {
                    fs::write(&path, old).unwrap();
                }
                let mut seen = Vec::new();
                let result = replace_step_by_step(&path, b"new", None, |step| {
                    seen.push((step, fs::read_to_string(&path).ok()));
                    if step == stop {
                        Err(io::Error::other("interrupted"))
                    } else {
                        Ok(())
                    }
                });
                assert!(result.is_err());
                for (step, content) in seen {
                    let expected = if step == Step::Replaced {
                        Some("new")
                    } else {
                        old
                    };
                    assert_eq!(content.as_deref(), expected, "{stop:?} {step:?}");
                }
                let is_there = old.is_some() || stop == Step::Replaced;
                let expected: &[&str] = if is_there { &["config"] } else { &[] };
                assert_eq!(names(directory.path()), expected, "{stop:?}");
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn modes() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep").join("er").join("config");
        let mode = |path: &Path| mode_of(&path.metadata().unwrap()).unwrap();
        create_parent(&path).unwrap();
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(mode(path.parent().unwrap().parent().unwrap()), 0o700);
        replace(&path, b"1", None).unwrap();
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        replace(&path, b"2", None).unwrap();
        assert_eq!(mode(&path), 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        replace(&path, b"3", None).unwrap();
        assert_eq!(mode(&path), 0o600);
        replace(&path, b"4", Some(0o664)).unwrap();
        assert_eq!(mode(&path), 0o664);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_loops_end() {
        use std::os::unix::fs::symlink;

        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        symlink("two", at("one")).unwrap();
        symlink(at("three"), at("two")).unwrap();
        assert_eq!(follow_links(&at("one")).unwrap(), at("three"));
        symlink("round", at("about")).unwrap();
        symlink("about", at("round")).unwrap();
        assert!(follow_links(&at("round")).is_err());
    }
}
