//! What a user gets wrong: each time one clear message, what to do about it, a non-zero exit code, and no file touched.

mod support;

use std::{fs, os::unix::fs::PermissionsExt};

use support::{
    installation::{Installation, NAME},
    programs::{self, Ended},
};
use tokio::net::TcpListener;

/// Runs `arc-connect proxy` with what [`Installation`] wrote, and `more`.
async fn proxy(installation: &Installation, more: &[&str]) -> Ended {
    let relay = installation.argument("relay");
    let token = installation.argument("token");
    let kubeconfig = installation.argument("kubeconfig");
    let mut arguments = vec!["proxy", "--port", "0"];
    for (flag, default) in [
        ("--connection-string-file", &relay),
        ("--token-file", &token),
        ("--file", &kubeconfig),
    ] {
        if !more.contains(&flag) {
            arguments.extend([flag, default]);
        }
    }
    arguments.extend(more);
    if more.contains(&"--port") {
        arguments.drain(1..3);
    }
    programs::run("arc-connect", &arguments).await
}

/// The program failed with one message that contains `what`, and says what to do.
#[track_caller]
fn assert_refused(ended: &Ended, what: &[&str]) {
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let errors = ended.stderr.matches("error: ").count();
    assert_eq!(errors, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("what to do: "), "{}", ended.stderr);
    assert!(ended.stdout.is_empty(), "{ended:?}");
    for part in what {
        assert!(
            ended.stderr.contains(part),
            "no '{part}' in: {}",
            ended.stderr
        );
    }
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

fn connection_string(address: &str, key: &str) -> String {
    format!("Endpoint={address};SharedAccessKeyName=root;SharedAccessKey={key};EntityPath={NAME}")
}

#[tokio::test]
async fn a_relay_that_is_not_there() {
    let installation = Installation::prepare().await;
    installation.write(
        "relay",
        &connection_string("sb://no-such-relay.invalid/", "secret-key"),
    );
    let ended = proxy(&installation, &[]).await;
    assert_refused(&ended, &["no-such-relay.invalid"]);

    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = unused.local_addr().unwrap();
    drop(unused);
    installation.write(
        "relay",
        &connection_string(&format!("ws://{address}/"), "secret-key"),
    );
    let ended = proxy(&installation, &[]).await;
    assert_refused(&ended, &[&address.to_string()]);
    assert!(!ended.stderr.contains("secret-key"), "{}", ended.stderr);
    assert!(!installation.path("kubeconfig").exists());
}

#[tokio::test]
async fn a_relay_that_refuses() {
    let installation = Installation::prepare().await;
    let _relay = installation.start_relay(0).await;
    let good = fs::read_to_string(installation.path("relay")).unwrap();

    installation.write(
        "relay",
        &good.replace("SharedAccessKey=", "SharedAccessKey=x"),
    );
    assert_refused(&proxy(&installation, &[]).await, &["invalid signature"]);

    installation.write("relay", &good.replace(NAME, "another"));
    assert_refused(&proxy(&installation, &[]).await, &["another", "EntityPath"]);

    // The right key, and nobody at the other end.
    installation.write("relay", &good);
    assert_refused(&proxy(&installation, &[]).await, &["no listener", "agent"]);
    assert!(!installation.path("kubeconfig").exists());
}

#[tokio::test]
async fn a_connection_string_that_is_not_one() {
    let installation = Installation::prepare().await;
    for (text, what) in [
        ("", "empty"),
        (
            "Endpoint=sb://relay.example/;SharedAccessKeyName=root;EntityPath=demo",
            "SharedAccessKey",
        ),
        (
            "SharedAccessKeyName=root;SharedAccessKey=secret-key;EntityPath=demo",
            "Endpoint",
        ),
        (
            "Endpoint=sb://relay.example/;SharedAccessKeyName=root;SharedAccessKey=secret-key",
            "EntityPath",
        ),
        (
            "Endpoint=ws://relay.example/;SharedAccessKeyName=root;SharedAccessKey=secret-key;EntityPath=demo",
            "loopback",
        ),
        ("certainly not", "certainly not a"),
    ] {
        installation.write("relay", text);
        let ended = proxy(&installation, &[]).await;
        let what = if what.starts_with("certainly") {
            "connection string"
        } else {
            what
        };
        assert_refused(&ended, &[what]);
        assert!(!ended.stderr.contains("secret-key"), "{}", ended.stderr);
    }
    let ended = proxy(&installation, &["--connection-string-file", "no-such-file"]).await;
    assert_refused(&ended, &["no-such-file"]);
    let ended = programs::run(
        "arc-connect",
        &["proxy", "--token-file", &installation.argument("token")],
    )
    .await;
    assert_refused(
        &ended,
        &["--connection-string-file", "ARC_RELAY_CONNECTION_STRING"],
    );
}

#[tokio::test]
async fn a_token_that_can_not_work() {
    let installation = Installation::prepare().await;
    let _relay = installation.start_relay(0).await;
    let _agent = installation.start_agent().await;

    installation.write("token", "an-unknown-token");
    let ended = proxy(&installation, &[]).await;
    assert_refused(&ended, &["401", "kubectl create token"]);
    assert!(
        !ended.stderr.contains("an-unknown-token"),
        "{}",
        ended.stderr
    );

    // {"alg":"none"} . {"exp":1000000000} . signature
    installation.write("token", "eyJhbGciOiJub25lIn0.eyJleHAiOjEwMDAwMDAwMDB9.c2ln");
    let ended = proxy(&installation, &[]).await;
    assert_refused(&ended, &["expired", "kubectl create token"]);

    installation.write("token", "");
    assert_refused(&proxy(&installation, &[]).await, &["empty"]);
    assert_refused(
        &proxy(&installation, &["--token-file", "no-such-file"]).await,
        &["no-such-file"],
    );
    let ended = programs::run(
        "arc-connect",
        &[
            "proxy",
            "--connection-string-file",
            &installation.argument("relay"),
        ],
    )
    .await;
    assert_refused(&ended, &["token", "--token-file"]);
    assert!(!installation.path("kubeconfig").exists());
}

#[tokio::test]
async fn a_port_that_is_taken() {
    let installation = Installation::prepare().await;
    let _relay = installation.start_relay(0).await;
    let _agent = installation.start_agent().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();

    let ended = proxy(&installation, &["--port", &port]).await;
    assert_refused(&ended, &[&port, "--port"]);
    assert!(!installation.path("kubeconfig").exists());
}

#[tokio::test]
async fn a_kubeconfig_that_can_not_take_the_context() {
    let installation = Installation::prepare().await;
    let _relay = installation.start_relay(0).await;
    let _agent = installation.start_agent().await;

    fs::create_dir(installation.path("directory")).unwrap();
    let ended = proxy(
        &installation,
        &["--file", &installation.argument("directory")],
    )
    .await;
    assert_refused(&ended, &["directory"]);

    installation.write("kubeconfig", "a: b: c: not YAML\n");
    assert_refused(&proxy(&installation, &[]).await, &["kubeconfig", "YAML"]);
    assert_eq!(
        fs::read_to_string(installation.path("kubeconfig")).unwrap(),
        "a: b: c: not YAML\n"
    );

    installation.write("kubeconfig", "apiVersion: v1\nkind: Config\n");
    fs::set_permissions(
        installation.path("kubeconfig"),
        fs::Permissions::from_mode(0o400),
    )
    .unwrap();
    assert_refused(&proxy(&installation, &[]).await, &["read-only"]);
    fs::set_permissions(
        installation.path("kubeconfig"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();

    installation.write("kubeconfig.lock", "");
    assert_refused(&proxy(&installation, &[]).await, &["kubeconfig.lock"]);
    assert_eq!(
        fs::read_to_string(installation.path("kubeconfig")).unwrap(),
        "apiVersion: v1\nkind: Config\n"
    );
    assert!(
        installation.path("kubeconfig.lock").exists(),
        "the lock is another's"
    );
}

#[tokio::test]
async fn a_relay_with_a_certificate_of_its_own() {
    let installation = Installation::prepare().await;
    let certificate = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    installation.write("relay.crt", &certificate.cert.pem());
    installation.write("relay.pem", &certificate.signing_key.serialize_pem());
    let relay = programs::Program::start(
        "arc-relay",
        installation.directory(),
        &[
            "--listen",
            "127.0.0.1:0",
            "--hybrid-connection",
            NAME,
            "--sas-rule",
            "root:key:listen,send",
            "--tls-cert",
            &installation.argument("relay.crt"),
            "--tls-key",
            &installation.argument("relay.pem"),
        ],
    )
    .await;
    let address = relay.ready()["address"].as_str().unwrap();
    installation.write(
        "relay",
        &connection_string(&format!("sb://{address}/"), "key"),
    );

    assert_refused(
        &proxy(&installation, &[]).await,
        &["certificate", "CA file"],
    );

    let ca = installation.argument("relay.crt");
    let ended = proxy(&installation, &["--relay-ca", &ca]).await;
    assert_refused(&ended, &["no listener"]);

    let ended = proxy(
        &installation,
        &["--relay-ca", &installation.argument("token")],
    )
    .await;
    assert_refused(&ended, &["token", "CA"]);
}

#[tokio::test]
async fn an_agent_that_can_not_start() {
    let installation = Installation::prepare().await;
    let _relay = installation.start_relay(0).await;
    let relay = installation.argument("relay");
    let cluster = installation.argument("cluster");
    let agent = |arguments: Vec<&str>| {
        let mut all = vec!["--connection-string-file", &relay];
        all.extend(arguments);
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        async move {
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            programs::run("arc-agent", &all).await
        }
    };

    let nobody = agent(vec!["--kubeconfig", &cluster]).await;
    assert_refused(&nobody, &["--allow-service-account-tokens"]);

    let allow = "--allow-service-account-tokens";
    let no_cluster = agent(vec![allow]).await;
    assert_refused(&no_cluster, &["pass a kubeconfig"]);

    let no_context = agent(vec![allow, "--kubeconfig", &cluster, "--context", "nope"]).await;
    assert_refused(&no_context, &["nope"]);

    installation.stand_in.kill().await;
    let no_server = agent(vec![allow, "--kubeconfig", &cluster]).await;
    assert_refused(&no_server, &["API server", "127.0.0.1"]);
}

#[tokio::test]
async fn a_relay_that_is_to_be_slow_in_no_way_that_there_is() {
    for (flag, value, part) in [
        ("--emulate", "aws", "azure"),
        (
            "--delay",
            "30ms",
            "'30ms' is not a whole number of milliseconds",
        ),
        ("--dial-hold", "-1", "--dial-hold"),
        ("--spike", "20", "write it like 20:3000..7000"),
        ("--spike", "20:7..3", "ends before it begins"),
        ("--rate", "fast", "14 or 0.5"),
        ("--buffer", "1.5", "whole number of MiB"),
        ("--recycle-after", "0", "--recycle-after"),
    ] {
        let ended = programs::run(
            "arc-relay",
            &[
                "--listen",
                "127.0.0.1:0",
                "--hybrid-connection",
                NAME,
                "--sas-rule",
                "root:key:listen,send",
                &format!("{flag}={value}"),
            ],
        )
        .await;
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        assert!(ended.stderr.contains(flag), "{}", ended.stderr);
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}
