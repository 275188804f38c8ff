//! [`TokenFile`]: a file that holds a token and is replaced now and then.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::OwnedMutexGuard;

use super::{
    AccessToken, Freshness,
    token_text::{MAX_TOKEN_BYTES, access_token},
};
use crate::{Error, ErrorKind, Result};

/// How often a request looks at the file. Kubernetes renews projected tokens minutes ahead of their end, so a second
/// is soon enough, and hundreds of requests per second cost one `stat`.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a request waits for the file. Token files may lie on network mounts, which can hang for ever.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// White space that may surround a token in a file before we call the file too large.
const MAX_PADDING_BYTES: usize = 1024;

#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
    seen: Mutex<Seen>,
    /// Held while somebody looks at the file. Others then use what is known, unless they need a fresh token.
    looking: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Seen {
    /// The last good token.
    token: AccessToken,
    /// What the file looked like when it was last read, good or not.
    stamp: Option<Stamp>,
    checked_at: SystemTime,
    /// Whether the log has been told that the file is unusable. Once per outage is enough.
    warned: bool,
}

/// Tells one content of a file from the next without reading it.
#[derive(Clone, Debug, PartialEq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

/// What a look at the file brought.
enum Look {
    Unchanged,
    Read(Stamp, AccessToken),
    Unusable(Option<Stamp>, Error),
}

impl TokenFile {
    pub(super) fn open(path: PathBuf, now: SystemTime) -> Result<Self> {
        match look(&path, None) {
            Look::Read(stamp, token) => Ok(Self {
                path,
                seen: Mutex::new(Seen {
                    token,
                    stamp: Some(stamp),
                    checked_at: now,
                    warned: false,
                }),
                looking: Arc::default(),
            }),
            Look::Unusable(_, error) => Err(error),
            Look::Unchanged => unreachable!("there is no earlier stamp to be equal to"),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn last_good(&self) -> AccessToken {
        self.seen().token.clone()
    }

    /// The token, after a look at the file if one is due. Never fails: the caller judges the token's expiry.
    ///
    /// Cancel-safe: a look that nobody waits for is repeated by the next request.
    pub(super) async fn token(&self, freshness: Freshness, now: SystemTime) -> AccessToken {
        let looking = Arc::clone(&self.looking);
        let guard = match freshness {
            Freshness::Fresh => tokio::time::timeout(READ_LIMIT, looking.lock_owned())
                .await
                .ok(),
            Freshness::Cached if self.is_due(now) => looking.try_lock_owned().ok(),
            Freshness::Cached => None,
        };
        if let Some(guard) = guard {
            self.look_off_the_runtime(guard, now).await;
        }
        self.last_good()
    }

    fn is_due(&self, now: SystemTime) -> bool {
        // A clock that was set back must not stop the checks.
        now.duration_since(self.seen().checked_at)
            .map_or(true, |age| age >= CHECK_INTERVAL)
    }

    async fn look_off_the_runtime(&self, guard: OwnedMutexGuard<()>, now: SystemTime) {
        let path = self.path.clone();
        let stamp = self.seen().stamp.clone();
        // The guard goes along: while a mount hangs, one thread hangs with it, and not one more for each look.
        let reading = tokio::task::spawn_blocking(move || (look(&path, stamp.as_ref()), guard));
        let (look, _guard) = match tokio::time::timeout(READ_LIMIT, reading).await {
            Ok(Ok((look, guard))) => (look, Some(guard)),
            Ok(Err(error)) => (self.failed_look(io::Error::other(error)), None),
            Err(_) => (self.failed_look(io::ErrorKind::TimedOut.into()), None),
        };
        self.note(look, now);
    }

    fn failed_look(&self, error: io::Error) -> Look {
        Look::Unusable(None, unreadable(&self.path, error))
    }

    fn note(&self, look: Look, now: SystemTime) {
        let mut seen = self.seen();
        seen.checked_at = now;
        match look {
            Look::Unchanged => {}
            Look::Read(stamp, token) => {
                seen.token = token;
                seen.stamp = Some(stamp);
                seen.warned = false;
            }
            Look::Unusable(stamp, error) => {
                seen.stamp = stamp;
                if !seen.warned {
                    seen.warned = true;
                    tracing::warn!(
                        error = error.report(),
                        "the token file is not usable; the last good token stays in use"
                    );
                }
            }
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        // No code panics while it holds the lock half-way through a change.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Self {
            modified: metadata.modified().ok(),
            len: metadata.len(),
            inode,
        }
    }
}

fn look(path: &Path, known: Option<&Stamp>) -> Look {
    match std::fs::metadata(path) {
        Ok(metadata) if known == Some(&Stamp::of(&metadata)) => Look::Unchanged,
        Ok(_) => read(path).unwrap_or_else(|error| Look::Unusable(None, unreadable(path, error))),
        Err(error) => Look::Unusable(None, unreadable(path, error)),
    }
}

fn read(path: &Path) -> io::Result<Look> {
    let file = File::open(path)?;
    // Taken before the content, from the same open file: a later write changes it and is noticed by the next look.
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let stamp = Stamp::of(&metadata);
    let mut text = String::new();
    file.take((MAX_TOKEN_BYTES + MAX_PADDING_BYTES) as u64)
        .read_to_string(&mut text)?;
    Ok(match access_token(&text) {
        Ok(token) => Look::Read(stamp, token),
        Err(error) => {
            let help = error
                .help()
                .unwrap_or("put the token, and nothing else, into the file")
                .to_owned();
            let error = Error::new(
                error.kind(),
                format!("the token file {} is not usable: {error}", path.display()),
            )
            .with_help(help);
            Look::Unusable(Some(stamp), error)
        }
    })
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::new(
        ErrorKind::File,
        format!("can not read the token file {}", path.display()),
    )
    .with_source(error)
    .with_help("check that the path is a file that you may read")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    struct Bed {
        directory: tempfile::TempDir,
        file: TokenFile,
    }

    impl Bed {
        fn new(token: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("token");
            std::fs::write(&path, token).unwrap();
            let file = TokenFile::open(path, at(100)).unwrap();
            Self { directory, file }
        }

        /// As Kubernetes and careful people do it: a new file takes the old one's place.
        fn replace(&self, token: &str) {
            let new = self.directory.path().join("new");
            std::fs::write(&new, token).unwrap();
            std::fs::rename(new, self.file.path()).unwrap();
        }

        async fn token(&self, seconds: u64) -> String {
            let token = self.file.token(Freshness::Cached, at(seconds)).await;
            token.secret().to_owned()
        }
    }

    #[tokio::test]
    async fn a_new_content_is_seen_after_the_interval_or_on_demand() {
        let bed = Bed::new("one\n");
        assert_eq!(bed.token(100).await, "one");
        bed.replace("two");
        assert_eq!(bed.token(100).await, "one");
        assert_eq!(bed.token(101).await, "two");
        bed.replace("six");
        assert_eq!(bed.token(101).await, "two");
        let fresh = bed.file.token(Freshness::Fresh, at(101)).await;
        assert_eq!(fresh.secret(), "six");
    }

    #[tokio::test]
    async fn a_clock_set_back_does_not_stop_the_checks() {
        let bed = Bed::new("one");
        bed.replace("two");
        assert_eq!(bed.token(50).await, "two");
    }

    #[tokio::test]
    async fn the_last_good_token_outlives_every_kind_of_damage() {
        let bed = Bed::new("good");
        let damage: [&dyn Fn(); 5] = [
            &|| bed.replace(""),
            &|| bed.replace("not a token"),
            &|| bed.replace(&"x".repeat(MAX_TOKEN_BYTES + 2 * MAX_PADDING_BYTES)),
            &|| std::fs::remove_file(bed.file.path()).unwrap(),
            &|| std::fs::create_dir(bed.file.path()).unwrap(),
        ];
        let mut now = 100;
        for harm in damage {
            harm();
            now += 1;
            assert_eq!(bed.token(now).await, "good");
            assert!(bed.file.seen().warned);
        }
        std::fs::remove_dir(bed.file.path()).unwrap();
        bed.replace("better");
        assert_eq!(bed.token(now + 1).await, "better");
        assert!(!bed.file.seen().warned);
    }

    #[tokio::test]
    async fn one_look_at_a_time_and_nobody_waits_for_it() {
        let bed = Bed::new("one");
        bed.replace("two");
        let looking = bed.file.looking.lock().await;
        assert_eq!(bed.token(200).await, "one");
        drop(looking);
        assert_eq!(bed.token(200).await, "two");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_look_delays_a_fresh_request_by_the_limit_only() {
        let bed = Bed::new("one");
        let _hanging = bed.file.looking.lock().await;
        let start = tokio::time::Instant::now();
        let token = bed.file.token(Freshness::Fresh, at(200)).await;
        assert_eq!(token.secret(), "one");
        assert!(start.elapsed() >= READ_LIMIT);
    }

    #[test]
    fn an_unusable_file_at_the_start_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let open = |path: &Path| TokenFile::open(path.to_owned(), at(0)).expect_err("unusable");
        assert_eq!(open(&path).kind(), ErrorKind::File);
        assert_eq!(open(directory.path()).kind(), ErrorKind::File);
        std::fs::write(&path, "  \n").unwrap();
        let error = open(&path);
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(
            error.to_string().contains(&*path.to_string_lossy()),
            "{error}"
        );
        std::fs::write(&path, "hush hush").unwrap();
        assert!(!format!("{:?}", open(&path)).contains("hush"));
    }
}
