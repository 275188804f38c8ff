//! The credentials that `azure_identity` has, over our connections and programs.

use std::sync::Arc;

use azure_core::{
    Result,
    cloud::CustomConfiguration,
    credentials::{Secret, TokenCredential},
    http::{ClientOptions, Transport},
};
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, AzureDeveloperCliCredential,
    AzureDeveloperCliCredentialOptions, AzurePipelinesCredential, AzurePipelinesCredentialOptions,
    ClientAssertionCredentialOptions, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};

use super::{
    ClientId, CredentialSettings, ManagedIdentity, command::Command, transport::ConnectorTransport,
};
use crate::auth::TenantId;

type Credential = Result<Arc<dyn TokenCredential>>;

pub(super) fn azure_cli(settings: &CredentialSettings) -> Credential {
    azure_cli_with(settings, Command::default())
}

pub(super) fn azure_cli_with(settings: &CredentialSettings, command: Command) -> Credential {
    let credential = AzureCliCredential::new(Some(AzureCliCredentialOptions {
        tenant_id: settings.tenant.map(|tenant| tenant.to_string()),
        executor: Some(Arc::new(command)),
        ..Default::default()
    }))?;
    Ok(credential)
}

pub(super) fn azure_developer_cli(settings: &CredentialSettings) -> Credential {
    azure_developer_cli_with(settings, Command::default())
}

pub(super) fn azure_developer_cli_with(
    settings: &CredentialSettings,
    command: Command,
) -> Credential {
    let credential = AzureDeveloperCliCredential::new(Some(AzureDeveloperCliCredentialOptions {
        tenant_id: settings.tenant.map(|tenant| tenant.to_string()),
        executor: Some(Arc::new(command)),
    }))?;
    Ok(credential)
}

pub(super) fn workload_identity(settings: &CredentialSettings) -> Credential {
    let environment = &settings.environment;
    let credential = WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
        credential_options: assertion_options(settings),
        client_id: environment.get("AZURE_CLIENT_ID"),
        tenant_id: environment.get("AZURE_TENANT_ID"),
        token_file_path: environment
            .get("AZURE_FEDERATED_TOKEN_FILE")
            .map(Into::into),
    }))?;
    Ok(credential)
}

pub(super) fn managed_identity(
    settings: &CredentialSettings,
    identity: &ManagedIdentity,
) -> Credential {
    let user_assigned_id = match identity {
        ManagedIdentity::SystemAssigned => None,
        ManagedIdentity::ClientId(id) => Some(UserAssignedId::ClientId(id.to_string())),
        ManagedIdentity::ObjectId(id) => Some(UserAssignedId::ObjectId(id.clone())),
        ManagedIdentity::ResourceId(id) => Some(UserAssignedId::ResourceId(id.clone())),
    };
    let credential = ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
        user_assigned_id,
        client_options: client_options(settings),
    }))?;
    Ok(credential)
}

pub(super) fn azure_pipelines(
    settings: &CredentialSettings,
    tenant: TenantId,
    client: ClientId,
    service_connection: &str,
    access_token: String,
) -> Credential {
    let credential = AzurePipelinesCredential::new(
        tenant.to_string(),
        client.to_string(),
        service_connection,
        Secret::new(access_token),
        Some(AzurePipelinesCredentialOptions {
            credential_options: assertion_options(settings),
        }),
    )?;
    Ok(credential)
}

fn assertion_options(settings: &CredentialSettings) -> ClientAssertionCredentialOptions {
    ClientAssertionCredentialOptions {
        client_options: client_options(settings),
    }
}

/// The transport is never left out: without one the library's constructors panic.
fn client_options(settings: &CredentialSettings) -> ClientOptions {
    let mut cloud = CustomConfiguration::default();
    settings
        .cloud
        .authority()
        .clone_into(&mut cloud.authority_host);
    ClientOptions {
        transport: Some(Transport::new(Arc::new(ConnectorTransport::new(settings)))),
        cloud: Some(Arc::new(cloud.into())),
        ..Default::default()
    }
}
