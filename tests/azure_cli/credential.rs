//! A kubeconfig without a secret: kubectl asks this program for it.

use super::{
    bed::{Bed, CONTEXT, HOME, NAME, POD, texts},
    support::{
        kubectl::{self, Kubectl},
        programs,
    },
};

const LIST: [&str; 4] = ["get", "pods", "-o", "name"];

/// kubectl runs the plugin with its own environment, so that it finds the records where the proxy left them.
fn kubectl_of(bed: &Bed) -> Kubectl {
    Kubectl::new(bed.path("shared")).with_environment("XDG_RUNTIME_DIR", bed.path("home"))
}

#[tokio::test]
async fn kubectl_gets_the_secret_of_a_running_proxy() {
    if !kubectl::is_installed("kubectl_gets_the_secret_of_a_running_proxy") {
        return;
    }
    let bed = Bed::start().await;
    let proxy = bed.proxy(&[bed.place(), bed.application()]).await;
    let secret = bed.run_secret();

    let printed = bed.run("kubeconfig", &[]).await;
    assert!(printed.status.success(), "{printed:?}");
    assert!(!printed.stdout.contains(&secret), "{printed:?}");
    bed.write("shared", &printed.stdout);
    let listed = kubectl_of(&bed).run(&LIST).await.succeeded();
    assert_eq!(listed.text().trim(), format!("pod/{POD}"));

    // Into a file that has other things, by the cluster's name.
    let before = "apiVersion: v1\nkind: Config\n# mine\ncurrent-context: ''\n";
    bed.write("shared", before);
    let file = texts(&["-f", &bed.argument("shared")]);
    let merged = bed.run("kubeconfig", &[texts(&[NAME]), file.clone()]).await;
    assert!(merged.status.success(), "{merged:?}");
    assert_eq!(merged.stdout, "");
    let shared = bed.read("shared");
    assert!(
        shared.contains("# mine") && !shared.contains(&secret),
        "{shared}"
    );
    let listed = kubectl_of(&bed).run(&LIST).await.succeeded();
    assert_eq!(listed.text().trim(), format!("pod/{POD}"));

    let unknown = bed.run("kubeconfig", &[texts(&["till-9"])]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        unknown.stderr.contains(&format!("served are: {CONTEXT}")),
        "{unknown:?}"
    );

    // Only the plugin prints it, and only for what is served.
    let server = proxy.ready()["server"].as_str().unwrap().to_owned();
    let ask = |server: &str| vec![texts(&["--server", server])];
    let given = bed.run("credential", &ask(&server)).await;
    let given: serde_json::Value = serde_json::from_str(&given.stdout).expect("JSON");
    assert_eq!(given["status"]["token"], secret);
    let other = bed
        .run("credential", &ask("https://127.0.0.1:1/proxies/ab"))
        .await;
    assert_eq!((other.status.code(), other.stdout.as_str()), (Some(1), ""));

    assert!(proxy.terminate().await.status.success());
    let late = bed.run("credential", &ask(&server)).await;
    assert_eq!((late.status.code(), late.stdout.as_str()), (Some(1), ""));
    assert!(
        late.stderr.contains("start `arc-connect proxy` again"),
        "{late:?}"
    );
    let late = bed.run("kubeconfig", &[]).await;
    assert!(
        late.stderr.contains("no proxy of yours is running"),
        "{late:?}"
    );
}

/// Into the very file that the proxy has put its own context into: that goes at the end as if nothing had happened.
#[tokio::test]
async fn the_context_of_the_proxy_itself_can_be_made_free_of_secrets() {
    if !kubectl::is_installed("the_context_of_the_proxy_itself_can_be_made_free_of_secrets") {
        return;
    }
    let bed = Bed::start().await;
    bed.write("kubeconfig", HOME);
    let proxy = bed.proxy(&[bed.place(), bed.application()]).await;
    let secret = bed.run_secret();
    let file = texts(&["-f", &bed.argument("kubeconfig")]);
    let merged = bed.run("kubeconfig", &[file]).await;
    assert!(merged.status.success(), "{merged:?}");
    let kubeconfig = bed.read("kubeconfig");
    assert!(!kubeconfig.contains(&secret), "{kubeconfig}");
    let kubectl = bed
        .kubectl()
        .with_environment("XDG_RUNTIME_DIR", bed.path("home"));
    let mut list = vec!["--context", CONTEXT];
    list.extend(LIST);
    let listed = kubectl.run(&list).await.succeeded();
    assert_eq!(listed.text().trim(), format!("pod/{POD}"));
    let ended = proxy.terminate().await;
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(bed.read("kubeconfig"), HOME);
}

/// A shell's own parser finds nothing wrong with it.
#[tokio::test]
async fn a_shell_reads_the_script_that_completes_command_lines() {
    let bed = Bed::start().await;
    for (shell, check) in [("bash", Some("bash")), ("zsh", None), ("fish", None)] {
        let printed = bed.run("completions", &[texts(&[shell])]).await;
        assert!(printed.status.success(), "{printed:?}");
        for word in ["whoami", "resource-group", "device-code"] {
            assert!(printed.stdout.contains(word), "{word} for {shell}");
        }
        if let Some(program) = check {
            bed.write("script", &printed.stdout);
            let mut command = tokio::process::Command::new(program);
            command.args(["-n", &bed.argument("script")]);
            let checked = programs::run_command(command).await;
            assert!(checked.status.success(), "{checked:?}");
        }
    }
}
