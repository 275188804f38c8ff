//! Relay, agent and client as three processes, and a real kubectl: what the README walks through.

mod support;

use std::{fs, time::Duration};

use support::{
    api_server::ListFault,
    installation::{Installation, NAME, POD, Programs, port},
    kubectl::{self, Transport},
    programs, scenarios,
};

/// Enough to go through every window and buffer of the path many times over.
const BULK_BYTES: usize = 64 << 20;

#[tokio::test]
async fn kubectl_works_over_websocket() {
    every_scenario("kubectl_works_over_websocket", Transport::WebSocket).await;
}

#[tokio::test]
async fn kubectl_works_over_spdy() {
    every_scenario("kubectl_works_over_spdy", Transport::Spdy).await;
}

async fn every_scenario(test: &str, transport: Transport) {
    if !kubectl::is_installed(test) {
        return;
    }
    let installation = Installation::prepare().await;
    let path = installation.start_all().await;
    let kubectl = installation.kubectl(&path.proxy).with_transport(transport);
    scenarios::all(&kubectl, POD).await;

    // The caller's own token, and nothing else, reached the API server.
    for request in installation.stand_in.requests() {
        let authorization: Vec<_> = request.headers.get_all("authorization").iter().collect();
        assert_eq!(
            authorization,
            [format!("Bearer {}", installation.token).as_str()]
        );
    }
}

#[tokio::test]
async fn sixty_four_mebibytes_arrive_byte_for_byte() {
    if !kubectl::is_installed("sixty_four_mebibytes_arrive_byte_for_byte") {
        return;
    }
    let installation = Installation::prepare().await;
    let path = installation.start_all().await;
    let kubectl = installation.kubectl(&path.proxy);

    let payload = noise(BULK_BYTES);
    let echoed = kubectl
        .run_with_input(&["exec", "-i", POD, "--", "cat"], &payload)
        .await
        .succeeded();
    assert_eq!(echoed.stdout.len(), payload.len());
    assert!(echoed.stdout == payload, "the bytes differ");
}

#[tokio::test]
async fn exec_passes_the_exit_code_on_and_leaves_nothing_behind() {
    if !kubectl::is_installed("exec_passes_the_exit_code_on_and_leaves_nothing_behind") {
        return;
    }
    let installation = Installation::prepare().await;
    let _relay = installation.start_relay(0).await;
    let _agent = installation.start_agent().await;
    let home = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let exec = |command: &[&str]| {
        let mut exec = programs::command(
            "arc-connect",
            &[
                "exec",
                "--connection-string-file",
                &installation.argument("relay"),
                "--token-file",
                &installation.argument("token"),
                "--",
            ],
        );
        exec.args(command)
            .env("HOME", home.path())
            .env("TMPDIR", scratch.path());
        programs::run_command(exec)
    };

    let listed = exec(&["kubectl", "--cache-dir", "/dev/null", "get", "pods"]).await;
    assert_eq!(listed.status.code(), Some(0), "{listed:?}");
    assert!(listed.stdout.contains(POD), "{listed:?}");

    let failed = exec(&["sh", "-c", "test -f \"$KUBECONFIG\" && exit 42"]).await;
    assert_eq!(failed.status.code(), Some(42), "{failed:?}");

    let missing = exec(&["no-such-program-anywhere"]).await;
    assert_eq!(missing.status.code(), Some(127), "{missing:?}");

    assert!(!home.path().join(".kube").join("config").exists());
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_restarted_relay_finds_agent_and_client_again() {
    if !kubectl::is_installed("a_restarted_relay_finds_agent_and_client_again") {
        return;
    }
    let installation = Installation::prepare().await;
    let Programs {
        relay,
        agent: _agent,
        proxy,
    } = installation.start_all().await;
    let kubectl = installation.kubectl(&proxy);
    scenarios::get_pods(&kubectl, POD).await;

    let port = port(&relay);
    relay.kill().await;
    let cut_off = kubectl.run(&["get", "pods", "--request-timeout=5s"]).await;
    assert_ne!(cut_off.code, Some(0), "there is no way to the cluster now");

    let _relay = installation.start_relay(port).await;
    scenarios::get_pods(&kubectl, POD).await;
}

#[tokio::test]
async fn a_list_that_breaks_off_is_an_error() {
    if !kubectl::is_installed("a_list_that_breaks_off_is_an_error") {
        return;
    }
    let installation = Installation::prepare().await;
    let path = installation.start_all().await;
    let kubectl = installation.kubectl(&path.proxy);

    let faults = installation.stand_in.faults();
    faults.set_list(Some(ListFault::AbortAfter(300_000)));
    let list = ["get", "pods", "-n", "big", "--chunk-size=0", "-o", "name"];
    let short = kubectl.run(&list).await;
    assert_ne!(
        short.code,
        Some(0),
        "{} lines",
        short.text().lines().count()
    );

    faults.set_list(None);
    let whole = kubectl.run(&list).await.succeeded();
    assert_eq!(whole.text().lines().count(), 20_000);
}

#[tokio::test]
async fn a_killed_api_server_is_an_error_and_not_a_short_list() {
    if !kubectl::is_installed("a_killed_api_server_is_an_error_and_not_a_short_list") {
        return;
    }
    let installation = Installation::prepare().await;
    let path = installation.start_all().await;
    let kubectl = installation.kubectl(&path.proxy);

    let faults = installation.stand_in.faults();
    faults.set_list(Some(ListFault::StallAfter(300_000)));
    let list = tokio::spawn(async move {
        kubectl
            .run(&["get", "pods", "-n", "big", "--chunk-size=0", "-o", "name"])
            .await
    });
    while installation.stand_in.live_requests() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    installation.stand_in.kill().await;
    let short = list.await.unwrap();
    assert_ne!(
        short.code,
        Some(0),
        "{} lines",
        short.text().lines().count()
    );
    assert!(short.stdout.is_empty(), "half a list was printed");
}

#[tokio::test]
async fn the_kubeconfig_is_put_back_when_the_proxy_ends() {
    let installation = Installation::prepare().await;
    let before = "apiVersion: v1\nkind: Config\n# mine\ncurrent-context: ''\n";
    installation.write("kubeconfig", before);
    let Programs {
        relay,
        agent,
        proxy,
    } = installation.start_all().await;

    let merged = fs::read_to_string(installation.path("kubeconfig")).unwrap();
    assert!(
        merged.contains(&format!("current-context: {NAME}")),
        "{merged}"
    );
    assert!(
        !merged.contains(&installation.token),
        "the caller's token is in the file"
    );

    let ended = proxy.terminate().await;
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(
        fs::read_to_string(installation.path("kubeconfig")).unwrap(),
        before
    );

    assert!(agent.terminate().await.status.success());
    assert!(relay.terminate().await.status.success());
}

/// Bytes without a pattern that a buffer's size could hide in.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
