//! The HTTP side of the proxy: from an accepted connection to the agent's answer.

mod agent;
mod body;
mod correlation;
mod forward;
mod framing;
mod gate;
mod headers;
pub(super) mod limits;
mod route;
mod server;
mod status;
mod upgrade;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tracing::Instrument;

use self::{
    body::ResponseBody,
    correlation::{CorrelationId, SessionId},
    forward::Forward,
    gate::Gate,
    route::Route,
    status::{Failure, Reason},
};
use super::{lifetime::Lifetime, registry::Registry, secret::RunSecret};
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
}

/// Whether a connection has shown the secret once.
#[derive(Default)]
struct Proof(AtomicBool);

impl Endpoint {
    pub(super) fn new(
        port: u16,
        secret: RunSecret,
        registry: Arc<Registry>,
        limits: &Limits,
        lifetime: Lifetime,
    ) -> Self {
        Self {
            gate: Gate::new(port, secret),
            registry,
            requests: Arc::new(Semaphore::new(limits.requests)),
            session: SessionId::generate(),
            lifetime,
        }
    }

    /// Answers one request; whatever goes wrong is an answer too.
    async fn serve(&self, request: Request<Incoming>, proof: &Proof) -> Response<ResponseBody> {
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
        let mut response = async {
            match self.forward(request, proof, &correlation_id).await {
                Ok(response) => {
                    tracing::debug!(status = response.status().as_u16(), "forwarded");
                    response
                }
                Err(failure) => {
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
        response
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        proof: &Proof,
        correlation_id: &CorrelationId,
    ) -> Result<Response<ResponseBody>, Failure> {
        let (parts, body) = request.into_parts();
        self.gate.admit(&parts)?;
        proof.give();
        let route = Route::of(&parts.uri)?;
        let cluster = self.registry.find(&route.id).ok_or_else(|| {
            Failure::new(
                Reason::NotFound,
                "the local proxy serves no cluster with this id; use the server address of the kubeconfig that this \
                 run of it wrote",
            )
        })?;
        let permit = Arc::clone(&self.requests)
            .try_acquire_owned()
            .map_err(|_| {
                Failure::new(
                    Reason::TooManyRequests,
                    "the local proxy carries as many requests as it may; close some watches or shells, or try again",
                )
            })?;
        Forward::new(
            Request::from_parts(parts, body),
            route,
            cluster,
            correlation_id,
            self.lifetime.clone(),
            permit,
        )?
        .run()
        .await
    }
}

impl Proof {
    fn give(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_given(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
