//! [`Entries`]: the one cluster, user and context that every builder of this crate makes.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    Cluster, Context, Kubeconfig, NamedCluster, NamedContext, NamedUser, ProxyEndpoint, User,
};
use crate::{Error, ErrorKind, Result};

/// Longer names help nobody, and tools print them in tables.
pub(super) const MAX_NAME_CHARS: usize = 253;

/// The names of the three entries, and what the context says besides.
pub(super) struct Entries<'a> {
    pub(super) cluster: &'a str,
    pub(super) user: &'a str,
    pub(super) context: &'a str,
    pub(super) namespace: Option<&'a str>,
}

impl<'a> Entries<'a> {
    /// All of one name.
    pub(super) fn named(name: &'a str, namespace: Option<&'a str>) -> Self {
        Self {
            cluster: name,
            user: name,
            context: name,
            namespace,
        }
    }

    /// The kubeconfig in which `user` calls `endpoint`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when a name is empty, longer than [`MAX_NAME_CHARS`], or has control characters.
    pub(super) fn build(&self, endpoint: &ProxyEndpoint, user: User) -> Result<Kubeconfig> {
        check_name("context", self.context)?;
        check_name("cluster", self.cluster)?;
        check_name("user", self.user)?;
        let authority = BASE64_STANDARD.encode(endpoint.certificate_authority_pem());
        let cluster = Cluster {
            server: endpoint.server().to_owned(),
            certificate_authority_data: Some(authority),
            ..Cluster::default()
        };
        let context = Context {
            cluster: self.cluster.to_owned(),
            user: self.user.to_owned(),
            namespace: self.namespace.map(str::to_owned),
            ..Context::default()
        };
        Ok(Kubeconfig {
            api_version: Some("v1".to_owned()),
            kind: Some("Config".to_owned()),
            clusters: vec![NamedCluster {
                name: self.cluster.to_owned(),
                cluster,
                ..NamedCluster::default()
            }],
            users: vec![NamedUser {
                name: self.user.to_owned(),
                user,
                ..NamedUser::default()
            }],
            contexts: vec![NamedContext {
                name: self.context.to_owned(),
                context,
                ..NamedContext::default()
            }],
            current_context: self.context.to_owned(),
            ..Kubeconfig::default()
        })
    }
}

fn check_name(what: &str, name: &str) -> Result<()> {
    let problem = if name.is_empty() {
        "is empty"
    } else if name.chars().count() > MAX_NAME_CHARS {
        "is longer than 253 characters"
    } else if name.chars().any(char::is_control) {
        "has control characters"
    } else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("the {what}'s name {problem}"),
    )
    .with_help("give a short name with --kube-context"))
}
