//! The agent's own identity at Entra ID: the flags, and the credential that they make of it.

use std::path::{Path, PathBuf};

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    agent::{Cloud, TenantId},
    auth::{AzureCredential, ClientId, CredentialSettings, ManagedIdentity},
    net::ProxySettings,
};
use clap::{Args, ValueEnum};

use super::{
    common,
    entra::{EntraArguments, cloud},
};

#[derive(Args)]
#[command(next_help_heading = "The agent's own identity at Entra ID")]
pub struct IdentityArguments {
    /// How the agent itself signs in to Entra ID, for --relay and for --entra-groups. `workload-identity` is that of its
    /// pod, `managed-identity` that of its machine
    #[arg(long, value_name = "METHOD")]
    identity: Option<Method>,

    /// Tenant of the agent's application; without it, that of --entra-tenant
    #[arg(long, value_name = "ID", requires = "identity")]
    identity_tenant: Option<String>,

    /// The agent's application, or a user-assigned managed identity
    #[arg(long, value_name = "ID", requires = "identity")]
    identity_client_id: Option<String>,

    /// File with the secret of the agent's application
    #[arg(long, value_name = "FILE", requires = "identity")]
    identity_secret_file: Option<PathBuf>,

    /// File with the certificate of the agent's application and its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "identity")]
    identity_certificate_file: Option<PathBuf>,

    /// Sign-in address for the agent itself; without it, that of --entra-authority, else of Azure's public cloud
    #[arg(long, value_name = "URL", requires = "identity")]
    identity_authority: Option<String>,

    /// Certificate authority (PEM) of that address, if no public one vouches for it; without it, that of --entra-ca
    #[arg(long, value_name = "FILE", requires = "identity")]
    identity_ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Method {
    ClientSecret,
    ClientCertificate,
    WorkloadIdentity,
    ManagedIdentity,
}

impl IdentityArguments {
    /// The credential, if one is asked for. What is not said here is as for the callers.
    pub fn credential(
        &self,
        callers: &EntraArguments,
        proxy: &ProxySettings,
    ) -> Result<Option<AzureCredential>> {
        let Some(method) = self.identity else {
            return Ok(None);
        };
        self.check_files(method)?;
        let settings = self.settings(callers, proxy)?;
        let credential = match method {
            Method::ClientSecret => {
                let file = required(&self.identity_secret_file, "--identity-secret-file FILE")?;
                let secret = read(file, "secret")?;
                let (tenant, client) = (self.tenant(callers)?, self.client()?);
                // An editor ends the file with a line break, which is no part of a secret.
                AzureCredential::client_secret(&settings, tenant, client, secret.trim_end())
            }
            Method::ClientCertificate => {
                let file = required(
                    &self.identity_certificate_file,
                    "--identity-certificate-file FILE",
                )?;
                let pem = read(file, "certificate")?;
                let (tenant, client) = (self.tenant(callers)?, self.client()?);
                AzureCredential::client_certificate(&settings, tenant, client, &pem)
            }
            Method::WorkloadIdentity => AzureCredential::workload_identity(&settings),
            Method::ManagedIdentity => {
                let identity = match &self.identity_client_id {
                    Some(id) => ManagedIdentity::ClientId(ClientId::parse(id)?),
                    None => ManagedIdentity::SystemAssigned,
                };
                AzureCredential::managed_identity(&settings, &identity)
            }
        };
        credential.map(Some)
    }

    /// A file that the method has no use for is a mistake, perhaps of the method.
    fn check_files(&self, method: Method) -> Result<()> {
        for (file, flag, user) in [
            (
                &self.identity_secret_file,
                "--identity-secret-file",
                Method::ClientSecret,
            ),
            (
                &self.identity_certificate_file,
                "--identity-certificate-file",
                Method::ClientCertificate,
            ),
        ] {
            if file.is_some() && method != user {
                return Err(invalid(
                    format!("{flag} is of no use with this --identity"),
                    "pass --identity client-secret or client-certificate, or leave the file away",
                ));
            }
        }
        Ok(())
    }

    fn settings(
        &self,
        callers: &EntraArguments,
        proxy: &ProxySettings,
    ) -> Result<CredentialSettings> {
        let ca = self.identity_ca.as_deref().or(callers.ca());
        let authority = self.identity_authority.as_deref().or(callers.authority());
        let connector = common::connector(ca)?.with_proxy(proxy.clone());
        let settings = CredentialSettings::new(connector);
        Ok(settings.with_cloud(match authority {
            Some(authority) => cloud(authority)?,
            None => Cloud::public(),
        }))
    }

    fn tenant(&self, callers: &EntraArguments) -> Result<TenantId> {
        match self.identity_tenant.as_deref().or(callers.tenant()) {
            Some(tenant) => TenantId::parse(tenant),
            None => Err(missing("--identity-tenant ID")),
        }
    }

    fn client(&self) -> Result<ClientId> {
        match &self.identity_client_id {
            Some(id) => ClientId::parse(id),
            None => Err(missing("--identity-client-id ID")),
        }
    }
}

fn required<'a>(file: &'a Option<PathBuf>, flag: &'static str) -> Result<&'a Path> {
    file.as_deref().ok_or_else(|| missing(flag))
}

fn missing(flag: &'static str) -> Error {
    invalid(
        "the agent's own identity is not complete",
        format!("pass {flag}"),
    )
}

fn invalid(
    message: impl Into<std::borrow::Cow<'static, str>>,
    help: impl Into<std::borrow::Cow<'static, str>>,
) -> Error {
    Error::new(ErrorKind::InvalidInput, message).with_help(help)
}

fn read(path: &Path, what: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        Error::new(
            ErrorKind::File,
            format!(
                "can not read the {what} of the agent's application in {}",
                path.display()
            ),
        )
        .with_source(error)
        .with_help("give a readable text file")
    })
}
