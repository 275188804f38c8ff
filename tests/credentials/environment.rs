//! Where the environment says who this is: pods, pipelines, Azure's own services. Each in a process of its own, because
//! a process has one environment.

use std::{net::SocketAddr, process::Output};

use arc_cluster_connect::{
    auth::{AzureCredential, Cloud, CredentialKind, CredentialSettings, ManagedIdentity},
    net::{Connector, TrustRoots},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    authority::{AUDIENCE, TENANT},
    bed::{Bed, CLIENT, assert_is_for_the_cluster, client, tenant, token},
};

/// The program of the children: what it does is told by its environment.
#[tokio::test]
#[ignore = "started by the other tests of this file"]
async fn child() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let roots = TrustRoots::only_pem(variable("TEST_CA").as_bytes()).unwrap();
    let settings = CredentialSettings::new(Connector::new(roots).unwrap())
        .with_cloud(Cloud::custom(&variable("TEST_AUTHORITY")).unwrap());
    let credential = match variable("TEST_CREDENTIAL").as_str() {
        "workload" => AzureCredential::workload_identity(&settings).unwrap(),
        "machine" => {
            let identity = ManagedIdentity::ClientId(client());
            AzureCredential::managed_identity(&settings, &identity).unwrap()
        }
        "pipeline" => AzureCredential::azure_pipelines(
            &settings,
            tenant(),
            client(),
            "service-connection",
            "hush-job",
        )
        .unwrap(),
        _ => AzureCredential::detect(&settings).await.unwrap(),
    };
    match variable("TEST_KIND").as_str() {
        "workload" => assert_eq!(credential.kind(), CredentialKind::WorkloadIdentity),
        "machine" => assert_eq!(credential.kind(), CredentialKind::ManagedIdentity),
        "cli" => assert_eq!(credential.kind(), CredentialKind::AzureCli),
        _ => assert_eq!(credential.kind(), CredentialKind::AzurePipelines),
    }
    let token = token(&credential).await.unwrap();
    if token.secret() != "token-of-the-machine" {
        assert_is_for_the_cluster(&token);
    }
    println!("the child has a token");
}

async fn run(bed: &Bed, variables: &[(&str, &str)]) -> Output {
    tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "environment::child", "--ignored", "--nocapture"])
        .env("TEST_CA", bed.authority.ca_pem())
        .env("TEST_AUTHORITY", bed.authority.url())
        .envs(variables.iter().copied())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

async fn succeeds(bed: &Bed, variables: &[(&str, &str)]) {
    let output = run(bed, variables).await;
    let shown = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(shown.contains("the child has a token"), "{shown}{errors}");
}

#[tokio::test]
async fn a_pod_signs_in_with_its_service_account() {
    let bed = Bed::new().await;
    bed.authority
        .token_endpoint(|endpoint| endpoint.federated(CLIENT, "token-of-the-pod"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "token-of-the-pod").unwrap();
    let path = file.path().to_str().unwrap();
    for credential in ["workload", "detect"] {
        let variables = [
            ("TEST_CREDENTIAL", credential),
            ("TEST_KIND", "workload"),
            ("AZURE_TENANT_ID", TENANT),
            ("AZURE_CLIENT_ID", CLIENT),
            ("AZURE_FEDERATED_TOKEN_FILE", path),
        ];
        succeeds(&bed, &variables).await;
    }
    let asked = bed.requests().pop().unwrap();
    assert!(asked.headers.contains_key("client-request-id"));
}

#[tokio::test]
async fn an_app_service_has_an_identity() {
    let bed = Bed::new().await;
    let body = r#"{"access_token":"token-of-the-machine","expires_on":"4000000000","resource":"r","token_type":"Bearer"}"#;
    let (address, mut questions) = plain_server(body).await;
    let variables = [
        ("TEST_CREDENTIAL", "machine"),
        ("TEST_KIND", "machine"),
        ("IDENTITY_ENDPOINT", &format!("http://{address}/msi/token")),
        ("IDENTITY_HEADER", "hush-header"),
        // A corporate proxy has no business with it.
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
        ("HTTP_PROXY", "http://127.0.0.1:1"),
    ];
    succeeds(&bed, &variables).await;
    let question = questions.recv().await.unwrap();
    assert!(question.starts_with("GET /msi/token?"), "{question}");
    assert!(
        question.contains(&format!("resource={AUDIENCE}")),
        "{question}"
    );
    assert!(
        question.contains(&format!("client_id={CLIENT}")),
        "{question}"
    );
    assert!(
        question
            .to_lowercase()
            .contains("x-identity-header: hush-header")
    );
}

#[tokio::test]
async fn a_pipeline_signs_in_with_its_service_connection() {
    let bed = Bed::new().await;
    bed.authority
        .token_endpoint(|endpoint| endpoint.federated(CLIENT, "token-of-the-pipeline"));
    let (address, mut questions) = plain_server(r#"{"oidcToken":"token-of-the-pipeline"}"#).await;
    let endpoint = format!("http://{address}/oidc");
    let variables = [
        ("TEST_CREDENTIAL", "pipeline"),
        ("TEST_KIND", "pipeline"),
        ("SYSTEM_OIDCREQUESTURI", endpoint.as_str()),
    ];
    succeeds(&bed, &variables).await;
    let question = questions.recv().await.unwrap();
    assert!(question.starts_with("POST /oidc?"), "{question}");
    assert!(question.contains("serviceConnectionId=service-connection"));
    assert!(question.contains("Bearer hush-job"));
}

/// The tool's own command line is the library's; that it is found and its answer read, is ours.
#[cfg(unix)]
#[tokio::test]
async fn whoever_is_logged_in_to_the_azure_cli_is_found() {
    use std::os::unix::fs::PermissionsExt;

    let bed = Bed::new().await;
    let directory = tempfile::tempdir().unwrap();
    let token = bed
        .authority
        .user(
            "alice@contoso.example",
            "0ab1c2d3-0000-4000-8000-00000000abcd",
        )
        .sign();
    let az = directory.path().join("az");
    let script = format!(
        "#!/bin/sh\necho '{{\"accessToken\":\"{token}\",\"expires_on\":4000000000,\"tokenType\":\"Bearer\"}}'\n"
    );
    std::fs::write(&az, script).unwrap();
    std::fs::set_permissions(&az, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", directory.path().display());
    let variables = [
        ("TEST_CREDENTIAL", "detect"),
        ("TEST_KIND", "cli"),
        ("PATH", path.as_str()),
        // Cloud Shell: its own endpoint is not asked, the Azure CLI there is logged in.
        ("MSI_ENDPOINT", "http://127.0.0.1:1/oauth2/token"),
    ];
    succeeds(&bed, &variables).await;
}

/// Serves this JSON over plain HTTP to everybody, and tells what was asked.
async fn plain_server(
    body: &'static str,
) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, questions) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut request = vec![0; 64 * 1024];
            let length = tcp.read(&mut request).await.unwrap_or(0);
            let _ = asked.send(String::from_utf8_lossy(&request[..length]).into_owned());
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = tcp.write_all(answer.as_bytes()).await;
            let _ = tcp.shutdown().await;
        }
    });
    (address, questions)
}
