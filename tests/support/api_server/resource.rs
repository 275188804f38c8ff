//! [`ResourceKind`]: the catalogue of kinds that the stand-in stores.

use serde_json::{Value, json};

/// One kind of object and where it lives.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ResourceKind {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) singular: &'static str,
    pub(super) short_names: &'static [&'static str],
    pub(super) scope: Scope,
    pub(super) subresources: &'static [Subresource],
}

/// Whether objects live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Cluster,
    Namespaced,
}

/// Something below an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Subresource {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) verbs: &'static [&'static str],
}

/// The verbs on every stored kind.
pub(super) const VERBS: &[&str] = &[
    "create", "delete", "get", "list", "patch", "update", "watch",
];

impl ResourceKind {
    /// `v1`, `apps/v1`.
    pub(super) fn api_version(&self) -> String {
        api_version(self.group, self.version)
    }

    pub(super) fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// An empty list object of this kind.
    pub(super) fn list_head(&self, resource_version: u64) -> Value {
        json!({
            "kind": format!("{}List", self.kind),
            "apiVersion": self.api_version(),
            "metadata": { "resourceVersion": resource_version.to_string() },
        })
    }
}

pub(super) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// The stored kind at a place, if there is one.
pub(super) fn find(group: &str, version: &str, plural: &str) -> Option<&'static ResourceKind> {
    KINDS.iter().find(|resource| {
        resource.group == group && resource.version == version && resource.plural == plural
    })
}

/// The kind with this plural, for code that stores objects itself.
pub(super) fn builtin(plural: &str) -> &'static ResourceKind {
    KINDS
        .iter()
        .find(|resource| resource.plural == plural)
        .expect("only plurals of the catalogue are asked for")
}

const CONNECT: &[&str] = &["create", "get"];

/// All stored kinds, a group's kinds together.
pub(super) static KINDS: &[ResourceKind] = &[
    ResourceKind {
        group: "",
        version: "v1",
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short_names: &["cm"],
        scope: Scope::Namespaced,
        subresources: &[],
    },
    ResourceKind {
        group: "",
        version: "v1",
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        short_names: &["ns"],
        scope: Scope::Cluster,
        subresources: &[],
    },
    ResourceKind {
        group: "",
        version: "v1",
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        scope: Scope::Namespaced,
        subresources: &[
            Subresource {
                name: "attach",
                kind: "PodAttachOptions",
                verbs: CONNECT,
            },
            Subresource {
                name: "exec",
                kind: "PodExecOptions",
                verbs: CONNECT,
            },
            Subresource {
                name: "log",
                kind: "Pod",
                verbs: &["get"],
            },
            Subresource {
                name: "portforward",
                kind: "PodPortForwardOptions",
                verbs: CONNECT,
            },
        ],
    },
    ResourceKind {
        group: "",
        version: "v1",
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        short_names: &[],
        scope: Scope::Namespaced,
        subresources: &[],
    },
    ResourceKind {
        group: "",
        version: "v1",
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short_names: &["sa"],
        scope: Scope::Namespaced,
        subresources: &[Subresource {
            name: "token",
            kind: "TokenRequest",
            verbs: &["create"],
        }],
    },
    ResourceKind {
        group: "",
        version: "v1",
        kind: "Service",
        plural: "services",
        singular: "service",
        short_names: &["svc"],
        scope: Scope::Namespaced,
        subresources: &[],
    },
    ResourceKind {
        group: "apps",
        version: "v1",
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short_names: &["deploy"],
        scope: Scope::Namespaced,
        subresources: &[],
    },
    ResourceKind {
        group: "networking.k8s.io",
        version: "v1",
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        singular: "networkpolicy",
        short_names: &["netpol"],
        scope: Scope::Namespaced,
        subresources: &[],
    },
    ResourceKind {
        group: "policy",
        version: "v1",
        kind: "PodDisruptionBudget",
        plural: "poddisruptionbudgets",
        singular: "poddisruptionbudget",
        short_names: &["pdb"],
        scope: Scope::Namespaced,
        subresources: &[],
    },
    ResourceKind {
        group: "rbac.authorization.k8s.io",
        version: "v1",
        kind: "ClusterRoleBinding",
        plural: "clusterrolebindings",
        singular: "clusterrolebinding",
        short_names: &[],
        scope: Scope::Cluster,
        subresources: &[],
    },
    ResourceKind {
        group: "rbac.authorization.k8s.io",
        version: "v1",
        kind: "ClusterRole",
        plural: "clusterroles",
        singular: "clusterrole",
        short_names: &[],
        scope: Scope::Cluster,
        subresources: &[],
    },
    ResourceKind {
        group: "rbac.authorization.k8s.io",
        version: "v1",
        kind: "RoleBinding",
        plural: "rolebindings",
        singular: "rolebinding",
        short_names: &[],
        scope: Scope::Namespaced,
        subresources: &[],
    },
    ResourceKind {
        group: "rbac.authorization.k8s.io",
        version: "v1",
        kind: "Role",
        plural: "roles",
        singular: "role",
        short_names: &[],
        scope: Scope::Namespaced,
        subresources: &[],
    },
];
