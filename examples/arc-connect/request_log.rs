//! `--request-log`: a line of JSON for each request that went through the proxy.

use std::{
    fs::{File, OpenOptions},
    io::{LineWriter, Write},
    path::Path,
};

use arc_cluster_connect::{Error, ErrorKind, Result, proxy::RequestRecord};

use crate::common;

/// A sink that adds to the file at `path`; - is standard error.
pub fn open(path: &Path) -> Result<Box<dyn FnMut(RequestRecord) + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(|record| eprintln!("{}", record.to_json())));
    }
    let file = append(path).map_err(|error| {
        Error::new(
            ErrorKind::File,
            format!("can not write the request log {}", path.display()),
        )
        .with_source(error)
        .with_help("check that its directory exists and is writable")
    })?;
    let mut file = LineWriter::new(file);
    let mut has_failed = false;
    Ok(Box::new(move |record| {
        if let Err(error) = writeln!(file, "{}", record.to_json())
            && !has_failed
        {
            has_failed = true;
            common::warn(format_args!("the request log can not be written: {error}"));
        }
    }))
}

/// Paths name what somebody works on: a new file is its owner's alone.
fn append(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;

        options.mode(0o600);
    }
    options.open(path)
}
