//! What the agent may do, asked as the API server's RBAC asks.

use serde_json::{Value, json};

use super::{
    manifest_files::{FORMS, embedded},
    manifests::Impersonation,
};

/// Verbs that give the identity of others and nothing of the agent's own.
fn only_impersonates(verb: &str) -> bool {
    verb == "impersonate"
        || verb == "impersonate:user-info"
        || verb
            .strip_prefix("impersonate-on:user-info:")
            .is_some_and(|verb| !verb.is_empty() && verb.bytes().all(|b| b.is_ascii_lowercase()))
}

fn role(form: Impersonation) -> Value {
    let roles: Vec<Value> = embedded(form)
        .into_iter()
        .filter(|object| {
            let kind = object["kind"].as_str().unwrap();
            kind == "ClusterRole" || kind == "Role"
        })
        .collect();
    assert_eq!(roles.len(), 1, "one role holds all the rights");
    roles.into_iter().next().unwrap()
}

fn strings<'a>(rule: &'a Value, member: &str) -> Vec<&'a str> {
    rule[member]
        .as_array()
        .into_iter()
        .flatten()
        .map(|value| value.as_str().unwrap())
        .collect()
}

/// The names that a rule leaves, as RBAC reads them: none listed are all.
fn names(rule: &Value, name: &str) -> bool {
    let listed = strings(rule, "resourceNames");
    listed.is_empty() || listed.contains(&name)
}

/// RBAC's own rule: a wildcard matches all, a resource only itself, a subresource only `resource/subresource`.
fn may(role: &Value, verb: &str, group: &str, resource: &str) -> bool {
    role["rules"].as_array().unwrap().iter().any(|rule| {
        let matches = |member: &str, wanted: &str| {
            strings(rule, member)
                .iter()
                .any(|value| *value == "*" || *value == wanted)
        };
        matches("verbs", verb) && matches("apiGroups", group) && matches("resources", resource)
    })
}

fn may_path(role: &Value, verb: &str, path: &str) -> bool {
    role["rules"].as_array().unwrap().iter().any(|rule| {
        let paths = strings(rule, "nonResourceURLs");
        let matches = paths.iter().any(|rule| match rule.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => *rule == path,
        });
        matches && strings(rule, "verbs").contains(&verb)
    })
}

#[test]
fn the_only_right_is_to_impersonate_and_no_verb_is_a_wildcard() {
    for (form, overlay) in FORMS {
        let role = role(form);
        let rules = role["rules"].as_array().unwrap();
        assert!(!rules.is_empty());
        for rule in rules {
            let verbs = strings(rule, "verbs");
            assert!(!verbs.is_empty());
            for verb in &verbs {
                assert!(only_impersonates(verb), "{overlay}: {verb}");
            }
            // `impersonate-on` is a ceiling over what the caller may do. It gives nothing, so it may name everything.
            let is_ceiling = verbs
                .iter()
                .all(|verb| verb.starts_with("impersonate-on:user-info:"));
            for member in ["apiGroups", "resources", "nonResourceURLs"] {
                for value in strings(rule, member) {
                    let is_wildcard =
                        value == "*" || value.ends_with("/*") && member == "resources";
                    assert!(is_ceiling || !is_wildcard, "{overlay}: {member} {value}");
                }
            }
        }
        assert!(role["aggregationRule"].is_null());
    }
}

#[test]
fn the_role_is_bound_to_the_agent_and_to_nobody_else() {
    for (form, _) in FORMS {
        let objects = embedded(form);
        let bindings: Vec<&Value> = objects
            .iter()
            .filter(|object| object["kind"] == "ClusterRoleBinding")
            .collect();
        assert_eq!(bindings.len(), 1);
        assert_eq!(bindings[0]["roleRef"]["kind"], "ClusterRole");
        assert_eq!(
            bindings[0]["roleRef"]["name"],
            role(form)["metadata"]["name"]
        );
        let account = objects
            .iter()
            .find(|object| object["kind"] == "ServiceAccount")
            .unwrap();
        let subjects = bindings[0]["subjects"].as_array().unwrap();
        assert_eq!(subjects.len(), 1);
        assert_eq!(subjects[0]["kind"], "ServiceAccount");
        for member in ["name", "namespace"] {
            assert_eq!(subjects[0][member], account["metadata"][member]);
        }
        // Nobody gets the agent's token by merely running a pod under its account.
        assert_eq!(account["automountServiceAccountToken"], false);
    }
}

/// As that user, and not in its own name, the agent reads the names of the cluster's front-proxy headers.
#[test]
fn the_reader_of_front_proxy_headers_has_one_right_and_the_agent_may_be_the_reader() {
    // What the agent itself says.
    let source = include_str!("../../src/agent/front_proxy.rs");
    for (form, overlay) in FORMS {
        let objects = embedded(form);
        let bindings: Vec<&Value> = objects
            .iter()
            .filter(|object| object["kind"] == "RoleBinding")
            .collect();
        let [binding] = bindings[..] else {
            panic!("{overlay}: {bindings:?}");
        };
        assert_eq!(binding["metadata"]["namespace"], "kube-system");
        assert_eq!(
            binding["roleRef"],
            json!({
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": "extension-apiserver-authentication-reader",
            })
        );
        let subjects = binding["subjects"].as_array().unwrap();
        assert_eq!(subjects.len(), 1, "{overlay}");
        assert_eq!(subjects[0]["apiGroup"], "rbac.authorization.k8s.io");
        assert_eq!(subjects[0]["kind"], "User");
        let reader = subjects[0]["name"].as_str().unwrap();
        assert!(source.contains(&format!("const READER: &str = \"{reader}\";")));

        let (verb, group, resource) = match form {
            Impersonation::Classic => ("impersonate", "", "users"),
            Impersonation::Constrained => {
                ("impersonate:user-info", "authentication.k8s.io", "users")
            }
        };
        let role = role(form);
        assert!(may(&role, verb, group, resource), "{overlay}");
        // No rule is narrowed to names that leave the reader out.
        for rule in role["rules"].as_array().unwrap() {
            assert!(names(rule, reader), "{overlay}: {rule}");
        }
        if form == Impersonation::Constrained {
            assert!(may(&role, "impersonate-on:user-info:get", "", "configmaps"));
        }
    }
}

#[test]
fn classic_allows_people_and_groups_and_never_service_accounts() {
    let role = role(Impersonation::Classic);
    for (group, resource) in [
        ("", "users"),
        ("", "groups"),
        ("authentication.k8s.io", "uids"),
        ("authentication.k8s.io", "userextras/oid"),
        (
            "authentication.k8s.io",
            "userextras/arc.azure.com/original-user",
        ),
    ] {
        assert!(may(&role, "impersonate", group, resource), "{resource}");
    }
    for (verb, group, resource) in [
        ("impersonate", "", "serviceaccounts"),
        ("impersonate", "authentication.k8s.io", "userextras/scopes"),
        (
            "impersonate",
            "authentication.k8s.io",
            "userextras/authentication.kubernetes.io/pod-name",
        ),
        ("get", "", "users"),
        ("get", "", "secrets"),
        ("create", "", "pods/exec"),
        ("create", "authentication.k8s.io", "tokenreviews"),
        ("escalate", "rbac.authorization.k8s.io", "clusterroles"),
        ("impersonate-on:user-info:get", "", "pods"),
    ] {
        assert!(!may(&role, verb, group, resource), "{verb} {resource}");
    }
}

#[test]
fn constrained_has_no_way_back_to_the_classic_form() {
    let role = role(Impersonation::Constrained);
    let identity = "authentication.k8s.io";
    // KEP-5284 asks in this group for users and groups too, where the classic form asks in the core group.
    for resource in [
        "users",
        "groups",
        "uids",
        "userextras/arc.azure.com/oid",
        "userextras/arc.azure.com/original-user",
    ] {
        assert!(
            may(&role, "impersonate:user-info", identity, resource),
            "{resource}"
        );
    }
    // The API server falls back to the verb `impersonate`, so a single one would undo all the rest.
    for group in ["", identity] {
        for resource in ["users", "groups", "uids", "serviceaccounts", "nodes"] {
            assert!(!may(&role, "impersonate", group, resource), "{resource}");
        }
    }
    for verb in [
        "impersonate:serviceaccount",
        "impersonate:arbitrary-node",
        "impersonate:associated-node",
        "impersonate-on:serviceaccount:get",
        "get",
        "list",
        "create",
    ] {
        assert!(!may(&role, verb, "", "pods"), "{verb}");
        assert!(!may(&role, verb, identity, "nodes"), "{verb}");
    }
    for verb in [
        "get",
        "list",
        "watch",
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
    ] {
        let on = format!("impersonate-on:user-info:{verb}");
        assert!(may(&role, &on, "apps", "deployments"), "{verb}");
        assert!(may(&role, &on, "example.com", "widgets"), "{verb}");
        assert!(!may_path(&role, verb, "/api"), "{verb}");
    }
    for path in [
        "/api",
        "/api/v1",
        "/apis/apps/v1",
        "/version",
        "/openapi/v3",
        "/readyz",
    ] {
        assert!(
            may_path(&role, "impersonate-on:user-info:get", path),
            "{path}"
        );
    }
}

/// The API server's check of extra keys in the constrained form: a domain, a slash, a path, all in lower case.
#[test]
fn constrained_extra_keys_are_paths_with_a_domain() {
    let role = role(Impersonation::Constrained);
    let keys: Vec<&str> = role["rules"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|rule| strings(rule, "resources"))
        .filter_map(|resource| resource.strip_prefix("userextras/"))
        .collect();
    assert!(!keys.is_empty());
    for key in keys {
        let (domain, path) = key.split_once('/').unwrap_or_default();
        assert!(domain.contains('.') && !path.is_empty(), "{key}");
        assert_eq!(key, key.to_lowercase());
        assert!(!domain.ends_with("k8s.io") && !domain.ends_with("kubernetes.io"));
    }
}
