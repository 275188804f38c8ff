use tempfile::TempDir;

use super::*;

/// A directory as [`directory`] names it: private.
struct Records(TempDir);

impl Records {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        create_private(&base.path().join("arc-connect")).unwrap();
        Self(base)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("arc-connect")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn announce(&self, running: &Running) -> Announcement {
        running.announce_in(&self.path()).unwrap()
    }

    fn list(&self) -> Vec<Running> {
        Running::list_in(&self.path()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn running(pid: u32) -> Running {
    let endpoint = ProxyEndpoint::new("https://127.0.0.1:7/proxies/ab", "PEM", "hush".into());
    let cluster = RunningCluster {
        id: "ab".to_owned(),
        name: "till-7".to_owned(),
        server: endpoint.server().to_owned(),
        ..RunningCluster::default()
    };
    let mut running = Running::this_process(([127, 0, 0, 1], 7).into(), &endpoint);
    running.pid = pid;
    running.started_at = 1_767_225_600;
    running.with_cluster(cluster)
}

/// What is left when the program is killed: the file, and no lock on it.
#[cfg(unix)]
fn killed(announcement: Announcement) {
    let path = announcement.path.clone();
    let aside = path.with_extension("aside");
    fs::rename(&path, &aside).unwrap();
    drop(announcement);
    fs::rename(&aside, &path).unwrap();
}

#[test]
fn a_record_is_found_as_long_as_its_announcement_lives() {
    let records = Records::new();
    assert_eq!(records.list(), []);

    let (one, mut other) = (running(1), running(2));
    other.started_at -= 1;
    let first = records.announce(&one);
    let second = records.announce(&other);
    assert_eq!(records.list(), [other.clone(), one.clone()]);
    assert_eq!(records.names(), ["1.json", "2.json"]);

    drop(second);
    assert_eq!(records.list(), [one]);
    drop(first);
    assert_eq!(records.names(), [""; 0]);
}

#[cfg(unix)]
#[test]
fn records_of_dead_programs_are_ignored_and_removed() {
    let records = Records::new();
    // The number may belong to another program by now, such as this one.
    killed(records.announce(&running(std::process::id())));
    let alive = running(2);
    let _announcement = records.announce(&alive);
    fs::write(records.file("notes.json"), "{}").unwrap();

    assert_eq!(records.list(), [alive]);
    assert_eq!(records.names(), ["2.json", "notes.json"]);
}

#[cfg(unix)]
#[test]
fn the_end_of_a_program_leaves_the_record_of_its_successor() {
    let records = Records::new();
    let first = records.announce(&running(1));
    let mut successor = running(1);
    successor.started_at += 60;
    let _second = records.announce(&successor);
    drop(first);
    assert_eq!(records.list(), [successor]);
}

#[test]
fn what_is_no_record_is_left_out() {
    let records = Records::new();
    // Well-formed, but of another number than its name.
    let _stranger = records.announce(&running(7));
    fs::rename(records.file("7.json"), records.file("8.json")).unwrap();
    assert_eq!(records.list(), []);
    for (name, content) in [("3.json", ""), ("4.json", "[]"), ("5.json", r#"{"pid":5}"#)] {
        fs::write(records.file(name), content).unwrap();
    }
    fs::create_dir(records.file("6.json")).unwrap();
    assert_eq!(records.list(), []);
}

#[test]
fn a_directory_that_is_not_there_has_no_records() {
    let base = tempfile::tempdir().unwrap();
    assert_eq!(Running::list_in(&base.path().join("x")).unwrap(), []);
}

#[cfg(unix)]
mod unix {
    use std::{
        fs::Permissions,
        os::unix::fs::{PermissionsExt, chown, symlink},
    };

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_the_user_can_read_records() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("cache").join("arc-connect");
        let _announcement = running(1).announce_in(&directory).unwrap();
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join("1.json")), 0o600);
    }

    #[test]
    fn a_directory_that_others_can_use_is_made_private_first() {
        let records = Records::new();
        for shared in [0o750, 0o701, 0o777] {
            set_mode(&records.path(), shared);
            Running::list_in(&records.path()).unwrap_err();
            let _announcement = records.announce(&running(1));
            assert_eq!(mode(&records.path()), 0o700);
            assert_eq!(records.list(), [running(1)]);
        }
        // Where it leads may change.
        let link = records.0.path().join("link");
        symlink(records.path(), &link).unwrap();
        let error = running(2).announce_in(&link).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::File);
        Running::list_in(&link).unwrap_err();
        assert_eq!(records.names(), [""; 0]);
    }

    #[test]
    fn files_that_others_can_use_are_ignored_and_left_alone() {
        let records = Records::new();
        let announcement = records.announce(&running(1));
        set_mode(&records.file("1.json"), 0o644);
        assert_eq!(records.list(), []);
        set_mode(&records.file("1.json"), 0o600);
        symlink(records.file("1.json"), records.file("2.json")).unwrap();
        assert_eq!(records.list(), [running(1)]);

        // Dead, and still nothing that is ours to remove.
        killed(announcement);
        set_mode(&records.file("1.json"), 0o620);
        assert_eq!(records.list(), []);
        assert_eq!(records.names(), ["1.json", "2.json"]);
    }

    #[test]
    fn files_of_another_user_are_ignored_and_left_alone() {
        let records = Records::new();
        let _announcement = records.announce(&running(1));
        let metadata = fs::metadata(records.file("1.json")).unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert!(owner::belongs_to(&metadata, own));
        assert!(!owner::belongs_to(&metadata, own + 1));

        // Only root can give a file away.
        if chown(records.file("1.json"), Some(own + 1), None).is_ok() {
            assert_eq!(records.list(), []);
            assert_eq!(records.names(), ["1.json"]);
        }
    }
}

#[cfg(all(unix, not(target_os = "macos")))]
#[test]
fn the_directory_comes_from_the_environment() {
    let place = |runtime: Option<&str>, cache: Option<&str>, home: Option<&str>| {
        place(
            |name| match name {
                "XDG_RUNTIME_DIR" => runtime.map(OsString::from),
                "XDG_CACHE_HOME" => cache.map(OsString::from),
                _ => None,
            },
            home.map(PathBuf::from),
        )
    };
    let expected = |text: &str| Some(PathBuf::from(text));
    assert_eq!(
        place(Some("/run/user/7"), Some("/cache"), Some("/home/me")),
        expected("/run/user/7/arc-connect")
    );
    assert_eq!(
        place(Some("run"), Some("/cache"), Some("/home/me")),
        expected("/cache/arc-connect")
    );
    assert_eq!(
        place(Some(""), None, Some("/home/me")),
        expected("/home/me/.cache/arc-connect")
    );
    assert_eq!(place(None, None, Some("")), None);
    assert_eq!(place(None, None, None), None);
}

#[test]
fn debug_does_not_show_the_secret() {
    let shown = format!("{:?}", running(1));
    assert!(!shown.contains("hush"), "{shown}");
}
