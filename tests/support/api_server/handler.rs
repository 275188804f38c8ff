//! From a request to its answer: who asks, may they, and who answers.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use uuid::Uuid;

use super::{
    discovery, impersonation, logs, object,
    query::Query,
    request_body::RequestBody,
    request_log::Ticket,
    resource_path::ResourcePath,
    response::{self, CountedBody, Response},
    review,
    server::Server,
    status::Status,
    upgrade,
    user::{Access, User},
};

/// The real server's limit on the body of one request.
const MAX_BODY_BYTES: usize = 3 << 20;

/// Answers at this path carry a `Warning` header, which kubectl prints.
const WARNING_PATH: &str = "/api/v1/namespaces/kube-system/services";

pub(super) async fn handle(
    server: &Arc<Server>,
    connection: u64,
    request: http::Request<Incoming>,
) -> http::Response<CountedBody> {
    let (head, body) = request.into_parts();
    let ticket = server.requests.begin(&head, connection);
    let audit_id = head.headers.get("audit-id").cloned();
    let warns = head.uri.path() == WARNING_PATH;
    let wants_head_only = head.method == Method::HEAD;

    let request = http::Request::from_parts(head, RequestBody::new(body));
    let mut response = route(server, request, &ticket)
        .await
        .unwrap_or_else(|status| status.to_response());
    // A connection that was upgraded is no longer HTTP, and the real server sends no audit id there.
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let audit_id = audit_id.unwrap_or_else(|| {
            HeaderValue::try_from(Uuid::new_v4().to_string()).expect("a UUID is a header value")
        });
        response.headers_mut().insert("audit-id", audit_id);
    }
    if warns {
        let warning =
            HeaderValue::from_static("299 - \"these services are made up by a stand-in\"");
        response
            .headers_mut()
            .insert(http::header::WARNING, warning);
    }
    if wants_head_only {
        response = response::head_only(response);
    }
    response.map(|body| CountedBody::new(body, ticket))
}

async fn route(
    server: &Arc<Server>,
    request: http::Request<RequestBody>,
    ticket: &Arc<Ticket>,
) -> Result<Response, Status> {
    let path = request.uri().path().to_owned();
    // A few paths are for everybody; but who shows a token must show a good one, on every path.
    let shows_nothing = !request.headers().contains_key(http::header::AUTHORIZATION);
    let caller = match server.identities.authenticate(request.headers()) {
        Ok(caller) => Some(caller),
        Err(_) if shows_nothing => None,
        Err(refusal) => return Err(refusal),
    };
    match path.as_str() {
        "/healthz" | "/livez" | "/readyz" => {
            return Ok(response::bytes(
                StatusCode::OK,
                "text/plain; charset=utf-8",
                "ok",
            ));
        }
        "/version" => return Ok(discovery::version()),
        _ => {}
    }

    let caller = caller.ok_or_else(Status::unauthorized)?;
    ticket.set_caller(&caller);
    let rights = server.identities.impersonation_rights(&caller);
    let user = impersonation::effective_user(&caller, rights, request.headers())?;
    ticket.set_user(&user);

    if path == upgrade::ECHO_PATH {
        return upgrade::echo(server, request, ticket);
    }
    if let Some(answer) = discovery::answer(&path, request.headers()) {
        return match *request.method() {
            Method::GET => answer,
            _ => Err(Status::method_not_allowed()),
        };
    }
    if let Some(review) = review::find(&path) {
        if request.method() != Method::POST {
            return Err(Status::method_not_allowed());
        }
        let (head, body) = request.into_parts();
        let body = object::decode(&head.headers, &collect(body).await?)?;
        return Ok(review::answer(server, review, &user, require_object(body)?));
    }

    let path = ResourcePath::parse(&path).ok_or_else(Status::no_such_path)?;
    authorize(server, &user, request.method(), &path)?;
    let query = Query::parse(request.uri().query().unwrap_or_default());
    match (
        path.resource.plural,
        path.subresource.as_deref(),
        &path.name,
    ) {
        (_, None, _) => {
            let (head, body) = request.into_parts();
            let body = collect(body).await?;
            object::answer(server, &head.method, &path, &query, &head.headers, &body)
        }
        ("pods", Some("log"), Some(name)) => logs::log(server, &path.namespace, name, &query),
        ("pods", Some("exec"), Some(name)) => {
            upgrade::exec(server, request, ticket, &path.namespace, name, &query)
        }
        ("pods", Some("attach"), Some(name)) => {
            upgrade::attach(server, request, ticket, &path.namespace, name, &query)
        }
        ("pods", Some("portforward"), Some(name)) => {
            upgrade::port_forward(server, request, ticket, &path.namespace, name, &query)
        }
        ("serviceaccounts", Some("token"), Some(name)) if request.method() == Method::POST => {
            let (head, body) = request.into_parts();
            let body = object::decode(&head.headers, &collect(body).await?)?;
            review::token_request(server, &path.namespace, name, require_object(body)?)
        }
        _ => Err(Status::no_such_path()),
    }
}

fn authorize(
    server: &Server,
    user: &User,
    method: &Method,
    path: &ResourcePath,
) -> Result<(), Status> {
    let connects = matches!(
        path.subresource.as_deref(),
        Some("exec" | "attach" | "portforward")
    );
    let verb = match (method, &path.name) {
        _ if connects => "create",
        (&Method::GET, None) => "list",
        (&Method::GET, Some(_)) => "get",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        _ => "delete",
    };
    let allowed = match server.identities.access(user) {
        Access::Everything => true,
        Access::ReadOnly => matches!(verb, "get" | "list"),
        Access::Nothing => false,
    };
    if allowed {
        return Ok(());
    }
    let subject = match &path.name {
        Some(name) => format!("{} \"{name}\"", path.resource.plural),
        None => path.resource.plural.to_owned(),
    };
    let place = match path.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace \"{namespace}\""),
    };
    let resource = match &path.subresource {
        Some(subresource) => format!("{}/{subresource}", path.resource.plural),
        None => path.resource.plural.to_owned(),
    };
    Err(Status::forbidden(format!(
        "{subject} is forbidden: User \"{}\" cannot {verb} resource \"{resource}\" in API group \"{}\" {place}",
        user.name, path.resource.group
    )))
}

fn require_object(body: Value) -> Result<Value, Status> {
    if body.is_object() {
        Ok(body)
    } else {
        Err(Status::bad_request("the body is not a JSON object"))
    }
}

async fn collect(mut body: RequestBody) -> Result<Bytes, Status> {
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Status::bad_request(format!("the body broke off: {error}")))?;
        if let Some(data) = frame.data_ref() {
            if collected.len() + data.len() > MAX_BODY_BYTES {
                return Err(Status::too_large(MAX_BODY_BYTES));
            }
            collected.extend_from_slice(data);
        }
    }
    Ok(collected.freeze())
}
