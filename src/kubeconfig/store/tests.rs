mod dead_runs;
mod killed;
mod listed;
mod properties;
mod runs;
#[cfg(unix)]
mod unix;

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

fn at_port(name: &str, port: u16, authority: &str) -> Kubeconfig {
    let server = format!("https://127.0.0.1:{port}/proxies/ab12");
    let endpoint = ProxyEndpoint::new(server, authority, "s".into());
    TokenKubeconfig::new(name).build(&endpoint).unwrap()
}

fn marked(name: &str, secret: &str, earlier_context: &str) -> Kubeconfig {
    marker::marked(&ours(name, secret), earlier_context)
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
        file.probe = |_| true;
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
    assert_eq!(bed.file.read().unwrap(), marked("till", "s", ""));
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
fn comments_and_layout_stay_while_we_are_there() {
    let bed = Bed::new(Some(USERS));
    let receipt = bed.merge(&ours("till", "s")).unwrap();
    let merged = bed.text().unwrap();
    for line in USERS.lines().filter(|line| !line.starts_with("current")) {
        assert!(merged.lines().any(|other| other == line), "{line}");
    }
    // A line that somebody adds meanwhile is no reason to lose the others.
    fs::write(&bed.file.path, merged + "# more\n").unwrap();
    receipt.undo().unwrap();
    assert_eq!(bed.text(), Some(format!("{USERS}# more\n")));
}

#[test]
fn sections_that_were_not_there_go_again() {
    let original = "# mine\nclusters: [ ] # none\npreferences: {}\n";
    let bed = Bed::new(Some(original));
    let receipt = bed.merge(&ours("till", "s")).unwrap();
    fs::write(&bed.file.path, bed.text().unwrap() + "# more\n").unwrap();
    receipt.undo().unwrap();
    assert_eq!(bed.text(), Some(format!("{original}# more\n")));
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
