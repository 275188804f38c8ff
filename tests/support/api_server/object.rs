//! Single objects: get, create, replace, patch, delete.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};

use super::{
    accept::{self, Shape},
    kubelet, list,
    patch::{self, PatchKind},
    protobuf,
    query::Query,
    resource::builtin,
    resource_path::ResourcePath,
    response::{self, Response},
    review,
    server::Server,
    status::Status,
    table, watch,
};

/// Answers a request for a stored kind or one of its objects.
pub(super) fn answer(
    server: &Arc<Server>,
    method: &Method,
    path: &ResourcePath,
    query: &Query,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response, Status> {
    if query.first("dryRun").is_some() {
        return Err(Status::bad_request("the stand-in has no dry run"));
    }
    match (method, &path.name) {
        (&Method::GET, None) if query.is_set("watch") => watch::watch(server, path, query, headers),
        (&Method::GET, None) => list::list(server, path, query, headers),
        (&Method::GET, Some(name)) => get(server, path, name, query, headers),
        (&Method::POST, None) => {
            let object = create(server, path, decode(headers, body)?)?;
            Ok(response::json(StatusCode::CREATED, &object))
        }
        (&Method::PUT, Some(name)) => {
            let after = decode(headers, body)?;
            let object = server
                .store
                .update(path.resource, &path.namespace, name, |_| Ok(after))?;
            Ok(response::json(StatusCode::OK, &object))
        }
        (&Method::PATCH, Some(name)) => patch(server, path, name, headers, body),
        (&Method::DELETE, Some(name)) => delete(server, path, name),
        _ => Err(Status::method_not_allowed()),
    }
}

fn get(
    server: &Server,
    path: &ResourcePath,
    name: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response, Status> {
    let shape = accept::preferred(headers, &[Shape::Table])?;
    let object = server.store.require(path.resource, &path.namespace, name)?;
    if shape == Shape::Plain {
        return Ok(response::json(StatusCode::OK, &object));
    }
    let include_object = query.first("includeObject").unwrap_or("Metadata");
    let version = object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default();
    let rows = vec![table::row(path.resource, &object, include_object)];
    let table = table::table(version, table::columns(path.resource), rows);
    Ok(response::json(StatusCode::OK, &table))
}

fn create(
    server: &Arc<Server>,
    path: &ResourcePath,
    mut object: Value,
) -> Result<Arc<Value>, Status> {
    if !object.is_object() {
        return Err(Status::bad_request("the body is not a JSON object"));
    }
    match path.resource.plural {
        "pods" => kubelet::accept_pod(&mut object)?,
        "namespaces" => object["status"] = json!({ "phase": "Active" }),
        "secrets" => review::fill_token_secret(server, &path.namespace, &mut object)?,
        _ => {}
    }
    if path.resource.is_namespaced() {
        server
            .store
            .require(builtin("namespaces"), "", &path.namespace)?;
    }
    let object = server
        .store
        .create(path.resource, &path.namespace, object)?;
    if path.resource.plural == "pods" {
        kubelet::start_pod(server, &object);
    }
    Ok(object)
}

fn patch(
    server: &Arc<Server>,
    path: &ResourcePath,
    name: &str,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response, Status> {
    let kind = PatchKind::of_content_type(content_type(headers))?;
    let patch = parse(body)?;
    let exists = server
        .store
        .find(path.resource, &path.namespace, name)
        .is_some();
    if kind == PatchKind::Apply && !exists {
        let object = create(server, path, patch)?;
        return Ok(response::json(StatusCode::CREATED, &object));
    }
    let object = server
        .store
        .update(path.resource, &path.namespace, name, |object| {
            Ok(patch::apply(kind, object, &patch))
        })?;
    Ok(response::json(StatusCode::OK, &object))
}

fn delete(server: &Server, path: &ResourcePath, name: &str) -> Result<Response, Status> {
    let object = server.store.delete(path.resource, &path.namespace, name)?;
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    match path.resource.plural {
        "pods" => server.pods.remove(uid),
        "namespaces" => server.store.empty_namespace(name),
        _ => {}
    }
    Ok(response::json(
        StatusCode::OK,
        &json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {
                "name": name,
                "group": path.resource.group,
                "kind": path.resource.plural,
                "uid": uid,
            },
        }),
    ))
}

/// The object in a request's body.
pub(super) fn decode(headers: &HeaderMap, body: &Bytes) -> Result<Value, Status> {
    match content_type(headers).split(';').next().map(str::trim) {
        Some("application/json" | "application/yaml" | "") => parse(body),
        Some(protobuf::MEDIA_TYPE) => protobuf::decode(body),
        _ => Err(Status::unsupported_media_type()),
    }
}

fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE);
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn parse(body: &Bytes) -> Result<Value, Status> {
    let json = serde_json::from_slice(body);
    json.or_else(|_| {
        // JSON first, because it is the rule and fast; YAML is what is left.
        let text =
            std::str::from_utf8(body).map_err(|_| Status::bad_request("the body is not UTF-8"))?;
        serde_saphyr::from_str(text).map_err(|error| {
            Status::bad_request(format!("the body is neither JSON nor YAML: {error}"))
        })
    })
}
