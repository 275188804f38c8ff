//! The tools, the environment, and the words of refusals. Sign-in itself: `tests/credentials.rs`.

use std::time::Duration;

use super::{command::Command, detect::first_that_works, *};
use crate::{
    auth::{AadAuth, AuthProvider, TokenRequest, aad::ARC_SERVER_SCOPE},
    net::{Connector, TrustRoots},
};

const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const CLIENT: &str = "b2b1c1f7-7d3f-4d7c-8ff2-6f5ec3f1b1aa";

fn settings(variables: &[(&str, &str)]) -> CredentialSettings {
    let connector = Connector::new(TrustRoots::platform()).unwrap();
    CredentialSettings::new(connector).with_environment(variables)
}

/// A directory with a program of this name.
#[cfg(unix)]
fn tool(name: &str, script: &str) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

#[cfg(unix)]
fn azure_cli(directory: &tempfile::TempDir) -> AzureCredential {
    let path = format!("{}:/usr/bin:/bin", directory.path().display());
    let credential = library::azure_cli_with(&settings(&[]), Command::with_path(path));
    AzureCredential::of_library(CredentialKind::AzureCli, credential).unwrap()
}

async fn token(credential: AzureCredential) -> Result<AccessToken> {
    let auth = AadAuth::new(Arc::new(credential));
    auth.token(&TokenRequest::new()).await
}

#[cfg(unix)]
#[tokio::test]
async fn the_azure_cli_gives_a_token() {
    let az = tool(
        "az",
        r#"echo "$@" > "$(dirname "$0")/asked"
echo '{"accessToken":"hush","expires_on":4000000000,"tokenType":"Bearer"}'"#,
    );
    let token = token(azure_cli(&az)).await.unwrap();
    assert_eq!(token.secret(), "hush");
    let asked = std::fs::read_to_string(az.path().join("asked")).unwrap();
    assert!(asked.starts_with("account get-access-token"), "{asked}");
    assert!(asked.contains(ARC_SERVER_SCOPE), "{asked}");
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_wrong_with_the_azure_cli_is_told() {
    let nowhere = tempfile::tempdir().unwrap();
    let path = nowhere.path().as_os_str();
    let missing = library::azure_cli_with(&settings(&[]), Command::with_path(path));
    let missing = AzureCredential::of_library(CredentialKind::AzureCli, missing).unwrap();
    let error = token(missing).await.expect_err("no az");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.help().unwrap().contains("install"), "{error:?}");

    let az = tool(
        "az",
        "echo \"ERROR: Please run 'az login' to setup account hush.\" >&2; exit 1",
    );
    let error = token(azure_cli(&az))
        .await
        .expect_err("nobody is logged in");
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.help().unwrap().contains("`az login`"));
    assert!(!format!("{error:?}").contains("hush"));

    let az = tool(
        "az",
        "echo 'ERROR: AADSTS50076: Due to a change by hush, you must use MFA' >&2; exit 1",
    );
    let error = token(azure_cli(&az)).await.expect_err("more is asked for");
    assert!(error.report().contains("AADSTS50076"), "{error:?}");
    assert!(error.help().unwrap().contains("az login --tenant"));
    assert!(!format!("{error:?}").contains("hush"));
}

#[cfg(unix)]
#[tokio::test]
async fn the_first_that_works_is_taken_and_all_are_named_otherwise() {
    let works = tool(
        "az",
        r#"echo '{"accessToken":"hush","expires_on":4000000000,"tokenType":"Bearer"}'"#,
    );
    let fails = tool("az", "exit 1");
    let limit = Duration::from_secs(20);
    let credential = first_that_works([
        (Ok(azure_cli(&fails)), limit),
        (Ok(azure_cli(&works)), limit),
    ])
    .await
    .unwrap();
    assert_eq!(token(credential).await.unwrap().secret(), "hush");

    let unusable = Err(Error::new(ErrorKind::InvalidInput, "unusable"));
    let error = first_that_works([(Ok(azure_cli(&fails)), limit), (unusable, limit)])
        .await
        .expect_err("none works");
    assert!(error.to_string().contains("`az` gave no token"), "{error}");
    assert!(error.to_string().contains("unusable"), "{error}");
    assert!(error.help().unwrap().contains("az login"));
}

#[tokio::test]
async fn what_the_environment_asks_for_is_taken_and_nothing_else() {
    let application = [("AZURE_TENANT_ID", TENANT), ("AZURE_CLIENT_ID", CLIENT)];
    let settings_of =
        |more: &[(&'static str, &'static str)]| settings(&[&application[..], more].concat());
    let secret = settings_of(&[("AZURE_CLIENT_SECRET", "hush")]);
    let credential = AzureCredential::detect(&secret).await.unwrap();
    assert_eq!(credential.kind(), CredentialKind::ClientSecret);

    let arc = [
        ("IDENTITY_ENDPOINT", "http://localhost:40342/x"),
        ("IMDS_ENDPOINT", "http://localhost:40342"),
    ];
    let credential = AzureCredential::detect(&settings(&arc)).await.unwrap();
    assert_eq!(credential.kind(), CredentialKind::ArcServer);

    // Broken: told, and not hidden by another identity.
    for more in [
        [("AZURE_CLIENT_CERTIFICATE_PATH", "/no/such/file")],
        [("AZURE_FEDERATED_TOKEN_FILE", "/no/such/file")],
    ] {
        let error = AzureCredential::detect(&settings_of(&more))
            .await
            .expect_err("broken");
        assert!(error.help().is_some(), "{error:?}");
    }
    let malformed = settings(&[
        ("AZURE_TENANT_ID", "contoso"),
        ("AZURE_CLIENT_ID", CLIENT),
        ("AZURE_CLIENT_SECRET", "hush"),
    ]);
    let error = AzureCredential::detect(&malformed)
        .await
        .expect_err("no id");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn correlation_ids_fit_into_a_header() {
    for id in ["", "a b", "a\r\nX-Evil: 1", "é", &"x".repeat(129)] {
        assert!(settings(&[]).with_correlation_id(id).is_err(), "{id}");
    }
    assert!(settings(&[]).with_correlation_id(&"x".repeat(128)).is_ok());
}

#[test]
fn every_piece_of_advice_is_reached_by_its_code() {
    for (code, word) in [
        ("AADSTS7000215", "not its id"),
        ("AADSTS7000222", "expired"),
        ("AADSTS90002", "tenant"),
        ("AADSTS50020", "--tenant"),
        ("AADSTS53003", "Conditional Access"),
        ("AADSTS700082", "az login"),
        ("AADSTS65001", "consent"),
        ("AADSTS700213", "federated"),
        ("AADSTS7000218", "public client"),
    ] {
        let kind = CredentialKind::ClientSecret;
        let error = refusal::refusal(kind, "scope", Some(400), Some(code), Some("x"));
        assert!(error.help().unwrap().contains(word), "{code}: {error:?}");
        assert!(error.to_string().contains(code));
    }
    let kind = CredentialKind::DeviceCode;
    let unknown = refusal::refusal(kind, "scope", None, None, Some("invalid_scope"));
    assert!(unknown.to_string().contains("invalid_scope"));
    assert_eq!(unknown.help(), Some("sign in again"));
}
