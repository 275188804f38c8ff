//! [`UnixSocket`]: a socket file that only its owner can reach, and that is gone when the proxy is.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

use crate::{Error, ErrorKind, Result};

/// For the directory of the socket: what others may do with a socket file itself differs from system to system, a
/// directory that they can not enter does not.
const DIRECTORY_MODE: u32 = 0o700;

const SOCKET_MODE: u32 = 0o600;

/// A listening socket and its file, which is removed when this is dropped.
pub(super) struct UnixSocket {
    listener: UnixListener,
    file: SocketFile,
}

struct SocketFile {
    path: PathBuf,
    identity: Identity,
    owner: u32,
}

/// What tells one file from another that took its name.
#[derive(PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl UnixSocket {
    /// Listens on `path`.
    ///
    /// # Errors
    /// [`ErrorKind::File`] when the directory is not the user's own, something else than a dead socket of the user is
    /// at the path, or the system says no; [`ErrorKind::InvalidInput`] for a path without a directory.
    pub(super) async fn bind(path: &Path) -> Result<Self> {
        let owner = private_directory(path)?;
        remove_stale(path, owner).await?;
        let listener = UnixListener::bind(path).map_err(|error| failed(path, error))?;
        // Nobody else can have reached it in between: the directory is closed to others.
        fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))
            .map_err(|error| failed(path, error))?;
        let metadata = fs::symlink_metadata(path).map_err(|error| failed(path, error))?;
        Ok(Self {
            listener,
            file: SocketFile {
                path: path.to_owned(),
                identity: Identity::of(&metadata),
                owner,
            },
        })
    }

    /// The next connection of a process of the same user. Others are closed without a word.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            // The directory keeps others out already. This is for a socket that was passed on or bound into a container.
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == self.file.owner => return Ok(stream),
                Ok(peer) => tracing::warn!(
                    user = peer.uid(),
                    "a process of another user connected to the Unix socket and was refused"
                ),
                Err(error) => tracing::warn!(%error, "a peer at the Unix socket has no identity"),
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| Identity::of(&metadata) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "can not remove the Unix socket");
        }
    }
}

impl Identity {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// Makes the directory of `path` if it is not there, checks that it is closed to others, and tells who we are.
fn private_directory(path: &Path) -> Result<u32> {
    let directory = match (path.parent(), path.file_name()) {
        (Some(parent), Some(_)) if !parent.as_os_str().is_empty() => parent,
        _ => {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "the Unix socket {} has no directory of its own",
                    path.display()
                ),
            )
            .with_help("give a path such as ~/.arc-connect/proxy.sock"));
        }
    };
    let created = DirBuilder::new().mode(DIRECTORY_MODE).create(directory);
    match created {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(path, error)),
    }
    let metadata = fs::metadata(directory).map_err(|error| failed(path, error))?;
    // A new file belongs to whoever this process acts as.
    let owner = tempfile::tempfile_in(directory)
        .and_then(|file| file.metadata())
        .map_err(|error| failed(path, error))?
        .uid();
    if metadata.uid() != owner || metadata.mode() & 0o077 != 0 {
        return Err(Error::new(
            ErrorKind::File,
            format!(
                "the directory {} of the Unix socket is open to other users",
                directory.display()
            ),
        )
        .with_help("give a directory of your own and close it to others: chmod 700"));
    }
    Ok(owner)
}

/// Removes what a proxy that was killed has left.
async fn remove_stale(path: &Path, owner: u32) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(path, error)),
    };
    if !metadata.file_type().is_socket() || metadata.uid() != owner {
        return Err(Error::new(
            ErrorKind::File,
            format!(
                "{} is there already and is no socket of yours",
                path.display()
            ),
        )
        .with_help("choose another path"));
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| failed(path, error))
        }
        Err(error) => Err(failed(path, error)),
        Ok(_) => Err(Error::new(
            ErrorKind::File,
            format!("another program listens on {}", path.display()),
        )
        .with_help("stop it, or choose another path")),
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::new(
        ErrorKind::File,
        format!("can not listen on the Unix socket {}", path.display()),
    )
    .with_source(error)
    .with_help("check that its directory can be made and that the path is shorter than 100 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("it is there").mode() & 0o777
    }

    #[tokio::test]
    async fn the_socket_is_private_and_gone_at_the_end() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("own").join("proxy.sock");
        let socket = UnixSocket::bind(&path).await.expect("bound");
        assert_eq!(mode(&path), SOCKET_MODE);
        assert_eq!(mode(path.parent().expect("it has one")), DIRECTORY_MODE);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("own").join("proxy.sock");
        let socket = UnixSocket::bind(&path).await.expect("bound");
        let error = UnixSocket::bind(&path).await.err().expect("in use");
        assert!(error.to_string().contains("another program"), "{error}");
        assert!(path.exists());

        // As after a kill: the file stays, nobody listens.
        let UnixSocket { listener, file } = socket;
        drop(listener);
        std::mem::forget(file);
        let again = UnixSocket::bind(&path)
            .await
            .expect("the dead one is replaced");
        drop(again);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_not_ours_stays() {
        let home = tempfile::tempdir().expect("a directory");
        fs::set_permissions(home.path(), Permissions::from_mode(0o700)).expect("ours");
        let path = home.path().join("proxy.sock");
        fs::write(&path, "precious").expect("written");
        assert!(UnixSocket::bind(&path).await.is_err());
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");

        // A file that took the name while the socket was open.
        fs::remove_file(&path).expect("removed");
        let socket = UnixSocket::bind(&path).await.expect("bound");
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "precious").expect("written");
        drop(socket);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn an_open_directory_is_refused() {
        let home = tempfile::tempdir().expect("a directory");
        fs::set_permissions(home.path(), Permissions::from_mode(0o755)).expect("ours");
        let error = UnixSocket::bind(&home.path().join("proxy.sock"))
            .await
            .err()
            .expect("open to others");
        assert!(error.help().expect("a way out").contains("chmod 700"));
        let error = UnixSocket::bind(Path::new("proxy.sock")).await.err();
        assert_eq!(error.expect("no directory").kind(), ErrorKind::InvalidInput);
    }
}
