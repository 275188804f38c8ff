//! [`AadKubeconfig`]: the names that Azure gives, with our endpoint behind them.

use super::{Kubeconfig, KubeconfigBuilder, ProxyEndpoint, Secret, User, entries::Entries};
use crate::{Error, ErrorKind, Result};

/// Users of this kind get a context of their own, so that it does not take the place of the usual one.
const ADMIN_USER_PREFIX: &str = "clusterAdmin";
const ADMIN_CONTEXT_SUFFIX: &str = "-admin";

/// The kubeconfig of a caller who signs in with Entra.
///
/// Cluster, user and context have the names that Azure Resource Manager gives them, so that scripts written for Azure's
/// own client find the context under the name that they know. Everything else is the endpoint's: its address, its
/// certificate, and as bearer token the secret of this run. Whoever has only the file has no Azure credential, and
/// whoever lacks it can not use the endpoint.
///
/// ```
/// use arc_cluster_connect::kubeconfig::{
///     AadKubeconfig, Kubeconfig, KubeconfigBuilder, ProxyEndpoint,
/// };
///
/// let from_azure = Kubeconfig::parse(
///     "clusters: [{name: shop, cluster: {server: 'https://elsewhere'}}]\n\
///      contexts: [{name: shop, context: {cluster: shop, user: clusterUser_tills_shop}}]\n\
///      users: [{name: clusterUser_tills_shop, user: {token: ''}}]\n",
/// )?;
/// let endpoint = ProxyEndpoint::new("https://127.0.0.1:47011/proxies/ab12", "PEM", "secret".into());
/// let kubeconfig = AadKubeconfig::new(&from_azure)?.build(&endpoint)?;
/// let context = kubeconfig.resolve(Some("shop"))?;
/// assert_eq!(context.cluster.server, endpoint.server());
/// # Ok::<(), arc_cluster_connect::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct AadKubeconfig {
    cluster: String,
    user: String,
    context: String,
    namespace: Option<String>,
}

impl AadKubeconfig {
    /// Takes the names and the namespace from `kubeconfig`: those of its current context, or of its first one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it has no context.
    pub fn new(kubeconfig: &Kubeconfig) -> Result<Self> {
        let mut contexts = kubeconfig.contexts.iter();
        let current = contexts.find(|entry| entry.name == kubeconfig.current_context);
        let Some(entry) = current.or(kubeconfig.contexts.first()) else {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the kubeconfig from Azure has no context",
            )
            .with_help("check that the cluster is connected: `az connectedk8s show`"));
        };
        let context = &entry.context;
        // What is missing is called as the context is.
        let or_context = |name: &str| {
            let name = if name.is_empty() { &entry.name } else { name };
            name.to_owned()
        };
        Ok(Self {
            cluster: or_context(&context.cluster),
            user: or_context(&context.user),
            context: entry.name.clone(),
            namespace: context.namespace.clone(),
        })
    }

    /// Calls cluster and context `name`, as `--kube-context` of Azure's own client does. The user keeps its name.
    #[must_use]
    pub fn with_context_name(mut self, name: impl Into<String>) -> Self {
        self.context = name.into();
        self.cluster.clone_from(&self.context);
        self
    }

    /// The name that the context will have: `-admin` is put behind it when the user is a cluster's administrator.
    pub fn context_name(&self) -> String {
        let suffix = if self.user.starts_with(ADMIN_USER_PREFIX) {
            ADMIN_CONTEXT_SUFFIX
        } else {
            ""
        };
        format!("{}{suffix}", self.context)
    }
}

impl KubeconfigBuilder for AadKubeconfig {
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when a name is empty, longer than 253 characters, or has control characters.
    fn build(&self, endpoint: &ProxyEndpoint) -> Result<Kubeconfig> {
        let user = User {
            token: Some(Secret::from(endpoint.secret())),
            ..User::default()
        };
        let entries = Entries {
            cluster: &self.cluster,
            user: &self.user,
            context: &self.context_name(),
            namespace: self.namespace.as_deref(),
        };
        entries.build(endpoint, user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM_AZURE: &str = "\
apiVersion: v1
clusters:
- name: shop
  cluster: {server: 'https://elsewhere', certificate-authority-data: QQ==, x-note: yes}
contexts:
- name: shop
  context: {cluster: shop, user: clusterUser_tills_shop, namespace: games}
current-context: shop
kind: Config
users:
- name: clusterUser_tills_shop
  user: {token: theirs, client-key-data: theirs}
";

    fn build(text: &str, name: Option<&str>) -> Kubeconfig {
        let endpoint = ProxyEndpoint::new("https://127.0.0.1:1/proxies/ab", "PEM", "hush".into());
        let mut builder = AadKubeconfig::new(&Kubeconfig::parse(text).unwrap()).unwrap();
        if let Some(name) = name {
            builder = builder.with_context_name(name);
        }
        let kubeconfig = builder.build(&endpoint).unwrap();
        assert_eq!(kubeconfig.current_context, builder.context_name());
        kubeconfig
    }

    fn names(kubeconfig: &Kubeconfig) -> [&str; 3] {
        [
            &kubeconfig.clusters[0].name,
            &kubeconfig.users[0].name,
            &kubeconfig.contexts[0].name,
        ]
    }

    #[test]
    fn the_names_are_azures_and_the_rest_is_ours() {
        let kubeconfig = build(FROM_AZURE, None);
        assert_eq!(
            names(&kubeconfig),
            ["shop", "clusterUser_tills_shop", "shop"]
        );
        let context = kubeconfig.resolve(None).unwrap();
        assert_eq!(context.namespace, Some("games"));
        assert_eq!(context.cluster.server, "https://127.0.0.1:1/proxies/ab");
        let token = context.user.unwrap().token.as_ref().unwrap();
        assert_eq!(token.expose(), "hush");
        let text = kubeconfig.to_yaml().unwrap();
        assert!(!text.contains("theirs") && !text.contains("x-note"));
    }

    #[test]
    fn another_name_is_the_contexts_and_the_clusters() {
        let kubeconfig = build(FROM_AZURE, Some("till"));
        assert_eq!(
            names(&kubeconfig),
            ["till", "clusterUser_tills_shop", "till"]
        );
        assert_eq!(kubeconfig.contexts[0].context.cluster, "till");
    }

    #[test]
    fn an_administrators_context_says_so() {
        let admin = FROM_AZURE.replace("clusterUser", "clusterAdmin");
        let kubeconfig = build(&admin, None);
        assert_eq!(
            names(&kubeconfig),
            ["shop", "clusterAdmin_tills_shop", "shop-admin"]
        );
        assert_eq!(kubeconfig.current_context, "shop-admin");
        let kubeconfig = build(&admin, Some("till"));
        assert_eq!(
            names(&kubeconfig),
            ["till", "clusterAdmin_tills_shop", "till-admin"]
        );
    }

    #[test]
    fn what_is_missing() {
        let kubeconfig = build("contexts: [{name: shop}]", None);
        assert_eq!(names(&kubeconfig), ["shop", "shop", "shop"]);
        let error = AadKubeconfig::new(&Kubeconfig::default()).expect_err("no context");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.help().is_some());
    }
}
