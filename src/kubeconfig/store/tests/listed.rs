//! `KUBECONFIG` with several files.

use super::*;

struct List {
    _directory: tempfile::TempDir,
    paths: Vec<PathBuf>,
    file: KubeconfigFile,
}

fn list(contents: &[Option<&str>]) -> List {
    let directory = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (0..contents.len())
        .map(|index| directory.path().join(index.to_string()))
        .collect();
    for (path, content) in paths.iter().zip(contents) {
        if let Some(content) = content {
            fs::write(path, content).unwrap();
        }
    }
    let environment = Environment {
        kubeconfig: Some(std::env::join_paths(&paths).unwrap()),
        home: None,
    };
    List {
        _directory: directory,
        paths,
        file: KubeconfigFile::located(&environment).unwrap(),
    }
}

#[test]
fn a_name_that_another_file_has_is_refused() {
    for contents in [
        [Some(""), Some("users: [{name: till, user: {token: t}}]")],
        [Some("x-first: 1"), Some("clusters: [{name: till}]")],
    ] {
        let list = list(&contents);
        let error = list
            .file
            .merge(&ours("till", "s"), CurrentContext::Switch)
            .expect_err("taken");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let second = list.paths[1].display().to_string();
        assert!(error.to_string().contains(&second), "{error}");
        assert_eq!(
            fs::read_to_string(&list.paths[0]).unwrap(),
            contents[0].unwrap()
        );
    }
}

#[test]
fn a_current_context_of_another_file_is_kept() {
    let contents = [
        None,
        Some("x-note: yes\n"),
        Some("current-context: me@home\n"),
    ];
    let list = list(&contents);
    assert_eq!(list.file.path(), list.paths[1]);
    let addition = ours("till", "s");
    let receipt = list
        .file
        .merge(&addition, CurrentContext::KeepIfSet)
        .unwrap();
    assert_eq!(list.file.read().unwrap().current_context, "");
    receipt.undo().unwrap();
    let receipt = list.file.merge(&addition, CurrentContext::Switch).unwrap();
    assert_eq!(list.file.read().unwrap().current_context, "till");
    receipt.undo().unwrap();
    assert_eq!(fs::read_to_string(&list.paths[1]).unwrap(), "x-note: yes\n");
}

#[test]
fn files_that_can_not_be_read_are_no_obstacle() {
    let list = list(&[Some("x-note: yes\n"), Some("{not yaml"), None]);
    let receipt = list
        .file
        .merge(&ours("till", "s"), CurrentContext::KeepIfSet)
        .unwrap();
    assert_eq!(list.file.read().unwrap().current_context, "till");
    receipt.undo().unwrap();
}
