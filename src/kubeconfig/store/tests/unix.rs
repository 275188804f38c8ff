//! Modes, links and devices.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::kubeconfig::ExecKubeconfig;

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
fn without_a_secret_of_ours_the_mode_stays() {
    let endpoint = ProxyEndpoint::new("https://127.0.0.1:1/proxies/ab12", "PEM", "s".into());
    let ours = ExecKubeconfig::new("till", "/bin/x")
        .build(&endpoint)
        .unwrap();
    for somebody_edits in [false, true] {
        let bed = Bed::new(Some(USERS));
        fs::set_permissions(&bed.file.path, fs::Permissions::from_mode(0o644)).unwrap();
        let receipt = bed.merge(&ours).unwrap();
        assert_eq!(mode(&bed.file.path), 0o644);
        if somebody_edits {
            bed.edit(|kubeconfig| kubeconfig.clusters.push(another_cluster()));
        }
        receipt.undo().unwrap();
        assert_eq!(mode(&bed.file.path), 0o644);
        assert_eq!(bed.file.read().unwrap().users.len(), 1);
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
    assert_eq!(Kubeconfig::read(&target).unwrap(), marked("till", "s", ""));
    receipt.undo().unwrap();
    assert!(!target.exists());
    assert!(fs::symlink_metadata(&bed.file.path).unwrap().is_symlink());
}

#[test]
fn a_device_is_not_replaced_by_a_file() {
    let bed = Bed::new(None);
    symlink("/dev/null", &bed.file.path).unwrap();
    let error = bed.merge(&ours("till", "s")).expect_err("a device");
    assert_eq!(error.kind(), ErrorKind::File);
    assert!(error.to_string().contains("not a regular file"), "{error}");
    assert!(fs::symlink_metadata(&bed.file.path).unwrap().is_symlink());
}
