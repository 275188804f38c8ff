//! kubectl reads what we write, we keep what kubectl writes, and both respect the same lock.

use std::{
    path::Path,
    process::{Command, Output},
};

use arc_cluster_connect::kubeconfig::{
    CurrentContext, Kubeconfig, KubeconfigBuilder, KubeconfigFile, ProxyEndpoint, TokenKubeconfig,
};

/// A name and a secret that a careless YAML writer would turn into a boolean and a number.
const CONTEXT: &str = "yes";
const SECRET: &str = "0123";

fn ours() -> Kubeconfig {
    let endpoint = ProxyEndpoint::new("https://127.0.0.1:1/proxies/ab12", "PEM", SECRET.into());
    TokenKubeconfig::new(CONTEXT).build(&endpoint).unwrap()
}

/// `None` when there is no kubectl, which is a failure where one is promised.
fn kubectl(kubeconfig: &Path, arguments: &[&str]) -> Option<Output> {
    let output = Command::new("kubectl")
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .output();
    match output {
        Ok(output) => Some(output),
        Err(error) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "kubectl can not be run: {error}"
            );
            eprintln!("skipped: kubectl can not be run: {error}");
            None
        }
    }
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn kubectl_reads_what_we_write_and_we_keep_what_it_writes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config");
    let file = KubeconfigFile::at(&path);
    let receipt = file.merge(&ours(), CurrentContext::Switch).unwrap();
    let Some(output) = kubectl(&path, &["config", "current-context"]) else {
        return;
    };
    assert_eq!(text(&output).trim(), CONTEXT);
    let token = "jsonpath={.users[0].user.token}";
    let view = ["config", "view", "--raw", "--output", token];
    assert_eq!(text(&kubectl(&path, &view).unwrap()), SECRET);

    let add = [
        "config",
        "set-cluster",
        "theirs",
        "--server=https://theirs:6443",
    ];
    text(&kubectl(&path, &add).unwrap());
    let namespace = ["config", "set-context", "--current", "--namespace=shop"];
    text(&kubectl(&path, &namespace).unwrap());
    let both = file.read().unwrap();
    assert_eq!(both.resolve(None).unwrap().namespace, Some("shop"));
    assert_eq!(
        both.cluster("theirs").unwrap().server,
        "https://theirs:6443"
    );

    receipt.undo().unwrap();
    let names = "jsonpath={.clusters[*].name}|{.users[*].name}|{.contexts[*].name}";
    let view = ["config", "view", "--raw", "--output", names];
    assert_eq!(text(&kubectl(&path, &view).unwrap()), "theirs||");
}

#[test]
fn a_file_that_kubectl_has_rewritten_is_deleted_when_only_we_were_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config");
    let file = KubeconfigFile::at(&path);
    let receipt = file.merge(&ours(), CurrentContext::Switch).unwrap();
    let namespace = ["config", "set-context", "--current", "--namespace=shop"];
    let Some(output) = kubectl(&path, &namespace) else {
        return;
    };
    text(&output);
    receipt.undo().unwrap();
    assert!(!path.exists());
}

#[test]
fn kubectl_does_not_write_while_the_lock_is_held() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config");
    let file = KubeconfigFile::at(&path);
    let _receipt = file.merge(&ours(), CurrentContext::Switch).unwrap();
    let before = std::fs::read_to_string(&path).unwrap();
    // The name that our lock has; were it another one, kubectl would write.
    std::fs::write(directory.path().join("config.lock"), "").unwrap();
    let Some(output) = kubectl(&path, &["config", "unset", "current-context"]) else {
        return;
    };
    assert!(!output.status.success());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
    let error = file
        .merge(&ours(), CurrentContext::Switch)
        .expect_err("locked");
    assert!(error.help().unwrap().contains("config.lock"));
}
