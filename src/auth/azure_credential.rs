//! [`AzureCredential`]: one way to sign in to Entra ID, out of all that Azure knows.

mod arc_server;
mod certificate;
mod client_credentials;
mod command;
mod detect;
mod device_code;
mod library;
mod refusal;
mod settings;
mod token_endpoint;
mod transport;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use azure_core::{
    credentials::{AccessToken as AzureToken, TokenCredential, TokenRequestOptions},
    error::ErrorKind as AzureErrorKind,
};

pub use device_code::DeviceCodePrompt;
pub use settings::{ClientId, CredentialSettings};

use super::{AccessToken, TenantId, aad::own_error};
use crate::{Error, ErrorKind, Result};

/// A way to sign in to Entra ID.
///
/// Gives tokens for any scope: to [`AadAuth`](super::AadAuth) and [`PopAuth`](super::PopAuth) for the cluster, to
/// Azure Resource Manager, to any crate that takes a `TokenCredential`. All HTTP goes over the settings' connector, so
/// that corporate proxies and private certificate authorities apply; managed identity endpoints, which are on this
/// machine or its link, are asked straight.
///
/// Tokens are **not** cached here: [`AadAuth`](super::AadAuth) does that for all kinds alike.
///
/// Errors carry the AADSTS code and what to do about it. What the service wrote beside them is logged at debug level
/// only: it names tenants and applications.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use arc_cluster_connect::{
///     Result,
///     auth::{AadAuth, AzureCredential, CredentialSettings},
///     net::{Connector, TrustRoots},
/// };
///
/// # async fn example() -> Result<()> {
/// let settings = CredentialSettings::new(Connector::new(TrustRoots::platform())?);
/// let credential = AzureCredential::detect(&settings).await?;
/// println!("signed in by {}", credential.kind());
/// let auth = AadAuth::new(Arc::new(credential));
/// # let _ = auth;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AzureCredential {
    kind: CredentialKind,
    source: Source,
}

/// How an [`AzureCredential`] signs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CredentialKind {
    /// Whoever is logged in to `az`.
    AzureCli,
    /// Whoever is logged in to `azd`.
    AzureDeveloperCli,
    /// An application with a secret.
    ClientSecret,
    /// An application with a certificate.
    ClientCertificate,
    /// A pod with a federated service account.
    WorkloadIdentity,
    /// A virtual machine, an App Service or another Azure resource.
    ManagedIdentity,
    /// A machine that is an Azure Arc-enabled server.
    ArcServer,
    /// A service connection in Azure Pipelines.
    AzurePipelines,
    /// A person with a browser elsewhere.
    DeviceCode,
}

/// A managed identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ManagedIdentity {
    /// The resource's own.
    #[default]
    SystemAssigned,
    /// A user-assigned one, by its application.
    ClientId(ClientId),
    /// A user-assigned one, by its object id in the directory.
    ObjectId(String),
    /// A user-assigned one, by its Azure resource id.
    ResourceId(String),
}

#[derive(Clone)]
enum Source {
    /// One of `azure_identity`.
    Library(Arc<dyn TokenCredential>),
    /// One of ours; see [`Flow`].
    Flow(Arc<dyn Flow>),
}

/// A flow of our own: what `azure_identity` has not, or can not bind to a key.
#[async_trait]
pub(super) trait Flow: Send + Sync {
    async fn token(&self, grant: &Grant<'_>) -> Result<AccessToken>;

    /// Whether it can ask for tokens with proof of possession.
    fn can_bind(&self) -> bool;
}

/// What a token is to be good for.
pub(super) struct Grant<'a> {
    scope: &'a str,
    /// `req_cnf`: the key that the token is to be bound to.
    confirmation: Option<&'a str>,
}

impl AzureCredential {
    /// Whoever is logged in to the Azure CLI (`az login`), in the settings' tenant where they name one.
    ///
    /// Each token is one run of `az`, which takes a second. Nothing of `az` is relied on but its command
    /// `account get-access-token`.
    ///
    /// # Errors
    /// Not expected.
    pub fn azure_cli(settings: &CredentialSettings) -> Result<Self> {
        Self::of_library(CredentialKind::AzureCli, library::azure_cli(settings))
    }

    /// Whoever is logged in to the Azure Developer CLI (`azd auth login`), in the settings' tenant where they name one.
    ///
    /// # Errors
    /// Not expected.
    pub fn azure_developer_cli(settings: &CredentialSettings) -> Result<Self> {
        let credential = library::azure_developer_cli(settings);
        Self::of_library(CredentialKind::AzureDeveloperCli, credential)
    }

    /// An application that proves itself with a secret.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the secret is empty.
    pub fn client_secret(
        settings: &CredentialSettings,
        tenant: TenantId,
        client: ClientId,
        secret: impl Into<String>,
    ) -> Result<Self> {
        let flow = client_credentials::with_secret(settings, tenant, client, secret.into())?;
        Ok(Self::of_flow(CredentialKind::ClientSecret, flow))
    }

    /// An application that proves itself with a certificate: a PEM text with the certificate (the application's own
    /// first) and its RSA private key in PKCS#8, unencrypted.
    ///
    /// A `.pfx` becomes one with `openssl pkcs12 -in FILE.pfx -out FILE.pem -nodes`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when one of the two is missing or not usable. The error shows nothing of the text.
    pub fn client_certificate(
        settings: &CredentialSettings,
        tenant: TenantId,
        client: ClientId,
        pem: &str,
    ) -> Result<Self> {
        let flow = client_credentials::with_certificate(settings, tenant, client, pem)?;
        Ok(Self::of_flow(CredentialKind::ClientCertificate, flow))
    }

    /// A pod whose service account is federated with an application, by the variables that AKS's workload identity
    /// webhook sets: `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_FEDERATED_TOKEN_FILE`.
    ///
    /// The token file is read now and again every ten minutes; kubelet renews it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when a variable is missing or malformed, or the file can not be read.
    pub fn workload_identity(settings: &CredentialSettings) -> Result<Self> {
        let credential = library::workload_identity(settings);
        Self::of_library(CredentialKind::WorkloadIdentity, credential)
    }

    /// A managed identity of the Azure resource that this program runs on: a virtual machine (IMDS), an App Service,
    /// or an Azure Arc-enabled server, whichever the environment says.
    ///
    /// On an Arc-enabled server the process must be able to read the agent's challenge files: be root, or a member of
    /// the group `himds`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an identity that the resource can not have, and for Cloud Shell, where
    /// [`azure_cli`](Self::azure_cli) works.
    pub fn managed_identity(
        settings: &CredentialSettings,
        identity: &ManagedIdentity,
    ) -> Result<Self> {
        if let Some(flow) = arc_server::on_this_machine(settings, identity)? {
            return Ok(Self::of_flow(CredentialKind::ArcServer, flow));
        }
        let credential = library::managed_identity(settings, identity);
        Self::of_library(CredentialKind::ManagedIdentity, credential)
    }

    /// A service connection in Azure Pipelines. `access_token` is the job's `$(System.AccessToken)`; the endpoint comes
    /// from `SYSTEM_OIDCREQUESTURI`, which the pipeline sets.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] outside of a pipeline, or when something is empty.
    pub fn azure_pipelines(
        settings: &CredentialSettings,
        tenant: TenantId,
        client: ClientId,
        service_connection: &str,
        access_token: impl Into<String>,
    ) -> Result<Self> {
        let credential = library::azure_pipelines(
            settings,
            tenant,
            client,
            service_connection,
            access_token.into(),
        );
        Self::of_library(CredentialKind::AzurePipelines, credential)
    }

    /// A person signs in with a browser, on any machine, by a code that `prompt` shows to them (RFC 8628).
    ///
    /// Waits until they have: up to fifteen minutes, as the authority says. `prompt` is called once. From then on
    /// tokens are renewed without them; the refresh token stays in memory. The tenant is the settings', or that of the
    /// person's own work account.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when the code expires, [`ErrorKind::Unauthorized`] when they decline or the authority
    /// does not allow the flow (Conditional Access often does not).
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future abandons the code.
    pub async fn device_code(
        settings: &CredentialSettings,
        client: ClientId,
        prompt: impl FnOnce(&DeviceCodePrompt) + Send,
    ) -> Result<Self> {
        let flow = device_code::sign_in(settings, client, prompt).await?;
        Ok(Self::of_flow(CredentialKind::DeviceCode, flow))
    }

    /// The first that is there:
    ///
    /// 1. an application by `AZURE_TENANT_ID`, `AZURE_CLIENT_ID` and `AZURE_CLIENT_SECRET` or
    ///    `AZURE_CLIENT_CERTIFICATE_PATH`;
    /// 2. [workload identity](Self::workload_identity), by `AZURE_FEDERATED_TOKEN_FILE`;
    /// 3. a managed identity by `IDENTITY_ENDPOINT` (App Service, Arc-enabled server);
    /// 4. the Azure CLI, when it gives a token;
    /// 5. the Azure Developer CLI, when it gives a token;
    /// 6. the managed identity of a virtual machine, when it gives a token within three seconds.
    ///
    /// What the environment asks for is taken without a trial: if it is broken, that is the error, and no other
    /// identity steps in unasked. `AZURE_CLIENT_ID` alone selects a user-assigned identity in 3 and 6.
    /// [`kind`](Self::kind) says which was taken; so does the log, at level info.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthorized`] when none is there: the text has each attempt and why it failed;
    /// [`ErrorKind::InvalidInput`] when the environment is malformed.
    pub async fn detect(settings: &CredentialSettings) -> Result<Self> {
        detect::detect(settings).await
    }

    /// How it signs in.
    pub fn kind(&self) -> CredentialKind {
        self.kind
    }

    pub(super) fn binding_flow(&self) -> Option<Arc<dyn Flow>> {
        match &self.source {
            Source::Flow(flow) if flow.can_bind() => Some(Arc::clone(flow)),
            _ => None,
        }
    }

    fn of_library(
        kind: CredentialKind,
        credential: azure_core::Result<Arc<dyn TokenCredential>>,
    ) -> Result<Self> {
        let credential = credential.map_err(|error| {
            tracing::debug!(%error, "a credential can not be made");
            let help = match kind {
                CredentialKind::WorkloadIdentity => {
                    "run in a pod with the label azure.workload.identity/use: \"true\" and a federated service account"
                }
                CredentialKind::AzurePipelines => {
                    "run in Azure Pipelines, and pass $(System.AccessToken) and the service connection's id"
                }
                CredentialKind::ManagedIdentity => {
                    "give a client id, or none for the system-assigned identity; in Cloud Shell use the Azure CLI"
                }
                _ => "check the credential's settings",
            };
            Error::new(ErrorKind::InvalidInput, format!("{kind} can not be used"))
                .with_source(error)
                .with_help(help)
        })?;
        Ok(Self {
            kind,
            source: Source::Library(credential),
        })
    }

    fn of_flow(kind: CredentialKind, flow: Arc<dyn Flow>) -> Self {
        Self {
            kind,
            source: Source::Flow(flow),
        }
    }

    async fn fetch(
        &self,
        scopes: &[&str],
        options: Option<TokenRequestOptions<'_>>,
    ) -> Result<AzureToken> {
        let scope = scopes.join(" ");
        match &self.source {
            Source::Library(credential) => credential
                .get_token(scopes, options)
                .await
                .map_err(|error| refusal::of_library(self.kind, &scope, &error)),
            Source::Flow(flow) => {
                let token = flow.token(&Grant::bearer(&scope)).await?;
                let end = token.expires_at().ok_or_else(|| {
                    Error::new(ErrorKind::Protocol, "the token comes without its end")
                })?;
                Ok(AzureToken::new(token.secret().to_owned(), end.into()))
            }
        }
    }
}

#[async_trait]
impl TokenCredential for AzureCredential {
    async fn get_token(
        &self,
        scopes: &[&str],
        options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AzureToken> {
        self.fetch(scopes, options).await.map_err(|error| {
            let text = error.report();
            azure_core::Error::with_error(AzureErrorKind::Credential, error, text)
        })
    }
}

impl From<AzureCredential> for Arc<dyn TokenCredential> {
    fn from(credential: AzureCredential) -> Self {
        Arc::new(credential)
    }
}

impl fmt::Debug for AzureCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureCredential")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for CredentialKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AzureCli => "the Azure CLI",
            Self::AzureDeveloperCli => "the Azure Developer CLI",
            Self::ClientSecret => "a client secret",
            Self::ClientCertificate => "a client certificate",
            Self::WorkloadIdentity => "workload identity",
            Self::ManagedIdentity => "a managed identity",
            Self::ArcServer => "the managed identity of an Arc-enabled server",
            Self::AzurePipelines => "Azure Pipelines",
            Self::DeviceCode => "a device code",
        })
    }
}

impl<'a> Grant<'a> {
    fn bearer(scope: &'a str) -> Self {
        Self {
            scope,
            confirmation: None,
        }
    }

    pub(super) fn bound(scope: &'a str, confirmation: &'a str) -> Self {
        Self {
            scope,
            confirmation: Some(confirmation),
        }
    }
}

#[cfg(test)]
mod tests;
