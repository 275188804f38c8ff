//! What there is: `/api`, `/apis`, the resource lists, `/version`, and as much OpenAPI as `kubectl apply` asks for.

use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};

use super::{
    accept::{self, Shape},
    resource::{KINDS, ResourceKind, VERBS, api_version},
    response::{self, Response},
    review::{REVIEWS, Review},
    status::Status,
    to_json,
};

/// The version that the stand-in passes itself off as.
const GIT_VERSION: &str = "v1.32.4";

/// The media type of the OpenAPI v2 document. Clients ask for it as `…v2@v1.0…`, which is no legal
/// media type; the real server answers with this one.
const OPENAPI_V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The media type of aggregated discovery.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The answer at a discovery path; `None` when the path is none.
pub(super) fn answer(path: &str, headers: &HeaderMap) -> Option<Result<Response, Status>> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let value = match segments.as_slice() {
        ["api"] | ["apis"] => return Some(roots(segments[0], headers)),
        ["api", "v1"] => resource_list("", "v1")?,
        ["apis", group] => api_group(group)?,
        ["apis", group, version] => resource_list(group, version)?,
        ["openapi", "v2"] => return Some(Ok(openapi_v2(headers))),
        ["openapi", "v3"] => openapi_v3_index(),
        ["openapi", "v3", "api", "v1"] => openapi_v3("", "v1")?,
        ["openapi", "v3", "apis", group, version] => openapi_v3(group, version)?,
        _ => return None,
    };
    Some(Ok(response::json(StatusCode::OK, &value)))
}

pub(super) fn version() -> Response {
    response::json(
        StatusCode::OK,
        &json!({
            "major": "1",
            "minor": "32",
            "gitVersion": GIT_VERSION,
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "2025-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": "rustc",
            "platform": "linux/amd64",
        }),
    )
}

fn roots(root: &str, headers: &HeaderMap) -> Result<Response, Status> {
    let is_core = root == "api";
    let groups = groups()
        .into_iter()
        .filter(|(group, _)| group.is_empty() == is_core);
    if accept::preferred(headers, &[Shape::AggregatedDiscovery])? == Shape::AggregatedDiscovery {
        let items: Vec<Value> = groups
            .map(|(group, version)| aggregated(group, version))
            .collect();
        let list = json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {},
            "items": items,
        });
        return Ok(response::bytes(StatusCode::OK, AGGREGATED, to_json(&list)));
    }
    let value = if is_core {
        json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })
    } else {
        let groups: Vec<Value> = groups.filter_map(|(group, _)| api_group(group)).collect();
        json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
    };
    Ok(response::json(StatusCode::OK, &value))
}

/// All groups with their one version, in catalogue order.
fn groups() -> Vec<(&'static str, &'static str)> {
    let stored = KINDS
        .iter()
        .map(|resource| (resource.group, resource.version));
    let reviews = REVIEWS.iter().map(|review| (review.group, review.version));
    let mut groups: Vec<_> = stored.chain(reviews).collect();
    groups.dedup();
    groups
}

fn stored(group: &str, version: &str) -> impl Iterator<Item = &'static ResourceKind> {
    KINDS
        .iter()
        .filter(move |resource| resource.group == group && resource.version == version)
}

fn reviews(group: &str, version: &str) -> impl Iterator<Item = &'static Review> {
    REVIEWS
        .iter()
        .filter(move |review| review.group == group && review.version == version)
}

fn api_group(group: &str) -> Option<Value> {
    let (group, version) = groups()
        .into_iter()
        .find(|(name, _)| *name == group && !group.is_empty())?;
    let version = json!({ "groupVersion": api_version(group, version), "version": version });
    Some(json!({
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": group,
        "versions": [version],
        "preferredVersion": version,
    }))
}

fn resource_list(group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for resource in stored(group, version) {
        resources.push(json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.is_namespaced(),
            "kind": resource.kind,
            "verbs": VERBS,
            "shortNames": resource.short_names,
        }));
        for subresource in resource.subresources {
            resources.push(json!({
                "name": format!("{}/{}", resource.plural, subresource.name),
                "singularName": "",
                "namespaced": resource.is_namespaced(),
                "kind": subresource.kind,
                "verbs": subresource.verbs,
            }));
        }
    }
    for review in reviews(group, version) {
        resources.push(json!({
            "name": review.plural,
            "singularName": review.plural.trim_end_matches('s'),
            "namespaced": false,
            "kind": review.kind,
            "verbs": ["create"],
        }));
    }
    (!resources.is_empty()).then(|| {
        json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": api_version(group, version),
            "resources": resources,
        })
    })
}

fn aggregated(group: &str, version: &str) -> Value {
    let response_kind = |kind: &str| json!({ "group": group, "version": version, "kind": kind });
    let stored = stored(group, version).map(|resource| {
        let subresources: Vec<Value> = resource
            .subresources
            .iter()
            .map(|subresource| {
                json!({
                    "subresource": subresource.name,
                    "responseKind": response_kind(subresource.kind),
                    "verbs": subresource.verbs,
                })
            })
            .collect();
        json!({
            "resource": resource.plural,
            "responseKind": response_kind(resource.kind),
            "scope": if resource.is_namespaced() { "Namespaced" } else { "Cluster" },
            "singularResource": resource.singular,
            "verbs": VERBS,
            "shortNames": resource.short_names,
            "subresources": subresources,
        })
    });
    let reviews = reviews(group, version).map(|review| {
        json!({
            "resource": review.plural,
            "responseKind": response_kind(review.kind),
            "scope": "Cluster",
            "singularResource": review.plural.trim_end_matches('s'),
            "verbs": ["create"],
        })
    });
    let resources: Vec<Value> = stored.chain(reviews).collect();
    json!({
        "metadata": { "name": group, "creationTimestamp": null },
        "versions": [{ "version": version, "resources": resources, "freshness": "Current" }],
    })
}

/// An empty document: clients then skip their own validation and use the patch rules that they were built with. As
/// protobuf, which is all that kubectl takes, an empty message has no bytes.
fn openapi_v2(headers: &HeaderMap) -> Response {
    let wants_protobuf = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("protobuf"));
    if wants_protobuf {
        response::bytes(StatusCode::OK, OPENAPI_V2_PROTOBUF, Vec::new())
    } else {
        let info = json!({ "title": "Kubernetes", "version": GIT_VERSION });
        let document = json!({ "swagger": "2.0", "info": info, "paths": {}, "definitions": {} });
        response::json(StatusCode::OK, &document)
    }
}

fn openapi_v3_index() -> Value {
    let paths: Map<String, Value> = groups()
        .into_iter()
        .map(|(group, version)| {
            let place = place(group, version);
            let url = format!("/openapi/v3/{place}");
            (place, json!({ "serverRelativeURL": url }))
        })
        .collect();
    json!({ "paths": paths })
}

/// Only what tells kubectl that the server validates fields itself.
fn openapi_v3(group: &str, version: &str) -> Option<Value> {
    let paths: Map<String, Value> = stored(group, version)
        .map(|resource| {
            let namespace = if resource.is_namespaced() {
                "namespaces/{namespace}/"
            } else {
                ""
            };
            let path = format!(
                "/{}/{namespace}{}/{{name}}",
                place(group, version),
                resource.plural
            );
            let field_validation =
                json!({ "name": "fieldValidation", "in": "query", "schema": { "type": "string" } });
            let operation = json!({
                "parameters": [field_validation],
                "responses": {},
                "x-kubernetes-action": "patch",
                "x-kubernetes-group-version-kind":
                    { "group": group, "version": version, "kind": resource.kind },
            });
            (path, json!({ "patch": operation }))
        })
        .collect();
    (!paths.is_empty()).then(|| {
        json!({
            "openapi": "3.0.0",
            "info": { "title": "Kubernetes", "version": GIT_VERSION },
            "paths": paths,
        })
    })
}

fn place(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}
