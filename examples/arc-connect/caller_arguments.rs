//! [`CallerArguments`]: who calls, and how they show it.

use std::{
    io::Read,
    path::{Path, PathBuf},
    str::FromStr,
};

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    auth::{
        AzureCredential, BearerAuth, ClientId, Cloud, CredentialSettings, ManagedIdentity,
        ProofKey, TenantId,
    },
    net::Connector,
};
use clap::{Args, ValueEnum};

use crate::common;

/// What Azure Pipelines calls the job's own token, once the pipeline has mapped it.
const PIPELINE_TOKEN_VARIABLE: &str = "SYSTEM_ACCESSTOKEN";

/// Who calls.
#[derive(Args, Clone)]
pub struct CallerArguments {
    /// File with a bearer token for the cluster, such as a service account's; read again when it changes. - reads
    /// standard input once
    #[arg(long, value_name = "FILE", group = "token", help_heading = "Caller")]
    token_file: Option<PathBuf>,

    /// The bearer token itself. Others can see it in the process list: prefer --token-file
    #[arg(
        long = "token",
        visible_alias = "auth-token",
        value_name = "TOKEN",
        group = "token",
        help_heading = "Caller"
    )]
    token_text: Option<String>,

    /// How to sign in to Azure; without it, the first way that is there
    #[arg(long = "auth", value_name = "METHOD", help_heading = "Caller")]
    method: Option<Method>,

    /// The tenant to sign in to
    #[arg(long, value_name = "ID", help_heading = "Caller")]
    tenant: Option<String>,

    /// The application, or the user-assigned managed identity
    #[arg(long, value_name = "ID", help_heading = "Caller")]
    client_id: Option<String>,

    /// File with the application's secret; AZURE_CLIENT_SECRET stands in for it
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "client_certificate_file",
        help_heading = "Caller"
    )]
    client_secret_file: Option<PathBuf>,

    /// PEM file with the application's certificate and private key; AZURE_CLIENT_CERTIFICATE_PATH stands in for it
    #[arg(long, value_name = "FILE", help_heading = "Caller")]
    client_certificate_file: Option<PathBuf>,

    /// The service connection's id, for azure-pipelines. The job's token comes from SYSTEM_ACCESSTOKEN
    #[arg(long, value_name = "ID", help_heading = "Caller")]
    service_connection: Option<String>,

    /// Bind the caller's tokens to a key, for clusters that insist on proof of possession
    #[arg(long, conflicts_with = "token", help_heading = "Caller")]
    pop: bool,

    /// The key, as PEM; made if it is not there. Implies --pop. Azure's own agent takes RSA keys only:
    /// openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "token",
        help_heading = "Caller"
    )]
    pop_key_file: Option<PathBuf>,
}

/// A way to sign in to Azure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// The first that is there: the environment's, az, azd, the machine's own
    Auto,
    /// Whoever is logged in to az
    AzureCli,
    /// Whoever is logged in to azd
    Azd,
    /// A code, typed into a browser on any machine
    DeviceCode,
    /// An application's secret
    ClientSecret,
    /// An application's certificate
    ClientCertificate,
    /// A pod's federated service account
    WorkloadIdentity,
    /// The identity of the Azure resource or Arc-enabled server that this runs on
    ManagedIdentity,
    /// A service connection of Azure Pipelines
    AzurePipelines,
}

impl CallerArguments {
    /// The bearer token for the cluster, if one was given.
    pub fn bearer(&self) -> Result<Option<BearerAuth>> {
        match (&self.token_file, &self.token_text) {
            (Some(path), _) if path.as_os_str() == "-" => {
                let mut token = String::new();
                std::io::stdin()
                    .read_to_string(&mut token)
                    .map_err(|error| {
                        Error::new(
                            ErrorKind::File,
                            "can not read the token from standard input",
                        )
                        .with_source(error)
                    })?;
                BearerAuth::fixed(token).map(Some)
            }
            (Some(path), _) => BearerAuth::file(path).map(Some),
            (None, Some(token)) => {
                common::warn(
                    "a token on the command line can be seen in process lists and shell history; \
                     use --token-file",
                );
                BearerAuth::fixed(token.as_str()).map(Some)
            }
            (None, None) => Ok(None),
        }
    }

    /// Whether a way to sign in to Azure was asked for.
    pub fn signs_in(&self) -> bool {
        self.method.is_some()
            || self.client_secret_file.is_some()
            || self.client_certificate_file.is_some()
    }

    /// Whether a token for the cluster was given, so that nobody has to sign in for it.
    pub fn has_bearer(&self) -> bool {
        self.token_file.is_some() || self.token_text.is_some()
    }

    /// The tenant that was asked for.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// The key that the caller's tokens shall be bound to, if they shall be.
    pub fn proof_key(&self) -> Result<Option<ProofKey>> {
        let key = match &self.pop_key_file {
            Some(path) => ProofKey::load_or_generate(path)?,
            None if self.pop => ProofKey::generate()?,
            None => return Ok(None),
        };
        if key.public_jwk()["kty"] != "RSA" {
            common::note(
                "the key for proofs of possession is P-256, which Azure's own agent does not take: \
                 if it refuses you, give an RSA key with --pop-key-file",
            );
        }
        Ok(Some(key))
    }

    /// What all ways to sign in have in common.
    pub fn settings(
        &self,
        connector: Connector,
        cloud: Cloud,
        correlation_id: &str,
    ) -> Result<CredentialSettings> {
        let settings = CredentialSettings::new(connector)
            .with_cloud(cloud)
            .with_correlation_id(correlation_id)?;
        Ok(match &self.tenant {
            Some(tenant) => settings.with_tenant(TenantId::parse(tenant)?),
            None => settings,
        })
    }

    /// Signs in, and says how.
    pub async fn credential(&self, settings: &CredentialSettings) -> Result<AzureCredential> {
        let credential = match self.method() {
            Method::Auto => {
                let detected = AzureCredential::detect(settings);
                common::with_patience("looking for a way to sign in to Azure", detected)
                    .await
                    .map_err(|error| {
                        let help = format!(
                            "{}; or sign in with a browser on any machine: --auth device-code",
                            error.help().unwrap_or("log in with `az login`")
                        );
                        error.with_help(help)
                    })?
            }
            Method::AzureCli => AzureCredential::azure_cli(settings)?,
            Method::Azd => AzureCredential::azure_developer_cli(settings)?,
            Method::DeviceCode => {
                let client = self.client()?.unwrap_or_else(ClientId::azure_cli);
                // Nothing but this line lets the user go on: it is shown whatever the verbosity.
                AzureCredential::device_code(settings, client, |prompt| common::progress(prompt))
                    .await?
            }
            Method::ClientSecret => {
                let (tenant, client) = self.application()?;
                AzureCredential::client_secret(settings, tenant, client, self.client_secret()?)?
            }
            Method::ClientCertificate => {
                let (tenant, client) = self.application()?;
                let pem = self.client_certificate()?;
                AzureCredential::client_certificate(settings, tenant, client, &pem)?
            }
            Method::WorkloadIdentity => AzureCredential::workload_identity(settings)?,
            Method::ManagedIdentity => {
                let identity = match self.client()? {
                    Some(client) => ManagedIdentity::ClientId(client),
                    None => ManagedIdentity::SystemAssigned,
                };
                AzureCredential::managed_identity(settings, &identity)?
            }
            Method::AzurePipelines => {
                let (tenant, client) = self.application()?;
                let connection = self.service_connection.as_deref().ok_or_else(|| {
                    missing(
                        "no service connection is named",
                        "pass --service-connection ID",
                    )
                })?;
                let token = variable(PIPELINE_TOKEN_VARIABLE).ok_or_else(|| {
                    missing(
                        "the job's token is not there",
                        "map it in the pipeline: `env: { SYSTEM_ACCESSTOKEN: $(System.AccessToken) }`",
                    )
                })?;
                AzureCredential::azure_pipelines(settings, tenant, client, connection, token)?
            }
        };
        common::progress(format_args!("signing in with {}", credential.kind()));
        Ok(credential)
    }

    /// A file that only one method can use says which.
    fn method(&self) -> Method {
        match self.method {
            Some(method) => method,
            None if self.client_secret_file.is_some() => Method::ClientSecret,
            None if self.client_certificate_file.is_some() => Method::ClientCertificate,
            None => Method::Auto,
        }
    }

    fn client(&self) -> Result<Option<ClientId>> {
        self.client_id.as_deref().map(ClientId::parse).transpose()
    }

    /// An application, by the command line, else by the environment.
    fn application(&self) -> Result<(TenantId, ClientId)> {
        Ok((
            id(&self.tenant, "AZURE_TENANT_ID", "--tenant ID")?,
            id(&self.client_id, "AZURE_CLIENT_ID", "--client-id ID")?,
        ))
    }

    fn client_secret(&self) -> Result<String> {
        if let Some(path) = &self.client_secret_file {
            let text = read(path, "the application's secret")?;
            return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
        }
        variable("AZURE_CLIENT_SECRET").ok_or_else(|| {
            missing(
                "the application's secret is not there",
                "pass --client-secret-file FILE, or set AZURE_CLIENT_SECRET",
            )
        })
    }

    fn client_certificate(&self) -> Result<String> {
        let from_environment = || variable("AZURE_CLIENT_CERTIFICATE_PATH").map(PathBuf::from);
        let path = self.client_certificate_file.clone();
        match path.or_else(from_environment) {
            Some(path) => read(&path, "the application's certificate"),
            None => Err(missing(
                "the application's certificate is not there",
                "pass --client-certificate-file FILE, or set AZURE_CLIENT_CERTIFICATE_PATH",
            )),
        }
    }
}

/// An id by the command line, else by the environment.
fn id<T: FromStr<Err = Error>>(
    given: &Option<String>,
    name: &'static str,
    argument: &'static str,
) -> Result<T> {
    match given.clone().or_else(|| variable(name)) {
        Some(text) => text.parse(),
        None => Err(missing(
            "the application to sign in as is not named",
            format!("pass {argument}, or set {name}"),
        )),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn read(path: &Path, what: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        Error::new(
            ErrorKind::File,
            format!("can not read {what} from {}", path.display()),
        )
        .with_source(error)
    })
}

fn missing(what: &'static str, help: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidInput, what).with_help(help)
}
