//! The ways to sign in, each to its end: a real kubectl lists pods.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    bed::{
        Bed, CLIENT, CONTEXT, GROUP, NAME, OBJECT, POD, ROBOT, SECRET, SUBSCRIPTION, USER, texts,
    },
    support::{
        arm::ARM_TOKEN,
        authority::{AUDIENCE, TENANT, token_endpoint::Asked},
        kubectl, programs,
    },
};

/// `kubectl get pods`, with whatever kubeconfig the program gives.
const GET_PODS: [&str; 7] = [
    "--",
    "kubectl",
    "--cache-dir=/dev/null",
    "get",
    "pods",
    "--output",
    "name",
];

fn last_caller(bed: &Bed) -> String {
    let requests = bed.stand_in.requests();
    let list = requests
        .iter()
        .rfind(|one| one.path_and_query.contains("/pods"))
        .expect("pods were listed");
    list.user.as_ref().expect("as somebody").name.clone()
}

#[tokio::test]
async fn an_application_serves_a_cluster_by_its_name() {
    if !kubectl::is_installed("an_application_serves_a_cluster_by_its_name") {
        return;
    }
    let bed = Bed::start().await;
    let socket = bed.path("home").join("private").join("socket");
    let more = texts(&[
        "--request-log",
        &bed.argument("requests"),
        "--unix-socket",
        &socket.display().to_string(),
    ]);
    let proxy = bed.proxy(&[bed.place(), bed.application(), more]).await;
    assert_eq!(proxy.ready()["context"], CONTEXT);
    assert_eq!(proxy.ready()["clusters"][0]["name"], "till-7");
    assert!(socket.exists());

    let listed = bed.kubectl().run(&["get", "pods", "-o", "name"]).await;
    assert_eq!(listed.succeeded().text().trim(), format!("pod/{POD}"));
    assert_eq!(last_caller(&bed), OBJECT);
    // What Azure was told of how the caller shows who they are.
    let asked = bed.arm.requests();
    let credential = asked.iter().rfind(|one| one.method == "POST").unwrap();
    assert_eq!(credential.body["authenticationMethod"], "AAD");

    let ended = proxy.terminate().await;
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.stderr.contains("signing in with a client secret"));
    assert!(!bed.path("kubeconfig").exists(), "it held nothing else");
    let log = bed.read("requests");
    let list: serde_json::Value = log
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .find(|record: &serde_json::Value| record["path"] == "/api/v1/namespaces/default/pods")
        .expect("the list is in the log");
    assert_eq!(list["status"], 200);
}

#[tokio::test]
async fn a_person_signs_in_with_a_code_that_is_shown() {
    if !kubectl::is_installed("a_person_signs_in_with_a_code_that_is_shown") {
        return;
    }
    let bed = Bed::start().await;
    let method = texts(&["--auth=device-code", "--tenant", TENANT]);
    let ended = bed
        .run("exec", &[bed.place(), method, texts(&GET_PODS)])
        .await;
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.stdout.trim(), format!("pod/{POD}"));
    assert!(
        ended.stderr.contains(
            "open https://microsoft.com/devicelogin in a browser and enter the code ABCD-EFGH"
        ),
        "{}",
        ended.stderr
    );
    assert_eq!(last_caller(&bed), USER);
}

#[tokio::test]
async fn what_was_detected_is_said_and_all_of_azure_hears_one_correlation_id() {
    if !kubectl::is_installed("what_was_detected_is_said_and_all_of_azure_hears_one_correlation_id")
    {
        return;
    }
    let bed = Bed::start().await;
    let mut command = bed.command("exec", &[bed.place(), texts(&["-v"]), texts(&GET_PODS)]);
    command
        .env("AZURE_TENANT_ID", TENANT)
        .env("AZURE_CLIENT_ID", CLIENT)
        .env("AZURE_CLIENT_SECRET", SECRET);
    let ended = programs::run_command(command).await;
    assert!(ended.status.success(), "{ended:?}");
    assert!(
        ended.stderr.contains("signing in with a client secret"),
        "{}",
        ended.stderr
    );
    let asked = bed.arm.requests();
    let id = &asked.last().unwrap().correlation_id;
    assert!(
        ended
            .stderr
            .contains(&format!("the correlation id in Azure's logs is {id}")),
        "{}",
        ended.stderr
    );
    let of = |asked: &Asked| {
        asked.headers["client-request-id"]
            .to_str()
            .unwrap()
            .to_owned()
    };
    let asked = bed.authority.token_endpoint(|endpoint| endpoint.requests());
    assert!(asked.iter().all(|one| of(one) == *id));
}

/// An `az` in which somebody is logged in.
fn az(bed: &Bed) -> String {
    let for_cluster = bed.authority.user(USER, OBJECT).sign();
    let end = SystemTime::now() + Duration::from_secs(3_600);
    let end = end.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let script = format!(
        r#"#!/bin/sh
case "$*" in
"account show"*) echo {SUBSCRIPTION}; exit ;;
*{AUDIENCE}*) token={for_cluster} ;;
*get-access-token*) token={ARM_TOKEN} ;;
*) exit 1 ;;
esac
printf '{{"accessToken":"%s","expiresOn":"2099-01-01 00:00:00.000000","expires_on":{end},"tokenType":"Bearer"}}' "$token"
"#
    );
    let directory = bed.path("programs");
    fs::create_dir(&directory).unwrap();
    bed.write("programs/az", &script);
    fs::set_permissions(directory.join("az"), fs::Permissions::from_mode(0o700)).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{}:{path}", directory.display())
}

#[tokio::test]
async fn with_az_logged_in_the_name_is_enough() {
    if !kubectl::is_installed("with_az_logged_in_the_name_is_enough") {
        return;
    }
    let bed = Bed::start().await;
    let place = bed.cloud(&["-n", NAME, "-g", GROUP]);
    let mut command = bed.command("exec", &[place, texts(&GET_PODS)]);
    command.env("PATH", az(&bed));
    let ended = programs::run_command(command).await;
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.stdout.trim(), format!("pod/{POD}"));
    assert_eq!(last_caller(&bed), USER);
    for words in [
        &*format!("subscription {SUBSCRIPTION}, as `az account show` has it"),
        "signing in with the Azure CLI",
    ] {
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_token_of_the_clusters_own_goes_through_azure_too() {
    if !kubectl::is_installed("a_token_of_the_clusters_own_goes_through_azure_too") {
        return;
    }
    let bed = Bed::start().await;
    let token = vec![format!("--token-file={}", bed.argument("token"))];
    let more = [bed.place(), bed.application(), token, texts(&GET_PODS)];
    let ended = bed.run("exec", &more).await;
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.stdout.trim(), format!("pod/{POD}"));
    assert_eq!(last_caller(&bed), ROBOT);
    let asked = bed.arm.requests().pop().unwrap();
    assert_eq!(asked.body["authenticationMethod"], "Token");
}

#[tokio::test]
async fn proofs_of_possession_are_for_this_cluster() {
    if !kubectl::is_installed("proofs_of_possession_are_for_this_cluster") {
        return;
    }
    let bed = Bed::start().await;
    let more = [bed.place(), bed.proving_application(), texts(&GET_PODS)];
    let ended = bed.run("exec", &more).await;
    assert!(ended.status.success(), "{ended:?}");
    assert!(!ended.stderr.contains("P-256"), "{ended:?}");
    assert_eq!(last_caller(&bed), OBJECT);
    let asked = bed.authority.token_endpoint(|endpoint| endpoint.requests());
    assert!(asked.iter().any(|one| one.form.contains_key("req_cnf")));
}

#[tokio::test]
async fn the_name_of_the_context_can_be_chosen() {
    let bed = Bed::start().await;
    let name = texts(&["--kube-context", "mine"]);
    let proxy = bed.proxy(&[bed.place(), bed.application(), name]).await;
    assert_eq!(proxy.ready()["context"], "mine");
    let kubeconfig = bed.read("kubeconfig");
    assert!(kubeconfig.contains("current-context: mine"), "{kubeconfig}");
}

/// A thousand watches over HTTP/1.1 are a thousand connections.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn as_many_files_may_be_open_as_the_system_grants() {
    const FEW: &str = "ulimit -S -n 256 && exec \"$0\" \"$@\"";

    let bed = Bed::start().await;
    let arguments = [
        bed.place(),
        bed.application(),
        texts(&["--port=0", "--file=-"]),
    ];
    let command = bed.command("proxy", &arguments);
    let inner = command.as_std();
    let mut limited = tokio::process::Command::new("sh");
    limited
        .args(["-c", FEW])
        .arg(inner.get_program())
        .args(inner.get_args())
        .kill_on_drop(true);
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let directory = bed.path("home");
    let proxy = programs::Program::start_command("arc-connect", &directory, limited).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", proxy.id())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let columns: Vec<_> = line.split_whitespace().collect();
    assert_eq!(columns[3], columns[4], "soft and hard: {line}");
    assert_ne!(columns[3], "256");
}
