//! How Kubernetes tools find us: the kubeconfig file, merged and put back with care.

mod aad;
mod dead;
mod entries;
mod exec;
#[cfg(fuzzing)]
pub mod fuzzing;
mod location;
mod lock;
mod marker;
mod merge;
mod model;
mod outline;
mod replace;
mod resolve;
mod rewrite;
mod secret;
mod splice;
mod store;
mod token;
mod value;
mod yaml;

pub use aad::AadKubeconfig;
pub use exec::{ExecKubeconfig, exec_credential};
pub use merge::CurrentContext;
pub use model::{Cluster, Context, Kubeconfig, NamedCluster, NamedContext, NamedUser, User};
pub use resolve::ResolvedContext;
pub use secret::Secret;
pub use store::{KubeconfigFile, MergeReceipt};
pub use token::TokenKubeconfig;
pub use value::Fields;

use crate::Result;

/// Turns a local endpoint into a kubeconfig. Synchronous and pure: no file is touched.
///
/// ```
/// use arc_cluster_connect::{
///     KubeconfigBuilder, Result,
///     kubeconfig::{Kubeconfig, ProxyEndpoint, TokenKubeconfig},
/// };
///
/// /// A context that starts in the team's own namespace.
/// struct OfTeam {
///     namespace: String,
/// }
///
/// impl KubeconfigBuilder for OfTeam {
///     fn build(&self, endpoint: &ProxyEndpoint) -> Result<Kubeconfig> {
///         let mut kubeconfig = TokenKubeconfig::new("till-7").build(endpoint)?;
///         kubeconfig.contexts[0].context.namespace = Some(self.namespace.clone());
///         Ok(kubeconfig)
///     }
/// }
/// # let endpoint = ProxyEndpoint::new("https://127.0.0.1:1/proxies/ab", "PEM", "secret".into());
/// # let built = OfTeam { namespace: "tills".to_owned() }.build(&endpoint)?;
/// # assert_eq!(built.contexts[0].context.namespace.as_deref(), Some("tills"));
/// # Ok::<(), arc_cluster_connect::Error>(())
/// ```
pub trait KubeconfigBuilder {
    /// The kubeconfig with which a Kubernetes tool reaches `endpoint`.
    ///
    /// # Errors
    /// When the endpoint can not be expressed.
    fn build(&self, endpoint: &ProxyEndpoint) -> Result<Kubeconfig>;
}

/// One cluster at the loopback endpoint, as a Kubernetes tool needs to know it.
#[derive(Clone, Debug)]
pub struct ProxyEndpoint {
    server: String,
    certificate_authority_pem: String,
    secret: Secret,
}

impl ProxyEndpoint {
    /// `server` is the URL (`https://127.0.0.1:47011/proxies/<id>`), `secret` the bearer token of this run.
    pub fn new(
        server: impl Into<String>,
        certificate_authority_pem: impl Into<String>,
        secret: Secret,
    ) -> Self {
        Self {
            server: server.into(),
            certificate_authority_pem: certificate_authority_pem.into(),
            secret,
        }
    }

    /// The URL of the cluster at the endpoint.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The certificate to trust.
    pub fn certificate_authority_pem(&self) -> &str {
        &self.certificate_authority_pem
    }

    /// The bearer token without which the endpoint answers 401.
    pub fn secret(&self) -> &str {
        self.secret.expose()
    }
}
