//! The files themselves: nothing forgotten, nothing twice, and kustomize and the program of one mind.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    manifests::{self, Impersonation, Settings},
    support::kubectl::{self, Kubectl},
};

pub const FORMS: [(Impersonation, &str); 2] = [
    (Impersonation::Classic, "classic"),
    (Impersonation::Constrained, "constrained"),
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// Everything that the program embeds for a form, by kind and name.
pub fn embedded(form: Impersonation) -> Vec<Value> {
    let mut objects = vec![manifests::namespace()];
    objects.extend(manifests::objects(form));
    sorted(objects)
}

fn sorted(mut objects: Vec<Value>) -> Vec<Value> {
    objects.sort_by_key(|object| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&object["kind"]), text(&object["metadata"]["name"]))
    });
    objects
}

#[tokio::test]
async fn kustomize_and_the_program_give_the_same_objects() {
    if !kubectl::is_installed("kustomize_and_the_program_give_the_same_objects") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let kubectl = Kubectl::new(home.path().join("none"));
    for (form, overlay) in FORMS {
        let path = directory().join("overlays").join(overlay);
        let built = kubectl
            .run(&["kustomize", path.to_str().unwrap()])
            .await
            .succeeded();
        let text = built.text();
        let documents = text.split("\n---\n");
        let objects = documents.map(|text| serde_saphyr::from_str(text).unwrap());
        assert_eq!(sorted(objects.collect()), embedded(form), "{overlay}");
    }
}

#[test]
fn every_file_is_listed_and_every_listed_file_is_there() {
    for place in ["base", "overlays/classic", "overlays/constrained"] {
        let directory = directory().join(place);
        let text = fs::read_to_string(directory.join("kustomization.yaml")).unwrap();
        let kustomization: Value = serde_saphyr::from_str(&text).unwrap();
        let mut listed: Vec<&str> = kustomization["resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .filter(|name| *name != "../../base")
            .collect();
        listed.sort_unstable();
        let mut present: Vec<String> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "kustomization.yaml")
            .collect();
        present.sort_unstable();
        assert_eq!(listed, present, "{place}");

        // Anything else in it would be applied by kustomize and unknown to the program.
        let members = kustomization.as_object().unwrap().keys();
        let members: Vec<&str> = members.map(String::as_str).collect();
        assert_eq!(members, ["apiVersion", "kind", "resources"], "{place}");
    }
}

#[test]
fn every_object_says_to_whom_it_belongs() {
    for (form, overlay) in FORMS {
        for object in embedded(form) {
            let kind = &object["kind"];
            let labels = &object["metadata"]["labels"];
            assert_eq!(
                labels["app.kubernetes.io/part-of"], "arc-cluster-connect",
                "{overlay}: {kind}"
            );
            let namespace = &object["metadata"]["namespace"];
            // What the binding refers to is in `kube-system`, and so it has to be there too.
            let is_elsewhere = kind == "RoleBinding" && namespace == "kube-system";
            assert!(
                namespace.is_null() || namespace == manifests::NAMESPACE || is_elsewhere,
                "{overlay}: {kind}"
            );
        }
    }
}

#[test]
fn removal_names_everything_that_is_installed_but_the_namespace() {
    let name = |object: &Value| {
        (
            object["kind"].as_str().unwrap().to_owned(),
            object["metadata"]["name"].as_str().unwrap().to_owned(),
        )
    };
    let removed: Vec<_> = manifests::removal().iter().map(name).collect();
    // Rights first: whatever fails later, the agent can no longer act as anybody.
    assert_eq!(removed[0].0, "ClusterRoleBinding");
    for (form, _) in FORMS {
        let mut installed: Vec<_> = manifests::objects(form).iter().map(name).collect();
        installed.push(name(&manifests::relay_secret("")));
        installed.sort();
        let mut removed = removed.clone();
        removed.sort();
        assert_eq!(installed, removed);
    }
}

#[test]
fn what_the_files_leave_open_is_filled_in_and_nothing_else_changes() {
    let arguments = ["--entra-tenant=contoso".to_owned()];
    let mut settings = Settings {
        image: "registry.example/agent:7",
        agent_arguments: &arguments,
        relay_port: 443,
        secret_version: Some("41"),
    };
    let plain = manifests::objects(Impersonation::Classic);
    let customized = manifests::customized(Impersonation::Classic, &settings);
    let (deployment, rest) = customized.split_last().unwrap();
    assert_eq!(rest, &plain[..plain.len() - 1], "443 is open anyhow");

    let template = &deployment["spec"]["template"];
    let container = &template["spec"]["containers"][0];
    assert_eq!(container["image"], "registry.example/agent:7");
    let arguments = container["args"].as_array().unwrap();
    assert_eq!(arguments.last().unwrap(), "--entra-tenant=contoso");
    assert_eq!(
        arguments.len(),
        1 + plain.last().unwrap()["spec"]["template"]["spec"]["containers"][0]["args"]
            .as_array()
            .unwrap()
            .len()
    );
    assert_eq!(
        template["metadata"]["annotations"]["arc-cluster-connect/relay-secret-version"],
        "41"
    );

    settings.relay_port = 9443;
    let customized = manifests::customized(Impersonation::Classic, &settings);
    let policy = customized
        .iter()
        .find(|object| object["kind"] == "NetworkPolicy")
        .unwrap();
    let ports = policy["spec"]["egress"].as_array().unwrap().last().unwrap();
    assert_eq!(ports["ports"][0]["port"], 9443);
}
