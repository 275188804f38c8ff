//! Whom the agent lets in: its flags, and what they make of the agent.

use std::{path::PathBuf, time::Duration};

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    agent::{
        AgentBuilder, AgentCredential, Impersonation, OpenIdAuthenticator, ServiceAccountTokens,
        StreamLifetime,
    },
    auth::AzureCredential,
    net::{ProxySettings, TrustRoots},
};
use clap::Args;

use super::{common, entra::EntraArguments};

#[derive(Args)]
#[command(next_help_heading = "Callers")]
pub struct CallerArguments {
    /// Let callers in who bring a service account's bearer token; the API server checks it
    #[arg(long)]
    allow_service_account_tokens: bool,

    /// Have the API server say whose such a token is before a request goes there: what it does not accept ends at the
    /// agent, and the audit log has names. Costs a question for each token every ten seconds
    #[arg(long, requires = "allow_service_account_tokens")]
    review_service_account_tokens: bool,

    /// Let users of this OpenID Connect issuer in
    #[arg(long, value_name = "URL", requires = "oidc_audience")]
    oidc_issuer: Option<String>,

    /// Audience (client id) for which their tokens have to be
    #[arg(long, value_name = "AUD", requires = "oidc_issuer")]
    oidc_audience: Option<String>,

    /// Claim that becomes the user name; without it, `sub`
    #[arg(long, value_name = "C", requires = "oidc_issuer")]
    oidc_username_claim: Option<String>,

    /// Claim that becomes the groups; without it, there are none
    #[arg(long, value_name = "C", requires = "oidc_issuer")]
    oidc_groups_claim: Option<String>,

    /// Certificate authority (PEM) of the issuer; without it, the platform's
    #[arg(long, value_name = "FILE", requires = "oidc_issuer")]
    oidc_ca: Option<PathBuf>,

    /// Token of the service account that may impersonate; without it, that of this pod. Read again when it changes
    #[arg(long, value_name = "FILE")]
    impersonator_token_file: Option<PathBuf>,

    /// Let callers act as others (kubectl --as) where the API server says that they may
    #[arg(long)]
    allow_impersonation: bool,

    /// End watches, exec and port-forward this long after the token that opened them has expired
    #[arg(long, value_name = "SECONDS")]
    stream_grace: Option<u64>,

    // Last: a heading holds for all that follows.
    #[command(flatten)]
    entra: EntraArguments,
}

impl CallerArguments {
    /// What is said about Entra ID.
    pub fn entra(&self) -> &EntraArguments {
        &self.entra
    }

    /// Sets up who is let in.
    pub fn apply(
        &self,
        mut builder: AgentBuilder,
        identity: Option<&AzureCredential>,
        proxy: &ProxySettings,
    ) -> Result<AgentBuilder> {
        let entra = self.entra.authenticator(identity, proxy)?;
        let acts_for_callers = entra.is_some() || self.oidc_issuer.is_some();
        if !self.allow_service_account_tokens && !acts_for_callers {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "no kind of caller is allowed, so nobody could use this agent",
            )
            .with_help(
                "pass --allow-service-account-tokens, --entra-tenant or --oidc-issuer, or several of them",
            ));
        }
        if let Some(entra) = entra {
            builder = builder.authenticator(entra);
        }
        if let (Some(issuer), Some(audience)) = (&self.oidc_issuer, &self.oidc_audience) {
            builder = builder.authenticator(self.openid(issuer, audience, proxy)?);
        }
        if acts_for_callers {
            builder = builder.agent_credential(self.credential()?);
        }
        if self.allow_service_account_tokens {
            builder = builder.service_account_tokens(if self.review_service_account_tokens {
                ServiceAccountTokens::Review
            } else {
                ServiceAccountTokens::PassThrough
            });
        }
        if self.allow_impersonation {
            builder = builder.impersonation(Impersonation::SubjectAccessReview);
        }
        if let Some(seconds) = self.stream_grace {
            builder = builder.stream_lifetime(StreamLifetime::Token {
                grace: Duration::from_secs(seconds),
            });
        }
        Ok(builder)
    }

    fn openid(
        &self,
        issuer: &str,
        audience: &str,
        proxy: &ProxySettings,
    ) -> Result<OpenIdAuthenticator> {
        let mut builder = OpenIdAuthenticator::builder(issuer, audience).proxy(proxy.clone());
        if let Some(claim) = &self.oidc_username_claim {
            builder = builder.username_claim(claim);
        }
        if let Some(claim) = &self.oidc_groups_claim {
            builder = builder.groups_claim(claim);
        }
        if let Some(path) = &self.oidc_ca {
            builder = builder.trust_roots(TrustRoots::platform().and_file(path)?);
        }
        let openid = builder.build()?;
        preload("the OpenID Connect issuer", {
            let openid = openid.clone();
            async move { openid.preload().await }
        });
        Ok(openid)
    }

    fn credential(&self) -> Result<AgentCredential> {
        match &self.impersonator_token_file {
            Some(path) => AgentCredential::file(path),
            None => AgentCredential::in_cluster().map_err(|error| {
                Error::new(
                    error.kind(),
                    "the agent has no token under which to act for its callers",
                )
                .with_source(error)
                .with_help("pass --impersonator-token-file FILE, or run the agent in a pod")
            }),
        }
    }
}

/// Reads an issuer's keys ahead of the first caller. An issuer that is out of reach now may be back by then.
pub fn preload(issuer: &'static str, keys: impl Future<Output = Result<()>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = keys.await {
            common::warn(format_args!(
                "the keys of {issuer} can not be read yet: {}",
                error.report()
            ));
        }
    });
}
