//! The HTTP side of the proxy: from an accepted connection to the agent's answer.

mod agent;
mod body;
mod client;
mod correlation;
mod counted;
mod exchange;
mod forward;
mod framing;
mod gate;
mod headers;
pub(super) mod limits;
mod own;
mod route;
mod server;
mod status;
mod upgrade;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;

use self::{
    body::ResponseBody,
    client::Client,
    correlation::{CorrelationId, SessionId},
    exchange::Exchange,
    forward::Forward,
    gate::Gate,
    route::Route,
    status::{Failure, Reason},
};
use super::{
    LocalService, ProxyStatus,
    lifetime::Lifetime,
    registry::{Found, Registry},
    request_log::{RequestEnd, RequestLog},
    secret::RunSecret,
};
use crate::telemetry;

pub(super) use limits::Limits;
pub(super) use route::base_path;
pub(super) use server::Server;

/// What all connections share.
pub(super) struct Endpoint {
    gate: Gate,
    registry: Arc<Registry>,
    requests: Arc<Semaphore>,
    session: SessionId,
    lifetime: Lifetime,
    place: Place,
    log: RequestLog,
    local_service: Option<Arc<dyn LocalService>>,
}

/// Where the endpoint listens.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) local_addr: SocketAddr,
    pub(super) unix_socket: Option<PathBuf>,
}

impl Endpoint {
    pub(super) fn new(
        place: Place,
        secret: RunSecret,
        registry: Arc<Registry>,
        limits: &Limits,
        lifetime: Lifetime,
    ) -> Self {
        Self {
            gate: Gate::new(place.local_addr.port(), secret),
            registry,
            requests: Arc::new(Semaphore::new(limits.requests)),
            session: SessionId::generate(),
            lifetime,
            place,
            log: RequestLog::default(),
            local_service: None,
        }
    }

    pub(super) fn with_log(mut self, log: RequestLog) -> Self {
        self.log = log;
        self
    }

    pub(super) fn with_local_service(mut self, service: Option<Arc<dyn LocalService>>) -> Self {
        self.local_service = service;
        self
    }

    pub(super) fn status(&self) -> ProxyStatus {
        ProxyStatus {
            local_addr: self.place.local_addr,
            unix_socket: self.place.unix_socket.clone(),
            draining: self.lifetime.is_draining(),
            clusters: self
                .registry
                .clusters()
                .iter()
                .map(|cluster| cluster.status())
                .collect(),
        }
    }

    /// Answers one request; whatever goes wrong is an answer too.
    async fn serve(&self, request: Request<Incoming>, client: &Client) -> Response<ResponseBody> {
        let asks_for_upgrade = request.version() == Version::HTTP_11
            && request.headers().contains_key(header::UPGRADE);
        let is_unclear = headers::has_other_coding(request.headers());
        let correlation_id = CorrelationId::of_request(request.headers(), self.session);
        // The path without its query, which may carry what is not for a log.
        let span = tracing::debug_span!(
            telemetry::SPAN_PROXY_REQUEST,
            method = %request.method(),
            path = request.uri().path(),
            correlation_id = correlation_id.as_str(),
        );
        let exchange = Exchange::begin(
            self.log.clone(),
            self.lifetime.clone(),
            request.method().clone(),
            request.uri().path(),
            correlation_id.clone(),
        );
        let mut response = async {
            match self
                .answer(request, client, &correlation_id, &exchange)
                .await
            {
                Ok(response) => {
                    tracing::debug!(status = response.status().as_u16(), "answered");
                    response
                }
                Err(failure) => {
                    exchange.end(RequestEnd::Refused);
                    tracing::debug!(
                        reason = ?failure.reason(),
                        message = failure.message(),
                        "refused"
                    );
                    failure.into_response(&correlation_id)
                }
            }
        }
        .instrument(span)
        .await;
        response.headers_mut().insert(
            telemetry::HEADER_CORRELATION_ID,
            correlation_id.as_header().clone(),
        );
        if is_unclear || (asks_for_upgrade && response.status() != StatusCode::SWITCHING_PROTOCOLS)
        {
            // What the client may have sent ahead for the new protocol, or takes for a body that we do not understand,
            // must not be read as its next request.
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        exchange.answered(response.status());
        // After a 101 the exchange goes on beside the HTTP library.
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.body_mut().account_to(exchange);
        }
        response
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        client: &Client,
        correlation_id: &CorrelationId,
        exchange: &Arc<Exchange>,
    ) -> Result<Response<ResponseBody>, Failure> {
        let (parts, body) = request.into_parts();
        if let Some(service) = self.local_service_for(&parts) {
            self.gate.admit_stranger(&parts, client.door())?;
            let permit = self.permit()?;
            let response = self.ask(&*service, parts, body, client).await?;
            exchange.end(RequestEnd::Complete);
            drop(permit);
            return Ok(response);
        }
        self.gate.admit(&parts, client.door())?;
        client.prove();
        if own::is_own(parts.uri.path()) {
            let response = self.own(&parts)?;
            exchange.end(RequestEnd::Complete);
            return Ok(response);
        }
        let route = Route::of(&parts.uri)?;
        let live = match self.registry.enter(&route.id) {
            Found::Cluster(live) => live,
            Found::Removed => {
                return Err(Failure::new(
                    Reason::NotFound,
                    "the cluster was removed from this local proxy; add it again, or use another context of your \
                     kubeconfig",
                ));
            }
            Found::Unknown => {
                return Err(Failure::new(
                    Reason::NotFound,
                    "the local proxy serves no cluster with this id; use the server address of the kubeconfig that \
                     this run of it wrote",
                ));
            }
        };
        let permit = self.permit()?;
        Forward::new(
            Request::from_parts(parts, body),
            route,
            live,
            exchange,
            correlation_id,
            self.lifetime.clone(),
            permit,
        )?
        .run()
        .await
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.requests).try_acquire_owned().map_err(|_| {
            Failure::new(
                Reason::TooManyRequests,
                "the local proxy carries as many requests as it may; close some watches or shells, or try again",
            )
        })
    }
}
