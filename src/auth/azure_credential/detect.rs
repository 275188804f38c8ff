//! [`detect`]: the first way to sign in that is there.

use std::time::Duration;

use azure_core::credentials::TokenCredential;

use super::{AzureCredential, ClientId, CredentialKind, CredentialSettings, ManagedIdentity};
use crate::{
    Error, ErrorKind, Result,
    auth::{
        TenantId,
        aad::{ARC_SERVER_SCOPE, own_error},
    },
};

/// How long a tool may take to give a token. `az` needs some seconds when the machine is busy.
const TOOL_LIMIT: Duration = Duration::from_secs(30);
/// How long a virtual machine's endpoint may take. It is on the machine's own link, or nowhere.
const MACHINE_LIMIT: Duration = Duration::from_secs(3);

pub(super) async fn detect(settings: &CredentialSettings) -> Result<AzureCredential> {
    if let Some(credential) = of_environment(settings)? {
        tracing::info!(kind = %credential.kind(), "signing in as the environment says");
        return Ok(credential);
    }
    let identity = user_assigned(settings)?;
    let candidates = [
        (AzureCredential::azure_cli(settings), TOOL_LIMIT),
        (AzureCredential::azure_developer_cli(settings), TOOL_LIMIT),
        (
            AzureCredential::managed_identity(settings, &identity),
            MACHINE_LIMIT,
        ),
    ];
    first_that_works(candidates).await
}

/// What the environment asks for. Not tried: an error there is to be seen, and not hidden by another identity.
fn of_environment(settings: &CredentialSettings) -> Result<Option<AzureCredential>> {
    let environment = &settings.environment;
    let has = |name| environment.get(name).is_some();
    if let (Some(tenant), Some(client)) = (
        environment.get("AZURE_TENANT_ID"),
        environment.get("AZURE_CLIENT_ID"),
    ) {
        let (tenant, client) = (TenantId::parse(&tenant)?, ClientId::parse(&client)?);
        if let Some(secret) = environment.get("AZURE_CLIENT_SECRET") {
            return AzureCredential::client_secret(settings, tenant, client, secret).map(Some);
        }
        if let Some(path) = environment.get("AZURE_CLIENT_CERTIFICATE_PATH") {
            let pem = std::fs::read_to_string(&path).map_err(|error| {
                Error::new(
                    ErrorKind::File,
                    format!("the client certificate {path} can not be read"),
                )
                .with_source(error)
                .with_help("correct AZURE_CLIENT_CERTIFICATE_PATH; the file must be PEM")
            })?;
            return AzureCredential::client_certificate(settings, tenant, client, &pem).map(Some);
        }
    }
    if has("AZURE_FEDERATED_TOKEN_FILE") {
        return AzureCredential::workload_identity(settings).map(Some);
    }
    // With MSI_ENDPOINT alone this is Cloud Shell, where the Azure CLI is logged in.
    if has("IDENTITY_ENDPOINT") && (has("IDENTITY_HEADER") || has("IMDS_ENDPOINT")) {
        let identity = user_assigned(settings)?;
        return AzureCredential::managed_identity(settings, &identity).map(Some);
    }
    Ok(None)
}

fn user_assigned(settings: &CredentialSettings) -> Result<ManagedIdentity> {
    match settings.environment.get("AZURE_CLIENT_ID") {
        Some(id) => ClientId::parse(&id).map(ManagedIdentity::ClientId),
        None => Ok(ManagedIdentity::SystemAssigned),
    }
}

pub(super) async fn first_that_works<const N: usize>(
    candidates: [(Result<AzureCredential>, Duration); N],
) -> Result<AzureCredential> {
    let mut reasons = Vec::new();
    for (candidate, limit) in candidates {
        let outcome = match candidate {
            Ok(candidate) => trial(&candidate, limit).await.map(|()| candidate),
            Err(error) => Err(error.report()),
        };
        match outcome {
            Ok(credential) => {
                tracing::info!(kind = %credential.kind(), "signed in");
                return Ok(credential);
            }
            Err(reason) => reasons.push(reason),
        }
    }
    Err(Error::new(
        ErrorKind::Unauthorized,
        format!("nobody is signed in: {}", reasons.join("; ")),
    )
    .with_help(
        "log in with `az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
    ))
}

async fn trial(credential: &AzureCredential, limit: Duration) -> Result<(), String> {
    let token = credential.get_token(&[ARC_SERVER_SCOPE], None);
    match tokio::time::timeout(limit, token).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(own_error(&error).map_or_else(|| error.to_string(), Error::report)),
        Err(_) => Err(match credential.kind() {
            CredentialKind::ManagedIdentity => {
                "this is no virtual machine of Azure with a managed identity".to_owned()
            }
            kind => format!("{kind} did not answer within {limit:?}"),
        }),
    }
}
