mod properties;

use std::collections::BTreeSet;

use super::*;
use crate::kubeconfig::{KubeconfigBuilder, NamedCluster, ProxyEndpoint, TokenKubeconfig};

const USERS: &str = "\
# my clusters
apiVersion: v1
kind: Config
clusters:
- {name: home, cluster: {server: 'https://home:6443', x-note: yes}}   # at home
users:
- {name: me, user: {token: t}}
contexts:
- {name: me@home, context: {cluster: home, user: me}}
current-context: me@home
";

fn ours(name: &str, secret: &str) -> Kubeconfig {
    let endpoint = ProxyEndpoint::new("https://127.0.0.1:1/proxies/ab12", "PEM", secret.into());
    TokenKubeconfig::new(name).build(&endpoint).unwrap()
}

struct Bed {
    directory: tempfile::TempDir,
    file: KubeconfigFile,
}

impl Bed {
    fn new(content: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut file = KubeconfigFile::at(directory.path().join("config"));
        file.lock_limit = Duration::from_secs(60);
        if let Some(content) = content {
            fs::write(&file.path, content).unwrap();
        }
        Self { directory, file }
    }

    fn merge(&self, addition: &Kubeconfig) -> Result<MergeReceipt> {
        self.file.merge(addition, CurrentContext::Switch)
    }

    fn text(&self) -> Option<String> {
        fs::read_to_string(&self.file.path).ok()
    }

    fn names(&self) -> BTreeSet<String> {
        fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// As another tool would, under no lock: tests decide the order.
    fn edit(&self, edit: impl FnOnce(&mut Kubeconfig)) {
        let mut kubeconfig = self.file.read().unwrap();
        edit(&mut kubeconfig);
        fs::write(&self.file.path, kubeconfig.to_yaml().unwrap()).unwrap();
    }
}

fn another_cluster() -> NamedCluster {
    NamedCluster {
        name: "another".to_owned(),
        ..NamedCluster::default()
    }
}

#[test]
fn merged_and_undone_the_file_is_the_same_to_the_byte() {
    let bed = Bed::new(Some(USERS));
    let receipt = bed.merge(&ours("till", "s")).unwrap();
    let merged = bed.file.read().unwrap();
    assert_eq!(merged.current_context, "till");
    assert!(merged.cluster("home").unwrap().other.contains("x-note"));
    receipt.undo().unwrap();
    assert_eq!(bed.text().as_deref(), Some(USERS));
    receipt.undo().unwrap();
    assert_eq!(bed.text().as_deref(), Some(USERS));
    assert_eq!(bed.names(), BTreeSet::from(["config".to_owned()]));
}

#[test]
fn a_file_that_we_made_goes_away_with_us() {
    let bed = Bed::new(None);
    let receipt = bed.merge(&ours("till", "s")).unwrap();
    assert_eq!(bed.file.read().unwrap(), ours("till", "s"));
    receipt.undo().unwrap();
    assert!(bed.names().is_empty());

    // Even when kubectl has rewritten it in its own way meanwhile.
    let receipt = bed.merge(&ours("till", "s")).unwrap();
    let text = bed.text().unwrap() + "preferences: {}\n";
    fs::write(&bed.file.path, text).unwrap();
    receipt.undo().unwrap();
    assert!(bed.names().is_empty());

    // But not with somebody else's cluster in it.
    let receipt = bed.merge(&ours("till", "s")).unwrap();
    bed.edit(|kubeconfig| kubeconfig.clusters.push(another_cluster()));
    receipt.undo().unwrap();
    assert_eq!(bed.file.read().unwrap().clusters, [another_cluster()]);
}

#[test]
fn an_empty_file_of_the_users_stays() {
    let bed = Bed::new(Some(""));
    let receipt = bed.merge(&ours("till", "s")).unwrap();
    bed.edit(|kubeconfig| kubeconfig.clusters.push(another_cluster()));
    bed.edit(|kubeconfig| kubeconfig.clusters.truncate(1));
    receipt.undo().unwrap();
    assert!(bed.text().is_some());
}

#[test]
fn changes_by_others_stay_when_we_leave() {
    let bed = Bed::new(Some(USERS));
    let receipt = bed.merge(&ours("till", "s")).unwrap();
    bed.edit(|kubeconfig| kubeconfig.clusters.push(another_cluster()));
    receipt.undo().unwrap();
    let mut expected = Kubeconfig::parse(USERS).unwrap();
    expected.clusters.push(another_cluster());
    assert_eq!(bed.file.read().unwrap(), expected);
}

#[test]
fn a_second_run_of_the_same_name_is_not_disturbed_by_the_first_ones_end() {
    let bed = Bed::new(Some(USERS));
    let first = bed.merge(&ours("till", "first")).unwrap();
    let second = bed.merge(&ours("till", "second")).unwrap();
    first.undo().unwrap();
    assert_eq!(bed.file.read().unwrap().resolve(None).unwrap().name, "till");
    second.undo().unwrap();
    // The first run's dead entries do not come back.
    let kept = bed.file.read().unwrap();
    assert_eq!(kept.contexts.len(), 1);
    assert_eq!(kept.clusters.len(), 1);
    assert_eq!(kept.current_context, "");
}

#[test]
fn two_runs_that_end_in_the_order_of_their_start_leave_the_first_state() {
    let bed = Bed::new(Some(USERS));
    let first = bed.merge(&ours("till", "s")).unwrap();
    let second = bed.merge(&ours("shelf", "s")).unwrap();
    first.undo().unwrap();
    assert_eq!(bed.file.read().unwrap().current_context, "shelf");
    second.undo().unwrap();
    let kept = bed.file.read().unwrap();
    assert_eq!(kept.contexts, Kubeconfig::parse(USERS).unwrap().contexts);
    assert_eq!(kept.clusters, Kubeconfig::parse(USERS).unwrap().clusters);
}

#[test]
fn what_is_there_already_is_not_written_again() {
    let bed = Bed::new(Some(USERS));
    let _first = bed.merge(&ours("till", "s")).unwrap();
    let text = bed.text().unwrap() + "# a comment that a rewrite would lose\n";
    fs::write(&bed.file.path, &text).unwrap();
    let again = bed.merge(&ours("till", "s")).unwrap();
    assert_eq!(bed.text(), Some(text));
    again.undo().unwrap();
    assert_eq!(bed.file.read().unwrap().contexts.len(), 1);
}

#[test]
fn files_that_are_no_kubeconfig_stay_as_they_are() {
    for (content, expected) in [
        ("{not yaml", "not valid YAML"),
        ("just a text", "a text instead of a mapping"),
        ("clusters: 7", "not a kubeconfig"),
        (
            "contexts: [{name: till, context: {cluster: home}}]",
            "already has a context 'till' that is not ours",
        ),
    ] {
        let bed = Bed::new(Some(content));
        let error = bed.merge(&ours("till", "s")).expect_err(content);
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.help().is_some());
        assert_eq!(bed.text().as_deref(), Some(content));
        assert_eq!(bed.names().len(), 1, "no lock, no temporary file");
    }
}

#[test]
fn a_directory_in_place_of_the_file() {
    let bed = Bed::new(None);
    fs::create_dir(&bed.file.path).unwrap();
    let error = bed.merge(&ours("till", "s")).expect_err("a directory");
    assert_eq!(error.kind(), ErrorKind::File);
    assert!(error.to_string().contains("is a directory"), "{error}");
}

#[test]
fn a_file_in_place_of_the_directory() {
    let bed = Bed::new(Some(USERS));
    let file = KubeconfigFile::at(bed.file.path.join("config"));
    let error = file
        .merge(&ours("till", "s"), CurrentContext::Switch)
        .expect_err("not a directory");
    assert!(
        error.to_string().contains("create the directory of"),
        "{error}"
    );
    assert_eq!(bed.text().as_deref(), Some(USERS));
}

#[test]
fn a_locked_file() {
    let mut bed = Bed::new(Some(USERS));
    let receipt = bed.merge(&ours("till", "s")).unwrap();
    let merged = bed.text();
    bed.file.lock_limit = Duration::from_millis(50);
    let lock = bed.directory.path().join("config.lock");
    fs::write(&lock, "").unwrap();
    let error = bed.merge(&ours("shelf", "s")).expect_err("locked");
    assert!(
        error.to_string().contains("locked by another program"),
        "{error}"
    );
    assert!(error.help().unwrap().contains(&*lock.to_string_lossy()));
    assert_eq!(bed.text(), merged);
    assert!(
        lock.exists(),
        "another program's lock is not ours to remove"
    );
    fs::remove_file(&lock).unwrap();
    receipt.undo().unwrap();
    assert_eq!(bed.text().as_deref(), Some(USERS));
}

#[test]
fn a_read_only_file() {
    let bed = Bed::new(Some(USERS));
    let mut permissions = fs::metadata(&bed.file.path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&bed.file.path, permissions).unwrap();
    let error = bed.merge(&ours("till", "s")).expect_err("read-only");
    assert_eq!(error.kind(), ErrorKind::File);
    assert!(error.to_string().contains("is read-only"), "{error}");
    assert_eq!(bed.text().as_deref(), Some(USERS));
}

#[test]
fn undo_when_everything_is_gone() {
    let bed = Bed::new(None);
    let deep = KubeconfigFile::at(bed.directory.path().join("a").join("config"));
    let receipt = deep
        .merge(&ours("till", "s"), CurrentContext::Switch)
        .unwrap();
    fs::remove_file(deep.path()).unwrap();
    receipt.undo().unwrap();
    fs::remove_dir(deep.path().parent().unwrap()).unwrap();
    receipt.undo().unwrap();
    assert!(bed.names().is_empty());
}

#[test]
fn debug_shows_no_secret() {
    let bed = Bed::new(Some("users: [{name: me, user: {token: hush}}]"));
    let receipt = bed.merge(&ours("till", "hush")).unwrap();
    assert!(!format!("{receipt:?}").contains("hush"));
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_new_file_and_its_directory_are_private() {
        let bed = Bed::new(None);
        let file = KubeconfigFile::at(bed.directory.path().join(".kube").join("config"));
        let _receipt = file
            .merge(&ours("till", "s"), CurrentContext::Switch)
            .unwrap();
        assert_eq!(mode(file.path()), 0o600);
        assert_eq!(mode(file.path().parent().unwrap()), 0o700);
    }

    #[test]
    fn others_may_not_read_the_file_while_our_token_is_in_it() {
        for somebody_edits in [false, true] {
            let bed = Bed::new(Some(USERS));
            fs::set_permissions(&bed.file.path, fs::Permissions::from_mode(0o644)).unwrap();
            let receipt = bed.merge(&ours("till", "s")).unwrap();
            assert_eq!(mode(&bed.file.path), 0o600);
            if somebody_edits {
                bed.edit(|kubeconfig| kubeconfig.clusters.push(another_cluster()));
            }
            receipt.undo().unwrap();
            assert_eq!(mode(&bed.file.path), 0o644);
        }
    }

    #[test]
    fn others_may_not_read_the_file_while_another_runs_token_is_in_it() {
        let bed = Bed::new(Some(USERS));
        fs::set_permissions(&bed.file.path, fs::Permissions::from_mode(0o644)).unwrap();
        let first = bed.merge(&ours("till", "s")).unwrap();
        let _second = bed.merge(&ours("shelf", "s")).unwrap();
        first.undo().unwrap();
        assert_eq!(mode(&bed.file.path), 0o600);
    }

    #[test]
    fn a_mode_that_somebody_set_meanwhile_stays() {
        let bed = Bed::new(Some(USERS));
        fs::set_permissions(&bed.file.path, fs::Permissions::from_mode(0o644)).unwrap();
        let receipt = bed.merge(&ours("till", "s")).unwrap();
        fs::set_permissions(&bed.file.path, fs::Permissions::from_mode(0o700)).unwrap();
        receipt.undo().unwrap();
        assert_eq!(mode(&bed.file.path), 0o700);
    }

    #[test]
    fn a_symbolic_link_stays_one_and_both_names_are_locked() {
        let bed = Bed::new(Some(USERS));
        let link = bed.directory.path().join("link");
        symlink("config", &link).unwrap();
        let mut file = KubeconfigFile::at(&link);
        let receipt = file
            .merge(&ours("till", "s"), CurrentContext::Switch)
            .unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(bed.file.read().unwrap().current_context, "till");
        receipt.undo().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(bed.text().as_deref(), Some(USERS));

        file.lock_limit = Duration::from_millis(50);
        for name in ["link.lock", "config.lock"] {
            let lock = bed.directory.path().join(name);
            fs::write(&lock, "").unwrap();
            let error = file
                .merge(&ours("till", "s"), CurrentContext::Switch)
                .expect_err("locked");
            assert!(error.to_string().contains(name), "{error}");
            fs::remove_file(&lock).unwrap();
            assert_eq!(bed.names().len(), 2);
        }
    }

    #[test]
    fn a_link_to_nowhere_gets_its_file() {
        let bed = Bed::new(None);
        symlink("deep/target", &bed.file.path).unwrap();
        let receipt = bed.merge(&ours("till", "s")).unwrap();
        let target = bed.directory.path().join("deep").join("target");
        assert_eq!(Kubeconfig::read(&target).unwrap(), ours("till", "s"));
        receipt.undo().unwrap();
        assert!(!target.exists());
        assert!(fs::symlink_metadata(&bed.file.path).unwrap().is_symlink());
    }

    #[test]
    fn a_device_is_not_replaced_by_a_file() {
        let bed = Bed::new(None);
        symlink("/dev/null", &bed.file.path).unwrap();
        // The lock beside `/dev/null` needs rights that only root has; either way the link and the device stay.
        let error = bed.merge(&ours("till", "s")).expect_err("a device");
        assert_eq!(error.kind(), ErrorKind::File);
        assert!(fs::symlink_metadata(&bed.file.path).unwrap().is_symlink());
    }
}

#[test]
fn concurrent_writers_lose_nothing() {
    const WRITERS: usize = 4;
    const ROUNDS: usize = 8;

    let bed = Bed::new(Some(USERS));
    let kept: Vec<Kubeconfig> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let file = bed.file.clone();
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let name = format!("w{writer}-{round}");
                        let addition = ours(&name, "s");
                        let receipt = file.merge(&addition, CurrentContext::KeepIfSet).unwrap();
                        assert!(file.read().unwrap().context(&name).is_some());
                        // Every other one leaves again.
                        if round % 2 == 0 {
                            receipt.undo().unwrap();
                        }
                    }
                    ours(&format!("w{writer}-{}", ROUNDS - 1), "s")
                })
            })
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect()
    });
    let result = bed.file.read().unwrap();
    assert_eq!(result.contexts.len(), 1 + WRITERS * ROUNDS / 2);
    assert_eq!(result.current_context, "me@home");
    for addition in kept {
        assert!(result.clusters.contains(&addition.clusters[0]));
        assert!(result.users.contains(&addition.users[0]));
    }
    assert_eq!(bed.names().len(), 1);
}
