//! Callers of Entra ID: the flags, and what they make of an authenticator.

use std::path::{Path, PathBuf};

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    agent::{
        Cloud, EntraAuthenticator, EntraObjectId, GroupResolver, PopPolicy, Replays,
        SignatureAlgorithm, TenantId,
    },
    arm::ConnectedClusterId,
    auth::AzureCredential,
    net::ProxySettings,
};
use clap::{Args, ValueEnum};

use super::{callers::preload, common, directory_credential::directory_credential};

/// The application of Azure Arc's cluster connect, for which callers get their tokens.
const ARC_SERVER: &str = "6256c85f-0aad-4d50-b960-e6e9b21efe35";

#[derive(Args)]
#[command(next_help_heading = "Callers of Entra ID")]
pub struct EntraArguments {
    /// Let users and service principals of this Entra ID tenant in
    #[arg(long, value_name = "ID")]
    entra_tenant: Option<String>,

    /// Application for which their tokens have to be; without it, that of Azure Arc's cluster connect
    #[arg(long, value_name = "ID", requires = "entra_tenant")]
    entra_client_id: Option<String>,

    /// Entra ID's sign-in address; without it, that of Azure's public cloud
    #[arg(long, value_name = "URL", requires = "entra_tenant")]
    entra_authority: Option<String>,

    /// Certificate authority (PEM) of a sign-in address that no public one vouches for
    #[arg(long, value_name = "FILE", requires = "entra_tenant")]
    entra_ca: Option<PathBuf>,

    /// Key under which the API server sees a caller's object id. Azure RBAC needs `oid`; constrained impersonation
    /// (Kubernetes 1.36) takes only a key with a domain, or none
    #[arg(
        long,
        value_name = "KEY",
        default_value = "oid",
        requires = "entra_tenant"
    )]
    entra_object_id: ObjectIdKey,

    /// Tokens with a proof of possession: `refuse` them, `accept` them beside plain ones, or `require` them
    #[arg(
        long,
        value_name = "WHETHER",
        default_value = "refuse",
        requires = "entra_tenant"
    )]
    entra_pop: Pop,

    /// A proof of possession that was shown in one tunnel connection and comes in another: `refuse` it, or `allow` it
    /// until its five minutes are over, for callers whose requests take several connections
    #[arg(
        long,
        value_name = "WHETHER",
        default_value = "refuse",
        requires = "entra_tenant"
    )]
    entra_pop_replays: PopReplays,

    /// Callers with more groups than a token holds: `refuse` them, or look their groups up, in Microsoft `graph` or at
    /// Azure `arc`'s own service, which knows those of users only
    #[arg(
        long,
        value_name = "WHERE",
        default_value = "refuse",
        requires = "entra_tenant"
    )]
    entra_groups: Groups,

    /// File with the agent's own token for `--entra-groups`, for where --identity can not get one: for Graph
    /// (https://graph.microsoft.com) with the right to read group members, or for Azure Arc's service. Something else
    /// renews it; it is read again when it changes
    #[arg(long, value_name = "FILE", requires = "entra_tenant")]
    entra_groups_token_file: Option<PathBuf>,

    /// Address of Azure Arc's service for `--entra-groups arc`, such as https://westeurope.obo.arc.azure.com:8084
    #[arg(long, value_name = "URL", requires = "entra_tenant")]
    entra_groups_endpoint: Option<String>,

    /// Resource id of this cluster in Azure (/subscriptions/…/connectedClusters/NAME): proofs of possession have to be
    /// made for it, and Azure Arc's service is asked by it
    #[arg(long, value_name = "ID", requires = "entra_tenant")]
    cluster_resource_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ObjectIdKey {
    #[value(name = "oid")]
    Oid,
    #[value(name = "arc.azure.com/oid")]
    WithDomain,
    #[value(name = "none")]
    Omit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pop {
    Refuse,
    Accept,
    Require,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PopReplays {
    Refuse,
    Allow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Groups {
    Refuse,
    Graph,
    Arc,
}

impl EntraArguments {
    /// Their tenant, if they are let in.
    pub fn tenant(&self) -> Option<&str> {
        self.entra_tenant.as_deref()
    }

    /// The sign-in address that was given.
    pub fn authority(&self) -> Option<&str> {
        self.entra_authority.as_deref()
    }

    /// The certificate authority that was given for it.
    pub fn ca(&self) -> Option<&Path> {
        self.entra_ca.as_deref()
    }

    /// The authenticator of these callers, if they are let in. `identity` is the agent's own.
    pub fn authenticator(
        &self,
        identity: Option<&AzureCredential>,
        proxy: &ProxySettings,
    ) -> Result<Option<EntraAuthenticator>> {
        let Some(tenant) = &self.entra_tenant else {
            return Ok(None);
        };
        let mut builder = EntraAuthenticator::builder(TenantId::parse(tenant)?)
            .connector(common::connector(self.entra_ca.as_deref())?.with_proxy(proxy.clone()))
            .object_id(match self.entra_object_id {
                ObjectIdKey::Oid => EntraObjectId::Oid,
                ObjectIdKey::WithDomain => EntraObjectId::WithDomain,
                ObjectIdKey::Omit => EntraObjectId::Omit,
            })
            .pop(self.pop()?)
            .groups(self.groups(identity)?);
        if self.entra_pop != Pop::Refuse {
            // Callers make their own keys, and not every library can make one for RS256. Entra ID's are RSA keys, so
            // this admits nothing else from there.
            builder = builder.algorithms([SignatureAlgorithm::Rs256, SignatureAlgorithm::Es256]);
        }
        if let Some(client_id) = &self.entra_client_id {
            builder = builder.audience(client_id);
        }
        if let Some(authority) = &self.entra_authority {
            builder = builder.cloud(cloud(authority)?);
        }
        let entra = builder.build()?;
        preload("Entra ID", {
            let entra = entra.clone();
            async move { entra.preload().await }
        });
        Ok(Some(entra))
    }

    fn pop(&self) -> Result<PopPolicy> {
        let policy = match self.entra_pop {
            Pop::Refuse if self.entra_pop_replays == PopReplays::Allow => {
                return Err(invalid(
                    "--entra-pop-replays is of no use where no proofs of possession are taken",
                    "pass --entra-pop accept or require as well",
                ));
            }
            Pop::Refuse => return Ok(PopPolicy::refused()),
            Pop::Accept => PopPolicy::accepted(self.cluster("--entra-pop")?.to_string()),
            Pop::Require => PopPolicy::required(self.cluster("--entra-pop")?.to_string()),
        };
        Ok(policy.replays(match self.entra_pop_replays {
            PopReplays::Refuse => Replays::Refuse,
            PopReplays::Allow => Replays::Allow,
        }))
    }

    fn groups(&self, identity: Option<&AzureCredential>) -> Result<GroupResolver> {
        let credential = || {
            directory_credential(self.entra_groups_token_file.as_deref(), identity)?.ok_or_else(
                || {
                    invalid(
                        "the agent has no identity under which to look up groups",
                        "pass --identity METHOD, or --entra-groups-token-file FILE",
                    )
                },
            )
        };
        match self.entra_groups {
            Groups::Refuse => Ok(GroupResolver::refuse()),
            Groups::Graph => Ok(GroupResolver::graph(credential()?)),
            Groups::Arc => {
                let endpoint = self.entra_groups_endpoint.as_deref().ok_or_else(|| {
                    invalid(
                        "the address of Azure Arc's service for groups is not known",
                        "pass --entra-groups-endpoint https://REGION.obo.arc.azure.com:8084",
                    )
                })?;
                let cluster = self.cluster("--entra-groups arc")?;
                // The service takes tokens for the application that callers' tokens are for.
                let application = self.entra_client_id.as_deref().unwrap_or(ARC_SERVER);
                let scope = format!("{application}/.default");
                GroupResolver::arc(endpoint, &cluster, credential()?, scope).map_err(|error| {
                    invalid(
                        "the address of Azure Arc's service for groups is not usable",
                        "pass --entra-groups-endpoint https://REGION.obo.arc.azure.com:8084",
                    )
                    .with_source(error)
                })
            }
        }
    }

    fn cluster(&self, flag: &str) -> Result<ConnectedClusterId> {
        let id = self.cluster_resource_id.as_deref().ok_or_else(|| {
            invalid(
                format!("{flag} needs to know which cluster this is"),
                "pass --cluster-resource-id /subscriptions/…/connectedClusters/NAME",
            )
        })?;
        ConnectedClusterId::parse(id)
    }
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>, help: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, message).with_help(help)
}

/// The cloud of a sign-in address. Sovereign clouds have other addresses for tokens than for signing in.
pub fn cloud(authority: &str) -> Result<Cloud> {
    match authority.trim_end_matches('/') {
        "https://login.microsoftonline.com" => Ok(Cloud::public()),
        "https://login.microsoftonline.us" => Ok(Cloud::us_government()),
        "https://login.chinacloudapi.cn" | "https://login.partner.microsoftonline.cn" => {
            Ok(Cloud::china())
        }
        other => Cloud::custom(other),
    }
}
