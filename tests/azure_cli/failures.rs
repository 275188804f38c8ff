//! What goes wrong, as the person before the terminal reads it.

use super::{
    bed::{Bed, GROUP, NAME, SUBSCRIPTION, texts},
    support::{
        arm::{Fault, Question},
        authority::TENANT,
        programs::{self, Ended},
    },
};

const ROLE: &str = "Azure Arc Enabled Kubernetes Cluster User Role";
const OTHER_TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

/// A proxy that can not start.
async fn refused(bed: &Bed, arguments: &[Vec<String>]) -> Ended {
    let mut all = arguments.to_vec();
    all.push(texts(&["--port=0", "--file=-"]));
    let ended = bed.run("proxy", &all).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_eq!(ended.stdout, "");
    ended
}

fn assert_says(ended: &Ended, all: &[&str]) {
    for words in all {
        assert!(
            ended.stderr.contains(words),
            "{words:?} in {}",
            ended.stderr
        );
    }
}

#[tokio::test]
async fn a_missing_role_is_named_with_the_ids_for_support() {
    let bed = Bed::start().await;
    let fault = Fault::refusal(403, "AuthorizationFailed");
    bed.arm.fail(Question::Credential, usize::MAX, fault);
    let ended = refused(&bed, &[bed.place(), bed.application()]).await;
    let id = bed.arm.requests().pop().unwrap().correlation_id;
    assert_says(
        &ended,
        &[
            "AuthorizationFailed",
            &format!("what to do: ask an owner of the cluster for the role \"{ROLE}\""),
            &format!("--scope {}", bed.id),
            "AZK8S0805 ClusterCredentialsGetFailed",
            &format!("tracking id: request-of-a-test, correlation id {id}"),
        ],
    );
}

#[tokio::test]
async fn a_cluster_that_is_offline_is_said_to_be() {
    let bed = Bed::start().await;
    bed.arm.set_property("connectivityStatus", "Offline");
    let ended = refused(&bed, &[bed.place(), bed.application()]).await;
    assert_says(
        &ended,
        &[
            "the cluster till-7 is offline",
            "kubectl get pods -n azure-arc",
        ],
    );
    assert_eq!(bed.arm.credential_requests(), 0);
}

#[tokio::test]
async fn another_tenant_is_named_by_whoever_knows_it() {
    let bed = Bed::start().await;
    let challenge = format!(
        "Bearer authorization_uri=\"https://login.windows.net/{OTHER_TENANT}\", error=\"invalid_token\""
    );
    let fault = Fault::Refusal {
        status: 401,
        code: "InvalidAuthenticationTokenTenant",
        headers: vec![("www-authenticate", challenge)],
    };
    bed.arm.fail(Question::Cluster, usize::MAX, fault);
    let ended = refused(&bed, &[bed.place(), bed.application()]).await;
    assert_says(
        &ended,
        &[
            "another tenant than you are signed in to",
            &format!("az login --tenant {OTHER_TENANT}"),
        ],
    );

    // The authority does not know the tenant at all.
    let mut caller = bed.application();
    let tenant = caller.iter().position(|argument| argument == TENANT);
    caller[tenant.unwrap()] = OTHER_TENANT.to_owned();
    let ended = refused(&bed, &[bed.place(), caller]).await;
    assert_says(&ended, &["AADSTS90002", "what to do:"]);
}

#[tokio::test]
async fn a_port_that_is_taken_is_known_before_anybody_signs_in() {
    let bed = Bed::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("--port={}", taken.local_addr().unwrap().port());
    let more = [bed.place(), bed.application(), vec![port]];
    let ended = bed.run("proxy", &more).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_says(&ended, &["is in use", "AZK8S0801 ClientProxyPortInUse"]);
    let asked = bed.authority.token_endpoint(|endpoint| endpoint.requests());
    assert!(asked.is_empty(), "somebody signed in");
}

#[tokio::test]
async fn a_kubeconfig_that_is_none_is_named_and_left_alone() {
    let bed = Bed::start().await;
    bed.write("kubeconfig", "clusters: [not, a\n");
    let file = vec![format!("--file={}", bed.argument("kubeconfig"))];
    let more = [bed.place(), bed.application(), file, texts(&["--port=0"])];
    let ended = bed.run("proxy", &more).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_says(
        &ended,
        &[
            &bed.argument("kubeconfig"),
            "AZK8S0208 KubernetesConfigurationLoadFailed",
        ],
    );
    assert_eq!(bed.read("kubeconfig"), "clusters: [not, a\n");
}

#[tokio::test]
async fn what_is_missing_on_the_command_line_is_asked_for() {
    let bed = Bed::start().await;
    let ended = refused(&bed, &[]).await;
    assert_says(&ended, &["no cluster is named", "-n NAME -g GROUP"]);

    // Without `az` somebody has to say which subscription it is.
    let place = bed.cloud(&["-n", NAME, "-g", GROUP]);
    let arguments = [place, bed.application(), texts(&["--port=0", "--file=-"])];
    let mut command = bed.command("proxy", &arguments);
    command.env("PATH", bed.path("home"));
    let ended = programs::run_command(command).await;
    assert_says(&ended, &["no subscription is named", "--subscription ID"]);

    let place = bed.cloud(&["-n", NAME, "-g", GROUP, "--subscription", "shop"]);
    let ended = refused(&bed, &[place, bed.application()]).await;
    assert_says(&ended, &["what to do:"]);

    // One command is about one cluster.
    let place = bed.cloud(&[
        "-n",
        NAME,
        "-n",
        "till-8",
        "-g",
        GROUP,
        "--subscription",
        SUBSCRIPTION,
    ]);
    let ended = bed.run("whoami", &[place, bed.application()]).await;
    assert_eq!(ended.status.code(), Some(1));
    assert_says(&ended, &["several clusters are named", "arc-connect proxy"]);
}

#[tokio::test]
async fn a_token_that_the_cluster_does_not_know_is_said_to_be_refused() {
    let bed = Bed::start().await;
    bed.write("token", "nobodys-token");
    let token = vec![format!("--token-file={}", bed.argument("token"))];
    let ended = refused(&bed, &[bed.place(), bed.application(), token]).await;
    assert_says(&ended, &["401 Unauthorized", "kubectl create token NAME"]);
    assert!(!ended.stderr.contains("nobodys-token"));
}

#[tokio::test]
async fn a_corporate_proxys_password_is_not_repeated() {
    let bed = Bed::start().await;
    let place = bed.cloud(&["--cluster-id", &bed.id.to_string()]);
    let url = texts(&["--https-proxy", "ftp://user:hush-hush@proxy.example:3128"]);
    let ended = refused(&bed, &[place.clone(), bed.application(), url]).await;
    assert_says(&ended, &["the proxy's URL is not usable"]);
    assert!(!ended.stderr.contains("hush-hush"), "{}", ended.stderr);

    // It is not asked: everything here is on loopback.
    let url = texts(&["--https-proxy", "http://user:hush-hush@127.0.0.1:9"]);
    let more = [place.clone(), bed.application(), url, texts(&["-vvv"])];
    let ended = bed.run("whoami", &more).await;
    assert!(ended.status.success(), "{ended:?}");
    assert_says(&ended, &["pass --https-proxy env"]);
    assert!(!ended.stderr.contains("hush-hush"), "{}", ended.stderr);

    let env = texts(&["--https-proxy=env", "--port=0", "--file=-"]);
    let mut command = bed.command("proxy", &[place, bed.application(), env]);
    command.env("HTTPS_PROXY", "ftp://user:hush-hush@proxy.example:3128");
    let ended = programs::run_command(command).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_says(&ended, &["HTTPS_PROXY is not usable"]);
    assert!(!ended.stderr.contains("hush-hush"), "{}", ended.stderr);
}
