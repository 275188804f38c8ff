//! One request's way to the agent and back.

use std::{sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header,
    uri::PathAndQuery,
};
use hyper::{
    body::{Body, Incoming},
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    agent::AgentConnection,
    body::{Download, RequestBody, ResponseBody},
    correlation::CorrelationId,
    counted::Counted,
    exchange::Exchange,
    headers,
    route::{Route, base_path},
    status::{Failure, Reason},
    upgrade::{BodyPresence, Upgrade},
};
use crate::{
    auth::{AccessToken, Freshness, TokenRequest},
    proxy::{
        cluster::{Link, LiveRequest},
        lifetime::Lifetime,
        request_log::RequestEnd,
        streams::Streams,
    },
    telemetry,
    tunnel::splice,
};

/// How long the caller's token may take. A login tool that runs in the background needs seconds.
pub(super) const TOKEN_LIMIT: Duration = Duration::from_secs(30);

/// A request that has passed the gate and found its cluster.
pub(super) struct Forward {
    link: Arc<Link>,
    /// What stops when the cluster is removed.
    cluster: Lifetime,
    streams: Streams,
    base_path: String,
    lifetime: Lifetime,
    exchange: Arc<Exchange>,
    permit: OwnedSemaphorePermit,
    message: Message,
    body: RequestBody,
    upgrade: Option<(Upgrade, OnUpgrade)>,
}

/// The head of the request as the agent shall see it, but for the token: kept apart, so that it can be sent twice.
struct Message {
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
}

/// The agent's response, and what keeps it alive.
struct Answer {
    response: Response<Incoming>,
    connection: AgentConnection,
}

impl Forward {
    pub(super) fn new(
        mut request: Request<Incoming>,
        route: Route,
        live: LiveRequest,
        exchange: &Arc<Exchange>,
        correlation_id: &CorrelationId,
        lifetime: Lifetime,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, Failure> {
        let (link, cluster) = (Arc::clone(live.link()), live.lifetime().clone());
        let streams = live.streams().clone();
        exchange.enter(live, route.target.path());
        let on_client = hyper::upgrade::on(&mut request);
        let (mut parts, body) = request.into_parts();
        if parts.method == Method::CONNECT {
            return Err(Failure::new(
                Reason::MethodNotAllowed,
                "the local proxy does not open connections for CONNECT; use it as the server of a kubeconfig, not as \
                 its proxy-url",
            ));
        }
        let presence = if body.is_end_stream() {
            BodyPresence::Absent
        } else {
            BodyPresence::Present
        };
        let upgrade = Upgrade::asked_for(&parts, presence);
        headers::clean_request(&mut parts.headers)?;
        parts.headers.insert(
            telemetry::HEADER_CORRELATION_ID,
            correlation_id.as_header().clone(),
        );
        let upgrade = upgrade.map(|upgrade| {
            upgrade.write(&mut parts.headers);
            (upgrade, on_client)
        });
        Ok(Self {
            link,
            cluster,
            streams,
            base_path: base_path(&route.id),
            lifetime,
            exchange: Arc::clone(exchange),
            permit,
            message: Message {
                method: parts.method,
                target: route.target,
                headers: parts.headers,
            },
            body: RequestBody::new(body, Arc::clone(exchange.bytes())),
            upgrade,
        })
    }

    pub(super) async fn run(self) -> Result<Response<ResponseBody>, Failure> {
        let cluster = self.cluster.clone();
        cluster.run(self.exchanged()).await.unwrap_or_else(|| {
            Err(Failure::new(
                Reason::ServiceUnavailable,
                "the cluster was removed from the local proxy while the request ran, which may or may not have been \
                 carried out; look at the cluster, and add it to the proxy again to go on",
            ))
        })
    }

    async fn exchanged(mut self) -> Result<Response<ResponseBody>, Failure> {
        let token = self.token(Freshness::Cached).await?;
        let mut answer = self.send(&token).await?;
        // The token may have been revoked before its time. Asked again with nothing sent yet, the agent does nothing
        // twice; a body that is under way can not be had again, and its client gets the 401.
        if answer.response.status() == StatusCode::UNAUTHORIZED && self.body.is_repeatable() {
            let fresh = self.token(Freshness::Fresh).await?;
            if fresh.secret() != token.secret()
                && let Some(body) = self.body.take_back()
            {
                self.body = body;
                answer = self.send(&fresh).await?;
            }
        }
        self.answer(answer)
    }

    async fn token(&self, freshness: Freshness) -> Result<AccessToken, Failure> {
        let request = TokenRequest::new().with_freshness(freshness);
        tokio::time::timeout(TOKEN_LIMIT, self.link.auth.token(&request))
            .await
            .map_err(|_| {
                Failure::new(
                    Reason::Timeout,
                    format!(
                        "the proxy got no token for you within {} seconds; check the network, then that the login \
                         tool works",
                        TOKEN_LIMIT.as_secs()
                    ),
                )
            })?
            .map_err(|error| Failure::token(&error))
    }

    async fn send(&self, token: &AccessToken) -> Result<Answer, Failure> {
        let request = self.message.request(token, self.body.clone())?;
        let mut connection =
            AgentConnection::open(&*self.link.tunnel, &self.cluster, &self.streams).await?;
        let response = connection.send(request).await?;
        Ok(Answer {
            response,
            connection,
        })
    }

    fn answer(self, answer: Answer) -> Result<Response<ResponseBody>, Failure> {
        let status = answer.response.status();
        match self.upgrade {
            None if status.is_informational() => Err(Failure::new(
                Reason::BadGateway,
                format!(
                    "the agent beside the cluster answered {status} to a plain request; check that agent and proxy \
                     have matching versions"
                ),
            )),
            None => Ok(self.stream(answer)),
            Some(_) if status == StatusCode::SWITCHING_PROTOCOLS => self.switch(answer),
            Some(_) if status.is_client_error() || status.is_server_error() => {
                Ok(self.stream(answer))
            }
            // A redirect or a page instead of the upgrade: passed on, it would be followed with credentials, or kept
            // as a pipe to who knows what.
            Some(_) => Err(Failure::new(
                Reason::BadGateway,
                format!(
                    "the cluster answered {status} to an upgrade (exec, attach or port-forward), which is neither \
                     agreement nor refusal; look at the agent's log"
                ),
            )),
        }
    }

    fn stream(self, answer: Answer) -> Response<ResponseBody> {
        let (mut parts, incoming) = answer.response.into_parts();
        parts.version = Version::default();
        headers::clean_response(&mut parts.headers, &self.base_path);
        let download = Download::new(
            incoming,
            answer.connection,
            self.body,
            self.cluster,
            self.permit,
        );
        Response::from_parts(parts, ResponseBody::streamed(download))
    }

    /// Both sides have agreed: answer 101, then carry bytes.
    fn switch(self, answer: Answer) -> Result<Response<ResponseBody>, Failure> {
        let Answer {
            mut response,
            connection,
        } = answer;
        let agreed = self
            .upgrade
            .filter(|(upgrade, _)| upgrade.is_agreed(response.headers()));
        let Some((upgrade, on_client)) = agreed else {
            return Err(Failure::new(
                Reason::BadGateway,
                "the cluster switched to another protocol than the one that was asked for; look at the agent's log",
            ));
        };
        connection.allow_half_close();
        let on_agent = hyper::upgrade::on(&mut response);
        let (permit, exchange, cluster) = (self.permit, self.exchange, self.cluster);
        self.lifetime.spawn(async move {
            let joined = cluster.run(async {
                // Fails when the client has gone before it got the 101; dropping the other side resets its stream.
                let (client, agent) = tokio::try_join!(on_client, on_agent).ok()?;
                let client = Counted::new(TokioIo::new(client), Arc::clone(exchange.bytes()));
                Some(splice(client, TokioIo::new(agent)).await)
            });
            match joined.await {
                Some(Some(Ok(()))) => exchange.end(RequestEnd::Complete),
                Some(Some(Err(error))) => {
                    tracing::debug!(%error, "an upgraded connection broke");
                    exchange.end(RequestEnd::Broken);
                }
                Some(None) | None => {}
            }
            drop((connection, permit));
        });

        let (mut parts, _) = response.into_parts();
        headers::clean_response(&mut parts.headers, &self.base_path);
        upgrade.write(&mut parts.headers);
        Ok(Response::from_parts(parts, ResponseBody::empty()))
    }
}

impl Message {
    fn request(
        &self,
        token: &AccessToken,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, Failure> {
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {}", token.secret())).map_err(|_| {
                Failure::new(
                    Reason::Unauthorized,
                    "the token that the proxy was given has characters that no token has, a line break perhaps; give \
                     it the bare token",
                )
            })?;
        authorization.set_sensitive(true);
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone().into();
        *request.headers_mut() = self.headers.clone();
        request
            .headers_mut()
            .insert(header::AUTHORIZATION, authorization);
        Ok(request)
    }
}
