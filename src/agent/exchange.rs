//! One request on its way through: who asks, what goes on, what comes back.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header, uri::PathAndQuery};
use hyper::upgrade::OnUpgrade;
use tracing::{Instrument, Span};

use super::{
    Core,
    audit::{CallerKind, CallerSummary},
    authorization,
    body::{RequestBody, ResponseBody, UpstreamBody},
    chunked::Asked,
    connection::Scope,
    correlation::{AuditId, CorrelationId},
    identity::Standing,
    impersonation::ActAs,
    lifetime::StreamEnd,
    record::{self, Origin, Places, RequestRecord},
    request_head::RequestHead,
    request_headers::{self, SealedHeaders},
    response_headers,
    status::Refusal,
    upgrade::UpgradeProtocol,
    upstream::{ConnectionTask, UpgradeResponse},
};
use crate::Error;

pub(super) struct Exchange {
    core: Arc<Core>,
    scope: Scope,
    head: RequestHead,
    upgrade: Option<UpgradeProtocol>,
    end: StreamEnd,
    correlation: CorrelationId,
    audit: AuditId,
    span: Span,
}

/// An upgrade that the API server agreed to.
pub(super) struct Switched {
    /// The 101, as the caller gets it.
    pub(super) response: Response<()>,
    pub(super) server: OnUpgrade,
    /// To be held for as long as the upgraded stream lasts.
    pub(super) held: (ConnectionTask, RequestRecord),
}

/// A request that may go to the API server.
struct Admitted {
    method: Method,
    target: PathAndQuery,
    headers: SealedHeaders,
}

impl Exchange {
    pub(super) fn new(core: Arc<Core>, scope: Scope, head: RequestHead) -> Self {
        let correlation = CorrelationId::of(&head.headers);
        let audit = AuditId::generate();
        Self {
            span: record::span(&head, &correlation, audit),
            upgrade: UpgradeProtocol::requested(&head.method, &head.headers),
            end: StreamEnd::default(),
            core,
            scope,
            head,
            correlation,
            audit,
        }
    }

    /// When the stream is to end, with the caller's token.
    pub(super) fn end(&self) -> StreamEnd {
        self.end.clone()
    }

    pub(super) fn core(&self) -> Arc<Core> {
        Arc::clone(&self.core)
    }

    pub(super) fn asked(&self) -> Asked {
        Asked::by(&self.head)
    }

    pub(super) fn upgrade(&self) -> Option<UpgradeProtocol> {
        self.upgrade
    }

    /// Forwards a plain request. Every failure becomes a response.
    ///
    /// # Cancel safety
    /// A dropped future ends the request, upstream too.
    pub(super) async fn forward(self, body: RequestBody) -> Response<ResponseBody> {
        let (span, correlation) = (self.span.clone(), self.correlation.clone());
        let mut record = self.record();
        let forwarded = async {
            record.hold(self.places()?);
            let (core, admitted) = self.admit(&mut record).await?;
            record.set_admitted();
            let lane = admitted.headers.lane();
            let upstream = core.lanes.of(&admitted.headers).send(
                admitted.method,
                admitted.target,
                admitted.headers,
                body.counted(record.traffic()),
            );
            let response = upstream
                .await
                .map_err(|error| upstream_failed(&core, &error))?;
            core.check_credential(lane, &response)?;
            core.redirects.check(response.status())?;
            pass_on(response)
        };
        let response = match forwarded.instrument(span.clone()).await {
            Ok(response) => response.map(ResponseBody::upstream),
            Err(refusal) => refused(refusal, &mut record, &span, &correlation),
        };
        record.set_answered(response.status());
        response.map(|body| body.with_record(record))
    }

    /// Asks the API server for a change of protocol. Whatever is not a 101 is a response, and the last one.
    ///
    /// # Cancel safety
    /// A dropped future ends the request, upstream too.
    pub(super) async fn switch(
        self,
        protocol: UpgradeProtocol,
    ) -> Result<Switched, Response<ResponseBody>> {
        let (span, correlation) = (self.span.clone(), self.correlation.clone());
        let mut record = self.record();
        let asked = async {
            record.hold(self.places()?);
            let (core, admitted) = self.admit(&mut record).await?;
            record.set_admitted();
            let lane = admitted.headers.lane();
            let upstream = core.lanes.of(&admitted.headers).send_upgrade(
                admitted.method,
                admitted.target,
                admitted.headers,
            );
            let upstream = upstream
                .await
                .map_err(|error| upstream_failed(&core, &error))?;
            core.check_credential(lane, &upstream.response)?;
            Answer::of(protocol, upstream)
        };
        let response = match asked.instrument(span.clone()).await {
            Ok(Answer::Switching {
                response,
                server,
                connection,
            }) => {
                record.set_switched();
                return Ok(Switched {
                    response,
                    server,
                    held: (connection, record),
                });
            }
            Ok(Answer::No(response)) => response,
            Err(refusal) => refused(refusal, &mut record, &span, &correlation),
        };
        record.set_answered(response.status());
        Err(response.map(|body| body.with_record(record)))
    }

    /// Takes the request's places. Beyond a limit it is refused, not queued: a queue would only add to the wait of
    /// everybody in it.
    fn places(&self) -> Result<Places, Refusal> {
        let of_connection = Arc::clone(&self.scope.places)
            .try_acquire_owned()
            .map_err(|_| {
                Refusal::too_many_requests("this tunnel connection has too many requests in flight")
            })?;
        let of_agent = Arc::clone(&self.core.places)
            .try_acquire_owned()
            .map_err(|_| Refusal::too_many_requests("the agent has too many requests in flight"))?;
        Ok(Places {
            _of_agent: of_agent,
            _of_connection: of_connection,
        })
    }

    fn record(&self) -> RequestRecord {
        RequestRecord::new(
            Arc::clone(&self.core),
            self.span.clone(),
            &self.head,
            self.upgrade,
            Origin {
                audit: self.audit,
                correlation: self.correlation.clone(),
                remote: self.scope.remote,
                closing: self.scope.closing.clone(),
            },
        )
    }

    /// Everything between a request and its way to the API server.
    async fn admit(self, record: &mut RequestRecord) -> Result<(Arc<Core>, Admitted), Refusal> {
        let Self {
            core,
            scope,
            head,
            upgrade,
            end,
            correlation,
            audit,
            ..
        } = self;
        // First of all, for every method and target: who is asking? The body stays unread until that is known.
        let caller = core.callers.identify(&head, scope.tunnel).await?;
        record.set_caller(summary(&caller.standing));
        record.hold_of_caller(core.caller_places.take(&caller.standing)?);
        core.review(&caller.standing, record, &correlation).await?;
        end.set(core.stream_lifetime, caller.expires_at);
        refuse_browsers(&head.headers)?;
        let target = requested_target(&head)?;
        let (clean, act_as) = request_headers::clean(head.headers, &core.header_policy)?;
        let known = match &caller.standing {
            Standing::Known(identity) => Some(&**identity),
            Standing::OwnToken(_) => None,
        };
        let acting_as = act_as.as_ref().map(ActAs::identity);
        let policy = core.policy.as_ref();
        authorization::check(policy, known, acting_as, &head.method, &target).await?;
        let decision = core.decide(caller.standing, act_as, &correlation).await?;
        let headers = clean.seal(decision, &core.host, audit, &correlation, upgrade)?;
        let admitted = Admitted {
            method: head.method,
            target: core.upstream_target(target)?,
            headers,
        };
        Ok((core, admitted))
    }
}

/// A browser sends `Origin` where a page of another site makes it call. No Kubernetes tool does.
fn refuse_browsers(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.contains_key(header::ORIGIN) {
        return Err(Refusal::forbidden(
            "requests from web pages (with an Origin header) are refused",
            "use kubectl or another program outside the browser",
        ));
    }
    Ok(())
}

/// Path and query, byte for byte.
fn requested_target(head: &RequestHead) -> Result<PathAndQuery, Refusal> {
    if head.method == Method::CONNECT {
        return Err(Refusal::method_not_allowed(
            "CONNECT is refused: the agent reaches the API server and nothing else",
        ));
    }
    head.target
        .path_and_query()
        .filter(|target| target.as_str().starts_with('/'))
        .cloned()
        .ok_or_else(no_path)
}

impl Core {
    /// A target behind the path that the API server's own URL may have.
    pub(super) fn upstream_target(&self, target: PathAndQuery) -> Result<PathAndQuery, Refusal> {
        if self.path_prefix.is_empty() {
            return Ok(target);
        }
        PathAndQuery::from_maybe_shared(format!("{}{target}", self.path_prefix))
            .map_err(|_| no_path())
    }
}

fn no_path() -> Refusal {
    Refusal::malformed("the request's target is not a path")
}

fn pass_on(mut response: Response<UpstreamBody>) -> Result<Response<UpstreamBody>, Refusal> {
    if response.status().is_informational() {
        return Err(Refusal::upstream_misbehaved(format!(
            "the API server answered {} to a request that asked for no change of protocol",
            response.status()
        )));
    }
    response_headers::clean(response.headers_mut());
    Ok(response)
}

/// The API server's answer to a request for a change of protocol.
enum Answer {
    Switching {
        response: Response<()>,
        server: OnUpgrade,
        connection: ConnectionTask,
    },
    No(Response<ResponseBody>),
}

impl Answer {
    /// An error passes on with its body. What is neither that nor a 101 to the protocol that was asked for would, if
    /// it passed on, make one side believe that the protocol had changed.
    fn of(protocol: UpgradeProtocol, upstream: UpgradeResponse) -> Result<Self, Refusal> {
        let UpgradeResponse {
            mut response,
            connection,
        } = upstream;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            response_headers::clean(response.headers_mut());
            return Ok(Self::No(
                response.map(|body| ResponseBody::last(body, connection)),
            ));
        }
        if status != StatusCode::SWITCHING_PROTOCOLS
            || !protocol.is_confirmed_by(response.headers())
        {
            return Err(Refusal::upstream_misbehaved(format!(
                "the API server answered {status} to a request for a change of protocol"
            )));
        }
        let server = hyper::upgrade::on(&mut response);
        response_headers::clean_switching(response.headers_mut(), protocol);
        Ok(Self::Switching {
            response: response.map(|_| ()),
            server,
            connection,
        })
    }
}

/// Who asks, for the record.
fn summary(standing: &Standing) -> CallerSummary<'_> {
    match standing {
        Standing::OwnToken(_) => CallerSummary {
            kind: CallerKind::PassThrough,
            user: None,
            groups: 0,
        },
        Standing::Known(identity) => CallerSummary {
            kind: CallerKind::Impersonate,
            user: Some(identity.user()),
            groups: identity.groups().len(),
        },
    }
}

fn upstream_failed(core: &Core, error: &Error) -> Refusal {
    core.metrics.upstream_failed(error.kind());
    Refusal::upstream_failed(&core.authority, error)
}

fn refused(
    refusal: Refusal,
    record: &mut RequestRecord,
    span: &Span,
    correlation: &CorrelationId,
) -> Response<ResponseBody> {
    record.set_refused(&refusal);
    span.in_scope(|| tracing::info!(?refusal, "request refused"));
    refusal
        .into_response(correlation)
        .map(|body: Bytes| ResponseBody::whole(body))
}
