//! [`CredentialSettings`]: what all ways to sign in have in common.

use std::{fmt, str::FromStr, sync::Arc};

use http::{HeaderName, HeaderValue};
use uuid::Uuid;

use crate::{
    Error, ErrorKind, Result,
    auth::{Cloud, TenantId},
    clock::Clock,
    net::{Connector, HttpRequest},
};

/// Ids are UUIDs; somebody's own scheme may be longer, and still has to fit into logs.
const MAX_CORRELATION_ID: usize = 128;

/// How to reach Entra ID, and which.
///
/// ```
/// use arc_cluster_connect::{
///     Result,
///     auth::{Cloud, CredentialSettings},
///     net::{Connector, TrustRoots},
/// };
///
/// fn settings() -> Result<CredentialSettings> {
///     CredentialSettings::new(Connector::new(TrustRoots::platform())?)
///         .with_cloud(Cloud::us_government())
///         .with_correlation_id("6f4a3c1e-0000-4000-8000-000000000001")
/// }
/// # settings().map(drop).expect("well-formed");
/// ```
#[derive(Clone, Debug)]
pub struct CredentialSettings {
    pub(super) connector: Connector,
    pub(super) cloud: Cloud,
    pub(super) tenant: Option<TenantId>,
    pub(super) correlation_id: HeaderValue,
    pub(super) environment: Environment,
    pub(super) clock: Clock,
}

impl CredentialSettings {
    /// Azure's public cloud, no tenant in particular, and a new correlation id.
    pub fn new(connector: Connector) -> Self {
        let id = Uuid::new_v4().to_string();
        Self {
            connector,
            cloud: Cloud::public(),
            tenant: None,
            correlation_id: HeaderValue::try_from(id).expect("a UUID fits into a header"),
            environment: Environment::of_process(),
            clock: Clock::system(),
        }
    }

    /// Sets the cloud, and with it the authority.
    #[must_use]
    pub fn with_cloud(mut self, cloud: Cloud) -> Self {
        self.cloud = cloud;
        self
    }

    /// Sets the tenant to sign in to, where the credential does not fix it: the Azure CLI, `azd` and the device code
    /// otherwise take the person's own.
    #[must_use]
    pub fn with_tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// Sets the id under which Entra ID logs the requests (`client-request-id`), so that one id leads through all
    /// services.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is empty, longer than 128 bytes, or not printable ASCII without spaces.
    pub fn with_correlation_id(mut self, id: &str) -> Result<Self> {
        let is_plain = !id.is_empty()
            && id.len() <= MAX_CORRELATION_ID
            && id.bytes().all(|byte| byte.is_ascii_graphic());
        match HeaderValue::try_from(id) {
            Ok(value) if is_plain => self.correlation_id = value,
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "the correlation id is not a short printable text",
                )
                .with_help("give a UUID"));
            }
        }
        Ok(self)
    }

    /// Puts the correlation id on a request, under the names that Entra ID and Resource Manager know.
    pub(super) fn correlated(&self, request: HttpRequest) -> HttpRequest {
        request
            .with_header(
                HeaderName::from_static("client-request-id"),
                self.correlation_id.clone(),
            )
            .with_header(
                HeaderName::from_static("x-ms-correlation-request-id"),
                self.correlation_id.clone(),
            )
    }

    #[cfg(test)]
    pub(super) fn with_environment(mut self, variables: &[(&str, &str)]) -> Self {
        let variables: std::collections::HashMap<String, String> = variables
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        self.environment = Environment(Arc::new(move |name| variables.get(name).cloned()));
        self
    }
}

/// The environment's variables, passed in so that tests have their own.
#[derive(Clone)]
pub(super) struct Environment(Arc<Lookup>);

type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

impl Environment {
    fn of_process() -> Self {
        Self(Arc::new(|name| std::env::var(name).ok()))
    }

    /// A variable that is set and not empty.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

/// An application (client) of Entra ID, by its id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientId(Uuid);

impl ClientId {
    /// The application of this id, which is a UUID.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is none.
    pub fn parse(text: &str) -> Result<Self> {
        match Uuid::try_parse(text) {
            Ok(id) if text.len() == uuid::fmt::Hyphenated::LENGTH => Ok(Self(id)),
            _ => Err(
                Error::new(ErrorKind::InvalidInput, "the client id is not a UUID")
                    .with_help("`az ad app list --display-name NAME --query [].appId` shows it"),
            ),
        }
    }

    /// The Azure CLI, as which Azure's own cluster connect signs people in.
    pub fn azure_cli() -> Self {
        Self(Uuid::from_u128(0x04b0_7795_8ddb_461a_bbee_02f9_e1bf_7b46))
    }

    /// The application by which `kubelogin` signs people in to Arc-enabled clusters.
    pub fn arc_kubernetes() -> Self {
        Self(Uuid::from_u128(0x3f44_39ff_e698_4d6d_84fe_09c9_d574_f06b))
    }
}

impl FromStr for ClientId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({self})")
    }
}
