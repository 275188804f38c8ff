//! `--ready-file`: how a script knows that a program serves.

use std::{io::Write, path::Path};

use arc_cluster_connect::{Error, ErrorKind, Result};
use serde_json::Value;

/// Writes `content` to `path` so that a reader sees all of it or no file at all. Readable by the owner only.
pub fn write_ready_file(path: Option<&Path>, content: &Value) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let failed = |error: std::io::Error| {
        Error::new(
            ErrorKind::File,
            format!("can not write the ready file {}", path.display()),
        )
        .with_source(error)
        .with_help("check that its directory exists and is writable")
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    writeln!(file, "{content}").map_err(failed)?;
    owner_only(file.as_file()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(unix)]
fn owner_only(file: &std::fs::File) -> std::io::Result<()> {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    file.set_permissions(Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn owner_only(_file: &std::fs::File) -> std::io::Result<()> {
    Ok(())
}
