//! `arc-connect status` beside the proxies that it tells of.

mod support;

use std::process::Stdio;

use serde_json::Value;
use support::{
    installation::{Installation, NAME},
    programs::{self, Ended, PATIENCE, Program},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

fn status(installation: &Installation, arguments: &[&str]) -> Command {
    let mut command = programs::command("arc-connect", &["status"]);
    command
        .args(arguments)
        .env("XDG_RUNTIME_DIR", installation.directory());
    command
}

async fn table(installation: &Installation) -> Ended {
    programs::run_command(status(installation, &[])).await
}

async fn json(installation: &Installation) -> Value {
    let ended = programs::run_command(status(installation, &["--json"])).await;
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.stderr.is_empty(), "{ended:?}");
    serde_json::from_str(&ended.stdout).expect("JSON alone")
}

fn secret(installation: &Installation) -> String {
    let kubeconfig = std::fs::read_to_string(installation.path("kubeconfig")).unwrap();
    let line = kubeconfig
        .lines()
        .find_map(|line| line.trim().strip_prefix("token: "));
    line.expect("a kubeconfig with a token")
        .trim_matches('"')
        .to_owned()
}

#[tokio::test]
async fn running_proxies_are_shown_and_dead_ones_are_not() {
    let installation = Installation::prepare().await;
    let ended = table(&installation).await;
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.stdout, "");
    assert!(
        ended.stderr.contains("no proxy of yours is running"),
        "{ended:?}"
    );
    assert_eq!(json(&installation).await["proxies"], Value::Array(vec![]));

    let path = installation.start_all().await;
    let second: Program = installation.start_proxy().await;
    let addresses = [&path.proxy, &second].map(|proxy| proxy.ready()["address"].clone());

    let ended = table(&installation).await;
    assert!(ended.status.success(), "{ended:?}");
    for address in &addresses {
        let address = address.as_str().unwrap();
        let line = ended.stdout.lines().find(|line| line.contains(address));
        let line = line.unwrap_or_else(|| panic!("{address} is missing: {}", ended.stdout));
        assert!(line.contains(NAME) && line.contains("connected"), "{line}");
        assert!(line.contains(" ms"), "{line}");
    }

    let told = json(&installation).await;
    let proxies = told["proxies"].as_array().unwrap();
    assert_eq!(proxies.len(), 2, "{told}");
    let cluster = &proxies[0]["clusters"][0];
    assert_eq!(cluster["name"], NAME);
    assert_eq!(cluster["tunnel"]["state"], "connected");
    assert_eq!(proxies[0]["error"], Value::Null);
    let secret = secret(&installation);
    assert!(!told.to_string().contains(&secret));
    assert!(!ended.stdout.contains(&secret));

    // One is killed, which leaves its record; the other ends, which does not.
    path.proxy.kill().await;
    let told = json(&installation).await;
    assert_eq!(told["proxies"].as_array().unwrap().len(), 1, "{told}");
    assert_eq!(told["proxies"][0]["address"], addresses[1]);
    assert!(second.terminate().await.status.success());
    assert_eq!(json(&installation).await["proxies"], Value::Array(vec![]));
}

#[tokio::test]
async fn a_watched_status_is_a_line_each_second_until_it_is_ended() {
    let installation = Installation::prepare().await;
    let path = installation.start_all().await;
    let mut watching = status(&installation, &["--json", "--watch"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = timeout(PATIENCE, lines.next_line()).await.expect("a line");
        serde_json::from_str::<Value>(&line.unwrap().expect("a line")).expect("JSON")
    };
    let state = |told: &Value| told["proxies"][0]["clusters"][0]["tunnel"]["state"].clone();
    assert_eq!(state(&next().await), "connected");
    path.relay.kill().await;
    while state(&next().await) == "connected" {}
    path.proxy.kill().await;
    while next().await["proxies"] != Value::Array(vec![]) {}

    // Nobody reads any more: it ends by itself.
    drop(lines);
    let ended = timeout(PATIENCE, watching.wait()).await.expect("it ends");
    assert!(ended.unwrap().success());
}
