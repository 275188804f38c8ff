//! [`Relay`]: what all connections share, and the answer to each request.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Request, Response, StatusCode, header, uri::Authority};
use hyper::body::Incoming;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Refusal, Rights,
    attempts::{Attempts, Rate},
    body::RelayBody,
    context::Context,
    emulation::Emulator,
    entity::Entities,
    metrics::Metrics,
    newcomers::Newcomers,
    refusal::Tracking,
    rendezvous::RendezvousTable,
    route::{Action, Target},
    token::Rules,
    warning_limit::Verdict,
};
use crate::clock::Clock;

/// The relay without its socket.
pub(super) struct Relay {
    pub(super) entities: Entities,
    pub(super) rules: Rules,
    /// WebSockets that wait for a listener.
    pub(super) rendezvous: Arc<RendezvousTable>,
    /// HTTP requests that a listener may come for.
    pub(super) request_rendezvous: Arc<RendezvousTable>,
    /// One permit for each request's body in memory.
    pub(super) request_bodies: Semaphore,
    /// The time that tokens are judged by.
    pub(super) clock: Clock,
    pub(super) expiry_grace: Duration,
    /// At this age a control channel is cut, if at all.
    pub(super) recycle_after: Option<Duration>,
    pub(super) emulation: Emulator,
    pub(super) scheme: Scheme,
    pub(super) local_addr: SocketAddr,
    pub(super) max_connections: usize,
    /// One permit for each connection.
    pub(super) connections: Arc<Semaphore>,
    /// Those of them that have not sent a whole request.
    pub(super) newcomers: Arc<Newcomers>,
    pub(super) metrics: Metrics,
    pub(super) attempts: Arc<Attempts>,
    /// Everything ends in good order.
    pub(super) shutdown: CancellationToken,
    /// Everything ends at once.
    pub(super) kill: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// What clients reach the relay with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Ws,
    Wss,
}

/// How long a refused token waits for its 401. Some listeners try again without a pause; for them this is the pause.
pub(super) const UNAUTHORIZED_DELAY: Duration = Duration::from_millis(250);

/// How long every answer waits that says no to who is told so all the time. Longer than the pause of any back-off that is
/// just beginning, and short enough to be heard at a shutdown.
pub(super) const OVER_RATE_DELAY: Duration = Duration::from_secs(2);

pub(super) type Answered = Result<Response<RelayBody>, Refusal>;

impl Relay {
    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// Answers a request; an answer of 101 has its continuation running already.
    pub(super) async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        remote: SocketAddr,
    ) -> Response<RelayBody> {
        let uri = request.uri().clone();
        let target = Target::parse(uri.path(), uri.query());
        let side = target.action.side();
        let response = self.answer_to(request, target, remote).await;
        self.emulation.answer_arrives(side).await;
        response
    }

    async fn answer_to(
        self: &Arc<Self>,
        request: Request<Incoming>,
        target: Target<'_>,
        remote: SocketAddr,
    ) -> Response<RelayBody> {
        let host = self.host(request.headers());
        let context = Context::new(target, host, remote);
        let result = tokio::select! {
            result = self.dispatch(request, &context) => result,
            () = self.shutdown.cancelled() => Err(Refusal::shutting_down()),
        };
        self.metrics
            .answered(context.target.action, result.as_ref().err());
        let refusal = match result {
            Ok(response) => return response,
            Err(refusal) => refusal,
        };
        self.warn(&refusal, &context);
        self.let_wait(&refusal, remote).await;
        let tracking = Tracking {
            id: &context.id,
            host: &context.host,
            path: &context.path,
            now: self.now(),
        };
        refusal.into_response(&tracking).map(RelayBody::Whole)
    }

    async fn dispatch(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        context: &Context<'_>,
    ) -> Answered {
        self.emulation
            .request_arrives(context.target.action.side())
            .await;
        if context.target.action == Action::Forward {
            return self.forward(request, context).await;
        }
        let request = &mut request;
        match context.target.action {
            Action::Accept => self.accept(request, &context.target),
            Action::Request => self.fetch(request, &context.target),
            Action::Listen => {
                let (entity, suffix, expires_at) =
                    self.authorize(request.headers(), context, Rights::LISTEN)?;
                if !suffix.is_empty() {
                    return Err(Refusal::no_entity());
                }
                self.listen(request, context, entity, expires_at)
            }
            Action::Connect => {
                let (entity, suffix, _) =
                    self.authorize(request.headers(), context, Rights::SEND)?;
                let connected = self.connect(request, context, entity, suffix);
                entity.while_it_exists(connected).await
            }
            Action::Forward | Action::Unknown => Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "The sb-hc-action parameter is not one of listen, connect, accept and request",
            )),
        }
    }

    /// What the client calls the relay, with the port.
    pub(super) fn authority(&self, headers: &HeaderMap) -> String {
        headers
            .get(header::HOST)
            .and_then(|host| Authority::try_from(host.as_bytes()).ok())
            .filter(|authority| !authority.as_str().contains('@'))
            .map_or_else(|| self.local_addr.to_string(), |host| host.to_string())
    }

    fn host(&self, headers: &HeaderMap) -> String {
        let authority = self.authority(headers);
        let host = authority
            .parse::<Authority>()
            .map(|authority| authority.host().to_owned());
        host.unwrap_or(authority)
    }

    /// Lets an answer wait for which there was no point in asking, if there is room for it to wait.
    async fn let_wait(&self, refusal: &Refusal, remote: SocketAddr) {
        if !refusal.is_attempt() {
            return;
        }
        let sentence = self.attempts.refused(remote.ip(), Instant::now());
        let delay = match sentence.rate {
            Rate::TooHigh => OVER_RATE_DELAY,
            Rate::Usual if refusal.status() == StatusCode::UNAUTHORIZED => UNAUTHORIZED_DELAY,
            Rate::Usual => return,
        };
        if let Some(_held) = sentence.hold {
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.shutdown.cancelled() => {}
            }
        }
    }

    fn warn(&self, refusal: &Refusal, context: &Context<'_>) {
        if refusal.status() == StatusCode::GONE {
            return;
        }
        let verdict = self.attempts.judge(context.remote.ip(), Instant::now());
        if let Verdict::Log { suppressed } = verdict {
            tracing::warn!(
                remote = %context.remote,
                action = ?context.target.action,
                entity = context.path,
                id = context.id,
                status = refusal.status().as_u16(),
                reason = refusal.text(),
                suppressed,
                "refused a request"
            );
        }
    }

    /// Runs a task until it ends or the relay is killed.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let kill = self.kill.clone();
        self.tasks.spawn(async move {
            kill.run_until_cancelled_owned(task).await;
        });
    }
}

impl Scheme {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }
}
