//! [`TokenKubeconfig`]: one cluster, one user with the endpoint's secret, one context.

use super::{Kubeconfig, KubeconfigBuilder, ProxyEndpoint, Secret, User, entries::Entries};
use crate::Result;

/// A kubeconfig whose user presents the endpoint's secret as a bearer token.
///
/// The secret opens the loopback endpoint of this run and nothing else; the caller's real credential never gets into
/// the file. Cluster, user and context all have the context's name.
///
/// ```
/// use arc_cluster_connect::kubeconfig::{KubeconfigBuilder, ProxyEndpoint, TokenKubeconfig};
///
/// let endpoint = ProxyEndpoint::new("https://127.0.0.1:47011/proxies/ab12", "PEM", "secret".into());
/// let kubeconfig = TokenKubeconfig::new("till-7").build(&endpoint)?;
/// assert_eq!(kubeconfig.resolve(None)?.cluster.server, endpoint.server());
/// # Ok::<(), arc_cluster_connect::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TokenKubeconfig {
    context_name: String,
    namespace: Option<String>,
}

impl TokenKubeconfig {
    /// The kubeconfig's context will be called `context_name`.
    pub fn new(context_name: impl Into<String>) -> Self {
        Self {
            context_name: context_name.into(),
            namespace: None,
        }
    }

    /// Sets the namespace that tools start in.
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }
}

impl KubeconfigBuilder for TokenKubeconfig {
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when the context's name is empty, longer than 253 characters, or has control
    /// characters.
    fn build(&self, endpoint: &ProxyEndpoint) -> Result<Kubeconfig> {
        let user = User {
            token: Some(Secret::from(endpoint.secret())),
            ..User::default()
        };
        Entries::named(&self.context_name, self.namespace.as_deref()).build(endpoint, user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, kubeconfig::entries::MAX_NAME_CHARS};

    fn endpoint() -> ProxyEndpoint {
        ProxyEndpoint::new("https://127.0.0.1:1/proxies/ab", "PEM\n", "hush".into())
    }

    #[test]
    fn everything_that_kubectl_needs_is_there() {
        let kubeconfig = TokenKubeconfig::new("till-7")
            .with_namespace("shop")
            .build(&endpoint())
            .unwrap();
        let text = kubeconfig.to_yaml().unwrap();
        let again = Kubeconfig::parse(&text).unwrap();
        assert_eq!(again, kubeconfig);
        let context = again.resolve(None).unwrap();
        assert_eq!(context.name, "till-7");
        assert_eq!(context.namespace, Some("shop"));
        assert_eq!(context.cluster.server, "https://127.0.0.1:1/proxies/ab");
        let data = context.cluster.certificate_authority_data.as_ref().unwrap();
        assert_eq!(data, "UEVNCg==");
        let token = context.user.unwrap().token.as_ref().unwrap();
        assert_eq!(token.expose(), "hush");
        assert!(!format!("{kubeconfig:?}").contains("hush"));
    }

    #[test]
    fn names_that_would_confuse_are_refused() {
        for name in ["", "a\nb", &"x".repeat(MAX_NAME_CHARS + 1)] {
            let error = TokenKubeconfig::new(name)
                .build(&endpoint())
                .expect_err(name);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.help().unwrap().contains("--kube-context"));
        }
        assert!(TokenKubeconfig::new("yes").build(&endpoint()).is_ok());
    }
}
