//! What the endpoint answers itself: its status, and the paths of a [`LocalService`].

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use super::{
    Endpoint,
    body::ResponseBody,
    client::Client,
    headers::remove_hop_by_hop,
    route::PREFIX,
    status::{Failure, Reason},
};
use crate::proxy::{
    LocalRequest, LocalService,
    local_service::{LocalConnection, SecretShown},
};

/// Below it are the answers about the proxy itself.
const OWN_PREFIX: &str = "/-/";
const STATUS_PATH: &str = "/-/status";

/// How long a local service may take, its request's body included. Less than a connection has that never shows the
/// secret, so that its client reads why.
const LOCAL_SERVICE_LIMIT: Duration = Duration::from_secs(20);

pub(super) fn is_own(path: &str) -> bool {
    path.starts_with(OWN_PREFIX)
}

impl Endpoint {
    /// The answer to a path below `/-/`, whose request has shown the secret.
    pub(super) fn own(&self, request: &Parts) -> Result<Response<ResponseBody>, Failure> {
        if request.uri.path() != STATUS_PATH {
            return Err(Failure::new(
                Reason::NotFound,
                "the local proxy has nothing at this path; below /-/ there is /-/status only",
            ));
        }
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return Err(Failure::new(
                Reason::MethodNotAllowed,
                "the status of the local proxy can be read with GET only",
            ));
        }
        let body = self.status().to_json().to_string();
        let mut response = Response::new(ResponseBody::whole(Bytes::from(body)));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    pub(super) fn local_service_for(&self, request: &Parts) -> Option<Arc<dyn LocalService>> {
        let path = request.uri.path();
        if path.starts_with(PREFIX) || is_own(path) || request.method == Method::CONNECT {
            return None;
        }
        self.local_service
            .as_ref()
            .filter(|service| service.takes(&request.method, path))
            .map(Arc::clone)
    }

    pub(super) async fn ask(
        &self,
        service: &dyn LocalService,
        mut parts: Parts,
        body: Incoming,
        client: &Client,
    ) -> Result<Response<ResponseBody>, Failure> {
        let secret = if self.gate.shows_the_secret(&parts.headers, client.door()) {
            client.prove();
            SecretShown::Yes
        } else {
            SecretShown::No
        };
        parts.headers.remove(header::AUTHORIZATION);
        let connection = client.address().map(|peer| LocalConnection {
            peer,
            local: self.place.local_addr,
        });
        let answer = async {
            let body = whole_body(body, service.max_body_bytes()).await?;
            let request = Request::from_parts(parts, body);
            let request = LocalRequest::new(request, secret, connection);
            Ok(service.answer(request).await)
        };
        let response = tokio::time::timeout(LOCAL_SERVICE_LIMIT, answer)
            .await
            .map_err(|_| {
                Failure::new(
                    Reason::Timeout,
                    format!(
                        "the local proxy had no answer within {} seconds",
                        LOCAL_SERVICE_LIMIT.as_secs()
                    ),
                )
            })??;
        let (mut parts, body) = response.into_parts();
        if parts.status.is_informational() {
            return Err(Failure::new(
                Reason::InternalError,
                "the local proxy has no final answer for this path",
            ));
        }
        remove_framing(&mut parts.headers);
        Ok(Response::from_parts(parts, ResponseBody::whole(body)))
    }
}

async fn whole_body(body: Incoming, limit: usize) -> Result<Bytes, Failure> {
    match Limited::new(body, limit).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Failure::new(
            Reason::RequestEntityTooLarge,
            format!("the request to the local proxy has more than {limit} bytes"),
        )),
        Err(_) => Err(Failure::new(
            Reason::BadRequest,
            "the body of the request to the local proxy broke off",
        )),
    }
}

/// How a message is framed is the HTTP library's business.
fn remove_framing(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers, &[]);
    headers.remove(header::CONTENT_LENGTH);
}
