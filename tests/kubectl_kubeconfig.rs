//! kubectl reads what we write, we keep what kubectl writes, and both respect the same lock.

mod support;

use std::{
    path::Path,
    process::{Command, Output},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime},
};

use arc_cluster_connect::kubeconfig::{
    CurrentContext, ExecKubeconfig, Kubeconfig, KubeconfigBuilder, KubeconfigFile, ProxyEndpoint,
    Secret, TokenKubeconfig, exec_credential,
};

use support::api_server::{StandIn, User, random_token};

/// How long the writers that work at the same time may take together.
const WRITERS_LIMIT: Duration = Duration::from_secs(120);

/// Before the path that a process of this test prints.
const FOUND: &str = "located: ";

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

#[test]
fn our_mark_survives_what_kubectl_writes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config");
    let users = "\
clusters: [{name: home, cluster: {server: 'https://home:6443'}}]
contexts: [{name: me@home, context: {cluster: home, user: me}}]
users: [{name: me, user: {token: t}}]
current-context: me@home
";
    std::fs::write(&path, users).unwrap();
    let file = KubeconfigFile::at(&path);
    // A killed process leaves no more than this.
    drop(file.merge(&ours(), CurrentContext::Switch).unwrap());
    let namespace = ["config", "set-context", "--current", "--namespace=shop"];
    let Some(output) = kubectl(&path, &namespace) else {
        return;
    };
    text(&output);
    assert_eq!(file.repair().unwrap(), [CONTEXT]);
    let mut expected = Kubeconfig::parse(users).unwrap();
    let mut left = file.read().unwrap();
    assert_eq!(left.current_context, "me@home");
    // kubectl makes the file a complete one.
    for kubeconfig in [&mut expected, &mut left] {
        kubeconfig.api_version = None;
        kubeconfig.kind = None;
        kubeconfig.other = Default::default();
    }
    assert_eq!(left, expected);
}

/// kubectl itself reads before it takes the lock, and deletes what others added in between; so it can lose our entries,
/// and another kubectl's. Hence one loop of kubectls, each after the other, and several of ours: what *we* must not
/// lose is all there.
#[test]
fn nothing_that_kubectl_writes_is_lost_while_we_merge() {
    const CONTEXTS: usize = 8;
    const MERGERS: usize = 2;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config");
    std::fs::write(
        &path,
        "apiVersion: v1\nkind: Config\ncurrent-context: \"\"\n",
    )
    .unwrap();
    let file = KubeconfigFile::at(&path);
    if kubectl(&path, &["config", "view"]).is_none() {
        return;
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for merger in 0..MERGERS {
            let (file, done) = (&file, &done);
            scope.spawn(move || {
                let endpoint =
                    ProxyEndpoint::new("https://127.0.0.1:1/proxies/ab12", "PEM", SECRET.into());
                let name = format!("ours-{merger}");
                let ours = TokenKubeconfig::new(name).build(&endpoint).unwrap();
                while !done.load(Ordering::SeqCst) {
                    let receipt = file.merge(&ours, CurrentContext::KeepIfSet).unwrap();
                    receipt.undo().unwrap();
                    // kubectl gives up at once when the lock is held: let it have its turn.
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
        let deadline = Instant::now() + WRITERS_LIMIT;
        let add = |index: usize| {
            let name = format!("theirs-{index}");
            let add = ["config", "set-context", &name, "--cluster=home"];
            while !kubectl(&path, &add).unwrap().status.success() {
                assert!(Instant::now() < deadline, "kubectl never gets the lock");
            }
        };
        let added = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..CONTEXTS).for_each(add);
        }));
        done.store(true, Ordering::SeqCst);
        if let Err(panic) = added {
            std::panic::resume_unwind(panic);
        }
    });
    let left = file.read().unwrap();
    for index in 0..CONTEXTS {
        assert!(
            left.context(&format!("theirs-{index}")).is_some(),
            "{index}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_gets_the_secret_from_the_credential_command() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config");
    if kubectl(&path, &["config", "view"]).is_none() || cfg!(not(unix)) {
        return;
    }
    let token = random_token();
    let stand_in = StandIn::builder()
        .token(&token, User::service_account("default", "admin-user"))
        .pod("default", "web")
        .start()
        .await
        .unwrap();
    let server = format!("https://{}", stand_in.address());
    let endpoint = ProxyEndpoint::new(server, stand_in.ca_pem(), token.as_str().into());
    let credential = directory.path().join("credential.json");
    let builder = ExecKubeconfig::new("till", "/bin/cat")
        .with_arguments([credential.to_str().unwrap().to_owned()]);
    let file = KubeconfigFile::at(&path);
    let _receipt = file
        .merge(&builder.build(&endpoint).unwrap(), CurrentContext::Switch)
        .unwrap();
    assert!(!std::fs::read_to_string(&path).unwrap().contains(&token));

    for expires_at in [None, Some(SystemTime::now() + Duration::from_secs(3600))] {
        let json = exec_credential(&Secret::from(token.as_str()), expires_at);
        std::fs::write(&credential, json).unwrap();
        let path = path.clone();
        let output = tokio::task::spawn_blocking(move || {
            kubectl(&path, &["get", "pods", "--output=name"]).unwrap()
        })
        .await
        .unwrap();
        assert_eq!(text(&output).trim(), "pod/web");
    }
    stand_in.shutdown().await;
}

#[test]
#[ignore = "a process with an environment of its own, that another test starts"]
fn locate() {
    let file = KubeconfigFile::default_location().unwrap();
    println!("{FOUND}{}", file.path().display());
}

#[test]
fn of_several_files_kubectl_and_we_take_the_same_one() {
    for existing in [
        [true; 3],
        [false, true, true],
        [false, false, true],
        [false; 3],
    ] {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["a", "b", "c"].map(|name| directory.path().join(name));
        for (path, _) in paths.iter().zip(existing).filter(|(_, exists)| *exists) {
            std::fs::write(path, "apiVersion: v1\nkind: Config\n").unwrap();
        }
        let list = std::env::join_paths(&paths).unwrap();
        let located = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "locate", "--ignored", "--nocapture"])
            .env("KUBECONFIG", &list)
            .output()
            .unwrap();
        let located = text(&located);
        let found = located
            .lines()
            .find_map(|line| line.split_once(FOUND))
            .unwrap();

        let add = ["config", "set-context", "theirs", "--cluster=home"];
        let Some(output) = kubectl(Path::new(&list), &add) else {
            return;
        };
        text(&output);
        let written = paths
            .iter()
            .find(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("theirs")))
            .unwrap();
        assert_eq!(Path::new(found.1), written, "{existing:?}");
    }
}
