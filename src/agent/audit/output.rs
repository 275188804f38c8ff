//! Where audit lines go: a file that may be rotated away, or standard output.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{Error, ErrorKind, Result};

/// Takes whole lines.
pub(super) trait Output: Send {
    /// Writes what is left of `line`, and takes that away from it as it goes: after a failure the rest is tried again,
    /// and no line is torn or written twice.
    fn write(&mut self, line: &mut Unwritten<'_>) -> io::Result<()>;
}

/// A line, and how much of it is written already.
pub(super) struct Unwritten<'a> {
    line: &'a [u8],
    written: usize,
}

impl<'a> Unwritten<'a> {
    pub(super) fn new(line: &'a [u8]) -> Self {
        Self { line, written: 0 }
    }

    /// For an output that has nothing of the line: it was replaced.
    fn restart(&mut self) {
        self.written = 0;
    }

    pub(super) fn write_to(&mut self, writer: &mut impl Write) -> io::Result<()> {
        while self.written < self.line.len() {
            match writer.write(&self.line[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        writer.flush()
    }
}

/// A file that is appended to. When another file, or none, stands under its name, that one is opened: so logs are
/// rotated (`rename`, as logrotate's default does).
pub(super) struct AppendedFile {
    path: PathBuf,
    file: File,
}

impl AppendedFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = append_to(path).map_err(|error| {
            Error::new(
                ErrorKind::File,
                format!("the audit log {} can not be written", path.display()),
            )
            .with_source(error)
            .with_help("give the path of a file in a directory that exists and is writable")
        })?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    #[cfg(unix)]
    fn is_replaced(&self) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;

        let ours = self.file.metadata()?;
        Ok(match std::fs::metadata(&self.path) {
            Ok(named) => (named.dev(), named.ino()) != (ours.dev(), ours.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(error),
        })
    }

    /// Elsewhere a file that is open can not be renamed.
    #[cfg(not(unix))]
    fn is_replaced(&self) -> io::Result<bool> {
        Ok(false)
    }
}

impl Output for AppendedFile {
    fn write(&mut self, line: &mut Unwritten<'_>) -> io::Result<()> {
        if self.is_replaced()? {
            self.file = append_to(&self.path)?;
            line.restart();
        }
        line.write_to(&mut self.file)
    }
}

pub(super) struct StandardOutput;

impl Output for StandardOutput {
    fn write(&mut self, line: &mut Unwritten<'_>) -> io::Result<()> {
        line.write_to(&mut io::stdout().lock())
    }
}

/// Who asks for what is nobody else's business: a new file is its owner's alone.
fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;

        options.mode(0o600);
    }
    options.open(path)
}
